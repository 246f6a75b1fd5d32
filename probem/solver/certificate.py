"""What a fit that has ended proves of itself: the nats that are still promised, edges that it stands on, saddles.

A rise that became small is no proof of a maximum. EM stays for good where two components are one (their shares of a row
cannot tell them apart), and a parameter that reaches the edge of its constraint has no slope left in it.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from probem.form.statistics import Statistics
from probem.jit.compilation import Effort, by_plan
from probem.m_step.numeric.problem import Promise
from probem.mean_field.mean_field import objective
from probem.plan.plan import Plan
from probem.program.fixed import hold
from probem.program.sites import Params

# A value is on an edge where its distance from it is this fraction of the width of the constraint.
_EDGE = 1e-8
# Nats a row by which two components may differ (the symmetrised KL divergence) and still be one, and by which they may
# be on their way to become one: EM is slowest beside such a saddle, towards it and away from it.
_TWINS, _NEARLY = 1e-8, 1e-4
# Components with less than this fraction of their share of the rows say nothing; with less than the other, nothing of
# whether they are nearly one: under a full posterior, those without rows are all what the prior says.
_RARE, _RARELY = 1e-3, 0.1
# Logits by which twins are moved apart in every row at random, beside those along the data, and the most of these.
_SPREAD, _FARTHEST = 0.05, 3.0
# Unconstrained steps away from an edge, e-folds of what is positive: far enough that the objective has to notice, if it
# knows the parameter at all.
_AWAY = (3.0, 10.0, 30.0)


def numeric_promise(plan: Plan, fit_params: Params, statistics: Statistics, allowed: float) -> tuple[Promise, Params]:
    """What a further maximisation over the parameters of the numeric route would gain at fixed q; and masks of those on
    an edge, by name: nearer to it the objective stays as it is, and away from it, it falls by more than the nats
    ``allowed``.
    """
    limit = jnp.asarray(allowed, plan.dtype)
    promise, masks = jax.device_get(_numeric_promise(plan, fit_params, statistics, limit))
    return promise, {name: mask for name, mask in masks.items() if mask.any()}


@functools.partial(by_plan, effort=Effort.LEAST)
def _numeric_promise(
    plan: Plan, params: Params, statistics: Statistics, allowed: Float[Array, ""]
) -> tuple[Promise, Params]:
    # Its optimiser takes most of a second to import, which programs of closed forms do not need.
    from probem.m_step.numeric.updates import promised

    masks = {}
    for name in set(plan.numeric) - set(plan.mean_field.full):
        bijection = plan.program.bijection(name)
        shape = jnp.shape(params[name])
        if plan.program.constraints[name] is constraints.real or bijection.inverse_shape(shape) != shape:
            continue  # no edge, or coordinates that are not those of the entries
        place = bijection.inv(params[name]).reshape(-1)

        def value(
            place: Float[Array, " P"], name: str = name, shape: Any = shape, bijection: Any = bijection
        ) -> Float[Array, ""]:
            moved = hold(plan.program, plan.fixed, name, bijection(place.reshape(shape)), params[name])
            return objective(plan.mean_field, statistics, {**params, name: moved}).astype(plan.dtype)

        steps = jnp.array([*_AWAY, *(-step for step in _AWAY)], place.dtype)
        moved = place + steps[:, None, None] * jnp.eye(len(place), dtype=place.dtype)
        changes = jnp.abs(jax.lax.map(value, moved.reshape(-1, len(place))).reshape(2, len(_AWAY), -1) - value(place))
        # A value that is not finite lies far away from any edge that a maximum is on.
        same = (changes <= allowed).all(1)
        masks[name] = (same[0] ^ same[1]).reshape(shape)
    return promised(plan, statistics, params), masks


def at_boundary(plan: Plan, params: Mapping[str, Any]) -> dict[str, Bool[np.ndarray, "..."]]:
    """Which entries of which points are on an edge of their constraint: masks in the shapes of the sites.

    An edge is a probability of 0 or 1, the bound of an interval, or no difference between neighbours in an order.
    """
    points = plan.point_sites
    masks = {site.name: np.asarray(_on_edge(site.constraint, np.asarray(params[site.name], float))) for site in points}
    return {name: mask for name, mask in masks.items() if mask.any()}


def _on_edge(constraint: Any, value: Float[np.ndarray, "*site"]) -> Any:
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    nowhere = np.zeros(value.shape, bool)
    if constraint is constraints.simplex or constraint is constraints.unit_interval:
        return (value <= _EDGE) | ((value >= 1 - _EDGE) if constraint is constraints.unit_interval else nowhere)
    if constraint in (constraints.ordered_vector, constraints.positive_ordered_vector):
        gaps = np.diff(value, axis=-1)
        narrow = gaps <= _EDGE * np.ptp(value, axis=-1, keepdims=True)
        mask = nowhere.copy()
        mask[..., 1:] |= narrow
        mask[..., :-1] |= narrow
        return mask
    lower, upper = (getattr(constraint, name, None) for name in ("lower_bound", "upper_bound"))
    with jax.ensure_compile_time_eval():
        low = None if lower is None else value - np.asarray(lower, float)
        high = None if upper is None else np.asarray(upper, float) - value
    if low is not None and high is not None:
        return np.minimum(low, high) <= _EDGE * (low + high)
    distance = low if low is not None else high
    if distance is None:
        return nowhere
    # Without another edge, nothing but what cannot be told from zero is near in every unit.
    return distance <= np.finfo(float).tiny / np.finfo(float).eps


def find_twins(weight: Any, counts: Any, sums: Any, noise: Any) -> Bool[np.ndarray, "*B K K"]:
    """Which pairs of components may be one, or nearly, above the diagonal: from natural parameters ``weight``
    [..., K, S], ``counts`` [..., K], ``sums`` [..., K, S] and ``noise`` [..., K] or [..., 0].

    At a maximum over the parameters of a component its mean statistics are those that its density expects, so that
    <eta_j - eta_k, S_j / n_j - S_k / n_k> = KL(p_j || p_k) + KL(p_k || p_j), nats a row. Source: Banerjee et al.
    (2005), eq. 7, for the divergence.
    """
    natural, counts = np.asarray(weight, float), np.asarray(counts, float)
    spoken, often = (counts > least * counts.mean(-1, keepdims=True) for least in (_RARE, _RARELY))
    divisors = np.where(spoken, counts, 1.0)[..., None]
    means = np.asarray(sums, float) / divisors
    count = counts.shape[-1]
    noises = np.asarray(noise, float)[..., None] / divisors if np.shape(noise)[-1] else np.zeros((*counts.shape, 1))
    alike = np.zeros((*counts.shape, count), bool)
    with np.errstate(invalid="ignore", over="ignore"):
        # The differences are taken first, and no digits are lost.
        for j in range(count - 1):
            other = slice(j + 1, count)
            apart = (natural[..., j, None, :] - natural[..., other, :]) * (
                means[..., j, None, :] - means[..., other, :]
            )
            unequal = np.abs(noises[..., j, None, 0] - noises[..., other, 0])
            most = np.where(often[..., j, None] & often[..., other], _NEARLY, _TWINS)
            alike[..., j, other] = (np.abs(apart.sum(-1)) <= most) & (unequal <= 2 * math.sqrt(_NEARLY))
    return alike & spoken[..., :, None] & spoken[..., None, :]


def pairs(alike: Bool[np.ndarray, "K K"]) -> tuple[tuple[int, int], ...]:
    """The pairs of a mask."""
    return tuple((int(j), int(k)) for j, k in np.argwhere(alike))


def shared_rows(
    responsibilities: Float[np.ndarray, "n K"], twins: Sequence[tuple[int, int]], nearly: bool = False
) -> tuple[tuple[int, int], ...]:
    """Those of the pairs whose shares of every row are in one proportion, or nearly."""
    # The divergence is about the variance of the log ratio, of which the rows show some six standard deviations.
    most = 6 * math.sqrt(_NEARLY) if nearly else 2 * math.sqrt(_TWINS)
    alike = []
    for j, k in twins:
        both = (responsibilities[:, j] > 0) & (responsibilities[:, k] > 0)
        log_ratio = np.log(responsibilities[both, j] / responsibilities[both, k])
        if both.any() and float(np.ptp(log_ratio)) <= most:
            alike.append((j, k))
    return tuple(alike)


def moved_apart(
    responsibilities: Float[np.ndarray, "N K"], twins: Sequence[tuple[int, int]], rows: Float[np.ndarray, "N F"]
) -> Float[np.ndarray, "N K"]:
    """q in which components that are one have different shares of the ``rows``.

    NaN is a value that is missing. Their logits move along a random line and a random quadratic function of the rows:
    independent noise in every row would average out, and components of many rows would part by next to nothing.
    """
    random = np.random.default_rng(0)
    places = _standardised(rows)
    logits = np.zeros_like(responsibilities)
    for component in sorted({component for pair in twins for component in pair}):
        directions = random.standard_normal((2, places.shape[1]))
        line, square = _standardised(places @ directions[0]), _standardised(places**2 @ directions[1])
        first, second, noise = *random.standard_normal(2), random.standard_normal(len(rows))
        logits[:, component] = np.clip(first * line + second * square, -_FARTHEST, _FARTHEST) + _SPREAD * noise
    moved = responsibilities * np.exp(logits)
    return moved / moved.sum(1, keepdims=True)


def _standardised(values: Float[np.ndarray, "N ..."]) -> Float[np.ndarray, "N ..."]:
    """Columns of mean 0 and standard deviation 1; 0 where a value is missing, or a column is constant."""
    seen = ~np.isnan(values)
    count = np.maximum(seen.sum(0), 1)
    size = np.where(seen, np.abs(values), 0.0).max(0, initial=0.0)
    scaled = np.where(seen, values, 0.0) / np.where(size > 0, size, 1.0)
    centred = np.where(seen, scaled - scaled.sum(0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(0) / count)
    return centred / np.where(spread > 0, spread, 1.0)
