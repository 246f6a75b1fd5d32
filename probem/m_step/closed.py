"""Updates in closed form: moments, pooled over what is shared."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.form.centring import argument_moment
from probem.form.statistics import Statistics, event_counts, mean_statistics
from probem.mean_field.mean_field import MeanField
from probem.plan.links import Link
from probem.program.fixed import Masks, hold
from probem.program.sites import Params


def closed_updates(
    mean_field: MeanField, links: Sequence[Link], statistics: Statistics, params: Params, fixed: Masks = ()
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
        means = mean_statistics(form, statistics, term)
        moment = argument_moment(term, link.argument, means, arguments, statistics.shifts)
        events = event_counts(form, statistics, term)
        rows_per_entry = events.reshape(*events.shape, *(1,) * (moment.ndim - 2))
        weight = jnp.broadcast_to(rows_per_entry, moment.shape).reshape(-1)
        pooled = moment.reshape(-1)
        if link.is_pooled:
            weight, pooled = _pooled(link, weight, pooled)
        pooled = jnp.where(jnp.asarray(link.zero), 0.0, pooled)
        current = arguments[link.argument]
        # What no row speaks of stands at its current value, so that the inversion below stays finite.
        value = term.view.from_moment(link.argument, pooled.reshape(moment.shape), arguments)
        value = jnp.where(weight.reshape(moment.shape) > 0, value, current).reshape(-1)
        for name, source in link.source.items():
            new = value[jnp.asarray(source)].reshape(params[name].shape).astype(params[name].dtype)
            params[name] = hold(form.program, fixed, name, new, params[name])
    return params


def _pooled(
    link: Link, weight: Float[Array, " E"], moment: Float[Array, " E"]
) -> tuple[Float[Array, " E"], Float[Array, " E"]]:
    """The weight and the average of the moments of its group in the place of those of every entry."""
    # A sum along an axis compiles, and runs, in a fraction of the time of a scatter.
    is_there, group = link.members >= 0, jnp.asarray(link.group)
    members = jnp.asarray(np.maximum(link.members, 0))
    weights = jnp.where(is_there, weight[members], 0.0)
    rows = weights.sum(1)
    total = jnp.where(weights > 0, weights * moment[members], 0.0).sum(1)
    mean = total / jnp.where(rows > 0, rows, 1.0)
    return jnp.where(group < 0, weight, rows[group]), jnp.where(group < 0, moment, mean[group])
