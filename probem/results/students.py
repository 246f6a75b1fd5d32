"""Normal and Student t densities of events under every component: around locations, and around linear predictors."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float

from probem.exponential.linalg import cholesky, inverse_triangular, log_det


class Locations(NamedTuple):
    """Normals or, with degrees of freedom, Student t's, over C copies of D entries. The ``factor`` of the scales is
    None where values may be missing, and they have to be cut.
    """

    mean: Float[Array, "K C D"]
    scale: Float[Array, "K C D D"]
    freedom: Float[Array, "K C"] | None
    factor: "Factor | None"


class Predictors(NamedTuple):
    """Normals or, with degrees of freedom, Student t's around linear predictors: mean and covariance of the
    coefficients, and the variance of a value around its predictor, over C copies. With degrees of
    ``freedom`` variances are squared scales; there is one of them where the copies share one precision.
    """

    mean: Float[Array, "K C Q"]
    covariance: Float[Array, "K C Q Q"]
    variance: Float[Array, "K C"]
    freedom: Float[Array, "K _"] | None


class Factor(NamedTuple):
    """What makes residuals white, and log |scale|."""

    whitening: Float[Array, "*batch D D"]
    log_volume: Float[Array, "*batch"]

    @classmethod
    def of(cls, scale: Float[Array, "*batch D D"]) -> "Factor":
        """Of every scale matrix."""
        return cls(inverse_triangular(cholesky(scale)), log_det(scale))


def around_location(
    made: Locations, events: tuple[Float[Array, "n 1 C ..."], Bool[Array, "n 1 C ..."]]
) -> Float[Array, "n K"]:
    """The log density of events, of which the entries that were observed."""
    x, observed = (each.reshape(len(each), 1, *made.mean.shape[1:]) for each in events)
    return _student(x, made, observed if made.factor is None else None).sum(2)


def around_predictor(
    made: Predictors, events: Float[Array, "n C D"], observed: Bool[Array, "n C D"]
) -> Float[Array, "n K"]:
    """The log density of values given their covariates, summed over the copies that were observed. Source: Bishop
    (2006), eq. 3.58.
    """
    values, covariates = events[..., 0], events[..., 1:]
    if made.mean.shape[2] > covariates.shape[2]:
        covariates = jnp.concatenate([covariates, jnp.ones((*covariates.shape[:-1], 1), covariates.dtype)], -1)
    residual = values[:, None] - jnp.einsum("ncq,kcq->nkc", covariates, made.mean)
    variance = made.variance + jnp.einsum("ncq,kcqr,ncr->nkc", covariates, made.covariance, covariates)
    here = observed.any(-1)[:, None]
    square, log_volume = (jnp.where(here, part, 0.0) for part in (residual**2 / variance, jnp.log(variance)))
    dim = jnp.broadcast_to(here, square.shape).astype(square.dtype)
    freedom = made.freedom
    if freedom is not None and freedom.shape[1] < square.shape[2]:
        square, log_volume, dim = (part.sum(2, keepdims=True) for part in (square, log_volume, dim))
    return _log_student((square, log_volume), dim, freedom).sum(2)


def _student(x: Float[Array, "n 1 C D"], made: Locations, seen: Bool[Array, "n 1 C D"] | None) -> Float[Array, "n K C"]:
    """log t(x | freedom, mean, scale) or, without ``freedom``, log N(x | mean, scale), over the last axis.

    Of the entries that are ``seen`` alone, if it is given. Source: Bishop (2006), eqs. 2.43 and 2.162.
    """
    residual, scale, freedom = x - made.mean, made.scale, made.freedom
    if seen is None:
        assert made.factor is not None
        dim, factor = scale.shape[-1], made.factor
        white = jnp.einsum("kcij,nkcj->nkci", factor.whitening, residual)
    else:
        dim = seen.sum(-1).astype(scale.dtype)
        scale = jnp.where(seen[..., :, None] & seen[..., None, :], scale[None], jnp.eye(scale.shape[-1]))
        factor = Factor.of(scale)
        white = jnp.matmul(factor.whitening, jnp.where(seen, residual, 0.0)[..., None])[..., 0]
    return _log_student(((white**2).sum(-1), factor.log_volume), dim, freedom)


def _log_student(
    terms: tuple[Float[Array, "n K C"], Float[Array, "..."]], dim: Any, freedom: Float[Array, "..."] | None
) -> Float[Array, "n K C"]:
    """log t or, without ``freedom``, log N, of events of ``dim`` entries, from their squared distances in units of the
    scale and the log determinants of that.
    """
    square, log_volume = terms
    if freedom is None:
        return -0.5 * (square + log_volume + dim * math.log(2.0 * math.pi))
    constant = gammaln(0.5 * (freedom + dim)) - gammaln(0.5 * freedom) - 0.5 * dim * jnp.log(freedom * math.pi)
    return constant - 0.5 * log_volume - 0.5 * (freedom + dim) * jnp.log1p(square / freedom)
