"""What the estimators share: fits of one data set, of many and of batches, of rows that may have gaps."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from probem.errors import InputError
from probem.jit.precision import precision
from probem.jit.tracing import kept
from probem.results.fit import Fit
from probem.solver.result import Result

from .checks import are_complete, are_within, is_plain, largest_number, partial_labels_of, valid, weights_of
from .rows import Rows, is_csr
from .tasks import Batch, Task, go_on, in_float64, run, run_many, say, say_all, throw


@contextlib.contextmanager
def restored(estimator: Any) -> Iterator[None]:
    """What fails leaves the estimator as it was."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


# The class of an estimator.
Own = TypeVar("Own", bound="Fitted")


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Rows are fitted as ``factor^-1 (x - origin)``, ``factor`` lower triangular."""

    origin: Float[np.ndarray, " D"]
    factor: Float[np.ndarray, "D D"]

    def apply(self, rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        moved = rows - self.origin
        if self.is_diagonal:
            return (moved / np.diagonal(self.factor)).astype(rows.dtype, copy=False)
        return np.linalg.solve(self.factor, moved.T).T.astype(rows.dtype, copy=False)

    def undo(self, rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        return rows @ self.factor.T + self.origin

    @kept
    def is_diagonal(self) -> bool:
        """Whether entries are fitted one by one, so that one may be missing."""
        return bool((self.factor == np.diag(np.diagonal(self.factor))).all())

    @kept
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

    def _rows(self, X: Any) -> Rows:
        """In the wider of their own precision and that of the fit."""
        return self._checked(X)[0]

    def _checked(self, X: Any) -> tuple[Rows, bool]:
        """The rows, and whether they are without gaps."""
        check_is_fitted(self)
        plain = is_plain(self, X) and are_within(X, largest_number(X.dtype))
        rows = self._widened(X if plain else valid(self, X, reset=False, dtype=[np.float64, np.float32]))
        return rows, plain or is_csr(rows) or are_complete(rows)

    def _widened(self, rows: Rows) -> Rows:
        """The rows in the wider of their own precision and that of the fit."""
        if rows.shape[1] != self._num_features:
            # Attributes that were set by hand may be of other rows.
            raise ValueError(
                f"X has {rows.shape[1]} features, but {type(self).__name__} is expecting {self._num_features} features"
                " as input."
            )
        return rows.astype(np.result_type(rows.dtype, self._dtype), copy=False)

    @property
    def _dtype(self) -> np.dtype:
        """Of the fit."""
        raise NotImplementedError

    @property
    def _num_features(self) -> int:
        """D."""
        return self.n_features_in_


class Fitted(NanTolerant):
    """An estimator that the engine fits: a task, and what becomes of the fit."""

    verbose: int
    # The attributes that are parameters.
    _parameter_names: tuple[str, ...]

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
            For arguments or rows that cannot be used, and for a fit that has no answer; what was fitted before stays.
        KeyboardInterrupt
            After Ctrl-C; the attributes are those of the best state so far.
        """
        return self._fitted(self._task, X, y, sample_weight)

    def _fitted(self: Own, task_of: Callable[..., Task], X: Any, y: Any, sample_weight: Any) -> Own:
        with restored(self):
            task = task_of(X, y, sample_weight)
            fit = run(self, task)
            if self._lacks_digits(fit, task):
                task = in_float64(task)
                fit = run(self, task)
            say(self, task, fit)
            with precision(task.rows.dtype):
                self._end(fit, task)
                self._remember()
        if self.verbose:
            self._print(fit, task)
        if fit.result is Result.INTERRUPTED:
            raise KeyboardInterrupt
        return self

    def partial_fit(self: Own, X: Any, y: Any = None, sample_weight: Any = None) -> Own:
        """Go on with a batch of rows that were not seen yet, in a single pass: stepwise EM (``probem.absorb``).

        The first batch is fitted to convergence, or goes on from ``fit``. Then one E half-step over the rows of a
        batch, and one M half-step over a running average of the statistics of all, in which the t-th batch of n_t rows
        has the share min(1, n_t / N_t * t^(1 - ``decay``)): t^(-``decay``) for batches of one size.

        Source: Cappé & Moulines (2009), On-line EM algorithm for latent data models, eq. 10; of k-means with
        ``decay=1``, Sculley (2010), Web-scale k-means clustering.
        """
        before = getattr(self, "_fit", None)
        if before is None:
            return self._fitted(self._first_task, X, y, sample_weight)
        rows = self._rows(X).astype(self._dtype, copy=False)
        batch = Batch(rows, weights_of(sample_weight, rows), partial_labels_of(self, y))
        with restored(self), precision(rows.dtype):
            self._check_unchanged()
            fit = go_on(self, before, batch._replace(rows=self._inner(rows)))
            self._go_on(before, fit, batch)
            self._remember()
        return self

    def _remember(self) -> None:
        """Keep the parameters of a fit, which a batch has to find as they were."""
        self._parameters_of_fit = {name: jax.tree.map(np.array, getattr(self, name)) for name in self._parameter_names}

    def _check_unchanged(self) -> None:
        """Refuse a batch after attributes were changed by hand: the sums over the rows that it joins are not theirs."""
        if any(self._was_changed(name) for name in self._parameter_names):
            raise InputError(
                "a batch for a fit whose attributes were changed since",
                "the attributes of the fit, which belong to the sums over its rows",
                "set them back, or begin with a clone of this estimator",
            )

    def _was_changed(self, name: str) -> bool:
        """Whether a parameter is another than that of the last fit."""
        now, then = jax.tree.leaves(getattr(self, name, None)), jax.tree.leaves(self._parameters_of_fit[name])
        return len(now) != len(then) or not all(map(np.array_equal, now, then))

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
        if is_csr(X) or any(is_csr(rows) for rows in (X if isinstance(X, list | tuple) else ())):
            raise InputError("sparse rows of many data sets", "arrays, X [B, N, D]", "fit them one by one")
        count = len(X) if hasattr(X, "__len__") else -1
        for name, value in (("X", X), ("y", y), ("sample_weight", sample_weight)):
            if value is not None and (not hasattr(value, "__len__") or len(value) != count):
                kind = f"of length {len(value)}" if hasattr(value, "__len__") else f"of type {type(value).__name__}"
                raise InputError(f"{name} {kind}", "one entry for each data set: X [B, N, D]", "stack the data sets")
        if not count:
            raise InputError("no data sets", "at least one", "check the selection")
        # A copy of a clone is one, without another look at the signature.
        estimators: list[Any] = [first := clone(self), *(copy.deepcopy(first) for _ in range(count - 1))]
        tasks: list[Task] = []
        for number, (estimator, rows) in enumerate(zip(estimators, X, strict=True)):
            of_rows = [None if value is None else value[number] for value in (y, sample_weight)]
            try:
                tasks.append(estimator._task(rows, *of_rows))
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
        again = [number for number, fit in enumerate(fits) if estimators[number]._lacks_digits(fit, tasks[number])]
        if again:
            for number in again:
                tasks[number] = in_float64(tasks[number])
            with precision(np.float64):
                for number, fit in zip(again, run_many([tasks[number] for number in again]), strict=True):
                    fits[number] = fit
        wrong = say_all(type(self).__name__, tasks, fits)
        for numbers in wrong.values():
            for number in numbers:
                estimators[number] = None
        for estimator, fit, task in zip(estimators, fits, tasks, strict=True):
            if estimator is not None:
                with precision(task.rows.dtype):
                    estimator._end(fit, task)
                    estimator._remember()
        throw(type(self).__name__, wrong, estimators)
        return estimators

    def _task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        """What to ask of the engine, everything checked."""
        raise NotImplementedError

    def _first_task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        """What to ask of the engine for the first batch of a stream, everything checked."""
        return self._task(X, y, sample_weight)

    def _lacks_digits(self, fit: Fit, task: Task) -> bool:
        """Whether a fit of float32 rows is to be made again in float64."""
        del fit, task
        return False

    def _end(self, fit: Fit, task: Task) -> None:
        """Keep what was found as attributes."""
        raise NotImplementedError

    def _print(self, fit: Fit, task: Task) -> None:
        """Print the iterations of the start that was kept, and how each start ended."""
        raise NotImplementedError

    def _go_on(self, before: Fit, fit: Fit, batch: Batch) -> None:
        """Keep what was found after one more batch."""
        raise NotImplementedError

    def _inner(self, rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """The rows as the last fit has seen them."""
        return rows
