"""From a start that is asked for to the first state of the loop."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.data.blocks import Block, padded, to_blocks
from probem.data.observations import Observations
from probem.e_step.initial_q import InitialQ
from probem.e_step.preparation import prepare
from probem.form.statistics import DataTotals
from probem.jit.calls import from_host, inline
from probem.jit.compilation import by_plan
from probem.plan.plan import Plan
from probem.solver import loop
from probem.solver.attempts import (
    Attempt,
    best_attempt,
    held_limits,
    hold_q,
    is_active,
    make_attempts,
    num_held_steps,
    releases,
    state_from_q,
    with_fresh_history,
)
from probem.solver.initialisers import FixedSeeds, Seeding, nearest_seed, seed_rows
from probem.solver.start import Start, observed_rows, observed_rows_of
from probem.solver.state import Limits, State, initial_state


def begin_in_trace(
    plan: Plan, seeding: Seeding | None, start: Start, block: Block, added_variance: Array | None, restarts: int
) -> tuple[DataTotals, Block, State]:
    """All that comes before the loop, for data in one block: what the pass needs of it, and the first state."""
    prepared, kept, draw = _drawing(plan, seeding, block, added_variance)

    def begin(start: Start) -> State:
        if start.params is not None:
            return initial_state(plan, start.params, prepared)
        held, seeds = draw(start)
        return state_from_q(plan, start, prepared, [kept], [held], seeds, inline, 1)

    return prepared, kept, jax.vmap(begin, in_axes=(start.axes,))(start) if restarts > 1 else begin(start)


def _drawing(
    plan: Plan, seeding: Seeding | None, block: Block, added_variance: Array | None
) -> tuple[DataTotals, Block, Callable[[Start], tuple[Array, Array | None]]]:
    """What the pass needs of one block; and the q to be held that a start asks for, and the seeds that led to it."""
    rows = observed_rows(plan, block.data, block.missing)
    prepared, (kept,) = prepare(plan, [block], inline)

    def draw(start: Start) -> tuple[Array, Array | None]:
        if start.held is not None:
            return _with_known(plan, padded(start.held, block.size), block), None
        assert seeding is not None
        assert start.key is not None
        sums = None if block.labels is None else _known(_class_sums(plan, _no_sums(plan), block))
        seeds = seeding.seeds(start.key, rows, block.weights.astype(plan.dtype), plan.num_components, sums)
        return _with_known(plan, nearest_seed(rows, seeds, plan.form.partial), block), seeds

    return prepared._replace(added_variance=added_variance), kept, draw


#: ``begin_in_trace``, compiled.
begin_in_block = by_plan(begin_in_trace, static_argnums=(1, 5))


def begin_from_host(
    plan: Plan,
    seeding: Seeding | None,
    start: Start,
    block: Block,
    added_variance: Array | None,
    limits: Limits,
    restarts: int,
) -> tuple[DataTotals, Block, State, tuple[InitialQ, ...] | None]:
    """What ``begin_in_block`` makes, and a q that was held for a start and is released.

    The loop itself makes the first steps of the gradient route, so that they are compiled once.
    """
    if not plan.gradient or not releases(plan, start):
        return *begin_in_block(plan, seeding, start, block, added_variance, restarts), None
    prepared, kept, attempts = _begin_attempts(plan, seeding, start, block, added_variance, restarts)
    call, run, limits = from_host(restarts > 1), loop.compiled_run(restarts > 1), held_limits(limits)
    labels = (loop.no_labels(plan, block.size, restarts),)
    made = []
    for state, _, held in attempts:
        own = hold_q(held, True, restarts)
        climbed, _, _ = run(plan, state, labels, prepared, (kept,), limits, num_held_steps(plan), own)
        made.append((call(with_fresh_history, 0, None)(plan, climbed, prepared), climbed.last))
    return prepared, kept, best_attempt(plan, made, call, restarts), hold_q(attempts[0].held, False, restarts)


def begin_in_blocks(
    plan: Plan,
    seeding: Seeding | None,
    start: Start,
    rows: Observations,
    blocks: Sequence[Block],
    added_variance: Array | None,
    restarts: int,
) -> tuple[DataTotals, list[Block], State, tuple[InitialQ, ...] | None]:
    """What ``begin_from_host`` makes, for data in several blocks."""
    call = from_host(restarts > 1)
    prepared, kept = prepare(plan, blocks, from_host(False))
    prepared = prepared._replace(added_variance=added_variance)
    if start.params is not None:
        return prepared, kept, call(initial_state, 0, None)(plan, start.params, prepared), None
    seeds = None
    if start.held is not None:
        batch = start.held if restarts > 1 else start.held[None]
        cuts = [[part.data[0] for part in to_blocks(Observations((one,)), blocks[0].size, plan.dtype)] for one in batch]
        held = [jnp.stack(parts) if restarts > 1 else parts[0] for parts in zip(*cuts, strict=True)]
    else:
        assert start.key is not None
        assert seeding is not None
        known = None
        if rows.labels is not None:
            sums = _no_sums(plan)
            for block in blocks:
                sums = from_host(False)(_class_sums)(plan, sums, block)
            known = _known(sums)
        # Each restart draws from rows of its own: what one sample leaves out, another has.
        each = [
            _drawn_seeds(plan, seeding, key, *_sample(plan, rows, key), known)
            for key in (start.key if restarts > 1 else [start.key])
        ]
        seeds = jnp.stack(each) if restarts > 1 else each[0]
        held = [call(_seed_labels, 0, None)(plan, seeds, block) for block in blocks]
    held = [call(_with_known, 0, None)(plan, own, block) for own, block in zip(held, blocks, strict=True)]
    state = state_from_q(plan, start, prepared, kept, held, seeds, call, restarts)
    return prepared, kept, state, hold_q(held, False, restarts) if is_active(plan, start, call) else None


def _sample(plan: Plan, rows: Observations, key: Array) -> tuple[Array, Array]:
    """The rows that seeds are drawn from, a fixed number, and their weights."""
    capacity = min(seed_rows(plan.num_observed * jnp.dtype(plan.dtype).itemsize), plan.small.block_rows)
    seed = np.asarray(jax.random.key_data(key)).reshape(-1)
    counted = np.arange(rows.num_rows) if rows.weights is None else np.flatnonzero(rows.weights)
    index = np.random.default_rng(seed).choice(counted, min(capacity, len(counted)), replace=False)
    weights = np.ones(len(index)) if rows.weights is None else rows.weights[index]
    # What is left over has no weight.
    index = np.pad(index, (0, capacity - len(index)), mode="edge")
    chosen, missing = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), (rows.data, rows.missing))
    return observed_rows_of(plan, chosen, missing), jnp.asarray(
        np.pad(weights, (0, capacity - len(weights))), plan.dtype
    )


@functools.partial(by_plan, static_argnums=(1,))
def _drawn_seeds(
    plan: Plan, seeding: Seeding, key: Array, rows: Array, row_weights: Array, known: FixedSeeds | None
) -> Array:
    return seeding.seeds(key, rows, row_weights, plan.num_components, known)


def _seed_labels(plan: Plan, seeds: Array, block: Block) -> Array:
    return nearest_seed(observed_rows(plan, block.data, block.missing), seeds, plan.form.partial)


def _with_known(plan: Plan, held: Array, block: Block) -> Array:
    """The q that is held, labels ``[B]`` or responsibilities ``[B, K]``, where an assignment is known."""
    if block.labels is None:
        return held
    if held.ndim == 1:
        return jnp.where(block.labels < 0, held, block.labels)
    own = jax.nn.one_hot(block.labels, plan.num_components, dtype=held.dtype)
    return jnp.where((block.labels < 0)[:, None], held, own)


def _no_sums(plan: Plan) -> tuple[Array, Array]:
    count = plan.num_components
    return jnp.zeros((count, plan.num_observed), plan.dtype), jnp.zeros((count, plan.num_observed), plan.dtype)


def _class_sums(plan: Plan, sums: tuple[Array, Array], block: Block) -> tuple[Array, Array]:
    """Add the rows whose assignment is known: sums and weights ``[K, F]``."""
    assert block.labels is not None
    own = jax.nn.one_hot(block.labels, plan.num_components, dtype=plan.dtype)
    own = own * block.weights.astype(plan.dtype)[:, None]
    rows = observed_rows(plan, block.data, block.missing)
    seen = ~jnp.isnan(rows)
    return sums[0] + own.T @ jnp.where(seen, rows, 0.0), sums[1] + own.T @ seen.astype(plan.dtype)


def _known(sums: tuple[Array, Array]) -> FixedSeeds:
    """The mean of its known rows is the seed of a component that has any."""
    means = sums[0] / jnp.where(sums[1] > 0, sums[1], 1.0)
    return FixedSeeds(jnp.where(sums[1] > 0, means, jnp.nan), (sums[1] > 0).any(1))


@functools.partial(by_plan, static_argnums=(1, 5))
def _begin_attempts(
    plan: Plan, seeding: Seeding | None, start: Start, block: Block, added_variance: Array | None, restarts: int
) -> tuple[DataTotals, Block, list[Attempt]]:
    """What the pass needs of one block, and the attempts of a start."""
    prepared, kept, draw = _drawing(plan, seeding, block, added_variance)

    def begin(start: Start) -> list[Attempt]:
        held, seeds = draw(start)
        return make_attempts(plan, start, prepared, [kept], [held], seeds, inline, 1, lambda made: made)

    made = jax.vmap(begin, in_axes=(start.axes,))(start) if restarts > 1 else begin(start)
    return prepared, kept, made
