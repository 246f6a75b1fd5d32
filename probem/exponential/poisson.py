"""The Poisson distribution."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Bool, Float, Shaped

from .base import Arguments, ExponentialFamily, Location, as_floating, with_logarithm


@dataclasses.dataclass(frozen=True)
class Poisson(ExponentialFamily):
    """The Poisson distribution.

    A rate of zero, the estimate from zeros alone, is a distribution like any other (a point mass at zero, whose
    likelihood is one and not infinite), so no rate is degenerate.
    """

    distributions: ClassVar = (dist.Poisson,)

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The rate."""
        return ("rate",)

    def statistics(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch 1"]:
        """x."""
        return as_floating(x)[..., None]

    def natural(self, arguments: Arguments) -> Float[Array, "... 1"]:
        """log rate, minus infinity where it is zero."""
        rate = as_floating(arguments["rate"])
        # The inner `where` keeps the derivative at zero from being infinity times zero.
        return jnp.where(rate > 0, jnp.log(jnp.where(rate > 0, rate, 1.0)), -jnp.inf)[..., None]

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """The rate."""
        return as_floating(arguments["rate"])

    def log_base_measure(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch"]:
        """-log x!."""
        return -gammaln(as_floating(x) + 1.0)

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """The rate and its logarithm."""
        return with_logarithm(arguments["rate"])

    def expected(
        self, statistics: Float[Array, "*batch 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch"]]:
        """E[log rate]; E[rate]."""
        del location, arguments
        return statistics[..., 1:], statistics[..., 0]

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch 1"], arguments: Arguments
    ) -> Float[Array, "*batch"]:
        """E[x]."""
        del name, arguments
        return mean_statistics[..., 0]

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The mean itself."""
        del name, arguments
        return moment

    def absorbing(
        self, mean_statistics: Float[Array, "*batch 1"], overall: Float[Array, "... 1"]
    ) -> Bool[Array, "*batch"]:
        """Zeros alone, where other rows have more."""
        return (mean_statistics[..., 0] <= 0) & (overall[..., 0] > 0)
