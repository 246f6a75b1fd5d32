"""The E half-step: one pass over the data, in chunks, to additive statistics. No N x K array is ever formed."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probem.data.blocks import Block
from probem.data.observations import restore_gaps
from probem.e_step.bound import row_gap
from probem.e_step.evaluation import RowEvaluation, evaluate_rows, generic_table, row_weights, varying_columns
from probem.e_step.initial_q import EStep, RowMemory, assign
from probem.e_step.nonzeros import sparse_sums
from probem.e_step.passes import Chunk, Reduction
from probem.e_step.summary import Summary
from probem.families.posteriors import Assigned
from probem.form import completion
from probem.form.products import quadratic_sums
from probem.form.statistics import DataTotals
from probem.plan.coordinates import coordinates
from probem.plan.plan import Plan
from probem.program.sites import Params


def _accumulated(plan: Plan, e_step: EStep, totals: DataTotals, chunk: Chunk) -> tuple[Summary, RowMemory]:
    """What a chunk adds to the sums, and what its rows keep."""
    evaluated = evaluate_rows(plan, chunk.block, e_step.at, totals)
    q, memory = assign(plan, evaluated.table, e_step, chunk)
    moved = jnp.zeros((), jnp.int32)
    if memory.labels is not None:
        moved = ((chunk.beside.memory.labels != memory.labels) & (chunk.block.weights > 0)).sum(dtype=jnp.int32)
    return _summarise(plan, q, evaluated, e_step.at.params, chunk, moved), memory


#: The E half-step. The blocks do not wait for each other: XLA runs what is independent in one computation side by side.
ACCUMULATED = Reduction(_accumulated, blank=lambda plan, state: state.memory, is_parallel=True)


def _summarise(
    plan: Plan, q: Assigned, evaluated: RowEvaluation, params: Params, chunk: Chunk, moved: Int[Array, ""]
) -> Summary:
    block, weights = chunk.block, row_weights(plan, chunk.block)
    zero = jnp.zeros((), plan.dtype)
    features, noise, highest = evaluated.features, jnp.zeros(0, plan.dtype), jnp.zeros(0, plan.dtype)
    if plan.form.generic:
        beside = jnp.stack([_noise(plan, chunk.index, len(features)), _highest(plan, block, len(features))], 1)
        features = jnp.concatenate([features, beside], 1)
    counts, sums = q.statistics(features, block)
    if plan.form.generic:
        sums, noise, highest = sums[:, :-2], sums[:, -2], sums[:, -1]
    if plan.form.sparse_rows:
        sums = sparse_sums(plan, weights[:, None] * q.dense(), block, plan.form.varying)
    if plan.by_products:
        formed, weighted = sums, weights[:, None] * q.dense()
        sums = jnp.zeros((plan.num_components, len(plan.varying)), plan.dtype)
        sums = sums.at[:, np.searchsorted(plan.varying, plan.formed)].set(formed)
        for term in plan.by_products:
            products = quadratic_sums(term, weighted, evaluated.events[term.site])
            sums = sums.at[:, varying_columns(plan, term)].set(products)
    if plan.form.completing:
        weighted = weights[:, None] * q.dense()
        for term in plan.form.completing:
            filled_in = completion.expected_features(term, evaluated.completed[term.site])
            sums = sums.at[:, varying_columns(plan, term)].set((weighted[:, :, None] * filled_in).sum(0))
    generic, gradient = jnp.zeros(0, plan.dtype), jnp.zeros(0, plan.dtype)
    if plan.gradient:
        generic, gradient = _generic_and_gradient(plan, q, params, block)
    elif plan.form.generic:
        generic = _by_component(weights[:, None] * q.dense(), generic_table(plan, params, block))
    entropy = zero if plan.is_point else weights @ q.entropy()
    filled = sum((weights @ q.expectation(completed.entropy) for completed in evaluated.completed.values()), zero)
    gap = weights @ row_gap(evaluated.table, q) if plan.record_gap and not plan.is_always_exact else zero
    return Summary(counts, sums, noise, highest, generic, entropy, filled, gap, moved, gradient)


def _highest(plan: Plan, block: Block, num_rows: int) -> Float[Array, " n"]:
    """The log density, nats, of each row that would know every ``plan.continuous`` value to rounding: the
    density of a value is one over 64 times the precision times the value, and as good as infinite at zero.
    """
    total = jnp.zeros(num_rows, plan.dtype)
    if not plan.continuous:
        return total
    dtype = jnp.finfo(plan.dtype)
    data = block.data if block.missing is None else restore_gaps(block.data, block.missing)
    values = plan.program.observations(data)
    for name in plan.continuous:
        size = jnp.abs(plan.form.flat(name, values[name], num_rows)).astype(plan.dtype)
        width = jnp.maximum(64 * dtype.eps * size, dtype.tiny)
        total = total - jnp.where(jnp.isnan(size), 0.0, jnp.log(width)).sum(1)
    return total


def _noise(plan: Plan, index: Int[Array, ""], num_rows: int) -> Float[Array, " n"]:
    """Numbers in [-1, 1] that nothing in the data follows, one for each row of a chunk: a hash of its place."""
    place = (index * num_rows + jnp.arange(num_rows)).astype(jnp.uint32)
    mixed = place * jnp.uint32(2654435761)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(2246822519)
    return (mixed >> 8).astype(plan.dtype) * 2.0**-23 - 1.0


def _generic_and_gradient(
    plan: Plan, q: Assigned, params: Params, block: Block
) -> tuple[Float[Array, " K"], Float[Array, " P"]]:
    """The expected generic log joint of every component, nats, and the gradient of their sum by
    ``Coordinates.to_weights``.

    The gradient is NaN where q rules out a component of density zero, whose slope is infinite: reverse mode multiplies
    that by the weight zero. ``CURVED`` in ``curvature.py`` has the slope of each entry by itself.
    """
    place = coordinates(plan, params)

    def table_at(vector: Float[Array, " P"]) -> Float[Array, "n K"]:
        return generic_table(plan, place.to_weights(vector), block)

    table, back = jax.vjp(table_at, place.point)
    weights = row_weights(plan, block)[:, None] * q.dense()
    (gradient,) = back(weights)
    return _by_component(weights, table), gradient


def _by_component(weights: Float[Array, "n K"], table: Float[Array, "n K"]) -> Float[Array, " K"]:
    """Sums over the rows; 0 * -inf counts as 0."""
    return jnp.where(weights == 0, 0.0, weights * table).sum(0)
