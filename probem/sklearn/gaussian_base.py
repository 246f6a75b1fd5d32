"""What the Gaussian mixtures share."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.errors import InputError
from probem.initialization import KMeansPlusPlus, Labels, Parameters, RandomRows, Responsibilities, nearest_seed

from .base import (
    DensityEstimator,
    Frame,
    check_choice,
    check_positive,
    unit,
    valid,
)
from .starts import Clusters

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")


class GaussianEstimator(DensityEstimator):
    """What the Gaussian mixtures share: their arguments, their starts, and the two forms of a precision."""

    n_components: int
    covariance_type: str
    init_params: Any
    n_init: int
    max_iter: int
    tol: float
    reg_covar: float
    random_state: Any
    warm_start: bool
    partial_labels: bool
    covariances_: np.ndarray
    weights_: np.ndarray
    means_: np.ndarray
    # Covariance type, K and D of the last fit.
    _kind: tuple[Any, ...]

    def _check(self) -> None:
        check_positive("n_components", self.n_components, 1, whole=True)
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        check_positive("tol", self.tol)
        check_positive("reg_covar", self.reg_covar)
        check_positive("max_iter", self.max_iter, 0, whole=True)
        check_positive("n_init", self.n_init, 1, whole=True)
        if isinstance(self.init_params, str):
            check_choice("init_params", self.init_params, INIT_PARAMS)

    def _valid(self, X: Any) -> np.ndarray:
        rows = valid(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if len(rows) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components},"
                f" n_samples = {len(rows)}"
            )
        unit(rows)  # whose squares are finite
        return rows

    def _again(self, rows: np.ndarray) -> bool:
        """Whether to start where the last fit ended, which has to be of the same kind."""
        if not (self.warm_start and hasattr(self, "converged_")):
            return False
        kind = (self.covariance_type, self.n_components, rows.shape[1])
        if kind != self._kind:
            last, count, dim = self._kind
            raise InputError(
                f"warm_start=True after a fit with {last} covariances, {count} components and {dim} features",
                "the same ones in this fit",
                "use warm_start=False, or a new estimator",
            )
        return True

    def _start(self, weights: np.ndarray | None, labels: Any, frame: Frame | None = None) -> Any:
        """The initialiser of the engine that ``init_params`` names; known ``labels`` lead it.

        Distances are those of the rows as they are given, whatever the ``frame`` in which they are fitted.
        """
        if not isinstance(self.init_params, str):
            return self.init_params if callable(self.init_params) else Responsibilities(np.asarray(self.init_params))
        count = self.n_components

        def as_given(rows: Any) -> np.ndarray:
            given = np.asarray(rows) if frame is None else frame.undo(np.asarray(rows)).astype(rows.dtype)
            return given / given.dtype.type(unit(given))

        if self.init_params == "random":

            def random(key: Array, rows: Array) -> Responsibilities:
                uniform = jax.random.uniform(key, (rows.shape[0], count), rows.dtype)
                return Responsibilities(uniform / uniform.sum(1, keepdims=True))

            return random
        if self.init_params == "kmeans":
            return Clusters(count, as_given, weights, labels)
        seeding = KMeansPlusPlus() if self.init_params == "k-means++" else RandomRows()
        if frame is None:
            return seeding

        def nearest(key: Array, rows: Array) -> Labels:
            given = jnp.asarray(as_given(rows))
            counted = jnp.ones(len(given)) if weights is None else jnp.asarray(weights)
            seeds = seeding.seeds(key, given, counted.astype(given.dtype), count)
            return Labels(nearest_seed(given, seeds, partial=True))

        return nearest

    def _warn_of_regularisation(self, rows: np.ndarray) -> None:
        """Say so where ``reg_covar`` is larger than what it is added to."""
        variances = np.nanvar(rows, axis=0)
        drowned = np.flatnonzero((variances > 0) & (variances < self.reg_covar))
        if len(drowned):
            columns = "column" if len(drowned) == 1 else "columns"
            named = ", ".join(map(str, drowned[:10])) + (", ..." if len(drowned) > 10 else "")
            warnings.warn(
                f"{type(self).__name__}: reg_covar={self.reg_covar:g} is larger than the variance of {columns} {named}"
                f" ({variances[drowned].min():.2g}), and drowns it; scale the rows (StandardScaler), or lower"
                " reg_covar.",
                UserWarning,
                stacklevel=4,
            )

    def _precisions(self) -> None:
        """``precisions_cholesky_``, upper triangular P with P P' = the precision, and ``precisions_``."""
        self._kind = (self.covariance_type, *self.means_.shape)
        if self.covariance_type in ("full", "tied"):
            lower = np.linalg.cholesky(self.covariances_)
            self.precisions_cholesky_ = np.swapaxes(np.linalg.inv(lower), -1, -2)
            # The inverse of a triangular matrix is triangular, to the last bit.
            self.precisions_cholesky_ = np.triu(self.precisions_cholesky_)
            self.precisions_ = self.precisions_cholesky_ @ np.swapaxes(self.precisions_cholesky_, -1, -2)
        else:
            self.precisions_cholesky_ = 1.0 / np.sqrt(self.covariances_)
            self.precisions_ = self.precisions_cholesky_**2

    @property
    def _dtype(self) -> Any:
        return np.asarray(self.means_).dtype


def is_given(init: Any) -> bool:
    """Whether a start is one, and not drawn."""
    others = init.others if isinstance(init, Parameters) else init
    return isinstance(others, Labels | Responsibilities | Parameters) or others is None
