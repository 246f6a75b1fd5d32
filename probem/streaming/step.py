"""What a stream remembers of its rows, and what one batch makes of it and of the parameters.

Sums over rows are all there is; ``absorb.py`` says how they are weighted and where the formulas come from.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.data.blocks import Block
from probem.e_step.bound import Bound, assemble
from probem.e_step.passes import Pass
from probem.e_step.preparation import WEIGHTED, Means, centred, with_totals, zero_means
from probem.e_step.summary import Summary, all_statistics
from probem.form.form import ExponentialForm, NaturalParameters
from probem.form.statistics import (
    DataTotals,
    NoiseVariance,
    Statistics,
    column_counts,
    expected,
    mean_statistics,
    widened,
)
from probem.jit.compilation import by_plan
from probem.m_step.maximise import collapsed, maximise
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.judgement import broken_components
from probem.solver.state import Record, State, initial_state
from probem.solver.step import no_memory, visit


class StepSize(NamedTuple):
    """rho_t of the batch t of this ``number``, from 0, and the factors of the two sums in
    N_t s_t = kept S_(t-1) + gained S_batch.
    """

    number: Int[Array, ""] | int
    rate: Float[Array, ""] | float
    kept: Float[Array, ""] | float
    gained: Float[Array, ""] | float


class RunningStatistics(NamedTuple):
    """Sums over the rows seen, each weighted so that together they count N_t: all that a stream remembers.

    ``entropy`` is that of the assignments, ``filled`` that of what was filled in.
    """

    statistics: Statistics
    entropy: Float[Array, ""]
    filled: Float[Array, ""]
    log_base_measure: Float[Array, " T"]


class StreamStep(NamedTuple):
    """What a batch makes of a fit; ``record`` holds the bounds before and after the M half-step, nats, total.

    ``batch_elbo`` is F of the batch per row, before the M half-step and without the prior.
    """

    params: Params
    seen: RunningStatistics
    record: Record
    batch_elbo: Float[Array, ""]
    broken: Bool[Array, " K"]


def stream_step(
    data_pass: Pass, params: Params, seen: RunningStatistics, size: StepSize, added_variance: NoiseVariance | None
) -> StreamStep:
    """One batch: its mean, its totals, its E half-step, and the M half-step."""
    plan, call = data_pass.plan, data_pass.call
    means, _ = data_pass.reduce(WEIGHTED, zero_means(plan), None)
    data_pass = with_totals(data_pass, call(_prepared)(plan, means, seen.statistics.shifts, size))
    state = call(initial_state)(plan, params, data_pass.totals)._replace(step=size.number)
    summary, _ = visit(data_pass, state, no_memory(data_pass), None)
    totals = data_pass.totals._replace(added_variance=added_variance)
    return call(_maximised)(plan, state, summary, totals, seen, size)


@by_plan
def compiled_stream_step(
    plan: Plan,
    params: Params,
    seen: RunningStatistics,
    size: StepSize,
    blocks: tuple[Block, ...],
    added_variance: NoiseVariance | None,
) -> StreamStep:
    """One compiled function, for a batch in one block."""
    return stream_step(Pass(plan, blocks, in_trace=True), params, seen, size, added_variance)


def _prepared(plan: Plan, means: Means, shifts: Mapping[str, Array], size: StepSize) -> DataTotals:
    """The origins moved to the running mean, or zero for sparse rows, and the weight of the batch; its totals are still
    to be added.

    Where the batch has no value, it says nothing of the origin.
    """
    totals = centred(plan, means)
    if plan.form.sparse_rows:
        return totals
    moved = {}
    for name, shift in shifts.items():
        running = (1 - size.rate) * shift + size.rate * totals.shifts[name]
        moved[name] = jnp.where(means.weights.get(name, means.weight) > 0, running, shift)
    return totals._replace(shifts=moved)


def _maximised(
    plan: Plan, state: State, summary: Summary, totals: DataTotals, seen: RunningStatistics, size: StepSize
) -> StreamStep:
    batch = all_statistics(plan, summary, totals)
    before = _recentred(plan.form, seen.statistics, totals.shifts)
    mixed = jax.tree.map(
        lambda old, new: size.kept * old + size.gained * new,
        seen._replace(statistics=before),
        RunningStatistics(batch, summary.entropy, summary.filled, totals.log_base_measure),
    )
    statistics = mixed.statistics._replace(shifts=totals.shifts)
    dtype = jnp.finfo(plan.dtype)
    # A count that is about to underflow is none: its quotient with its sums would no longer be their average.
    lost = statistics.counts <= dtype.tiny / dtype.eps
    # Nor do the sums of a component that died hold its spread any longer, once the data has moved too far away.
    faint = statistics.counts <= dtype.eps * statistics.counts.sum()
    if plan.spreads:
        lost = lost | (faint & collapsed(plan, statistics, state.params))
    counts, sums = jnp.where(lost, 0.0, statistics.counts), jnp.where(lost[:, None], 0.0, statistics.sums)
    statistics = statistics._replace(counts=counts, sums=sums)
    mixed = mixed._replace(statistics=statistics)

    def bound(natural: NaturalParameters, log_prior: Float[Array, ""]) -> Bound:
        expectation = expected(natural, statistics) + mixed.log_base_measure.sum() + mixed.filled
        return assemble(expectation, mixed.entropy, log_prior, jnp.full((), jnp.nan, plan.dtype))

    params = maximise(plan, widened(plan.form, statistics, totals.added_variance), state.params)
    natural, log_prior = plan.evaluated(params, totals.shifts)
    broken = broken_components(plan, statistics, params, natural, faint)
    record = Record.of(bound(state.natural, state.log_prior), bound(natural, log_prior), jnp.asarray(-1))
    batch_bound = expected(state.natural, batch) + summary.entropy + summary.filled + totals.log_base_measure.sum()
    return StreamStep(params, mixed, record, batch_bound / totals.total_weight, broken)


def _recentred(form: ExponentialForm, statistics: Statistics, shifts: Mapping[str, Array]) -> Statistics:
    """The statistics of the rows about other origins.

    In a location family E[T] - T(E[x]) is that of the spread around the mean, wherever the origin lies (``spread``).
    """
    moves = []
    for term in form.column_terms:
        if term.is_assignment:
            moves.append(jnp.zeros((len(statistics.counts), term.num_columns), statistics.sums.dtype))
            continue
        mean = mean_statistics(form, statistics, term)
        if term.view.is_location:
            centre = term.view.centre(mean)
            step = statistics.shifts[term.site] - shifts[term.site]
            move = term.view.statistics(centre + step) - term.view.statistics(centre)
        else:
            move = jnp.zeros_like(mean)
        # Whether an event was observed does not depend on the origin.
        moves += [move.reshape(len(move), -1), jnp.zeros((len(move), term.copies * term.partial), move.dtype)]
    events = column_counts(form, statistics.counts, statistics.sums)
    moved = events * jnp.concatenate(moves, 1)
    return Statistics(statistics.counts, statistics.sums + moved, shifts)
