"""The Bayesian Gaussian mixture."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from .bayesian_covariance import Component, full
from .priors import GaussianPrior
from .weights import dirichlet


def bayesian_gmm(
    x: jax.Array,
    *,
    num_components: int,
    prior: GaussianPrior,
    covariance: Callable[[int, GaussianPrior], Component] = full,
    weights: Callable[[int], jax.Array] = dirichlet,
) -> None:
    """Gaussian mixture with conjugate priors: weights ~ Dirichlet, precision_k ~ Wishart, loc_k | precision_k ~ Normal.

    Parameters
    ----------
    x : Float[Array, "N D"]
    num_components : K
    prior : of locations and covariances; ``GaussianPrior.from_data(x, K)`` is weakly informative
    covariance : a structure of ``probem.models.bayesian_covariance``
    weights : a function of ``probem.models.weights``, such as ``functools.partial(dirichlet, concentration=0.1)``

    Source: Bishop (2006), Pattern Recognition and Machine Learning, eqs. 10.38-10.40.
    """
    mean, scatter = jnp.shape(prior.mean), jnp.shape(prior.scatter)
    if mean != x.shape[-1:] or scatter != 2 * x.shape[-1:]:
        raise ValueError(
            f"a prior of mean {mean} and scatter {scatter} for {x.shape[-1]} columns;"
            " GaussianPrior.from_data makes one that fits"
        )
    mixing = weights(num_components)
    component = covariance(num_components, prior)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=mixing))
        numpyro.sample("x", component(t), obs=x)
