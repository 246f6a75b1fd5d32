"""The Dirichlet and the beta distribution, as priors of probabilities."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float

from .base import Arguments, Prior, draw_gamma


@dataclasses.dataclass(frozen=True)
class Dirichlet(Prior):
    """The Dirichlet distribution of the probabilities of C categories."""

    distributions: ClassVar = (dist.Dirichlet,)
    event_ndim: ClassVar[int] = 1
    requirement: ClassVar[str] = "positive, finite concentrations"

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The concentration."""
        return ("concentration",)

    def argument_event_ndims(self, name: str) -> int:
        """One: the categories."""
        del name
        return 1

    def read(self, distribution: Any) -> Arguments:
        return {"concentration": jnp.asarray(distribution.concentration)}

    def statistics(self, x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
        """log x."""
        return jnp.log(x)

    def natural(self, arguments: Arguments) -> Float[Array, "... C"]:
        """alpha - 1."""
        return arguments["concentration"] - 1.0

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """sum_c log Gamma(alpha_c) - log Gamma(sum_c alpha_c)."""
        concentration = arguments["concentration"]
        return gammaln(concentration).sum(-1) - gammaln(concentration.sum(-1))

    def expected_statistics(self, arguments: Arguments) -> Float[Array, "... C"]:
        """psi(alpha) - psi(sum_c alpha_c)."""
        concentration = arguments["concentration"]
        return digamma(concentration) - digamma(concentration.sum(-1, keepdims=True))

    def from_natural(self, natural: Float[Array, "... C"]) -> Arguments:
        return {"concentration": natural + 1.0}

    def point(self, arguments: Arguments) -> Float[Array, "... C"]:
        concentration = arguments["concentration"]
        return concentration / concentration.sum(-1, keepdims=True)

    def mode(self, arguments: Arguments) -> Float[Array, "... C"]:
        above = jnp.maximum(arguments["concentration"] - 1.0, 0.0)
        total = above.sum(-1, keepdims=True)
        return jnp.where(total > 0, above / jnp.where(total > 0, total, 1.0), 1.0 / above.shape[-1])

    def has_mode(self, arguments: Arguments) -> Bool[Array, "..."]:
        return self.proper(arguments) & (arguments["concentration"] >= 1.0).all(-1)

    def proper(self, arguments: Arguments) -> Bool[Array, "..."]:
        concentration = arguments["concentration"]
        return ((concentration > 0) & jnp.isfinite(concentration)).all(-1)

    def distribution(self, arguments: Arguments) -> dist.Distribution:
        return dist.Dirichlet(**arguments)

    def draw(self, arguments: Mapping[str, np.ndarray], random: np.random.Generator) -> Float[np.ndarray, "... C"]:
        gammas = draw_gamma(arguments["concentration"], random)
        return gammas / gammas.sum(-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Beta(Prior):
    """The beta distribution of a probability."""

    distributions: ClassVar = (dist.Beta,)
    requirement: ClassVar[str] = "positive, finite concentrations"

    @property
    def argument_names(self) -> tuple[str, ...]:
        """a and b."""
        return ("concentration1", "concentration0")

    def read(self, distribution: Any) -> Arguments:
        return {name: jnp.asarray(getattr(distribution, name)) for name in self.argument_names}

    def statistics(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch 2"]:
        """(log x, log(1 - x))."""
        return jnp.stack([jnp.log(x), jnp.log1p(-x)], axis=-1)

    def natural(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """(a - 1, b - 1)."""
        return jnp.stack(jnp.broadcast_arrays(*_both(arguments)), axis=-1) - 1.0

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """log B(a, b)."""
        # NumPyro's and JAX's betaln loses half of the digits.
        first, second = _both(arguments)
        return gammaln(first) + gammaln(second) - gammaln(first + second)

    def expected_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """(psi(a), psi(b)) - psi(a + b)."""
        first, second = _both(arguments)
        return jnp.stack([digamma(first), digamma(second)], axis=-1) - digamma(first + second)[..., None]

    def from_natural(self, natural: Float[Array, "... 2"]) -> Arguments:
        return {"concentration1": natural[..., 0] + 1.0, "concentration0": natural[..., 1] + 1.0}

    def point(self, arguments: Arguments) -> Float[Array, "..."]:
        first, second = _both(arguments)
        return first / (first + second)

    def mode(self, arguments: Arguments) -> Float[Array, "..."]:
        first, second = (jnp.maximum(value - 1.0, 0.0) for value in _both(arguments))
        total = first + second
        return jnp.where(total > 0, first / jnp.where(total > 0, total, 1.0), 0.5)

    def has_mode(self, arguments: Arguments) -> Bool[Array, "..."]:
        first, second = _both(arguments)
        return self.proper(arguments) & (first >= 1.0) & (second >= 1.0)

    def proper(self, arguments: Arguments) -> Bool[Array, "..."]:
        first, second = _both(arguments)
        return (first > 0) & (second > 0) & jnp.isfinite(first) & jnp.isfinite(second)

    def distribution(self, arguments: Arguments) -> dist.Distribution:
        return dist.Beta(**arguments)

    def draw(self, arguments: Mapping[str, np.ndarray], random: np.random.Generator) -> Float[np.ndarray, "..."]:
        first, second = (draw_gamma(arguments[name], random) for name in self.argument_names)
        return first / (first + second)


def _both(arguments: Arguments) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    return arguments["concentration1"], arguments["concentration0"]
