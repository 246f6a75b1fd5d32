"""Which seed is the start of which component, where the components of a program are not exchangeable.

Seeds come in no order; means ``low`` and ``low + d`` with d > 0 have one. Under the q of seeds, a permutation of the
components permutes the rows of the statistics, so each order is judged by F after the first M half-step.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals, Statistics, expected
from probem.m_step.maximise import collapsed
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.state import State

# Up to so many components every order is tried, where that takes no pass over the data and where it does.
_MOST_ALL, _MOST_ALL_PASSES = 4, 3
# Columns by which more components are sorted, in either direction.
_MOST_COLUMNS = 8
# Orders tried by exchanging two components of the best so far.
_MOST_EXCHANGES = 120


class InOrder(NamedTuple):
    """What an M-step made of ``statistics``, and natural parameters and log prior there."""

    params: Params
    statistics: Statistics
    evaluated: tuple[NaturalParameters, Float[Array, ""]]


class _Best(NamedTuple):
    """The best order so far, F under it but for what all orders share, and what its M-step made and saw."""

    value: Float[Array, ""]
    order: Int[Array, " K"]
    made: InOrder


def maximised_in_best_order(
    plan: Plan, statistics: Statistics, totals: DataTotals, maximised: Callable[[Statistics], tuple[Params, Statistics]]
) -> InOrder:
    """What ``maximised`` makes of the statistics in the order of the highest F: parameters and statistics."""

    def made_of(statistics: Statistics) -> InOrder:
        params, seen = maximised(statistics)
        return InOrder(params, seen, plan.evaluated(params, totals.shifts))

    def attempt(best: _Best, order: Int[Array, " K"]) -> tuple[_Best, None]:
        ordered = statistics._replace(counts=statistics.counts[order], sums=statistics.sums[order])
        made = made_of(ordered)
        value = value_of(*made.evaluated, ordered)
        if plan.spreads:
            value = jnp.where(collapsed(plan, made.statistics, made.params).any(), -jnp.inf, value)
        better = jnp.isnan(best.value) | _is_higher(plan, value, best.value)
        tried = _Best(value.astype(plan.dtype), order, made)
        return jax.tree.map(lambda new, old: jnp.where(better, new, old), tried, best), None

    count = plan.num_components
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(made_of, statistics))
    best = _Best(jnp.full((), jnp.nan, plan.dtype), jnp.arange(count), blank)
    if count <= _MOST_ALL:
        return jax.lax.scan(attempt, best, jnp.asarray(_permutations(count)))[0].made
    columns = statistics.sums[:, plan.varying[:_MOST_COLUMNS]]
    means = columns / jnp.maximum(statistics.counts, 1.0)[:, None]
    first = sorted_orders(jnp.concatenate([statistics.counts[:, None], means], 1))
    pairs = _exchanges(count)
    rounds = _MOST_EXCHANGES // len(pairs)
    length = max(len(first), len(pairs) if rounds else 0)

    def improved(number: Int[Array, ""], best: _Best) -> _Best:
        orders = jnp.where(number == 0, _repeated(first, length), _repeated(best.order[pairs], length))
        return jax.lax.scan(attempt, best, orders)[0]

    return jax.lax.fori_loop(0, 1 + rounds, improved, best).made


def value_of(natural: NaturalParameters, log_prior: Float[Array, ""], statistics: Statistics) -> Float[Array, ""]:
    """F, but for the terms that the order of the seeds leaves as they are, nats; -inf for NaN."""
    value = expected(natural, statistics) + log_prior
    return jnp.where(jnp.isnan(value), -jnp.inf, value)


def orders_by_passes(plan: Plan, seeds: Float[Array, "K F"]) -> Int[Array, "J K"]:
    """Orders to be tried with a pass over the data for each."""
    count = plan.num_components
    return jnp.asarray(_permutations(count)) if count <= _MOST_ALL_PASSES else sorted_orders(seeds[:, :_MOST_COLUMNS])


def sorted_orders(columns: Float[Array, "K C"]) -> Int[Array, "2*C+1 K"]:
    """The order as it is, and those by each of the columns, upwards and downwards."""
    upwards = jnp.argsort(columns, axis=0).T
    return jnp.concatenate([jnp.arange(len(columns))[None], upwards, upwards[:, ::-1]])


def reordered_labels(plan: Plan, labels: Int[Array, " n"], order: Int[Array, " K"]) -> Int[Array, " n"]:
    """Labels with the numbers that components have in this order."""
    del plan
    return jnp.argsort(order)[labels]


def best_state(plan: Plan, made: Sequence[tuple[State, Float[Array, ""]]]) -> State:
    """Of states and their values the state of the best order."""
    best = best_order(plan, [value for _, value in made])
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[best], *(state for state, _ in made))


def best_order(plan: Plan, values: Sequence[Float[Array, ""]]) -> Int[Array, ""]:
    """The order of the highest value, and the first unless another is truly higher."""
    each = jnp.stack(values)
    each = jnp.where(jnp.isnan(each), -jnp.inf, each)
    best = jnp.argmax(each)
    return jnp.where(_is_higher(plan, each[best], each[0]), best, 0)


def _is_higher(plan: Plan, value: Float[Array, ""], other: Float[Array, ""]) -> Bool[Array, ""]:
    """By more than rounding: orders that are equal stay as they are."""
    size = jnp.where(jnp.isfinite(other), jnp.abs(other), 0.0)
    return value > other + jnp.finfo(plan.dtype).eps ** 0.5 * (1.0 + size)


def _permutations(count: int) -> Int[np.ndarray, "J K"]:
    return np.array(list(itertools.permutations(range(count))))


def _exchanges(count: int) -> Int[np.ndarray, "J K"]:
    """Every exchange of two numbers, K (K - 1) / 2 of them."""
    orders = []
    for first, second in itertools.combinations(range(count), 2):
        order = np.arange(count)
        order[[first, second]] = second, first
        orders.append(order)
    return np.array(orders)


def _repeated(orders: Int[Array, "_ K"], length: int) -> Int[Array, "J K"]:
    """As many orders, repeated or cut."""
    return jnp.asarray(orders)[jnp.arange(length) % len(orders)]
