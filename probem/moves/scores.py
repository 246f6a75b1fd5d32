"""F where a move starts, from additive statistics alone: no pass over the rows.

At a q of the assignments F is its entropy and what an M half-step makes of the statistics. Those of merged components
are sums; so a score is F after the first M half-step from there, which the iterations that follow only raise. Source:
Hughes & Sudderth (2013), Memoized online variational inference for Dirichlet process mixture models, section 3.2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.form.statistics import DataTotals, Statistics, expected, widened
from probem.jit.compilation import by_plan
from probem.m_step.maximise import maximise
from probem.moves.rearrangement import Rearrangement
from probem.plan.plan import Plan
from probem.program.sites import Params

# Arrangements that are valued in one call.
_AT_ONCE = 8


class Sums(NamedTuple):
    """Counts ``[K]`` and sums ``[K, S]`` of components; of a part of one, without the axis K."""

    counts: Float[np.ndarray, "*K"]
    sums: Float[np.ndarray, "*K S"]


@by_plan
def _values(
    plan: Plan, params: Params, totals: DataTotals, counts: Float[Array, "B K"], sums: Float[Array, "B K S"]
) -> Float[Array, " B"]:
    """The expected log joint and the terms of the parameters after an M half-step at these statistics, nats."""

    def value(one: tuple[Float[Array, " K"], Float[Array, "K S"]]) -> Float[Array, ""]:
        statistics = Statistics(*one, totals.shifts)
        made = maximise(plan, widened(plan.form, statistics, totals.added_variance), params)
        natural, log_prior = plan.evaluated(made, totals.shifts)
        return expected(natural, statistics) + log_prior

    return jax.lax.map(value, (counts, sums))


def values(
    plan: Plan,
    params: Params,
    totals: DataTotals,
    sums: Sums,
    arrangements: Sequence[tuple[Rearrangement, Sums | None]],
) -> Float[np.ndarray, " A"]:
    """What each arrangement of the statistics is worth, but for the entropy of the assignments, nats; -inf for what is
    no number.
    """
    made = []
    for first in range(0, len(arrangements), _AT_ONCE):
        these = list(arrangements[first : first + _AT_ONCE])
        padded = these + [these[-1]] * (_AT_ONCE - len(these))
        counts = np.stack([one.of(sums.counts, part and part.counts) for one, part in padded])
        each = np.stack([one.of(sums.sums, part and part.sums) for one, part in padded])
        valued = _values(plan, params, totals, jnp.asarray(counts, plan.dtype), jnp.asarray(each, plan.dtype))
        made.append(np.asarray(valued, float)[: len(these)])
    numbers = np.concatenate(made) if made else np.zeros(0)
    return np.where(np.isfinite(numbers), numbers, -np.inf)


def entropy_change(
    q: Float[np.ndarray, "N K"], weights: Float[np.ndarray, " N"], merge: tuple[int, int] | None
) -> float:
    """How much the entropy of the assignments changes if two components become one, nats, total: it falls."""
    if merge is None:
        return 0.0
    one, other = q[:, merge[0]], q[:, merge[1]]
    both = (one > 0) & (other > 0)
    one, other, weights = one[both], other[both], weights[both]
    return float(weights @ (one * np.log(one) + other * np.log(other) - (one + other) * np.log(one + other)))
