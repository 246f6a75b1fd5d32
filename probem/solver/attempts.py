"""The M-step under a q that is given, for each order of the components that is worth trying."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probem.e_step.initial_q import SOFTENED, GivenQ, InitialQ, can_be_released
from probem.e_step.passes import Pass
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan
from probem.solver.first_step import first_update, ordered_update, softened_update, value_under
from probem.solver.gap_moments import MOMENTS, filled_by, no_sums
from probem.solver.loop import advance, any_goes_on, blank_memory, run
from probem.solver.seed_order import best_order, best_state, orders_by_passes, reordered_labels
from probem.solver.start import Seeds, Start
from probem.solver.state import Limits, State, initial_state
from probem.solver.step import no_memory, visit
from probem.stopping import Stopping

# Steps under the first q, for parameters of the gradient route: they have to leave their common initial value.
_INITIAL_STEPS = 25


def as_initial_q(data_pass: Pass, q: Sequence[GivenQ], active: bool | None) -> InitialQ:
    """A q that is given, block by block; whether it is ``active`` is a number where that may change."""
    number: Any = active if active is None else np.full(data_pass.restarts if data_pass.restarts > 1 else (), active)
    return InitialQ(tuple(q), number)


def is_active(data_pass: Pass, start: Start) -> bool | None:
    """Whether a q that is given can be released: where the loop follows that was compiled for both."""
    return True if not data_pass.in_trace and data_pass.plan.gradient and releases(data_pass.plan, start) else None


def releases(plan: Plan, start: Start) -> bool:
    """Whether the computation of a step can serve the q that the start gives as well."""
    labels = start.given_q is None or jnp.issubdtype(start.given_q.dtype, jnp.integer)
    return start.params is None and can_be_released(plan, labels)


_Made = TypeVar("_Made")


class Attempt(NamedTuple):
    """The state after the M-step under a q that is given, and F under that q, but for what does not depend on the order
    of the components.
    """

    state: State
    value: Float[Array, "*R"]
    q: tuple[GivenQ, ...]


def state_from_q(data_pass: Pass, start: Start, q: Sequence[GivenQ], seeds: Seeds | None) -> State:
    """The M-step under a given q; for the gradient route, some more steps under it."""

    def climb(made: Attempt) -> tuple[State, Float[Array, "*R"]]:
        if not data_pass.plan.gradient:
            return made.state, made.value
        return _climbed(data_pass, made, is_active(data_pass, start))

    return best_attempt(data_pass, make_attempts(data_pass, start, q, seeds, climb))


def make_attempts(
    data_pass: Pass, start: Start, q: Sequence[GivenQ], seeds: Seeds | None, after: Callable[[Attempt], _Made]
) -> list[_Made]:
    """What ``after`` makes of the M-step under a given q, for each order of the components that is worth trying.

    Where ``seeds`` led to that q, components may differ in more than the values of their parameters, and each is
    given the seeds in the order with the highest F. Known labels say which component is which.
    """
    plan, call = data_pass.plan, data_pass.call

    def attempt(q: Sequence[GivenQ], maximised: Callable[..., State]) -> _Made:
        return after(_from_order(data_pass, start, q, maximised))

    def in_order(order: Int[Array, "*R K"]) -> _Made:
        reordered = [call(reordered_labels, 0, 0)(plan, labels, order) for labels in q]
        return attempt(reordered, softened_update)

    if seeds is None or data_pass.blocks[0].labels is not None or (plan.is_exchangeable and start.given is None):
        return [attempt(q, first_update if seeds is None else softened_update)]
    if not plan.form.generic:
        return [attempt(q, ordered_update)]
    orders = call(orders_by_passes, 0)(plan, seeds)
    if data_pass.in_trace:
        made = jax.lax.map(in_order, orders)
        return [jax.tree.map(lambda leaf, row=row: leaf[row], made) for row in range(len(orders))]
    return [in_order(order) for order in jnp.moveaxis(orders, int(data_pass.restarts > 1), 0)]


def best_attempt(data_pass: Pass, made: Sequence[tuple[State, Float[Array, "*R"]]]) -> State:
    """Of the states under several orders that with the highest F."""
    if len(made) == 1:
        return made[0][0]
    if data_pass.restarts == 1 and not data_pass.in_trace:
        # Without a copy of every state, which would take half a second to compile.
        return made[int(data_pass.call(best_order, 0)(data_pass.plan, [value for _, value in made]))][0]
    return data_pass.call(best_state, 0)(data_pass.plan, tuple(made))


def _from_order(data_pass: Pass, start: Start, q: Sequence[GivenQ], maximised: Callable[..., State]) -> Attempt:
    """The M-step under a given q."""
    plan, totals, call, initial = data_pass.plan, data_pass.totals, data_pass.call, start.initial
    if data_pass.restarts > 1:
        initial = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (data_pass.restarts, *leaf.shape)), initial)
    state = call(initial_state, 0, None)(plan, initial, totals)
    if plan.softens_labels and q[0].ndim == 1 + int(data_pass.restarts > 1):
        _, q = data_pass.reduce(SOFTENED, None, state.at, q)
    if plan.form.completing:
        zero = no_sums(plan)
        if data_pass.restarts > 1:
            zero = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (data_pass.restarts, *leaf.shape)), zero)
        sums, _ = data_pass.reduce(MOMENTS, zero, None, q)
        state = call(filled_by, 0, 0)(plan, state, sums)
    summary, _ = visit(data_pass, state, no_memory(data_pass), as_initial_q(data_pass, q, is_active(data_pass, start)))
    state = call(maximised, 0, 0, None, None)(plan, state, summary, totals, start.given)
    value = call(value_under, 0, 0, None)(plan, state, summary, totals) if plan.form.generic else state.last
    return Attempt(state, value, tuple(q))


def _climbed(data_pass: Pass, made: Attempt, active: bool | None) -> tuple[State, Float[Array, "*R"]]:
    """The state after some steps of the gradient route under the q that is given, and F under that q."""
    limits = initial_limits(Limits.of(Stopping(), jnp.zeros((), jnp.int32)))
    num_steps = num_initial_steps(data_pass.plan)
    state, memory = made.state, blank_memory(data_pass, made.state, limits)
    initial = as_initial_q(data_pass, made.q, active)
    if data_pass.in_trace:
        state, _, _ = run(data_pass, state, memory, initial, limits, (num_steps, 0))
    else:
        for _ in range(num_steps):
            if not any_goes_on(data_pass, state, limits):
                break
            state, memory, _ = advance(data_pass, state, memory, initial, limits, 1)
    return data_pass.call(with_fresh_history, 0, None)(data_pass.plan, state, data_pass.totals), state.last


def num_initial_steps(plan: Plan) -> int:
    """Steps under the first q."""
    # Shares have a closed form.
    return 1 if plan.gradient_is_multinomial else _INITIAL_STEPS


def initial_limits(limits: Limits) -> Limits:
    """The limits of a fit for steps under a q that is given: no rule ends those."""
    return limits._replace(max_steps=jnp.asarray(_INITIAL_STEPS + 1, jnp.int32), is_initial=np.asarray(True))


def with_fresh_history(plan: Plan, state: State, totals: DataTotals) -> State:
    """What was learned of the curvature stays; how the last steps under the given q went says nothing."""
    fresh = initial_state(plan, state.params, totals)
    return fresh._replace(ascent=fresh.ascent._replace(inverse=state.ascent.inverse, origin=state.ascent.origin))
