"""The multinomial distribution of counts, given by its probabilities or by logits."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Shaped

from .base import Arguments, as_floating
from .categorical import Categorical


@dataclasses.dataclass(frozen=True)
class Multinomial(Categorical):
    """Counts x of C categories, whose sum is the number of trials: T(x) = x, A = 0, h(x) = log n! - sum_c log x_c!.

    The number of trials is in the base measure alone, and follows from the counts.
    """

    distributions: ClassVar = (dist.MultinomialProbs, dist.MultinomialLogits)

    @classmethod
    def of(cls, distribution: dist.Distribution) -> "Multinomial":
        """Finds out which argument was given, and counts the categories."""
        argument = "probs" if isinstance(distribution, dist.MultinomialProbs) else "logits"
        return cls(argument, jnp.shape(getattr(distribution, argument))[-1])

    def statistics(self, x: Shaped[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        """The counts themselves."""
        return as_floating(x)

    def log_base_measure(self, x: Shaped[Array, "*batch C"]) -> Float[Array, "*batch"]:
        """The log multinomial coefficient, minus infinity off the support."""
        x = as_floating(x)
        return jnp.where((x >= 0).all(-1), gammaln(x.sum(-1) + 1) - gammaln(x + 1).sum(-1), -jnp.inf)

    def from_moment(
        self, name: str, moment: Float[Array, "*batch C"], arguments: Arguments
    ) -> Float[Array, "*batch C"]:
        """The share of each category in the counts, or its log."""
        total = moment.sum(-1, keepdims=True)
        return super().from_moment(name, moment / jnp.where(total > 0, total, 1.0), arguments)
