"""The one loop: E half-step, M half-step, terminate; the same for every program and family.

Data in few blocks is looped over inside one compiled function, some steps at a time, so that the host can show
progress and answer Ctrl-C. Data in many takes the same step from the host, call by call.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from probem.data.blocks import Block
from probem.e_step.initial_q import InitialQ
from probem.e_step.passes import Pass
from probem.form.statistics import DataTotals
from probem.jit.compilation import Effort, by_plan
from probem.m_step.gradient.ascent import is_settled
from probem.plan.plan import Plan
from probem.solver.result import RUNNING
from probem.solver.side_by_side import in_batches, whole_batch_size
from probem.solver.state import Acceleration, Limits, Record, State
from probem.solver.step import INITIAL_TOLERANCE, RowMemories, no_memory, step

#: Steps that one call of the compiled loop can record.
CALL_STEPS = 32


class Memory(NamedTuple):
    """What goes from step to step beside the state: what rows keep, and what an acceleration knows of the past."""

    kept: RowMemories
    past: Any = None


# State, memory, records, and the number of steps made.
_Made = tuple[State, Memory, Record | None, Int[Array, ""]]


def blank_memory(data_pass: Pass, state: State, limits: Limits) -> Memory:
    """What is known before the first step."""
    past = None if limits.acceleration is None else data_pass.call(_begun, 0, None)(data_pass.plan, state, limits)
    return Memory(no_memory(data_pass), past)


def next_step(
    data_pass: Pass, state: State, memory: Memory, initial: InitialQ | None, limits: Limits
) -> tuple[State, Memory, Record]:
    """A step, and where the next begins."""
    after, kept, record = step(data_pass, state, memory.kept, initial, limits)
    past = memory.past
    if limits.acceleration is not None:
        moved = data_pass.call(_moved, 0, 0, None, None)
        after, past, outcome = moved(data_pass.plan, (state, after), past, data_pass.totals, limits)
        record = record._replace(accelerated=outcome)
    return after, Memory(kept, past), record


def _begun(plan: Plan, state: State, limits: Limits) -> Any:
    assert limits.acceleration is not None
    return limits.acceleration.begin(plan, state)


def _moved(
    plan: Plan, steps: tuple[State, State], past: Any, totals: DataTotals, limits: Limits
) -> tuple[State, Any, Int[Array, ""]]:
    """The state after a step, moved by the acceleration unless a q is given."""
    assert limits.acceleration is not None
    moved = limits.acceleration.between(plan, steps, past, totals, limits)
    stays, stayed = limits.is_initial, (steps[1], past, jnp.zeros((), jnp.int32))
    return jax.tree.map(lambda old, new: jnp.where(stays, old, new), stayed, moved)


def run(
    data_pass: Pass,
    state: State,
    memory: Memory,
    initial: InitialQ | None,
    limits: Limits,
    steps: tuple[Int[Array, ""] | int, int],
) -> tuple[State, Memory, Record | None]:
    """Steps over a few blocks of data until the fit has ended, as one loop inside a trace.

    ``steps`` are the most that are made, and as many that there is room for in the records, ``[num_records]``. Where
    that is 0, the records are None.
    """
    num_steps, num_records = steps
    records = blank_records(data_pass.plan, (num_records,), limits.acceleration) if num_records else None

    def unfinished(now: _Made) -> Bool[Array, ""]:
        return goes_on(now[0], data_pass.totals, limits) & (now[3] < num_steps)

    def body(now: _Made) -> _Made:
        state, memory, records, made = now
        state, memory, record = next_step(data_pass, state, memory, initial, limits)
        if records is not None:
            records = jax.tree.map(
                lambda all, new: jax.lax.dynamic_update_index_in_dim(all, new, made, 0), records, record
            )
        return state, memory, records, made + 1

    return jax.lax.while_loop(unfinished, body, (state, memory, records, jnp.asarray(0)))[:3]


def compiled_run(
    data_pass: Pass,
    state: State,
    memory: Memory,
    initial: InitialQ | None,
    limits: Limits,
    num_steps: Int[Array, ""] | int,
) -> tuple[State, Memory, Record]:
    """Up to ``num_steps`` (at most ``CALL_STEPS``) steps and their records, in one compiled call, over all restarts."""
    memory = memory._replace(kept=tuple(memory.kept))
    each, common = (state, memory, initial), (tuple(data_pass.blocks), data_pass.totals, limits, num_steps)
    return _compiled_run(data_pass.restarts > 1, data_pass.effort)(data_pass.plan, each, common)


def advance(
    data_pass: Pass, state: State, memory: Memory, initial: InitialQ | None, limits: Limits, num_steps: int
) -> tuple[State, Memory, Record]:
    """Up to ``num_steps`` steps from the host, of data in many blocks a single one; restarts that have ended stay as
    they are.
    """
    if len(data_pass.blocks) <= data_pass.parallel_blocks:
        return compiled_run(data_pass, state, memory, initial, limits, num_steps)
    after, memory, record = next_step(data_pass, state, memory, initial, limits)
    if data_pass.restarts > 1:
        after = data_pass.call(_unless_ended, 0, 0, None, None)(data_pass.plan, state, after, data_pass.totals, limits)
    return after, memory, record


def _unless_ended(plan: Plan, before: State, after: State, totals: DataTotals, limits: Limits) -> State:
    on = goes_on(before, totals, limits)
    return jax.tree.map(lambda old, new: jnp.where(on, new, old), before, after)


@functools.cache
def _compiled_run(batched: bool, effort: Effort) -> Callable[..., Any]:
    def steps(plan: Plan, each: tuple[Any, ...], common: tuple[Any, ...]) -> Any:
        (state, memory, initial), (blocks, totals, limits, num_steps) = each, common
        data_pass = Pass(plan, blocks, totals, in_trace=True)
        return run(data_pass, state, memory, initial, limits, (num_steps, CALL_STEPS))

    def mapped(plan: Plan, each: tuple[Any, ...], common: tuple[Any, ...]) -> Any:
        if not batched:
            return steps(plan, each, common)
        # Each batch has its steps before the next begins: all at once would wait for the slowest, and for memory.
        restarts, num_rows = len(each[0].code), sum(block.size for block in common[0])
        return in_batches(lambda alone: steps(plan, alone, common), whole_batch_size(restarts, num_rows), each)

    return by_plan(mapped, effort=effort)


def blank_records(plan: Plan, shape: tuple[int, ...], acceleration: Acceleration | None) -> Record:
    """Records of steps that were not made."""
    accelerated = None if acceleration is None else jnp.zeros(shape, jnp.int32)
    return Record(jnp.full((*shape, 2, 5), jnp.nan, plan.dtype), jnp.full(shape, -1, jnp.int32), accelerated)


@by_plan
def compiled_run_to_end(
    plan: Plan, state: State, totals: DataTotals, blocks: tuple[Block, ...], limits: Limits
) -> State:
    """The state in which the fit has ended, without a history."""
    data_pass = Pass(plan, blocks, totals, in_trace=True)
    return run(data_pass, state, blank_memory(data_pass, state, limits), None, limits, (limits.max_steps, 0))[0]


def goes_on(state: State, totals: DataTotals, limits: Limits) -> Bool[Array, ""]:
    """Whether the rule and what may go wrong ask for another step; under a q that is given, whether there is more than
    little to gain from it.
    """
    allowed = INITIAL_TOLERANCE * totals.total_weight
    short = ~is_settled(state.ascent, allowed, allowed)
    return jnp.where(limits.is_initial, short, state.code == RUNNING)


def any_goes_on(data_pass: Pass, state: State, limits: Limits) -> bool:
    """Whether any restart asks for another step."""
    each = jax.vmap(goes_on, in_axes=(0, None, None)) if data_pass.restarts > 1 else goes_on
    return bool(each(state, data_pass.totals, limits).any())
