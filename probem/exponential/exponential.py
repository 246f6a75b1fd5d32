"""The exponential distribution."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Shaped

from .base import Arguments, ExponentialFamily, Location, as_floating, with_logarithm


@dataclasses.dataclass(frozen=True)
class Exponential(ExponentialFamily):
    """The exponential distribution."""

    distributions: ClassVar = (dist.Exponential,)

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The rate."""
        return ("rate",)

    def statistics(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch 1"]:
        """x."""
        return as_floating(x)[..., None]

    def natural(self, arguments: Arguments) -> Float[Array, "... 1"]:
        """-rate."""
        return -as_floating(arguments["rate"])[..., None]

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """-log rate."""
        return -jnp.log(as_floating(arguments["rate"]))

    def log_base_measure(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Zero."""
        return jnp.zeros_like(as_floating(x))

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """The rate and its logarithm."""
        return with_logarithm(arguments["rate"])

    def expected(
        self, statistics: Float[Array, "*batch 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "*batch 1"], Float[Array, "*batch"]]:
        """-E[rate]; -E[log rate]."""
        del location, arguments
        return -statistics[..., :1], -statistics[..., 1]

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch 1"], arguments: Arguments
    ) -> Float[Array, "*batch"]:
        """E[x]."""
        del name, arguments
        return mean_statistics[..., 0]

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """1 / mean."""
        del name, arguments
        return 1.0 / moment

    def degenerate(self, mean_statistics: Float[Array, "*batch 1"], arguments: Arguments) -> Bool[Array, "*batch"]:
        """An infinite rate: every row is zero, where the density grows without bound."""
        return jnp.broadcast_to(~jnp.isfinite(arguments["rate"]), mean_statistics.shape[:-1])
