"""Many data sets in one compiled loop, a few of them side by side; those that have ended give way to others."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from . import loop
from .calls import inline
from .compiled import by_plan
from .data import Block, Rows, one_block
from .expectation import Prepared
from .fixed import impose
from .initialization import Seeding
from .loop import RESULTS, RUNNING, Limits, Result, State
from .plan import Plan
from .program import Params
from .start import Start, begin_in_trace, initial_params

# Rows of all the data sets side by side, and the most of these. Measured on a CPU, where more at once only wait for the
# slowest of them.
_LANE_ROWS = 2**10
_MOST_LANES = 64
# Steps that they make before those that have ended give way.
_ROUND_STEPS = 8


def num_lanes(num_sets: int, num_rows: int) -> int:
    """How many data sets are computed side by side: a power of two, no more than there are."""
    most = max(1, min(_MOST_LANES, _LANE_ROWS // num_rows, num_sets))
    return 2 ** math.floor(math.log2(most))


def in_groups(function: Callable[[Any], Any], lanes: int, arguments: Any) -> Any:
    """The function of every data set, ``lanes`` of them at a time; all have a leading axis B, a multiple of that."""
    groups = jax.tree.map(lambda leaf: leaf.reshape(len(leaf) // lanes, lanes, *leaf.shape[1:]), arguments)
    found = jax.lax.map(jax.vmap(function), groups)
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * lanes, *leaf.shape[2:]), found)


@functools.partial(by_plan, static_argnums=(1, 2))
def solve_all(
    plan: Plan,
    seeding: Seeding | None,
    lanes: int,
    start: Start,
    rows: Rows,
    fixed: Params,
    count: Array,
    limits: Limits,
    added_variance: Array | None,
) -> tuple[Params, State, Prepared]:
    """Parameters, last states and what the pass knows of the data, ``[B, ...]``; the first ``count`` are asked for."""
    num_sets, num_rows = jax.tree.leaves(rows.data)[0].shape[:2]

    def begin(own: tuple[Start, Rows]) -> tuple[Prepared, Block, State]:
        start, rows = own
        block = one_block(rows, min(num_rows, plan.cut(num_rows).chunk_rows), plan.dtype)
        initial = impose(plan.program, plan.fixed, initial_params(plan, rows.data), fixed)
        params = start.params
        if params is not None:
            params = jax.tree.map(lambda value: jnp.asarray(value, plan.dtype), params)
            params = impose(plan.program, plan.fixed, {**initial, **params}, fixed)
        start = start._replace(initial=initial, params=params)
        return begin_in_trace(plan, seeding, start, block, added_variance, 1)

    prepared, blocks, state = in_groups(begin, lanes, (start, rows))
    # The same for all, and no part of any.
    prepared = prepared._replace(added_variance=None)
    state = state._replace(code=jnp.where(jnp.arange(num_sets) < count, state.code, RESULTS.index(Result.CONVERGED)))
    labels = jnp.full((num_sets, jax.tree.leaves(blocks)[0].shape[1] if plan.family.is_point else 0), -1, jnp.int32)

    def steps(state: State, labels: Array, prepared: Prepared, block: Block) -> tuple[State, Array]:
        # The same number in all: one loop over the chunks.
        block = block._replace(num_rows=jnp.asarray(num_rows, jnp.int32))

        def unfinished(now: tuple[State, Array, Array]) -> Array:
            return (now[0].code == RUNNING) & (now[2] < _ROUND_STEPS)

        def body(now: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
            known = prepared._replace(added_variance=added_variance)
            after, (own,), _ = loop.step(plan, now[0], (now[1],), None, known, (block,), limits, inline)
            return after, own, now[2] + 1

        return jax.lax.while_loop(unfinished, body, (state, labels, jnp.asarray(0)))[:2]

    def advance(now: tuple[State, Array]) -> tuple[State, Array]:
        (running,) = jnp.nonzero(now[0].code == RUNNING, size=lanes, fill_value=num_sets)
        own = jax.tree.map(lambda leaf: leaf.at[running].get(mode="clip"), (*now, prepared, blocks))
        after = jax.vmap(steps)(*own)
        return jax.tree.map(lambda leaf, new: leaf.at[running].set(new, mode="drop"), now, after)

    state, _ = jax.lax.while_loop(lambda now: (now[0].code == RUNNING).any(), advance, (state, labels))
    return jax.vmap(plan.mean_field.points)(state.best), state, prepared
