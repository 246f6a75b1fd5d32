"""The Gaussian mixture."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from .covariance import Component, full
from .weights import free


def gmm(
    x: jax.Array,
    *,
    num_components: int,
    covariance: Callable[[int, int], Component] = full,
    weights: Callable[[int], jax.Array] = free,
) -> None:
    """Gaussian mixture: t_n ~ Categorical(weights), x_n | t_n ~ N(loc[t_n], covariance[t_n]).

    Parameters
    ----------
    x : Float[Array, "N D"]
    num_components : K
    covariance : a structure of ``probem.models.covariance``
    weights : ``free`` or ``equal`` of ``probem.models.weights``

    Source: Bishop (2006), Pattern Recognition and Machine Learning, eqs. 9.7 and 9.10-9.12.
    """
    dim = x.shape[-1]
    mixing = weights(num_components)
    loc = numpyro.param("loc", jnp.zeros((num_components, dim)))
    component = covariance(num_components, dim)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=mixing))
        numpyro.sample("x", component(loc[t], t), obs=x)
