"""Components that no row belongs to, and the worst-fitted rows that they are given (``Delta(fill_empty=True)``)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.data.blocks import Block
from probem.e_step.evaluation import (
    evaluate_rows,
    log_base_measure,
    row_weights,
    shared_log_joint,
    varying_columns,
)
from probem.e_step.initial_q import EStep, assign
from probem.e_step.nonzeros import differ_from_means, sparse_sums
from probem.e_step.passes import Chunk, Reduction
from probem.e_step.summary import Summary
from probem.families.posteriors import Point
from probem.form import completion
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan


class Worst(NamedTuple):
    """The rows with the lowest log densities at their own point mass, K of them, worst first; of a chunk all n.

    ``log_density`` is infinite where there is none; ``features`` and ``weights`` are what moves with a row.
    """

    log_density: Float[Array, " K"]
    features: Float[Array, "K S"]
    labels: Int[Array, " K"]
    weights: Float[Array, " K"]


def no_worst(plan: Plan, summary: Summary) -> tuple[Worst, Bool[Array, ""]]:
    """None so far; and whether any are wanted, for a component without rows."""
    count = plan.num_components
    worst = Worst(
        jnp.full(count, jnp.inf, plan.dtype),
        jnp.zeros_like(summary.sums),
        jnp.zeros(count, jnp.int32),
        jnp.zeros(count, plan.dtype),
    )
    return worst, (summary.counts <= 0).any()


def _worst(plan: Plan, each: tuple[Summary, EStep], totals: DataTotals, chunk: Chunk) -> tuple[Worst, None]:
    """The rows of a chunk as the worst of some; infinite are those that stay where they are."""
    (summary, e_step), block = each, chunk.block
    evaluated = evaluate_rows(plan, block, e_step.at, totals)
    q, _ = assign(plan, evaluated.table, e_step, chunk)
    assert isinstance(q, Point)
    shared = shared_log_joint(plan, block, e_step.at.natural, totals)
    base = log_base_measure(plan, block).sum(1)
    log_density = q.expectation(evaluated.table) + shared + base
    # A row whose assignment is known stays where it is.
    movable = (block.weights > 0) & (True if block.labels is None else block.labels < 0)
    if plan.form.sparse_rows:
        return _worst_of_sparse(plan, summary, log_density, q.index, block, movable), None
    features = evaluated.features
    for term in plan.form.completing:
        # A row takes along what it was filled in with.
        completed = completion.expected_features(term, evaluated.completed[term.site])
        taken = jnp.take_along_axis(completed, q.index[:, None, None], 1)[:, 0]
        features = features.at[:, varying_columns(plan, term)].set(taken)
    if not plan.form.generic:
        movable = movable & _differs(summary, features, q.index)
    return Worst(jnp.where(movable, log_density, jnp.inf), features, q.index, row_weights(plan, block)), None


def _worst_of_sparse(
    plan: Plan,
    summary: Summary,
    log_density: Float[Array, " n"],
    labels: Int[Array, " n"],
    block: Block,
    movable: Bool[Array, " n"],
) -> Worst:
    """The worst of sparse rows, no more than there are components: all of a row is formed for these alone."""
    movable = movable & differ_from_means(plan, _means(summary), labels, block, _precision(plan.dtype, block.size))
    log_density = jnp.where(movable, log_density, jnp.inf)
    _, order = jax.lax.top_k(-log_density, min(plan.num_components, block.size))
    taken = (jnp.arange(block.size)[:, None] == order[None, :]).astype(plan.dtype)
    features = sparse_sums(plan, taken, block, plan.form.varying)
    return Worst(log_density[order], features, labels[order], row_weights(plan, block)[order])


def _worst_of(worst: Worst, others: Worst) -> Worst:
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), worst, others)
    _, order = jax.lax.top_k(-both.log_density, len(worst.log_density))
    return jax.tree.map(lambda leaf: leaf[order], both)


#: The worst rows of all, as many as there are components.
WORST = Reduction(_worst, add=_worst_of)


def _differs(summary: Summary, features: Float[Array, "n S"], labels: Int[Array, " n"]) -> Bool[Array, " n"]:
    """Whether the statistics of a row are other than the mean of those of its component.

    A row that is all that its component holds, once or many times, would leave it no better than the one that it goes
    to, and by a rounding the rows would go to and fro for ever.
    """
    mean = _means(summary)[labels]
    precision = _precision(features.dtype, len(features))
    return (jnp.abs(features - mean) > precision * (jnp.abs(features) + jnp.abs(mean))).any(1)


def _means(summary: Summary) -> Float[Array, "K S"]:
    counts = summary.counts[:, None]
    return summary.sums / jnp.where(counts > 0, counts, 1.0)


def _precision(dtype: Any, num_rows: int) -> float:
    """By how much a mean of equal numbers may be off: their sum is by some eps sqrt(n)."""
    return 16 * float(jnp.finfo(dtype).eps) * num_rows**0.5


def filled(plan: Plan, summary: Summary, worst: Worst) -> Summary:
    """The summary with one of the worst rows moved to each component without any, in order.

    A component that has given up all of its rows has none, and not what rounding leaves of them.
    """
    empty = summary.counts <= 0

    def move(_: Any, now: Any) -> Any:
        # In a loop of no or one round, as in ``Pass.reduce``: of wide rows it takes as long as the M half-step.
        (counts, sums), rows = jax.lax.optimization_barrier((now, worst))
        row = jnp.where(empty, jnp.cumsum(empty) - 1, 0)
        moves = empty & jnp.isfinite(rows.log_density[row])
        weights = jnp.where(moves, rows.weights[row], 0.0)
        features, sources = rows.features[row], rows.labels[row]
        # At most K rows are taken: what they were added up to is off by that many roundings at most.
        least = 4 * len(counts) * jnp.finfo(counts.dtype).eps * counts
        counts = (counts + weights).at[sources].add(-weights)
        moved = weights[:, None] * features
        sums = (sums + moved).at[sources].add(-moved)
        left = ~jnp.zeros(counts.shape, bool).at[sources].max(moves) | (counts > least)
        return jnp.where(left, counts, 0.0), jnp.where(left[:, None], sums, 0.0)

    counts, sums = jax.lax.fori_loop(0, empty.any().astype(jnp.int32), move, (summary.counts, summary.sums))
    return summary._replace(counts=counts, sums=sums)
