"""The M half-step: from additive statistics to parameters."""

import jax.numpy as jnp
from jaxtyping import Array, Bool

from probem.form.centring import centred_arguments
from probem.form.statistics import Statistics, mean_statistics
from probem.jit.live import live
from probem.m_step.closed import closed_updates
from probem.plan.plan import Plan
from probem.program.sites import Params


def maximise(plan: Plan, statistics: Statistics, params: Params) -> Params:
    """The parameters after the closed and the numeric updates of points, and the updates of full posteriors."""
    params = closed_updates(plan.mean_field, plan.closed, statistics, params, plan.fixed)
    if plan.mean_field.gaussians:
        # Before anything was updated locations have their priors, beside which every spread is that of all rows.
        params = live(plan.mean_field.maximise)(statistics, params)
    if plan.numeric:
        # Importing the optimiser takes most of a second, and most programs do without.
        from probem.m_step.numeric.updates import numeric_updates

        params = numeric_updates(plan, statistics, params)
    # Of what is differentiated there the slopes are needed, and not the values.
    return live(plan.mean_field.maximise)(statistics, params)


def collapsed(plan: Plan, statistics: Statistics, params: Params) -> Bool[Array, " K"]:
    """Which components have a density that collapsed to rounding."""
    is_collapsed = jnp.zeros(plan.num_components, bool)
    arguments = plan.form.arguments(plan.mean_field.points(params))
    for term in plan.form.data_terms:
        if term.site in plan.spreads:
            means = mean_statistics(plan.form, statistics, term)
            degenerate = term.view.degenerate_completed if term.completes else term.view.degenerate
            flags = degenerate(means, centred_arguments(term, arguments[term.site], statistics.shifts))
            flags = flags.reshape(plan.num_components, -1) & jnp.asarray(plan.spreads[term.site])
            is_collapsed = is_collapsed | flags.any(1)
    return is_collapsed & (statistics.counts > 0)
