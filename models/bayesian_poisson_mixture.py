"""A Bayesian mixture of Poisson counts."""

from collections.abc import Callable

import jax
import numpyro
import numpyro.distributions as dist

from .priors import RatePrior
from .weights import dirichlet


def bayesian_poisson_mixture(
    x: jax.Array, *, num_components: int, prior: RatePrior, weights: Callable[[int], jax.Array] = dirichlet
) -> None:
    """Mixture of independent Poisson counts with gamma priors: rate_kd ~ Gamma, x_nd | t_n ~ Poisson(rate[t_n, d]).

    Parameters
    ----------
    x : Int[Array, "N D"]
    num_components : K
    prior : of the rates; ``RatePrior.from_data(x)`` is worth one row
    weights : a function of ``probem.models.weights``

    Source: Murphy (2022), Probabilistic Machine Learning: An Introduction, section 4.6.2 (the conjugate pair).
    """
    mixing = weights(num_components)
    with numpyro.plate("components", num_components):
        rate = numpyro.sample("rate", dist.Gamma(prior.shape, prior.rate).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=mixing))
        numpyro.sample("x", dist.Poisson(rate[t]).to_event(1), obs=x)
