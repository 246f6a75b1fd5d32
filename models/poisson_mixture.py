"""A mixture of Poisson counts."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from .weights import free


def poisson_mixture(x: jax.Array, *, num_components: int) -> None:
    """Mixture of independent Poisson counts: x_nd | t_n ~ Poisson(rate[t_n, d]).

    Parameters
    ----------
    x : Int[Array, "N D"]
    num_components : K

    Source: McLachlan & Peel (2000), Finite Mixture Models, section 5.4.
    """
    weights = free(num_components)
    initial = jnp.linspace(0.5, 1.5, num_components)[:, None] * jnp.ones(x.shape[-1])
    rate = numpyro.param("rate", initial, constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Poisson(rate[t]).to_event(1), obs=x)
