"""Many data sets in one compiled loop, a few of them side by side; those that have ended give way to others."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from probem.data.blocks import Block
from probem.data.observations import Observations
from probem.e_step.passes import Pass
from probem.form.statistics import DataTotals
from probem.jit.compilation import by_plan
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.beginning import Drawing, first_state_in_trace
from probem.solver.loop import Memory, blank_memory, blank_records, run
from probem.solver.result import RESULTS, RUNNING, Result
from probem.solver.seedings import Seeding
from probem.solver.side_by_side import in_batches
from probem.solver.start import Start, completed, initial_params
from probem.solver.state import Limits, Record, State
from probem.stopping import Stopping

# Steps that they make before those that have ended give way.
_ROUND_STEPS = 8


# A data set in the loop: state, totals, block and rule.
_Each = tuple[State, DataTotals, Block, Stopping]


class DataSets(NamedTuple):
    """What many fits differ in: every array has a leading axis B."""

    start: Start
    rows: Observations
    rule: Stopping
    added_variance: Float[Array, " B"] | Float[Array, "B F F"] | None


class Batches(NamedTuple):
    """How seeds are drawn, how many data sets are computed side by side, and how many steps of each are recorded."""

    seeding: Seeding | None
    size: int
    num_records: int


@functools.partial(by_plan, static_argnums=(1,))
def solve_batches(
    plan: Plan, batches: Batches, sets: DataSets, fixed: Params, count: Int[Array, ""], limits: Limits
) -> tuple[Params, State, DataTotals, Record | None]:
    """Parameters, last states and what the pass knows of the data, ``[B, ...]``; the first ``count`` are asked for. The
    rules of ``sets`` take the place of that in the ``limits``.

    The records are ``[B, num_records]``, of as many steps as were made; None if that is 0.
    """
    seeding, size, num_records = batches
    num_sets, num_rows = jax.tree.leaves(sets.rows.data)[0].shape[:2]

    def begin(data_set: DataSets) -> tuple[DataTotals, Block, State]:
        (block,) = Pass.traced(plan, data_set.rows, unpadded=True).blocks
        start = completed(plan, data_set.start, initial_params(plan, data_set.rows.data), fixed)
        return first_state_in_trace(plan, Drawing(seeding), start, block, data_set.added_variance)

    def begun(state: State, totals: DataTotals, block: Block, rule: Stopping) -> tuple[Pass, State, Limits]:
        # The same number in all: one loop over the chunks.
        block = block._replace(num_rows=jnp.asarray(num_rows, jnp.int32))
        return Pass(plan, (block,), totals, in_trace=True), state, limits._replace(rule=rule)

    totals, blocks, state = in_batches(begin, size, sets)
    state = state._replace(code=jnp.where(jnp.arange(num_sets) < count, state.code, RESULTS.index(Result.CONVERGED)))
    memory = jax.vmap(lambda each: blank_memory(*begun(*each)))((state, totals, blocks, sets.rule))
    records = blank_records(plan, (num_sets, num_records), limits.acceleration) if num_records else None

    def steps(memory: Memory, each: _Each) -> tuple[State, Memory, Record | None]:
        data_pass, state, limits = begun(*each)
        return run(data_pass, state, memory, None, limits, (_ROUND_STEPS, _ROUND_STEPS if num_records else 0))

    def advance(now: tuple[State, Memory, Record | None]) -> tuple[State, Memory, Record | None]:
        state, memory, records = now
        (running,) = jnp.nonzero(state.code == RUNNING, size=size, fill_value=num_sets)
        every = (memory, (state, totals, blocks, sets.rule))
        these = jax.tree.map(lambda leaf: leaf.at[running].get(mode="clip"), every)
        *after, made = jax.vmap(steps)(*these)
        state, memory = jax.tree.map(
            lambda leaf, new: leaf.at[running].set(new, mode="drop"), (state, memory), tuple(after)
        )
        if records is not None:
            # Of what was not made nothing is read: later steps are written over it.
            places = these[1][0].step[:, None] + jnp.arange(_ROUND_STEPS)[None, :]
            records = jax.tree.map(
                lambda leaf, new: leaf.at[running[:, None], places].set(new, mode="drop"), records, made
            )
        return state, memory, records

    state, _, records = jax.lax.while_loop(
        lambda now: (now[0].code == RUNNING).any(), advance, (state, memory, records)
    )
    return jax.vmap(plan.mean_field.points)(state.best), state, totals, records
