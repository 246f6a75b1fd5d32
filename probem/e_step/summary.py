"""The additive results of the E half-step: sums over rows."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.form.statistics import DataTotals, Statistics
from probem.plan.plan import Plan


class Summary(NamedTuple):
    """Sums over rows: the additive statistics of the columns that vary, and the bound's local terms (nats).

    ``entropy`` is that of the assignments, ``filled`` that of the entries that were filled in. ``noise`` sums a
    pseudo-random number of each row, where a density is generic: components with equal shares of every row have equal
    means of it, and other components do not. ``generic`` is the expected log joint on the generic path, and ``highest``
    the sum of the log densities that would know each of its ``plan.continuous`` values to rounding.
    """

    counts: Float[Array, " K"]
    sums: Float[Array, "K S"]
    noise: Float[Array, " K"]
    highest: Float[Array, " K"]
    generic: Float[Array, " K"]
    entropy: Float[Array, ""]
    filled: Float[Array, ""]
    gap: Float[Array, ""]
    moved: Int[Array, ""]
    gradient: Float[Array, " P"]


def zero_summary(plan: Plan, num_gradient: int) -> Summary:
    """The sums over no rows; ``num_gradient`` is the number P of unconstrained values on the gradient route."""
    zero = jnp.zeros((), plan.dtype)
    by_component = jnp.zeros(plan.num_components if plan.form.generic else 0, plan.dtype)
    return Summary(
        counts=jnp.zeros(plan.num_components, plan.dtype),
        sums=jnp.zeros((plan.num_components, len(plan.varying)), plan.dtype),
        noise=by_component,
        highest=by_component,
        generic=by_component,
        entropy=zero,
        filled=zero,
        gap=zero,
        moved=jnp.zeros((), jnp.int32),
        gradient=jnp.zeros(num_gradient, plan.dtype),
    )


def all_statistics(plan: Plan, summary: Summary, totals: DataTotals) -> Statistics:
    """The statistics over all columns; of those that do not vary only the total matters: dealt out by count."""
    constant = np.setdiff1d(np.arange(plan.form.num_columns), plan.varying)
    if not len(constant):
        return Statistics(summary.counts, summary.sums, totals.shifts)
    if plan.form.indicators is None:
        proportions = (summary.counts / totals.total_weight)[:, None]
    else:
        indicators = plan.form.indicators[constant]
        where = np.searchsorted(plan.varying, np.maximum(indicators, 0))
        events = jnp.where(indicators < 0, summary.counts[:, None], summary.sums[:, where])
        proportions = events / jnp.where(events.sum(0) > 0, events.sum(0), 1.0)
    shared = jnp.broadcast_to(proportions * totals.sums[constant][None, :], (plan.num_components, len(constant)))
    return Statistics(summary.counts, _in_order(plan, summary.sums, shared), totals.shifts)


def _in_order(plan: Plan, varying: Float[Array, "K _"], constant: Float[Array, "K _"]) -> Float[Array, "K S"]:
    """Both kinds of columns where they belong. Where they take turns, as a mean that varies and a variance that does
    not, in very wide rows, that is no gather.
    """
    is_varying = plan.form.varying
    alternate = np.arange(len(is_varying)) % 2 == (0 if is_varying[0] else 1)
    if varying.shape == constant.shape and (is_varying == alternate).all():
        pair = (varying, constant) if is_varying[0] else (constant, varying)
        return jnp.stack(pair, 2).reshape(len(varying), -1)
    order = np.argsort(np.concatenate([plan.varying, np.flatnonzero(~is_varying)]))
    return jnp.concatenate([varying, constant], 1)[:, order]


def is_finite(gradient: Float[Array, "..."]) -> Bool[Array, ""]:
    """Whether every entry of a gradient is a finite number."""
    return jnp.isfinite(gradient).all()
