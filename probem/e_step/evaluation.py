"""What the pass forms of some rows: their statistics, and the table of their log joints."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probem.data.blocks import Block
from probem.e_step.impossible import impossible
from probem.e_step.nonzeros import sparse_log_base_measure, sparse_table
from probem.form import completion, products
from probem.form.form import NaturalParameters
from probem.form.sites import ExponentialSite
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan
from probem.program.sites import Params

# Up to so many columns, and where the table need not be stored up to so many weights, products are summed one by one
# in less time than by a matrix product.
_FEW_COLUMNS, _FEW_WEIGHTS = 4, 128


def natural_parameters(plan: Plan, params: Params, totals: DataTotals) -> NaturalParameters:
    """E_q[W] and E_q[c] over all columns, in the dtype of the data; what is impossible has an infinite W."""
    return _in_dtype(plan, plan.mean_field.natural(params, totals.shifts))


def natural_parameters_at_points(plan: Plan, points: Params, totals: DataTotals) -> NaturalParameters:
    """W and c at a value for every site, whatever its q."""
    return _in_dtype(plan, plan.form.natural(points, totals.shifts))


def _in_dtype(plan: Plan, natural: NaturalParameters) -> NaturalParameters:
    return NaturalParameters(*(part.astype(plan.dtype) for part in natural))


def log_joints(
    phi: Float[Array, "n S"], weight: Float[Array, "K S"], offset: Float[Array, " K"], is_stored: bool = True
) -> Float[Array, "n K"]:
    """<T(x_n), eta_k> + c_k over some columns. ``is_stored``: whether the table has to lie in memory, as it need not if
    what follows is one loop over the rows.

    An infinite natural parameter (of a rate of zero) times a statistic of zero is zero, which a matrix product cannot
    know: it is kept finite there. A natural parameter that is finite is what it is, however large its unit makes it.

    The table is formed, and lies in memory, components first: what is reduced over components then runs along rows that
    lie side by side. XLA keeps it so behind the transposed view, but not if nothing is added before: the product itself
    would be turned round.
    """
    most = impossible(weight.dtype)
    # Without a barrier what makes the weights may be turned round into the product, which then takes twice as long.
    weight = jax.lax.optimization_barrier(jnp.clip(weight, -most, most))
    if weight.shape[1] > _FEW_COLUMNS and (is_stored or weight.size > _FEW_WEIGHTS):
        inner = weight @ phi.T
    else:
        # So few columns are no work for a matrix product: entry by entry, the table need not even be stored.
        products = (weight[:, s, None] * phi[:, s] for s in range(weight.shape[1]))
        inner = sum(products, jnp.zeros((weight.shape[0], phi.shape[0]), weight.dtype))
    return (inner + offset[:, None]).T


def generic_table(plan: Plan, params: Params, block: Block) -> Float[Array, "n K"]:
    """The part of the table that only the program itself can give."""
    sites = plan.program.enumerated_trace(plan.mean_field.points(params), block.data)
    observed = plan.form.generic_observed(block.data, block.missing) if plan.form.gaps else None
    return plan.program.table(sites, plan.form.generic, observed).astype(plan.dtype)


def compute_features(plan: Plan, block: Block, totals: DataTotals) -> Float[Array, "n S"]:
    """The columns of Phi that a pass forms; of sparse rows none."""
    if plan.form.sparse_rows:
        return jnp.zeros((block.size, 0), plan.dtype)
    return take_columns(all_features(plan, block, totals), plan.formed)


def all_features(plan: Plan, block: Block, totals: DataTotals) -> Float[Array, "n S"]:
    """Phi."""
    return plan.form.features(block.data, totals.shifts, block.missing, block.events).astype(plan.dtype)


def features(plan: Plan, block: Block, totals: DataTotals) -> Float[Array, "n S"]:
    """The columns of Phi that a pass forms: kept with the chunk, or computed."""
    return compute_features(plan, block, totals) if block.features is None else block.features


def take_columns(phi: Float[Array, "m _"], columns: Int[np.ndarray, " S"]) -> Float[Array, "m S"]:
    """Static columns of Phi, as slices where there are few runs of them: a slice costs nothing, a gather does."""
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    if len(runs) > 8:
        return phi[:, columns]
    return jnp.concatenate([phi[:, run[0] : run[-1] + 1] for run in runs], 1) if len(columns) else phi[:, :0]


class RowEvaluation(NamedTuple):
    """What the pass forms of a chunk of n rows.

    ``table`` holds the log joints, up to a constant of each row: ``features`` has the columns that vary, but for terms
    by products, of which ``events`` has the rows around their origin.
    """

    table: Float[Array, "n K"]
    features: Float[Array, "n S"]
    completed: Mapping[str, completion.Completed]
    events: Mapping[str, Float[Array, "n _ _"]]


class At(NamedTuple):
    """Parameters, and E_q[W], E_q[c] of the table there."""

    params: Params
    natural: NaturalParameters


def evaluate_rows(plan: Plan, block: Block, at: At, totals: DataTotals) -> RowEvaluation:
    """The rows as they are under each component."""
    evaluated = evaluate_forms(plan, block, at.natural, totals)
    table = evaluated.table + generic_table(plan, at.params, block) if plan.form.generic else evaluated.table
    return evaluated._replace(table=clamp_known_assignments(table, block))


def evaluate_forms(plan: Plan, block: Block, natural: NaturalParameters, totals: DataTotals) -> RowEvaluation:
    """The rows by the sites with an exponential-family form alone."""
    phi = features(plan, block, totals)
    weight = natural.weight
    for term in plan.lines:
        weight = weight.at[:, plan.form.natural_columns(term)].set(0.0)
    weight = take_columns(weight, plan.formed)
    table = log_joints(phi, weight, natural.offset, is_stored=not plan.forms_table_alone)
    events = products.events_of(plan.form, plan.by_products, block, totals)
    for term in plan.by_products:
        weight = products.weights_of(plan.form, term, natural)
        formed = products.residual_table if plan.is_one_line(term) else products.quadratic_table
        table = table + formed(term, weight, events[term.site])
    lines = products.events_of(plan.form, plan.lines, block, totals)
    for term in plan.lines:
        stop = plan.form.columns(term).stop
        here = phi[:, np.searchsorted(plan.formed, np.arange(stop - term.copies, stop))] if term.partial else None
        weight = products.weights_of(plan.form, term, natural)
        table = table + products.residual_table(term, weight, lines[term.site], here)
    if plan.form.sparse_rows:
        table = table + sparse_table(plan, natural.weight, block, plan.form.varying)
    completed = completion.complete(plan.form, natural, block, totals)
    for term in completed.values():
        table = table + term.table
    return RowEvaluation(table, phi, completed, events)


def clamp_known_assignments(table: Float[Array, "n K"], block: Block) -> Float[Array, "n K"]:
    """The table where an assignment is observed: no other value is possible."""
    if block.labels is None:
        return table
    label = block.labels[:, None]
    return jnp.where((label < 0) | (label == jnp.arange(table.shape[1])[None, :]), table, -jnp.inf)


def varying_columns(plan: Plan, term: ExponentialSite) -> Int[np.ndarray, " S"]:
    """Where the statistics of a term, all of which vary, are among the columns that do."""
    columns = plan.form.columns(term)
    return np.searchsorted(plan.varying, np.arange(columns.start, columns.stop - term.copies * term.partial))


def row_weights(plan: Plan, block: Block) -> Float[Array, " n"]:
    """How often every row counts, in the dtype of the data."""
    return block.weights.astype(plan.dtype)


def shared_log_joint(plan: Plan, block: Block, natural: NaturalParameters, totals: DataTotals) -> Float[Array, " n"]:
    """What every component has in common in the log joint of a row: the columns that the pass leaves out.

    The level, which is common to all rows as well, is left out here too.
    """
    if plan.form.sparse_rows:
        return sparse_table(plan, natural.weight[:1], block, ~plan.form.varying)[:, 0]
    phi = take_columns(all_features(plan, block, totals), plan.in_common)
    return log_joints(phi, natural.weight[:1, plan.in_common], jnp.zeros(1, plan.dtype))[:, 0]


def log_base_measure(plan: Plan, block: Block) -> Float[Array, "n T"]:
    """h(x_n) of every observed site in exponential-family form, nats."""
    if plan.form.sparse_rows:
        return sparse_log_base_measure(plan, block)
    return plan.form.log_base_measure(block.data, block.missing, block.events).astype(plan.dtype)
