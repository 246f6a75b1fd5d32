"""Whether sums of products leave enough digits of a linear predictor, or rounding decides its coefficients."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from probem.exponential import LinearNormal
from probem.exponential.linalg import condition_number
from probem.form.companions import Covariates
from probem.form.sites import ExponentialSite
from probem.form.statistics import DataTotals, Statistics, mean_statistics
from probem.jit.live import live
from probem.plan.plan import Plan
from probem.program.sites import Params

# Digits that are to be left of what second moments are solved for; of variances that are their differences, the digits
# that F has in float32; and fewer of full posteriors, which nothing else fits: F is off by up to 1e-4 of itself.
_LEFT_OF_COEFFICIENTS, _LEFT_OF_POINTS, _LEFT_OF_POSTERIORS = 1e-3, 1e-5, 1e-4


def _limit(dtype: jnp.dtype, left: float) -> float:
    """How large a condition number may be, or terms beside their difference."""
    return left / float(jnp.finfo(dtype).eps)


def is_collinear(plan: Plan, totals: DataTotals) -> Bool[Array, ""]:
    """Whether the covariates of some linear predictor whose coefficients are points are so close to collinear, in all
    rows, that least squares lose them.
    """
    worst = jnp.zeros((), plan.dtype)
    statistics = Statistics(totals.total_weight[None], totals.sums[None], totals.shifts)
    for term in plan.form.predicted:
        if plan.is_one_line(term):
            mean = mean_statistics(plan.form, statistics, term)
            arguments = known_arguments(plan, term, totals.shifts)
            # Components may have different coefficients that are zero for good.
            mean = jnp.broadcast_to(mean, (plan.num_components, *mean.shape[1:]))
            worst = jnp.maximum(worst, view_of(term).condition(mean, arguments).max())
    return worst > _limit(plan.dtype, _LEFT_OF_COEFFICIENTS)


def has_cancelled(plan: Plan, params: Params, statistics: Statistics) -> Bool[Array, ""]:
    """Whether variances around some linear predictor are small beside the second moments that they are made of, or the
    covariances of full posteriors of coefficients lose them.
    """
    points, covariances, arguments = live(lambda params: _seen(plan, params))(params)
    del points
    cancelled = jnp.zeros((), bool)
    for term in plan.form.predicted:
        mean = mean_statistics(plan.form, statistics, term)
        around = {**arguments[term.site], "origin": statistics.shifts[term.site]}
        most = _limit(plan.dtype, _LEFT_OF_POINTS if plan.is_one_line(term) else _LEFT_OF_POSTERIORS)
        # What is not finite is a result already.
        cancelled = cancelled | ((view_of(term).cancellation(mean, around) > most) & mean.any(-1)).any()
    for name in coefficients_with_posterior(plan):
        scale = jnp.sqrt(jnp.diagonal(covariances[name], axis1=-2, axis2=-1))
        correlations = covariances[name] / (scale[..., :, None] * scale[..., None, :])
        cancelled = cancelled | (condition_number(correlations) > _limit(plan.dtype, _LEFT_OF_COEFFICIENTS)).any()
    return cancelled


def has_lost_slopes(plan: Plan, statistics: Statistics) -> Bool[Array, ""]:
    """Whether least squares left out a slope of a component with rows, as constant or as a sum of others, to rounding:
    in some linear predictor whose coefficients are points.
    """
    lost = jnp.zeros((), bool)
    for term in plan.form.predicted:
        if plan.is_one_line(term):
            mean = mean_statistics(plan.form, statistics, term)
            rank = view_of(term).rank(mean, known_arguments(plan, term, statistics.shifts))
            slopes = jnp.asarray(free_of(term)[..., : view_of(term).num_covariates].sum(-1))
            lost = lost | ((rank < slopes) & (statistics.counts > 0)[:, None]).any()
    return lost


def _seen(plan: Plan, params: Params) -> tuple[Params, Mapping[str, Array], Mapping[str, Mapping[str, Array]]]:
    points, covariances = plan.mean_field.centre_in_trace(params) if plan.mean_field.by_name else (params, {})
    arguments = plan.form.arguments(points)
    return points, covariances, {term.site: arguments[term.site] for term in plan.form.predicted}


def coefficients_with_posterior(plan: Plan) -> list[str]:
    """The sites of coefficients of linear predictors that have a full posterior."""
    factors = [plan.mean_field.factors.get(term.site) for term in plan.form.predicted]
    sites = {name for factor in factors if factor is not None and factor.location for name in factor.location.sites}
    return sorted(name for name in sites if not plan.mean_field.by_name[name].is_point)


def known_arguments(plan: Plan, term: ExponentialSite, shifts: Mapping[str, Array]) -> dict[str, Float[Array, "..."]]:
    """What is known of the coefficients of a predictor without their values."""
    return {"free": jnp.asarray(free_of(term), plan.dtype), "origin": shifts[term.site]}


def view_of(term: ExponentialSite) -> LinearNormal:
    """The density around the predictor of a term."""
    assert isinstance(term.view, LinearNormal)
    return term.view


def free_of(term: ExponentialSite) -> Float[np.ndarray, "K C Q"]:
    """Which coefficients of the predictor of a term are not zero for good."""
    assert isinstance(term.companion, Covariates)
    return term.companion.predictor.free
