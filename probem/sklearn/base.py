"""What the estimators share: checks, fits of one data set and of many, and the answers of a density model."""

import contextlib
import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.base import BaseEstimator, DensityMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from probem.data.checks import check_columns
from probem.data.observations import Observations
from probem.data.row_axes import RowAxes
from probem.errors import InputError, nearest
from probem.jit.precision import precision
from probem.jit.tracing import kept
from probem.program.support_rules import support_rules
from probem.results.fit import Fit
from probem.solver.result import Result

from .prepared import prepared
from .rows import Rows, as_csr, is_csr
from .tasks import Batch, Task, best_of, go_on, in_float64, run, run_many, say, say_all, throw

# The power of the largest number below which squares of distances, summed over any number of rows, are finite.
_LARGEST_POWER = 0.45

# The precisions of rows.
_PRECISIONS = (np.dtype(np.float64), np.dtype(np.float32))

# Up to how many rows ``sample`` draws some in vain.
_FEW_DRAWS = 1024


def is_symmetric(matrices: Float[np.ndarray, "... D D"]) -> bool:
    """Whether matrices are symmetric to some eight digits of their largest entry, in any unit."""
    return np.allclose(matrices, np.swapaxes(matrices, -1, -2), atol=1e-8 * np.abs(matrices).max(initial=0.0))


def seed(random_state: Any) -> int:
    """A seed of the engine from a ``random_state``."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def check_positive(name: str, value: Any, least: int | float = 0, whole: bool = False, strict: bool = False) -> None:
    """One sentence about a number that is out of its range."""
    kind = int | np.integer if whole else int | float | np.integer | np.floating
    if (
        isinstance(value, bool)
        or not isinstance(value, kind)
        or not least <= value < float("inf")
        or (strict and value == 0)
    ):
        number = "whole number" if whole else "number"
        wanted = f"a {number} above 0" if strict else f"a {number} of at least {least:g}"
        raise InputError(f"{name}={value!r}", wanted, "change it")


def check_flag(name: str, value: Any) -> None:
    """One sentence about what is neither True nor False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={value!r}", "True or False", "change it")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """One sentence about a word that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}={value!r}", "one of " + ", ".join(map(repr, choices)), nearest(str(value), choices))


@functools.cache
def largest_number(dtype: Any) -> float:
    """The size up to which rows are taken."""
    return float(np.finfo(dtype).max ** _LARGEST_POWER)


def valid(estimator: Any, X: Any, **options: Any) -> Rows:
    """Rows as scikit-learn checks them; the estimator remembers the number and the names of the columns.

    Sparse rows have no gaps; they are taken by estimators whose tags say so, and come back as CSR.
    """
    takes_sparse = "csr" if estimator.__sklearn_tags__().input_tags.sparse else False
    gaps = True if is_csr(X) else "allow-nan"
    rows = validate_data(estimator, X, ensure_all_finite=gaps, accept_sparse=takes_sparse, **options)
    rows = as_csr(rows) if is_csr(rows) else np.asarray(rows)
    values = rows.data if is_csr(rows) else rows
    largest = max(np.fmax.reduce(values, axis=None, initial=0), -np.fmin.reduce(values, axis=None, initial=0))
    most = largest_number(rows.dtype)
    if largest > most:
        raise InputError(
            f"{rows.dtype} rows with a value of size {largest:.3g}",
            f"less than {most:.1g}, whose squares are finite",
            "scale the rows (StandardScaler), or leave out what stands for no value",
        )
    if options.get("reset", True) and not is_csr(rows):
        check_columns(Observations((rows,), missing=(np.isnan(rows),)), RowAxes(len(rows)))
    return rows


def are_complete(rows: Float[np.ndarray, "N D"]) -> bool:
    """Whether rows of finite numbers and gaps have none."""
    return not np.isnan(np.add.reduce(rows, axis=None))


def are_within(rows: Float[np.ndarray, "N D"], largest: float) -> bool:
    """Whether no number is missing, or of a larger size."""
    # False for NaN.
    return bool(-largest <= rows.min() and rows.max() <= largest)


def is_plain(estimator: Any, X: Any) -> bool:
    """Whether ``X`` is an array of floats that scikit-learn takes as it is, with as many columns as were fitted:
    ``valid`` can find no fault in it but for its numbers. Its checks take longer than most answers about few rows.
    """
    return (
        type(X) is np.ndarray
        and X.dtype in _PRECISIONS
        and X.ndim == 2
        and X.size > 0
        and X.shape[1] == getattr(estimator, "n_features_in_", X.shape[1])
        and not hasattr(estimator, "feature_names_in_")
    )


def weights_of(sample_weight: Any, rows: Rows) -> Float[np.ndarray, " N"] | None:
    """``sample_weight`` checked; None where every row counts once."""
    if sample_weight is None:
        return None
    return np.asarray(_check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True))


def partial_labels_of(estimator: Any, y: Any) -> Shaped[np.ndarray, "..."] | None:
    """The known components of some rows, if ``y`` is to be read so."""
    if not estimator.partial_labels:
        return None
    if y is None:
        raise InputError("no y with partial_labels=True", "the components of the rows, -1 where unknown", "pass y")
    given = np.asarray(y)
    if given.dtype.kind == "O" or (given.dtype.kind == "f" and np.isnan(given).any()):
        raise InputError(
            f"y of type {given.dtype} with values that are no number",
            "whole numbers, -1 where unknown",
            "write -1 there",
        )
    return given


def clamped(predicted: Int[np.ndarray, " N"], labels: Shaped[np.ndarray, " N"] | None) -> Int[np.ndarray, " N"]:
    """The components predicted, but for those that are known."""
    return predicted if labels is None else np.where(np.asarray(labels) < 0, predicted, labels).astype(predicted.dtype)


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


class Model(NamedTuple):
    """What answers about rows: a program and families, the arguments of q and the points of every site, and an origin
    for every observed site. It sees rows in the ``frame``; None as they are.
    """

    program: Callable[..., Any]
    families: Any
    state: Mapping[str, Any]
    shifts: Mapping[str, Any]
    frame: Frame | None = None


class Answering(NamedTuple):
    """A model, and the fit that answers for it about rows of one kind.

    ``anywhere``: they have no gaps, and no number is outside the support of its distribution, so that nothing of rows
    that an estimator has checked is left to be checked.
    """

    model: Model
    fit: Fit
    anywhere: bool

    @classmethod
    def of(cls, model: Model, rows: Float[np.ndarray, "N D"], complete: bool) -> "Answering":
        """What answers about rows of this kind, with or without gaps; their numbers are not looked at."""
        fit = Fit.at(model.program, (rows,), model.families, model.state, model.shifts)
        assert fit.plan is not None
        return cls(model, fit, complete and not fit.plan.form.partial and not support_rules(fit.plan.program))

    def seen(self, rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """The rows as the fit sees them."""
        return rows if self.model.frame is None else self.model.frame.apply(rows)

    def ask(self, method: str, rows: Float[np.ndarray, "N D"]) -> Shaped[np.ndarray, "N ..."]:
        """What this method of the fit says about the rows."""
        inner = self.seen(rows)
        answer = self.fit.about_checked(method, (inner,)) if self.anywhere else getattr(self.fit, method)(inner)
        return np.asarray(answer)


class DensityEstimator(DensityMixin, Fitted):
    """The answers of a fitted mixture about rows, from its attributes alone, so that it can be pickled and loaded."""

    random_state: Any
    decay: float
    converged_: bool

    def _end(self, fit: Fit, task: Task) -> None:
        self._keep(fit)

    def _go_on(self, before: Fit, fit: Fit, batch: Batch) -> None:
        self._keep(fit)

    def _keep(self, fit: Fit) -> None:
        raise NotImplementedError

    def _print(self, fit: Fit, task: Task) -> None:
        del task
        every = int(getattr(self, "verbose_interval", 1))
        for number, bound in enumerate(self._reported_bounds(fit, fit.restart_elbos)):
            print(f"Initialization {number}")
            if number != best_of(fit):
                print(f"Initialization ended with the bound {bound:.5f}; another was kept.")
                continue
            bounds = self._iteration_bounds
            for iteration in range(every, len(bounds) + 1, every):
                change = bounds[iteration - 1] - (bounds[iteration - 2] if iteration > 1 else -math.inf)
                said = f"\t bound {bounds[iteration - 1]:.5f}\t change {change:.5f}" if self.verbose >= 2 else ""
                print(f"  Iteration {iteration}{said}")
            print(
                f"Initialization {'converged' if self.converged_ else 'did not converge'}, with the bound {bound:.5f}."
            )

    def _reported_bounds(self, fit: Fit, elbos: Float[np.ndarray, " R"]) -> Float[np.ndarray, " R"]:
        """F of the rows as they were fitted, nats, total, in the units of the attributes."""
        del fit
        return elbos

    @property
    def _iteration_bounds(self) -> list[float]:
        """The bound after every iteration."""
        raise NotImplementedError

    #: All attributes that ``_model`` looks at.
    _told_by: tuple[str, ...]

    def _model(self, complete: bool) -> Model:
        """What answers about rows with or without gaps, by the attributes as they are now."""
        raise NotImplementedError

    def _program_key(self) -> Hashable:
        """What the answers come from beside ``_told_by``."""
        return None

    def _answering(self, rows: Float[np.ndarray, "N D"], complete: bool) -> Answering:
        """What answers about these rows, in the precision in use."""

        def make() -> Answering:
            return Answering.of(self._model(complete), rows, complete)

        precise = bool(jax.config.read("jax_enable_x64"))
        kind = (rows.dtype.char, rows.shape[1], complete, precise, self._program_key())
        return prepared(self, self._told_by, kind, make)

    def predict(self, X: Any) -> Int[np.ndarray, " N"]:
        """The most probable component of every row, ``[N]``, ties to the lowest index."""
        rows, complete = self._checked(X)
        with precision(rows.dtype):
            return self._answering(rows, complete).ask("predict", rows).astype(np.int64)

    def predict_proba(self, X: Any) -> Float[np.ndarray, "N K"]:
        """q(t_n = k), ``[N, K]``."""
        rows, complete = self._checked(X)
        with precision(rows.dtype):
            return self._answering(rows, complete).ask("responsibilities", rows)

    def score_samples(self, X: Any) -> Float[np.ndarray, " N"]:
        """log p(x_n) of what is there of each row, ``[N]``, nats per row."""
        rows, complete = self._checked(X)
        with precision(rows.dtype):
            answering = self._answering(rows, complete)
            densities = answering.ask("log_density", rows)
        frame = answering.model.frame
        if frame is None:
            return densities
        if complete:
            return densities - frame.log_volume
        return densities - (~np.isnan(rows) @ np.log(np.diagonal(frame.factor)))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of log p(x_n), nats per row."""
        del y
        return float(np.mean(self.score_samples(X)))

    def impute(self, X: Any) -> Float[np.ndarray, "N D"]:
        """The rows with E[x_m | x_o] in place of NaN: what is missing given what is there, ``[N, D]``."""
        rows, complete = self._checked(X)
        with precision(rows.dtype):
            answering = self._answering(rows, complete)
            imputed, frame = np.asarray(answering.fit.impute(answering.seen(rows))), answering.model.frame
        return np.where(np.isnan(rows), imputed if frame is None else frame.undo(imputed), rows)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Int[np.ndarray, " N"]:
        """Fit, and the component of every row, ``[N]``: the known one (``partial_labels``), or the most probable."""
        return clamped(self.fit(X, y, sample_weight=sample_weight).predict(X), partial_labels_of(self, y))

    def sample(self, n_samples: int = 1) -> tuple[Shaped[np.ndarray, "n ..."], Int[np.ndarray, " n"]]:
        """Draw ``n_samples`` new rows ``[n, D]``, sorted by component, and their components ``[n]``.

        Where the fit has full posteriors, from the posterior predictive.
        """
        check_is_fitted(self)
        if isinstance(n_samples, bool) or not isinstance(n_samples, int | np.integer):
            raise InputError(f"n_samples={n_samples!r}", "a whole number of at least 1", "change it")
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample.")
        # Other numbers of rows compile the program again: few are drawn as the first of a power of two.
        drawn_rows = n_samples if n_samples > _FEW_DRAWS else 2 ** (int(n_samples) - 1).bit_length()
        rows = np.zeros((drawn_rows, self._num_features), self._dtype)
        with precision(rows.dtype):
            model, fitted, _ = self._answering(rows, complete=True)
            assert fitted.plan is not None
            program = fitted.plan.program
            if len(program.observed) != 1 or len(program.assignments) != 1:
                raise InputError(
                    "a program with several sites in its plate", "one of each", "use probem.fit(...).sample"
                )
            drawn = fitted.sample(seed(self.random_state), drawn_rows, rows)
            labels = np.asarray(drawn[program.assignments[0].name])[:n_samples]
            values = np.asarray(drawn[program.observed[0]])[:n_samples]
        order = np.argsort(labels, kind="stable")
        values = values[order]
        return values if model.frame is None else model.frame.undo(values), labels[order].astype(np.int64)
