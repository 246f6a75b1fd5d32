"""Hyperparameters of the Bayesian mixtures, and weakly informative values of them from the scale of the data.

They are computed beforehand and bound to a program: a prior that looked at the rows would be no prior.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class GaussianPrior(NamedTuple):
    """Of locations and covariances: ``mean`` [D], ``strength`` (rows that it is worth), ``dof``, ``scatter`` [D, D].

    Covariance matrices have an inverse Wishart prior with ``dof`` degrees of freedom and scale matrix ``scatter``,
    their inverses a Wishart prior with ``scatter`` as rate; given its covariance, a location has the covariance divided
    by ``strength`` around ``mean``.
    """

    mean: jax.typing.ArrayLike
    strength: float
    dof: float
    scatter: jax.typing.ArrayLike

    @classmethod
    def from_data(cls, x: jax.Array, num_components: int) -> "GaussianPrior":
        """Weakly informative: worth a hundredth of a row, and D + 2 degrees of freedom, the fewest whole number for
        which covariances have a mean: that of the data divided among K components, cov(x) / K^(2 / D).

        Parameters
        ----------
        x : Float[Array, "N D"], N at least 2; of a column with NaN, the values that are there

        Source: Fraley & Raftery (2007), Bayesian regularization for normal mixture estimation, section 3.2.
        """
        dim = x.shape[-1]
        seen = ~jnp.isnan(x)
        mean = jnp.nanmean(x, 0)
        covariance = jnp.cov(jnp.where(seen, x, mean), rowvar=False, bias=True).reshape(dim, dim)
        # Means in the gaps shrink a variance by the share of the gaps; to stretch the axes back keeps it a covariance.
        stretch = jnp.sqrt(len(x) / seen.sum(0))
        covariance = covariance * stretch[:, None] * stretch[None, :]
        return cls(mean, 0.01, dim + 2.0, covariance / num_components ** (2 / dim))


class RatePrior(NamedTuple):
    """Of rates: a gamma distribution with ``shape`` and ``rate`` [D]."""

    shape: float
    rate: jax.typing.ArrayLike

    @classmethod
    def from_data(cls, x: jax.Array) -> "RatePrior":
        """Worth one row: an exponential distribution around the mean of every column, ``[N, D]``.

        A column of zeros has the mean 1 / N instead, as if one more row had a one in it. NaN counts for nothing.
        """
        mean = jnp.maximum(jnp.nanmean(x, 0), 1.0 / len(x))
        return cls(1.0, 1.0 / mean)
