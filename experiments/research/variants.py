"""A program of one's own, as an experiment compares it with those of ``probem.models``."""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def pooled_precision(
    x: jax.Array, *, num_components: int, strength: float = 0.01, shape: float = 2.0, concentration: float = 1.0
) -> None:
    """Gaussian mixture of standardised columns, whose components share how precise they are, which is learned too.

    spread_d ~ Gamma(1, 1), precision_kd ~ Gamma(shape, spread_d), loc_kd ~ Normal(0, 1 / sqrt(strength precision_kd)).

    Parameters
    ----------
    x : Float[Array, "N D"], of mean 0 and variance 1 in every column
    num_components : K
    strength : rows that the prior of a location is worth
    shape : of the precisions, the larger the more alike they are
    concentration : of the weights
    """
    weights: Any = numpyro.sample("weights", dist.Dirichlet(jnp.full(num_components, concentration)))
    spread: Any = numpyro.sample("spread", dist.Gamma(1.0, jnp.ones(x.shape[-1])).to_event(1))
    with numpyro.plate("components", num_components):
        precision: Any = numpyro.sample("precision", dist.Gamma(shape, spread).to_event(1))
        loc: Any = numpyro.sample("loc", dist.Normal(0.0, 1 / jnp.sqrt(strength * precision)).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t: Any = numpyro.sample("t", dist.CategoricalProbs(weights))
        numpyro.sample("x", dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])).to_event(1), obs=x)
