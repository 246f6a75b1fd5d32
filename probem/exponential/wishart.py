"""The Wishart distribution of a precision matrix, and the inverse Wishart distribution of a covariance matrix."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Bool, Float

from .base import Arguments, Prior, draw_gamma
from .linalg import inverse, inverse_and_log_det, log_det
from .matrices import flat, square


@dataclasses.dataclass(frozen=True)
class Wishart(Prior):
    """The Wishart distribution of a precision matrix Lambda [D, D] with nu degrees of freedom and a rate matrix R.

    p(Lambda) is proportional to |Lambda|^((nu - D - 1) / 2) exp(-tr(R Lambda) / 2).
    """

    dim: int

    distributions: ClassVar = (dist.Wishart,)
    event_ndim: ClassVar[int] = 2
    requirement: ClassVar[str] = "a positive definite matrix and a concentration above its dimension minus one"

    @classmethod
    def of(cls, distribution: dist.Distribution) -> "Wishart":
        """Finds out the dimension."""
        return cls(distribution.event_shape[-1])

    @property
    def argument_names(self) -> tuple[str, ...]:
        """nu and R."""
        return ("concentration", "rate_matrix")

    def argument_event_ndims(self, name: str) -> int:
        """Two for the matrix."""
        return 2 if name == "rate_matrix" else 0

    def read(self, distribution: Any) -> Arguments:
        return {name: jnp.asarray(getattr(distribution, name)) for name in self.argument_names}

    def statistics(self, x: Float[Array, "*batch D D"]) -> Float[Array, "*batch S"]:
        """Lambda, row by row, and log det Lambda."""
        return flat(x, log_det(x))

    def natural(self, arguments: Arguments) -> Float[Array, "... S"]:
        """(-R / 2, (nu - D - 1) / 2)."""
        return flat(-0.5 * arguments["rate_matrix"], 0.5 * (arguments["concentration"] - self.dim - 1.0))

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """nu D log(2) / 2 - nu log|R| / 2 + log Gamma_D(nu / 2)."""
        dof = arguments["concentration"]
        scale = self.dim * math.log(2.0) - log_det(arguments["rate_matrix"])
        constant = 0.25 * self.dim * (self.dim - 1) * math.log(math.pi)
        return 0.5 * dof * scale + gammaln(self._halves(dof)).sum(-1) + constant

    def expected_statistics(self, arguments: Arguments) -> Float[Array, "... S"]:
        """E[Lambda] = nu R^-1; E[log|Lambda|] = sum_i psi((nu - i) / 2) + D log 2 - log|R|. Bishop (2006), eq. B.81."""
        dof, rate = arguments["concentration"], arguments["rate_matrix"]
        inverted, log_volume = inverse_and_log_det(rate)
        mean = dof[..., None, None] * inverted
        return flat(mean, digamma(self._halves(dof)).sum(-1) + self.dim * math.log(2.0) - log_volume)

    def _halves(self, dof: Float[Array, "*batch"]) -> Float[Array, "*batch D"]:
        """(nu - i) / 2 for i < D: log Gamma_D(nu / 2) is the sum of their log Gamma and D (D - 1) log(pi) / 4."""
        return 0.5 * (dof[..., None] - np.arange(self.dim, dtype=dof.dtype))

    def from_natural(self, natural: Float[Array, "... S"]) -> Arguments:
        half = square(natural)
        return {
            "concentration": 2.0 * natural[..., -1] + self.dim + 1.0,
            "rate_matrix": -(half + jnp.swapaxes(half, -1, -2)),
        }

    def point(self, arguments: Arguments) -> Float[Array, "... D D"]:
        return arguments["concentration"][..., None, None] * inverse(arguments["rate_matrix"])

    def mode(self, arguments: Arguments) -> Float[Array, "... D D"]:
        dof = arguments["concentration"]
        return jnp.maximum(1.0 - (self.dim + 1.0) / dof, 0.0)[..., None, None] * self.point(arguments)

    def has_mode(self, arguments: Arguments) -> Bool[Array, "..."]:
        return self.proper(arguments) & (arguments["concentration"] > self.dim + 1.0)

    def proper(self, arguments: Arguments) -> Bool[Array, "..."]:
        dof = arguments["concentration"]
        return (dof > self.dim - 1.0) & jnp.isfinite(dof) & jnp.isfinite(log_det(arguments["rate_matrix"]))

    def distribution(self, arguments: Arguments) -> dist.Distribution:
        return dist.Wishart(**arguments)

    def draw(self, arguments: Mapping[str, np.ndarray], random: np.random.Generator) -> Float[np.ndarray, "... D D"]:
        """Bartlett (1933): normal numbers under a diagonal of roots of chi-squares, a triangle that is then squared."""
        dof, rate = arguments["concentration"], arguments["rate_matrix"]
        squares = 2.0 * draw_gamma(0.5 * (dof[..., None] - np.arange(self.dim)), random)
        triangle = np.tril(random.normal(size=rate.shape), -1) + np.sqrt(squares)[..., None] * np.eye(self.dim)
        factor = np.swapaxes(np.linalg.inv(np.linalg.cholesky(rate)), -1, -2) @ triangle
        return factor @ np.swapaxes(factor, -1, -2)

    def student(self, arguments: Arguments) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """nu - D + 1 (Bishop 2006, eq. 10.82): (nu - D + 1) R^-1 and not nu R^-1 is the precision of the scale."""
        freedom = arguments["concentration"] - self.dim + 1.0
        return freedom, arguments["concentration"] / freedom


@dataclasses.dataclass(frozen=True)
class InverseWishart(Wishart):
    """The inverse Wishart distribution of a covariance matrix, whose inverse has the Wishart distribution of the same
    nu and R: p(Sigma) is proportional to |Sigma|^-((nu + D + 1) / 2) exp(-tr(R Sigma^-1) / 2).
    """

    distributions: ClassVar = (dist.InverseWishart,)

    def read(self, distribution: Any) -> Arguments:
        # What NumPyro calls the scale matrix of the covariance is the rate matrix of the precision.
        return {
            "concentration": jnp.asarray(distribution.concentration),
            "rate_matrix": jnp.asarray(distribution.scale_matrix),
        }

    def statistics(self, x: Float[Array, "*batch D D"]) -> Float[Array, "*batch S"]:
        """Those of the inverse."""
        return super().statistics(inverse(x))

    def natural(self, arguments: Arguments) -> Float[Array, "... S"]:
        """As of the Wishart distribution, and D + 1 more for log|Sigma^-1|: the change of variables."""
        natural = super().natural(arguments)
        return natural.at[..., -1].add(self.dim + 1.0)

    def from_natural(self, natural: Float[Array, "... S"]) -> Arguments:
        return super().from_natural(natural.at[..., -1].add(-self.dim - 1.0))

    def point(self, arguments: Arguments) -> Float[Array, "... D D"]:
        return arguments["rate_matrix"] / arguments["concentration"][..., None, None]

    def mode(self, arguments: Arguments) -> Float[Array, "... D D"]:
        return arguments["rate_matrix"] / (arguments["concentration"] + self.dim + 1.0)[..., None, None]

    def has_mode(self, arguments: Arguments) -> Bool[Array, "..."]:
        return self.proper(arguments)

    def distribution(self, arguments: Arguments) -> dist.Distribution:
        return dist.InverseWishart(arguments["concentration"], scale_matrix=arguments["rate_matrix"])

    def draw(self, arguments: Mapping[str, np.ndarray], random: np.random.Generator) -> Float[np.ndarray, "... D D"]:
        return np.linalg.inv(super().draw(arguments, random))
