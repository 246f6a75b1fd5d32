"""What the estimators share: checks, precision, how a fit ends, and the answers of a density model."""

import contextlib
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from probem.data import Rows
from probem.errors import FitError, InputError, nearest
from probem.families import EM
from probem.fit import fit
from probem.fitted import Fit, placed
from probem.loop import Result
from probem.missing import check_columns
from probem.stepwise import absorb

# How a fit may end short of convergence and still be an answer, and what helps.
_WARNED = {
    Result.STEP_LIMIT: "raise max_iter or tol",
    Result.EMPTY_COMPONENT: "ask for fewer components, or start elsewhere (random_state, n_init, init)",
    Result.BOUND_FELL: "use float64 rows, and standardise them",
}
_RAISED = {
    Result.SINGULAR: (
        "raise reg_covar (or the added_variance of Mixture), ask for fewer components or a simpler covariance, or start"
        " elsewhere (random_state, n_init)"
    ),
    Result.NON_FINITE: "scale the rows (StandardScaler), use float64, or start elsewhere (random_state, n_init)",
    Result.NOT_CONJUGATE: "use families=probem.EM",
}
# NumPyro has one stack of handlers for all threads.
_ALONE = threading.RLock()
# The squares of distances, summed over any number of rows, are finite below it.
_LARGEST_RANGE = 1e140


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """float64 for float64 rows, whatever the process is set to, which stays as it is; one thread at a time."""
    with _ALONE, jax.enable_x64(True) if np.dtype(dtype) == np.float64 else contextlib.nullcontext():
        yield


def unit(rows: np.ndarray) -> float:
    """A power of two near the range of the rows, by which they are divided without rounding.

    Beside the constants of a density, distances far below 1 would be lost to rounding.

    Raises
    ------
    InputError
        If the sum of their squared distances would be infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        largest = float(np.fmax.reduce(np.fmax.reduce(rows) - np.fmin.reduce(rows)))
    if largest > _LARGEST_RANGE:
        raise InputError(
            f"rows that range over {largest:.3g}", f"less than {_LARGEST_RANGE:g}", "scale the rows (StandardScaler)"
        )
    return 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0


def seed(random_state: Any) -> int:
    """A seed of the engine from a ``random_state``."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def check_positive(name: str, value: Any, least: int | float = 0, whole: bool = False) -> None:
    """One sentence about a number that is out of its range."""
    kind = int | np.integer if whole else int | float | np.integer | np.floating
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < float("inf"):
        number = "whole number" if whole else "number"
        raise InputError(f"{name}={value!r}", f"a {number} of at least {least:g}", "change it")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """One sentence about a word that is none of the choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r}", "one of " + ", ".join(map(repr, choices)), nearest(str(value), choices))


def run(
    estimator: Any,
    program: Callable[..., Any],
    rows: np.ndarray,
    silent: tuple[Result, ...] = (),
    **settings: Any,
) -> Fit:
    """Fit, and say in scikit-learn's way how it ended: a warning where there is an answer, else an error.

    Of ``silent`` results, which are answers, nothing is said.

    Raises
    ------
    ValueError
        For a result that is no answer (a spread that collapsed), with the remedy.
    """
    found = fit(program, rows, throw=False, progress=bool(estimator.verbose), **settings)
    result = found.result
    if result in (Result.CONVERGED, Result.INTERRUPTED, *silent) or result is None:
        return found
    where = f" (component {found.component})" if result in (Result.SINGULAR, Result.EMPTY_COMPONENT) else ""
    sentence = f"{type(estimator).__name__}: {result.value}{where} after {found.num_steps} steps"
    if result not in _WARNED:
        raise ValueError(f"{sentence}; {_RAISED[result]}.")
    warnings.warn(f"{sentence}; {_WARNED[result]}.", ConvergenceWarning, stacklevel=3)
    return found


def valid(estimator: Any, X: Any, **options: Any) -> np.ndarray:
    """Rows ``[N, D]`` as scikit-learn checks them; the estimator remembers the number and the names of the columns."""
    rows = np.asarray(validate_data(estimator, X, ensure_all_finite="allow-nan", **options))
    if options.get("reset", True):
        check_columns(Rows((rows,), missing=(np.isnan(rows),)))
    return rows


def weights_of(sample_weight: Any, rows: np.ndarray) -> np.ndarray | None:
    """``sample_weight`` checked, ``[N]``; None where every row counts once."""
    if sample_weight is None:
        return None
    return np.asarray(_check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True))


def partial_labels_of(estimator: Any, y: Any) -> Any:
    """The known components of some rows, if ``y`` is to be read so."""
    if not estimator.partial_labels:
        return None
    if y is None:
        raise InputError("no y with partial_labels=True", "the components of the rows, -1 where unknown", "pass y")
    return np.asarray(y)


class Frame(NamedTuple):
    """Rows are fitted as ``factor^-1 (x - origin)``, ``factor`` [D, D] lower triangular."""

    origin: np.ndarray
    factor: np.ndarray

    def apply(self, rows: np.ndarray) -> np.ndarray:
        moved = rows - self.origin
        scales = np.diagonal(self.factor)
        # Entry by entry where that is all there is to it: a missing value stays one.
        if (self.factor == np.diag(scales)).all():
            return (moved / scales).astype(rows.dtype)
        return np.linalg.solve(self.factor, moved.T).T.astype(rows.dtype)

    def undo(self, rows: np.ndarray) -> np.ndarray:
        return rows @ self.factor.T + self.origin

    @property
    def log_volume(self) -> float:
        """What a log density of fitted rows is higher by than that of the rows given, nats per row."""
        return float(np.linalg.slogdet(self.factor)[1])


class NanTolerant(BaseEstimator):
    """Rows may have NaN for what is missing."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _rows(self, X: Any) -> np.ndarray:
        """In the wider of their own precision and that of the fit."""
        check_is_fitted(self)
        rows = valid(self, X, reset=False, dtype=[np.float64, np.float32])
        return rows.astype(np.result_type(rows, self._dtype), copy=False)

    @property
    def _dtype(self) -> Any:
        """Of the fit."""
        raise NotImplementedError


class DensityEstimator(DensityMixin, NanTolerant):
    """The answers of a fitted mixture about rows, from its attributes alone, so that it can be pickled and loaded."""

    random_state: Any
    decay: float
    n_features_in_: int

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        raise NotImplementedError

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Go on with a batch of rows that were not seen yet, in a single pass: stepwise EM (``probem.absorb``).

        The first batch is fitted to convergence, or goes on from ``fit``. Then one E half-step over the rows of a
        batch, and one M half-step over a running average of the statistics of all, in which the t-th batch of n_t rows
        has the share min(1, n_t / N_t * t^(1 - ``decay``)): t^(-``decay``) for batches of one size.

        Source: Cappé & Moulines (2009), On-line EM algorithm for latent data models, eq. 10.
        """
        found = getattr(self, "_fit", None)
        if found is None:
            return self._begin_stream(X, y, sample_weight)
        rows = self._rows(X).astype(self._dtype, copy=False)
        weights, labels = weights_of(sample_weight, rows), partial_labels_of(self, y)
        with precision(rows.dtype):
            frame = self._frame_of_fit()
            inner = rows if frame is None else frame.apply(rows)
            try:
                found = absorb(found, inner, row_weights=weights, labels=labels, decay=self.decay)
            except FitError as error:
                raise ValueError(f"{type(self).__name__}: {error}") from None
            self._keep(found)
        return self

    def _begin_stream(self, X: Any, y: Any, sample_weight: Any) -> Any:
        return self.fit(X, y, sample_weight=sample_weight)

    def _keep(self, found: Fit) -> None:
        raise NotImplementedError

    def _program(self, frame: Frame | None) -> Callable[..., Any]:
        raise NotImplementedError

    def _families(self) -> Any:
        return EM

    def _state(self, frame: Frame | None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The arguments of q and the points of every site, and the origin of every observed site, from attributes."""
        raise NotImplementedError

    def _frame(self, rows: np.ndarray) -> Frame | None:
        """In which rows of this kind are fitted; None as they are."""
        return None

    def _frame_of_fit(self) -> Frame | None:
        """In which the last fit was made."""
        return None

    def _answer(self, X: Any, ask: Callable[[Fit, np.ndarray], Any]) -> np.ndarray:
        rows = self._rows(X)
        with precision(rows.dtype):
            frame = self._frame(rows)
            inner = rows if frame is None else frame.apply(rows)
            fitted = placed(self._program(frame), (inner,), self._families(), *self._state(frame))
            return np.asarray(ask(fitted, inner))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of every row, ``[N]``, ties to the lowest index."""
        return self._answer(X, lambda fitted, rows: fitted.predict(rows)).astype(np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """q(t_n = k), ``[N, K]``."""
        return self._answer(X, lambda fitted, rows: fitted.responsibilities(rows))

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x_n) of what is there of each row, ``[N]``, nats per row."""
        rows = self._rows(X)
        frame = self._frame(rows)
        found = self._answer(X, lambda fitted, rows: fitted.log_density(rows))
        if frame is None:
            return found
        missing = np.isnan(rows)
        if not missing.any():
            return found - frame.log_volume
        return found - (~missing @ np.log(np.diagonal(frame.factor)))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of log p(x_n), nats per row."""
        del y
        return float(np.mean(self.score_samples(X)))

    def impute(self, X: Any) -> np.ndarray:
        """The rows with E[x_m | x_o] in place of NaN: what is missing given what is there, ``[N, D]``."""
        rows = self._rows(X)
        frame = self._frame(rows)
        found = self._answer(X, lambda fitted, inner: fitted.impute(inner))
        return np.where(np.isnan(rows), found if frame is None else frame.undo(found), rows)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and the most probable component of every row, ``[N]``."""
        return self.fit(X, y, sample_weight=sample_weight).predict(X)

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``n_samples`` new rows ``[n, D]``, sorted by component, and their components ``[n]``."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample.")
        rows = np.zeros((n_samples, self.n_features_in_), self._dtype)
        with precision(rows.dtype):
            frame = self._frame(rows)
            fitted = placed(self._program(frame), (rows,), self._families(), *self._state(frame))
            assert fitted.plan is not None
            program = fitted.plan.program
            if len(program.observed) != 1 or len(program.assignments) != 1:
                raise InputError(
                    "a program with several sites in its plate", "one of each", "use probem.fit(...).sample"
                )
            drawn = fitted.sample(seed(self.random_state), n_samples, rows)
            labels = np.asarray(drawn[program.assignments[0].name])
            values = np.asarray(drawn[program.observed[0]])
        order = np.argsort(labels, kind="stable")
        values = values[order]
        return values if frame is None else frame.undo(values), labels[order].astype(np.int64)
