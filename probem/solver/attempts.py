"""The M-step under a q that is held, for each order of the components that is worth trying."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.e_step.initial_q import SOFTENED, InitialQ, can_be_released
from probem.e_step.passes import Pass
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan
from probem.solver.first_step import first_update, ordered_update, softened_update, value_under
from probem.solver.gap_moments import MOMENTS, filled_by, no_sums
from probem.solver.loop import advance, any_goes_on, blank_memory, run
from probem.solver.seed_order import best_state, orders_by_passes, reordered_labels
from probem.solver.start import Start
from probem.solver.state import Limits, State, initial_state
from probem.solver.step import no_memory, visit
from probem.stopping import Stopping

# Steps with the first q held, for parameters of the gradient route: they have to leave their common initial value.
_HELD_STEPS = 25


def hold_q(rows: Pass, q: Sequence[Array], active: bool | None) -> InitialQ:
    """A q that is held, block by block; whether it is ``active`` is a number where that may change."""
    number: Any = active if active is None else np.full(rows.restarts if rows.restarts > 1 else (), active)
    return InitialQ(tuple(q), number)


def is_active(rows: Pass, start: Start) -> bool | None:
    """Whether a q that is held can be released: where the loop follows that was compiled for both."""
    return True if not rows.in_trace and rows.plan.gradient and releases(rows.plan, start) else None


def releases(plan: Plan, start: Start) -> bool:
    """Whether the computation of a step can serve the q that the start holds as well."""
    labels = start.held is None or jnp.issubdtype(start.held.dtype, jnp.integer)
    return start.params is None and can_be_released(plan, labels)


_Made = TypeVar("_Made")


class Attempt(NamedTuple):
    """The state after the M-step under a q that is held, and F under that q, but for what does not depend on the order
    of the components.
    """

    state: State
    value: Array
    held: tuple[Array, ...]


def state_from_q(rows: Pass, start: Start, held: Sequence[Array], seeds: Array | None) -> State:
    """The M-step under a given q; for the gradient route, some more steps with that q held."""

    def climb(made: Attempt) -> tuple[State, Array]:
        if not rows.plan.gradient:
            return made.state, made.value
        return _climbed(rows, made, is_active(rows, start))

    return best_attempt(rows, make_attempts(rows, start, held, seeds, climb))


def make_attempts(
    rows: Pass, start: Start, held: Sequence[Array], seeds: Array | None, after: Callable[[Attempt], _Made]
) -> list[_Made]:
    """What ``after`` makes of the M-step under a given q, for each order of the components that is worth trying.

    Where ``seeds`` [K, F] led to that q, components may differ in more than the values of their parameters, and each is
    given the seeds in the order with the highest F. Known labels say which component is which.
    """
    plan, call = rows.plan, rows.call

    def attempt(held: Sequence[Array], maximised: Callable[..., State]) -> _Made:
        return after(_from_order(rows, start, held, maximised))

    def in_order(order: Array) -> _Made:
        own = [call(reordered_labels, 0, 0)(plan, labels, order) for labels in held]
        return attempt(own, softened_update)

    if seeds is None or rows.blocks[0].labels is not None or (plan.is_exchangeable and start.given is None):
        return [attempt(held, first_update if seeds is None else softened_update)]
    if not plan.form.generic:
        return [attempt(held, ordered_update)]
    orders = call(orders_by_passes, 0)(plan, seeds)
    if rows.in_trace:
        made = jax.lax.map(in_order, orders)
        return [jax.tree.map(lambda leaf, row=row: leaf[row], made) for row in range(len(orders))]
    return [in_order(order) for order in jnp.moveaxis(orders, int(rows.restarts > 1), 0)]


def best_attempt(rows: Pass, made: Sequence[tuple[State, Array]]) -> State:
    """Of the states under several orders that with the highest F."""
    if len(made) == 1:
        return made[0][0]
    states, values = jax.tree.map(lambda *leaves: jnp.stack(leaves, int(rows.restarts > 1)), *made)
    return rows.call(best_state, 0, 0)(rows.plan, states, values)


def _from_order(rows: Pass, start: Start, held: Sequence[Array], maximised: Callable[..., State]) -> Attempt:
    """The M-step under a given q."""
    plan, totals, call, initial = rows.plan, rows.totals, rows.call, start.initial
    if rows.restarts > 1:
        initial = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows.restarts, *leaf.shape)), initial)
    state = call(initial_state, 0, None)(plan, initial, totals)
    if plan.softens_labels and held[0].ndim == 1 + int(rows.restarts > 1):
        _, held = rows.reduce(SOFTENED, None, state.at, held)
    if plan.form.completing:
        zero = no_sums(plan)
        if rows.restarts > 1:
            zero = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rows.restarts, *leaf.shape)), zero)
        sums, _ = rows.reduce(MOMENTS, zero, None, held)
        state = call(filled_by, 0, 0)(plan, state, sums)
    summary, _ = visit(rows, state, no_memory(rows), hold_q(rows, held, is_active(rows, start)))
    state = call(maximised, 0, 0, None, None)(plan, state, summary, totals, start.given)
    value = call(value_under, 0, 0, None)(plan, state, summary, totals) if plan.form.generic else state.last
    return Attempt(state, value, tuple(held))


def _climbed(rows: Pass, made: Attempt, active: bool | None) -> tuple[State, Array]:
    """The state after some steps of the gradient route under the q that is held, and F under that q."""
    limits, num_steps = held_limits(Limits(Stopping(), jnp.zeros((), jnp.int32))), num_held_steps(rows.plan)
    state, memory, held = made.state, blank_memory(rows, made.state, limits), hold_q(rows, made.held, active)
    if rows.in_trace:
        state, _, _ = run(rows, state, memory, held, limits, (num_steps, 0))
    else:
        for _ in range(num_steps):
            if not any_goes_on(rows, state, limits):
                break
            state, memory, _ = advance(rows, state, memory, held, limits, 1)
    return rows.call(with_fresh_history, 0, None)(rows.plan, state, rows.totals), state.last


def num_held_steps(plan: Plan) -> int:
    """Steps with the first q held."""
    # Shares have a closed form.
    return 1 if plan.gradient_is_multinomial else _HELD_STEPS


def held_limits(limits: Limits) -> Limits:
    """The limits of a fit for steps under a q that is held: no rule ends those."""
    return limits._replace(max_steps=jnp.asarray(_HELD_STEPS + 1, jnp.int32), is_held=np.asarray(True))


def with_fresh_history(plan: Plan, state: State, totals: DataTotals) -> State:
    """What was learned of the curvature stays; how the last steps under the held q went says nothing."""
    fresh = initial_state(plan, state.params, totals)
    return fresh._replace(ascent=fresh.ascent._replace(inverse=state.ascent.inverse, origin=state.ascent.origin))
