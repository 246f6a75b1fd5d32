"""How a fit may end badly: what outranks what, what is said of it, and the remedy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.analysis.violations import conjugacy_violation, violated_at_centre
from probem.errors import FitError
from probem.form.statistics import DataTotals, Statistics
from probem.jit.compilation import by_plan
from probem.m_step.digits import coefficients_with_posterior, has_cancelled, has_lost_slopes
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.fit import Fit
from probem.solver.result import RESULTS, RUNNING, Result
from probem.solver.state import State

#: Results after which another restart is preferred, whatever its bound.
FAILURES = (Result.BOUND_FELL, Result.NON_FINITE, Result.SINGULAR)
#: What to do about each, in words.
REMEDIES = {
    Result.STEP_LIMIT: "raise max_steps, or the tolerance, or take the fit as it is with throw=False",
    Result.BOUND_FELL: "use float64 (jax_enable_x64), standardise the data, and report the program if it persists",
    Result.NON_FINITE: (
        "check that the distributions allow every value of the data, start elsewhere (key=, init=, restarts=),"
        " or use float64"
    ),
    Result.SINGULAR: (
        "use fewer components, a tied, diagonal or shared spread, a prior on it (a sample site with family Delta is"
        " fitted by MAP), added_variance=, or another start (key=, init=, restarts=)"
    ),
    Result.EMPTY_COMPONENT: (
        "use fewer components, another start (key=, init=, restarts=), or take the fit as it is with throw=False"
    ),
    Result.NOT_STATIONARY: (
        "start elsewhere (key=, init=, restarts=), use float64, or write the program so that the parameter reaches its"
        " distribution in fewer steps"
    ),
    Result.SADDLE: "start elsewhere (key=, init=, restarts=), where no two components are the same, or with fewer",
    Result.UNRESOLVED: (
        "centre and scale the covariates, leave out what nearly follows from others, or use float64 (jax_enable_x64)"
    ),
    Result.NOT_CONJUGATE: (
        "write it without (a value that is clipped, a small number that is added to one), or draw it by NUTS from"
        " probem.marginalize(program)"
    ),
}


def best_restart(
    codes: Int[np.ndarray, "*batch R"], objective: Float[np.ndarray, "*batch R"]
) -> Int[np.ndarray, "*batch"]:
    """Along the last axis: one that ended well before any that failed, and among them the highest objective."""
    failed = np.isin(codes, [RESULTS.index(result) for result in FAILURES])
    return np.lexsort((objective, ~failed))[..., -1]


def judged(fit: Fit) -> Fit:
    """The fit, with a result of its own if it ended by itself at posteriors that are not those of the program."""
    if fit.result in (None, Result.INTERRUPTED):
        return fit
    plan, totals = fit.plan, fit.totals
    assert plan is not None
    if plan.form.predicted and plan.families.conjugate and totals is not None:
        statistics = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), totals.shifts)
        if bool(has_cancelled_for(plan, fit.variational, statistics)):
            return dataclasses.replace(fit, result=Result.UNRESOLVED)
    return fit if _contradicted(fit) is None else dataclasses.replace(fit, result=Result.NOT_CONJUGATE)


#: ``has_cancelled`` and ``has_lost_slopes``, compiled; and for many fits, with a leading axis.
has_cancelled_for = by_plan(has_cancelled, foreign=True)
has_lost_slopes_for = by_plan(has_lost_slopes)


@functools.partial(by_plan, foreign=True)
def have_cancelled(plan: Plan, params: Params, statistics: Statistics) -> Bool[Array, " B"]:
    """``has_cancelled`` of many fits, with a leading axis."""
    return jax.vmap(functools.partial(has_cancelled, plan))(params, statistics)


@by_plan
def have_lost_slopes(plan: Plan, statistics: Statistics) -> Bool[Array, " B"]:
    """``has_lost_slopes`` of many fits, with a leading axis."""
    return jax.vmap(functools.partial(has_lost_slopes, plan))(statistics)


def needs_no_prior(fit: Fit) -> bool:
    """Whether a fit ended at points that are not conjugate: they are maximised numerically instead."""
    assert fit.plan is not None
    return fit.result is Result.NOT_CONJUGATE and not fit.plan.families.conjugate


@functools.partial(by_plan, foreign=True)
def judged_code(plan: Plan, state: State, totals: DataTotals) -> Int[Array, ""]:
    """The code of a terminal state, inside a trace, as ``judged`` has it, but by the mean of q alone; that linear
    predictors are unresolved is said of points as well, since nothing else comes after.
    """
    code, finite = state.code, jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state.best)]).all()
    if plan.mean_field.sites:
        broken = violated_at_centre(plan.mean_field, state.best) & finite
        code = jnp.where(broken, RESULTS.index(Result.NOT_CONJUGATE), code)
    if plan.form.predicted:
        cancelled = has_cancelled(plan, state.best, Statistics(state.counts, state.sums, totals.shifts)) & finite
        cancelled = cancelled & (state.code != RUNNING) & (state.code != RESULTS.index(Result.SINGULAR))
        code = jnp.where(cancelled, RESULTS.index(Result.UNRESOLVED), code)
    return code.astype(state.code.dtype)


def throw(fit: Fit) -> None:
    """Raise a ``FitError`` that names site, component and remedy, unless the fit ended well."""
    if fit.result in (Result.CONVERGED, Result.INTERRUPTED) or fit.result is None:
        return
    plan, where = fit.plan, ""
    assert plan is not None
    if fit.result in (Result.SINGULAR, Result.EMPTY_COMPONENT):
        sites = (
            (*plan.spreads, *plan.continuous)
            if fit.result is Result.SINGULAR
            else [site.name for site in plan.program.assignments]
        )
        named = ", ".join(f"'{site}'" for site in sites)
        where = f" (component {fit.component} of site {named})"
    if fit.result is Result.SADDLE:
        alike = " and ".join(map(str, sorted({component for pair in fit.twins for component in pair})))
        named = ", ".join(f"'{site.name}'" for site in plan.program.assignments)
        rising = "F" if plan.family.entropy_weight == 1.0 else f"the objective of {type(plan.family).__name__}"
        where = f" (components {alike} of site {named}; {rising} rises by at least {fit.promised:.3g} nats)"
    if fit.result is Result.NOT_STATIONARY:
        named = ", ".join(f"'{name}'" for name in (*plan.numeric, *plan.gradient))
        where = f" (site {named}; {fit.promised:.3g} nats are promised)"
    if fit.result is Result.NOT_CONJUGATE:
        where = f" (site '{_contradicted(fit)}')"
    if fit.result is Result.UNRESOLVED:
        named = ", ".join(f"'{name}'" for name in sorted(coefficients_with_posterior(plan)))
        where = f" (site {named})" if named else ""
    if fit.result is Result.STEP_LIMIT and np.isfinite(fit.promised):
        where = f" (about {fit.promised:.2g} nats are still to come)"
    when = f"after {fit.num_steps} steps, F = {fit.elbo:.8g} nats" if fit.num_steps else "at the start"
    raise FitError(
        f"{fit.result.value}{where} {when}; {REMEDIES[fit.result]}. The last good state is in the error's .fit.", fit
    )


def _contradicted(fit: Fit) -> str | None:
    assert fit.plan is not None
    # What is not finite is a result already.
    finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fit.variational))
    return conjugacy_violation(fit.plan.mean_field, fit.variational) if finite else None
