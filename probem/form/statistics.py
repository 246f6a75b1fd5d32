"""Additive statistics in the columns of the exponential form, and averages of them."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.form.form import ExponentialForm, NaturalParameters
from probem.form.sites import ExponentialSite

#: The variance of noise: a number, or the covariance matrix of all numbers observed in a row.
NoiseVariance = Float[Array, ""] | Float[Array, "F F"]


class Statistics(NamedTuple):
    """All that the data says to the parameters: ``counts``, ``sums``, and the origins of the sums."""

    counts: Float[Array, " K"]
    sums: Float[Array, "K S"]
    shifts: Mapping[str, Array]


def expected(natural: NaturalParameters, statistics: Statistics) -> Float[Array, ""]:
    """E_q of the exponential-family part of the log joint: <W, S> + <c, n>, nats; 0 * inf counts as 0."""
    # So does what is left of a statistic whose mean is rounded to zero: a probability that EM has taken to the end of
    # the numbers.
    number = jnp.finfo(statistics.sums.dtype)
    least = number.tiny / number.eps * jnp.maximum(statistics.counts, 1.0)[:, None]
    nothing = (statistics.sums == 0) | (jnp.isinf(natural.weight) & (jnp.abs(statistics.sums) <= least))
    inner = jnp.where(nothing, 0.0, natural.weight * statistics.sums).sum()
    offset = jnp.where(statistics.counts == 0, 0.0, natural.offset * statistics.counts).sum()
    return inner + offset + natural.level * statistics.counts.sum()


def expected_term(
    form: ExponentialForm,
    statistics: Statistics,
    term: ExponentialSite,
    density: tuple[Float[Array, "K C S"], Float[Array, "K C"]],
) -> Float[Array, ""]:
    """What one term, with these eta and A, adds to ``expected`` where all of them are finite, nats."""
    natural, log_normaliser = density
    sums = term_sums(form, statistics, term)
    return (natural * sums).sum() - (log_normaliser * event_counts(form, statistics, term)).sum()


def term_sums(form: ExponentialForm, statistics: Statistics, term: ExponentialSite) -> Float[Array, "K C S"]:
    """The sums of the term's statistics in every component and copy."""
    if term.is_assignment:
        return form.assignment_statistics(term) * event_counts(form, statistics, term)[:, :, None]
    sums = statistics.sums[:, form.natural_columns(term)]
    return sums.reshape(-1, term.copies, term.num_statistics)


def mean_statistics(form: ExponentialForm, statistics: Statistics, term: ExponentialSite) -> Float[Array, "K C S"]:
    """The average of the term's statistics in every component and copy; zero in an empty one."""
    if term.is_assignment:
        means = form.assignment_statistics(term).astype(statistics.counts.dtype)
        return jnp.broadcast_to(means, (len(means), term.copies, term.num_statistics))
    counts = event_counts(form, statistics, term)
    return term_sums(form, statistics, term) / jnp.where(counts > 0, counts, 1.0)[:, :, None]


def event_counts(form: ExponentialForm, statistics: Statistics, term: ExponentialSite) -> Float[Array, "K C"]:
    """How many events of the term speak of every component and copy; ``[K, 1]`` if all are there."""
    if not term.partial:
        return jnp.asarray(statistics.counts)[:, None]
    stop = form.columns(term).stop
    return statistics.sums[:, stop - term.copies : stop]


def column_counts(form: ExponentialForm, counts: Float[Array, " K"], sums: Float[Array, "K S"]) -> Float[Array, "K _"]:
    """How many events speak of every component, for every column; ``[K, 1]`` if all are there."""
    if form.indicators is None:
        return counts[:, None]
    return jnp.where(form.indicators < 0, counts[:, None], sums[:, np.maximum(form.indicators, 0)])


def widened(form: ExponentialForm, statistics: Statistics, variance: NoiseVariance | None) -> Statistics:
    """The statistics of rows to which noise of this variance was added, on average: S + n E[T(noise)]."""
    if variance is None:
        return statistics
    columns, first = [jnp.zeros(0, statistics.sums.dtype)], 0
    for term in form.column_terms:
        if term.is_assignment:
            columns.append(jnp.zeros(term.num_columns, statistics.sums.dtype))
            continue
        size = math.prod(term.value_shape)
        for copy in range(term.copies):
            first += size * (copy > 0 and copy % term.num_cells == 0)
            here = slice(first, first + size)
            covariance = variance * jnp.eye(size) if variance.ndim == 0 else variance[here, here]
            covariance = covariance.astype(statistics.sums.dtype).reshape(term.value_shape * 2)
            columns.append(term.view.spread(covariance) if term.takes_noise else jnp.zeros(term.num_statistics))
        first += size
        columns.append(jnp.zeros(term.copies * term.partial, statistics.sums.dtype))
    added = jnp.concatenate(columns)
    events = column_counts(form, statistics.counts, statistics.sums)
    return statistics._replace(sums=statistics.sums + events * added[None, :])


class DataTotals(NamedTuple):
    """What the pass needs of the data and is the same in every step: origins, totals, constants.

    ``sums`` are the statistics summed over all rows: all that is needed of the columns that do not vary between
    components. ``log_base_measure`` is sum_n w_n h(x_n) of each of T terms, nats; ``total_weight`` sum_n w_n.
    ``added_variance`` is that of the noise which the M half-step, and it alone, sees on the rows of location families.
    """

    shifts: Mapping[str, Array]
    sums: Float[Array, " S"]
    log_base_measure: Float[Array, " T"]
    total_weight: Float[Array, ""]
    added_variance: NoiseVariance | None = None


def about_zero(totals: DataTotals) -> DataTotals:
    """With the origins of sparse rows, for what is asked about rows; the sums are still those about other origins."""
    return totals._replace(shifts={name: jnp.zeros_like(shift) for name, shift in totals.shifts.items()})
