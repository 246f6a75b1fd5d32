"""The Bernoulli distribution, given by its probability or by its logit."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import logit
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped
from numpyro.distributions.util import clamp_probs

from .base import Arguments, ExponentialFamily, Location, as_floating


@dataclasses.dataclass(frozen=True)
class Bernoulli(ExponentialFamily):
    """The Bernoulli distribution with probability p.

    As in NumPyro's density, probabilities are first clamped to [tiny, 1 - eps], so that eta and A stay finite.
    """

    #: Which argument the distribution was given.
    argument: str

    distributions: ClassVar = (dist.BernoulliProbs, dist.BernoulliLogits)

    @classmethod
    def of(cls, distribution: dist.Distribution) -> "Bernoulli":
        """Finds out which argument was given."""
        return cls("probs" if isinstance(distribution, dist.BernoulliProbs) else "logits")

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The one that was given."""
        return (self.argument,)

    def statistics(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch 1"]:
        """x."""
        return as_floating(x)[..., None]

    def natural(self, arguments: Arguments) -> Float[Array, "... 1"]:
        """logit p."""
        value = as_floating(arguments[self.argument])
        return (value if self.argument == "logits" else logit(clamp_probs(value)))[..., None]

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """-log(1 - p)."""
        value = as_floating(arguments[self.argument])
        return jax.nn.softplus(value) if self.argument == "logits" else -jnp.log1p(-clamp_probs(value))

    def log_base_measure(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Zero."""
        return jnp.zeros_like(as_floating(x))

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """log p and log(1 - p)."""
        return log_of_both(self.argument, arguments[self.argument])

    def expected(
        self, statistics: Float[Array, "*batch 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch"]]:
        """E[log p] - E[log(1 - p)]; -E[log(1 - p)]."""
        del location, arguments
        return (statistics[..., 0] - statistics[..., 1])[..., None], -statistics[..., 1]

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch 1"], arguments: Arguments
    ) -> Float[Array, "*batch"]:
        """The fraction of ones."""
        del name, arguments
        return mean_statistics[..., 0]

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The fraction itself, or the logit of the clamped fraction, finite also for a component all zeros or ones."""
        del arguments
        return from_fraction(name, moment)

    def absorbing(
        self, mean_statistics: Float[Array, "*batch 1"], overall: Float[Array, "... 1"]
    ) -> Bool[Array, "*batch"]:
        """Zeros alone, or (but for the rounding of two sums) ones alone, where other rows have both."""
        rounding = 20 * jnp.finfo(mean_statistics.dtype).eps
        mean, overall = mean_statistics[..., 0], overall[..., 0]
        return ((mean <= 0) & (overall > 0)) | ((mean >= 1 - rounding) & (overall < 1 - rounding))


def log_of_both(argument: str, value: ArrayLike) -> Float[Array, "*batch 2"]:
    """log p and log(1 - p), of a probability that is given as ``probs`` or as ``logits``."""
    value = as_floating(value)
    if argument == "logits":
        return jnp.stack([jax.nn.log_sigmoid(value), jax.nn.log_sigmoid(-value)], axis=-1)
    value = clamp_probs(value)
    return jnp.stack([jnp.log(value), jnp.log1p(-value)], axis=-1)


def from_fraction(argument: str, fraction: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The fraction itself, or the logit of the clamped fraction, finite also for a component all zeros or ones."""
    return fraction if argument == "probs" else logit(clamp_probs(fraction))
