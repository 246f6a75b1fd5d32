"""The gamma distribution, given by concentration and rate."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln, polygamma
from numpyro.distributions.util import promote_shapes

from .base import Arguments, ExponentialFamily, as_floating


@dataclasses.dataclass(frozen=True)
class Gamma(ExponentialFamily):
    """The gamma distribution with concentration c.

    At its best rate = c / E[x] the likelihood is stationary where log c - psi(c) = log E[x] - E[log x], so the
    concentration is updated first, with the rate maximised out.
    """

    distributions: ClassVar = (dist.Gamma,)

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The concentration, then the rate that goes with it."""
        return ("concentration", "rate")

    def statistics(self, x: jax.Array, shift: jax.Array) -> jax.Array:
        """(log x, x)."""
        del shift
        x = as_floating(x)
        return jnp.stack([jnp.log(x), x], axis=-1)

    def natural(self, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """(c - 1, -rate)."""
        del shift
        return jnp.stack(jnp.broadcast_arrays(arguments["concentration"] - 1.0, -arguments["rate"]), axis=-1)

    def log_normaliser(self, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """log Gamma(c) - c log rate."""
        del shift
        concentration, rate = promote_shapes(arguments["concentration"], arguments["rate"])
        return gammaln(concentration) - concentration * jnp.log(rate)

    def log_base_measure(self, x: jax.Array) -> jax.Array:
        """Zero."""
        return jnp.zeros_like(as_floating(x))

    def moment(self, name: str, mean_statistics: jax.Array, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """concentration: log E[x] - E[log x]. rate: E[x], to be pooled over equal concentrations only.

        The first has the rate of each density maximised out, so it is right for rates that are estimated next and
        shared by no two densities.
        """
        del arguments, shift
        mean_log, mean = mean_statistics[..., 0], mean_statistics[..., 1]
        return mean if name == "rate" else jnp.log(mean) - mean_log

    def from_moment(self, name: str, moment: jax.Array, arguments: Arguments) -> jax.Array:
        """The root of log c - psi(c) = moment; the rate c / mean."""
        if name == "concentration":
            return _concentration(moment)
        concentration, moment = promote_shapes(arguments["concentration"], moment)
        return concentration / moment

    def degenerate(self, mean_statistics: jax.Array, arguments: Arguments, shift: jax.Array) -> jax.Array:
        """1 / concentration <= 20 eps (1 + |E[log x]|): rows equal to rounding.

        1 / concentration, the squared coefficient of variation, is twice log E[x] - E[log x], a difference that
        carries a few eps from the mean of x and a few eps of either logarithm; 20 is one digit of margin over the two.
        """
        del shift
        concentration, mean_log = promote_shapes(arguments["concentration"], mean_statistics[..., 0])
        bound = 20.0 * jnp.finfo(mean_statistics.dtype).eps * (1.0 + jnp.abs(mean_log))
        return ~(1.0 / concentration > bound)


#: Measured: three reach the rounding of log_ratio in float64 for every concentration from 1e-8 to 1e8. One to spare.
_NEWTON_STEPS = 4


def _concentration(log_ratio: jax.Array) -> jax.Array:
    """The c > 0 with g(c) = log c - psi(c) = log_ratio; infinity where rounding left log_ratio at or below zero.

    Newton on 1 / g, which is nearly linear (c for small c, 2 c for large c), from Minka's starting point (Estimating a
    Gamma distribution, 2002), kept within the bounds 1 / (2 c) < g(c) < 1 / c (Alzer 1997, Math. Comp. 66, 373-389).
    """
    positive = log_ratio > 0
    target = jnp.where(positive, log_ratio, 1.0)
    start = (3.0 - target + jnp.sqrt((target - 3.0) ** 2 + 24.0 * target)) / (12.0 * target)

    def step(_: jax.Array, c: jax.Array) -> jax.Array:
        g = jnp.log(c) - digamma(c)
        slope = 1.0 / c - polygamma(1, c)
        return jnp.clip(c + g * (1.0 - g / target) / slope, 0.5 / target, 1.0 / target)

    return jnp.where(positive, jax.lax.fori_loop(0, _NEWTON_STEPS, step, start), jnp.inf)
