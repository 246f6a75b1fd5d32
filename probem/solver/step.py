"""One iteration: the E half-step, its judgement, the M half-step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from probem.e_step.accumulation import ACCUMULATED
from probem.e_step.bound import Bound, assemble
from probem.e_step.candidates import VALUED
from probem.e_step.curvature import CURVED, Curvature, no_curvature
from probem.e_step.evaluation import At, natural_parameters
from probem.e_step.initial_q import InitialQ, RowState
from probem.e_step.passes import Pass
from probem.e_step.relocation import WORST, filled, no_worst
from probem.e_step.summary import Summary, all_statistics, is_finite, zero_summary
from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals, Statistics, expected, widened
from probem.m_step.gradient.ascent import asks_for_curvature, fewest, is_settled, is_stuck
from probem.m_step.gradient.look import beyond, grow, look, looks_across
from probem.m_step.gradient.proposal import Pace, Tried, propose, select
from probem.m_step.maximise import collapsed, maximise
from probem.plan.plan import Plan
from probem.solver.result import CODE, RUNNING, Result
from probem.solver.state import Limits, Proposal, Record, State
from probem.solver.stopping import Progress, expected_rise


def update(
    plan: Plan,
    state: State,
    summary: Summary,
    given: Summary,
    curvature: Curvature | None,
    prepared: DataTotals,
    limits: Limits,
) -> Proposal:
    """Judge the E half-step by its ``summary``, then maximise over the parameters of the closed and numeric routes.

    The M half-step is ``given`` the same sums, but for rows that were moved to empty components; the gradient route has
    the ``curvature`` as well.
    """
    stats = all_statistics(plan, summary, prepared)
    seen = all_statistics(plan, given, prepared)
    entropy_weight = plan.family.entropy_weight

    def bound_at(lin: NaturalParameters, stats: Statistics, log_prior: Array, gap: Array) -> Bound:
        expectation = expected(lin, stats) + prepared.log_base_measure.sum() + summary.generic.sum()
        return assemble(expectation + summary.filled, summary.entropy, log_prior, gap)

    def objective_of(bound: Bound) -> Array:
        return bound.elbo + (entropy_weight - 1.0) * bound.entropy

    unknown = jnp.full((), jnp.nan, plan.dtype)
    gap = summary.gap if plan.record_gap or plan.family.is_exact else unknown
    found = bound_at(state.linear, stats, state.log_prior, gap)
    objective = objective_of(found)
    allowance = _rounding(plan, state.linear, stats, found, prepared)

    finite = jnp.isfinite(objective)
    # A spread that is widened is not at its maximum.
    judged = prepared.added_variance is None
    fell = (objective < state.last - allowance) & judged
    good = finite & ~fell
    params = maximise(plan, widened(plan.form, seen, prepared.added_variance), state.params)
    lin, log_prior = natural_parameters(plan, params, prepared), plan.log_prior(params)
    raised = bound_at(lin, seen, log_prior, unknown)
    last = objective_of(raised)
    rise = objective - state.objective
    promised = expected_rise(rise, state.rise, allowance)
    progress = Progress(
        (objective, state.objective),
        (last, state.last),
        promised,
        allowance,
        state.params,
        params,
        prepared.total_weight,
    )
    small_rise = limits.rule.at_once(progress) & jnp.logical_not(limits.is_held)
    climbing, lost, stuck, renewal = state.ascent, jnp.zeros((), bool), jnp.zeros((), bool), False
    slope = jnp.zeros((), plan.dtype)
    if plan.gradient:
        climbing = look(plan, state.ascent, params, summary, stats, curvature, state.rise)
        allowed = limits.rule.promise(prepared.total_weight) + allowance
        if not plan.gradient_is_multinomial:
            soon = jnp.where(limits.is_held, HELD_TOLERANCE * prepared.total_weight, allowed)
            renewal = (small_rise | limits.is_held) & asks_for_curvature(climbing, soon, state.step)
            stuck = small_rise & is_stuck(climbing)
        small_rise = small_rise & is_settled(climbing, allowed, allowance)
        lost = ~is_finite(climbing.gradient)
        slope = jnp.where(jnp.isfinite(climbing.promised) | stuck, climbing.promised, 0.0)
        promised = jnp.maximum(promised, slope)
    still = (summary.moved == 0) & (state.step > 0) if plan.is_point else False
    # With an exact M-step the same point masses give the same parameters; otherwise the bound has to settle as well.
    converged = good & (
        state.settled
        | (still & small_rise if plan.gradient or plan.numeric or plan.form.completing else still)
        | (small_rise if not plan.is_point else False)
    )

    undefined = jnp.isnan(lin.weight).any(1) | jnp.isnan(lin.offset)
    broken = (collapsed(plan, seen, params) if plan.spreads else jnp.zeros_like(undefined)) | (
        undefined & (seen.counts > 0)
    )
    # So high is a density of rows that are known to rounding alone: its scale is gone.
    steep = summary.generic > summary.highest if plan.continuous else jnp.zeros_like(broken)
    code = jnp.asarray(RUNNING, jnp.int32)
    for condition, result in (
        ((last < objective - allowance) & judged, Result.BOUND_FELL),
        (~jnp.isfinite(last), Result.NON_FINITE),
        (broken.any(), Result.SINGULAR if plan.spreads else Result.NON_FINITE),
        (lost, Result.NON_FINITE),
        (state.step + 1 >= limits.max_steps, Result.STEP_LIMIT),
        (stuck & good, Result.NOT_STATIONARY),
        (steep.any(), Result.SINGULAR),
        (converged & ~(broken | steep).any(), Result.CONVERGED),
        (fell, Result.BOUND_FELL),
        (~finite, Result.NON_FINITE),
    ):
        code = jnp.where(condition, CODE[result], code)
    # Without a prior, nothing says where the parameters of an empty component should be.
    empty = (stats.counts <= 0) & (not plan.has_priors)
    code = jnp.where((code == CODE[Result.CONVERGED]) & empty.any(), CODE[Result.EMPTY_COMPONENT], code)
    component = jnp.where(code == CODE[Result.EMPTY_COMPONENT], jnp.argmax(empty), jnp.argmax(broken | steep)).astype(
        jnp.int32
    )

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)

    moved = summary.moved if plan.is_point else jnp.asarray(-1, jnp.int32)
    following = State(
        params=params,
        linear=lin,
        log_prior=log_prior,
        ascent=climbing,
        best=keep(state.params, state.best),
        bound=keep(found, state.bound),
        objective=keep(objective, state.objective),
        rise=keep(rise, state.rise),
        # The same point masses again: nothing but this M half-step can raise the objective.
        promised=keep(jnp.where(still, jnp.maximum(last - objective, slope), promised), state.promised),
        counts=keep(stats.counts, state.counts),
        sums=keep(stats.sums, state.sums),
        noise=keep(summary.noise, state.noise),
        last=last,
        # Of what has ended, whether that is why.
        settled=jnp.where(code == RUNNING, limits.rule.after(progress), state.settled),
        code=code.astype(jnp.int32),
        component=component,
        step=state.step + 1,
    )
    record = Record(found, raised, moved)
    if not plan.gradient or plan.gradient_is_multinomial:
        return Proposal(following, record, jnp.zeros((0, 0), plan.dtype), progress)
    candidates = propose(plan, climbing, params, fewest(summary.counts))
    return Proposal(following, record, candidates, progress, renewal)


def climb(plan: Plan, proposal: Proposal, values: Array | None, prepared: DataTotals, limits: Limits) -> Proposal:
    """Finish the M half-step of the gradient route: take the best candidate, if any is better than staying.

    The ``values`` of the candidates are None where the maximum has a closed form.
    """
    if values is None:
        params, gain = grow(plan, proposal.state.ascent, proposal.state.params)
        climbing = proposal.state.ascent
    else:
        tried, pace = Tried(proposal.candidates, values), Pace(proposal.state.rise, proposal.state.step)
        params, climbing, gain = select(plan, proposal.state.ascent, proposal.state.params, tried, pace, prepared)
    climbing = climbing._replace(stale=climbing.stale | proposal.renewal)
    last = proposal.state.last + gain
    progress = proposal.progress._replace(lasts=(last, proposal.progress.lasts[1]), params=params)
    state = proposal.state._replace(
        params=params,
        linear=natural_parameters(plan, params, prepared),
        log_prior=plan.log_prior(params),
        ascent=climbing,
        last=last,
        settled=jnp.where(proposal.state.code == RUNNING, limits.rule.after(progress), proposal.state.settled),
    )
    raised = proposal.record.maximization
    raised = raised._replace(elbo=raised.elbo + gain, expected_log_joint=raised.expected_log_joint + gain)
    return proposal._replace(state=state, record=proposal.record._replace(maximization=raised))


def _rounding(plan: Plan, lin: NaturalParameters, stats: Any, bound: Bound, prepared: DataTotals) -> Array:
    """How far the objective may fall by rounding alone: the precision times the size of the terms that cancel in it."""
    size = (
        jnp.where(stats.sums == 0, 0.0, jnp.abs(lin.weight * stats.sums)).sum()
        + jnp.where(stats.counts > 0, jnp.abs(lin.offset) * stats.counts, 0.0).sum()
    )
    size = size + jnp.abs(lin.level) * stats.counts.sum()
    size = size + jnp.abs(prepared.log_base_measure).sum() + jnp.abs(bound.entropy) + jnp.abs(bound.elbo)
    size = size + jnp.abs(bound.log_prior)
    return 64 * jnp.finfo(plan.dtype).eps * jnp.where(jnp.isfinite(size), size, 0.0)


#: Block by block, ``[B]``; None where q is no point mass.
BlockLabels = Sequence[Array | None]


def step(
    rows: Pass, state: State, labels: BlockLabels, initial: InitialQ | None, limits: Limits
) -> tuple[State, BlockLabels, Record]:
    """One iteration. An ``initial`` q replaces the projection of the E half-step: how a fit starts from labels."""
    plan, totals, call = rows.plan, rows.totals, rows.call
    summary, moved = visit(rows, state, labels, initial)
    given = summary
    if plan.family.fills_empty:
        worst, wanted = call(no_worst, 0)(plan, summary)
        worst, _ = rows.reduce(WORST, worst, (summary, state.at), wanted=wanted)
        given = call(filled, 0, 0)(plan, summary, worst)
    curvature, values = None, None
    climbs = bool(plan.gradient) and not plan.gradient_is_multinomial
    beside, active = _beside(labels, initial), None if initial is None else initial.active
    if climbs:
        curvature, wanted, where = call(_no_curvature, 0, 0, None)(plan, state, summary, totals)
        curvature, _ = rows.reduce(CURVED, curvature, (where, active), beside, wanted)
    proposal = call(update, 0, 0, 0, 0, None, None)(plan, state, summary, given, curvature, totals, limits)
    if climbs:
        values = call(_zero_values, 0)(plan, proposal)
        values, _ = rows.reduce(VALUED, values, (proposal.candidates, proposal.state.at, active), beside)
    if plan.gradient:
        proposal = call(climb, 0, 0, None, None)(plan, proposal, values, totals, limits)
    return proposal.state, moved, proposal.record


def visit(rows: Pass, state: State, labels: BlockLabels, initial: InitialQ | None) -> tuple[Summary, BlockLabels]:
    """The E half-step: the sums over all rows, and the labels."""
    active = None if initial is None else initial.active
    zero = rows.call(_zero, 0)(rows.plan, state)
    return rows.reduce(ACCUMULATED, zero, (state.at, active), _beside(labels, initial))


def no_labels(rows: Pass) -> BlockLabels:
    """No row belongs anywhere yet."""
    shape = (rows.restarts, rows.block_rows) if rows.restarts > 1 else (rows.block_rows,)
    return tuple(jnp.full(shape, -1, jnp.int32) if rows.plan.is_point else None for _ in rows.blocks)


def _beside(labels: BlockLabels, initial: InitialQ | None) -> list[RowState]:
    """What belongs to the rows, block by block."""
    held = [None] * len(labels) if initial is None else initial.q
    return [RowState(*own) for own in zip(labels, held, strict=True)]


def _zero(plan: Plan, state: State) -> Summary:
    """An empty summary, to which blocks are added."""
    return zero_summary(plan, state.ascent.point.shape[0])


def _no_curvature(plan: Plan, state: State, summary: Summary, prepared: DataTotals) -> tuple[Curvature, Array, At]:
    """The sums over no rows, whether there is need of those over all, and where: they make up for a lost gradient, and
    look across a corner.
    """
    across = looks_across(state.ascent, state.rise, summary.gradient)
    wanted = state.ascent.stale | across | ~is_finite(summary.gradient)
    there = beyond(plan, state.ascent, state.params, fewest(summary.counts))
    params = jax.tree.map(lambda new, old: jnp.where(across, new, old), there, state.params)
    return (
        no_curvature(plan, state.ascent.point.shape[0]),
        wanted,
        At(params, natural_parameters(plan, params, prepared)),
    )


def _zero_values(plan: Plan, proposal: Proposal) -> Array:
    return jnp.zeros(proposal.candidates.shape[0], plan.dtype)


# Nats a row that may be left to gain under a q that is held for a start.
HELD_TOLERANCE = 1e-6
