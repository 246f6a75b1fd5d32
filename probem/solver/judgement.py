"""What an iteration is judged by: the bound before and after the M half-step, and how a fit has ended."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.e_step.bound import Bound, assemble
from probem.e_step.summary import Summary, all_statistics
from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals, Statistics, expected, widened
from probem.m_step.digits import has_lost_slopes
from probem.m_step.maximise import collapsed, maximise
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.result import CODE, RUNNING, Result
from probem.solver.state import Limits, State
from probem.stopping import ROUNDINGS


class Judged(NamedTuple):
    """The E half-step: its ``statistics``, ``bound`` and ``objective``, how far that may fall by rounding alone (the
    ``allowance``), and whether it ``fell`` by more, which no q that is drawn does. Nats, total. A spread that is
    widened is not at its maximum, and the M half-step not ``is_exact``: then a fall is no fault.
    """

    statistics: Statistics
    bound: Bound
    objective: Float[Array, ""]
    allowance: Float[Array, ""]
    fell: Bool[Array, ""]
    is_exact: bool

    @property
    def good(self) -> Bool[Array, ""]:
        """Whether the parameters that were evaluated are better than those before."""
        return jnp.isfinite(self.objective) & ~self.fell


class Maximised(NamedTuple):
    """The M half-step: its parameters, the ``bound`` and ``objective`` under the q of the E half-step (nats, total),
    the components whose density is ``broken`` there, and whether least squares have ``lost`` a slope.
    """

    params: Params
    natural: NaturalParameters
    log_prior: Float[Array, ""]
    bound: Bound
    objective: Float[Array, ""]
    broken: Bool[Array, " K"]
    lost: Bool[Array, ""]


class Ending(NamedTuple):
    """What speaks for an end, beside the bound: the rule has ``converged``, the gradient is ``lost``, no direction
    helps (``stuck``), and the components whose density grows without limit (``steep``).
    """

    converged: Bool[Array, ""]
    lost: Bool[Array, ""]
    stuck: Bool[Array, ""]
    steep: Bool[Array, " K"]


def judge(plan: Plan, state: State, summary: Summary, totals: DataTotals) -> Judged:
    """The bound of the state, by the sums over the rows."""
    statistics = all_statistics(plan, summary, totals)
    unknown = jnp.full((), jnp.nan, plan.dtype)
    gap = summary.gap if plan.record_gap or plan.is_always_exact else unknown
    bound = _bound(summary, totals, expected(state.natural, statistics), state.log_prior, gap)
    objective = _objective(plan, bound)
    allowance = _rounding(plan, state.natural, statistics, bound, totals)
    is_exact = totals.added_variance is None
    fell = (objective < state.last - allowance) & (is_exact and not plan.is_stochastic) & is_final(plan, state)
    return Judged(statistics, bound, objective, allowance, fell, is_exact)


def is_final(plan: Plan, state: State) -> Bool[Array, ""]:
    """Whether this E half-step was made as the one before it, and as all that follow."""
    before = jnp.maximum(state.step - 1, 0)
    return jnp.asarray(plan.family.is_final(state.step)) & plan.family.is_final(before)


def maximised(plan: Plan, state: State, summary: Summary, totals: DataTotals) -> Maximised:
    """The parameters after the M half-step of the closed and numeric routes, and the bound there."""
    statistics = all_statistics(plan, summary, totals)
    params = maximise(plan, widened(plan.form, statistics, totals.added_variance), state.params)
    natural, log_prior = plan.evaluated(params, totals.shifts)
    unknown = jnp.full((), jnp.nan, plan.dtype)
    bound = _bound(summary, totals, expected(natural, statistics), log_prior, unknown)
    broken = broken_components(plan, statistics, params, natural, None)
    lost = has_lost_slopes(plan, statistics) if plan.form.predicted else jnp.zeros((), bool)
    return Maximised(params, natural, log_prior, bound, _objective(plan, bound), broken, lost)


def broken_components(
    plan: Plan, statistics: Statistics, params: Params, natural: NaturalParameters, faint: Bool[Array, " K"] | None
) -> Bool[Array, " K"]:
    """Which components have a density that collapsed, or is no number where there are rows.

    Of those that are ``faint``, with next to no rows, a collapse says nothing.
    """
    undefined = jnp.isnan(natural.weight).any(1) | jnp.isnan(natural.offset)
    broken = undefined & (statistics.counts > 0)
    if not plan.spreads:
        return broken
    fallen = collapsed(plan, statistics, params)
    return broken | (fallen if faint is None else fallen & ~faint)


def verdict(
    plan: Plan, state: State, judged: Judged, raised: Maximised, ending: Ending, limits: Limits
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The code of what an iteration ends with, and the component that it is about."""
    broken, steep, good = raised.broken, ending.steep, judged.good
    code = jnp.asarray(RUNNING, jnp.int32)
    for condition, result in (
        ((raised.objective < judged.objective - judged.allowance) & judged.is_exact, Result.BOUND_FELL),
        (~jnp.isfinite(raised.objective), Result.NON_FINITE),
        (broken.any(), Result.SINGULAR if plan.spreads else Result.NON_FINITE),
        (ending.lost, Result.NON_FINITE),
        (state.step + 1 >= limits.max_steps, Result.STEP_LIMIT),
        (ending.stuck & good, Result.NOT_STATIONARY),
        (steep.any(), Result.SINGULAR),
        (ending.converged & good & ~(broken | steep).any(), Result.CONVERGED),
        # A slope that was lost on the way led elsewhere; of one that is lost in the end, the rows say more.
        (ending.converged & good & state.lost & ~raised.lost, Result.UNRESOLVED),
        (judged.fell, Result.BOUND_FELL),
        (~jnp.isfinite(judged.objective), Result.NON_FINITE),
    ):
        code = jnp.where(condition, CODE[result], code)
    # Without a prior, nothing says where the parameters of an empty component should be.
    empty = (judged.statistics.counts <= 0) & (not plan.has_priors)
    code = jnp.where((code == CODE[Result.CONVERGED]) & empty.any(), CODE[Result.EMPTY_COMPONENT], code)
    component = jnp.where(code == CODE[Result.EMPTY_COMPONENT], jnp.argmax(empty), jnp.argmax(broken | steep))
    return code.astype(jnp.int32), component.astype(jnp.int32)


def _bound(
    summary: Summary, totals: DataTotals, inner: Float[Array, ""], log_prior: Float[Array, ""], gap: Float[Array, ""]
) -> Bound:
    expectation = inner + totals.log_base_measure.sum() + summary.generic.sum()
    return assemble(expectation + summary.filled, summary.entropy, log_prior, gap)


def _objective(plan: Plan, bound: Bound) -> Float[Array, ""]:
    """What the family of the assignments maximises."""
    return bound.elbo + (plan.family.entropy_weight - 1.0) * bound.entropy


def _rounding(
    plan: Plan, natural: NaturalParameters, statistics: Statistics, bound: Bound, totals: DataTotals
) -> Float[Array, ""]:
    """How far the objective may fall by rounding alone: the precision times the size of the terms that cancel in it."""
    size = (
        jnp.where(statistics.sums == 0, 0.0, jnp.abs(natural.weight * statistics.sums)).sum()
        + jnp.where(statistics.counts > 0, jnp.abs(natural.offset) * statistics.counts, 0.0).sum()
    )
    size = size + jnp.abs(natural.level) * statistics.counts.sum()
    size = size + jnp.abs(totals.log_base_measure).sum() + jnp.abs(bound.entropy) + jnp.abs(bound.elbo)
    size = size + jnp.abs(bound.log_prior)
    return ROUNDINGS * jnp.finfo(plan.dtype).eps * jnp.where(jnp.isfinite(size), size, 0.0)
