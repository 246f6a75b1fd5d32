"""Whether densities depend on their parameters, where q lies, as the plan made them out to do."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from probem.analysis.factors import arguments_and_sources, evaluate
from probem.mean_field.factors import ConjugateFactor
from probem.mean_field.mean_field import MeanField
from probem.program.sites import Params

# How far an argument is from what its edge says where the edge is wrong: a part of it, and of the largest beside it.
_BROKEN, _ROUNDED = 1e-3, 1e-6


def find_violation(mean_field: MeanField, params: Params, drawn: bool = False) -> str | None:
    """The site of a density whose arguments, at these values, are not what the edges say; None where all are.

    Values that were ``drawn`` may lie where a logarithm or an inverse overflows, which says nothing.
    """
    with jax.enable_x64(True):
        values = {name: np.asarray(value, np.float64) for name, value in params.items()}
        views = {name: site.view for name, site in sorted(mean_field.by_name.items())}
        arguments, sources = evaluate(mean_field.form, values, conjugate=views)
    for name, factor in mean_field.factors.items():
        for group in ("location", "statistics"):
            edge = getattr(factor, group)
            if edge is None:
                continue
            flat = np.concatenate([sources[site].reshape(-1) for site in edge.sites])
            said = (edge.offset + (edge.coefficient * flat[edge.index]).sum(1)).reshape(edge.shape)
            actual = arguments[name][group]
            finite = np.isfinite(said) & (np.isfinite(actual) | (not drawn))
            said, actual = said[finite], actual[finite]
            if not np.allclose(said, actual, rtol=_BROKEN, atol=_ROUNDED * np.abs(actual).max(initial=0.0)):
                return name
    return None


def is_violated(
    factors: Mapping[str, ConjugateFactor],
    arguments: Mapping[str, Mapping[str, Float[Array, "..."]]],
    sources: Mapping[str, Float[Array, " _"]],
) -> Bool[Array, ""]:
    """Whether there is such a density, inside a trace; ``arguments`` and ``sources`` are ``arguments_and_sources``."""
    broken = jnp.zeros((), bool)
    for name, factor in factors.items():
        for group in ("location", "statistics"):
            edge = getattr(factor, group)
            if edge is None:
                continue
            said, actual = edge.apply(sources), arguments[name][group]
            finite = jnp.isfinite(said)
            # These may be numbers of half the digits.
            rounded = max(_ROUNDED, 64 * float(jnp.finfo(actual.dtype).eps))
            allowed = _BROKEN * jnp.abs(actual) + rounded * jnp.where(finite, jnp.abs(actual), 0.0).max(initial=0.0)
            broken = broken | (finite & ~(jnp.abs(said - actual) <= allowed)).any()
    return broken


# Where a fitted q is held against the program: at its mean, and at two draws.
_NUM_LOOKS = 3


def conjugacy_violation(mean_field: MeanField, params: Params) -> str | None:
    """The site of a density that is not, where q lies, what the random values of the plan made it out to be.

    A program may clip a value, or add a number too small to be seen there. It is run at the mean of q and at draws, in
    which a location has the covariance that it has for the mean of what it is tied to.
    """
    if not mean_field.sites:
        return None
    points, covariances = mean_field.centre(params)
    random = np.random.default_rng(0)
    for look in range(_NUM_LOOKS if mean_field.is_bayesian else 1):
        try:
            values = _drawn(mean_field, params, points, covariances, random) if look else points
        except np.linalg.LinAlgError:
            continue  # a covariance that is none, to rounding: nothing can be said of draws
        site = find_violation(mean_field, values, drawn=look > 0)
        if site is not None:
            return site
    return None


def violated_at_centre(mean_field: MeanField, params: Params) -> Bool[Array, ""]:
    """Whether there is such a site, inside a trace, by the mean of q alone."""
    views = {site.name: site.view for site in mean_field.sites}
    arguments, sources = arguments_and_sources(mean_field.form, views, mean_field.points(params))
    return is_violated(mean_field.factors, arguments, sources)


def _drawn(
    mean_field: MeanField,
    params: Params,
    points: Params,
    covariances: Mapping[str, Float[np.ndarray, "_ _ _"]],
    random: np.random.Generator,
) -> Params:
    values = dict(points)
    for site in mean_field.sites:
        if not site.is_point:
            values[site.name] = site.draw(params[site.name], points[site.name], covariances.get(site.name), random)
    return values
