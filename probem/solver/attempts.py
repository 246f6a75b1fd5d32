"""The M-step under a q that is held, for each order of the components that is worth trying."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.data.blocks import Block
from probem.e_step.initial_q import InitialQ, can_be_released, softened
from probem.form.statistics import DataTotals
from probem.jit.calls import Call, inline
from probem.plan.plan import Plan
from probem.solver import gap_moments as available
from probem.solver import loop
from probem.solver.first_step import first_update, ordered_update, softened_update, value_under
from probem.solver.seed_order import best_state, orders_by_passes, reordered_labels
from probem.solver.start import Start
from probem.solver.state import Limits, State, initial_state
from probem.solver.step import step, visit
from probem.solver.stopping import Stopping

# Steps with the first q held, for parameters of the gradient route: they have to leave their common initial value.
_HELD_STEPS = 25


def hold_q(held: Sequence[Array], active: bool | None, restarts: int) -> tuple[InitialQ, ...]:
    """Block by block."""
    number: Any = active if active is None else np.full(restarts if restarts > 1 else (), active)
    return tuple(InitialQ(own, number) for own in held)


def is_active(plan: Plan, start: Start, call: Call) -> bool | None:
    """Whether a q that is held can be released: where the loop follows that was compiled for both."""
    return True if call is not inline and plan.gradient and releases(plan, start) else None


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


def state_from_q(
    plan: Plan,
    start: Start,
    prepared: DataTotals,
    blocks: Sequence[Block],
    held: Sequence[Array],
    seeds: Array | None,
    call: Call,
    restarts: int,
) -> State:
    """The M-step under a given q; for the gradient route, some more steps with that q held."""

    def climb(made: Attempt) -> tuple[State, Array]:
        if not plan.gradient:
            return made.state, made.value
        return _climbed(plan, made, prepared, blocks, is_active(plan, start, call), call, restarts)

    return best_attempt(
        plan, make_attempts(plan, start, prepared, blocks, held, seeds, call, restarts, climb), call, restarts
    )


def make_attempts(
    plan: Plan,
    start: Start,
    prepared: DataTotals,
    blocks: Sequence[Block],
    held: Sequence[Array],
    seeds: Array | None,
    call: Call,
    restarts: int,
    after: Callable[[Attempt], _Made],
) -> list[_Made]:
    """What ``after`` makes of the M-step under a given q, for each order of the components that is worth trying.

    Where ``seeds`` [K, F] led to that q, components may differ in more than the values of their parameters, and each is
    given the seeds in the order with the highest F. Known labels say which component is which.
    """

    def attempt(held: Sequence[Array], maximised: Callable[..., State]) -> _Made:
        return after(_from_order(plan, start, prepared, blocks, held, maximised, call, restarts))

    def in_order(order: Array) -> _Made:
        own = [call(reordered_labels, 0, 0)(plan, labels, order) for labels in held]
        return attempt(own, softened_update)

    if seeds is None or blocks[0].labels is not None or (plan.is_exchangeable and start.given is None):
        return [attempt(held, first_update if seeds is None else softened_update)]
    if not plan.form.generic:
        return [attempt(held, ordered_update)]
    orders = call(orders_by_passes, 0)(plan, seeds)
    if call is inline:
        made = jax.lax.map(in_order, orders)
        return [jax.tree.map(lambda leaf, row=row: leaf[row], made) for row in range(len(orders))]
    return [in_order(order) for order in jnp.moveaxis(orders, int(restarts > 1), 0)]


def best_attempt(plan: Plan, made: Sequence[tuple[State, Array]], call: Call, restarts: int) -> State:
    """Of the states under several orders that with the highest F."""
    if len(made) == 1:
        return made[0][0]
    states, values = jax.tree.map(lambda *leaves: jnp.stack(leaves, int(restarts > 1)), *made)
    return call(best_state, 0, 0)(plan, states, values)


def _from_order(
    plan: Plan,
    start: Start,
    prepared: DataTotals,
    blocks: Sequence[Block],
    held: Sequence[Array],
    maximised: Callable[..., State],
    call: Call,
    restarts: int,
) -> Attempt:
    """The M-step under a given q."""
    size, initial, active = blocks[0].size, start.initial, is_active(plan, start, call)
    if restarts > 1:
        initial = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (restarts, *leaf.shape)), initial)
    labels = jnp.zeros((restarts, size) if restarts > 1 else (size,), jnp.int32)
    state = call(initial_state, 0, None)(plan, initial, prepared)
    if plan.softens_labels and held[0].ndim == 1 + int(restarts > 1):
        soften = call(softened, 0, 0, 0, None, None)
        held = [
            soften(plan, own, state.params, state.linear, prepared, block)
            for own, block in zip(held, blocks, strict=True)
        ]
    if plan.form.completing:
        sums = call(available.no_sums, 0)(plan, state)
        for block, own in zip(blocks, held, strict=True):
            sums = call(available.add_sums, 0, 0, None, None)(plan, sums, own, prepared, block)
        state = call(available.filled_by, 0, 0)(plan, state, sums)
    summary, _ = visit(plan, state, [labels] * len(blocks), hold_q(held, active, restarts), prepared, blocks, call)
    state = call(maximised, 0, 0, None, None)(plan, state, summary, prepared, start.given)
    value = call(value_under, 0, 0, None)(plan, state, summary, prepared) if plan.form.generic else state.last
    return Attempt(state, value, tuple(held))


def _climbed(
    plan: Plan,
    made: Attempt,
    prepared: DataTotals,
    blocks: Sequence[Block],
    active: bool | None,
    call: Call,
    restarts: int,
) -> tuple[State, Array]:
    """The state after some steps of the gradient route under the q that is held, and F under that q."""
    limits, num_steps = held_limits(Limits(Stopping(), jnp.zeros((), jnp.int32))), num_held_steps(plan)
    # A q of labels has labels, whatever the family, until it is released.
    size = (restarts, blocks[0].size) if restarts > 1 else (blocks[0].size,)
    empty = jnp.full(size, -1, jnp.int32) if active is None else loop.no_labels(plan, blocks[0].size, restarts)
    labels = [empty] * len(blocks)
    held = hold_q(made.held, active, restarts)

    def held_step(state: State) -> State:
        return step(plan, state, labels, held, prepared, blocks, limits, call)[0]

    def is_short(state: State) -> Array:
        return (state.step < num_steps) & loop.goes_on(state, prepared, limits)

    if call is inline:
        state = jax.lax.while_loop(is_short, held_step, made.state)
    else:
        state, short = made.state, jax.vmap(is_short) if restarts > 1 else is_short
        while bool(short(state).any()):
            state = held_step(state)
    return call(with_fresh_history, 0, None)(plan, state, prepared), state.last


def num_held_steps(plan: Plan) -> int:
    """Steps with the first q held."""
    # Shares have a closed form.
    return 1 if plan.gradient_is_multinomial else _HELD_STEPS


def held_limits(limits: Limits) -> Limits:
    """The limits of a fit for steps under a q that is held: no rule ends those."""
    return limits._replace(max_steps=jnp.asarray(_HELD_STEPS + 1, jnp.int32), is_held=np.asarray(True))


def with_fresh_history(plan: Plan, state: State, prepared: DataTotals) -> State:
    """What was learned of the curvature stays; how the last steps under the held q went says nothing."""
    fresh = initial_state(plan, state.params, prepared)
    return fresh._replace(ascent=fresh.ascent._replace(inverse=state.ascent.inverse, origin=state.ascent.origin))
