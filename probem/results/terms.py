"""The terms of F, site by site, from what a fit keeps of its rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.form.statistics import DataTotals, Statistics
from probem.jit.compilation import by_plan
from probem.mean_field.mean_field import PriorTerms
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.record import FitRecord


def expected(fit: FitRecord, plan: Plan, totals: DataTotals) -> dict[str, float]:
    """What the statistics say of E_q[log p(site | its parents)], by site in the plate, nats, total."""
    statistics = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), totals.shifts)
    log_joints = _expected_log_joint(plan, jax.tree.map(jnp.asarray, fit.variational), statistics)
    terms = {name: float(value) for name, value in log_joints.items()}
    for term, base in zip(plan.form.data_terms, np.asarray(totals.log_base_measure), strict=True):
        terms[term.site] += float(base)
    return terms


def elbo_terms(fit: FitRecord, plan: Plan, totals: DataTotals) -> dict[str, float]:
    """The terms of F by name, nats, total; their sum is F."""
    of_sites = expected(fit, plan, totals)
    log_priors = _prior_terms(plan, jax.tree.map(jnp.asarray, fit.variational))
    # What the statistics do not say: sites on the generic path, and the entropy of what was filled in.
    others = (*plan.form.generic, *(term.site for term in plan.form.completing))
    rest = float(fit.bound.expected_log_joint) - sum(of_sites.values())
    if len(others) == 1:
        of_sites[others[0]] = of_sites.get(others[0], 0.0) + rest
    terms = {f"E log p({name})": value for name, value in of_sites.items()}
    if len(others) > 1:
        rest += sum(terms.pop(f"E log p({name})", 0.0) for name in others)
        terms[f"E log p({', '.join(others)})"] = rest
    terms[f"H({', '.join(site.name for site in plan.program.assignments)})"] = float(fit.bound.entropy)
    for name, (log_prior, entropy) in log_priors.items():
        terms[f"log p({name})" if entropy is None else f"E log p({name})"] = float(log_prior)
        if entropy is not None:
            terms[f"H({name})"] = float(entropy)
    return terms


@by_plan
def _expected_log_joint(plan: Plan, params: Params, statistics: Statistics) -> dict[str, Float[Array, ""]]:
    return plan.mean_field.expected_log_joint(params, statistics)


@by_plan
def _prior_terms(plan: Plan, params: Params) -> dict[str, PriorTerms]:
    return plan.mean_field.terms(params)
