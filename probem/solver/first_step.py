"""The first M half-step, in which no probability of zero is absorbing."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.e_step.summary import Summary, all_statistics
from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals, Statistics, widened
from probem.m_step.digits import has_lost_slopes
from probem.m_step.maximise import collapsed, maximise
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.result import RESULTS, RUNNING, Result
from probem.solver.seed_order import maximised_in_best_order, value_of
from probem.solver.softening import soften_counts, soften_zeros
from probem.solver.state import State, initial_state


def first_update(plan: Plan, state: State, summary: Summary, totals: DataTotals, given: Params | None) -> State:
    """The state after the M-step under the q that was given."""
    stats = soften_zeros(plan, all_statistics(plan, summary, totals))
    return _started(plan, _m_step(plan, stats, state, totals, given), stats, totals)


def softened_update(plan: Plan, state: State, summary: Summary, totals: DataTotals, given: Params | None) -> State:
    """The state after the M-step under a q of seeds: where a component has too few rows for a spread, every component
    gets some of all rows.
    """
    stats = soften_zeros(plan, all_statistics(plan, summary, totals))
    params, stats = _softly(plan, stats, state, totals, given)
    return _started(plan, params, stats, totals)


def ordered_update(plan: Plan, state: State, summary: Summary, totals: DataTotals, given: Params | None) -> State:
    """The state after the M-step under a q of seeds, given to the components in the order with the highest F."""
    stats = soften_zeros(plan, all_statistics(plan, summary, totals))
    softly = functools.partial(_softly, plan, state=state, totals=totals, given=given)
    made = maximised_in_best_order(plan, stats, totals, softly)
    return _started(plan, made.params, made.statistics, totals, made.evaluated)


def value_under(plan: Plan, state: State, summary: Summary, totals: DataTotals) -> Float[Array, ""]:
    """F under the q of the summary, but for what does not depend on the order of the components."""
    return value_of(state.natural, state.log_prior, all_statistics(plan, summary, totals)) + summary.generic.sum()


def _softly(
    plan: Plan, stats: Statistics, state: State, totals: DataTotals, given: Params | None
) -> tuple[Params, Statistics]:
    """Parameters, and the statistics that they were made of."""
    if not plan.spreads:
        return _m_step(plan, stats, state, totals, given), stats
    softened = soften_counts(plan, stats, totals.total_weight)
    # One after the other, and compiled once.
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), stats, softened)
    made = jax.lax.map(lambda stats: _m_step(plan, stats, state, totals, given), both)
    broken = collapsed(plan, stats, jax.tree.map(lambda leaf: leaf[0], made)).any()
    return jax.tree.map(lambda leaf: leaf[broken.astype(int)], (made, both))


def _m_step(plan: Plan, stats: Statistics, state: State, totals: DataTotals, given: Params | None) -> Params:
    params = maximise(plan, widened(plan.form, stats, totals.added_variance), state.params)
    return {**params, **(given or {})}


def _started(
    plan: Plan,
    params: Params,
    stats: Statistics,
    totals: DataTotals,
    evaluated: tuple[NaturalParameters, Float[Array, ""]] | None = None,
) -> State:
    broken = collapsed(plan, stats, params) if plan.spreads else jnp.zeros(plan.num_components, bool)
    fresh = initial_state(plan, params, totals, evaluated)
    singular = broken.any() & (fresh.code == RUNNING)
    code = jnp.where(singular, RESULTS.index(Result.SINGULAR), fresh.code).astype(jnp.int32)
    lost = has_lost_slopes(plan, stats) if plan.form.predicted else fresh.lost
    return fresh._replace(code=code, component=jnp.argmax(broken).astype(jnp.int32), lost=lost)
