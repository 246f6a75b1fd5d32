"""The normal distribution, given by its mean and its standard deviation."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Shaped
from numpyro.distributions.util import promote_shapes

from .base import Arguments, ExponentialFamily, Location, as_floating


@dataclasses.dataclass(frozen=True)
class Normal(ExponentialFamily):
    """The normal distribution with mean loc and standard deviation scale."""

    distributions: ClassVar = (dist.Normal,)
    is_location: ClassVar[bool] = True

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The mean, then the standard deviation around it."""
        return ("loc", "scale")

    def statistics(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch 2"]:
        """(x, x^2)."""
        x = as_floating(x)
        return jnp.stack([x, x * x], axis=-1)

    def natural(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """(loc / scale^2, -1 / (2 scale^2))."""
        loc, scale = promote_shapes(as_floating(arguments["loc"]), arguments["scale"])
        precision = 1.0 / (scale * scale)
        return jnp.stack(jnp.broadcast_arrays(loc * precision, -0.5 * precision), axis=-1)

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """loc^2 / (2 scale^2) + log scale."""
        loc, scale = promote_shapes(as_floating(arguments["loc"]), arguments["scale"])
        return 0.5 * (loc / scale) ** 2 + jnp.log(scale)

    def log_base_measure(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch"]:
        """-log(2 pi) / 2."""
        return jnp.full_like(as_floating(x), -0.5 * math.log(2.0 * math.pi))

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """The precision and its logarithm."""
        scale = as_floating(arguments["scale"])
        return jnp.stack([1.0 / (scale * scale), -2.0 * jnp.log(scale)], axis=-1)

    def expected(
        self, statistics: Float[Array, "... 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "... 2"], Float[Array, "..."]]:
        """(E[tau] E[loc], -E[tau] / 2); (E[tau] E[loc^2] - E[log tau]) / 2, tau the precision."""
        del arguments
        assert location is not None
        precision, log_precision = statistics[..., 0], statistics[..., 1]
        natural = jnp.stack(jnp.broadcast_arrays(location.mean * precision, -0.5 * precision), axis=-1)
        return natural, 0.5 * (precision * (location.mean**2 + location.covariance) - log_precision)

    def spread(self, covariance: Float[Array, "*batch"]) -> Float[Array, "*batch 2"]:
        """(0, variance)."""
        return jnp.stack([jnp.zeros_like(covariance), covariance], axis=-1)

    def precision(self, statistics: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        """The first of the two."""
        return statistics[..., 0]

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch 2"], arguments: Arguments
    ) -> Float[Array, "*batch"]:
        """loc: E[x], to be pooled over equal scales only. scale: E[(x - loc)^2]."""
        mean, square = mean_statistics[..., 0], mean_statistics[..., 1]
        if name == "loc":
            return mean
        # Centred on the mean first: the cancellation is then that of the variance, wherever loc lies. One
        # component alone may come out negative where the squares are shared: only the pooled average means something.
        mean, loc = promote_shapes(mean, arguments["loc"])
        return square - mean * mean + (mean - loc) ** 2

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The mean itself; the square root of the variance."""
        del arguments
        # Rounding may leave a collapsed variance below zero.
        return moment if name == "loc" else jnp.sqrt(jnp.maximum(moment, 0.0))

    def degenerate(self, mean_statistics: Float[Array, "*batch 2"], arguments: Arguments) -> Bool[Array, "*batch"]:
        """scale^2 <= 20 eps E[x^2], or not a number.

        E[x^2] - E[x]^2 carries the rounding of E[x^2]: a few eps for the products and the quotient, a few more for
        summing over the rows; 20 is one digit of margin over two operands.
        """
        square, scale = promote_shapes(mean_statistics[..., 1], arguments["scale"])
        return ~(scale * scale > 20.0 * jnp.finfo(mean_statistics.dtype).eps * square)
