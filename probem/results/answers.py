"""Answers about rows, block by block, at given arguments of q and points."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.data.blocks import Block
from probem.e_step import bound
from probem.e_step.evaluation import (
    At,
    all_features,
    clamp_known_assignments,
    evaluate_rows,
    generic_table,
    log_base_measure,
    log_joints,
    natural_parameters,
    natural_parameters_at_points,
    shared_log_joint,
    take_columns,
)
from probem.e_step.impossible import impossible
from probem.e_step.passes import map_chunks
from probem.families.posteriors import lowest_argmax
from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals
from probem.jit.compilation import Effort, by_plan
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results import predictive


class Answer(NamedTuple):
    """An answer about the rows of a block, compiled in one piece or in two.

    ``whole(plan, params, totals, block)`` is ``about(plan, form(plan, params, totals), params, totals, block)``; what
    ``form`` returns does not depend on the rows.
    """

    whole: Callable[..., Any]
    form: Callable[..., Any]
    about: Callable[..., Any]


def _by_chunks(form: Callable[..., Any]) -> Callable[..., Answer]:
    """The answer of ``function(plan, form(plan, params, totals), params, totals, block)`` about a block,
    chunk after chunk: what is formed on the way has few rows.
    """

    def decorate(function: Callable[..., Array]) -> Answer:
        @functools.wraps(function)
        def about(plan: Plan, natural: Any, params: Params, totals: DataTotals, block: Block) -> Array:
            return map_chunks(plan, lambda part: function(plan, natural, params, totals, part), block)

        @functools.wraps(function)
        def whole(plan: Plan, params: Params, totals: DataTotals, block: Block) -> Array:
            return about(plan, form(plan, params, totals), params, totals, block)

        return Answer(by_plan(whole), by_plan(form, effort=Effort.LEAST), by_plan(about))

    return decorate


def _table(
    plan: Plan, natural: NaturalParameters, params: Params, totals: DataTotals, block: Block
) -> Float[Array, "n K"]:
    """The table of the loop's own pass: at a tie to rounding the answer is then the loop's.

    A row so far away that its log joints overflow is sure to be of one component, the highest.
    """
    table, far, order = _look(plan, natural, params, totals, block)
    far = far | (table == -jnp.inf).all(1)

    def decided() -> Float[Array, "n K"]:
        highest = jnp.arange(table.shape[1])[None, :] == lowest_argmax(order())[:, None]
        return jnp.where(far[:, None], jnp.where(highest, 0.0, -jnp.inf), table)

    return jax.lax.cond(far.any(), decided, lambda: table)


def _look(
    plan: Plan, natural: NaturalParameters, params: Params, totals: DataTotals, block: Block
) -> tuple[Float[Array, "n K"], Bool[Array, " n"], Callable[[], Float[Array, "n K"]]]:
    """The table with minus infinity where it overflowed, in which rows that was, and what makes log joints in some
    other unit, in which they do not overflow, if possible.
    """
    rows = evaluate_rows(plan, block, At(params, natural), totals)
    broken = jnp.isnan(natural.weight).any(1) | jnp.isnan(natural.offset)
    over = jnp.isnan(rows.table) & ~broken
    if plan.form.generic or rows.completed or plan.form.sparse_rows:
        table = jnp.where(over, -jnp.inf, rows.table)
        return table, over.any(1), lambda: table
    # Without an infinite statistic, plus infinity is a sum that overflowed as well.
    finite = jnp.isfinite(rows.features).all(1)[:, None]
    for events in rows.events.values():
        # No product of two entries is larger than both squares.
        finite = finite & jnp.isfinite(events * events).all((1, 2))[:, None]
    over = over | ((rows.table == jnp.inf) & finite)
    table = jnp.where(over, -jnp.inf, rows.table)

    def scaled() -> Float[Array, "n K"]:
        unit = jnp.finfo(plan.dtype).tiny ** 0.5
        phi = rows.features if not rows.events else take_columns(all_features(plan, block, totals), plan.varying)
        small = log_joints(unit * phi, take_columns(natural.weight, plan.varying), unit * natural.offset)
        return jnp.where(finite, clamp_known_assignments(small, block), table)

    return table, over.any(1), scaled


@_by_chunks(natural_parameters)
def responsibilities(
    plan: Plan, natural: NaturalParameters, params: Params, totals: DataTotals, block: Block
) -> Float[Array, "n K"]:
    """q(t_n = k)."""
    return plan.family.project(_table(plan, natural, params, totals, block)).dense()


@_by_chunks(natural_parameters)
def predictions(
    plan: Plan, natural: NaturalParameters, params: Params, totals: DataTotals, block: Block
) -> Int[Array, " n"]:
    """The most probable value of every row."""
    return plan.family.mode(_table(plan, natural, params, totals, block))


@_by_chunks(lambda plan, params, totals: predictive.posterior_predictive(plan, params, totals.shifts))
def log_predictive(
    plan: Plan, made: predictive.Predictive, params: Params, totals: DataTotals, block: Block
) -> Float[Array, " n"]:
    """The log posterior predictive density, nats."""
    table = predictive.log_predictive(plan, made, totals.shifts, block.data, block.missing)
    if plan.form.generic:
        table = table + generic_table(plan, params, block)
    return jax.nn.logsumexp(jnp.where(jnp.isnan(table), -jnp.inf, table), axis=1)


@_by_chunks(natural_parameters_at_points)
def log_density(
    plan: Plan, natural: NaturalParameters, params: Params, totals: DataTotals, block: Block
) -> Float[Array, " n"]:
    """log p(x_n) at points, nats."""
    # The pass leaves out what is the same for every component of a row; here it counts.
    base = log_base_measure(plan, block).sum(1)
    table = _look(plan, natural, params, totals, block)[0]
    total = jax.nn.logsumexp(table, axis=1) + natural.level + shared_log_joint(plan, block, natural, totals) + base
    # What the pass holds finite, so that zero times it is zero, is impossible. So is, within the range of the numbers,
    # a row so far away that its terms cancel as infinities.
    far = jnp.isnan(total) & ~jnp.isnan(natural.offset).any()
    return jnp.where((total <= -impossible(plan.dtype)) | far, -jnp.inf, total)


@_by_chunks(natural_parameters)
def term_sizes(
    plan: Plan, natural: NaturalParameters, params: Params, totals: DataTotals, block: Block
) -> Float[Array, "n K"]:
    """The size of the terms that cancel in every log joint, |W| |T(x_n)| + |c| + |h(x_n)|, nats."""
    weight, offset = (jnp.where(jnp.isfinite(part), jnp.abs(part), 0.0) for part in (natural.weight, natural.offset))
    phi = jnp.abs(all_features(plan, block, totals))
    constants = jnp.abs(log_base_measure(plan, block)).sum(1) + jnp.abs(natural.level)
    return log_joints(jnp.where(jnp.isfinite(phi), phi, 0.0), weight, offset) + constants[:, None]


@_by_chunks(natural_parameters)
def row_gap(
    plan: Plan, natural: NaturalParameters, params: Params, totals: DataTotals, block: Block
) -> Float[Array, " n"]:
    """KL(q_n || posterior), nats."""
    table = _table(plan, natural, params, totals, block)
    return bound.row_gap(table, plan.family.project(table))
