"""Whether sums of products have lost what the rows still show of a linear predictor."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from probem.data.checks import check_data
from probem.form.sites import ExponentialSite
from probem.form.statistics import Statistics, mean_statistics
from probem.jit.compilation import by_plan
from probem.m_step.digits import free_of, known_arguments, view_of
from probem.plan.plan import Plan
from probem.results import failures
from probem.results.fit import Fit
from probem.solver.result import Result

# What stands out this many times above the rounding of the data is there.
_ABOVE_ROUNDING = 10.0


def is_unresolved(fit: Fit, data: tuple[Any, ...]) -> bool:
    """Whether a component lies so closely together, beside its distance from the others, that its second moments about
    the origin of all rows say nothing of its deviations from a line, or of a slope of which its rows say something.

    Where a slope was left out of least squares, the rows of that component are looked at about their own mean. The
    gradient of the program takes the residuals of every row, and loses nothing.
    """
    plan = fit.plan
    assert plan is not None
    terms = [term for term in plan.form.predicted if plan.is_one_line(term)]
    ended = (Result.CONVERGED, Result.SINGULAR, Result.NOT_STATIONARY, Result.BOUND_FELL, Result.UNRESOLVED)
    if not terms or fit.result not in ended or fit.plan.families.conjugate:
        return False
    statistics = _statistics(fit)
    lost_on_the_way = fit.result in (Result.SINGULAR, Result.BOUND_FELL, Result.UNRESOLVED)
    if lost_on_the_way or bool(failures.has_cancelled_for(plan, fit.variational, statistics)):
        return True
    if not bool(failures.has_lost_slopes_for(plan, statistics)):
        return False
    arrays = jax.tree.map(jnp.asarray, check_data(data, missing=True))
    events = {name: np.asarray(value, float) for name, value in _events(plan, arrays).items()}
    shares = np.asarray(fit.responsibilities(*data), float)
    for term in terms:
        view, mean = view_of(term), mean_statistics(plan.form, statistics, term)
        ranks = np.asarray(view.rank(mean, known_arguments(plan, term, statistics.shifts)))
        for (k, copy), rank in np.ndenumerate(ranks):
            columns = _columns(term)[k, copy]
            if rank == columns[:-1].sum():
                continue
            if _num_slopes(events[term.site][:, copy], shares[:, k], columns, plan) > rank:
                return True
    return False


@by_plan
def _events(plan: Plan, data: tuple[Any, ...]) -> dict[str, Any]:
    return plan.form.events(data, plan.form.predicted)


def _columns(term: ExponentialSite) -> Bool[np.ndarray, "K C Q"]:
    """Which covariates a component and a copy have a free coefficient of; the last says whether it has an intercept."""
    free = free_of(term) > 0
    return free if view_of(term).has_intercept else np.pad(free, ((0, 0), (0, 0), (0, 1)))


def _statistics(fit: Fit) -> Statistics:
    assert fit.totals is not None
    return Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), fit.totals.shifts)


def _num_slopes(
    events: Float[np.ndarray, "N D"], shares: Float[np.ndarray, " N"], columns: Bool[np.ndarray, " Q"], plan: Plan
) -> int:
    """How many slopes rows with these shares determine, beyond the rounding of the covariates."""
    used = np.isfinite(events).all(1) & (shares > 0)
    if not used.any():
        return 0
    weights, covariates = shares[used], events[used, 1:][:, columns[:-1]]
    noise = _ABOVE_ROUNDING * float(jnp.finfo(plan.dtype).eps) * np.abs(covariates).max(0)
    middle = np.average(covariates, axis=0, weights=weights) if columns[-1] else 0.0
    centred = np.sqrt(weights / weights.sum())[:, None] * (covariates - middle)
    lengths = np.linalg.norm(centred, axis=0)
    there = lengths > noise
    singular = np.linalg.svd(centred[:, there] / lengths[there], compute_uv=False)
    return int((singular > np.linalg.norm(noise[there] / lengths[there])).sum())
