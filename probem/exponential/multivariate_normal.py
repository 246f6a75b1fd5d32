"""The multivariate normal distribution, given by its covariance, its precision or a Cholesky factor."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped
from numpyro.distributions.util import promote_shapes

from .base import Arguments, ExponentialFamily, Location, as_floating
from .linalg import cholesky, inverse, inverse_triangular
from .matrices import flat, square, upper

# Slices run up to a quarter faster than a gather on a CPU, but compile in a time that grows with their number
# (measured: 1.4 s against 0.05 s for 64 dimensions).
_MOST_SLICES = 16

_MATRICES = ("covariance_matrix", "precision_matrix", "scale_tril")


@dataclasses.dataclass(frozen=True)
class MultivariateNormal(ExponentialFamily):
    """The normal distribution with mean loc and precision Lambda.

    A product of two coordinates stands in T once and so counts twice: S = D + D (D + 1) / 2.
    """

    #: Which of the three matrices the distribution was given.
    matrix: str
    dim: int

    distributions: ClassVar = (dist.MultivariateNormal,)
    is_location: ClassVar[bool] = True
    is_quadratic: ClassVar[bool] = True

    @classmethod
    def of(cls, distribution: dist.Distribution) -> "MultivariateNormal":
        """Finds out which matrix was given."""
        # NumPyro keeps the matrix it was given, computes scale_tril from it if need be, and caches the others there on
        # first use: the given one is the one that was stored first.
        matrix = next(name for name in distribution.__dict__ if name in _MATRICES)
        return cls(matrix, distribution.event_shape[0])

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The mean, then the matrix around it."""
        return ("loc", self.matrix)

    def argument_event_ndims(self, name: str) -> int:
        """One for the mean, two for the matrix."""
        return 1 if name == "loc" else 2

    def statistics(self, x: Shaped[Array, "*batch D"]) -> Float[Array, "*batch S"]:
        """(x, x_i x_j for i <= j), row by row of the upper triangle."""
        x = as_floating(x)
        if self.dim > _MOST_SLICES:
            rows, columns = np.triu_indices(self.dim)
            return jnp.concatenate([x, x[..., rows] * x[..., columns]], axis=-1)
        products = [x[..., i : i + 1] * x[..., i:] for i in range(self.dim)]
        return jnp.concatenate([x, *products], axis=-1)

    def natural(self, arguments: Arguments) -> Float[Array, "... S"]:
        """(Lambda loc, -Lambda_ii / 2 on the diagonal and -Lambda_ij above it)."""
        return self._natural(arguments, self._whitening(arguments))

    def _natural(self, arguments: Arguments, whitening: Float[Array, "... D D"]) -> Float[Array, "... S"]:
        transposed = jnp.swapaxes(whitening, -1, -2)
        linear = _times(transposed, _times(whitening, as_floating(arguments["loc"])))
        rows, columns = np.triu_indices(self.dim)
        upper = jnp.matmul(transposed, whitening)[..., rows, columns]
        upper, counts = promote_shapes(upper, jnp.asarray(np.where(rows == columns, 0.5, 1.0), upper.dtype))
        quadratic = -counts * upper
        batch = jnp.broadcast_shapes(linear.shape[:-1], quadratic.shape[:-1])
        parts = [jnp.broadcast_to(part, batch + part.shape[-1:]) for part in (linear, quadratic)]
        return jnp.concatenate(parts, axis=-1)

    def log_normaliser(self, arguments: Arguments) -> Float[Array, "..."]:
        """(loc' Lambda loc - log det Lambda) / 2."""
        return self._log_normaliser(arguments, self._whitening(arguments))

    def natural_and_log_normaliser(self, arguments: Arguments) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
        """Both, from one factor of the matrix."""
        whitening = self._whitening(arguments)
        return self._natural(arguments, whitening), self._log_normaliser(arguments, whitening)

    def _log_normaliser(self, arguments: Arguments, whitening: Float[Array, "... D D"]) -> Float[Array, "..."]:
        white = _times(whitening, as_floating(arguments["loc"]))
        quadratic, log_det = promote_shapes(0.5 * jnp.sum(white * white, axis=-1), _log_det(whitening))
        return quadratic - log_det

    def log_base_measure(self, x: Shaped[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """-D log(2 pi) / 2."""
        x = as_floating(x)
        return jnp.full(x.shape[:-1], -0.5 * self.dim * math.log(2.0 * math.pi), x.dtype)

    def argument_statistics(self, arguments: Arguments) -> Float[Array, "... A"]:
        """Lambda, row by row, and log det Lambda."""
        whitening = self._whitening(arguments)
        given = self.matrix == "precision_matrix"
        whole = jnp.matmul(jnp.swapaxes(whitening, -1, -2), whitening)
        precision = as_floating(arguments[self.matrix]) if given else whole
        return flat(precision, 2.0 * _log_det(whitening))

    def expected(
        self, statistics: Float[Array, "... A"], location: Location | None, arguments: Arguments
    ) -> tuple[Float[Array, "... S"], Float[Array, "..."]]:
        """As ``natural``, from E[Lambda] and E[loc]; (tr E[Lambda] E[loc loc'] - E[log det Lambda]) / 2."""
        del arguments
        assert location is not None
        precision, log_det = square(statistics), statistics[..., -1]
        rows, columns = np.triu_indices(self.dim)
        counts = jnp.asarray(np.where(rows == columns, 0.5, 1.0), precision.dtype)
        linear, quadratic = _times(precision, location.mean), -counts * upper(precision)
        batch = jnp.broadcast_shapes(linear.shape[:-1], quadratic.shape[:-1])
        parts = [jnp.broadcast_to(part, batch + part.shape[-1:]) for part in (linear, quadratic)]
        second = _outer(location.mean) + location.covariance
        return jnp.concatenate(parts, axis=-1), 0.5 * ((precision * second).sum((-1, -2)) - log_det)

    def spread(self, covariance: Float[Array, "*batch D D"]) -> Float[Array, "*batch S"]:
        """Zeros, and the upper triangle of the covariance."""
        packed = upper(covariance)
        return jnp.concatenate([jnp.zeros((*packed.shape[:-1], self.dim), packed.dtype), packed], axis=-1)

    def canonical(
        self, natural: Float[Array, "*batch S"]
    ) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D D"]]:
        """The first D, and minus the others, of which those on the diagonal count half."""
        rows, columns = np.triu_indices(self.dim)
        position = np.zeros((self.dim, self.dim), int)
        position[rows, columns] = position[columns, rows] = self.dim + np.arange(rows.size)
        counts = jnp.asarray(1.0 + np.eye(self.dim), natural.dtype)
        return natural[..., : self.dim], -natural[..., position] * counts

    def packed(self, first: Float[Array, "*batch D"], second: Float[Array, "*batch D D"]) -> Float[Array, "*batch S"]:
        """The sum of x, and the upper triangle of that of x x'."""
        return jnp.concatenate([first, upper(second)], axis=-1)

    def independent(self, mean: Float[Array, "*batch D"], variance: Float[Array, "... D"]) -> Float[Array, "*batch S"]:
        """(m / v, -1 / 2v on the diagonal and zero above it)."""
        rows, columns = np.triu_indices(self.dim)
        quadratic = jnp.where(rows == columns, -0.5 / variance[..., rows], jnp.zeros((), variance.dtype))
        quadratic = jnp.broadcast_to(quadratic, (*mean.shape[:-1], rows.size))
        return jnp.concatenate([mean / variance, quadratic], axis=-1)

    def precision(self, statistics: Float[Array, "*batch A"]) -> Float[Array, "*batch D D"]:
        """The matrix without its log determinant."""
        return square(statistics)

    def moment(self, name: str, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Float[Array, "..."]:
        """loc: E[x], to be pooled over equal matrices only. Any matrix: E[(x - loc)(x - loc)'], exactly symmetric."""
        mean = mean_statistics[..., : self.dim]
        if name == "loc":
            return mean
        rows, columns = np.triu_indices(self.dim)
        position = np.zeros((self.dim, self.dim), int)
        position[rows, columns] = position[columns, rows] = self.dim + np.arange(rows.size)
        # Centred on the mean first: the cancellation is then that of the covariance, wherever loc lies.
        mean, loc = promote_shapes(mean, arguments["loc"])
        scatter, offset = promote_shapes(mean_statistics[..., position] - _outer(mean), _outer(mean - loc))
        return scatter + offset

    def from_moment(self, name: str, moment: Float[Array, "*batch"], arguments: Arguments) -> Float[Array, "*batch"]:
        """The mean itself; the covariance itself, its inverse (symmetric to the last bit), or its Cholesky factor."""
        del arguments
        if name == "scale_tril":
            return cholesky(moment)
        if name == "precision_matrix":
            precision = inverse(moment)
            return 0.5 * (precision + jnp.swapaxes(precision, -1, -2))
        return moment

    def degenerate(self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments) -> Bool[Array, "*batch"]:
        """Var[x_i | x_j, j < i] <= 10 (D + 1) eps E[x_i^2] for some i, or a matrix without a Cholesky factor.

        These variances are the squared diagonal of the covariance's Cholesky factor. Its backward error is (D + 1) eps
        of the coordinate's variance (Higham 2002, Accuracy and Stability of Numerical Algorithms, theorem 10.3), the
        covariance itself carries the rounding of the second moments it was subtracted from, and 10 is a digit of
        margin.
        """
        bound = 10.0 * (self.dim + 1) * jnp.finfo(mean_statistics.dtype).eps
        return self._is_singular(mean_statistics, arguments, bound)

    def degenerate_completed(
        self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments
    ) -> Bool[Array, "*batch"]:
        """As ``degenerate``, below eps^(2/3) E[x_i^2] if that is more.

        What is filled in follows a collapsing covariance, whose collapse then takes many steps, of some tenths of a nat
        each. On the way a row's quadratic form is a difference of terms of the size E[x_i^2] / Var[x_i | x_j], and so
        are the means that were filled in: in float64, rounding was measured to reach those tenths at 1e-12, where a
        fit would stop on it; this bound (4e-11) keeps a digit of distance.
        """
        eps = jnp.finfo(mean_statistics.dtype).eps
        bound = jnp.maximum(10.0 * (self.dim + 1) * eps, eps ** (2 / 3))
        return self._is_singular(mean_statistics, arguments, bound)

    def _is_singular(
        self, mean_statistics: Float[Array, "*batch S"], arguments: Arguments, bound: Float[ArrayLike, ""]
    ) -> Bool[Array, "*batch"]:
        rows, columns = np.triu_indices(self.dim)
        squares = mean_statistics[..., self.dim + np.flatnonzero(rows == columns)]
        value = arguments[self.matrix]
        if self.matrix == "precision_matrix":
            # The lower factor of the covariance is the inverse transposed of the upper factor of the precision, which
            # is the lower factor of the precision with its coordinates reversed.
            factor = cholesky(value[..., ::-1, ::-1])
            conditional = 1.0 / _diagonal(factor)[..., ::-1] ** 2
        else:
            conditional = _diagonal(self._factor(value)) ** 2
        conditional, squares = promote_shapes(conditional, squares)
        return jnp.any(~(conditional > bound * squares), axis=-1)

    def _factor(self, matrix: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
        matrix = as_floating(matrix)
        return matrix if self.matrix == "scale_tril" else cholesky(matrix)

    def _whitening(self, arguments: Arguments) -> Float[Array, "... D D"]:
        """A triangular W with W' W = Lambda: the inverse factor of the covariance, or the precision's, transposed."""
        factor = self._factor(arguments[self.matrix])
        return jnp.swapaxes(factor, -1, -2) if self.matrix == "precision_matrix" else inverse_triangular(factor)


def _times(matrix: Float[Array, "... D D"], vector: Float[Array, "... D"]) -> Float[Array, "... D"]:
    return jnp.matmul(matrix, vector[..., None])[..., 0]


def _outer(vector: Float[Array, "*batch D"]) -> Float[Array, "*batch D D"]:
    return vector[..., :, None] * vector[..., None, :]


def _diagonal(matrix: Float[Array, "*batch D D"]) -> Float[Array, "*batch D"]:
    return jnp.diagonal(matrix, axis1=-2, axis2=-1)


def _log_det(triangular: Float[Array, "*batch D D"]) -> Float[Array, "*batch"]:
    return jnp.sum(jnp.log(jnp.abs(_diagonal(triangular))), axis=-1)
