"""The bound at candidates of the gradient route, each with its own q, summed over rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.e_step.evaluation import (
    clamp_known_assignments,
    evaluate_forms,
    generic_table,
    natural_parameters,
    row_weights,
)
from probem.e_step.initial_q import EStep, assign
from probem.e_step.passes import Chunk, Reduction
from probem.form.statistics import DataTotals
from probem.plan.coordinates import coordinates
from probem.plan.plan import Plan
from probem.program.sites import Params


def _valued(
    plan: Plan, each: tuple[Float[Array, "J P"], EStep], totals: DataTotals, chunk: Chunk
) -> tuple[Float[Array, " J"], None]:
    """What a chunk contributes to the objective at each candidate, nats; ``each`` are the candidates, and the E
    half-step with the parameters of the other routes.

    q is projected anew for each, unless it is given: one from before forbids a density of zero wherever it had the
    smallest probability left, as it has by rounding in the tails. Columns that all components have in common are left
    out, as is the prior.
    """
    (candidates, e_step), block = each, chunk.block
    at = e_step.at
    place = coordinates(plan, at.params)
    forms = None if plan.gradient_reaches_forms else evaluate_forms(plan, block, at.natural, totals).table

    def value(vector: Float[Array, " P"]) -> Float[Array, ""]:
        there = place.to_params(vector)
        table = forms
        if table is None:
            table = evaluate_forms(plan, block, natural_parameters(plan, there, totals), totals).table
        table = clamp_known_assignments(table + generic_table(plan, there, block), block)
        q, _ = assign(plan, table, e_step, chunk)
        return row_weights(plan, block) @ (q.expectation(table) + plan.family.entropy_weight * q.entropy())

    return jax.lax.map(value, candidates), None


#: The objective at candidates of the gradient route.
VALUED = Reduction(_valued)


def beside_candidates(plan: Plan, params: Params, totals: DataTotals) -> Float[Array, ""]:
    """What ``VALUED`` leaves out, nats, but for a constant."""
    natural, sums = natural_parameters(plan, params, totals), totals.sums[plan.in_common]
    shared = jnp.where(sums == 0, 0.0, natural.weight[0, plan.in_common] * sums).sum()
    return shared + natural.level * totals.total_weight + plan.log_prior(params)
