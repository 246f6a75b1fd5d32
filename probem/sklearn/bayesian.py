"""The Bayesian Gaussian mixture, by variational Bayes."""

import functools
import math
from collections.abc import Callable
from typing import Any, no_type_check

import jax
import numpy as np
from jaxtyping import Float
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_array

from probem import models
from probem.analysis.options import FitOptions
from probem.errors import InputError
from probem.families import VARIATIONAL_BAYES
from probem.models import GaussianPrior, bayesian_covariance
from probem.results.fit import Fit
from probem.solver.initialisers import Parameters
from probem.solver.result import Result
from probem.stopping import BoundChange
from probem.streaming.absorb import step_size

from .attributes import Components, components_of, means_of, numbers_of
from .base import Frame
from .checks import check_choice, check_positive, is_symmetric, partial_labels_of, seed, weights_of
from .density import Model
from .gaussian_base import GaussianEstimator, is_given
from .tasks import Batch, Task

_STRUCTURES = {
    "full": bayesian_covariance.full,
    "tied": bayesian_covariance.tied,
    "diag": bayesian_covariance.diagonal,
    "spherical": bayesian_covariance.spherical,
}
_PRIOR_TYPES = ("dirichlet_process", "dirichlet_distribution")
# What there is of a prior.
_PRIORS = (
    "weight_concentration_prior_",
    "mean_precision_prior_",
    "mean_prior_",
    "degrees_of_freedom_prior_",
    "covariance_prior_",
)
# What there is of a posterior beside the components.
_POSTERIOR = ("weight_concentration_", "mean_precision_", "degrees_of_freedom_")


class BayesianGaussianMixture(GaussianEstimator):
    """scikit-learn's ``BayesianGaussianMixture``, with the exact coordinate posteriors and a bound that is one.

    The arguments, attributes and defaults are those of ``sklearn.mixture.BayesianGaussianMixture`` 1.9. For full
    covariances and Dirichlet weights the posteriors are scikit-learn's, iteration by iteration. The differences:

    - ``elbo_`` is F <= log p(X) in nats, total, every constant in, and so are ``lower_bound_`` and ``lower_bounds_``
      (after every M-step); scikit-learn's leave out the normalisers of the priors, and more where it is not exact.
      ``tol`` is compared with the same change in both, but for ``reg_covar``: scikit-learn counts it into its bound,
      and may stop at another iteration where it matters.
    - "dirichlet_process" is the truncated stick-breaking prior: the last stick takes all that is left. scikit-learn
      leaves it open, so its weights need not sum to 1. ``weight_concentration_`` ends with (1, 0) for it, a
      beta distribution with all its mass at 1.
    - Tied, diagonal and spherical precisions have their conjugate posteriors: a Wishart matrix that has seen all N
      rows, not N / K; a gamma distribution for every variance, with ``degrees_of_freedom_`` twice its shape: in the
      spherical case they count D numbers for each row.
    - ``score_samples`` is the log posterior predictive density, a mixture of Student t; scikit-learn's adds up
      expected log densities, which are those of nothing.
    - A prior scale that is singular (the default, for a constant column or more columns than rows) is widened by
      ``reg_covar``, since F would be minus infinity; it is an error where that is 0.
    - ``random_state``, ``init_params``, ``n_init``, ``sample_weight``, ``partial_labels``, NaN, ``partial_fit``,
      ``fit_many``, Ctrl-C, the digits of far components and ``verbose`` are as in
      ``probem.sklearn.GaussianMixture``; a function in ``init_params`` returns labels or responsibilities. Of rows with
      NaN, the default ``covariance_prior`` has the variances alone, and a program is compiled for them.
    - ``sample`` draws from the posterior predictive, which is wider than a mixture with ``covariances_``.
    - Answers follow the attributes, as those of ``GaussianMixture`` do. Without ``weight_concentration_``,
      ``mean_precision_`` and ``degrees_of_freedom_`` they are those of the mixture with these components.

    Source: Bishop (2006), Pattern Recognition and Machine Learning, section 10.2; Blei & Jordan (2006), Variational
    inference for Dirichlet process mixtures.
    """

    _parameter_names = ("weights_", "means_", "covariances_", *_POSTERIOR)
    _told_by = (*GaussianEstimator._told_by, *_POSTERIOR, *_PRIORS)

    @no_type_check  # scikit-learn's constructors take anything, and fit says what is wrong with it
    def __init__(
        self,
        *,
        n_components: int = 1,
        covariance_type: str = "full",
        tol: int | float = 1e-3,
        reg_covar: int | float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: Any = "kmeans",
        weight_concentration_prior_type: str = "dirichlet_process",
        weight_concentration_prior: int | float | None = None,
        mean_precision_prior: int | float | None = None,
        mean_prior: Any = None,
        degrees_of_freedom_prior: int | float | None = None,
        covariance_prior: Any = None,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        verbose_interval: int = 10,
        partial_labels: bool = False,
        decay: int | float = 0.6,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.partial_labels = partial_labels
        self.decay = decay

    def _first_task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        # In a frame in which a value of a later batch may be missing.
        return self._task(X, y, sample_weight, diagonal=True)

    def _task(self, X: Any, y: Any, sample_weight: Any, diagonal: bool = False) -> Task:
        self._check()
        check_choice("weight_concentration_prior_type", self.weight_concentration_prior_type, _PRIOR_TYPES)
        rows = self._valid(X)
        self._warn_of_regularisation(rows)
        again = self._again(rows, self.weight_concentration_prior_type)
        weights = weights_of(sample_weight, rows)
        self._set_priors(rows, weights)
        self._diagonal = bool(diagonal or np.isnan(rows).any())
        frame = self._frame_of_fit()
        self._observed = _observed(rows, weights)
        inverse = np.linalg.inv(frame.factor)
        labels = partial_labels_of(self, y)
        init = Parameters(self._state(frame, self._components())) if again else self._start(frame)
        before = getattr(self, "lower_bound_", -math.inf) + self._log_volume(frame) if again else -math.inf
        return Task(
            self._program(frame, self._kind),
            frame.apply(rows),
            FitOptions(
                key=seed(self.random_state),
                families=VARIATIONAL_BAYES,
                init=init,
                restarts=1 if is_given(init) else self.n_init,
                max_steps=self.max_iter + 1,
                tolerance=BoundChange(self.tol, before, half="M"),
                row_weights=weights,
                labels=labels,
                added_variance=self.reg_covar * inverse @ inverse.T,
            ),
            # As in scikit-learn, no iteration was asked for to have the start.
            silent=() if self.max_iter else (Result.STEP_LIMIT,),
        )

    def _keep(self, fit: Fit) -> None:
        self._fit, frame = fit, self._frame_of_fit()
        kind, count, dim, _ = self._kind
        q: dict[str, dict[str, np.ndarray]] = jax.tree.map(np.asarray, fit.variational)
        moved = self._log_volume(frame)
        self.n_iter_ = fit.num_steps - 1
        self.converged_ = fit.result is Result.CONVERGED
        self.elbo_ = fit.elbo - moved
        self.lower_bounds_ = (fit.history.elbo[1::2][: self.n_iter_] - moved).tolist()
        # A fit that fell at once has the bound of its start.
        before = -math.inf if self.max_iter == 0 else self.elbo_
        self.lower_bound_ = self.lower_bounds_[-1] if self.lower_bounds_ else before
        self.weight_concentration_, self.weights_ = self._weights(q)
        self.means_ = frame.undo(q["loc"]["loc"].reshape(count, dim))
        self.mean_precision_ = self.mean_precision_prior_ * q["loc"]["strength"].reshape(count, -1)
        precision = q["precision"]
        if kind in ("full", "tied"):
            self.degrees_of_freedom_ = precision["concentration"]
            whole = frame.factor @ precision["rate_matrix"] @ frame.factor.T
            self.covariances_ = whole / precision["concentration"][:, None, None]
        else:
            shape = (count, dim) if kind == "diag" else (count,)
            scales = np.diagonal(frame.factor) if kind == "diag" else frame.factor[0, 0]
            self.degrees_of_freedom_ = 2 * precision["concentration"].reshape(shape)
            self.covariances_ = (precision["rate"] / precision["concentration"]).reshape(shape) * scales**2
        if kind == "tied":
            self.degrees_of_freedom_, self.covariances_ = float(precision["concentration"][0]), self.covariances_[0]
        assert fit.plan is not None
        partial = fit.plan.form.partial
        self.mean_precision_ = _of_components(self.mean_precision_, partial)
        self.degrees_of_freedom_ = _of_components(self.degrees_of_freedom_, partial)
        self._precisions()
        self._warn_of_lost_digits(fit)

    def _reported_bounds(self, fit: Fit, elbos: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
        del fit
        return elbos - self._log_volume(self._frame_of_fit())

    def _go_on(self, before: Fit, fit: Fit, batch: Batch) -> None:
        total = float(len(batch.rows) if batch.weights is None else batch.weights.sum())
        step = step_size(before, total, self.decay)
        self._observed = step.kept * self._observed + step.gained * _observed(batch.rows, batch.weights)
        super()._go_on(before, fit, batch)

    def _inner(self, rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        frame = self._frame_of_fit()
        if np.isnan(rows).any() and not frame.is_diagonal:
            raise InputError(
                "a batch with missing values after a fit of complete rows",
                "complete rows, or a stream that began with partial_fit",
                "begin it with partial_fit",
            )
        return frame.apply(rows)

    def _log_volume(self, frame: Frame) -> float:
        """What F of fitted rows is higher by than that of the rows given: of each value that was observed, once."""
        if frame.is_diagonal:
            return float(self._observed @ np.log(np.diagonal(frame.factor)))
        return float(self._observed[0] * frame.log_volume)

    def _weights(
        self, q: dict[str, dict[str, np.ndarray]]
    ) -> tuple[np.ndarray | tuple[np.ndarray, np.ndarray], Float[np.ndarray, " K"]]:
        """``weight_concentration_``, and the expected weights."""
        if "weights" in q:
            concentration = q["weights"]["concentration"].reshape(-1)
            return concentration, _expected_weights(concentration)
        none = np.zeros(0, q["loc"]["loc"].dtype)
        sticks = q.get("sticks", {"concentration1": none, "concentration0": none})
        last = np.array([1.0, 0.0], none.dtype)  # takes all that is left
        first, second = np.append(sticks["concentration1"], last[0]), np.append(sticks["concentration0"], last[1])
        return (first, second), _expected_weights(np.stack([first, second]))

    def _set_priors(self, rows: Float[np.ndarray, "N D"], weights: Float[np.ndarray, " N"] | None) -> None:
        dim = rows.shape[1]
        concentration = self.weight_concentration_prior
        for name in ("weight_concentration_prior", "mean_precision_prior", "degrees_of_freedom_prior"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value, strict=True)
        self.weight_concentration_prior_ = 1.0 / self._kind[1] if concentration is None else concentration
        self.mean_precision_prior_ = 1.0 if self.mean_precision_prior is None else self.mean_precision_prior
        if self.mean_prior is None:
            self.mean_prior_ = _means(rows, weights)
        else:
            self.mean_prior_ = check_array(self.mean_prior, dtype=str(rows.dtype), ensure_2d=False)
            if self.mean_prior_.shape != (dim,):
                raise ValueError(
                    f"The parameter 'means' should have the shape of ({dim},), but got {self.mean_prior_.shape}"
                )
        dof = dim if self.degrees_of_freedom_prior is None else self.degrees_of_freedom_prior
        if not dof > dim - 1:
            raise ValueError(
                f"The parameter 'degrees_of_freedom_prior' should be greater than {dim - 1}, but got {dof:.3f}."
            )
        self.degrees_of_freedom_prior_ = dof
        self.covariance_prior_ = self._covariance_prior(rows, weights)

    def _covariance_prior(self, rows: Float[np.ndarray, "N D"], weights: Float[np.ndarray, " N"] | None) -> Any:
        kind, _, dim, _ = self._kind
        shape = {"full": (dim, dim), "tied": (dim, dim), "diag": (dim,), "spherical": ()}[kind]
        if self.covariance_prior is None:
            total = len(rows) if weights is None else weights.sum()
            if np.isnan(rows).any():
                # Pairs of columns may have no row in common.
                biased = np.diag(_means((rows - _means(rows, weights)) ** 2, weights))
            else:
                biased = np.cov(rows.T, aweights=weights, bias=True).reshape(dim, dim)
            whole = (biased * total / max(total - 1, 1)).astype(rows.dtype)
            variances = np.diagonal(whole)
            prior: Any = {"full": whole, "tied": whole, "diag": variances.copy(), "spherical": variances.mean()}[kind]
            if self.reg_covar > 0 and _is_singular(_matrix(prior, dim), rows.dtype):
                prior = prior + self.reg_covar * (np.eye(dim, dtype=rows.dtype) if kind in ("full", "tied") else 1.0)
            if _is_singular(_matrix(prior, dim), rows.dtype):
                raise InputError(
                    "rows whose covariance is singular, as the default covariance_prior",
                    "a positive definite one",
                    "leave constant or collinear columns out, scale the rows (StandardScaler), raise reg_covar, or pass"
                    " covariance_prior",
                )
            return prior
        prior = np.asarray(self.covariance_prior, rows.dtype)
        if prior.shape != shape:
            raise ValueError(
                f"The parameter '{kind} covariance_prior' should have the shape of {shape}, but got {prior.shape}"
            )
        matrix = _matrix(prior, dim)
        if not (is_symmetric(matrix) and (np.linalg.eigvalsh(matrix) > 0).all()):
            raise ValueError(f"'{kind} covariance_prior' should be symmetric, positive-definite")
        return prior if shape else float(prior)

    def _model(self, complete: bool) -> Model:
        components = self._components()
        if not self._has_posterior():
            return self._points()
        prior = hasattr(self, "covariance_prior_")
        frame = self._frame_from_prior(not complete) if prior else _frame_of(components, not complete)
        # Priors have no part in an answer: of posteriors that were set by hand there are none.
        weights = _PRIOR_TYPES[1 if np.ndim(self.weight_concentration_) == 1 else 0]
        program = self._program(frame, (components.covariance_type, *components.means.shape, weights))
        shift = components.weights @ frame.apply(components.means)
        return Model(program, VARIATIONAL_BAYES, self._state(frame, components), {"x": shift}, frame)

    def _has_posterior(self) -> bool:
        """Whether there is a posterior; else the components are points."""
        there = [name for name in _POSTERIOR if hasattr(self, name)]
        if there and len(there) < len(_POSTERIOR):
            (missing, *_) = (name for name in _POSTERIOR if name not in there)
            raise NotFittedError(
                f"This BayesianGaussianMixture has {there[0]} and no {missing}; fit it, or set all of"
                f" {', '.join(_POSTERIOR)}, or none of them."
            )
        return bool(there)

    def _components(self) -> Components:
        if not self._has_posterior():
            return super()._components()
        means = means_of(self)
        shape = (len(means),) if np.ndim(self.weight_concentration_) == 1 else (2, len(means))
        concentration = np.asarray(self.weight_concentration_, means.dtype)
        if concentration.shape != shape or not (np.isfinite(concentration) & (concentration >= 0)).all():
            raise InputError(
                f"weight_concentration_ of shape {concentration.shape} with values from {concentration.min():g}",
                f"shape ({len(means)},) of a Dirichlet distribution or (2, {len(means)}) of sticks, none below 0",
                "set it as a fit does",
            )
        expected = _expected_weights(concentration)
        components = components_of(self, self._covariance_types(), expected)
        if not np.allclose(components.weights, expected, rtol=0, atol=1e-3):
            raise InputError(
                "weights_ and weight_concentration_ that contradict each other",
                "weights that are expected under it",
                "set both, or delete the one that is out of date (del mixture.weights_)",
            )
        return components

    def _frame_of_fit(self) -> Frame:
        return self._frame_from_prior(self._diagonal)

    def _frame_from_prior(self, diagonal: bool) -> Frame:
        origin = np.asarray(self.mean_prior_)
        matrix = _matrix(self.covariance_prior_, len(origin))
        factor = np.diag(np.sqrt(np.diagonal(matrix))) if diagonal else np.linalg.cholesky(matrix)
        return Frame(origin, factor.astype(origin.dtype))

    def _program(self, frame: Frame, of: tuple[Any, ...]) -> Callable[..., Any]:
        kind, count, dim, weights_prior = of
        # A diagonal entry of an inverse Wishart matrix has fewer degrees of freedom than the matrix.
        more = 0 if kind in ("full", "tied") else dim - 1
        dtype = frame.origin.dtype
        scatter = np.eye(dim, dtype=dtype)
        if frame.is_diagonal and kind in ("full", "tied") and hasattr(self, "covariance_prior_"):
            scales = np.diagonal(frame.factor)
            scatter = (np.asarray(self.covariance_prior_) / np.outer(scales, scales)).astype(dtype)
            scatter[np.diag_indices(dim)] = 1.0
        prior = GaussianPrior(
            np.zeros(dim, dtype),
            self._mean_precision_prior(),
            float(getattr(self, "degrees_of_freedom_prior_", dim) + more),
            scatter,
        )
        concentration = float(getattr(self, "weight_concentration_prior_", 1.0))
        if weights_prior == "dirichlet_distribution":
            weights: Any = functools.partial(models.dirichlet, concentration=concentration)
        elif count > 1:
            weights = functools.partial(models.stick_breaking, concentration=concentration)
        else:
            weights = models.equal
        return functools.partial(
            models.bayesian_gmm,
            num_components=count,
            prior=prior,
            covariance=_STRUCTURES[kind],
            weights=weights,
        )

    def _mean_precision_prior(self) -> float:
        return float(getattr(self, "mean_precision_prior_", 1.0))

    def _state(self, frame: Frame, components: Components) -> dict[str, Any]:
        """The arguments of q of every site, in this frame."""
        kind, _, means, spread = components
        count, dim = means.shape
        loc = frame.apply(means)
        matrices = kind in ("full", "tied")
        cells = 1 if matrices else dim
        copies = 1 if kind == "tied" else count
        strength = self._posterior("mean_precision_", (count, cells), loc.dtype) / self._mean_precision_prior()
        least = dim - 1 if matrices else 0
        freedom = self._posterior("degrees_of_freedom_", (copies, dim if kind == "diag" else 1), loc.dtype, least)
        if matrices:
            inverse = np.linalg.inv(frame.factor)
            covariances = inverse @ spread @ inverse.T
            rate = freedom[:, :, None] * covariances.reshape(-1, dim, dim)
            precision = {"concentration": freedom[:, 0], "rate_matrix": 0.5 * (rate + np.swapaxes(rate, -1, -2))}
        else:
            scales = np.diagonal(frame.factor) if kind == "diag" else frame.factor[0, 0]
            shape = freedom.reshape(-1) / 2
            precision = {"concentration": shape, "rate": shape * (spread / scales**2).reshape(-1)}
        state: dict[str, Any] = {
            "loc": {"loc": loc.reshape(count * cells, dim // cells), "strength": strength.reshape(-1)},
            "precision": precision,
        }
        concentration = np.asarray(self.weight_concentration_)
        if concentration.ndim == 1:
            state["weights"] = {"concentration": concentration[None]}
        elif count > 1:
            state["sticks"] = {"concentration1": concentration[0, :-1], "concentration0": concentration[1, :-1]}
        return state

    def _posterior(
        self, name: str, shape: tuple[int, int], dtype: np.dtype, least: int = 0
    ) -> Float[np.ndarray, "_ _"]:
        """A number of every component, or of every component and feature, ``shape``, or of all of them."""
        values = numbers_of(self, name, dtype)
        given = values[:, None] if values.ndim == 1 and len(values) == shape[0] else values
        try:
            values = np.broadcast_to(given, shape)
        except ValueError:
            raise InputError(
                f"{name} of shape {values.shape}", f"shape ({shape[0]},)", "set one of each component"
            ) from None
        if not (values > least).all():
            raise InputError(f"{name} with the value {values.min():g}", f"values above {least:g}", "set others, or fit")
        return values


def _observed(rows: Float[np.ndarray, "N D"], weights: Float[np.ndarray, " N"] | None) -> Float[np.ndarray, " D"]:
    """How many values there are in each column, each as often as its row counts."""
    there = ~np.isnan(rows)
    return there.sum(0) * 1.0 if weights is None else weights @ there


def _expected_weights(
    concentration: Float[np.ndarray, " K"] | Float[np.ndarray, "2 K"],
) -> Float[np.ndarray, " K"]:
    """E[weights] of the concentration of a Dirichlet distribution or of sticks.

    What the last stick leaves, if it leaves anything, is shared by all, as in scikit-learn.
    """
    if concentration.ndim == 1:
        return concentration / concentration.sum()
    first, second = concentration
    fractions = first / (first + second)
    lengths = fractions * np.append(fractions.dtype.type(1), np.cumprod(1 - fractions[:-1]))
    return lengths / lengths.sum() if second[-1] > 0 else lengths


def _frame_of(components: Components, diagonal: bool) -> Frame:
    """A frame at the place and the scale of the components."""
    kind, weights, means, covariances = components
    dim = means.shape[1]
    if kind == "full":
        matrix = np.tensordot(weights, covariances, 1)
    elif kind == "tied":
        matrix = covariances
    else:
        matrix = _matrix(weights @ covariances, dim)
    factor = np.diag(np.sqrt(np.diagonal(matrix))) if diagonal else np.linalg.cholesky(matrix)
    return Frame(weights @ means, factor.astype(means.dtype))


def _means(rows: Float[np.ndarray, "N D"], weights: Float[np.ndarray, " N"] | None) -> Float[np.ndarray, " D"]:
    """The mean of what is there of every column."""
    if not np.isnan(rows).any():
        return np.average(rows, axis=0, weights=weights).astype(rows.dtype)
    counted = ~np.isnan(rows) * (1.0 if weights is None else weights[:, None])
    totals = counted.sum(0)
    if not (totals > 0).all():
        raise InputError("a column without a value in any row of positive weight", "one in each", "leave it out")
    return ((np.nan_to_num(rows) * counted).sum(0) / totals).astype(rows.dtype)


def _is_singular(matrix: Float[np.ndarray, "D D"], dtype: np.dtype) -> bool:
    """Whether a covariance is singular to rounding, whatever the units of its columns."""
    scales = np.sqrt(np.diagonal(matrix))
    if not (scales > 0).all():
        return True
    # Rounding may leave a singular matrix a factor.
    return not np.linalg.eigvalsh(matrix / np.outer(scales, scales))[0] > 10 * len(matrix) * np.finfo(dtype).eps


def _of_components(value: Any, partial: bool) -> Any:
    """``[K]`` of ``[K, D]`` where all features have seen the same rows, which they have unless values are missing."""
    array = np.asarray(value)
    return array[:, 0] if array.ndim == 2 and (array.shape[1] == 1 or not partial) else value


def _matrix(value: Any, dim: int) -> Float[np.ndarray, "D D"]:
    """A prior scale of any shape as a matrix."""
    array = np.asarray(value)
    return array if array.ndim == 2 else np.diag(np.broadcast_to(array, (dim,)))
