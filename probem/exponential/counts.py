"""Counts whose number of trials, or exposure, is known beside them: densities of both together."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import betaln, gammaln
from jaxtyping import Array, Bool, Float, Shaped

from .base import Arguments, ExponentialFamily, Location, as_floating, with_logarithm
from .bernoulli import from_fraction, log_of_both


@dataclasses.dataclass(frozen=True)
class ExposedPoisson(ExponentialFamily):
    """y Poisson with mean e * rate, where the exposure e is known beside y.

    The event is (y, e), and log p(y | e) = y log rate - e rate + y log e - log y!. A rate of zero is a distribution
    like any other, as of a ``Poisson`` without exposure.
    """

    # Of no distribution by itself: that a rate is a multiple of a parameter, the program says.
    distributions: ClassVar = (dist.Poisson,)

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The rate of one unit of exposure."""
        return ("rate",)

    def statistics(self, x: Shaped[Array, "*batch 2"]) -> Float[Array, "*batch 2"]:
        """y and e."""
        return as_floating(x)

    def natural(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """log rate, minus infinity where it is zero; -rate."""
        rate = as_floating(arguments["rate"])
        # The inner `where` keeps the derivative at zero from being infinity times zero.
        logarithm = jnp.where(rate > 0, jnp.log(jnp.where(rate > 0, rate, 1.0)), -jnp.inf)
        return jnp.stack([logarithm, -rate], axis=-1)

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """Zero."""
        return jnp.zeros_like(as_floating(arguments["rate"]))

    def log_base_measure(self, x: Shaped[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        """y log e - log y!."""
        y, exposure = as_floating(x)[..., 0], as_floating(x)[..., 1]
        return jax.scipy.special.xlogy(y, exposure) - gammaln(y + 1.0)

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """The rate and its logarithm."""
        return with_logarithm(arguments["rate"])

    def expected(
        self, statistics: Float[Array, "*batch 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "*batch 2"], Float[Array, "*batch"]]:
        """E[log rate] and -E[rate]; zero."""
        del location, arguments
        return jnp.stack([statistics[..., 1], -statistics[..., 0]], axis=-1), jnp.zeros_like(statistics[..., 0])

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch 2"], arguments: Arguments
    ) -> Float[Array, "*batch"]:
        """E[y] / E[e], which may not be pooled over components; zero without exposure."""
        del name, arguments
        return _ratio(mean_statistics[..., 0], mean_statistics[..., 1])

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The ratio itself."""
        del name, arguments
        return moment

    def absorbing(
        self, mean_statistics: Float[Array, "*batch 2"], overall: Float[Array, "... 2"]
    ) -> Bool[Array, "*batch"]:
        """Zeros alone, where other rows have more."""
        return (mean_statistics[..., 0] <= 0) & (overall[..., 0] > 0)


@dataclasses.dataclass(frozen=True)
class Trials(ExponentialFamily):
    """y with a probability p in n trials that are known beside it: binomial, or (``is_negative``) negative binomial.

    The event is (y, n). Binomial: log p(y | n) = y logit p + n log(1 - p) + log C(n, y), for y successes among n
    trials. Negative binomial, as NumPyro has it: y log p + n log(1 - p) + log C(y + n - 1, y), for y successes before
    the n-th failure, where n may be any positive number. Probabilities are clamped to [tiny, 1 - eps].
    """

    #: Which argument the distribution was given.
    argument: str
    is_negative: bool

    distributions: ClassVar = (
        dist.BinomialProbs,
        dist.BinomialLogits,
        dist.NegativeBinomialProbs,
        dist.NegativeBinomialLogits,
    )

    @classmethod
    def of(cls, distribution: dist.Distribution) -> "Trials":
        """Finds out which argument was given."""
        given = isinstance(distribution, dist.BinomialProbs | dist.NegativeBinomialProbs)
        return cls("probs" if given else "logits", isinstance(distribution, dist.GammaPoisson))

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The one that was given."""
        return (self.argument,)

    def statistics(self, x: Shaped[Array, "*batch 2"]) -> Float[Array, "*batch 2"]:
        """y and n."""
        return as_floating(x)

    def natural(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """logit p (negative binomial: log p) and log(1 - p)."""
        return self._natural(self.argument_statistics(arguments))

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """Zero."""
        return jnp.zeros_like(as_floating(arguments[self.argument]))

    def log_base_measure(self, x: Shaped[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        """log C(n, y), or log C(y + n - 1, y), as NumPyro has it to the last digits."""
        y, trials = as_floating(x)[..., 0], as_floating(x)[..., 1]
        if self.is_negative and self.argument == "probs":
            return -betaln(trials, y + 1.0) - jnp.log(trials + y)
        if self.is_negative:
            return gammaln(y + trials) - gammaln(trials) - gammaln(y + 1.0)
        return gammaln(trials + 1.0) - gammaln(y + 1.0) - gammaln(trials - y + 1.0)

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """log p and log(1 - p)."""
        return log_of_both(self.argument, arguments[self.argument])

    def expected(
        self, statistics: Float[Array, "*batch 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "*batch 2"], Float[Array, "*batch"]]:
        """As ``natural``, of E[log p] and E[log(1 - p)]; zero."""
        del location, arguments
        return self._natural(statistics), jnp.zeros_like(statistics[..., 0])

    def _natural(self, statistics: Float[Array, "*batch 2"]) -> Float[Array, "*batch 2"]:
        first, second = statistics[..., 0], statistics[..., 1]
        return jnp.stack([first if self.is_negative else first - second, second], axis=-1)

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch 2"], arguments: Arguments
    ) -> Float[Array, "*batch"]:
        """E[y] / E[n], or E[y] / (E[y] + E[n]), which may not be pooled over components; zero without trials."""
        del name, arguments
        y, trials = mean_statistics[..., 0], mean_statistics[..., 1]
        return _ratio(y, y + trials if self.is_negative else trials)

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The fraction itself, or the logit of the clamped fraction."""
        del arguments
        return from_fraction(name, moment)

    def absorbing(
        self, mean_statistics: Float[Array, "*batch 2"], overall: Float[Array, "... 2"]
    ) -> Bool[Array, "*batch"]:
        """No success, or (but for the rounding of two sums) no failure, where other rows have both."""
        rounding = 20 * jnp.finfo(mean_statistics.dtype).eps
        fraction, of_all = (self.moment("probs", each, {}) for each in (mean_statistics, overall))
        return ((fraction <= 0) & (of_all > 0)) | ((fraction >= 1 - rounding) & (of_all < 1 - rounding))


def _ratio(above: Float[Array, "*batch"], below: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    return above / jnp.where(below > 0, below, 1.0)
