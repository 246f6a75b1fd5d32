"""The E half-step: one pass over the data, in chunks, to additive statistics. No N x K array is ever formed."""

import jax
import jax.numpy as jnp
from jax import Array

from probem.data.blocks import Block
from probem.data.observations import restore_gaps
from probem.e_step.bound import row_gap
from probem.e_step.evaluation import RowEvaluation, completed_columns, evaluate_rows, generic_table, row_weights
from probem.e_step.initial_q import EStep, RowMemory, assign
from probem.e_step.passes import Chunk, Reduction
from probem.e_step.summary import Summary
from probem.families.posteriors import Assigned
from probem.form import completion
from probem.form.statistics import DataTotals
from probem.plan.coordinates import coordinates
from probem.plan.plan import Plan
from probem.program.sites import Params


def _accumulated(plan: Plan, e_step: EStep, totals: DataTotals, part: Chunk) -> tuple[Summary, RowMemory]:
    """What a chunk adds to the sums, and what its rows keep."""
    rows = evaluate_rows(plan, part.rows, e_step.at, totals)
    q, memory = assign(plan, rows.table, e_step, part)
    moved = jnp.zeros((), jnp.int32)
    if memory.labels is not None:
        moved = ((part.beside.memory.labels != memory.labels) & (part.rows.weights > 0)).sum(dtype=jnp.int32)
    return _summarise(plan, q, rows, e_step.at.params, part, moved), memory


#: The E half-step. The blocks do not wait for each other: XLA runs what is independent in one computation side by side.
ACCUMULATED = Reduction(_accumulated, blank=lambda plan, rows: rows.memory, is_parallel=True)


def _summarise(plan: Plan, q: Assigned, rows: RowEvaluation, params: Params, chunk: Chunk, moved: Array) -> Summary:
    part, index = chunk.rows, chunk.index
    zero = jnp.zeros((), plan.dtype)
    features, noise, highest = rows.features, jnp.zeros(0, plan.dtype), jnp.zeros(0, plan.dtype)
    if plan.form.generic:
        beside = jnp.stack([_noise(plan, index, len(features)), _highest(plan, part, len(features))], 1)
        features = jnp.concatenate([features, beside], 1)
    counts, sums = q.statistics(features, part)
    if plan.form.generic:
        sums, noise, highest = sums[:, :-2], sums[:, -2], sums[:, -1]
    if plan.form.completing:
        weights = row_weights(plan, part)[:, None] * q.dense()
        for term in plan.form.completing:
            found = completion.expected_features(term, rows.completed[term.site])
            sums = sums.at[:, completed_columns(plan, term)].set((weights[:, :, None] * found).sum(0))
    generic, gradient = jnp.zeros(0, plan.dtype), jnp.zeros(0, plan.dtype)
    if plan.gradient:
        (generic, gradient) = _generic_and_gradient(plan, q, params, part)
    elif plan.form.generic:
        generic = _by_component(row_weights(plan, part)[:, None] * q.dense(), generic_table(plan, params, part))
    entropy = zero if plan.is_point else row_weights(plan, part) @ q.entropy()
    filled = zero
    for completed in rows.completed.values():
        filled = filled + row_weights(plan, part) @ q.expectation(completed.entropy)
    gap = row_weights(plan, part) @ row_gap(rows.table, q) if plan.record_gap and not plan.family.is_exact else zero
    return Summary(counts, sums, noise, highest, generic, entropy, filled, gap, moved, gradient)


def _highest(plan: Plan, part: Block, num_rows: int) -> Array:
    """The log density, nats, of each row ``[n]`` that would know every ``plan.continuous`` value to rounding: the
    density of a value is one over 64 times the precision times the value, and as good as infinite at zero.
    """
    total = jnp.zeros(num_rows, plan.dtype)
    if not plan.continuous:
        return total
    dtype = jnp.finfo(plan.dtype)
    data = part.data if part.missing is None else restore_gaps(part.data, part.missing)
    values = plan.program.observations(data)
    for name in plan.continuous:
        size = jnp.abs(plan.form.flat(name, values[name], num_rows)).astype(plan.dtype)
        width = jnp.maximum(64 * dtype.eps * size, dtype.tiny)
        total = total - jnp.where(jnp.isnan(size), 0.0, jnp.log(width)).sum(1)
    return total


def _noise(plan: Plan, index: Array, num_rows: int) -> Array:
    """Numbers in [-1, 1] that nothing in the data follows, one for each row of a chunk: a hash of its place."""
    place = (index * num_rows + jnp.arange(num_rows)).astype(jnp.uint32)
    mixed = place * jnp.uint32(2654435761)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(2246822519)
    return (mixed >> 8).astype(plan.dtype) * 2.0**-23 - 1.0


def _generic_and_gradient(plan: Plan, q: Assigned, params: Params, part: Block) -> tuple[Array, Array]:
    """The expected generic log joint of every component [K], nats, and the gradient of their sum by
    ``Coordinates.to_weights``, ``[P]``.

    The gradient is NaN where q rules out a component of density zero, whose slope is infinite: reverse mode multiplies
    that by the weight zero. ``CURVED`` in ``curvature.py`` has the slope of each entry by itself.
    """
    place = coordinates(plan, params)

    def table_at(vector: Array) -> Array:
        return generic_table(plan, place.to_weights(vector), part)

    table, back = jax.vjp(table_at, place.point)
    weights = row_weights(plan, part)[:, None] * q.dense()
    (gradient,) = back(weights)

    return _by_component(weights, table), gradient


def _by_component(weights: Array, table: Array) -> Array:
    """Sums over the rows ``[K]``; 0 * -inf counts as 0."""
    return jnp.where(weights == 0, 0.0, weights * table).sum(0)
