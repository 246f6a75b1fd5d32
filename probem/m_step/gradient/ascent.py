"""The gradient route: guarded quasi-Newton steps for parameters of a site without an exponential-family form.

One step asks the data for two sums: the gradient of the bound at the current parameters, which is that of the expected
log joint (with the statistics of the E half-step), and the bound at some points along the direction, each with its own
q. The best is taken, if it is better than staying, so the bound never falls. Now and then it asks for a third, the
second derivatives: at the start, when no point was better, and before the fit may call itself converged. They make the
steps of up to 128 parameters independent of units, and say how much the bound still promises. In between, the curvature
follows the gradients by BFGS (Nocedal & Wright 2006, eq. 6.17).

Second derivatives know nothing of corners (a Laplace density where a line meets a row). Where no step along a direction
helps, BFGS learns from the gradient at the shortest that failed, on the other side of the corner: the next direction
runs along the edge. Source: Lewis & Overton (2013), Nonsmooth optimization via quasi-Newton methods.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.e_step.summary import is_finite
from probem.form.statistics import DataTotals, Statistics
from probem.m_step.gradient.inverse import Inverse
from probem.mean_field.mean_field import objective
from probem.plan.coordinates import Coordinates, coordinates, is_logarithm, projected
from probem.plan.plan import Plan
from probem.program.sites import Params

# Corners learned at one point, for each coordinate. Each lesson shortens the steps across a corner to a 512th.
_MOST_LESSONS = 5
# Where they teach nothing either (beyond a row that has density zero), coordinates are tried in up to so many groups,
# one after the other, each with steps of these lengths: from one to the next as far as the ladder reaches.
_MOST_GROUPS = 16
LENGTHS = (1.0, 1e-3, 1e-6, 1e-9)
# A positive parameter stays where it is that has come so many e-folds from where it began and would go on by so many,
# for no more than so many nats a row, times the square root of the precision.
_ABOVE, _UPWARD, _NOTHING = 5.0, 0.3, 8.0
# A component with no more than this share of the rows counts as empty.
_EMPTY = 1e-6
# Parameters up to which second derivatives are computed: P sums as long as three gradients each.
_MOST_CURVED = 128
# Directions in which the bound is convex may have this share of what it promises, and it still counts as concave.
MOST_CONVEX = 0.05
# Times the nats allowed that may be promised where nothing helps (a Student t with 1e6 degrees of freedom is a
# difference of logarithms of gamma functions, and no better than 1e-9 a row).
_NOISE = 10.0
# Passes without an accepted step after which the ascent is stuck, where there are more parameters than that.
_MOST_FAILURES = 8
# Steps after which second derivatives are asked for again while the bound rises by no more than the tolerance.
STALE_STEPS = 16


class Ascent(NamedTuple):
    """What the gradient route knows of the bound as a function of its coordinates.

    The ``inverse`` Hessian of what is maximised, and that ``observed``, of the bound where it was last computed; the
    last ``point`` and ``gradient``, and ``counts``, that gradient by ``Coordinates.to_weights``; the last
    accepted step ``size``, and the ``failures``, passes since then. ``stale``: the next pass computes second
    derivatives. ``promised``: nats by which the bound could still rise, half its Newton decrement; infinite while no
    second derivatives are known at this point. ``concave``: so the bound was, where it was last known, along all
    directions that promise anything. ``origin`` is the point at which the fit began.
    """

    inverse: Inverse
    observed: Inverse
    point: Float[Array, " P"]
    gradient: Float[Array, " P"]
    counts: Float[Array, " P"]
    size: Float[Array, ""]
    failures: Int[Array, ""]
    stale: Bool[Array, ""]
    promised: Float[Array, ""]
    concave: Bool[Array, ""]
    origin: Float[Array, " P"]


def initial_ascent(plan: Plan, params: Params, totals: DataTotals) -> Ascent:
    """No curvature known: the gradient of a sum over N rows, divided by N."""
    point = coordinates(plan, params).point if plan.gradient else jnp.zeros(0, plan.dtype)
    curved = is_curved(point) and not plan.gradient_is_multinomial
    unknown = jnp.full_like(point, jnp.nan)
    num_learned = 0 if plan.gradient_is_multinomial else point.shape[0]
    unlearned = Inverse(jnp.eye(num_learned, dtype=plan.dtype) / jnp.sqrt(totals.total_weight))
    return Ascent(
        inverse=unlearned,
        observed=unlearned,
        point=point,
        gradient=unknown,
        counts=unknown,
        size=jnp.ones((), plan.dtype),
        failures=jnp.zeros((), jnp.int32),
        stale=jnp.asarray(curved),
        promised=jnp.asarray(jnp.inf, plan.dtype),
        concave=jnp.asarray(not curved),
        origin=point,
    )


def is_curved(point: Float[Array, "... P"]) -> bool:
    """Whether there are few enough coordinates for their second derivatives."""
    return 0 < point.shape[-1] <= _MOST_CURVED


def gradient_at(
    plan: Plan, params: Params, stats: Statistics, counts: Float[Array, " P"]
) -> tuple[Float[Array, " P"], Float[Array, " P"]]:
    """The gradient at ``params``, by ``Coordinates.to_weights`` and in the coordinates, from that of the generic
    log joint, ``counts``.
    """
    place = coordinates(plan, params)
    if plan.gradient_reaches_forms:
        counts = counts + jax.grad(closed_part(plan, place, stats))(place.point, False)
    return counts, projected(plan, params, place.by_name, counts)


def closed_part(
    plan: Plan, place: Coordinates, stats: Statistics
) -> Callable[[Float[Array, " P"], bool], Float[Array, ""]]:
    """What the closed forms and the priors add to the bound, nats, as a function of the coordinates."""

    def rest(vector: Float[Array, " P"], normalised: bool) -> Float[Array, ""]:
        values = place.to_params(vector) if normalised else place.to_weights(vector)
        return objective(plan.mean_field, stats, values).astype(plan.dtype)

    return rest


def is_settled(ascent: Ascent, allowed: Float[Array, ""], rounding: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether the bound promises no more than the nats ``allowed``.

    Where it is not concave it rises faster and faster (from a component that a gate has all but closed, say), and a
    quadratic function says nothing of how far: there no more than the ``rounding`` of its values, until every direction
    has been tried. Where none helps, the bound has fewer digits than its size says, and may promise more.
    """
    stuck = is_stuck(ascent)
    limit = jnp.where(stuck, _NOISE * allowed, jnp.where(ascent.concave, allowed, rounding))
    return is_finite(ascent.gradient) & (ascent.promised <= limit)


def is_stuck(ascent: Ascent) -> Bool[Array, ""]:
    """Whether every direction has been tried from here, and none helped."""
    if not is_curved(ascent.point):
        return ascent.failures > _MOST_FAILURES
    return ascent.failures > num_lessons(ascent.point) + 1 + len(LENGTHS) * num_groups(ascent.point)


def asks_for_curvature(ascent: Ascent, allowed: Float[Array, ""], step: Int[Array, ""]) -> Bool[Array, ""]:
    """Whether second derivatives at the next point could show that the ascent is settled."""
    expected = ascent.inverse.promise(ascent.gradient)
    likely = (expected <= allowed) | (step % STALE_STEPS == 0)
    unknown = (ascent.failures == 0) | ~jnp.isfinite(ascent.promised)
    return likely & unknown & is_curved(ascent.point)


def fewest(counts: Float[Array, " K"]) -> Float[Array, ""]:
    """The weight of the rows of the smallest component that is not empty: a parameter is of no fewer."""
    return jnp.where(counts > _EMPTY * counts.sum(), counts, jnp.inf).min()


def is_running_away(plan: Plan, ascent: Ascent, params: Params, rows: Float[Array, ""]) -> Bool[Array, " P"]:
    """Which logarithms of a positive parameter stay where they are: far above where they began, on their way further
    up, with next to nothing to gain.

    Such are the degrees of freedom of Student's t where rows are normal. A density has half of its digits left where
    the square root of the precision is all that there is to gain, and none farther out.
    """
    least = _NOTHING * jnp.finfo(plan.dtype).eps ** 0.5 * rows
    upward = ascent.inverse.times(ascent.gradient) > _UPWARD
    above = ascent.point - ascent.origin > _ABOVE
    return is_logarithm(plan, params) & upward & above & (jnp.abs(ascent.gradient) < least)


def num_lessons(point: Float[Array, "... P"]) -> int:
    """How many corners are learned at one point."""
    return _MOST_LESSONS * point.shape[-1]


def num_groups(point: Float[Array, "... P"]) -> int:
    """In how many groups the coordinates are tried one after the other."""
    return min(point.shape[-1], _MOST_GROUPS)
