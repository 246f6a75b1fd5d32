"""Answers about rows, block by block, at given arguments of q and points."""

import jax
import jax.numpy as jnp
from jax import Array

from . import bound, predictive
from .compiled import by_plan
from .data import Block
from .expectation import LARGE, Prepared, common, generic_table, linear, linear_at_points, look_at
from .plan import Plan
from .program import Params


def _table(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """The table of the loop's own pass, ``[B, K]``: at a tie to rounding the answer is then the loop's."""
    lin = linear(plan, params, prepared)
    return look_at(plan, block, lin, params, prepared).table


@by_plan
def responsibilities(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """q(t_n = k), ``[B, K]``."""
    return plan.family.project(_table(plan, params, prepared, block)).dense()


@by_plan
def predictions(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """The most probable value of every row, ``[B]``."""
    return plan.family.mode(_table(plan, params, prepared, block))


@by_plan
def log_predictive(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """The log posterior predictive density, ``[B]``, nats."""
    del prepared
    table = predictive.log_predictive(plan, params, block.data, block.missing)
    if plan.form.generic:
        table = table + generic_table(plan, params, block)
    return jax.nn.logsumexp(table, axis=1)


@by_plan
def log_density(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """log p(x_n) at points, ``[B]``, nats."""
    # The pass leaves out what is the same for every component of a row; here it counts.
    lin = linear_at_points(plan, params, prepared)
    base = plan.form.log_base_measure(block.data, block.missing).astype(plan.dtype).sum(1)
    table = look_at(plan, block, lin, params, prepared).table
    found = jax.nn.logsumexp(table, axis=1) + common(plan, block, lin, prepared) + base
    # What the pass holds finite, so that zero times it is zero, is impossible.
    return jnp.where(found <= -LARGE, -jnp.inf, found)


@by_plan
def row_gap(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """KL(q_n || posterior), ``[B]``, nats."""
    table = _table(plan, params, prepared, block)
    return bound.row_gap(table, plan.family.project(table))
