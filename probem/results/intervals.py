"""How wide q of a site is, entry by entry: standard deviations, and intervals with equal tails."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float
from numpyro.distributions import Distribution

from probem.mean_field.quadrature import grid

# Gauss-Hermite nodes of a variance.
_NODES = 64

#: Quantiles of every entry, from their probabilities.
Quantiles = Callable[[float], Float[np.ndarray, "..."]]


class Width(NamedTuple):
    """Of every entry of a site the standard deviation and an interval, NaN where there is no closed form."""

    sd: Float[np.ndarray, "*site"]
    lower: Float[np.ndarray, "*site"]
    upper: Float[np.ndarray, "*site"]


class _Marginals(NamedTuple):
    """Variances and quantiles of the entries."""

    variance: Float[np.ndarray, "*entries"]
    quantile: Quantiles


def width(q: Distribution, level: float, shape: tuple[int, ...]) -> Width | None:
    """How wide q is, between its quantiles (1 - level) / 2 and (1 + level) / 2; None for a q that is not known here."""
    marginals = _marginals(q)
    if marginals is None:
        return None
    tail = (1.0 - level) / 2.0
    parts = (np.sqrt(marginals.variance), marginals.quantile(tail), marginals.quantile(1.0 - tail))
    return Width(*(np.broadcast_to(part, q.shape()).reshape(shape) for part in parts))


def _marginals(q: Any) -> _Marginals | None:
    for kind, read in _KINDS.items():
        if type(q) is kind:
            with np.errstate(divide="ignore", invalid="ignore"):
                return read(q)
    if isinstance(q, dist.Independent) or (
        isinstance(q, dist.TransformedDistribution)
        and all(isinstance(step, dist.transforms.ReshapeTransform) for step in q.transforms)
    ):
        inner = _marginals(q.base_dist)
        if inner is None:
            return None
        shape, parts = q.shape(), inner
        return _Marginals(
            np.reshape(parts.variance, shape), lambda probability: np.reshape(parts.quantile(probability), shape)
        )
    if isinstance(q, dist.TransformedDistribution) and all(map(_is_elementwise, q.transforms)):
        return _image_of_normal(q)
    return None


def _is_elementwise(step: Any) -> bool:
    """Whether a transform makes every entry of its value from one entry."""
    while isinstance(step, dist.transforms.IndependentTransform):
        step = step.base_transform
    if isinstance(step, dist.transforms.ComposeTransform):
        return all(map(_is_elementwise, step.parts))
    return not (step.domain.event_dim or step.codomain.event_dim)


def _numbers(q: Any, *names: str) -> list[np.ndarray]:
    """Arguments in float64, broadcast against each other."""
    return list(np.broadcast_arrays(*(np.asarray(getattr(q, name), float) for name in names)))


def _normal(q: Any) -> _Marginals:
    loc, scale = _numbers(q, "loc", "scale")
    return _of_normal(loc, scale)


def _image_of_normal(q: Any) -> _Marginals | None:
    """Of every entry by itself the image of a normal number, by a function that rises or falls."""
    from scipy.special import ndtri

    normal = _marginals(q.base_dist)
    base = q.base_dist
    while isinstance(base, dist.Independent):
        base = base.base_dist
    if normal is None or not isinstance(base, dist.Normal | dist.MultivariateNormal):
        return None
    loc, scale = normal.quantile(0.5), np.sqrt(normal.variance)

    def image(normal: Any) -> Float[np.ndarray, "..."]:
        """Of a normal number for every entry, or one for all."""
        value = jnp.asarray(loc + scale * normal)
        with jax.ensure_compile_time_eval():
            for step in q.transforms:
                value = step(value)
        return np.asarray(value, float)

    nodes, weights = grid(_NODES, 1)
    values = np.stack([image(node) for node in nodes[:, 0]], -1)
    mean = values @ weights
    variance = ((values - mean[..., None]) ** 2) @ weights
    rises = image(np.ones(())) >= image(np.zeros(()))
    return _Marginals(variance, lambda probability: image(np.where(rises, 1.0, -1.0) * ndtri(probability)))


def _multivariate_normal(q: Any) -> _Marginals:
    scale = np.sqrt(np.diagonal(np.asarray(q.covariance_matrix, float), axis1=-2, axis2=-1))
    return _of_normal(*np.broadcast_arrays(np.asarray(q.loc, float), scale))


def _of_normal(loc: Float[np.ndarray, "*entries"], scale: Float[np.ndarray, "*entries"]) -> _Marginals:
    from scipy.special import ndtri

    return _Marginals(scale**2, lambda probability: loc + scale * ndtri(probability))


def _student(q: Any) -> _Marginals:
    return _of_student(*_numbers(q, "df", "loc", "scale"))


def _multivariate_student(q: Any) -> _Marginals:
    scale = np.sqrt((np.asarray(q.scale_tril, float) ** 2).sum(-1))
    freedom = np.asarray(q.df, float)[..., None]
    return _of_student(*np.broadcast_arrays(freedom, np.asarray(q.loc, float), scale))


def _of_student(
    freedom: Float[np.ndarray, "*entries"], loc: Float[np.ndarray, "*entries"], scale: Float[np.ndarray, "*entries"]
) -> _Marginals:
    from scipy.special import stdtrit

    variance = np.where(freedom > 2.0, scale**2 * freedom / (freedom - 2.0), np.inf)
    return _Marginals(variance, lambda probability: loc + scale * stdtrit(freedom, probability))


def _dirichlet(q: Any) -> _Marginals:
    """Of each entry by itself a beta distribution."""
    first = np.asarray(q.concentration, float)
    return _of_beta(first, first.sum(-1, keepdims=True) - first)


def _beta(q: Any) -> _Marginals:
    return _of_beta(*_numbers(q, "concentration1", "concentration0"))


def _of_beta(first: Float[np.ndarray, "*entries"], second: Float[np.ndarray, "*entries"]) -> _Marginals:
    from scipy.special import betaincinv

    total = first + second
    variance = first * second / (total**2 * (total + 1.0))
    # A simplex of one entry is 1.
    sure = second <= 0.0
    return _Marginals(
        np.where(sure, 0.0, variance),
        lambda probability: np.where(sure, 1.0, betaincinv(first, np.where(sure, 1.0, second), probability)),
    )


def _gamma(q: Any) -> _Marginals:
    return _of_gamma(*_numbers(q, "concentration", "rate"))


def _of_gamma(shape: Float[np.ndarray, "*entries"], rate: Float[np.ndarray, "*entries"]) -> _Marginals:
    from scipy.special import gammaincinv

    return _Marginals(shape / rate**2, lambda probability: gammaincinv(shape, probability) / rate)


def _inverse_gamma(q: Any) -> _Marginals:
    return _of_inverse_gamma(*_numbers(q, "concentration", "rate"))


def _of_inverse_gamma(shape: Float[np.ndarray, "*entries"], rate: Float[np.ndarray, "*entries"]) -> _Marginals:
    from scipy.special import gammainccinv

    variance = np.where(shape > 2.0, rate**2 / ((shape - 1.0) ** 2 * (shape - 2.0)), np.inf)
    return _Marginals(variance, lambda probability: rate / gammainccinv(shape, probability))


def _wishart(q: Any) -> _Marginals:
    """Var Lambda_ij = nu (V_ij^2 + V_ii V_jj), V = R^-1; an entry of the diagonal is V_ii times a chi-square of nu."""
    freedom = np.asarray(q.concentration, float)[..., None]
    scale = np.linalg.inv(np.asarray(q.rate_matrix, float))
    diagonal = np.diagonal(scale, axis1=-2, axis2=-1)
    variance = freedom[..., None] * (scale**2 + diagonal[..., :, None] * diagonal[..., None, :])
    on_diagonal = _of_gamma(*np.broadcast_arrays(0.5 * freedom, 0.5 / diagonal))
    return _Marginals(variance, lambda probability: _along_diagonal(on_diagonal.quantile(probability)))


def _inverse_wishart(q: Any) -> _Marginals:
    """An entry of the diagonal is inverse gamma with shape (nu - D + 1) / 2 and rate R_ii / 2. The variances: Gelman et
    al. (2013), Bayesian Data Analysis, appendix A.
    """
    rate = np.asarray(q.scale_matrix, float)
    dim = rate.shape[-1]
    freedom = np.asarray(q.concentration, float)[..., None] - dim
    diagonal = np.diagonal(rate, axis1=-2, axis2=-1)
    products = diagonal[..., :, None] * diagonal[..., None, :]
    nu = freedom[..., None]
    variance = ((nu + 1.0) * rate**2 + (nu - 1.0) * products) / (nu * (nu - 1.0) ** 2 * (nu - 3.0))
    on_diagonal = _of_inverse_gamma(*np.broadcast_arrays(0.5 * (freedom + 1.0), 0.5 * diagonal))
    return _Marginals(
        np.where(nu > 3.0, variance, np.inf), lambda probability: _along_diagonal(on_diagonal.quantile(probability))
    )


def _along_diagonal(values: Float[np.ndarray, "*batch D"]) -> Float[np.ndarray, "*batch D D"]:
    """A matrix with these on its diagonal, and NaN beside it: those quantiles have no closed form."""
    return np.where(np.eye(values.shape[-1], dtype=bool), values[..., None], np.nan)


_KINDS: dict[Any, Callable[[Any], _Marginals]] = {
    dist.Normal: _normal,
    dist.MultivariateNormal: _multivariate_normal,
    dist.StudentT: _student,
    dist.MultivariateStudentT: _multivariate_student,
    dist.Dirichlet: _dirichlet,
    dist.Beta: _beta,
    dist.Gamma: _gamma,
    dist.InverseGamma: _inverse_gamma,
    dist.Wishart: _wishart,
    dist.InverseWishart: _inverse_wishart,
}
