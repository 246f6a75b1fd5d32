"""The Gaussian mixture."""

import math
from collections.abc import Mapping
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float
from sklearn.utils.validation import check_array, check_is_fitted

from probem.analysis.options import FitOptions
from probem.errors import InputError, nearest
from probem.results.fit import Fit
from probem.solver.initialisers import Parameters
from probem.solver.result import Result
from probem.stopping import BoundChange

from .attributes import shapes_of_covariances
from .checks import is_symmetric, partial_labels_of, seed, weights_of
from .density import Model
from .gaussian_base import GaussianEstimator, gaussian_program, is_given, spread_of, values_of
from .tasks import Task


class GaussianMixture(GaussianEstimator):
    """scikit-learn's ``GaussianMixture``, by EM.

    The arguments, attributes and defaults are those of ``sklearn.mixture.GaussianMixture`` 1.9, and from the same start
    it makes the same iterations, ``reg_covar`` and the rule of ``tol`` included. The differences:

    - ``random_state`` draws other numbers, so random starts differ. "kmeans" is ``probem.Lloyd``: of many rows (more
      than one block of them) it clusters a random part. "k-means++" and "random_from_data" start with the M-step of the
      rows nearest to each seed, which is where scikit-learn is after its first iteration.
    - ``init_params`` may also be responsibilities ``[N, K]``, or a function of ``(key, rows)`` that returns labels,
      responsibilities or ``probem.Parameters`` ("weights", "loc" and "covariance" or "scale").
      ``n_init`` starts run side by side; the one with the highest F is kept.
    - ``sample_weight`` in ``fit``: a row of weight 2 counts as two rows, one of weight 0 as none.
    - ``partial_labels=True`` takes ``y`` as the known components of some rows, -1 where unknown.
    - NaN is a missing value: its row counts with the others, exactly (EM over what is missing), and ``impute`` fills it
      in. ``partial_fit`` is stepwise EM, with ``decay``.
    - ``fixed`` holds values of "weights", "means" or "covariances" that stay where they are, NaN where free. ``bic``
      and ``aic`` do not count them.
    - ``fit_many`` fits many data sets of one shape in one call.
    - Answers follow ``weights_``, ``means_`` and ``covariances_`` as they are, whether a fit or the user set them, also
      on an estimator that was never fitted. ``precisions_cholesky_`` or ``precisions_`` may stand in for covariances
      that are not there; where they contradict each other, answers are refused.
    - Ctrl-C keeps the best state so far, and raises KeyboardInterrupt. A fit that fails keeps the fit before it.
    - ``elbo_`` is F in nats, total, at the parameters reported: their log likelihood. ``lower_bound_`` is
      scikit-learn's, nats per row, of the parameters one M-step before.
    - A component that no row belongs to keeps its parameters (scikit-learn moves it to the origin).
    - Second moments are those about the mean of all rows, and about no other origin: of a component s of its standard
      deviations away, a variance loses 2 log10(s) digits (scikit-learn loses none). Where fewer than three are left of
      float32, or none, the fit is made again in float64, and so are its attributes; where that is not enough, a warning
      says so. A spread that collapses to rounding is an error that says so, and so is a bound that is not finite.
    - ``verbose`` shows a progress bar on a terminal, once a fit takes long. All starts run side by side, so what
      scikit-learn prints of them comes after the fit: how each ended, and the iterations of the one that was kept:
      every ``verbose_interval``-th with its bound, from ``verbose=2`` with its change too, without times.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, eqs. 9.23-9.27.
    """

    _parameter_names = ("weights_", "means_", "covariances_")

    @no_type_check  # scikit-learn's constructors take anything, and fit says what is wrong with it
    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: int | float = 1e-3,
        reg_covar: int | float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: Any = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        partial_labels: bool = False,
        fixed: Mapping[str, Any] | None = None,
        decay: int | float = 0.6,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.partial_labels = partial_labels
        self.fixed = fixed
        self.decay = decay

    def _task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        self._check()
        rows = self._valid(X)
        self._warn_of_regularisation(rows)
        given = self._given(rows)
        again = self._again(rows)
        weights = weights_of(sample_weight, rows)
        labels = partial_labels_of(self, y)
        fixed = self._fixed(rows)
        if again:
            init, before = Parameters(values_of(self._components())), getattr(self, "lower_bound_", -math.inf)
        else:
            complete = len(given) == 3
            start = None if complete else self._start(anchors=_anchors(fixed))
            init = Parameters(given, start) if given else start
            before = -math.inf
        total = len(rows) if weights is None else float(weights.sum())
        return Task(
            gaussian_program(self.covariance_type, self.n_components),
            rows,
            FitOptions(
                key=seed(self.random_state),
                init=init,
                restarts=1 if again or len(given) == 3 or is_given(init) else self.n_init,
                max_steps=self.max_iter + 1,
                tolerance=BoundChange(self.tol, before * total, per_row=True),
                row_weights=weights,
                labels=labels,
                fixed=fixed,
                added_variance=self.reg_covar,
            ),
            # As in scikit-learn, no iteration was asked for to have the start.
            silent=() if self.max_iter else (Result.STEP_LIMIT,),
        )

    def bic(self, X: Any) -> float:
        """-2 log p(X) + P log N: the Bayesian information criterion, lower is better."""
        return -2 * self.score(X) * len(X) + self._n_parameters() * math.log(len(X))

    def aic(self, X: Any) -> float:
        """-2 log p(X) + 2 P: Akaike's information criterion, lower is better."""
        return -2 * self.score(X) * len(X) + 2 * self._n_parameters()

    def _keep(self, fit: Fit) -> None:
        self._fit, total = fit, fit.total_weight
        # Arrays of their own, that can be written to.
        values = {name: np.array(value) for name, value in fit.params.items()}
        self.weights_, self.means_ = values["weights"], values["loc"]
        self.covariances_ = values["covariance"] if "covariance" in values else values["scale"] ** 2
        self._precisions()
        self.n_iter_ = fit.num_steps - 1
        self.converged_ = fit.result in (Result.CONVERGED, Result.EMPTY_COMPONENT)
        self.elbo_ = fit.elbo
        bounds = fit.history.elbo[::2] / total
        self.lower_bounds_ = bounds[: self.n_iter_].tolist()
        # A fit that fell at once has the bound of its start.
        before = -math.inf if self.max_iter == 0 else fit.elbo / total
        self.lower_bound_ = self.lower_bounds_[-1] if self.lower_bounds_ else before
        self._warn_of_lost_digits(fit)

    def _reported_bounds(self, fit: Fit, elbos: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
        return elbos / fit.total_weight

    def _model(self, complete: bool) -> Model:
        del complete
        return self._points()

    def _given(self, rows: Float[np.ndarray, "N D"]) -> dict[str, np.ndarray]:
        """The parameters that ``*_init`` give, in those of the program."""
        count, dim = self.n_components, rows.shape[1]
        shape = shapes_of_covariances(count, dim)[self.covariance_type]
        values: dict[str, np.ndarray] = {}
        if self.weights_init is not None:
            values["weights"] = _array("weights_init", self.weights_init, (count,), rows.dtype)
            if (values["weights"] < 0).any() or abs(values["weights"].sum() - 1) > 1e-6:
                raise InputError("weights_init off the simplex", "weights that sum to 1", "divide them by their sum")
            values["weights"] = values["weights"] / values["weights"].sum()
        if self.means_init is not None:
            values["loc"] = _array("means_init", self.means_init, (count, dim), rows.dtype)
        if self.precisions_init is not None:
            value = _array("precisions_init", self.precisions_init, shape, rows.dtype)
            if self.covariance_type in ("full", "tied"):
                symmetric = is_symmetric(value)
                if not symmetric or (np.linalg.eigvalsh(value) <= 0).any():
                    raise InputError(
                        "precisions_init that is not symmetric and positive definite",
                        "a precision matrix (for each component)",
                        "symmetrise it, or leave it out",
                    )
                inverse = np.linalg.inv(value)
                values["covariance"] = 0.5 * (inverse + np.swapaxes(inverse, -1, -2))
            elif (value <= 0).any():
                raise InputError("precisions_init that is not positive", "positive precisions", "leave it out")
            else:
                values["scale"] = 1.0 / np.sqrt(value)
        return values

    def _fixed(self, rows: Float[np.ndarray, "N D"]) -> dict[str, np.ndarray] | None:
        if self.fixed is None:
            return None
        if not isinstance(self.fixed, Mapping):
            raise InputError(
                f"fixed of type {type(self.fixed).__name__}",
                "values by name, NaN where free",
                "write fixed={'means': ...}",
            )
        count, dim = self.n_components, rows.shape[1]
        shapes = {
            "weights": (count,),
            "means": (count, dim),
            "covariances": shapes_of_covariances(count, dim)[self.covariance_type],
        }
        fixed: dict[str, np.ndarray] = {}
        for name, given in self.fixed.items():
            if name not in shapes:
                raise InputError(f"fixed['{name}']", "values of weights, means or covariances", nearest(name, shapes))
            value = np.asarray(given)
            if value.dtype.kind not in "biuf":
                raise InputError(f"fixed '{name}' of type {value.dtype}", "numbers", "use NaN where free")
            value = value.astype(float)
            shape = shapes[name]
            if value.shape != shape:
                raise InputError(f"fixed '{name}' of shape {value.shape}", f"shape {shape}", "use NaN where free")
            if name == "covariances" and self.covariance_type in ("diag", "spherical") and (value <= 0).any():
                raise InputError("fixed 'covariances' that are not positive", "variances", "use NaN where free")
            fixed |= {"weights": {"weights": value}, "means": {"loc": value}}.get(name) or spread_of(
                self.covariance_type, value
            )
        return fixed

    def _n_parameters(self) -> int:
        """P, the number of free parameters, without those that are fixed."""
        check_is_fitted(self)
        components = self._components()
        count, dim = components.means.shape

        def free(name: str, number: int) -> int:
            value = (self.fixed or {}).get(name)
            return number if value is None else round(number * np.isnan(np.asarray(value, float)).mean())

        spread = {
            "full": count * dim * (dim + 1) // 2,
            "tied": dim * (dim + 1) // 2,
            "diag": count * dim,
            "spherical": count,
        }[components.covariance_type]
        return free("covariances", spread) + free("means", count * dim) + max(free("weights", count) - 1, 0)


def _anchors(fixed: Mapping[str, np.ndarray] | None) -> Float[np.ndarray, "K D"] | None:
    """The means of which every value is fixed, NaN elsewhere; None if there are none."""
    means = None if fixed is None else fixed.get("loc")
    if means is None or np.isnan(means).any(1).all():
        return None
    return np.where(np.isnan(means).any(1, keepdims=True), np.nan, means)


def _array(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> Float[np.ndarray, "..."]:
    array = check_array(value, dtype=dtype, ensure_2d=False, allow_nd=True)
    if array.shape != shape:
        raise ValueError(f"The parameter '{name}' should have the shape of {shape}, but got {array.shape}")
    return array
