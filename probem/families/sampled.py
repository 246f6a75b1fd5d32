"""Stochastic EM: the assignments are drawn from their posterior."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from probem.errors import InputError
from probem.families.assignments import AssignmentFamily, HalfStep
from probem.families.posteriors import Dense, softmax


@dataclasses.dataclass(frozen=True)
class Sampled(AssignmentFamily):
    """Every t_n is drawn from its posterior, and q is the average of the point masses on its draws.

    One draw is stochastic EM; many are Monte Carlo EM, and in the limit EM. The parameters do not converge: they are a
    Markov chain, whose stationary distribution lies around the maximum of the likelihood, and which leaves saddles and
    shallow maxima. So the answer is an average over iterations, by the rule ``probem.stopping.Averages``, which ends a
    fit if no other ``tolerance`` is asked for. A row is drawn once whatever its weight. The last E half-step takes the
    posterior itself: F of a fit that has ended is that of EM at the parameters of the fit, without chance. CONVERGED
    says that F is stationary, and no more: where components trade places, or the chain moves between maxima, the
    average lies between them, and its F below that of each. EM from there (``init=probem.Parameters(fit.params)``)
    tells. In a component with few rows a draw may leave none, or too few for a spread of its own (``SINGULAR``): a
    prior, or a spread that is shared, helps.

    Source: Celeux & Diebolt (1985), The SEM algorithm, section 2; Wei & Tanner (1990), A Monte Carlo implementation of
    the EM algorithm; Nielsen (2000), The stochastic EM algorithm: estimation and asymptotic results, Bernoulli 6, for
    the distribution.

    Parameters
    ----------
    draws : how many times every t_n is drawn in an E half-step, a whole number of at least 1

    Raises
    ------
    InputError
        For any other ``draws``.
    """

    draws: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.draws, int) or isinstance(self.draws, bool) or self.draws < 1:
            raise InputError(
                f"Sampled(draws={self.draws!r})",
                "a whole number of at least 1",
                "use Sampled() for one draw, Categorical() for the limit of many",
            )

    def project(self, table: Float[Array, "n K"]) -> Dense:
        return softmax(table)

    def assign(self, table: Float[Array, "n K"], memory: Any, half_step: HalfStep) -> tuple[Dense, Any]:
        q = _frequencies(half_step.key, softmax(table).q, self.draws)
        return Dense(q, jnp.log(jnp.where(q > 0, q, 1.0))), memory

    @property
    def is_stochastic(self) -> bool:
        return True


def _frequencies(key: PRNGKeyArray, probabilities: Float[Array, "n K"], draws: int) -> Float[Array, "n K"]:
    """How often each value comes in so many draws, as a share, by inverting the distribution function.

    One uniform number a draw: a maximum of Gumbel variables would take one for each value.
    """
    # Components first, as the table lies in memory.
    until = jnp.cumsum(probabilities.T, axis=0)
    values = jnp.arange(len(until), dtype=jnp.int32)[:, None]

    def add(number: Any, counts: Float[Array, "K n"]) -> Float[Array, "K n"]:
        uniform = jax.random.uniform(jax.random.fold_in(key, number), until.shape[1:], until.dtype)
        # At most 1 - eps: times the total it is below the total, and the value has a positive probability.
        below = until <= uniform * until[-1]
        return counts + (below.sum(0, dtype=jnp.int32) == values)

    counts = jnp.zeros_like(until)
    counts = add(0, counts) if draws == 1 else jax.lax.fori_loop(0, draws, add, counts)
    return (counts / draws).T
