"""From a start that is asked for to the first state of the loop."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from probem.data.blocks import Block, num_entries, padded
from probem.data.compressed import CompressedBlock
from probem.data.observations import Observations
from probem.e_step.initial_q import GivenQ, InitialQ
from probem.e_step.nonzeros import nonzeros_of
from probem.e_step.passes import Chunk, Pass, Reduction
from probem.e_step.preparation import prepare
from probem.errors import InputError
from probem.form.statistics import DataTotals, NoiseVariance
from probem.jit.compilation import FEW_ONCE, Effort, by_plan
from probem.plan.plan import Plan
from probem.solver.attempts import (
    Attempt,
    as_initial_q,
    best_attempt,
    initial_limits,
    is_active,
    make_attempts,
    num_initial_steps,
    releases,
    state_from_q,
    with_fresh_history,
)
from probem.solver.loop import blank_memory, compiled_run
from probem.solver.seedings import FixedSeeds, Seeding, beside, in_metric, nearest_seed, seed_rows
from probem.solver.side_by_side import in_batches, whole_batch_size
from probem.solver.start import Seeds, Start, observed_rows, observed_rows_of
from probem.solver.state import Limits, State, initial_state

_Begun = TypeVar("_Begun")

# Sparse rows that seeds are drawn from, of data in several blocks.
_SPARSE_SAMPLE = 8192


class Drawing(NamedTuple):
    """How seeds are drawn, if that is what a start asks for, and the number of restarts."""

    seeding: Seeding | None
    restarts: int = 1


def first_state(
    data_pass: Pass,
    seeding: Seeding | None,
    start: Start,
    observed: Observations,
    added_variance: NoiseVariance | None,
    limits: Limits,
) -> tuple[Pass, State, InitialQ | None]:
    """The rows with all that is known of them, the first state, and a q that was given for it and is released.

    Data in one block is begun in one compiled call; the loop itself makes the first steps of the gradient route, so
    that they are compiled once.
    """
    plan, drawing = data_pass.plan, Drawing(seeding, data_pass.restarts)
    if len(data_pass.blocks) > 1:
        data_pass, state, q = _first_state_in_blocks(data_pass, seeding, start, observed, added_variance)
        return data_pass, _seeded(state, start), q
    (block,) = data_pass.blocks
    start = _padded(start, block.size, drawing.restarts)
    if not plan.gradient or not releases(plan, start):
        totals, kept, state = compiled_first_state(plan, drawing, start, block, added_variance)
        return data_pass._replace(totals=totals, blocks=(kept,)), state, None
    totals, kept, attempts = _compiled_attempts(plan, drawing, start, block, added_variance)
    data_pass = data_pass._replace(totals=totals, blocks=(kept,))
    limits, num_steps, made = initial_limits(limits), num_initial_steps(plan), []
    for state, _, q in attempts:
        memory = blank_memory(data_pass, state, limits)
        climbed, _, _ = compiled_run(data_pass, state, memory, as_initial_q(data_pass, q, True), limits, num_steps)
        made.append((data_pass.call(with_fresh_history, 0, None)(plan, climbed, totals), climbed.last))
    return data_pass, _seeded(best_attempt(data_pass, made), start), as_initial_q(data_pass, attempts[0].q, False)


def _padded(start: Start, num_rows: int, restarts: int) -> Start:
    """The start with a q that is given for all rows of the block: another number of rows compiles nothing."""
    if start.given_q is None:
        return start
    each = np.asarray(start.given_q)
    return start._replace(
        given_q=padded(each, num_rows) if restarts == 1 else jnp.stack([padded(q, num_rows) for q in each])
    )


def _seeded(state: State, start: Start) -> State:
    return state if start.seed is None else state._replace(seed=start.seed)


def first_state_in_trace(
    plan: Plan, drawing: Drawing, start: Start, block: Block, added_variance: NoiseVariance | None
) -> tuple[DataTotals, Block, State]:
    """All that comes before the loop, for data in one block: what the pass needs of it, and the first state."""
    data_pass, draw = _drawing(plan, drawing.seeding, block, added_variance)

    def begin(start: Start) -> State:
        if start.params is not None:
            return _seeded(initial_state(plan, start.params, data_pass.totals), start)
        q, seeds = draw(start)
        return _seeded(state_from_q(data_pass, start, [q], seeds), start)

    return data_pass.totals, data_pass.blocks[0], _each_restart(begin, drawing, start, block)


def compiled_first_state(
    plan: Plan, drawing: Drawing, start: Start, block: Block, added_variance: NoiseVariance | None
) -> tuple[DataTotals, Block, State]:
    """``first_state_in_trace``, compiled."""
    run = _compiled(first_state_in_trace, _effort(block))
    return run(plan, drawing, start, block, added_variance)


def _compiled_attempts(
    plan: Plan, drawing: Drawing, start: Start, block: Block, added_variance: NoiseVariance | None
) -> tuple[DataTotals, Block, list[Attempt]]:
    """``_attempts_in_trace``, compiled."""
    run = _compiled(_attempts_in_trace, _effort(block))
    return run(plan, drawing, start, block, added_variance)


def _effort(block: Block) -> Effort:
    return Effort.LEAST if num_entries([block]) < FEW_ONCE else Effort.LESS


@functools.cache
def _compiled(function: Callable[..., Any], effort: Effort) -> Callable[..., Any]:
    return by_plan(function, static_argnums=(1,), effort=effort)


def _attempts_in_trace(
    plan: Plan, drawing: Drawing, start: Start, block: Block, added_variance: NoiseVariance | None
) -> tuple[DataTotals, Block, list[Attempt]]:
    """What the pass needs of one block, and the attempts of a start."""
    data_pass, draw = _drawing(plan, drawing.seeding, block, added_variance)

    def begin(start: Start) -> list[Attempt]:
        q, seeds = draw(start)
        return make_attempts(data_pass, start, [q], seeds, lambda made: made)

    return data_pass.totals, data_pass.blocks[0], _each_restart(begin, drawing, start, block)


def _each_restart(begin: Callable[[Start], _Begun], drawing: Drawing, start: Start, block: Block) -> _Begun:
    """What ``begin`` makes of the start of every restart."""
    if drawing.restarts == 1:
        return begin(start)

    def alone(parts: Start) -> _Begun:
        # What restarts have in common has no axis.
        each: Any = (shared if part is None else part for part, shared in zip(parts, start, strict=True))
        return begin(Start(*each))

    return in_batches(alone, whole_batch_size(drawing.restarts, block.size), start.of_restarts)


def seen_rows(plan: Plan, block: Block) -> Float[Array, "n F"] | CompressedBlock:
    """The rows as seeds are drawn from them, NaN where a value is missing."""
    return nonzeros_of(block) if plan.form.sparse_rows else observed_rows(plan, block.data, block.missing)


def _seen_in(
    rows: Float[Array, "n F"] | CompressedBlock, metric: Float[Array, "F F"] | Float[Array, " F"] | None
) -> Float[Array, "n F"] | CompressedBlock:
    """Rows in a metric (``in_metric``); for sparse ones there is none (``resolution.py`` refuses it)."""
    return rows if isinstance(rows, CompressedBlock) else in_metric(rows, metric)


def _drawing(
    plan: Plan, seeding: Seeding | None, block: Block, added_variance: NoiseVariance | None
) -> tuple[Pass, Callable[[Start], tuple[GivenQ, Seeds | None]]]:
    """The rows of one block; and the q that a start asks for, and the seeds that led to it."""
    observed = seen_rows(plan, block)
    data_pass = prepare(Pass(plan, (block,), in_trace=True))
    data_pass = data_pass._replace(totals=data_pass.totals._replace(added_variance=added_variance))

    def draw(start: Start) -> tuple[GivenQ, Seeds | None]:
        if start.given_q is not None:
            return _with_known_labels(plan, padded(start.given_q, block.size), block.labels), None
        assert seeding is not None
        assert start.key is not None
        fixed_seeds = _fixed_seeds(Pass(plan, (block,), in_trace=True))
        sample = (observed, block.weights.astype(plan.dtype))
        seeds = _drawn_seeds(plan, seeding, start, sample, fixed_seeds)
        seen = _seen_in(observed, start.metric)
        return _with_known_labels(plan, nearest_seed(seen, seeds, plan.form.has_holes), block.labels), seeds

    return data_pass, draw


def _first_state_in_blocks(
    data_pass: Pass, seeding: Seeding | None, start: Start, observed: Observations, added_variance: NoiseVariance | None
) -> tuple[Pass, State, InitialQ | None]:
    """What ``first_state`` makes, for data in several blocks."""
    plan, restarts, raw = data_pass.plan, data_pass.restarts, data_pass
    alone = prepare(data_pass.alone)
    data_pass = alone._replace(restarts=restarts, totals=alone.totals._replace(added_variance=added_variance))
    if start.params is not None:
        return data_pass, data_pass.call(initial_state, 0, None)(plan, start.params, data_pass.totals), None
    seeds = None
    if start.given_q is not None:
        q = raw.split(start.given_q)
    else:
        assert start.key is not None
        assert seeding is not None
        fixed_seeds = _fixed_seeds(raw.alone)
        drawing = Start({}, metric=start.metric, fixed_seeds=start.fixed_seeds)
        # Each restart draws from rows of its own: what one sample leaves out, another has.
        drawn = [
            _compiled_seeds(plan, seeding, drawing._replace(key=key), _sample(plan, observed, key), fixed_seeds)
            for key in (start.key if restarts > 1 else [start.key])
        ]
        seeds = jnp.stack(drawn) if restarts > 1 else drawn[0]
        metric = start.metric
        if metric is not None and restarts > 1:
            metric = jnp.broadcast_to(metric, (restarts, *metric.shape))
        q = raw.map(_seed_labels, (seeds, metric))
    q = raw.map(_known_labels_kept, None, q)
    state = state_from_q(data_pass, start, q, seeds)
    return data_pass, state, as_initial_q(data_pass, q, False) if is_active(data_pass, start) else None


# Rows, and their weights.
_Sample = tuple[Float[Array, "n F"] | CompressedBlock, Float[Array, " n"]]


def _sample(plan: Plan, rows: Observations, key: PRNGKeyArray) -> _Sample:
    """The rows that seeds are drawn from, a fixed number, and their weights."""
    capacity = min(seed_rows(plan.num_observed * jnp.dtype(plan.dtype).itemsize), plan.small.block_rows)
    if plan.form.sparse_rows:
        capacity = _SPARSE_SAMPLE
    seed = np.asarray(jax.random.key_data(key)).reshape(-1)
    counted = np.arange(rows.num_rows) if rows.weights is None else np.flatnonzero(rows.weights)
    index = np.random.default_rng(seed).choice(counted, min(capacity, len(counted)), replace=False)
    weights = np.ones(len(index)) if rows.weights is None else rows.weights[index]
    # What is left over has no weight.
    index = np.pad(index, (0, capacity - len(index)), mode="edge")
    weights = jnp.asarray(np.pad(weights, (0, capacity - len(weights))), plan.dtype)
    if plan.form.sparse_rows:
        (sparse,) = rows.data
        return CompressedBlock.of(sparse[index], capacity, plan.dtype, is_summed=True), weights
    chosen, missing = jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), (rows.data, rows.missing))
    return observed_rows_of(plan, chosen, missing), weights


def _drawn_seeds(plan: Plan, seeding: Seeding, start: Start, sample: _Sample, fixed_seeds: FixedSeeds | None) -> Seeds:
    """Seeds of the shape that is asked for, as the metric of the start has them."""
    (rows, weights), metric = sample, start.metric
    assert start.key is not None
    if fixed_seeds is not None:
        fixed_seeds = fixed_seeds._replace(rows=in_metric(fixed_seeds.rows, metric))
    if start.fixed_seeds is not None:
        fixed_seeds = beside(fixed_seeds, in_metric(start.fixed_seeds, metric))
    seeds = seeding.seeds(start.key, _seen_in(rows, metric), weights, plan.num_components, fixed_seeds)
    seeds = jnp.asarray(seeds, plan.dtype)
    shape = (plan.num_components, plan.num_observed)
    if seeds.shape != shape:
        raise InputError(
            f"seeds of shape {seeds.shape} from {type(seeding).__name__}",
            f"shape {shape}",
            "return one row for each component, with the columns of the rows",
        )
    return seeds


_compiled_seeds = by_plan(_drawn_seeds, static_argnums=(1,), effort=Effort.LEAST)


def _seed_labels(
    plan: Plan, each: tuple[Seeds, Float[Array, "F F"] | Float[Array, " F"] | None], totals: None, chunk: Chunk
) -> Int[Array, " n"]:
    del totals
    seeds, metric = each
    rows = seen_rows(plan, chunk.block)
    return nearest_seed(_seen_in(rows, metric), seeds, plan.form.has_holes)


def _known_labels_kept(plan: Plan, each: None, totals: None, chunk: Chunk) -> GivenQ:
    del each, totals
    return _with_known_labels(plan, chunk.beside, chunk.block.labels)


def _with_known_labels(plan: Plan, q: GivenQ, labels: Int[Array, " n"] | None) -> GivenQ:
    """The q that is given, and that of the assignments that are known."""
    if labels is None:
        return q
    if q.ndim == 1:
        return jnp.where(labels < 0, q, labels)
    return jnp.where((labels < 0)[:, None], q, jax.nn.one_hot(labels, plan.num_components, dtype=q.dtype))


def _class_sums(
    plan: Plan, each: None, totals: None, chunk: Chunk
) -> tuple[tuple[Float[Array, "K F"], Float[Array, "K F"]], None]:
    """Sums and weights of the rows whose assignment is known."""
    del each, totals
    block = chunk.block
    assert block.labels is not None
    q = jax.nn.one_hot(block.labels, plan.num_components, dtype=plan.dtype)
    weighted = q * block.weights.astype(plan.dtype)[:, None]
    if plan.form.sparse_rows:
        sums = nonzeros_of(block).weighted_sums(weighted)
        return (sums, jnp.broadcast_to(weighted.sum(0)[:, None], sums.shape)), None
    rows = observed_rows(plan, block.data, block.missing)
    seen = ~jnp.isnan(rows)
    return (weighted.T @ jnp.where(seen, rows, 0.0), weighted.T @ seen.astype(plan.dtype)), None


_CLASS_SUMS = Reduction(_class_sums)


def _fixed_seeds(data_pass: Pass) -> FixedSeeds | None:
    """The mean of its known rows is the seed of a component that has any; None where no assignment is known."""
    if data_pass.blocks[0].labels is None:
        return None
    zero = jnp.zeros((data_pass.plan.num_components, data_pass.plan.num_observed), data_pass.plan.dtype)
    (sums, weights), _ = data_pass.reduce(_CLASS_SUMS, (zero, zero), None)
    means = sums / jnp.where(weights > 0, weights, 1.0)
    return FixedSeeds(jnp.where(weights > 0, means, jnp.nan), (weights > 0).any(1))
