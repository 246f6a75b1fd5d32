"""Criteria that choose among fitted programs, from log p(X | theta), the number of free parameters, and N."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from probem.data.blocks import Block
from probem.e_step.bound import row_gap
from probem.e_step.evaluation import At, evaluate_rows, natural_parameters
from probem.families.assignments import Delta
from probem.form.statistics import DataTotals
from probem.jit.compilation import by_plan
from probem.plan.plan import Plan
from probem.program.dependence import dependents
from probem.program.fixed import num_free
from probem.program.sites import Params
from probem.results.answers import log_density
from probem.results.fit import Fit


class Criterion(NamedTuple):
    """How a criterion is shown, and which end of it is the better."""

    label: str
    lower_is_better: bool


#: What ``select`` chooses by.
CRITERIA = {
    "bic": Criterion("BIC", True),
    "aic": Criterion("AIC", True),
    "icl": Criterion("ICL", True),
    "elbo": Criterion("F", False),
    "log_evidence": Criterion("F + log K!", False),
}


class Criteria(NamedTuple):
    """Of one fit, nats, totals over the data: ``bic``, ``aic`` and ``icl`` are on the scale of -2 log p, and lower is
    better.
    """

    log_likelihood: float
    bic: float
    aic: float
    icl: float


def num_parameters(plan: Plan) -> int:
    """P, the number of free parameters that log p(X | theta) depends on, fitted as points.

    Every site counts in unconstrained space: a simplex of K has K - 1, a covariance matrix D (D + 1) / 2. A site that
    reaches the data through the prior of another alone is no parameter of log p(X | theta), nor is one with a full
    posterior, nor what is fixed.
    """
    depends, local = dependents(plan.program), set(plan.program.local)
    return sum(num_free(plan.program, plan.fixed, site.name) for site in plan.point_sites if depends[site.name] & local)


def criteria(
    fit: Fit,
    data: tuple[Any, ...],
    row_weights: Float[np.ndarray, " N"] | None,
    labels: Int[np.ndarray, " N"] | None = None,
) -> Criteria:
    """The criteria of a fit at its ``params``; BIC, AIC and ICL are NaN where a site has a full posterior.

    Of a row with a known assignment, p(x_n | theta) below is p(x_n, t_n | theta).

        BIC = -2 log p(X | theta) + P log N
        AIC = -2 log p(X | theta) + 2 P
        ICL = BIC - 2 sum_n w_n log max_k p(t_n = k | x_n, theta)

    N is the total weight of the rows. Sources: Schwarz (1978); Akaike (1974); Biernacki, Celeux & Govaert (2000),
    eq. 8, with the assignments at the mode of their posterior.
    """
    plan = fit.plan
    assert plan is not None
    log_likelihood = _total(fit._rows(log_density, data, fit.params, labels), row_weights)
    if plan.mean_field.is_bayesian:
        return Criteria(log_likelihood, math.nan, math.nan, math.nan)
    count = num_parameters(plan)
    bic = -2 * log_likelihood + count * math.log(fit.total_weight)
    # Whatever the family of the fit, the posterior is that of the program.
    icl = bic + 2 * _total(fit._rows(_gap_of_mode, data, labels=labels), row_weights)
    return Criteria(log_likelihood, bic, -2 * log_likelihood + 2 * count, icl)


def _total(rows: Float[np.ndarray | Array, " N"], row_weights: Float[np.ndarray, " N"] | None) -> float:
    """sum_n w_n rows_n in float64; a row that does not count may be anything."""
    values = np.asarray(rows, float)
    if row_weights is None:
        return float(values.sum())
    return float(row_weights[row_weights > 0] @ values[row_weights > 0])


@by_plan
def _gap_of_mode(plan: Plan, params: Params, totals: DataTotals, block: Block) -> Float[Array, " n"]:
    """-log max_k p(t_n = k | x_n) = KL(point mass at the mode || posterior), nats."""
    table = evaluate_rows(plan, block, At(params, natural_parameters(plan, params, totals)), totals).table
    return row_gap(table, Delta().project(table))
