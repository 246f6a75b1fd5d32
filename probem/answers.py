"""Answers about rows, block by block, at given arguments of q and points."""

import jax
import jax.numpy as jnp
from jax import Array

from . import bound, predictive
from .compiled import by_plan
from .data import Block
from .expectation import LARGE, Prepared, common, generic_table, known, linear, linear_at_points, look_at, take_columns
from .families import lowest_argmax
from .linear import Linear
from .plan import Plan
from .program import Params


def _table(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """The table of the loop's own pass, ``[B, K]``: at a tie to rounding the answer is then the loop's.

    A row so far away that its log joints overflow is sure to be of one component, the highest.
    """
    lin = linear(plan, params, prepared)
    table, far, order = _look(plan, lin, params, prepared, block)
    far = far | (table == -jnp.inf).all(1)
    own = jnp.arange(table.shape[1])[None, :] == lowest_argmax(order)[:, None]
    return jnp.where(far[:, None], jnp.where(own, 0.0, -jnp.inf), table)


def _look(plan: Plan, lin: Linear, params: Params, prepared: Prepared, block: Block) -> tuple[Array, Array, Array]:
    """The table ``[B, K]`` with minus infinity where it overflowed, in which rows that was ``[B]``, and their log
    joints in some other unit, in which they do not, if possible ``[B, K]``.
    """
    rows = look_at(plan, block, lin, params, prepared)
    broken = jnp.isnan(lin.weight).any(1) | jnp.isnan(lin.offset)
    over = jnp.isnan(rows.table) & ~broken
    if plan.form.generic or rows.completed:
        table = jnp.where(over, -jnp.inf, rows.table)
        return table, over.any(1), table
    # Without an infinite statistic, plus infinity is a sum that overflowed as well.
    finite = jnp.isfinite(rows.features).all(1)[:, None]
    over = over | ((rows.table == jnp.inf) & finite)
    table = jnp.where(over, -jnp.inf, rows.table)

    def scaled() -> Array:
        unit = jnp.finfo(rows.features.dtype).tiny ** 0.5
        small = (unit * rows.features) @ take_columns(lin.weight, plan.varying).T + unit * lin.offset
        return jnp.where(finite, known(small, block), table)

    # A second product, where there is a row that it can decide.
    undecided = over.any() | (table == -jnp.inf).all(1).any()
    return table, over.any(1), jax.lax.cond(undecided, scaled, lambda: table)


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
    return jax.nn.logsumexp(jnp.where(jnp.isnan(table), -jnp.inf, table), axis=1)


@by_plan
def log_density(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """log p(x_n) at points, ``[B]``, nats."""
    # The pass leaves out what is the same for every component of a row; here it counts.
    lin = linear_at_points(plan, params, prepared)
    base = plan.form.log_base_measure(block.data, block.missing).astype(plan.dtype).sum(1)
    table = _look(plan, lin, params, prepared, block)[0]
    found = jax.nn.logsumexp(table, axis=1) + common(plan, block, lin, prepared) + base
    # What the pass holds finite, so that zero times it is zero, is impossible. So is, within the range of the numbers,
    # a row so far away that its terms cancel as infinities.
    far = jnp.isnan(found) & ~jnp.isnan(lin.offset).any()
    return jnp.where((found <= -LARGE) | far, -jnp.inf, found)


@by_plan
def row_gap(plan: Plan, params: Params, prepared: Prepared, block: Block) -> Array:
    """KL(q_n || posterior), ``[B]``, nats."""
    table = _table(plan, params, prepared, block)
    return bound.row_gap(table, plan.family.project(table))
