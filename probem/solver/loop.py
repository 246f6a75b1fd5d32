"""The one loop: E half-step, M half-step, terminate; the same for every program and family.

Data in few blocks is looped over inside one compiled function, some steps at a time, so that the host can show
progress and answer Ctrl-C. Data in many takes the same step from the host, call by call.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from probem.data.blocks import Block
from probem.e_step.bound import Bound
from probem.e_step.initial_q import InitialQ
from probem.form.statistics import DataTotals
from probem.jit.calls import inline
from probem.jit.compilation import by_plan
from probem.m_step.gradient.ascent import is_settled
from probem.plan.plan import Plan
from probem.solver.result import RUNNING
from probem.solver.state import Limits, Record, State
from probem.solver.step import HELD_TOLERANCE, step

#: Steps that one call of the compiled loop can record.
CALL_STEPS = 32
# State, labels, records, and the number of steps made.
_Made = tuple[State, tuple[Array, ...], Record, Array]


def run(
    plan: Plan,
    state: State,
    labels: Sequence[Array],
    prepared: DataTotals,
    blocks: Sequence[Block],
    limits: Limits,
    num_steps: Array | int,
    held: Sequence[InitialQ] | None,
) -> tuple[State, tuple[Array, ...], Record]:
    """Up to ``num_steps`` (at most ``CALL_STEPS``) steps over a few blocks of data, as one compiled loop.

    Returns the state, the labels, and the records of the steps made, ``[CALL_STEPS]`` each.
    """
    blank = Bound(*[jnp.full(CALL_STEPS, jnp.nan, plan.dtype)] * len(Bound._fields))
    records = Record(blank, blank, jnp.full(CALL_STEPS, -1, jnp.int32))

    def unfinished(now: _Made) -> Array:
        return goes_on(now[0], prepared, limits) & (now[3] < num_steps)

    def body(now: _Made) -> _Made:
        state, labels, records, made = now
        state, labels, record = step(plan, state, labels, held, prepared, blocks, limits, inline)
        records = jax.tree.map(lambda all, one: all.at[made].set(one), records, record)
        return state, labels, records, made + 1

    state, after, records, _ = jax.lax.while_loop(unfinished, body, (state, tuple(labels), records, jnp.asarray(0)))
    return state, after, records


def run_to_end(
    plan: Plan, state: State, labels: Array, prepared: DataTotals, block: Block, limits: Limits
) -> tuple[State, Array]:
    """Steps until the state is terminal, under a trace, without a history."""

    def body(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, (labels,), _ = step(plan, carry[0], (carry[1],), None, prepared, (block,), limits, inline)
        return state, labels

    return jax.lax.while_loop(lambda carry: carry[0].code == RUNNING, body, (state, labels))


def goes_on(state: State, prepared: DataTotals, limits: Limits) -> Array:
    """Whether the rule and what may go wrong ask for another step; under a q that is held, whether there is more than
    little to gain from it.
    """
    allowed = HELD_TOLERANCE * prepared.total_weight
    short = ~is_settled(state.ascent, allowed, allowed)
    return jnp.where(limits.is_held, short, state.code == RUNNING)


def no_labels(plan: Plan, size: int, restarts: int = 1) -> Array:
    """No row of a block belongs anywhere yet. A q that is not a point mass has no labels to compare."""
    count = size if plan.is_point else 0
    return jnp.full((restarts, count) if restarts > 1 else (count,), -1, jnp.int32)


#: ``run_to_end``, compiled.
compiled_run_to_end = by_plan(run_to_end)


@functools.cache
def compiled_run(batched: bool) -> Callable[..., Any]:
    """``run``, compiled; over restarts if ``batched``."""

    def mapped(plan: Plan, *arguments: Any) -> Any:
        own = functools.partial(run, plan)
        return (jax.vmap(own, in_axes=(0, 0, None, None, None, None, 0)) if batched else own)(*arguments)

    return by_plan(mapped)
