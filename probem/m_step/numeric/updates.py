"""The numeric route of the M half-step: parameters without a closed form, over statistics of a size that ignores N.

Maximised is ``objective`` of ``mean_field/mean_field.py``, in nats, over unconstrained values, by the BFGS method of
optimistix. It walks in coordinates in which minus the Hessian at the start is the identity: its first step is the
Newton step, and neither the unit of a parameter nor its parametrisation matters. A round of it ends when the Newton
decrement, the rise that a quadratic function with this gradient and Hessian still promises, is below the rounding of
the objective.
Source: Nocedal & Wright (2006), Numerical optimization, ch. 3.4 and 6.1; Boyd & Vandenberghe (2004), Convex
optimization, eq. 9.30 (the decrement); Dauphin et al. (2014), Identifying and attacking the saddle point problem
(absolute eigenvalues).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optimistix
from jaxtyping import Array, Bool, Float, Int

from probem.form.statistics import Statistics
from probem.m_step.numeric.curvature import NumericCurvature, conjugate_decrement, dense_curvature, sketched_curvature
from probem.m_step.numeric.optimiser import Backtracking, DenseBFGS, LimitedBFGS, NoAdjoint
from probem.m_step.numeric.problem import MOST_DENSE, ROUNDING, NumericProblem, Promise, numeric_problem
from probem.plan.plan import Plan
from probem.program.sites import Params

# Evaluations of the objective in one round of the optimiser, and rounds: each begins with the Hessian where it stands.
_EVALUATIONS = 64
_ROUNDS = 8
# The predicted rise, in nats, of the step that tells whether a direction of positive curvature leads upwards.
_TRIED = 1e-3
# Fractions of a Newton step that tell whether its slope is one.
_STEPS = tuple(4.0**-power for power in range(12))
# How many of them are tried along every value alone.
_ALONE = 6


class _Rounds(NamedTuple):
    """Where the rounds have come to; ``damping`` is the least relative curvature that the next of them takes for real,
    and ``settled`` whether it would change nothing.
    """

    point: Float[Array, " P"]
    damping: Float[Array, ""]
    settled: Bool[Array, ""]
    made: Int[Array, ""]


def numeric_updates(plan: Plan, statistics: Statistics, params: Params) -> Params:
    """Maximise over the parameters of the numeric route; accepted only if the objective is finite and no lower."""
    problem = numeric_problem(plan, statistics, params)

    def unfinished(carry: _Rounds) -> Bool[Array, ""]:
        return ~carry.settled & (carry.made < _ROUNDS)

    start = _Rounds(problem.start, jnp.zeros((), problem.start.dtype), jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    point = jax.lax.while_loop(unfinished, lambda carry: _round(problem, carry), start).point
    (before, after), _ = jax.vmap(problem.loss)(jnp.stack([problem.start, point]))
    better = jnp.isfinite(after) & ~(after > before)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old).astype(old.dtype), problem.at(point), params)


def promised(plan: Plan, statistics: Statistics, params: Params) -> Promise:
    """1/2 g' |H|^-1 g at these parameters, nats: g and H are of the objective over the unconstrained numeric ones.

    It does not depend on units. ``is_saddle``: a direction of positive curvature leads upwards, on either side. With
    more than 256 unconstrained values H^-1 g comes from conjugate gradients, which end in such a direction.
    """
    if not plan.numeric:
        return Promise(jnp.zeros((), plan.dtype), jnp.zeros((), bool))
    problem = numeric_problem(plan, statistics, params)
    dense = problem.start.shape[0] <= MOST_DENSE
    if dense:
        curvature, least, direction = dense_curvature(problem, problem.start)
        nats = curvature.decrement()
    else:
        curvature = sketched_curvature(problem, problem.start)
        nats, least, direction = conjugate_decrement(problem, curvature)
    precision = problem.precision
    rounding = ROUNDING * precision * curvature.size
    # Where the objective has a corner, no step is as good as its slope says: then nothing is promised.
    uphill = -curvature.step(curvature.gradient @ curvature.basis if dense else curvature.step(curvature.gradient))
    tried = jax.vmap(lambda step: problem.loss(problem.start + step * uphill)[0])(
        jnp.asarray(_STEPS, problem.start.dtype)
    )
    if dense:
        tried = jnp.append(tried, _one_by_one(problem, problem.start, curvature)[0])
    gained = curvature.loss - jnp.min(jnp.where(jnp.isfinite(tried), tried, jnp.inf))
    nats = jnp.where(gained > rounding, nats, jnp.minimum(nats, rounding))
    # Of a matrix whose rows are of length one; the step along it would gain _TRIED nats.
    length = jnp.sqrt(2 * _TRIED / jnp.where(least < 0, -least, 1.0))
    signs = jnp.array([1.0, -1.0], problem.start.dtype)
    either = jax.vmap(lambda sign: problem.loss(problem.start + sign * length * direction)[0])(signs)
    gained = curvature.loss - either.min()
    rises = gained > 0.25 * _TRIED + rounding
    return Promise(nats, (least < -(precision**0.5)) & rises)


def _round(problem: NumericProblem, carry: _Rounds) -> _Rounds:
    """Some steps of BFGS from here."""
    point = carry.point
    is_dense = point.shape[0] <= MOST_DENSE
    curvature = dense_curvature(problem, point, carry.damping)[0] if is_dense else sketched_curvature(problem, point)
    rounding = ROUNDING * problem.precision

    def rise(
        coordinates: Float[Array, " P"], _: None
    ) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
        loss, size = problem.loss(point + curvature.step(coordinates))
        # Where the terms are so large that they lose their digits, a value is taken for the worst that it may be.
        return loss - curvature.loss + rounding * (size - curvature.size), (loss, size)

    solver = (DenseBFGS if is_dense else LimitedBFGS)(
        tolerance=rounding / 1024 * curvature.size, search=Backtracking(rounding * curvature.size)
    )
    solution = optimistix.minimise(
        rise,
        solver,
        jnp.zeros_like(point),
        has_aux=True,
        max_steps=_EVALUATIONS,
        adjoint=NoAdjoint(),
        throw=False,
    )
    following, (after, size) = point + curvature.step(solution.value), solution.aux
    stayed, settled = (solution.value == 0).all(), solution.result == optimistix.RESULTS.successful
    if is_dense:
        loss, alone = _one_by_one(problem, point, curvature)
        lower = loss < after - rounding * curvature.size
        following, stayed, settled = jnp.where(lower, alone, following), stayed & ~lower, settled & ~lower
    # What was lost to rounding where the terms were large is to be had where they are not. And far from the maximum the
    # Hessian says little of that there, nor does what BFGS has made of it.
    settled = settled & (curvature.decrement() < 1.0) & (16 * size > curvature.size)
    damping = jnp.where(stayed & ~settled, jnp.maximum(1e-8, 1e3 * carry.damping), 0.0).astype(point.dtype)
    return _Rounds(following, damping, settled, carry.made + 1)


def _one_by_one(
    problem: NumericProblem, point: Float[Array, " P"], curvature: NumericCurvature
) -> tuple[Float[Array, ""], Float[Array, " P"]]:
    """The loss and the point of the best step along one value alone. At a corner in one of them (a value that is
    clipped, say) the slope is wrong for every step that moves that one too.
    """
    steps = jnp.asarray(_STEPS[:_ALONE], point.dtype)

    def best(index: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        losses = jax.vmap(lambda step: problem.loss(point.at[index].add(step * curvature.alone[index]))[0])(steps)
        losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
        return losses.min(), steps[jnp.argmin(losses)]

    losses, lengths = jax.lax.map(best, jnp.arange(point.shape[0]))
    index = jnp.argmin(losses)
    return losses[index], point.at[index].add(lengths[index] * curvature.alone[index])
