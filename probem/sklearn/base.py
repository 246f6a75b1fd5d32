"""What the estimators share: checks, fits of one data set and of many, and the answers of a density model."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from probem.data import Rows
from probem.errors import FitError, InputError, nearest
from probem.families import EM
from probem.fitted import Fit, placed
from probem.missing import check_columns
from probem.stepwise import absorb

from .tasks import Task, precision, run, run_many, say_all, throw

# The squares of distances, summed over any number of rows, are finite below it.
_LARGEST_RANGE = 1e140


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


# The class of an estimator.
Own = TypeVar("Own", bound="Fitted")
Density = TypeVar("Density", bound="DensityEstimator")


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

    n_features_in_: int

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


class Fitted(NanTolerant):
    """An estimator that the engine fits: a task, and what becomes of the fit."""

    def fit(self: Own, X: Any, y: Any = None, sample_weight: Any = None) -> Own:
        """Fit to the rows.

        Parameters
        ----------
        X : ``[N, D]``, NaN where a value is missing
        y : ignored, or the known components of some rows, -1 where unknown (``partial_labels``)
        sample_weight : ``[N]``, how often each row counts

        Raises
        ------
        ValueError
            For arguments or rows that cannot be used, and for a fit that has no answer.
        """
        task = self._task(X, y, sample_weight)
        with precision(task.rows.dtype):
            self._end(run(self, task), task)
        return self

    def fit_many(self: Own, X: Any, y: Any = None, sample_weight: Any = None) -> list[Own]:
        """Fit a clone to each of B data sets of one shape, side by side in one compiled call (``probem.fit_many``).

        They are what ``[clone(self).fit(x) for x in X]`` gives, to rounding; this estimator stays as it is.

        Parameters
        ----------
        X : ``[B, N, D]``, or B tables
        y, sample_weight : as in ``fit``, ``[B, N]``

        Raises
        ------
        ValueError
            For arguments or rows that cannot be used; it says of which data set.
        FitError
            If a fit has no answer; its ``fit`` holds the estimators, None where there is none.
        """
        count = len(X) if hasattr(X, "__len__") else -1
        for name, value in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            if value is not None and (not hasattr(value, "__len__") or len(value) != count):
                got = f"of length {len(value)}" if hasattr(value, "__len__") else f"of type {type(value).__name__}"
                raise InputError(f"{name} {got}", "one entry for each data set: X [B, N, D]", "stack the data sets")
        if not count:
            raise InputError("no data sets", "at least one", "check the selection")
        estimators: list[Any] = [clone(self) for _ in range(count)]
        tasks: list[Task] = []
        for number, (one, own) in enumerate(zip(estimators, X, strict=True)):
            chosen = [None if value is None else value[number] for value in (y, sample_weight)]
            try:
                tasks.append(one._task(own, *chosen))
            except ValueError as error:
                raise ValueError(f"data set {number}: {error}") from None
            if tasks[-1].rows.shape != tasks[0].rows.shape or tasks[-1].rows.dtype != tasks[0].rows.dtype:
                shapes = [f"{task.rows.shape} {task.rows.dtype}" for task in (tasks[0], tasks[-1])]
                raise InputError(
                    f"data sets of {shapes[0]} and, number {number}, of {shapes[1]}",
                    "one shape and precision",
                    "fit them one by one, or fill them up with rows of weight 0",
                )
        with precision(tasks[0].rows.dtype):
            fits = run_many(tasks)
            wrong = say_all(type(self).__name__, tasks, fits)
            without = {number for own in wrong.values() for number in own}
            for number, (one, found, task) in enumerate(zip(estimators, fits, tasks, strict=True)):
                if number not in without:
                    one._end(found, task)
        throw(type(self).__name__, wrong, [None if number in without else one for number, one in enumerate(estimators)])
        return estimators

    def _task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        """What to ask of the engine, everything checked."""
        raise NotImplementedError

    def _end(self, found: Fit, task: Task) -> None:
        """Keep what was found as attributes."""
        raise NotImplementedError


class DensityEstimator(DensityMixin, Fitted):
    """The answers of a fitted mixture about rows, from its attributes alone, so that it can be pickled and loaded."""

    random_state: Any
    decay: float

    def partial_fit(self: Density, X: Any, y: Any = None, sample_weight: Any = None) -> Density:
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

    def _begin_stream(self: Density, X: Any, y: Any, sample_weight: Any) -> Density:
        return self.fit(X, y, sample_weight=sample_weight)

    def _end(self, found: Fit, task: Task) -> None:
        self._keep(found)

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
