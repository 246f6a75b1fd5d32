"""The categorical distribution, given by its probabilities or by logits."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Shaped

from .base import Arguments, ExponentialFamily, Location, as_floating


@dataclasses.dataclass(frozen=True)
class Categorical(ExponentialFamily):
    """The categorical distribution over C categories, all of them in T, so that A = 0.

    A category that does not exist would be a row of zeros in T, of probability one: h gives it its minus infinity.
    """

    #: Which argument the distribution was given.
    argument: str
    num_categories: int

    distributions: ClassVar = (dist.CategoricalProbs, dist.CategoricalLogits)

    @classmethod
    def of(cls, distribution: dist.Distribution) -> "Categorical":
        """Finds out which argument was given, and counts the categories."""
        argument = "probs" if isinstance(distribution, dist.CategoricalProbs) else "logits"
        return cls(argument, jnp.shape(getattr(distribution, argument))[-1])

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The one that was given."""
        return (self.argument,)

    def argument_event_ndims(self, name: str) -> int:
        """One: the categories."""
        del name
        return 1

    def statistics(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch C"]:
        """One-hot."""
        return jax.nn.one_hot(jnp.asarray(x, int), self.num_categories, dtype=as_floating(x).dtype)

    def natural(self, arguments: Arguments) -> Float[Array, "... C"]:
        """Log probabilities, minus infinity where zero."""
        if self.argument == "logits":
            return jax.nn.log_softmax(as_floating(arguments["logits"]), axis=-1)
        probs = as_floating(arguments["probs"])
        # The inner `where` keeps the derivative at zero from being infinity times zero.
        return jnp.where(probs > 0, jnp.log(jnp.where(probs > 0, probs, 1.0)), -jnp.inf)

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """Zero."""
        value = as_floating(arguments[self.argument])
        return jnp.zeros(value.shape[:-1], value.dtype)

    def log_base_measure(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Zero on the support, minus infinity off it."""
        x = as_floating(x)
        return jnp.where((x >= 0) & (x < self.num_categories), jnp.zeros_like(x), -jnp.inf)

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... C"]:
        """Log probabilities, as ``natural``."""
        return self.natural(arguments)

    def expected(
        self, statistics: Float[Array, "*batch C"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "*batch C"], Float[Array, "*batch"]]:
        """Expected log probabilities; zero."""
        del location, arguments
        return statistics, jnp.zeros(statistics.shape[:-1], statistics.dtype)

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch C"], arguments: Arguments
    ) -> Float[Array, "*batch C"]:
        """The fraction of rows in each category."""
        del name, arguments
        return mean_statistics

    def from_moment(
        self, name: str, moment: Float[Array, "*batch C"], arguments: Arguments
    ) -> Float[Array, "*batch C"]:
        """The fractions themselves, or their logs.

        The logit of an empty category is the log of the smallest normal number: finite, and no probability is lost.
        """
        del arguments
        return moment if name == "probs" else jnp.log(jnp.maximum(moment, jnp.finfo(moment.dtype).tiny))

    def absorbing(
        self, mean_statistics: Float[Array, "*batch C"], overall: Float[Array, "... C"]
    ) -> Bool[Array, "*batch"]:
        """A category that no row of the component has, and another row does."""
        return ((mean_statistics <= 0) & (overall > 0)).any(-1)
