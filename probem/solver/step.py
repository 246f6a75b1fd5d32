"""One iteration: the E half-step, its judgement, the M half-step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probem.e_step.accumulation import ACCUMULATED
from probem.e_step.candidates import VALUED
from probem.e_step.curvature import CURVED, Curvature, no_curvature
from probem.e_step.evaluation import At, natural_parameters
from probem.e_step.initial_q import InitialQ, RowMemory, RowState, blank_memory
from probem.e_step.passes import Pass
from probem.e_step.relocation import WORST, filled, no_worst
from probem.e_step.summary import Summary, is_finite, zero_summary
from probem.form.statistics import DataTotals
from probem.m_step.gradient.ascent import asks_for_curvature, fewest, is_settled, is_stuck
from probem.m_step.gradient.look import Seen, beyond, grow, look, looks_across
from probem.m_step.gradient.proposal import Pace, Tried, propose, select
from probem.plan.plan import Plan
from probem.solver.judgement import Ending, is_final, judge, maximised, verdict
from probem.solver.result import RUNNING
from probem.solver.state import Limits, Proposal, Record, State
from probem.stopping import Progress, expected_rise


class PassSums(NamedTuple):
    """What the passes of an iteration have summed: the E half-step is judged by its ``summary``; the M half-step is
    ``given`` the sums in which rows were moved to empty components; the gradient route has the ``curvature`` as well.
    """

    summary: Summary
    given: Summary
    curvature: Curvature | None


def update(plan: Plan, state: State, sums: PassSums, totals: DataTotals, limits: Limits) -> Proposal:
    """Judge the E half-step, then maximise over the parameters of the closed and numeric routes."""
    summary, given, curvature = sums
    judged, raised = judge(plan, state, summary, totals), maximised(plan, state, given, totals)
    rise = judged.objective - state.objective
    promised = expected_rise(rise, state.rise, judged.allowance)
    progress = Progress(
        (judged.objective, state.objective),
        (raised.objective, state.last),
        promised,
        judged.allowance,
        state.params,
        raised.params,
        totals.total_weight,
    )
    final, is_drawn = is_final(plan, state), plan.is_stochastic
    small_rise = limits.rule.at_once(progress) & jnp.logical_not(limits.is_initial) & final & (not is_drawn)
    climbing, lost, stuck, renewal = state.ascent, jnp.zeros((), bool), jnp.zeros((), bool), False
    slope = jnp.zeros((), plan.dtype)
    if plan.gradient:
        climbing = look(plan, state.ascent, raised.params, Seen(summary, judged.statistics, curvature), state.rise)
        allowed = limits.rule.promise(totals.total_weight) + judged.allowance
        if not plan.gradient_is_multinomial:
            soon = jnp.where(limits.is_initial, INITIAL_TOLERANCE * totals.total_weight, allowed)
            renewal = (small_rise | limits.is_initial) & asks_for_curvature(climbing, soon, state.step)
            stuck = small_rise & is_stuck(climbing)
        small_rise = small_rise & is_settled(climbing, allowed, judged.allowance)
        lost = ~is_finite(climbing.gradient)
        slope = jnp.where(jnp.isfinite(climbing.promised) | stuck, climbing.promised, 0.0)
        promised = jnp.maximum(promised, slope)
    # The same point masses again: with an exact M-step they give the same parameters, otherwise the bound has to settle
    # as well.
    stands_still = plan.is_point and not is_drawn
    still = (summary.moved == 0) & (state.step > 0) & final if stands_still else jnp.zeros((), bool)
    if stands_still:
        converged = still & small_rise if plan.gradient or plan.numeric or plan.form.completing else still
    else:
        converged = small_rise
    # So high is a density of rows that are known to rounding alone: its scale is gone.
    steep = summary.generic > summary.highest if plan.continuous else jnp.zeros_like(raised.broken)
    ending = Ending((state.settled & final) | converged, lost, stuck, steep)
    code, component = verdict(plan, state, judged, raised, ending, limits)

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(judged.good, a, b), new, old)

    # Nothing but this M half-step can raise the objective then.
    promised = jnp.full_like(promised, jnp.inf) if is_drawn else promised
    left = jnp.where(still, jnp.maximum(raised.objective - judged.objective, slope), promised)
    following = State(
        params=raised.params,
        natural=raised.natural,
        log_prior=raised.log_prior,
        ascent=climbing,
        best=keep(state.params, state.best),
        bound=keep(judged.bound, state.bound),
        objective=keep(judged.objective, state.objective),
        rise=keep(rise, state.rise),
        promised=keep(left, state.promised),
        counts=keep(judged.statistics.counts, state.counts),
        sums=keep(judged.statistics.sums, state.sums),
        noise=keep(summary.noise, state.noise),
        last=raised.objective,
        # Of what has ended, whether that is why.
        settled=jnp.where(code == RUNNING, limits.rule.after(progress), state.settled),
        code=code,
        component=component,
        step=state.step + 1,
        seed=state.seed,
        lost=state.lost | raised.lost,
    )
    moved = summary.moved if plan.is_point else jnp.asarray(-1, jnp.int32)
    record = Record.of(judged.bound, raised.bound, moved)
    if not plan.gradient or plan.gradient_is_multinomial:
        return Proposal(following, record, jnp.zeros((0, 0), plan.dtype), progress)
    candidates = propose(plan, climbing, raised.params, fewest(summary.counts))
    return Proposal(following, record, candidates, progress, renewal)


def climb(
    plan: Plan, proposal: Proposal, values: Float[Array, " J"] | None, totals: DataTotals, limits: Limits
) -> Proposal:
    """Finish the M half-step of the gradient route: take the best candidate, if any is better than staying.

    The ``values`` of the candidates are None where the maximum has a closed form.
    """
    if values is None:
        params, gain = grow(plan, proposal.state.ascent, proposal.state.params)
        climbing = proposal.state.ascent
    else:
        tried, pace = Tried(proposal.candidates, values), Pace(proposal.state.rise, proposal.state.step)
        params, climbing, gain = select(plan, proposal.state.ascent, proposal.state.params, tried, pace, totals)
    climbing = climbing._replace(stale=climbing.stale | proposal.renewal)
    last = proposal.state.last + gain
    progress = proposal.progress._replace(lasts=(last, proposal.progress.lasts[1]), params=params)
    natural, log_prior = plan.evaluated(params, totals.shifts)
    state = proposal.state._replace(
        params=params,
        natural=natural,
        log_prior=log_prior,
        ascent=climbing,
        last=last,
        settled=jnp.where(proposal.state.code == RUNNING, limits.rule.after(progress), proposal.state.settled),
    )
    before, raised = proposal.record.expectation, proposal.record.maximization
    raised = raised._replace(elbo=raised.elbo + gain, expected_log_joint=raised.expected_log_joint + gain)
    return proposal._replace(state=state, record=Record.of(before, raised, proposal.record.moved))


#: What the rows keep from one E half-step to the next, block by block.
RowMemories = Sequence[RowMemory]


def step(
    data_pass: Pass, state: State, memory: RowMemories, initial: InitialQ | None, limits: Limits
) -> tuple[State, RowMemories, Record]:
    """One iteration. An ``initial`` q replaces that of the family in the E half-step: how a fit starts from labels."""
    plan, totals, call = data_pass.plan, data_pass.totals, data_pass.call
    # F that a fit ends with has no chance in it.
    projects = state.settled | (state.step + 1 >= limits.max_steps) if plan.is_stochastic else None
    summary, after = visit(data_pass, state, memory, initial, projects)
    e_step, beside = state.e_step(initial, projects), _beside(memory, initial)
    given = summary
    if plan.fills_empty:
        worst, wanted = call(no_worst, 0)(plan, summary)
        worst, _ = data_pass.reduce(WORST, worst, (summary, e_step), _beside(memory, None), wanted)
        given = call(filled, 0, 0)(plan, summary, worst)
    curvature, values = None, None
    climbs = bool(plan.gradient) and not plan.gradient_is_multinomial
    if climbs:
        curvature, wanted, where = call(_no_curvature, 0, 0, None)(plan, state, summary, totals)
        curvature, _ = data_pass.reduce(CURVED, curvature, e_step._replace(at=where), beside, wanted)
    proposal = call(update, 0, 0, None, None)(plan, state, PassSums(summary, given, curvature), totals, limits)
    if climbs:
        values = call(_zero_values, 0)(plan, proposal)
        raised = e_step._replace(at=proposal.state.at)
        values, _ = data_pass.reduce(VALUED, values, (proposal.candidates, raised), beside)
    if plan.gradient:
        proposal = call(climb, 0, 0, None, None)(plan, proposal, values, totals, limits)
    return proposal.state, after, proposal.record


def visit(
    data_pass: Pass,
    state: State,
    memory: RowMemories,
    initial: InitialQ | None,
    projects: Bool[Array, ""] | None = None,
) -> tuple[Summary, RowMemories]:
    """The E half-step: the sums over all rows, and what the rows keep."""
    zero = data_pass.call(_zero, 0)(data_pass.plan, state)
    return data_pass.reduce(ACCUMULATED, zero, state.e_step(initial, projects), _beside(memory, initial))


def no_memory(data_pass: Pass) -> RowMemories:
    """What the rows keep before the first E half-step."""
    blank = blank_memory(data_pass.plan, data_pass.block_rows)
    if data_pass.restarts > 1:
        blank = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (data_pass.restarts, *leaf.shape)), blank)
    return (blank,) * len(data_pass.blocks)


def _beside(memory: RowMemories, initial: InitialQ | None) -> list[RowState]:
    """What belongs to the rows, block by block."""
    q = [None] * len(memory) if initial is None else initial.q
    return [RowState(*pair) for pair in zip(memory, q, strict=True)]


def _zero(plan: Plan, state: State) -> Summary:
    """An empty summary, to which blocks are added."""
    return zero_summary(plan, state.ascent.point.shape[0])


def _no_curvature(
    plan: Plan, state: State, summary: Summary, totals: DataTotals
) -> tuple[Curvature, Bool[Array, ""], At]:
    """The sums over no rows, whether there is need of those over all, and where: they make up for a lost gradient, and
    look across a corner.
    """
    across = looks_across(state.ascent, state.rise, summary.gradient)
    wanted = state.ascent.stale | across | ~is_finite(summary.gradient)
    there = beyond(plan, state.ascent, state.params, fewest(summary.counts))
    params = jax.tree.map(lambda new, old: jnp.where(across, new, old), there, state.params)
    at = At(params, natural_parameters(plan, params, totals))
    return no_curvature(plan, state.ascent.point.shape[0]), wanted, at


def _zero_values(plan: Plan, proposal: Proposal) -> Float[Array, " J"]:
    return jnp.zeros(proposal.candidates.shape[0], plan.dtype)


# Nats a row that may be left to gain under a q that is given for a start.
INITIAL_TOLERANCE = 1e-6
