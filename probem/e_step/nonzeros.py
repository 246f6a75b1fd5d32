"""What the pass forms of sparse rows: the table and the sums over rows, from the non-zeros alone.

Every entry of a row is an event, and T(0) = 0 (``analysis/sparse_rows.py``), so that

    <T(x_n), eta_k> = sum over the non-zeros of <T(x_nd), eta_kd>,

and sum_n w_nk T(x_nd) likewise over the non-zeros of column d.
"""

from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.data.blocks import Block
from probem.data.compressed import CompressedBlock
from probem.e_step.impossible import impossible
from probem.form.sites import ExponentialSite
from probem.plan.plan import Plan

#: A statistic of an entry as a function of values, zero at zero.
Statistic = Callable[[Array], Array]


def nonzeros_of(block: Block) -> CompressedBlock:
    """The rows of a block, which are sparse."""
    (rows,) = block.data
    assert isinstance(rows, CompressedBlock)
    return rows


def _statistics(plan: Plan, columns: Bool[np.ndarray, " S"]) -> Iterator[tuple[int, Statistic]]:
    """The statistics of an entry of which some of these columns are, by number and as functions of the values."""
    (term,) = plan.form.data_terms
    for number in np.flatnonzero(columns.reshape(-1, term.num_statistics).any(0)):
        yield int(number), lambda values, number=number: term.view.statistics(values)[..., number]


def sparse_table(
    plan: Plan, weight: Float[Array, "K S"], block: Block, columns: Bool[np.ndarray, " S"]
) -> Float[Array, "n K"]:
    """<T(x_n), eta_k> over some columns."""
    most = impossible(weight.dtype)
    kept = jnp.where(columns, jnp.clip(weight, -most, most), 0.0)
    rows, (term,) = nonzeros_of(block), plan.form.data_terms
    total = jnp.zeros((block.size, len(weight)), plan.dtype)
    for number, statistic in _statistics(plan, columns):
        total = total + rows.times(_of_statistic(kept, term, number), statistic)
    return total


def sparse_sums(
    plan: Plan, weights: Float[Array, "n k"], block: Block, columns: Bool[np.ndarray, " S"]
) -> Float[Array, "k _"]:
    """sum_n w_nk T(x_n) in some columns."""
    rows, (term,) = nonzeros_of(block), plan.form.data_terms
    sums = [rows.weighted_sums(weights, statistic) for _, statistic in _statistics(plan, columns)]
    if not sums:
        return jnp.zeros((weights.shape[1], 0), plan.dtype)
    together = jnp.stack(sums, 2).reshape(weights.shape[1], -1)
    by_entry = columns.reshape(term.copies, term.num_statistics)
    kept = by_entry[:, by_entry.any(0)].reshape(-1)
    return together if kept.all() else together[:, np.flatnonzero(kept)]


def sparse_log_base_measure(plan: Plan, block: Block) -> Float[Array, "n 1"]:
    """h(x_n), nats: h(0) of every entry, and what the non-zeros have beside it."""
    rows, (term,) = nonzeros_of(block), plan.form.data_terms
    at_zero = term.view.log_base_measure(jnp.zeros((), plan.dtype))
    ones = jnp.ones((1, term.copies), plan.dtype)
    beside = rows.times(ones, lambda values: term.view.log_base_measure(values) - at_zero)
    return beside + term.copies * at_zero


def differ_from_means(
    plan: Plan, means: Float[Array, "K V"], labels: Int[Array, " n"], block: Block, precision: float
) -> Bool[Array, " n"]:
    """Whether any statistic of a row, of the columns that vary, is off the mean of those of its component by more than
    this part of both.
    """
    rows, (term,) = nonzeros_of(block), plan.form.data_terms
    every = jnp.zeros((len(means), plan.form.num_columns), plan.dtype).at[:, plan.varying].set(means)
    differs = jnp.zeros(block.size, bool)
    for number, statistic in _statistics(plan, plan.form.varying):
        mean = _of_statistic(every, term, number)

        def is_off(
            values: Float[Array, " G"], there: Float[Array, "G K"], statistic: Statistic = statistic
        ) -> Float[Array, "G K"]:
            value = statistic(values)[:, None]
            beyond = jnp.abs(value - there) > precision * (jnp.abs(value) + jnp.abs(there))
            return (beyond & (values != 0)[:, None]).astype(there.dtype)

        # Where a row is zero, its mean has to be so as well.
        elsewhere = (mean != 0).sum(1)[None, :] > rows.compared(mean, _meets)
        either = (rows.compared(mean, is_off) > 0) | elsewhere
        differs = differs | jnp.take_along_axis(either, labels[:, None], 1)[:, 0]
    return differs


def _meets(values: Float[Array, " G"], there: Float[Array, "G K"]) -> Float[Array, "G K"]:
    return ((there != 0) & (values != 0)[:, None]).astype(there.dtype)


def _of_statistic(columns: Float[Array, "K S"], term: ExponentialSite, number: int) -> Float[Array, "K D"]:
    return columns.reshape(len(columns), term.copies, term.num_statistics)[:, :, number]
