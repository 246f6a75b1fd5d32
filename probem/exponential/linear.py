"""A normal distribution around a linear predictor, as a density of the value and its covariates together."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped
from numpyro.distributions import constraints

from .base import Arguments, ExponentialFamily, Location, as_floating
from .linalg import condition_number, pseudo_inverse, rank
from .matrices import upper


@dataclasses.dataclass(frozen=True)
class LinearNormal(ExponentialFamily):
    """y normal around c' d + a with a standard deviation ``scale``, where d are P covariates known beside y.

    The event is z = (y, d), and the density that of y given d: with v = (1, -c), log p = -(v' z - a)^2 / (2 scale^2) -
    log scale - log(2 pi) / 2. So T(z) are z and the products of two of its entries, as of a multivariate normal
    distribution of z whose precision v v' / scale^2 has rank one. The arguments ``coefficients`` are c, then a where
    the predictor ``has_intercept``. Of them ``free`` (one or zero) says which are not zero for good. An ``origin`` is
    what was subtracted from z. Source: Bishop (2006), Pattern recognition and machine learning, sections 3.1 and 14.5.
    """

    num_covariates: int
    has_intercept: bool

    # Of no distribution by itself: whether a location is linear, the program says (``form/linearity.py``).
    distributions: ClassVar = ()
    is_location: ClassVar[bool] = True
    is_quadratic: ClassVar[bool] = True
    location_argument: ClassVar[str] = "coefficients"
    certain: ClassVar[tuple[str, ...]] = ("free",)

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The coefficients, then the standard deviation around the predictor."""
        return ("coefficients", "scale")

    @property
    def argument_constraints(self) -> Mapping[str, Any]:
        return {"coefficients": constraints.real, "scale": constraints.positive}

    @property
    def num_coefficients(self) -> int:
        """P, and the intercept."""
        return self.num_covariates + self.has_intercept

    def argument_event_ndims(self, name: str) -> int:
        """One for the coefficients, and for which of them are free."""
        return 0 if name == "scale" else 1

    def around(self, arguments: Arguments, origin: Float[Array, "..."]) -> Arguments:
        return {**arguments, "origin": origin}

    def location_around(self, location: Location, origin: Float[Array, "..."]) -> Location:
        """As it is: coefficients do not depend on the origin."""
        del origin
        return location

    def moment_from(
        self, name: str, moment: Float[Array, "*shape"], origin: Float[Array, "..."]
    ) -> Float[Array, "*shape"]:
        """As it is: the origin is one of the arguments."""
        del name, origin
        return moment

    def centre(self, mean_statistics: Float[Array, "*batch S"]) -> Float[Array, "*batch D"]:
        return mean_statistics[..., : 1 + self.num_covariates]

    def statistics(self, x: Shaped[Array, "*batch D"]) -> Float[Array, "*batch S"]:
        """(z, z_i z_j for i <= j), row by row of the upper triangle."""
        x = as_floating(x)
        rows, columns = np.triu_indices(1 + self.num_covariates)
        return jnp.concatenate([x, x[..., rows] * x[..., columns]], axis=-1)

    def natural(self, arguments: Arguments) -> Float[Array, "... S"]:
        """With tau = 1 / scale^2 and g = v' origin - a: (-tau g v, -tau v_i^2 / 2 and -tau v_i v_j)."""
        return self.natural_and_log_normaliser(arguments)[0]

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """tau g^2 / 2 + log scale."""
        return self.natural_and_log_normaliser(arguments)[1]

    def natural_and_log_normaliser(self, arguments: Arguments) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
        statistics = self.argument_statistics(arguments)
        return self._expected(statistics, Location(as_floating(arguments["coefficients"]), jnp.zeros(())), arguments)

    def log_base_measure(self, x: Shaped[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """-log(2 pi) / 2."""
        return jnp.full(x.shape[:-1], -0.5 * math.log(2.0 * math.pi), as_floating(x).dtype)

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... 2"]:
        """The precision and its logarithm."""
        scale = as_floating(arguments["scale"])
        return jnp.stack([1.0 / (scale * scale), -2.0 * jnp.log(scale)], axis=-1)

    def expected(
        self, statistics: Float[Array, "... 2"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
        """As ``natural`` and ``log_normaliser``, with E[v v'], E[g v] and E[g^2] under uncertain coefficients."""
        assert location is not None
        return self._expected(statistics, location, arguments)

    def _expected(
        self, statistics: Float[Array, "... 2"], location: Location, arguments: Arguments
    ) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
        mean, covariance = location
        precision, log_precision = statistics[..., 0], statistics[..., 1]
        direction, gap = self._residual(mean, arguments)
        products = _outer(direction)
        linear, square = gap[..., None] * direction, gap * gap
        if covariance.ndim:
            # g = y_0 - d_0' c - a varies with the coefficients: its slope is minus (d_0, 1).
            slopes = self._origin(arguments, mean.ndim)[..., 1:]
            if self.has_intercept:
                slopes = jnp.concatenate([slopes, jnp.ones((*slopes.shape[:-1], 1), slopes.dtype)], axis=-1)
            pulled = jnp.matmul(covariance, slopes[..., None])[..., 0]
            covariates = self.num_covariates
            linear = linear + _behind_value(pulled[..., :covariates], 1)
            products = products + _behind_value(covariance[..., :covariates, :covariates], 2)
            square = square + (slopes * pulled).sum(-1)
        rows, columns = np.triu_indices(1 + self.num_covariates)
        counts = jnp.asarray(np.where(rows == columns, 0.5, 1.0), products.dtype)
        packed = upper(products)
        counts = counts.reshape((1,) * (packed.ndim - 1) + counts.shape)
        natural = -precision[..., None] * jnp.concatenate([linear, counts * packed], axis=-1)
        return natural, 0.5 * (precision * square - log_precision)

    def spread(self, covariance: Float[Array, "*batch"]) -> Float[Array, "*batch S"]:
        """The variance of y in the place of y^2: nothing is added to covariates."""
        place = jnp.arange(self._num_statistics) == 1 + self.num_covariates
        return jnp.where(place, covariance[..., None], 0.0)

    def canonical(
        self, natural: Float[Array, "*batch S"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D D"]]:
        """The first 1 + P, and minus the others, of which those on the diagonal count half."""
        dim = 1 + self.num_covariates
        counts = jnp.asarray(1.0 + np.eye(dim), natural.dtype)
        return natural[..., :dim], -natural[..., self._position] * counts

    def packed(self, first: Float[Array, "*batch D"], second: Float[Array, "*batch D D"]) -> Float[Array, "*batch S"]:
        """The sum of z, and the upper triangle of that of z z'."""
        return jnp.concatenate([first, upper(second)], axis=-1)

    def precision(self, statistics: Float[Array, "*batch 2"]) -> Float[Array, "*batch"]:
        """The first of the two: that of y."""
        return statistics[..., 0]

    def moment(self, name: str, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Float[Array, "..."]:
        """coefficients: those of least squares, which may not be pooled; of several that fit as well the shortest, in
        units of the covariates. scale: E[(y - c' d - a)^2].
        """
        mean, covariance = self._moments(mean_statistics)
        origin = self._origin(arguments, mean.ndim)
        if name == "scale":
            coefficients = as_floating(arguments["coefficients"])
            direction, gap = self._residual(coefficients, arguments)
            offset = (direction * mean).sum(-1) + gap
            return (direction * jnp.matmul(covariance, direction[..., None])[..., 0]).sum(-1) + offset * offset
        products, slopes_free, intercept_free = self._products(mean_statistics, arguments)
        centre = mean + origin
        matrix, vector = products[..., 1:, 1:], products[..., 1:, 0] * slopes_free
        units = self._units(mean_statistics, arguments)
        slopes = vector
        if self.num_covariates:
            scaled = units[..., :, None] * matrix * units[..., None, :]
            slopes = units * jnp.matmul(pseudo_inverse(scaled), (units * vector)[..., None])[..., 0]
        if not self.has_intercept:
            return slopes
        intercept = intercept_free * (centre[..., 0] - (slopes * centre[..., 1:]).sum(-1))
        return jnp.concatenate([slopes, intercept[..., None]], axis=-1)

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The coefficients themselves; the square root of the variance."""
        del arguments
        # Rounding may leave a collapsed variance below zero.
        return moment if name == "coefficients" else jnp.sqrt(jnp.maximum(moment, 0.0))

    def degenerate(self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Bool[Array, "*batch"]:
        """scale^2 <= 10 (P + 2) eps (sum_i |v_i| s_i)^2, s_i^2 = E[z_i^2], or not a number.

        The residual variance is v' Cov[z] v, a sum whose terms carry the rounding of the second moments; 10 is a digit
        of margin, as for a multivariate normal distribution.
        """
        most = 0.1 / ((self.num_covariates + 2) * float(jnp.finfo(mean_statistics.dtype).eps))
        # Not finite is degenerate, too.
        return ~(self.cancellation(mean_statistics, arguments) < most)

    def cancellation(self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Float[Array, "*batch"]:
        """(sum_i |v_i| s_i)^2 / scale^2, s_i^2 = E[z_i^2]: how much larger than the variance around the predictor the
        terms are whose difference it is.
        """
        mean, covariance = self._moments(mean_statistics)
        squares = jnp.diagonal(covariance, axis1=-2, axis2=-1) + mean * mean
        direction, _ = self._residual(as_floating(arguments["coefficients"]), arguments)
        size = (jnp.abs(direction) * jnp.sqrt(jnp.maximum(squares, 0.0))).sum(-1) / arguments["scale"]
        return size * size

    def rank(self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Int[Array, "*batch"]:
        """How many slopes least squares determine, to rounding; the others are left out."""
        products, _, _ = self._products(mean_statistics, arguments)
        units = self._units(mean_statistics, arguments)
        return rank(units[..., :, None] * products[..., 1:, 1:] * units[..., None, :])

    def condition(self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The condition number of what least squares solve for, each covariate in its own unit: that of the correlation
        matrix of the covariates; of their second moments about zero where there is no intercept.

        Covariates that are zero, or constant beside an intercept, have no part in it.
        """
        products, _, _ = self._products(mean_statistics, arguments)
        units = self._units(mean_statistics, arguments)
        scaled = units[..., :, None] * products[..., 1:, 1:] * units[..., None, :]
        # Those without a part get a one on the diagonal.
        scaled = scaled + jnp.where(units > 0, 0.0, 1.0)[..., None] * jnp.eye(self.num_covariates, dtype=scaled.dtype)
        if not self.num_covariates:
            return jnp.ones(scaled.shape[:-2], scaled.dtype)
        return condition_number(scaled)

    def _products(
        self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments
    ) -> tuple[Float[Array, "*batch D D"], Float[Array, "*batch P"], Float[Array, "*batch"]]:
        """Second moments of z, about its mean where there is an intercept, which is then whatever is left, about zero
        where not; those of covariates without a free coefficient are zero. And whether slopes and intercept are free.
        """
        mean, covariance = self._moments(mean_statistics)
        free = jnp.broadcast_to(arguments["free"], (*mean.shape[:-1], self.num_coefficients)).astype(mean.dtype)
        slopes_free, intercept_free = free[..., : self.num_covariates], free[..., self.num_covariates :].sum(-1)
        centre = mean + self._origin(arguments, mean.ndim)
        products = covariance + (1.0 - intercept_free)[..., None, None] * _outer(centre)
        kept = _behind_value(_outer(slopes_free), 2).at[..., 0, :].set(1.0).at[..., :, 0].set(1.0)
        return products * kept, slopes_free, intercept_free

    def _units(self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Float[Array, "*batch P"]:
        """One over the length of every covariate, in which it is solved for; zero for a length that is all rounding."""
        products, _, _ = self._products(mean_statistics, arguments)
        squares = jnp.diagonal(products, axis1=-2, axis2=-1)[..., 1:]
        mean, covariance = self._moments(mean_statistics)
        size = (jnp.diagonal(covariance, axis1=-2, axis2=-1) + mean * mean)[..., 1:]
        eps = jnp.finfo(squares.dtype).eps
        # The second moments carry the rounding of their terms; what is about the origin, that of the covariates.
        origin = 10.0 * eps * self._origin(arguments, mean.ndim)[..., 1:]
        there = squares > jnp.maximum(10.0 * self.num_covariates * eps * size, origin * origin)
        return jnp.where(there, 1.0 / jnp.sqrt(jnp.where(there, squares, 1.0)), 0.0)

    @property
    def _num_statistics(self) -> int:
        dim = 1 + self.num_covariates
        return dim + dim * (dim + 1) // 2

    @property
    def _position(self) -> Any:
        """Where the product of two entries of z is among the statistics."""
        dim = 1 + self.num_covariates
        rows, columns = np.triu_indices(dim)
        position = np.zeros((dim, dim), int)
        position[rows, columns] = position[columns, rows] = dim + np.arange(rows.size)
        return position

    def _moments(self, mean_statistics: Float[Array, "*batch S"]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """Mean and covariance of z."""
        mean = self.centre(mean_statistics)
        return mean, mean_statistics[..., self._position] - _outer(mean)

    def _origin(self, arguments: Arguments, ndim: int) -> Float[Array, "..."]:
        """What was subtracted from z, with so many dimensions."""
        if "origin" not in arguments:
            return jnp.zeros((1,) * (ndim - 1) + (1 + self.num_covariates,))
        origin = jnp.asarray(arguments["origin"])
        return origin.reshape((1,) * (ndim - origin.ndim) + origin.shape)

    def _residual(
        self, coefficients: Float[Array, "*batch Q"], arguments: Arguments
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch"]]:
        """v and g: the residual is v' z + g, for z around its origin."""
        ones = jnp.ones((*coefficients.shape[:-1], 1), coefficients.dtype)
        direction = jnp.concatenate([ones, -coefficients[..., : self.num_covariates]], axis=-1)
        gap = (direction * self._origin(arguments, direction.ndim)).sum(-1)
        return direction, gap - coefficients[..., -1] if self.has_intercept else gap


def _outer(vector: Float[Array, "*batch D"]) -> Float[Array, "*batch D D"]:
    return vector[..., :, None] * vector[..., None, :]


def _behind_value(part: Float[Array, "..."], num_axes: int) -> Float[Array, "..."]:
    """What is known of the covariates, with zeros for y before it along the last axes."""
    return jnp.pad(part, [(0, 0)] * (part.ndim - num_axes) + [(1, 0)] * num_axes)
