"""Starts that no probability of zero holds back.

Labels give a discrete density a probability of exactly zero for what no row of a component shows. Zero is absorbing: a
row that shows it never belongs to the component, in no later step. A start mixes some of all rows into such densities.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.e_step.initial_q import SOFTENING
from probem.form.sites import ExponentialSite
from probem.form.statistics import Statistics, event_counts, mean_statistics
from probem.plan.plan import Plan


def soften_zeros(plan: Plan, statistics: Statistics) -> Statistics:
    """Statistics of which no discrete density gets an absorbing estimate: there, a tenth of them is that of all rows.

    Counts stay, and so do the statistics of every other density.
    """
    sums = statistics.sums
    for term in plan.softened_terms:
        first = plan.form.columns(term).start
        here = slice(first, first + term.copies * term.num_statistics)
        sums = sums.at[:, here].set(_softened(plan, statistics, term).reshape(len(sums), -1))
    return statistics._replace(sums=sums)


def _softened(plan: Plan, statistics: Statistics, term: ExponentialSite) -> Float[Array, "K C S"]:
    """The sums of one term."""
    means = mean_statistics(plan.form, statistics, term)
    events = event_counts(plan.form, statistics, term)[:, :, None]
    total = events.sum(0)
    overall = (events * means).sum(0) / jnp.where(total > 0, total, 1.0)
    absorbing = term.view.absorbing(means, overall[None])[:, :, None]
    mixed = (1 - SOFTENING) * means + SOFTENING * overall[None]
    return events * jnp.where(absorbing, mixed, means)


def soften_counts(plan: Plan, statistics: Statistics, total_weight: Float[Array, ""]) -> Statistics:
    """Statistics of which every component gets an equal share of a tenth of all rows, whatever their density."""
    counts = (1 - SOFTENING) * statistics.counts + SOFTENING * total_weight / plan.num_components
    sums = (1 - SOFTENING) * statistics.sums
    sums = sums + SOFTENING * (statistics.sums.sum(0) / plan.num_components)[None, :]
    return statistics._replace(counts=counts, sums=sums)
