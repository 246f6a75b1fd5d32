"""What comes before the first pass: origins, totals and constants of the data, and what of it is worth keeping."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from probem.data.blocks import Block, over_chunks
from probem.e_step.evaluation import all_features, compute_features, row_weights
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan


class Means(NamedTuple):
    """Sums of weights, of all rows and of every entry of every observed site, and of weights times values, by site."""

    weight: Array
    weights: dict[str, Array]
    sums: dict[str, Array]


def weighted_means(plan: Plan, total: Means, block: Block) -> Means:
    """Add one block."""

    def body(index: Array, part: Block, total: Means) -> Means:
        del index
        values = plan.program.observations(part.data)
        observed = plan.form.observed(part.data, part.missing) if plan.form.partial else {}
        weights = row_weights(plan, part)
        own, sums = {}, {}
        for term in plan.form.data_terms:
            events = plan.form.events(term, values[term.site]).astype(plan.dtype)
            if plan.form.partial:
                events = jnp.where(observed[term.site], events, 0.0)
                own[term.site] = jnp.tensordot(weights, observed[term.site].astype(plan.dtype), 1)
            sums[term.site] = jnp.tensordot(weights, events, 1)
        return jax.tree.map(jnp.add, total, Means(weights.sum(), own, sums))

    return over_chunks(block, plan.chunk_rows(block.size), body, total)


def zero_means(plan: Plan) -> Means:
    """An empty total for ``weighted_means``."""
    zeros = {term.site: jnp.zeros((term.copies, *term.event_shape), plan.dtype) for term in plan.form.data_terms}
    return Means(jnp.zeros((), plan.dtype), zeros if plan.form.partial else {}, zeros)


def centred(plan: Plan, total: Means) -> DataTotals:
    """The origins, from the weighted sums; the totals are still to be added."""
    means = {}
    for term in plan.form.data_terms:
        weights = total.weights.get(term.site, total.weight)
        means[term.site] = total.sums[term.site] / jnp.where(weights > 0, weights, 1.0)
    base = jnp.zeros(len(plan.form.data_terms), plan.dtype)
    return DataTotals(plan.form.shifts(means), jnp.zeros(plan.form.num_columns, plan.dtype), base, total.weight)


def add_totals(plan: Plan, prepared: DataTotals, block: Block) -> DataTotals:
    """Add one block to the totals of the statistics and of the base measure."""

    def body(index: Array, part: Block, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        del index
        phi = all_features(plan, part, prepared)
        base = plan.form.log_base_measure(part.data, part.missing).astype(plan.dtype)
        weights = row_weights(plan, part)
        return carry[0] + weights @ phi, carry[1] + weights @ base

    start = (prepared.totals, prepared.log_base_measure)
    totals, base = over_chunks(block, plan.chunk_rows(block.size), body, start)
    return prepared._replace(totals=totals, log_base_measure=base)


def prepare(plan: Plan, blocks: Sequence[Block], call: Any) -> tuple[DataTotals, list[Block]]:
    """Origins, totals and constants of the data, in two passes; and the blocks with what is worth keeping."""
    total = zero_means(plan)
    for block in blocks:
        total = call(weighted_means, None, None)(plan, total, block)
    prepared = call(centred, None)(plan, total)
    kept = []
    for block in blocks:
        prepared = call(add_totals, None, None)(plan, prepared, block)
        kept.append(call(keep_features, None, None)(plan, block, prepared) if plan.keeps_features else block)
    return prepared, kept


def keep_features(plan: Plan, block: Block, prepared: DataTotals) -> Block:
    """The block with its statistics in place of its data, so that no pass forms them again."""
    phi = compute_features(plan, block, prepared)
    # Which row is fitted worst, only all of its columns say.
    needed = plan.form.generic or plan.family.fills_empty
    return block._replace(features=phi, data=block.data if needed else (), missing=block.missing if needed else None)
