"""The Poisson distribution."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

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

    def statistics(self, x: jax.Array) -> jax.Array:
        """x."""
        return as_floating(x)[..., None]

    def natural(self, arguments: Arguments) -> jax.Array:
        """log rate, minus infinity where it is zero."""
        rate = as_floating(arguments["rate"])
        # The inner `where` keeps the derivative at zero from being infinity times zero.
        return jnp.where(rate > 0, jnp.log(jnp.where(rate > 0, rate, 1.0)), -jnp.inf)[..., None]

    def log_normaliser(self, arguments: Arguments) -> jax.Array:
        """The rate."""
        return as_floating(arguments["rate"])

    def log_base_measure(self, x: jax.Array) -> jax.Array:
        """-log x!."""
        return -gammaln(as_floating(x) + 1.0)

    def argument_statistics(self, arguments: Arguments) -> jax.Array:
        """The rate and its logarithm."""
        return with_logarithm(arguments["rate"])

    def expected(
        self, statistics: jax.Array, location: Location | None, arguments: Arguments
    ) -> tuple[jax.Array, jax.Array]:
        """E[log rate]; E[rate]."""
        del location, arguments
        return statistics[..., 1:], statistics[..., 0]

    def moment(self, name: str, mean_statistics: jax.Array, arguments: Arguments) -> jax.Array:
        """E[x]."""
        del name, arguments
        return mean_statistics[..., 0]

    def from_moment(self, name: str, moment: jax.Array, arguments: Arguments) -> jax.Array:
        """The mean itself."""
        del name, arguments
        return moment

    def absorbing(self, mean_statistics: jax.Array, overall: jax.Array) -> jax.Array:
        """Zeros alone, where other rows have more."""
        return (mean_statistics[..., 0] <= 0) & (overall[..., 0] > 0)
