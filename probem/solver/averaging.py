"""Averages over the iterations of a fit whose assignments are drawn: the answer, and whether it is stationary.

A Markov chain has no last iteration that is better than the others; its average has an error that falls as one over
the number of iterations. Source: Nielsen (2000), Bernoulli 6, section 4, for averages of stochastic EM; Polyak &
Juditsky (1992), Acceleration of stochastic approximation by averaging, for the mechanism.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import constraints

from probem.form.statistics import DataTotals
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.state import Limits, State
from probem.stopping import Averages

# The first batches, which are left out, and the iterations that each has at least: neighbours are not independent.
_LEFT_OUT, _SHORTEST = 16, 8


class Batches(NamedTuple):
    """Means of F over runs of neighbouring iterations of one length: ``sums`` of the runs, of F above its ``first``
    value, nats, and the ``length`` of each, a power of two; ``count`` iterations are in them.

    There is room for 64. Once they are full two become one, so that from the 32nd iteration on there are 32 to 63, of
    which the first 16 are left out: between a quarter and a half of all iterations.
    """

    first: Float[Array, ""]
    sums: Float[Array, " B"]
    length: Int[Array, ""]
    count: Int[Array, ""]

    @classmethod
    def none(cls, dtype: Any) -> "Batches":
        sums = jnp.zeros(4 * _LEFT_OUT, dtype)
        return cls(jnp.zeros((), dtype), sums, jnp.asarray(1, jnp.int32), jnp.asarray(0, jnp.int32))

    @property
    def are_full(self) -> Bool[Array, ""]:
        return self.count == len(self.sums) * self.length

    def merged(self) -> "Batches":
        """Half as many, of twice the length, where there is no room for another iteration."""
        pairs = jnp.concatenate([self.sums.reshape(-1, 2).sum(1), jnp.zeros(len(self.sums) // 2, self.sums.dtype)])
        sums, length = jnp.where(self.are_full, pairs, self.sums), jnp.where(self.are_full, 2, 1) * self.length
        return self._replace(sums=sums, length=length)

    def with_value(self, value: Float[Array, ""]) -> "Batches":
        """Those with one iteration more."""
        first = jnp.where(self.count == 0, value, self.first)
        sums = self.sums.at[self.count // self.length].add(value - first)
        return self._replace(first=first, sums=sums, count=self.count + 1)

    def are_stationary(self, tolerance: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether the error of the mean is at most the tolerance, and its halves differ by no more than a tenth of
        that, or than twice the error of their difference, which is twice that of the mean.
        """
        place, number = jnp.arange(len(self.sums)), self.count // self.length
        middle = (_LEFT_OUT + number) // 2
        means = self.sums / self.length
        error = jnp.sqrt(_variance(means, (place >= _LEFT_OUT) & (place < number)))
        drift = _mean(means, (place >= middle) & (place < number)) - _mean(
            means, (place >= _LEFT_OUT) & (place < middle)
        )
        is_whole = (self.count % self.length == 0) & (number >= 2 * _LEFT_OUT) & (self.length >= _SHORTEST)
        return is_whole & (error <= tolerance) & (jnp.abs(drift) <= jnp.maximum(tolerance / 10, 4 * error))


def _mean(values: Float[Array, " B"], chosen: Bool[Array, " B"]) -> Float[Array, ""]:
    return jnp.where(chosen, values, 0.0).sum() / jnp.maximum(chosen.sum(), 1)


def _variance(values: Float[Array, " B"], chosen: Bool[Array, " B"]) -> Float[Array, ""]:
    """That of the mean of independent values."""
    number = chosen.sum()
    squares = jnp.where(chosen, (values - _mean(values, chosen)) ** 2, 0.0).sum()
    return squares / jnp.maximum(number * (number - 1), 1)


class Mean(NamedTuple):
    """The mean of parameters over so many iterations (``count``)."""

    values: Params
    count: Int[Array, ""]

    def with_others(self, values: Params, count: Int[Array, ""] | int) -> "Mean":
        """That over other iterations as well, of which these are the mean."""
        total = self.count + count

        def mean(old: Any, new: Any) -> Any:
            share = jnp.asarray(count, old.dtype) / jnp.maximum(total, 1).astype(old.dtype)
            return old + share * (new - old)

        return Mean(jax.tree.map(mean, self.values, values), total)


class Past(NamedTuple):
    """What is remembered of the iterations: F in ``batches``, the mean of the parameters over the batches 16 to 31
    (``earlier``) and from 32 on (``later``), in the coordinates of ``_flat``, and whether they ``moved`` to the mean.
    """

    batches: Batches
    earlier: Mean
    later: Mean
    moved: Bool[Array, ""]

    def with_iteration(self, objective: Float[Array, ""], params: Params) -> "Past":
        """One iteration more: what it evaluated."""
        nothing = Mean(jax.tree.map(jnp.zeros_like, params), jnp.zeros_like(self.later.count))
        earlier, later = _chosen(self.batches.are_full, (self.later, nothing), (self.earlier, self.later))
        batches = self.batches.merged()
        place = batches.count // batches.length
        is_early, is_late = (place >= _LEFT_OUT) & (place < 2 * _LEFT_OUT), place >= 2 * _LEFT_OUT
        earlier = _chosen(is_early, earlier.with_others(params, 1), earlier)
        later = _chosen(is_late, later.with_others(params, 1), later)
        return Past(batches.with_value(objective), earlier, later, self.moved)

    @property
    def mean(self) -> Mean:
        """That over all iterations which are not left out."""
        return self.earlier.with_others(*self.later)


def _chosen(condition: Bool[Array, ""], new: Any, old: Any) -> Any:
    return jax.tree.map(lambda one, other: jnp.where(condition, one, other), new, old)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Averaging:
    """Moves the state to the mean over iterations before the last E half-step: once the rule ``Averages`` holds, or
    where no more iterations are left.
    """

    def begin(self, plan: Plan, state: State) -> Past:
        """Nothing is remembered."""
        nothing = Mean(jax.tree.map(jnp.zeros_like, _flat(plan, state.params)), jnp.asarray(0, jnp.int32))
        return Past(Batches.none(plan.dtype), nothing, nothing, jnp.asarray(False))

    def between(
        self, plan: Plan, steps: tuple[State, State], past: Past, totals: DataTotals, limits: Limits
    ) -> tuple[State, Past, Int[Array, ""]]:
        """The state after a step, or at the mean; recorded is whether the step evaluated the mean."""
        (before, after), rule = steps, limits.rule
        assert isinstance(rule, Averages)
        # F under the posterior of the assignments.
        now = past.with_iteration(after.bound.elbo + after.bound.gap, _flat(plan, before.params))
        mean, is_stationary = now.mean, now.batches.are_stationary(rule.tolerance)
        moves = (is_stationary | (after.step + 1 >= limits.max_steps)) & (mean.count > 0) & ~past.moved
        params = _chosen(moves, _folded(plan, mean.values, after.params), after.params)
        natural, log_prior = _chosen(moves, plan.evaluated(params, totals.shifts), (after.natural, after.log_prior))
        settled = after.settled | (is_stationary & moves)
        state = after._replace(params=params, natural=natural, log_prior=log_prior, settled=settled)
        return state, now._replace(moved=past.moved | moves), past.moved.astype(jnp.int32)


def _flat(plan: Plan, params: Params) -> Params:
    """The parameters where their averages are parameters: as they are, but for Cholesky factors of correlations, whose
    rows are of length 1: those are unconstrained.
    """
    return {
        name: plan.program.bijection(name).inv(value) if _is_curved(plan, name, value) else value
        for name, value in params.items()
    }


def _folded(plan: Plan, flat: Params, params: Params) -> Params:
    """The parameters of averages; ``params`` are some of them."""
    return {
        name: plan.program.bijection(name)(flat[name]) if _is_curved(plan, name, value) else flat[name]
        for name, value in params.items()
    }


def _is_curved(plan: Plan, name: str, value: Any) -> bool:
    """Whether an average of values is no value."""
    constraint: Any = None if isinstance(value, dict) else plan.program.constraints.get(name)
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    return constraint is constraints.corr_cholesky
