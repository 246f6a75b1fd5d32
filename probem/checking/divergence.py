"""Kullback-Leibler divergences between NumPyro's distributions, in closed form."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, multigammaln, rel_entr
from jaxtyping import Array, Float
from numpyro.distributions.kl import kl_divergence

Divergence = Callable[[Any, Any], Float[Array, "..."]]


def _bernoulli(p: Any, q: Any) -> Float[Array, "..."]:
    return rel_entr(p.probs, q.probs) + rel_entr(1 - p.probs, 1 - q.probs)


def _poisson(p: Any, q: Any) -> Float[Array, "..."]:
    return rel_entr(p.rate, q.rate) - p.rate + q.rate


def _exponential(p: Any, q: Any) -> Float[Array, "..."]:
    ratio = q.rate / p.rate
    return ratio - 1 - jnp.log(ratio)


def _geometric(p: Any, q: Any) -> Float[Array, "..."]:
    return _bernoulli(p, q) / p.probs


def _binomial(p: Any, q: Any) -> Float[Array, "..."]:
    return p.total_count * _bernoulli(p, q)


def _categorical(p: Any, q: Any) -> Float[Array, "..."]:
    return rel_entr(p.probs, q.probs).sum(-1)


def _beta(p: Any, q: Any) -> Float[Array, "..."]:
    """As Dirichlet distributions: JAX has the logarithm of the beta function to seven digits only."""

    def of_two(beta: Any) -> Any:
        pair = jnp.broadcast_arrays(beta.concentration1, beta.concentration0)
        return dist.Dirichlet(jnp.stack(pair, axis=-1))

    return kl_divergence(of_two(p), of_two(q))


def _inverse_gamma(p: Any, q: Any) -> Float[Array, "..."]:
    """Of the inverses, which the map does not change."""
    return kl_divergence(dist.Gamma(p.concentration, p.rate), dist.Gamma(q.concentration, q.rate))


#: Those that NumPyro lacks, by class; each of them follows from E_p[log p(x) - log q(x)] and the mean of x.
_BY_CLASS: dict[type, Divergence] = {
    dist.Beta: _beta,
    dist.BernoulliProbs: _bernoulli,
    dist.BernoulliLogits: _bernoulli,
    dist.BinomialProbs: _binomial,
    dist.BinomialLogits: _binomial,
    dist.CategoricalLogits: _categorical,
    dist.CategoricalProbs: _categorical,
    dist.Exponential: _exponential,
    dist.GeometricLogits: _geometric,
    dist.GeometricProbs: _geometric,
    dist.InverseGamma: _inverse_gamma,
    dist.InverseWishart: lambda p, q: _wishart(p, q, jnp.linalg.inv(p.scale_matrix), jnp.linalg.inv(q.scale_matrix)),
    dist.Poisson: _poisson,
    dist.Wishart: lambda p, q: _wishart(p, q, jnp.asarray(p.scale_matrix), jnp.asarray(q.scale_matrix)),
}


def divergence(p: Any, q: Any) -> Float[Array, "..."]:
    """KL(p || q) of two distributions of one class, nats, over their batch shapes.

    Raises
    ------
    NotImplementedError
        Where no closed form is known.
    """
    # What a plate expands is summed over as it is written.
    if isinstance(p, dist.ExpandedDistribution | dist.Independent) or isinstance(q, dist.ExpandedDistribution):
        return _unwrapped(p, q)
    if type(p) is not type(q):
        raise NotImplementedError(f"a divergence of {type(p).__name__} from {type(q).__name__}")
    return _BY_CLASS.get(type(p), kl_divergence)(p, q)


def _unwrapped(p: Any, q: Any) -> Float[Array, "..."]:
    if isinstance(p, dist.ExpandedDistribution):
        return jnp.broadcast_to(divergence(p.base_dist, q), p.batch_shape)
    if isinstance(q, dist.ExpandedDistribution):
        return jnp.broadcast_to(divergence(p, q.base_dist), q.batch_shape)
    if not isinstance(q, dist.Independent) or p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError(f"a divergence of {type(p).__name__} from {type(q).__name__}")
    each = jnp.broadcast_to(divergence(p.base_dist, q.base_dist), p.base_dist.batch_shape)
    return each.sum(tuple(range(-p.reinterpreted_batch_ndims, 0)))


def _wishart(p: Any, q: Any, scale: Float[Array, "... D D"], other: Float[Array, "... D D"]) -> Float[Array, "..."]:
    """Of W(nu, V) from W(nu', V'): Bishop (2006), eq. B.79, term by term."""
    dof, dof_of_q, size = jnp.asarray(p.concentration), jnp.asarray(q.concentration), scale.shape[-1]
    log_det, log_det_of_q = jnp.linalg.slogdet(scale)[1], jnp.linalg.slogdet(other)[1]
    digammas = digamma(0.5 * (dof[..., None] - jnp.arange(size)))
    trace = jnp.trace(jnp.linalg.solve(other, scale), axis1=-2, axis2=-1)
    return (
        0.5 * dof_of_q * (log_det_of_q - log_det)
        + 0.5 * dof * (trace - size)
        + multigammaln(0.5 * dof_of_q, size)
        - multigammaln(0.5 * dof, size)
        + 0.5 * (dof - dof_of_q) * digammas.sum(-1)
    )
