"""What comes before the first pass: origins, totals and constants of the data, and what of it is worth keeping."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.data.blocks import Block
from probem.e_step.evaluation import all_features, compute_features, log_base_measure, row_weights
from probem.e_step.nonzeros import sparse_sums
from probem.e_step.passes import Chunk, Pass, Reduction, map_chunks
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan


class Means(NamedTuple):
    """Sums of weights, of all rows and of every entry of every observed site, and of weights times values, by site."""

    weight: Float[Array, ""]
    weights: dict[str, Float[Array, "C ..."]]
    sums: dict[str, Float[Array, "C ..."]]


def _weighted(plan: Plan, each: None, totals: None, chunk: Chunk) -> tuple[Means, None]:
    """The sums of a chunk."""
    del each, totals
    block, weights = chunk.block, row_weights(plan, chunk.block)
    if plan.form.sparse_rows:
        # Their origin is zero.
        return zero_means(plan)._replace(weight=weights.sum()), None
    every = plan.form.events(block.data, known=block.events)
    observed = plan.form.observed(block.data, block.missing) if plan.form.partial else {}
    by_site, sums = {}, {}
    for term in plan.form.data_terms:
        events = every[term.site].astype(plan.dtype)
        if term.partial:
            events = jnp.where(observed[term.site], events, 0.0)
            by_site[term.site] = jnp.tensordot(weights, observed[term.site].astype(plan.dtype), 1)
        sums[term.site] = jnp.tensordot(weights, events, 1)
    return Means(weights.sum(), by_site, sums), None


#: Sums of weights, and of weights times values.
WEIGHTED = Reduction(_weighted)


def zero_means(plan: Plan) -> Means:
    """An empty total for ``WEIGHTED``."""
    zeros = {term.site: jnp.zeros((term.copies, *term.event_shape), plan.dtype) for term in plan.form.data_terms}
    partial = {term.site for term in plan.form.data_terms if term.partial}
    weights = {site: value for site, value in zeros.items() if site in partial}
    return Means(jnp.zeros((), plan.dtype), weights, zeros)


def centred(plan: Plan, total: Means) -> DataTotals:
    """The origins, from the weighted sums; the totals are still to be added."""
    means = {}
    for term in plan.form.data_terms:
        weights = total.weights.get(term.site, total.weight)
        means[term.site] = total.sums[term.site] / jnp.where(weights > 0, weights, 1.0)
    base = jnp.zeros(len(plan.form.data_terms), plan.dtype)
    return DataTotals(plan.form.shifts(means), jnp.zeros(plan.form.num_columns, plan.dtype), base, total.weight)


def _totalled(
    plan: Plan, each: None, totals: DataTotals, chunk: Chunk
) -> tuple[tuple[Float[Array, " S"], Float[Array, " T"]], None]:
    """The statistics of a chunk about the origins, and its base measure."""
    del each
    block, weights = chunk.block, row_weights(plan, chunk.block)
    base = log_base_measure(plan, block)
    if plan.form.sparse_rows:
        every = np.ones(plan.form.num_columns, bool)
        return (sparse_sums(plan, weights[:, None], block, every)[0], weights @ base), None
    return (weights @ all_features(plan, block, totals), weights @ base), None


#: The statistics and the base measure, summed over all rows.
TOTALLED = Reduction(_totalled)


def with_totals(data_pass: Pass, centre: DataTotals) -> Pass:
    """The rows with their totals about the origins of ``centre``."""
    data_pass = data_pass._replace(totals=centre)
    (sums, base), _ = data_pass.reduce(TOTALLED, (centre.sums, centre.log_base_measure), None)
    return data_pass._replace(totals=centre._replace(sums=sums, log_base_measure=base))


def prepare(data_pass: Pass) -> Pass:
    """Rows with their origins, totals and constants, in two passes; and with what of them is worth keeping."""
    plan = data_pass.plan
    if plan.form.accompanied:
        data_pass = data_pass._replace(blocks=data_pass.map(_with_events, None))
    means, _ = data_pass.reduce(WEIGHTED, zero_means(plan), None)
    data_pass = with_totals(data_pass, data_pass.call(centred, None)(plan, means))
    return data_pass._replace(blocks=data_pass.map(_kept, None)) if plan.keeps_features else data_pass


def _with_events(plan: Plan, each: None, totals: None, chunk: Chunk) -> Block:
    """The block with what stands beside values, which the program computes."""
    del each, totals

    def about(part: Block) -> dict[str, Float[Array, "n _ _"]]:
        events = plan.form.events(part.data, plan.form.accompanied)
        return {site: values.astype(plan.dtype) for site, values in events.items()}

    return chunk.block._replace(events=map_chunks(plan, about, chunk.block))


def _kept(plan: Plan, each: None, totals: DataTotals, chunk: Chunk) -> Block:
    """The block with its statistics in place of its data, so that no pass forms them again."""
    del each
    block = chunk.block
    phi = compute_features(plan, block, totals)
    # Which row is fitted worst, only all of its columns say.
    needed = plan.form.generic or plan.fills_empty
    return block._replace(features=phi, data=block.data if needed else (), missing=block.missing if needed else None)
