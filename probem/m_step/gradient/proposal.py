"""The steps that the gradient route proposes, and the choice among them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.e_step.candidates import beside_candidates
from probem.form.statistics import DataTotals
from probem.m_step.gradient.ascent import (
    LENGTHS,
    STALE_STEPS,
    Ascent,
    initial_ascent,
    is_curved,
    is_running_away,
    num_groups,
    num_lessons,
)
from probem.m_step.gradient.inverse import Inverse
from probem.plan.coordinates import coordinates, farthest, growth, on_simplex, simplex_names
from probem.plan.plan import Plan
from probem.program.sites import Params

# Multiples of the last accepted step that are tried in one pass; of equal ones the first is taken.
LADDER = (1.0, 4.0, 0.25, 1 / 16, 1 / 64, 1 / 512)
# Multiples of it that the other parameters move by, while every simplex makes a step of its own.
_GROWN = (1.0, 1 / 16, 0.0)


def propose(plan: Plan, ascent: Ascent, params: Params, rows: Float[Array, ""]) -> Float[Array, "J P"]:
    """The J candidates along the ascent direction; a component has at least so many ``rows``."""
    place = coordinates(plan, params)
    runs_away = is_running_away(plan, ascent, params, rows)
    gradient, size = jnp.where(runs_away, 0.0, ascent.gradient), ascent.size
    direction = jnp.where(runs_away, 0.0, ascent.inverse.times(gradient))
    if is_curved(place.point):
        group, length = _group(ascent)
        alone = ascent.inverse.diagonal * gradient
        here = jnp.arange(place.point.shape[0]) % num_groups(place.point) == group
        alone_now = ascent.failures > num_lessons(place.point) + 1
        direction = jnp.where(alone_now, jnp.where(here, alone, 0.0), direction)
        size = jnp.where(alone_now, length, size)
    direction = jnp.where(jnp.isfinite(direction), direction, 0.0)
    limits = farthest(plan, params)
    longest = jnp.abs(max(LADDER) * size * direction) / limits
    if not simplex_names(plan):
        direction = direction / jnp.maximum(1.0, longest.max(initial=0.0))
        return place.point + (_factors(plan)[0] * size)[:, None] * direction
    # Many entries of a simplex may be on their way to zero, one after the other, and none is in the way of the rest.
    entries = on_simplex(plan, params)
    others = jnp.where(entries, 0.0, longest).max(initial=0.0)
    direction = direction / jnp.maximum(1.0, jnp.where(entries, longest, others))
    # A growth transform takes the place of the direction on its simplex.
    simplex = growth(plan, params, place.by_name, ascent.counts)
    factors, grown = _factors(plan)
    grown = (grown | (~ascent.concave & (factors > 0)))[:, None] & (ascent.failures < 2)
    along = jnp.where(grown & (simplex != 0), 0.0, direction)
    return place.point + (factors * size)[:, None] * along + jnp.where(grown, simplex, 0.0)


def _factors(plan: Plan) -> tuple[Float[Array, " J"], Bool[Array, " J"]]:
    """Multiples of the step size, first that of staying; and which candidates take the growth transform."""
    grown = _GROWN if simplex_names(plan) else ()
    factors = jnp.asarray((0.0, *LADDER, *grown), plan.dtype)
    return factors, jnp.arange(len(factors)) > len(LADDER)


def _group(ascent: Ascent) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Which coordinates are tried by themselves after so many failures, and the length of the step."""
    lengths = jnp.asarray(LENGTHS, ascent.point.dtype)
    failures = ascent.failures - num_lessons(ascent.point) - 2
    turn, number = jnp.divmod(failures, num_groups(ascent.point))
    return number, lengths[jnp.clip(turn, 0, len(LENGTHS) - 1)]


class Tried(NamedTuple):
    """Candidates, the first of them to stay, and the bound at each but for a constant, nats."""

    candidates: Float[Array, "J P"]
    values: Float[Array, " J"]


class Pace(NamedTuple):
    """How much the objective rose in the last step, nats, and the number of steps."""

    rise: Float[Array, ""]
    step: Int[Array, ""]


def select(
    plan: Plan, old: Ascent, params: Params, tried: Tried, pace: Pace, totals: DataTotals
) -> tuple[Params, Ascent, Float[Array, ""]]:
    """The parameters at the best candidate, the state of the ascent, and the gain in nats."""
    place, (candidates, values) = coordinates(plan, params), tried
    if plan.gradient_reaches_forms:
        values = values + jax.lax.map(
            lambda vector: beside_candidates(plan, place.to_params(vector), totals).astype(plan.dtype), candidates
        )
    gains = values - values[0]
    gains = jnp.where(jnp.isfinite(gains), gains, -jnp.inf)
    best = jnp.argmax(gains)
    # Sums over the rows differ by rounding.
    better = gains[best] > 16 * jnp.finfo(plan.dtype).eps * jnp.abs(values[0])
    chosen = place.to_params(candidates[best])
    taken = jax.tree.map(lambda new, old: jnp.where(better, new, old), chosen, params)
    factors, grown = _factors(plan)
    factor = jnp.where(grown[best], 1.0, factors[best])
    failures = jnp.where(better, 0, old.failures + 1)
    gain = jnp.where(better, gains[best], 0.0)
    if is_curved(old.point):
        new = _renewed(old, better, factor, gain, pace)
    else:
        new = _shortened(old, better, factor, initial_ascent(plan, params, totals))
    return taken, new._replace(failures=failures), gain


def _renewed(
    old: Ascent, better: Bool[Array, ""], factor: Float[Array, ""], gain: Float[Array, ""], pace: Pace
) -> Ascent:
    """The ascent after a step of so many times its size. One that gained little, or no step, asks for new curvature,
    unless the bound rises by more than that in any case.
    """
    has_curvature = jnp.isfinite(old.promised)
    expected = old.inverse.promise(old.gradient)
    short = (factor < 0.1) | (old.failures > 0) | (old.concave & ~has_curvature & (gain < 0.25 * expected))
    short = short | (~old.concave & (pace.step % STALE_STEPS == 0))
    # Second derivatives would forget the corners.
    short = short & ~((old.failures > 1) & (old.failures <= num_lessons(old.point) + 1))
    alone = old.failures > num_lessons(old.point) + 1
    return old._replace(
        size=jnp.where(better, jnp.where(alone, 1.0, old.size * factor), jnp.where(has_curvature, old.size, 1.0)),
        stale=jnp.where(better, short, ~has_curvature) & (expected >= pace.rise),
        promised=jnp.where(better, jnp.inf, old.promised),
    )


def _shortened(old: Ascent, better: Bool[Array, ""], factor: Float[Array, ""], fresh: Ascent) -> Ascent:
    """The ascent of many parameters after a step of so many times its size, or none."""
    size = old.size * jnp.where(better, factor, 1 / 4096)
    # A direction that helps nowhere along the ladder has a curvature that is wrong: forget it.
    learned = (old.inverse.root != fresh.inverse.root).any()
    forget = ~better & (old.size < 1e-6) & learned
    root = jnp.where(forget, fresh.inverse.root, old.inverse.root)
    return old._replace(inverse=Inverse(root), size=jnp.where(forget, 1.0, size))
