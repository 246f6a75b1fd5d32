"""The gamma distribution, given by concentration and rate, and as a prior of precisions and rates."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln, polygamma
from jaxtyping import Array, Bool, Float, Int, Shaped
from numpyro.distributions.util import promote_shapes

from .base import Arguments, ExponentialFamily, Location, Prior, as_floating, draw_gamma, with_logarithm


@dataclasses.dataclass(frozen=True)
class Gamma(ExponentialFamily):
    """The gamma distribution with concentration c.

    At its best rate = c / E[x] the likelihood is stationary where log c - psi(c) = log E[x] - E[log x], so the
    concentration is updated first, with the rate maximised out.
    """

    distributions: ClassVar = (dist.Gamma,)
    certain: ClassVar[tuple[str, ...]] = ("concentration",)

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The concentration, then the rate that goes with it."""
        return ("concentration", "rate")

    def statistics(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch 2"]:
        """(log x, x)."""
        x = as_floating(x)
        return jnp.stack([jnp.log(x), x], axis=-1)

    def natural(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """(c - 1, -rate)."""
        return jnp.stack(jnp.broadcast_arrays(arguments["concentration"] - 1.0, -arguments["rate"]), axis=-1)

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """log Gamma(c) - c log rate."""
        concentration, rate = promote_shapes(arguments["concentration"], arguments["rate"])
        return gammaln(concentration) - concentration * jnp.log(rate)

    def log_base_measure(self, x: Shaped[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Zero."""
        return jnp.zeros_like(as_floating(x))

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """The rate and its logarithm; the concentration has no conjugate prior."""
        return with_logarithm(arguments["rate"])

    def expected(
        self, statistics: Float[Array, "... 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "... 2"], Float[Array, "..."]]:
        """(c - 1, -E[rate]); log Gamma(c) - c E[log rate]."""
        del location
        concentration, rate, log_rate = promote_shapes(
            arguments["concentration"], statistics[..., 0], statistics[..., 1]
        )
        natural = jnp.stack(jnp.broadcast_arrays(concentration - 1.0, -rate), axis=-1)
        return natural, gammaln(concentration) - concentration * log_rate

    def moment(
        self, name: str, mean_statistics: Float[Array, "*batch 2"], arguments: Arguments
    ) -> Float[Array, "*batch"]:
        """concentration: log E[x] - E[log x]. rate: E[x], to be pooled over equal concentrations only.

        The first has the rate of each density maximised out, so it is right for rates that are estimated next and
        shared by no two densities.
        """
        del arguments
        mean_log, mean = mean_statistics[..., 0], mean_statistics[..., 1]
        return mean if name == "rate" else jnp.log(mean) - mean_log

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The root of log c - psi(c) = moment; the rate c / mean."""
        if name == "concentration":
            return _concentration(moment)
        concentration, moment = promote_shapes(arguments["concentration"], moment)
        return concentration / moment

    def degenerate(self, mean_statistics: Float[Array, "*batch 2"], arguments: Arguments) -> Bool[Array, "*batch"]:
        """1 / concentration <= 20 eps (1 + |E[log x]|): rows equal to rounding.

        1 / concentration, the squared coefficient of variation, is twice log E[x] - E[log x], a difference that
        carries a few eps from the mean of x and a few eps of either logarithm; 20 is one digit of margin over the two.
        """
        concentration, mean_log = promote_shapes(arguments["concentration"], mean_statistics[..., 0])
        bound = 20.0 * jnp.finfo(mean_statistics.dtype).eps * (1.0 + jnp.abs(mean_log))
        return ~(1.0 / concentration > bound)


@dataclasses.dataclass(frozen=True)
class GammaPrior(Gamma, Prior):
    """The gamma distribution of a precision or a rate; an exponential one is that of concentration 1."""

    distributions: ClassVar = (dist.Gamma, dist.Exponential)
    requirement: ClassVar[str] = "a positive, finite concentration and rate"

    def read(self, distribution: Any) -> Arguments:
        concentration = getattr(distribution, "concentration", 1.0)
        return {"concentration": jnp.asarray(concentration), "rate": jnp.asarray(distribution.rate)}

    def expected_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """(psi(c) - log rate, c / rate)."""
        concentration, rate = arguments["concentration"], arguments["rate"]
        return jnp.stack([digamma(concentration) - jnp.log(rate), concentration / rate], axis=-1)

    def from_natural(self, natural: Float[Array, "... 2"]) -> Arguments:
        return {"concentration": natural[..., 0] + 1.0, "rate": -natural[..., 1]}

    def point(self, arguments: Arguments) -> Float[Array, "..."]:
        return arguments["concentration"] / arguments["rate"]

    def mode(self, arguments: Arguments) -> Float[Array, "..."]:
        return jnp.maximum(arguments["concentration"] - 1.0, 0.0) / arguments["rate"]

    def has_mode(self, arguments: Arguments) -> Bool[Array, "..."]:
        return self.proper(arguments) & (arguments["concentration"] >= 1.0)

    def proper(self, arguments: Arguments) -> Bool[Array, "..."]:
        concentration, rate = arguments["concentration"], arguments["rate"]
        return (concentration > 0) & (rate > 0) & jnp.isfinite(concentration) & jnp.isfinite(rate)

    def distribution(self, arguments: Arguments) -> dist.Distribution:
        return dist.Gamma(**arguments)

    def draw(self, arguments: Mapping[str, np.ndarray], random: np.random.Generator) -> Float[np.ndarray, "..."]:
        return draw_gamma(arguments["concentration"], random) / arguments["rate"]

    def student(self, arguments: Arguments) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """2 c; the expected precision is that of the scale. Source: Bishop (2006), eqs. 2.158-2.159."""
        return 2.0 * arguments["concentration"], jnp.ones_like(arguments["concentration"])


@dataclasses.dataclass(frozen=True)
class InverseGamma(Prior):
    """The inverse gamma distribution of a variance x: 1 / x has a gamma distribution."""

    distributions: ClassVar = (dist.InverseGamma,)
    requirement: ClassVar[str] = GammaPrior.requirement

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The concentration and the rate of 1 / x."""
        return ("concentration", "rate")

    def read(self, distribution: Any) -> Arguments:
        return GammaPrior().read(distribution)

    def statistics(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch 2"]:
        """(log 1/x, 1/x)."""
        return jnp.stack([-jnp.log(x), 1.0 / x], axis=-1)

    def natural(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """(c + 1, -rate)."""
        return jnp.stack(jnp.broadcast_arrays(arguments["concentration"] + 1.0, -arguments["rate"]), axis=-1)

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """log Gamma(c) - c log rate."""
        return GammaPrior().log_normaliser(arguments)

    def expected_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """(psi(c) - log rate, c / rate)."""
        return GammaPrior().expected_statistics(arguments)

    def from_natural(self, natural: Float[Array, "... 2"]) -> Arguments:
        return {"concentration": natural[..., 0] - 1.0, "rate": -natural[..., 1]}

    def point(self, arguments: Arguments) -> Float[Array, "..."]:
        return arguments["rate"] / arguments["concentration"]

    def mode(self, arguments: Arguments) -> Float[Array, "..."]:
        return arguments["rate"] / (arguments["concentration"] + 1.0)

    def proper(self, arguments: Arguments) -> Bool[Array, "..."]:
        return GammaPrior().proper(arguments)

    def distribution(self, arguments: Arguments) -> dist.Distribution:
        return dist.InverseGamma(**arguments)

    def draw(self, arguments: Mapping[str, np.ndarray], random: np.random.Generator) -> Float[np.ndarray, "..."]:
        return 1.0 / GammaPrior().draw(arguments, random)

    def student(self, arguments: Arguments) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        return GammaPrior().student(arguments)


#: Measured: three reach the rounding of log_ratio in float64 for every concentration from 1e-8 to 1e8. One to spare.
_NEWTON_STEPS = 4


def _concentration(log_ratio: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The c > 0 with g(c) = log c - psi(c) = log_ratio; infinity where rounding left log_ratio at or below zero.

    Newton on 1 / g, which is nearly linear (c for small c, 2 c for large c), from Minka's starting point (Estimating a
    Gamma distribution, 2002), kept within the bounds 1 / (2 c) < g(c) < 1 / c (Alzer 1997, Math. Comp. 66, 373-389).
    """
    positive = log_ratio > 0
    target = jnp.where(positive, log_ratio, 1.0)
    start = (3.0 - target + jnp.sqrt((target - 3.0) ** 2 + 24.0 * target)) / (12.0 * target)

    def step(_: Int[Array, ""], c: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        g = jnp.log(c) - digamma(c)
        slope = 1.0 / c - polygamma(1, c)
        return jnp.clip(c + g * (1.0 - g / target) / slope, 0.5 / target, 1.0 / target)

    return jnp.where(positive, jax.lax.fori_loop(0, _NEWTON_STEPS, step, start), jnp.inf)
