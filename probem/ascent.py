"""The gradient route: guarded quasi-Newton steps for parameters of a site without an exponential-family form.

One step asks the data for two sums: the gradient of the expected log joint at the current parameters (with the
statistics of the E half-step), and the expected log joint at a few points along the direction. The best point is
taken, if it is better than staying, so the bound never falls. At the current parameters the gradient of the expected
log joint is that of the bound, which is why its changes may feed the BFGS update (Nocedal & Wright 2006, eq. 6.17).
"""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints

from .expectation import Prepared, Summary, unconstrained
from .maximization import Statistics, objective
from .program import Params

if TYPE_CHECKING:
    from .loop import State
    from .plan import Plan

# Multiples of the last accepted step that are tried in one pass.
_LADDER = (4.0, 1.0, 0.25, 1 / 16, 1 / 64, 1 / 512)

# The farthest that one step moves a constrained parameter in unconstrained space: a factor of twenty where positive.
_FARTHEST = 3.0

# Passes without an accepted step, after which there is none: the ladder has come down a thousand billion times, with
# the curvature learned and, that forgotten, without.
MOST_FAILURES = 8


class Ascent(NamedTuple):
    """The inverse curvature ``[P, P]``, the last point and gradient ``[P]``, the last accepted step size, and the
    passes since then. ``growing``: that step was the longest tried, and the next will be longer.
    """

    inverse_hessian: Array
    point: Array
    gradient: Array
    size: Array
    growing: Array
    failures: Array


def start(plan: "Plan", params: Params, prepared: Prepared) -> Ascent:
    """No curvature known: the gradient of a sum over N rows, divided by N."""
    point, _ = unconstrained(plan, params) if plan.gradient else (jnp.zeros(0, plan.dtype), None)
    identity = jnp.eye(point.shape[0], dtype=plan.dtype)
    unknown, one = jnp.full_like(point, jnp.nan), jnp.ones((), plan.dtype)
    return Ascent(identity / prepared.total_weight, point, unknown, one, jnp.zeros((), bool), jnp.zeros((), jnp.int32))


def propose(
    plan: "Plan", following: "State", summary: Summary, stats: Statistics, before: "State"
) -> tuple[Ascent, Array]:
    """Update the curvature with this gradient, and lay out the candidates ``[J, P]`` along the ascent direction."""
    point, back = unconstrained(plan, following.params)

    def smooth(vector: Array) -> Array:
        return objective(plan.mean_field, stats, back(vector)).astype(plan.dtype)

    gradient = summary.gradient + jax.grad(smooth)(point)
    old = before.ascent
    moved, turned = point - old.point, old.gradient - gradient
    curvature = moved @ turned
    useful = jnp.isfinite(curvature) & (curvature > jnp.finfo(plan.dtype).eps * jnp.linalg.norm(turned) ** 2 / 1e8)
    rho = jnp.where(useful, 1.0 / jnp.where(useful, curvature, 1.0), 0.0)
    turned = jnp.where(useful, turned, 0.0)
    left = jnp.eye(point.shape[0], dtype=plan.dtype) - rho * jnp.outer(moved, turned)
    inverse_hessian = left @ old.inverse_hessian @ left.T + rho * jnp.outer(moved, moved)
    direction = inverse_hessian @ gradient
    size = jnp.where(useful, jnp.maximum(old.size, 0.25), old.size)
    longest = jnp.abs(_LADDER[0] * size * direction) / _farthest(plan, following.params)
    direction = direction / jnp.maximum(1.0, longest.max(initial=0.0))
    candidates = point[None, :] + (jnp.asarray(_LADDER, plan.dtype) * size)[:, None] * direction[None, :]
    return Ascent(inverse_hessian, point, gradient, size, old.growing, old.failures), candidates


def _farthest(plan: "Plan", params: Params) -> Array:
    """How far one step may move each entry of the vector, ``[P]``; unconstrained parameters go without limit."""
    # The others are on the scale of a logarithm or a logit. Nothing leads back from a step to where a density has lost
    # its digits (a Student t with 1e200 degrees of freedom) or its slope (a concentration of 1e-200).
    limits = {
        name: jnp.full(
            plan.program.bijection(name).inverse_shape(jnp.shape(params[name])),
            jnp.inf if plan.program.constraints[name] is constraints.real else _FARTHEST,
            plan.dtype,
        )
        for name in plan.gradient
    }
    return ravel_pytree(limits)[0]


def select(
    plan: "Plan",
    state: "State",
    candidates: Array,
    values: Array,
    summary: Summary,
    stats: Statistics,
    prepared: Prepared,
) -> tuple[Params, Ascent, Array]:
    """The parameters at the best candidate (or where they were), the state of the ascent, and the gain in nats."""
    _, back = unconstrained(plan, state.params)

    def rest(params: Params) -> Array:
        return objective(plan.mean_field, stats, params).astype(plan.dtype)

    gains = values - summary.generic + jax.lax.map(lambda vector: rest(back(vector)), candidates) - rest(state.params)
    gains = jnp.where(jnp.isfinite(gains), gains, -jnp.inf)
    best = jnp.argmax(gains)
    # Two sums over the rows, added up in different orders, differ by rounding.
    better = gains[best] > 16 * jnp.finfo(plan.dtype).eps * jnp.abs(summary.generic)
    chosen = back(candidates[best])
    params = jax.tree.map(lambda new, old: jnp.where(better, new, old), chosen, state.params)
    size = state.ascent.size * jnp.where(better, jnp.asarray(_LADDER, plan.dtype)[best], 1 / 4096)
    failures = jnp.where(better, 0, state.ascent.failures + 1)
    growing = better & (best == 0)
    # A direction that helps nowhere along the ladder has a curvature that is wrong: forget it.
    fresh = start(plan, state.params, prepared)
    learned = (state.ascent.inverse_hessian != fresh.inverse_hessian).any()
    forget = ~better & (state.ascent.size < 1e-6) & learned
    inverse_hessian = jnp.where(forget, fresh.inverse_hessian, state.ascent.inverse_hessian)
    size = jnp.where(forget, 1.0, size)
    return (
        params,
        state.ascent._replace(inverse_hessian=inverse_hessian, size=size, growing=growing, failures=failures),
        jnp.where(better, gains[best], 0.0),
    )
