"""From a start that is asked for to the first state of the loop."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.data.blocks import Block, padded
from probem.data.observations import Observations
from probem.e_step.initial_q import InitialQ
from probem.e_step.passes import Chunk, Pass, Reduction
from probem.e_step.preparation import prepare
from probem.errors import InputError
from probem.form.statistics import DataTotals
from probem.jit.compilation import by_plan
from probem.plan.plan import Plan
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
from probem.solver.loop import blank_memory, compiled_run
from probem.solver.start import Start, observed_rows, observed_rows_of
from probem.solver.state import Limits, State, initial_state


class Drawing(NamedTuple):
    """How seeds are drawn, if that is what a start asks for, and the number of restarts."""

    seeding: Seeding | None
    restarts: int = 1


def first_state(
    rows: Pass,
    seeding: Seeding | None,
    start: Start,
    observed: Observations,
    added_variance: Array | None,
    limits: Limits,
) -> tuple[Pass, State, InitialQ | None]:
    """The rows with all that is known of them, the first state, and a q that was held for it and is released.

    Data in one block is begun in one compiled call; the loop itself makes the first steps of the gradient route, so
    that they are compiled once.
    """
    plan, drawing = rows.plan, Drawing(seeding, rows.restarts)
    if len(rows.blocks) > 1:
        rows, state, held = _first_state_in_blocks(rows, seeding, start, observed, added_variance)
        return rows, _seeded(state, start), held
    (block,) = rows.blocks
    if not plan.gradient or not releases(plan, start):
        totals, kept, state = compiled_first_state(plan, drawing, start, block, added_variance)
        return rows._replace(totals=totals, blocks=(kept,)), state, None
    totals, kept, attempts = _compiled_attempts(plan, drawing, start, block, added_variance)
    rows = rows._replace(totals=totals, blocks=(kept,))
    limits, num_steps, made = held_limits(limits), num_held_steps(plan), []
    for state, _, held in attempts:
        memory = blank_memory(rows, state, limits)
        climbed, _, _ = compiled_run(rows, state, memory, hold_q(rows, held, True), limits, num_steps)
        made.append((rows.call(with_fresh_history, 0, None)(plan, climbed, totals), climbed.last))
    return rows, _seeded(best_attempt(rows, made), start), hold_q(rows, attempts[0].held, False)


def _seeded(state: State, start: Start) -> State:
    return state if start.seed is None else state._replace(seed=start.seed)


def first_state_in_trace(
    plan: Plan, drawing: Drawing, start: Start, block: Block, added_variance: Array | None
) -> tuple[DataTotals, Block, State]:
    """All that comes before the loop, for data in one block: what the pass needs of it, and the first state."""
    rows, draw = _drawing(plan, drawing.seeding, block, added_variance)

    def begin(start: Start) -> State:
        if start.params is not None:
            return _seeded(initial_state(plan, start.params, rows.totals), start)
        held, seeds = draw(start)
        return _seeded(state_from_q(rows, start, [held], seeds), start)

    state = jax.vmap(begin, in_axes=(start.axes,))(start) if drawing.restarts > 1 else begin(start)
    return rows.totals, rows.blocks[0], state


#: ``first_state_in_trace``, compiled.
compiled_first_state = by_plan(first_state_in_trace, static_argnums=(1,))


@functools.partial(by_plan, static_argnums=(1,))
def _compiled_attempts(
    plan: Plan, drawing: Drawing, start: Start, block: Block, added_variance: Array | None
) -> tuple[DataTotals, Block, list[Attempt]]:
    """What the pass needs of one block, and the attempts of a start."""
    rows, draw = _drawing(plan, drawing.seeding, block, added_variance)

    def begin(start: Start) -> list[Attempt]:
        held, seeds = draw(start)
        return make_attempts(rows, start, [held], seeds, lambda made: made)

    made = jax.vmap(begin, in_axes=(start.axes,))(start) if drawing.restarts > 1 else begin(start)
    return rows.totals, rows.blocks[0], made


def _drawing(
    plan: Plan, seeding: Seeding | None, block: Block, added_variance: Array | None
) -> tuple[Pass, Callable[[Start], tuple[Array, Array | None]]]:
    """The rows of one block; and the q to be held that a start asks for, and the seeds that led to it."""
    observed = observed_rows(plan, block.data, block.missing)
    rows = prepare(Pass(plan, (block,), in_trace=True))
    rows = rows._replace(totals=rows.totals._replace(added_variance=added_variance))

    def draw(start: Start) -> tuple[Array, Array | None]:
        if start.held is not None:
            return _with_known(plan, padded(start.held, block.size), block.labels), None
        assert seeding is not None
        assert start.key is not None
        known = _known_seeds(Pass(plan, (block,), in_trace=True))
        seeds = _seeds(plan, seeding, start.key, observed, block.weights.astype(plan.dtype), known)
        return _with_known(plan, nearest_seed(observed, seeds, plan.form.partial), block.labels), seeds

    return rows, draw


def _first_state_in_blocks(
    rows: Pass, seeding: Seeding | None, start: Start, observed: Observations, added_variance: Array | None
) -> tuple[Pass, State, InitialQ | None]:
    """What ``first_state`` makes, for data in several blocks."""
    plan, restarts, raw = rows.plan, rows.restarts, rows
    alone = prepare(rows.alone)
    rows = alone._replace(restarts=restarts, totals=alone.totals._replace(added_variance=added_variance))
    if start.params is not None:
        return rows, rows.call(initial_state, 0, None)(plan, start.params, rows.totals), None
    seeds = None
    if start.held is not None:
        held = raw.split(start.held)
    else:
        assert start.key is not None
        assert seeding is not None
        known = _known_seeds(raw.alone)
        # Each restart draws from rows of its own: what one sample leaves out, another has.
        each = [
            _compiled_seeds(plan, seeding, key, *_sample(plan, observed, key), known)
            for key in (start.key if restarts > 1 else [start.key])
        ]
        seeds = jnp.stack(each) if restarts > 1 else each[0]
        held = raw.map(_seed_labels, seeds)
    held = raw.map(_where_known, None, held)
    state = state_from_q(rows, start, held, seeds)
    return rows, state, hold_q(rows, held, False) if is_active(rows, start) else None


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


def _seeds(
    plan: Plan, seeding: Seeding, key: Array, rows: Array, row_weights: Array, known: FixedSeeds | None
) -> Array:
    """Seeds ``[K, F]``, of the shape that is asked for."""
    seeds = jnp.asarray(seeding.seeds(key, rows, row_weights, plan.num_components, known), plan.dtype)
    shape = (plan.num_components, rows.shape[1])
    if seeds.shape != shape:
        raise InputError(
            f"seeds of shape {seeds.shape} from {type(seeding).__name__}",
            f"shape {shape}",
            "return one row for each component, with the columns of the rows",
        )
    return seeds


_compiled_seeds = by_plan(_seeds, static_argnums=(1,))


def _seed_labels(plan: Plan, seeds: Array, totals: None, chunk: Chunk) -> Array:
    del totals
    rows = observed_rows(plan, chunk.rows.data, chunk.rows.missing)
    return nearest_seed(rows, seeds, plan.form.partial)


def _where_known(plan: Plan, each: None, totals: None, chunk: Chunk) -> Array:
    del each, totals
    return _with_known(plan, chunk.beside, chunk.rows.labels)


def _with_known(plan: Plan, held: Array, labels: Array | None) -> Array:
    """The q that is held, labels ``[B]`` or responsibilities ``[B, K]``, where an assignment is known."""
    if labels is None:
        return held
    if held.ndim == 1:
        return jnp.where(labels < 0, held, labels)
    own = jax.nn.one_hot(labels, plan.num_components, dtype=held.dtype)
    return jnp.where((labels < 0)[:, None], held, own)


def _class_sums(plan: Plan, each: None, totals: None, chunk: Chunk) -> tuple[tuple[Array, Array], None]:
    """Sums and weights ``[K, F]`` of the rows whose assignment is known."""
    del each, totals
    block = chunk.rows
    assert block.labels is not None
    own = jax.nn.one_hot(block.labels, plan.num_components, dtype=plan.dtype)
    own = own * block.weights.astype(plan.dtype)[:, None]
    rows = observed_rows(plan, block.data, block.missing)
    seen = ~jnp.isnan(rows)
    return (own.T @ jnp.where(seen, rows, 0.0), own.T @ seen.astype(plan.dtype)), None


_CLASS_SUMS = Reduction(_class_sums)


def _known_seeds(rows: Pass) -> FixedSeeds | None:
    """The mean of its known rows is the seed of a component that has any; None where no assignment is known."""
    if rows.blocks[0].labels is None:
        return None
    zero = jnp.zeros((rows.plan.num_components, rows.plan.num_observed), rows.plan.dtype)
    (sums, weights), _ = rows.reduce(_CLASS_SUMS, (zero, zero), None)
    means = sums / jnp.where(weights > 0, weights, 1.0)
    return FixedSeeds(jnp.where(weights > 0, means, jnp.nan), (weights > 0).any(1))
