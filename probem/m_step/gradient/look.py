"""What one pass teaches the gradient route: gradients, curvature, corners, and whether anything is to be gained."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.e_step.curvature import Curvature
from probem.e_step.summary import Summary, is_finite
from probem.form.statistics import Statistics
from probem.m_step.gradient.ascent import (
    MOST_CONVEX,
    Ascent,
    closed_part,
    fewest,
    gradient_at,
    is_curved,
    is_running_away,
    num_lessons,
)
from probem.m_step.gradient.inverse import Inverse, decompose
from probem.m_step.gradient.proposal import LADDER, propose
from probem.plan.coordinates import coordinates, growth
from probem.plan.plan import Plan
from probem.program.sites import Params


class Seen(NamedTuple):
    """What a pass has seen: the sums over the rows, their statistics over all columns, and second derivatives if the
    maximum has no closed form.
    """

    summary: Summary
    statistics: Statistics
    curvature: Curvature | None


def look(
    plan: Plan,
    old: Ascent,
    params: Params,
    seen: Seen,
    rise: Float[Array, ""],
) -> Ascent:
    """What is known with this gradient, and with these second derivatives if they were asked for.

    ``params`` are those of the ``old`` ascent but for what the other routes made of theirs, ``rise`` is that of the
    objective in the step before. ``curvature`` is None where the maximum has a closed form. Summed across a corner, it
    is there for its gradient; elsewhere its gradient takes the place of one that is not finite.
    """
    summary, stats, curvature = seen
    place, rows = coordinates(plan, params), fewest(summary.counts)
    across = looks_across(old, rise, summary.gradient)
    counts = summary.gradient
    if curvature is not None:
        counts = jnp.where(is_finite(counts), counts, curvature.gradient)
    counts, gradient = gradient_at(plan, params, stats, counts)
    if curvature is None:
        ascent = old._replace(point=place.point, gradient=gradient, counts=counts)
        return ascent._replace(promised=grow(plan, ascent, params)[1])
    inverse, useful = old.inverse.learned(place.point - old.point, old.gradient - gradient)
    ascent = old._replace(
        inverse=inverse,
        point=place.point,
        gradient=gradient,
        counts=counts,
        size=jnp.where(useful, jnp.maximum(old.size, 0.25), old.size),
    )
    if not is_curved(place.point):
        # As far as the gradients taught. A direction that helps nowhere has taught something wrong.
        promised = jnp.where(old.failures > 0, jnp.inf, inverse.promise(gradient))
        return ascent._replace(promised=promised)

    def slope(inverse: Inverse) -> Float[Array, " P"]:
        return jnp.where(is_running_away(plan, ascent._replace(inverse=inverse), params, rows), 0.0, gradient)

    there = beyond(plan, old, params, rows)
    moved = coordinates(plan, there).point - place.point
    turned = gradient - gradient_at(plan, there, stats, curvature.gradient)[1]
    inverse, useful = ascent.inverse.learned(moved, turned)
    # Where the slope across is the same and the bound is lower, it has no corner but a jump.
    taught = across & useful & (moved @ turned > 0.5 * moved @ gradient)
    observed, _ = ascent.observed.learned(moved, turned)
    rising = slope(observed)
    ahead, promised = observed.times(rising), observed.promise(rising)
    convexity = ahead @ (curvature.hessian + curvature.variances) @ ahead
    lesson = ascent._replace(
        inverse=inverse, observed=observed, promised=promised, concave=0.5 * convexity <= MOST_CONVEX * promised
    )
    ascent = jax.tree.map(lambda new, old: jnp.where(taught, new, old), lesson, ascent)
    ascent = ascent._replace(
        size=jnp.where(across, 1.0, ascent.size),
        failures=jnp.where(across & ~taught, 1 + num_lessons(place.point), ascent.failures),
    )
    rounds, hessian = old.stale.astype(jnp.int32), curvature.hessian
    if plan.gradient_reaches_forms:
        hessian = jax.lax.fori_loop(
            0, rounds, lambda _, sum: sum + jax.hessian(closed_part(plan, place, stats))(place.point, True), hessian
        )

    def renewed(_: Int[Array, ""], ascent: Ascent) -> Ascent:
        # The bound has less curvature at the q that follows the parameters than at this q, if any.
        both = jax.vmap(decompose, in_axes=(0, None))(
            -jnp.stack([hessian, hessian + curvature.variances]), curvature.products
        )
        joint, bound = (jax.tree.map(lambda leaf, row=row: leaf[row], both) for row in range(2))
        rising = slope(bound.inverse)
        promises, promised = 0.5 * bound.inverse.along(rising) ** 2, bound.inverse.promise(rising)
        concave = jnp.where(bound.negative, promises, 0.0).sum() <= MOST_CONVEX * promised
        # Newton's method on the bound leaves the basin of EM where the bound is not concave; on the expected log joint
        # it makes steps like those of EM.
        root = jnp.where(concave, bound.inverse.root, joint.inverse.root)
        return ascent._replace(
            inverse=Inverse(root),
            observed=bound.inverse,
            size=jnp.ones_like(ascent.size),
            promised=promised,
            concave=concave,
        )

    return jax.lax.fori_loop(0, rounds, renewed, ascent)


def looks_across(ascent: Ascent, rise: Float[Array, ""], gradient: Float[Array, " P"]) -> Bool[Array, ""]:
    """Whether the next second pass is for the gradient across a corner: no step along the direction has helped, though
    its curvature is known at this point, and the other routes no longer move it.
    """
    fails = (ascent.failures > 0) & (ascent.failures <= num_lessons(ascent.point))
    promises = jnp.isfinite(ascent.promised) & (ascent.promised > rise)
    return fails & promises & ~ascent.stale & is_finite(gradient) & is_curved(ascent.point)


def beyond(plan: Plan, ascent: Ascent, params: Params, rows: Float[Array, ""]) -> Params:
    """The parameters at the shortest step along the direction of the ascent, which did not help."""
    shortest = propose(plan, ascent, params, rows)[len(LADDER)]
    return coordinates(plan, params).to_params(shortest)


def grow(plan: Plan, ascent: Ascent, params: Params) -> tuple[Params, Float[Array, ""]]:
    """The parameters at their maximum under this q, all of them shares of a simplex, and the gain in nats: the step of
    the gradient route where ``plan.gradient_is_multinomial``.
    """
    place = coordinates(plan, params)
    grown = place.to_params(place.point + growth(plan, params, place.by_name, ascent.counts))
    ratios = coordinates(plan, grown).point - place.point
    # sum_k n_k log(new_k / old_k): Q is linear in the logarithms. A negative n_k has no maximum.
    gain = jnp.where(ascent.counts == 0, 0.0, ascent.counts * ratios).sum()
    return grown, jnp.where((ascent.counts >= 0).all(), gain, jnp.nan)
