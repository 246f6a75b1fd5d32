"""The bound at candidates of the gradient route, each with its own q, summed over rows."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.data.blocks import Block, over_chunks
from probem.e_step.evaluation import (
    clamp_known_assignments,
    evaluate_forms,
    generic_table,
    natural_parameters,
    row_weights,
)
from probem.e_step.initial_q import InitialQ, project
from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals
from probem.plan.coordinates import coordinates
from probem.plan.plan import Plan
from probem.program.sites import Params


def accumulate_candidates(
    plan: Plan,
    values: Array,
    candidates: Array,
    params: Params,
    lin: NaturalParameters,
    prepared: DataTotals,
    block: Block,
    held: InitialQ | None = None,
) -> Array:
    """Add to ``values`` [J] what a block contributes to the objective at each candidate ``[J, P]``, nats.

    q is projected anew for each, unless it is held: one from before forbids a density of zero wherever it had the
    smallest probability left, as it has by rounding in the tails. ``params`` and ``lin`` are those of the other routes;
    columns that all components have in common are left out, as is the prior.
    """
    place = coordinates(plan, params)

    def body(index: Array, part: Block, total: Array) -> Array:
        forms = None if plan.gradient_reaches_forms else evaluate_forms(plan, part, lin, prepared).table

        def value(vector: Array) -> Array:
            there = place.to_params(vector)
            own = (
                evaluate_forms(plan, part, natural_parameters(plan, there, prepared), prepared).table
                if forms is None
                else forms
            )
            table = clamp_known_assignments(own + generic_table(plan, there, part), part)
            q = project(plan, table, held, index)
            return row_weights(plan, part) @ (q.expectation(table) + plan.family.entropy_weight * q.entropy())

        return total + jax.lax.map(value, candidates)

    return over_chunks(block, plan.chunk_rows(block.size), body, values)


def beside_candidates(plan: Plan, params: Params, prepared: DataTotals) -> Array:
    """What ``accumulate_candidates`` leaves out, nats, but for a constant."""
    constant = np.flatnonzero(~plan.form.varying)
    lin, totals = natural_parameters(plan, params, prepared), prepared.totals[constant]
    shared = jnp.where(totals == 0, 0.0, lin.weight[0, constant] * totals).sum()
    return shared + lin.level * prepared.total_weight + plan.log_prior(params)
