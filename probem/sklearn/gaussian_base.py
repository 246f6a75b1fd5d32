"""What the Gaussian mixtures share."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from probem import models
from probem.errors import InputError
from probem.families import EM
from probem.results.fit import Fit
from probem.solver.initialisers import (
    Labels,
    Parameters,
    Responsibilities,
    as_given_start,
)
from probem.solver.result import Result
from probem.solver.seedings import KMeansPlusPlus, Lloyd, RandomRows, SeedingIn
from probem.streaming.absorb import check_step_size

from .attributes import SPREADS, Components, components_of, floating, means_of
from .base import Frame
from .checks import check_choice, check_flag, check_positive, valid
from .density import DensityEstimator, Model
from .tasks import Batch, Task, warn

STRUCTURES = {
    "full": models.full,
    "tied": models.tied,
    "diag": models.diagonal,
    "spherical": models.spherical,
}
COVARIANCE_TYPES = tuple(STRUCTURES)
INIT_PARAMS = ("kmeans", "k-means++", "random", "random_from_data")
_SEEDINGS = {"kmeans": Lloyd, "k-means++": KMeansPlusPlus, "random_from_data": RandomRows}

# The relative error of a variance beyond which too many of its digits are lost.
_MOST_LOST = 1e-3


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
    covariances_: Float[np.ndarray, "..."]
    weights_: Float[np.ndarray, " K"]
    means_: Float[np.ndarray, "K D"]
    lower_bounds_: list[float]
    _told_by = ("covariance_type", "_kind", "weights_", "means_", *SPREADS)
    # Covariance type, K, D and the kind of prior of the last fit.
    _kind: tuple[Any, ...]

    def _check(self) -> None:
        check_positive("n_components", self.n_components, 1, whole=True)
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        check_positive("tol", self.tol)
        check_positive("reg_covar", self.reg_covar)
        check_positive("max_iter", self.max_iter, 0, whole=True)
        check_positive("n_init", self.n_init, 1, whole=True)
        check_flag("warm_start", self.warm_start)
        check_flag("partial_labels", self.partial_labels)
        check_step_size("decay", self.decay, 0.5)
        if isinstance(self.init_params, str):
            check_choice("init_params", self.init_params, INIT_PARAMS)

    def _valid(self, X: Any) -> Float[np.ndarray, "N D"]:
        rows = valid(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        if len(rows) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components},"
                f" n_samples = {len(rows)}"
            )
        return rows

    def _again(self, rows: Float[np.ndarray, "N D"], prior: str = "") -> bool:
        """Whether to start where the last fit ended, which has to be of the same kind; the kind is this one's then."""
        kind = (self.covariance_type, self.n_components, rows.shape[1], prior)
        again = self.warm_start and hasattr(self, "converged_")
        if again and kind != self._kind_of_attributes(prior):
            last, count, dim, prior = self._kind_of_attributes(prior)
            raise InputError(
                f"warm_start=True after a fit with {last} covariances, {count} components"
                f"{f' under a {prior}' if prior else ''} and {dim} features",
                "the same ones in this fit",
                "use warm_start=False, or a new estimator",
            )
        self._kind = kind
        return again

    def _start(self, frame: Frame | None = None, anchors: Float[np.ndarray, "K D"] | None = None) -> Any:
        """The initialiser of the engine that ``init_params`` names; it leaves ``anchors`` where they are, means that
        are fixed (NaN: none).

        Distances are those of the rows as they are given, whatever the ``frame`` in which they are fitted.
        """
        given_start = self.init_params
        if callable(given_start):
            return given_start if frame is None else functools.partial(_unframed, given_start, frame)
        if not isinstance(given_start, str):
            return Responsibilities(np.asarray(given_start))
        if self.init_params == "random":
            return functools.partial(_random, self.n_components)
        seeding = _SEEDINGS[self.init_params]()
        if frame is None and anchors is None:
            return seeding
        metric = None if frame is None else np.diagonal(frame.factor) if frame.is_diagonal else frame.factor
        return SeedingIn(seeding, metric, anchors)

    def _warn_of_regularisation(self, rows: Float[np.ndarray, "N D"]) -> None:
        """Say so where ``reg_covar`` is larger than what it is added to."""
        variances = np.nanvar(rows, axis=0)
        drowned = np.flatnonzero((variances > 0) & (variances < self.reg_covar))
        if len(drowned):
            columns = "column" if len(drowned) == 1 else "columns"
            named = ", ".join(map(str, drowned[:10])) + (", ..." if len(drowned) > 10 else "")
            warn(
                f"{type(self).__name__}: reg_covar={self.reg_covar:g} is larger than the variance of {columns} {named}"
                f" ({variances[drowned].min():.2g}), and drowns it; scale the rows (StandardScaler), or lower"
                " reg_covar.",
                UserWarning,
            )

    def _go_on(self, before: Fit, fit: Fit, batch: Batch) -> None:
        bounds = self.lower_bounds_
        self._keep(fit)
        # One more, of what has been seen by then.
        self.lower_bound_ = float(self._reported_bounds(fit, np.array([fit.elbo]))[0])
        self.lower_bounds_ = [*bounds, self.lower_bound_]

    @property
    def _iteration_bounds(self) -> list[float]:
        return self.lower_bounds_

    def _lacks_digits(self, fit: Fit, task: Task) -> bool:
        if task.rows.dtype != np.float32 or fit.result is Result.INTERRUPTED:
            return False
        lost = fit.result in (Result.SINGULAR, Result.NON_FINITE, Result.BOUND_FELL)
        return lost or not self._lost_digits(fit) <= _MOST_LOST

    def _lost_digits(self, fit: Fit) -> float:
        """The relative error of the variance that has lost the most digits to the squared distance of its component
        from the origin of the second moments.
        """
        assert fit.totals is not None
        assert fit.plan is not None
        values = {name: np.asarray(value, float) for name, value in fit.params.items()}
        distance = values["loc"] - np.asarray(fit.totals.shifts["x"]).reshape(-1)
        name = next(site for site in ("covariance", "precision", "scale") if site in values)
        spread = values[name]
        if self._kind[0] in ("full", "tied"):
            spread = np.diagonal(spread, axis1=-2, axis2=-1)
        elif self._kind[0] == "spherical":
            spread = spread[:, None]
        with np.errstate(divide="ignore"):
            precision = spread if name == "precision" else 1 / (spread**2 if name == "scale" else spread)
        # Measured: the relative error of a variance is some eight times the precision times this ratio.
        return 8 * float(np.finfo(fit.plan.dtype).eps * (distance**2 * precision).max())

    def _warn_of_lost_digits(self, fit: Fit) -> None:
        """Say so where a spread is that small beside the distance to the origin of its second moments."""
        lost = self._lost_digits(fit)
        if lost > _MOST_LOST:
            left = f"a relative error of some {lost:.0e}" if lost < 1 else "not one right digit"
            distance = (lost / (8 * np.finfo(self._dtype).eps)) ** 0.5
            warn(
                f"{type(self).__name__}: a component lies {distance:.2g} of its standard deviations from the mean of"
                f" all rows, which leaves its variance {left}; fit the clusters that are so far apart one by one.",
                UserWarning,
            )

    def _precisions(self) -> None:
        """``precisions_cholesky_``, upper triangular P with P P' = the precision, and ``precisions_``."""
        if self._kind[0] in ("full", "tied"):
            lower = np.linalg.cholesky(self.covariances_)
            self.precisions_cholesky_ = np.swapaxes(np.linalg.inv(lower), -1, -2)
            # The inverse of a triangular matrix is triangular, to the last bit.
            self.precisions_cholesky_ = np.triu(self.precisions_cholesky_)
            self.precisions_ = self.precisions_cholesky_ @ np.swapaxes(self.precisions_cholesky_, -1, -2)
        else:
            self.precisions_cholesky_ = 1.0 / np.sqrt(self.covariances_)
            self.precisions_ = self.precisions_cholesky_**2

    @property
    def _dtype(self) -> np.dtype:
        return floating(getattr(self, "means_", 0.0))

    @property
    def _num_features(self) -> int:
        return means_of(self).shape[1]

    def _components(self) -> Components:
        """The components by the attributes as they are now."""
        return components_of(self, self._covariance_types())

    def _covariance_types(self) -> list[str]:
        """That of the last fit, else that of the next: where the shapes of covariances leave a choice."""
        check_choice("covariance_type", self.covariance_type, COVARIANCE_TYPES)
        return [*getattr(self, "_kind", ())[:1], self.covariance_type]

    def _kind_of_attributes(self, prior: str) -> tuple[Any, ...]:
        """Covariance type, K, D and the kind of prior by the attributes; this one where there was no fit."""
        components = self._components()
        return components.covariance_type, *components.means.shape, getattr(self, "_kind", (prior,))[-1]

    def _points(self) -> Model:
        """A Gaussian mixture with these components, and no posterior."""
        components = self._components()
        program = gaussian_program(components.covariance_type, len(components.weights))
        return Model(program, EM, values_of(components), {"x": components.weights @ components.means})


@functools.cache
def gaussian_program(covariance_type: str, num_components: int) -> Callable[..., Any]:
    """The program of a Gaussian mixture."""
    return functools.partial(models.gmm, num_components=num_components, covariance=STRUCTURES[covariance_type])


def values_of(components: Components) -> dict[str, np.ndarray]:
    """The values of the program's sites."""
    spread = spread_of(components.covariance_type, components.covariances)
    return {"weights": components.weights, "loc": components.means, **spread}


def spread_of(covariance_type: str, covariances: Float[np.ndarray, "..."]) -> dict[str, np.ndarray]:
    """Covariances as the program has them."""
    if covariance_type in ("full", "tied"):
        return {"covariance": np.asarray(covariances)}
    return {"scale": np.sqrt(np.asarray(covariances))}


def _random(count: int, key: PRNGKeyArray, rows: Float[Array, "N D"]) -> Responsibilities:
    """Responsibilities that are uniform numbers, each row divided by its sum."""
    uniform = jax.random.uniform(key, (rows.shape[0], count), rows.dtype)
    return Responsibilities(uniform / uniform.sum(1, keepdims=True))


def _unframed(
    start: Callable[..., Any], frame: Frame, key: PRNGKeyArray, rows: Float[Array, "N D"]
) -> Labels | Responsibilities:
    """What a start makes of the rows as they were given."""
    given = as_given_start(start(key, frame.undo(np.asarray(rows)).astype(rows.dtype)))
    if isinstance(given, Parameters):
        raise InputError(
            "parameters from init_params",
            "labels or responsibilities where the parameters have posteriors",
            "return those",
        )
    return given


def is_given(init: Any) -> bool:
    """Whether a start is one, and not drawn."""
    others = init.others if isinstance(init, Parameters) else init
    return isinstance(others, Labels | Responsibilities | Parameters) or others is None
