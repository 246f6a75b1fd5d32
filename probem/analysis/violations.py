"""Whether densities depend on their parameters, where q lies, as the plan made them out to do."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from probem.analysis.factors import arguments_and_sources, evaluate
from probem.exponential import Density
from probem.form.form import ExponentialForm
from probem.jit.compilation import concrete
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
        arguments, sources = evaluate(mean_field.form, _in_float64(params), conjugate=_views(mean_field))
    arguments, sources = jax.tree.map(lambda leaf: leaf[None], (arguments, sources))
    return next((name for name, broken in _broken(mean_field, arguments, sources, drawn) if broken[0]), None)


def _are_broken(mean_field: MeanField, params: Params, drawn: bool) -> Bool[np.ndarray, " B"]:
    """Whether there is such a site, of values ``[B, ...]``."""
    with jax.enable_x64(True):
        arguments, sources = _evaluated(mean_field.form, _in_float64(params), conjugate=_views(mean_field))
    return np.any([broken for _, broken in _broken(mean_field, arguments, sources, drawn)], axis=0)


@concrete
def _evaluated(form: ExponentialForm, params: Params, *, conjugate: Mapping[str, Density]) -> Any:
    """``arguments_and_sources`` of values ``[B, ...]``."""
    return jax.vmap(lambda values: arguments_and_sources(form, conjugate, values))(params)


def _in_float64(params: Params) -> dict[str, np.ndarray]:
    return {name: np.asarray(value, np.float64) for name, value in params.items()}


def _views(mean_field: MeanField) -> dict[str, Density]:
    views = {site.name: site.view for site in mean_field.sites}
    return {name: view for name, view in sorted(views.items()) if view is not None}


def _broken(
    mean_field: MeanField,
    arguments: Mapping[str, Mapping[str, Float[np.ndarray, "B ..."]]],
    sources: Mapping[str, Float[np.ndarray, "B _"]],
    drawn: bool,
) -> Iterator[tuple[str, Bool[np.ndarray, " B"]]]:
    """Of every density and edge, whether the arguments are something else."""
    for name, factor in mean_field.factors.items():
        for group in ("location", "statistics"):
            edge = getattr(factor, group)
            if edge is None:
                continue
            flat = np.concatenate([sources[site].reshape(len(sources[site]), -1) for site in edge.sites], axis=1)
            with np.errstate(invalid="ignore"):  # an infinite value with a coefficient of zero
                said = edge.offset + (edge.coefficient * flat[:, edge.index]).sum(-1)
            actual = arguments[name][group].reshape(said.shape)
            there, size = np.isfinite(actual), np.abs(np.where(np.isfinite(actual), actual, 0.0))
            allowed = _BROKEN * size + _ROUNDED * size.max(axis=1, keepdims=True, initial=0.0)
            with np.errstate(invalid="ignore"):
                alike = there & (np.abs(said - actual) <= allowed)
            yield name, (np.isfinite(said) & (there | (not drawn)) & ~alike).any(axis=1)


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
    for look, values in _looks(mean_field, params, points, covariances):
        if values is None:
            continue  # a covariance that is none, to rounding: nothing can be said of draws
        site = find_violation(mean_field, values, drawn=look > 0)
        if site is not None:
            return site
    return None


def are_violated(mean_field: MeanField, params: Params) -> Bool[np.ndarray, " B"]:
    """Whether there is such a site, of many q, ``[B, ...]``, each looked at where it is by itself. Of a q that is not
    finite nothing is said.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(params)]
    finite = np.all([np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in leaves], axis=0)
    violated = np.zeros(len(finite), bool)
    if not (mean_field.sites and finite.any()):
        return violated
    chosen = jax.tree.map(lambda leaf: np.asarray(leaf)[finite], params)
    centres = jax.tree.map(np.asarray, _centres(mean_field, chosen))
    looks: list[list[Params]] = []
    for number in range(finite.sum()):
        one, (points, covariances) = jax.tree.map(lambda leaf, number=number: leaf[number], (chosen, centres))
        # Nothing can be said of draws of a covariance that is none: the mean is looked at again.
        values = (values for _, values in _looks(mean_field, one, points, covariances))
        looks.append([points if value is None else value for value in values])
    for look, every in enumerate(zip(*looks, strict=True)):
        together = jax.tree.map(lambda *leaves: np.stack(leaves), *every)
        violated[finite] |= _are_broken(mean_field, together, drawn=look > 0)
    return violated


@concrete
def _centres(mean_field: MeanField, params: Params) -> Any:
    """``MeanField.centre`` of many q, ``[B, ...]``."""
    return jax.vmap(mean_field.centre_in_trace)(params)


def _looks(
    mean_field: MeanField, params: Params, points: Params, covariances: Mapping[str, Float[np.ndarray, "_ _ _"]]
) -> Iterator[tuple[int, Params | None]]:
    """The values at which a program is looked at: the mean of q, then draws, each None where a covariance is none."""
    random = np.random.default_rng(0)
    yield 0, points
    for look in range(1, _NUM_LOOKS if mean_field.is_bayesian else 1):
        try:
            yield look, _drawn(mean_field, params, points, covariances, random)
        except np.linalg.LinAlgError:
            yield look, None


def violated_at_centre(mean_field: MeanField, params: Params) -> Bool[Array, ""]:
    """Whether there is such a site, inside a trace, by the mean of q alone."""
    arguments, sources = arguments_and_sources(mean_field.form, _views(mean_field), mean_field.points(params))
    return is_violated(mean_field.factors, arguments, sources)


def _drawn(
    mean_field: MeanField,
    params: Params,
    points: Params,
    covariances: Mapping[str, Float[np.ndarray, "_ _ _"]],
    random: np.random.Generator,
) -> Params:
    values = dict(points)
    for site in mean_field.by_name.values():
        if not site.is_point:
            values[site.name] = site.draw(params[site.name], points[site.name], covariances.get(site.name), random)
    return values
