"""The one loop: E half-step, M half-step, terminate; the same for every program and family.

Data in few blocks is looped over inside one compiled function, some steps at a time, so that the host can show
progress and answer Ctrl-C. Data in many takes the same step from the host, call by call.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from probem.data.blocks import Block
from probem.e_step.bound import Bound
from probem.e_step.initial_q import InitialQ
from probem.e_step.passes import Pass
from probem.form.statistics import DataTotals
from probem.jit.compilation import by_plan
from probem.m_step.gradient.ascent import is_settled
from probem.plan.plan import Plan
from probem.solver.result import RUNNING
from probem.solver.state import Limits, Record, State
from probem.solver.step import HELD_TOLERANCE, BlockLabels, no_labels, step

#: Steps that one call of the compiled loop can record.
CALL_STEPS = 32
# State, labels, records, and the number of steps made.
_Made = tuple[State, BlockLabels, Record, Array]


def run(
    rows: Pass, state: State, labels: BlockLabels, initial: InitialQ | None, limits: Limits, num_steps: Array | int
) -> tuple[State, BlockLabels, Record]:
    """Up to ``num_steps`` (at most ``CALL_STEPS``) steps over a few blocks of data, as one loop inside a trace.

    Returns the state, the labels, and the records of the steps made, ``[CALL_STEPS]`` each.
    """
    records = blank_records(rows.plan, (CALL_STEPS,))

    def unfinished(now: _Made) -> Array:
        return goes_on(now[0], rows.totals, limits) & (now[3] < num_steps)

    def body(now: _Made) -> _Made:
        state, labels, records, made = now
        state, labels, record = step(rows, state, labels, initial, limits)
        records = jax.tree.map(lambda all, one: all.at[made].set(one), records, record)
        return state, labels, records, made + 1

    state, after, records, _ = jax.lax.while_loop(unfinished, body, (state, labels, records, jnp.asarray(0)))
    return state, after, records


def compiled_run(
    rows: Pass, state: State, labels: BlockLabels, initial: InitialQ | None, limits: Limits, num_steps: Array | int
) -> tuple[State, BlockLabels, Record]:
    """``run`` in one compiled call, over all restarts."""
    own, common = (state, tuple(labels), initial), (tuple(rows.blocks), rows.totals, limits, num_steps)
    return _compiled_run(rows.restarts > 1)(rows.plan, own, common)


@functools.cache
def _compiled_run(batched: bool) -> Callable[..., Any]:
    def steps(plan: Plan, own: tuple[Any, ...], common: tuple[Any, ...]) -> Any:
        blocks, totals, limits, num_steps = common
        state, labels, initial = own
        return run(Pass(plan, blocks, totals, in_trace=True), state, labels, initial, limits, num_steps)

    def mapped(plan: Plan, own: tuple[Any, ...], common: tuple[Any, ...]) -> Any:
        one = functools.partial(steps, plan)
        return (jax.vmap(one, in_axes=(0, None)) if batched else one)(own, common)

    return by_plan(mapped)


def blank_records(plan: Plan, shape: tuple[int, ...]) -> Record:
    """Records of steps that were not made."""
    bound = Bound(*[jnp.full(shape, jnp.nan, plan.dtype)] * len(Bound._fields))
    return Record(bound, bound, jnp.full(shape, -1, jnp.int32))


def run_to_end(rows: Pass, state: State, limits: Limits) -> State:
    """Steps until the state is terminal, under a trace, without a history."""

    def body(carry: tuple[State, BlockLabels]) -> tuple[State, BlockLabels]:
        state, labels, _ = step(rows, *carry, None, limits)
        return state, labels

    return jax.lax.while_loop(lambda carry: carry[0].code == RUNNING, body, (state, no_labels(rows)))[0]


@by_plan
def compiled_run_to_end(
    plan: Plan, state: State, totals: DataTotals, blocks: tuple[Block, ...], limits: Limits
) -> State:
    """``run_to_end``, compiled."""
    return run_to_end(Pass(plan, blocks, totals, in_trace=True), state, limits)


def goes_on(state: State, totals: DataTotals, limits: Limits) -> Array:
    """Whether the rule and what may go wrong ask for another step; under a q that is held, whether there is more than
    little to gain from it.
    """
    allowed = HELD_TOLERANCE * totals.total_weight
    short = ~is_settled(state.ascent, allowed, allowed)
    return jnp.where(limits.is_held, short, state.code == RUNNING)
