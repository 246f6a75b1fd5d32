"""The M half-step: from additive statistics to parameters."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from .fixed import Masks, hold
from .linear import Form, Linear, Term
from .links import Link
from .program import Params

if TYPE_CHECKING:
    from .mean_field import MeanField
    from .plan import Plan


class Statistics(NamedTuple):
    """All that the data says to the parameters: ``counts`` [K], ``sums`` [K, S], and the origins of the sums."""

    counts: Array
    sums: Array
    shifts: Mapping[str, Array]


def expected(linear: Linear, statistics: Statistics) -> Array:
    """E_q of the exponential-family part of the log joint: <W, S> + <c, n>, nats; 0 * inf counts as 0."""
    # So does what is left of a statistic whose mean is rounded to zero: a probability that EM has taken to the end of
    # the numbers.
    number = jnp.finfo(statistics.sums.dtype)
    least = number.tiny / number.eps * jnp.maximum(statistics.counts, 1.0)[:, None]
    nothing = (statistics.sums == 0) | (jnp.isinf(linear.weight) & (jnp.abs(statistics.sums) <= least))
    inner = jnp.where(nothing, 0.0, linear.weight * statistics.sums).sum()
    offset = jnp.where(statistics.counts == 0, 0.0, linear.offset * statistics.counts).sum()
    return inner + offset + linear.level * statistics.counts.sum()


def objective(mean_field: "MeanField", statistics: Statistics, params: Params) -> Array:
    """What an M-step maximises, given the statistics: expected log joint, log prior and entropy of the parameters."""
    return expected(mean_field.linear(params, statistics.shifts), statistics) + mean_field.log_prior(params)


def mean_statistics(form: Form, statistics: Statistics, term: Term) -> Array:
    """The average of the term's statistics in every component, ``[K, copies, S]``; zero in an empty one."""
    if term.is_assignment:
        return form.assignment_statistics(term).astype(statistics.counts.dtype)
    first = form.columns(term).start
    sums = statistics.sums[:, first : first + term.copies * term.num_statistics]
    counts = event_counts(form, statistics, term)
    return sums.reshape(-1, term.copies, term.num_statistics) / jnp.where(counts > 0, counts, 1.0)[:, :, None]


def event_counts(form: Form, statistics: Statistics, term: Term) -> Array:
    """How many events of the term speak of every component and copy, ``[K, copies]``; ``[K, 1]`` if none is missing."""
    if not term.partial:
        return jnp.asarray(statistics.counts)[:, None]
    stop = form.columns(term).stop
    return statistics.sums[:, stop - term.copies : stop]


def widened(form: Form, statistics: Statistics, variance: Array | None) -> Statistics:
    """The statistics of rows to which noise of this variance was added, on average: S + n E[T(noise)].

    ``variance`` is a number, or the covariance matrix ``[F, F]`` of all numbers observed in a row.
    """
    if variance is None:
        return statistics
    columns, first = [jnp.zeros(0, statistics.sums.dtype)], 0
    for term in form.data_terms:
        size = math.prod(term.event_shape)
        for _ in range(term.copies):
            here = slice(first, first + size)
            own = variance * jnp.eye(size) if variance.ndim == 0 else variance[here, here]
            own = own.astype(statistics.sums.dtype).reshape(term.event_shape * 2)
            columns.append(term.view.spread(own) if term.view.is_location else jnp.zeros(term.num_statistics))
            first += size
        columns.append(jnp.zeros(term.copies * term.partial, statistics.sums.dtype))
    added = jnp.concatenate(columns)
    events = statistics.counts[:, None] if form.indicators is None else statistics.sums[:, form.indicators]
    return statistics._replace(sums=statistics.sums + events * added[None, :])


def closed_updates(
    mean_field: "MeanField", links: Sequence[Link], statistics: Statistics, params: Params, fixed: Masks = ()
) -> Params:
    """Moment matching for every link in turn: pool the moments over what is shared, invert, read off the parameters.

    A parameter entry that no row speaks of (an empty component), or that is fixed, keeps its value.
    """
    form = mean_field.form
    terms = {term.site: term for term in form.terms}
    params = dict(params)
    for link in links:
        term = terms[link.site]
        arguments = form.arguments(mean_field.points(params))[link.site]
        shift = jnp.zeros(()) if term.is_assignment else statistics.shifts[link.site]
        moment = term.view.moment(link.argument, mean_statistics(form, statistics, term), arguments, shift)
        events = event_counts(form, statistics, term)
        rows_per_entry = events.reshape(*events.shape, *(1,) * (moment.ndim - 2))
        weight = jnp.broadcast_to(rows_per_entry, moment.shape).reshape(-1)
        group = jnp.asarray(link.group)
        pooled = moment.reshape(-1)
        if link.is_pooled:
            num_groups = int(link.group.max()) + 1
            rows = jax.ops.segment_sum(weight, jnp.where(group < 0, num_groups, group), num_groups + 1)
            total = jax.ops.segment_sum(
                jnp.where(weight > 0, weight * pooled, 0.0), jnp.where(group < 0, num_groups, group), num_groups + 1
            )
            weight = jnp.where(group < 0, weight, rows[group])
            pooled = jnp.where(group < 0, pooled, total[group] / jnp.where(weight > 0, weight, 1.0))
        pooled = jnp.where(jnp.asarray(link.zero), 0.0, pooled)
        current = arguments[link.argument]
        # What no row speaks of stands at its current value, so that the inversion below stays finite.
        value = term.view.from_moment(link.argument, pooled.reshape(moment.shape), arguments)
        value = jnp.where(weight.reshape(moment.shape) > 0, value, current).reshape(-1)
        for name, source in link.source.items():
            found = value[jnp.asarray(source)].reshape(params[name].shape).astype(params[name].dtype)
            params[name] = hold(form.program, fixed, name, found, params[name])
    return params


def maximise(plan: "Plan", statistics: Statistics, params: Params) -> Params:
    """The parameters after the closed and the numeric updates of points, and the updates of full posteriors."""
    params = closed_updates(plan.mean_field, plan.closed, statistics, params, plan.fixed)
    if plan.numeric:
        # Importing the optimiser takes most of a second, and most programs do without.
        from .numeric import numeric_updates

        params = numeric_updates(plan, statistics, params)
    return plan.mean_field.maximise(statistics, params)


def collapsed(plan: "Plan", statistics: Statistics, params: Params) -> Array:
    """Which components have a density that collapsed to rounding, ``[K]``, bool."""
    found = jnp.zeros(plan.num_components, bool)
    arguments = plan.form.arguments(plan.mean_field.points(params))
    for term in plan.form.data_terms:
        if term.site in plan.spreads:
            means = mean_statistics(plan.form, statistics, term)
            degenerate = term.view.degenerate_completed if term.completes else term.view.degenerate
            own = degenerate(means, arguments[term.site], statistics.shifts[term.site])
            own = own.reshape(plan.num_components, -1) & jnp.asarray(plan.spreads[term.site])
            found = found | own.any(1)
    return found & (statistics.counts > 0)
