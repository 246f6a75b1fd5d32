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
from jax import Array

from .coordinates import Coordinates, coordinates, farthest, growth, is_logarithm, on_simplex, projected, simplex_names
from .expectation import Curvature, Prepared, Summary, beside_candidates, is_finite
from .maximization import Statistics, objective
from .plan import Plan
from .program import Params

# Multiples of the last accepted step that are tried in one pass; of equal ones the first is taken.
_LADDER = (1.0, 4.0, 0.25, 1 / 16, 1 / 64, 1 / 512)

# Multiples of it that the other parameters move by, while every simplex makes a step of its own.
_GROWN = (1.0, 1 / 16, 0.0)

# Corners learned at one point, for each coordinate. Each lesson shortens the steps across a corner to a 512th.
_MOST_LESSONS = 5

# Where they teach nothing either (beyond a row that has density zero), coordinates are tried in up to so many groups,
# one after the other, each with steps of these lengths: from one to the next as far as the ladder reaches.
_MOST_GROUPS = 16
_LENGTHS = (1.0, 1e-3, 1e-6, 1e-9)

# A positive parameter stays where it is that has come so many e-folds from where it began and would go on by so many,
# for no more than so many nats a row, times the square root of the precision.
_ABOVE, _UPWARD, _NOTHING = 5.0, 0.3, 8.0

# A component with no more than this share of the rows counts as empty.
_EMPTY = 1e-6

# Parameters up to which second derivatives are computed: P sums as long as three gradients each.
_MOST_CURVED = 128

# Directions in which the bound is convex may have this share of what it promises, and it still counts as concave.
_MOST_CONVEX = 0.05

# Times the nats allowed that may be promised where nothing helps (a Student t with 1e6 degrees of freedom is a
# difference of logarithms of gamma functions, and no better than 1e-9 a row).
_NOISE = 10.0

# Passes without an accepted step after which the ascent is stuck, where there are more parameters than that.
_MOST_FAILURES = 8

# Steps after which second derivatives are asked for again while the bound rises by no more than the tolerance.
_STALE_STEPS = 16


class Inverse(NamedTuple):
    """The inverse of a Hessian, sign reversed, as R R': what is promised is a sum of squares, whatever the rounding.

    ``root`` is R, ``[P, P]``.
    """

    root: Array

    def times(self, gradient: Array) -> Array:
        """Newton's step, ``[P]``."""
        return self.root @ self.along(gradient)

    def along(self, gradient: Array) -> Array:
        """The gradient in coordinates in which the Hessian is the identity, ``[P]``."""
        return self.root.T @ gradient

    def promise(self, gradient: Array) -> Array:
        """Half the Newton decrement, nats."""
        return 0.5 * (self.along(gradient) ** 2).sum()

    @property
    def diagonal(self) -> Array:
        return (self.root**2).sum(1)

    def learned(self, moved: Array, turned: Array) -> tuple["Inverse", Array]:
        """By BFGS after a step [P] by which the gradient fell, and whether that taught anything."""
        curvature, precision = moved @ turned, jnp.finfo(moved.dtype).eps
        # Less, beside what R R' expects, is rounding; it may expect too much by many orders of magnitude.
        useful = jnp.isfinite(curvature) & (curvature > 2 * precision * self.promise(turned) / 1e8)
        rho = jnp.where(useful, 1.0 / jnp.where(useful, curvature, 1.0), 0.0)
        turned = jnp.where(useful, turned, 0.0)
        left = self.root - rho * jnp.outer(moved, self.along(turned))
        both = jnp.concatenate([left, jnp.sqrt(rho) * moved[:, None]], 1)
        return Inverse(jnp.where(useful, jnp.linalg.qr(both.T, mode="r").T, self.root)), useful


class Ascent(NamedTuple):
    """What the gradient route knows of the bound as a function of its coordinates.

    The ``inverse`` Hessian of what is maximised, and that ``observed``, of the bound where it was last computed; the
    last ``point`` and ``gradient`` [P], and ``counts`` [P], that gradient by ``Coordinates.to_weights``; the last
    accepted step ``size``, and the ``failures``, passes since then. ``stale``: the next pass computes second
    derivatives. ``promised``: nats by which the bound could still rise, half its Newton decrement; infinite while no
    second derivatives are known at this point. ``concave``: so the bound was, where it was last known, along all
    directions that promise anything. ``origin`` [P] is the point at which the fit began.
    """

    inverse: Inverse
    observed: Inverse
    point: Array
    gradient: Array
    counts: Array
    size: Array
    failures: Array
    stale: Array
    promised: Array
    concave: Array
    origin: Array


def start(plan: Plan, params: Params, prepared: Prepared) -> Ascent:
    """No curvature known: the gradient of a sum over N rows, divided by N."""
    point = coordinates(plan, params).point if plan.gradient else jnp.zeros(0, plan.dtype)
    curved, one = _is_curved(point) and not plan.gradient_is_multinomial, jnp.ones((), plan.dtype)
    unknown = jnp.full_like(point, jnp.nan)
    num_learned = 0 if plan.gradient_is_multinomial else point.shape[0]
    unlearned = Inverse(jnp.eye(num_learned, dtype=plan.dtype) / jnp.sqrt(prepared.total_weight))
    return Ascent(
        inverse=unlearned,
        observed=unlearned,
        point=point,
        gradient=unknown,
        counts=unknown,
        size=one,
        failures=jnp.zeros((), jnp.int32),
        stale=jnp.asarray(curved),
        promised=jnp.inf * one,
        concave=jnp.asarray(not curved),
        origin=point,
    )


def _is_curved(point: Array) -> bool:
    """Whether there are few enough coordinates for their second derivatives."""
    return 0 < point.shape[-1] <= _MOST_CURVED


def look(
    plan: Plan,
    old: Ascent,
    params: Params,
    summary: Summary,
    stats: Statistics,
    curvature: Curvature | None,
    rise: Array,
) -> Ascent:
    """What is known with this gradient, and with these second derivatives if they were asked for.

    ``params`` are those of the ``old`` ascent but for what the other routes made of theirs, ``rise`` is that of the
    objective in the step before. ``curvature`` is None where the maximum has a closed form. Summed across a corner, it
    is there for its gradient; elsewhere its gradient takes the place of one that is not finite.
    """
    place, rows = coordinates(plan, params), fewest(summary.counts)
    across = looks_across(old, rise, summary.gradient)
    counts = summary.gradient
    if curvature is not None:
        counts = jnp.where(is_finite(counts), counts, curvature.gradient)
    counts, gradient = _gradient(plan, params, stats, counts)
    if curvature is None:
        found = old._replace(point=place.point, gradient=gradient, counts=counts)
        return found._replace(promised=grow(plan, found, params)[1])
    inverse, useful = old.inverse.learned(place.point - old.point, old.gradient - gradient)
    found = old._replace(
        inverse=inverse,
        point=place.point,
        gradient=gradient,
        counts=counts,
        size=jnp.where(useful, jnp.maximum(old.size, 0.25), old.size),
    )
    if not _is_curved(place.point):
        # As far as the gradients taught. A direction that helps nowhere has taught something wrong.
        promised = jnp.where(old.failures > 0, jnp.inf, inverse.promise(gradient))
        return found._replace(promised=promised)

    def slope(inverse: Inverse) -> Array:
        return jnp.where(_runs_away(plan, found._replace(inverse=inverse), params, rows), 0.0, gradient)

    there = beyond(plan, old, params, rows)
    moved = coordinates(plan, there).point - place.point
    turned = gradient - _gradient(plan, there, stats, curvature.gradient)[1]
    inverse, useful = found.inverse.learned(moved, turned)
    # Where the slope across is the same and the bound is lower, it has no corner but a jump.
    taught = across & useful & (moved @ turned > 0.5 * moved @ gradient)
    observed, _ = found.observed.learned(moved, turned)
    rising = slope(observed)
    ahead, promised = observed.times(rising), observed.promise(rising)
    convexity = ahead @ (curvature.hessian + curvature.variances) @ ahead
    lesson = found._replace(
        inverse=inverse, observed=observed, promised=promised, concave=0.5 * convexity <= _MOST_CONVEX * promised
    )
    found = jax.tree.map(lambda new, old: jnp.where(taught, new, old), lesson, found)
    found = found._replace(
        size=jnp.where(across, 1.0, found.size),
        failures=jnp.where(across & ~taught, 1 + _num_lessons(place.point), found.failures),
    )
    rounds, hessian = old.stale.astype(jnp.int32), curvature.hessian
    if plan.gradient_reaches_forms:
        hessian = jax.lax.fori_loop(
            0, rounds, lambda _, sum: sum + jax.hessian(_rest(plan, place, stats))(place.point, True), hessian
        )

    def renewed(_: Array, found: Ascent) -> Ascent:
        # The bound has less curvature at the q that follows the parameters than at this q, if any.
        both = jax.vmap(_decompose, in_axes=(0, None))(
            -jnp.stack([hessian, hessian + curvature.variances]), curvature.products
        )
        held, free = (jax.tree.map(lambda leaf, row=row: leaf[row], both) for row in range(2))
        rising = slope(free.inverse)
        promises, promised = 0.5 * free.inverse.along(rising) ** 2, free.inverse.promise(rising)
        concave = jnp.where(free.negative, promises, 0.0).sum() <= _MOST_CONVEX * promised
        # Newton's method on the bound leaves the basin of EM where the bound is not concave; on the expected log joint
        # it makes steps like those of EM.
        root = jnp.where(concave, free.inverse.root, held.inverse.root)
        return found._replace(
            inverse=Inverse(root),
            observed=free.inverse,
            size=jnp.ones_like(found.size),
            promised=promised,
            concave=concave,
        )

    return jax.lax.fori_loop(0, rounds, renewed, found)


def _gradient(plan: Plan, params: Params, stats: Statistics, counts: Array) -> tuple[Array, Array]:
    """The gradient [P] at ``params``, by ``Coordinates.to_weights`` and in the coordinates, from that of the generic
    log joint, ``counts``.
    """
    place = coordinates(plan, params)
    if plan.gradient_reaches_forms:
        counts = counts + jax.grad(_rest(plan, place, stats))(place.point, False)
    return counts, projected(plan, params, place.by_name, counts)


def _rest(plan: Plan, place: Coordinates, stats: Statistics) -> Callable[[Array, bool], Array]:
    """What the closed forms and the priors add to the bound, nats, as a function of the coordinates."""

    def rest(vector: Array, normalised: bool) -> Array:
        values = place.to_params(vector) if normalised else place.to_weights(vector)
        return objective(plan.mean_field, stats, values).astype(plan.dtype)

    return rest


def looks_across(ascent: Ascent, rise: Array, gradient: Array) -> Array:
    """Whether the next second pass is for the gradient across a corner: no step along the direction has helped, though
    its curvature is known at this point, and the other routes no longer move it.
    """
    fails = (ascent.failures > 0) & (ascent.failures <= _num_lessons(ascent.point))
    promises = jnp.isfinite(ascent.promised) & (ascent.promised > rise)
    return fails & promises & ~ascent.stale & is_finite(gradient) & _is_curved(ascent.point)


def beyond(plan: Plan, ascent: Ascent, params: Params, rows: Array) -> Params:
    """The parameters at the shortest step along the direction of the ascent, which did not help."""
    shortest = propose(plan, ascent, params, rows)[len(_LADDER)]
    return coordinates(plan, params).to_params(shortest)


def grow(plan: Plan, ascent: Ascent, params: Params) -> tuple[Params, Array]:
    """The parameters at their maximum under this q, all of them shares of a simplex, and the gain in nats: the step of
    the gradient route where ``plan.gradient_is_multinomial``.
    """
    place = coordinates(plan, params)
    grown = place.to_params(place.point + growth(plan, params, place.by_name, ascent.counts))
    ratios = coordinates(plan, grown).point - place.point
    # sum_k n_k log(new_k / old_k): Q is linear in the logarithms. A negative n_k has no maximum.
    gain = jnp.where(ascent.counts == 0, 0.0, ascent.counts * ratios).sum()
    return grown, jnp.where((ascent.counts >= 0).all(), gain, jnp.nan)


class _Information(NamedTuple):
    """The inverse of V diag(values) V' with its values made positive, and which of them were negative."""

    inverse: Inverse
    negative: Array


def _decompose(information: Array, products: Array) -> _Information:
    """The information in absolute value, whatever the units of the coordinates.

    A coordinate is measured in its own curvature or, where there is none (a density with corners), in the products of
    its slopes, which are as large on average where the model is right.
    """
    own, other = jnp.diag(information), jnp.diag(products)
    size = jnp.where(jnp.abs(own) > 1e-6 * other, jnp.abs(own), other)
    scale = jnp.where(size > 0, 1 / jnp.sqrt(jnp.where(size > 0, size, 1.0)), 0.0)
    scaled = jnp.nan_to_num(scale[:, None] * information * scale[None, :])
    values, vectors = jnp.linalg.eigh((scaled + scaled.T) / 2)
    products = jnp.nan_to_num(scale[:, None] * products * scale[None, :])
    spread = jnp.einsum("ji,jk,ki->i", vectors, products, vectors)
    least = 16 * own.shape[0] * jnp.finfo(own.dtype).eps
    # A saddle is left along its negative curvature; a direction without any is as uncertain as its slopes vary.
    positive = jnp.where(values < -1e-3 * spread, -values, jnp.where(values > least, values, spread))
    positive = jnp.maximum(positive, least)
    return _Information(Inverse(scale[:, None] * vectors / jnp.sqrt(positive)), values < -least)


def is_settled(ascent: Ascent, allowed: Array, rounding: Array) -> Array:
    """Whether the bound promises no more than the nats ``allowed``.

    Where it is not concave it rises faster and faster (from a component that a gate has all but closed, say), and a
    quadratic function says nothing of how far: there no more than the ``rounding`` of its values, until every direction
    has been tried. Where none helps, the bound has fewer digits than its size says, and may promise more.
    """
    stuck = is_stuck(ascent)
    limit = jnp.where(stuck, _NOISE * allowed, jnp.where(ascent.concave, allowed, rounding))
    return is_finite(ascent.gradient) & (ascent.promised <= limit)


def is_stuck(ascent: Ascent) -> Array:
    """Whether every direction has been tried from here, and none helped."""
    if not _is_curved(ascent.point):
        return ascent.failures > _MOST_FAILURES
    return ascent.failures > _num_lessons(ascent.point) + 1 + len(_LENGTHS) * _num_groups(ascent.point)


def asks_for_curvature(ascent: Ascent, allowed: Array, step: Array) -> Array:
    """Whether second derivatives at the next point could show that the ascent is settled."""
    expected = ascent.inverse.promise(ascent.gradient)
    likely = (expected <= allowed) | (step % _STALE_STEPS == 0)
    unknown = (ascent.failures == 0) | ~jnp.isfinite(ascent.promised)
    return likely & unknown & _is_curved(ascent.point)


def fewest(counts: Array) -> Array:
    """The weight of the rows of the smallest component ``[K]`` that is not empty: a parameter is of no fewer."""
    return jnp.where(counts > _EMPTY * counts.sum(), counts, jnp.inf).min()


def propose(plan: Plan, ascent: Ascent, params: Params, rows: Array) -> Array:
    """The candidates ``[J, P]`` along the ascent direction; a component has at least so many ``rows``."""
    place = coordinates(plan, params)
    runs_away = _runs_away(plan, ascent, params, rows)
    gradient, size = jnp.where(runs_away, 0.0, ascent.gradient), ascent.size
    direction = jnp.where(runs_away, 0.0, ascent.inverse.times(gradient))
    if _is_curved(place.point):
        group, length = _group(ascent)
        alone = ascent.inverse.diagonal * gradient
        here = jnp.arange(place.point.shape[0]) % _num_groups(place.point) == group
        alone_now = ascent.failures > _num_lessons(place.point) + 1
        direction = jnp.where(alone_now, jnp.where(here, alone, 0.0), direction)
        size = jnp.where(alone_now, length, size)
    direction = jnp.where(jnp.isfinite(direction), direction, 0.0)
    limits = farthest(plan, params)
    longest = jnp.abs(max(_LADDER) * size * direction) / limits
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


def _runs_away(plan: Plan, ascent: Ascent, params: Params, rows: Array) -> Array:
    """Which logarithms of a positive parameter stay where they are, ``[P]``: far above where they began, on their way
    further up, with next to nothing to gain.

    Such are the degrees of freedom of Student's t where rows are normal. A density has half of its digits left where
    the square root of the precision is all that there is to gain, and none farther out.
    """
    least = _NOTHING * jnp.finfo(plan.dtype).eps ** 0.5 * rows
    upward = ascent.inverse.times(ascent.gradient) > _UPWARD
    above = ascent.point - ascent.origin > _ABOVE
    return is_logarithm(plan, params) & upward & above & (jnp.abs(ascent.gradient) < least)


def _factors(plan: Plan) -> tuple[Array, Array]:
    """Multiples of the step size, ``[J]``, first that of staying; and which candidates take the growth transform."""
    grown = _GROWN if simplex_names(plan) else ()
    factors = jnp.asarray((0.0, *_LADDER, *grown), plan.dtype)
    return factors, jnp.arange(len(factors)) > len(_LADDER)


def _num_lessons(point: Array) -> int:
    return _MOST_LESSONS * point.shape[-1]


def _num_groups(point: Array) -> int:
    return min(point.shape[-1], _MOST_GROUPS)


def _group(ascent: Ascent) -> tuple[Array, Array]:
    """Which coordinates are tried by themselves after so many failures, and the length of the step."""
    lengths = jnp.asarray(_LENGTHS, ascent.point.dtype)
    failures = ascent.failures - _num_lessons(ascent.point) - 2
    turn, number = jnp.divmod(failures, _num_groups(ascent.point))
    return number, lengths[jnp.clip(turn, 0, len(_LENGTHS) - 1)]


class Tried(NamedTuple):
    """Candidates ``[J, P]``, the first of them to stay, and the bound at each but for a constant, ``[J]``, nats."""

    candidates: Array
    values: Array


class Pace(NamedTuple):
    """How much the objective rose in the last step, nats, and the number of steps."""

    rise: Array
    step: Array


def select(
    plan: Plan, old: Ascent, params: Params, tried: Tried, pace: Pace, prepared: Prepared
) -> tuple[Params, Ascent, Array]:
    """The parameters at the best candidate, the state of the ascent, and the gain in nats."""
    place, (candidates, values) = coordinates(plan, params), tried
    if plan.gradient_reaches_forms:
        values = values + jax.lax.map(
            lambda vector: beside_candidates(plan, place.to_params(vector), prepared).astype(plan.dtype), candidates
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
    if _is_curved(old.point):
        new = _renewed(old, better, factor, gain, pace)
    else:
        new = _shortened(old, better, factor, start(plan, params, prepared))
    return taken, new._replace(failures=failures), gain


def _renewed(old: Ascent, better: Array, factor: Array, gain: Array, pace: Pace) -> Ascent:
    """The ascent after a step of so many times its size. One that gained little, or no step, asks for new curvature,
    unless the bound rises by more than that in any case.
    """
    known = jnp.isfinite(old.promised)
    expected = old.inverse.promise(old.gradient)
    short = (factor < 0.1) | (old.failures > 0) | (old.concave & ~known & (gain < 0.25 * expected))
    short = short | (~old.concave & (pace.step % _STALE_STEPS == 0))
    # Second derivatives would forget the corners.
    short = short & ~((old.failures > 1) & (old.failures <= _num_lessons(old.point) + 1))
    alone = old.failures > _num_lessons(old.point) + 1
    return old._replace(
        size=jnp.where(better, jnp.where(alone, 1.0, old.size * factor), jnp.where(known, old.size, 1.0)),
        stale=jnp.where(better, short, ~known) & (expected >= pace.rise),
        promised=jnp.where(better, jnp.inf, old.promised),
    )


def _shortened(old: Ascent, better: Array, factor: Array, fresh: Ascent) -> Ascent:
    """The ascent of many parameters after a step of so many times its size, or none."""
    size = old.size * jnp.where(better, factor, 1 / 4096)
    # A direction that helps nowhere along the ladder has a curvature that is wrong: forget it.
    learned = (old.inverse.root != fresh.inverse.root).any()
    forget = ~better & (old.size < 1e-6) & learned
    root = jnp.where(forget, fresh.inverse.root, old.inverse.root)
    return old._replace(inverse=Inverse(root), size=jnp.where(forget, 1.0, size))
