"""The one loop: E half-step, M half-step, terminate; the same for every program and family.

Data in few blocks is looped over inside one compiled function, some steps at a time, so that the host can show
progress and answer Ctrl-C. Data in many takes the same step from the host, call by call.
"""

import enum
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import ascent
from .bound import Bound, assemble
from .calls import Call, inline
from .compiled import by_plan
from .data import Block
from .expectation import (
    Curvature,
    Held,
    Prepared,
    Summary,
    accumulate,
    accumulate_candidates,
    accumulate_curvature,
    is_finite,
    linear,
    no_curvature,
    statistics,
    zero_summary,
)
from .linear import Linear
from .maximization import Statistics, collapsed, expected, maximise, widened
from .program import Params
from .relocation import add_worst, filled, no_worst
from .stopping import Progress, Stopping, expected_rise

if TYPE_CHECKING:
    from .plan import Plan


class Result(enum.Enum):
    """How a fit ended; the values are the messages."""

    CONVERGED = "converged: no row moved, or the bound rises by less than the tolerance"
    STEP_LIMIT = "the step limit was reached before the bound settled"
    BOUND_FELL = "the bound fell by more than rounding explains"
    NON_FINITE = "the bound or a parameter is not finite"
    SINGULAR = "the spread of a component collapsed, and the likelihood grows without limit"
    EMPTY_COMPONENT = "converged, with a component that no row belongs to"
    INTERRUPTED = "interrupted; this is the best state so far"
    NOT_STATIONARY = "the bound no longer rises, but its slope promises more than the tolerance"
    SADDLE = "a saddle of the bound: components that are one, or nearly, and F rises once they are moved apart"
    NOT_CONJUGATE = "a density does not depend on the parameters where they were fitted as it does elsewhere"


#: Codes inside compiled code; RUNNING is not a result.
RUNNING = -1
RESULTS = tuple(Result)
_CODE = {result: code for code, result in enumerate(RESULTS)}


class Limits(NamedTuple):
    """When to stop: the rule of convergence, and the number of steps.

    While ``is_held``, a q that is held for a start, the rule is not asked.
    """

    rule: Stopping
    max_steps: Array
    is_held: Any = np.asarray(False)


class State(NamedTuple):
    """What one step hands to the next.

    ``params``, their ``linear`` form and ``log_prior`` are about to be evaluated; ``best`` is the last that was, and
    ``bound``, ``objective``, ``counts`` [K], ``sums`` [K, S] and ``noise`` [K] belong to it, and so does ``promised``,
    how much the objective is expected to rise from there; ``rise`` is that of the step which led there. ``last`` is the
    objective after the last half-step. ``settled``: the rule of convergence was met by the step that made ``params``.
    """

    params: Params
    linear: Linear
    log_prior: Array
    ascent: ascent.Ascent
    best: Params
    bound: Bound
    objective: Array
    rise: Array
    promised: Array
    counts: Array
    sums: Array
    noise: Array
    last: Array
    settled: Array
    code: Array
    component: Array
    step: Array


class Record(NamedTuple):
    """One step for the history: both half-steps' bounds, and the rows that moved (-1: not a point mass)."""

    expectation: Bound
    maximization: Bound
    moved: Any


class Proposal(NamedTuple):
    """A step between its maximisations: the next state but for the gradient route, and what that route needs."""

    state: State
    record: Record
    candidates: Array
    progress: Progress
    renewal: Any = False


def start(plan: "Plan", params: Params, prepared: Prepared) -> State:
    """The state in which these parameters are about to be evaluated for the first time."""
    infinite = jnp.full((), -jnp.inf, plan.dtype)
    unknown = jnp.full((), jnp.nan, plan.dtype)
    params = jax.tree.map(lambda value: jnp.asarray(value, plan.dtype), params)
    return State(
        params=params,
        linear=linear(plan, params, prepared),
        log_prior=plan.log_prior(params),
        ascent=ascent.start(plan, params, prepared),
        best=params,
        bound=Bound(unknown, unknown, unknown, unknown, unknown),
        objective=infinite,
        rise=-infinite,
        promised=-infinite,
        counts=jnp.zeros(plan.num_components, plan.dtype),
        sums=jnp.zeros((plan.num_components, plan.form.num_columns), plan.dtype),
        noise=jnp.zeros(plan.num_components if plan.form.generic else 0, plan.dtype),
        last=infinite,
        settled=jnp.zeros((), bool),
        code=jnp.asarray(RUNNING, jnp.int32),
        component=jnp.asarray(-1, jnp.int32),
        step=jnp.asarray(0, jnp.int32),
    )


def update(
    plan: "Plan",
    state: State,
    summary: Summary,
    given: Summary,
    curvature: Curvature | None,
    prepared: Prepared,
    limits: Limits,
) -> Proposal:
    """Judge the E half-step by its ``summary``, then maximise over the parameters of the closed and numeric routes.

    The M half-step is ``given`` the same sums, but for rows that were moved to empty components; the gradient route has
    the ``curvature`` as well.
    """
    stats = statistics(plan, summary, prepared)
    seen = statistics(plan, given, prepared)
    entropy_weight = plan.family.entropy_weight

    def bound_at(lin: Linear, stats: Statistics, log_prior: Array, gap: Array) -> Bound:
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
    lin, log_prior = linear(plan, params, prepared), plan.log_prior(params)
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
        climbing = ascent.look(plan, state.ascent, params, summary, stats, curvature, state.rise)
        allowed = limits.rule.promise(prepared.total_weight) + allowance
        if not plan.gradient_is_multinomial:
            soon = jnp.where(limits.is_held, _HELD_TOLERANCE * prepared.total_weight, allowed)
            renewal = (small_rise | limits.is_held) & ascent.asks_for_curvature(climbing, soon, state.step)
            stuck = small_rise & ascent.is_stuck(climbing)
        small_rise = small_rise & ascent.is_settled(climbing, allowed, allowance)
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
        code = jnp.where(condition, _CODE[result], code)
    # Without a prior, nothing says where the parameters of an empty component should be.
    empty = (stats.counts <= 0) & (not plan.has_priors)
    code = jnp.where((code == _CODE[Result.CONVERGED]) & empty.any(), _CODE[Result.EMPTY_COMPONENT], code)
    component = jnp.where(code == _CODE[Result.EMPTY_COMPONENT], jnp.argmax(empty), jnp.argmax(broken | steep)).astype(
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
    candidates = ascent.propose(plan, climbing, params, ascent.fewest(summary.counts))
    return Proposal(following, record, candidates, progress, renewal)


def climb(plan: "Plan", proposal: Proposal, values: Array | None, prepared: Prepared, limits: Limits) -> Proposal:
    """Finish the M half-step of the gradient route: take the best candidate, if any is better than staying.

    The ``values`` of the candidates are None where the maximum has a closed form.
    """
    if values is None:
        params, gain = ascent.grow(plan, proposal.state.ascent, proposal.state.params)
        climbing = proposal.state.ascent
    else:
        tried, pace = ascent.Tried(proposal.candidates, values), ascent.Pace(proposal.state.rise, proposal.state.step)
        params, climbing, gain = ascent.select(
            plan, proposal.state.ascent, proposal.state.params, tried, pace, prepared
        )
    climbing = climbing._replace(stale=climbing.stale | proposal.renewal)
    last = proposal.state.last + gain
    progress = proposal.progress._replace(lasts=(last, proposal.progress.lasts[1]), params=params)
    state = proposal.state._replace(
        params=params,
        linear=linear(plan, params, prepared),
        log_prior=plan.log_prior(params),
        ascent=climbing,
        last=last,
        settled=jnp.where(proposal.state.code == RUNNING, limits.rule.after(progress), proposal.state.settled),
    )
    raised = proposal.record.maximization
    raised = raised._replace(elbo=raised.elbo + gain, expected_log_joint=raised.expected_log_joint + gain)
    return proposal._replace(state=state, record=proposal.record._replace(maximization=raised))


def _rounding(plan: "Plan", lin: Linear, stats: Any, bound: Bound, prepared: Prepared) -> Array:
    """How far the objective may fall by rounding alone: the precision times the size of the terms that cancel in it."""
    size = (
        jnp.where(stats.sums == 0, 0.0, jnp.abs(lin.weight * stats.sums)).sum()
        + jnp.where(stats.counts > 0, jnp.abs(lin.offset) * stats.counts, 0.0).sum()
    )
    size = size + jnp.abs(lin.level) * stats.counts.sum()
    size = size + jnp.abs(prepared.log_base_measure).sum() + jnp.abs(bound.entropy) + jnp.abs(bound.elbo)
    size = size + jnp.abs(bound.log_prior)
    return 64 * jnp.finfo(plan.dtype).eps * jnp.where(jnp.isfinite(size), size, 0.0)


def step(
    plan: "Plan",
    state: State,
    labels: Sequence[Array],
    held: Sequence[Held] | None,
    prepared: Prepared,
    blocks: Sequence[Block],
    limits: Limits,
    call: Call,
) -> tuple[State, tuple[Array, ...], Record]:
    """One iteration. ``call`` runs a part of it: as it is inside a trace, compiled by itself from the host.

    ``held`` replaces the E half-step's projection by a given q, block by block: how a fit starts from labels.
    """
    summary, moved = visit(plan, state, labels, held, prepared, blocks, call)
    given = summary
    if plan.family.fills_empty:
        worst = call(no_worst, 0)(plan, summary)
        for block in blocks:
            worst = call(add_worst, 0, 0, 0, 0, None, None)(
                plan, worst, summary, state.params, state.linear, prepared, block
            )
        given = call(filled, 0, 0)(plan, summary, worst)
    curvature, values = None, None
    climbs = bool(plan.gradient) and not plan.gradient_is_multinomial
    if climbs:
        curvature, wanted, where = call(_no_curvature, 0, 0, None)(plan, state, summary, prepared)
        for block, own in zip(blocks, [None] * len(blocks) if held is None else held, strict=True):
            curvature = call(accumulate_curvature, 0, 0, 0, 0, None, None, 0)(
                plan, curvature, wanted, *where, prepared, block, own
            )
    proposal = call(update, 0, 0, 0, 0, None, None)(plan, state, summary, given, curvature, prepared, limits)
    if climbs:
        values = call(_zero_values, 0)(plan, proposal)
        for block, own in zip(blocks, [None] * len(blocks) if held is None else held, strict=True):
            values = call(accumulate_candidates, 0, 0, 0, 0, None, None, 0)(
                plan, values, proposal.candidates, proposal.state.params, proposal.state.linear, prepared, block, own
            )
    if plan.gradient:
        proposal = call(climb, 0, 0, None, None)(plan, proposal, values, prepared, limits)
    return proposal.state, moved, proposal.record


def visit(
    plan: "Plan",
    state: State,
    labels: Sequence[Array],
    held: Sequence[Held] | None,
    prepared: Prepared,
    blocks: Sequence[Block],
    call: Call,
) -> tuple[Summary, tuple[Array, ...]]:
    """The E half-step over all blocks, as many in one call as the plan wants abreast: the sums, and the labels."""
    summary = call(_zero, 0)(plan, state)
    moved: list[Array] = []
    # Restarts fill the machine by themselves, and the memory as well.
    abreast = plan.cut(blocks[0].size).abreast if state.code.ndim == 0 else 1
    first = 0
    while first < len(blocks):
        # What is left over goes one by one, so that the number of blocks compiles nothing new.
        these = slice(first, first + (abreast if first + abreast <= len(blocks) else 1))
        summary, after = call(accumulate, 0, 0, 0, 0, None, None, 0)(
            plan,
            summary,
            tuple(labels[these]),
            state.params,
            state.linear,
            prepared,
            tuple(blocks[these]),
            None if held is None else tuple(held[these]),
        )
        moved.extend(after)
        first = these.stop
    return summary, tuple(moved)


def _zero(plan: "Plan", state: State) -> Summary:
    """An empty summary, to which blocks are added."""
    return zero_summary(plan, state.ascent.point.shape[0])


def _no_curvature(
    plan: "Plan", state: State, summary: Summary, prepared: Prepared
) -> tuple[Curvature, Array, tuple[Params, Linear]]:
    """The sums over no rows, whether there is need of those over all, and where: they make up for a lost gradient, and
    look across a corner.
    """
    across = ascent.looks_across(state.ascent, state.rise, summary.gradient)
    wanted = state.ascent.stale | across | ~is_finite(summary.gradient)
    there = ascent.beyond(plan, state.ascent, state.params, ascent.fewest(summary.counts))
    params = jax.tree.map(lambda new, old: jnp.where(across, new, old), there, state.params)
    return no_curvature(plan, state.ascent.point.shape[0]), wanted, (params, linear(plan, params, prepared))


def _zero_values(plan: "Plan", proposal: Proposal) -> Array:
    return jnp.zeros(proposal.candidates.shape[0], plan.dtype)


# Nats a row that may be left to gain under a q that is held for a start.
_HELD_TOLERANCE = 1e-6

#: Steps that one call of the compiled loop can record.
CALL_STEPS = 32

# State, labels, records, and the number of steps made.
_Made = tuple[State, tuple[Array, ...], Record, Array]


def run(
    plan: "Plan",
    state: State,
    labels: Sequence[Array],
    prepared: Prepared,
    blocks: Sequence[Block],
    limits: Limits,
    num_steps: Array | int,
    held: Sequence[Held] | None,
) -> tuple[State, tuple[Array, ...], Record]:
    """Up to ``num_steps`` (at most ``CALL_STEPS``) steps over a few blocks of data, as one compiled loop.

    Returns the state, the labels, and the records of the steps made, ``[CALL_STEPS]`` each.
    """
    blank = Bound(*[jnp.full(CALL_STEPS, jnp.nan, plan.dtype)] * len(Bound._fields))
    records = Record(blank, blank, jnp.full(CALL_STEPS, -1, jnp.int32))

    def unfinished(now: _Made) -> Array:
        return goes_on(now[0], prepared, limits) & (now[3] < num_steps)

    def body(now: _Made) -> _Made:
        state, labels, records, made = now
        state, labels, record = step(plan, state, labels, held, prepared, blocks, limits, inline)
        records = jax.tree.map(lambda all, one: all.at[made].set(one), records, record)
        return state, labels, records, made + 1

    state, after, records, _ = jax.lax.while_loop(unfinished, body, (state, tuple(labels), records, jnp.asarray(0)))
    return state, after, records


def run_to_end(
    plan: "Plan", state: State, labels: Array, prepared: Prepared, block: Block, limits: Limits
) -> tuple[State, Array]:
    """Steps until the state is terminal, under a trace, without a history."""

    def body(carry: tuple[State, Array]) -> tuple[State, Array]:
        state, (labels,), _ = step(plan, carry[0], (carry[1],), None, prepared, (block,), limits, inline)
        return state, labels

    return jax.lax.while_loop(lambda carry: carry[0].code == RUNNING, body, (state, labels))


def goes_on(state: State, prepared: Prepared, limits: Limits) -> Array:
    """Whether the rule and what may go wrong ask for another step; under a q that is held, whether there is more than
    little to gain from it.
    """
    allowed = _HELD_TOLERANCE * prepared.total_weight
    short = ~ascent.is_settled(state.ascent, allowed, allowed)
    return jnp.where(limits.is_held, short, state.code == RUNNING)


def no_labels(plan: "Plan", size: int, restarts: int = 1) -> Array:
    """No row of a block belongs anywhere yet. A q that is not a point mass has no labels to compare."""
    count = size if plan.is_point else 0
    return jnp.full((restarts, count) if restarts > 1 else (count,), -1, jnp.int32)


#: ``run_to_end``, compiled.
compiled_run_to_end = by_plan(run_to_end)


@functools.cache
def compiled_run(batched: bool) -> Callable[..., Any]:
    """``run``, compiled; over restarts if ``batched``."""

    def mapped(plan: "Plan", *arguments: Any) -> Any:
        own = functools.partial(run, plan)
        return (jax.vmap(own, in_axes=(0, 0, None, None, None, None, 0)) if batched else own)(*arguments)

    return by_plan(mapped)
