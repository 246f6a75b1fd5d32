"""What an estimator asks of the engine, and how that went: for one data set, or for many side by side."""

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Shaped
from sklearn.exceptions import ConvergenceWarning

from probem.analysis.options import FitOptions
from probem.data.row_axes import listed
from probem.errors import FitError
from probem.fitting.fit import fitted
from probem.jit.precision import precision
from probem.many.fit_many import fitted_many
from probem.program.fingerprint import program_key
from probem.results.fit import Fit
from probem.solver.initialisers import GivenStart, Parameters
from probem.solver.result import Result
from probem.solver.seedings import Seeding, SeedingIn
from probem.streaming.absorb import absorb

from .rows import Rows

# How a fit may end short of convergence and still be an answer, and what helps.
_WARNED = {
    Result.STEP_LIMIT: "raise max_iter or tol",
    Result.EMPTY_COMPONENT: "ask for fewer components, or start elsewhere (random_state, n_init, init)",
    Result.BOUND_FELL: "use float64 rows, and standardise them",
    Result.NOT_STATIONARY: "start elsewhere (random_state, n_init, init), or use float64 rows",
    Result.SADDLE: "start elsewhere (random_state, n_init, init), where no two components are the same",
}
_RAISED = {
    Result.SINGULAR: (
        "raise reg_covar (or the added_variance of Mixture), ask for fewer components or a simpler covariance, or start"
        " elsewhere (random_state, n_init)"
    ),
    Result.NON_FINITE: "scale the rows (StandardScaler), use float64, or start elsewhere (random_state, n_init)",
    Result.NOT_CONJUGATE: "use families=probem.EM",
    Result.UNRESOLVED: "centre and scale the columns (StandardScaler), leave out what follows from others, use float64",
}


class Task(NamedTuple):
    """What an estimator asks of the engine, the key being a seed; of ``silent`` results it says nothing."""

    program: Callable[..., Any]
    rows: Rows
    options: FitOptions
    silent: tuple[Result, ...] = ()


class Batch(NamedTuple):
    """Rows as they arrive at ``partial_fit``, how often each counts, and their known components; None if not given."""

    rows: Rows
    weights: Float[np.ndarray, " N"] | None
    labels: Shaped[np.ndarray, " N"] | None


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line that called the estimator."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("probem.", "sklearn.")):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def run(estimator: Any, task: Task) -> Fit:
    """Fit, whatever comes of it."""
    with precision(task.rows.dtype):
        return fitted(task.program, (task.rows,), task.options, verbose=None if estimator.verbose else 0)


def in_float64(task: Task) -> Task:
    """The task with its rows in float64; what draws its start is as it was."""
    return task._replace(rows=task.rows.astype(np.float64))


def say(estimator: Any, task: Task, fit: Fit) -> None:
    """Say in scikit-learn's way how a fit ended: a warning where there is an answer, else an error.

    Raises
    ------
    ValueError
        For a result that is no answer (a spread that collapsed), with the remedy.
    """
    result = fit.result
    if result in (None, Result.CONVERGED, Result.INTERRUPTED, *task.silent):
        return
    sentence = f"{type(estimator).__name__}: {_said(fit)}"
    if result not in _WARNED:
        raise ValueError(f"{sentence}; {_RAISED[result]}.")
    warn(f"{sentence}; {_WARNED[result]}.", ConvergenceWarning)


def best_of(fit: Fit) -> int:
    """Which of the starts was kept."""
    return int(np.argmax(fit.restart_elbos == fit.elbo))


def go_on(estimator: Any, fit: Fit, batch: Batch) -> Fit:
    """The fit after one more batch.

    Raises
    ------
    ValueError
        For a batch after which there is no answer, with the remedy.
    """
    try:
        return absorb(fit, batch.rows, row_weights=batch.weights, labels=batch.labels, decay=estimator.decay)
    except FitError as error:
        result = error.fit.result
        raise ValueError(
            f"{type(estimator).__name__}: {_said(error.fit)} in this batch; {_RAISED[result]}. The estimator is as it"
            " was before the batch."
        ) from None


def _said(fit: Fit) -> str:
    assert fit.result is not None
    where = f" (component {fit.component})" if fit.result in (Result.SINGULAR, Result.EMPTY_COMPONENT) else ""
    return f"{fit.result.value}{where}"


def run_many(tasks: Sequence[Task]) -> list[Fit]:
    """The fit of every task, those of one program side by side; they differ in rows, starts and numbers alone."""
    groups: dict[Any, list[int]] = {}
    programs = {id(task.program): task.program for task in tasks}
    keys = {number: program_key(program) for number, program in programs.items()}
    for number, task in enumerate(tasks):
        groups.setdefault(keys[id(task.program)], []).append(number)
    fits: dict[int, Fit] = {}
    for numbers in groups.values():
        fits |= zip(numbers, _side_by_side([tasks[number] for number in numbers]), strict=True)
    return [fits[number] for number in range(len(tasks))]


def _side_by_side(tasks: Sequence[Task]) -> Iterator[Fit]:
    every, rows = [task.options for task in tasks], np.stack([task.rows for task in tasks])
    first = every[0]
    keys = jax.vmap(jax.random.key)(np.array([options.key for options in every]))
    matrices = np.ndim(first.added_variance) == 2
    together = first._replace(
        init=_starts([options.init for options in every]),
        key=keys,
        tolerance=jax.tree.map(lambda *numbers: np.stack(numbers), *(options.tolerance for options in every)),
        row_weights=None if first.row_weights is None else np.stack([options.row_weights for options in every]),
        labels=None if first.labels is None else np.stack([options.labels for options in every]),
        added_variance=np.stack([options.added_variance for options in every]) if matrices else first.added_variance,
    )
    return iter(fitted_many(tasks[0].program, (rows,), together, record_history=True))


def _starts(starts: Sequence[Any]) -> Any:
    """The starts of many tasks as one of the engine's."""
    first: Any = starts[0]
    if first is None or isinstance(first, Seeding):
        return first
    if isinstance(first, Parameters):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *(dict(start.values) for start in starts))
        others = None if first.others is None else _starts([start.others for start in starts])
        return Parameters(stacked, others)
    if isinstance(first, GivenStart):
        kind: Any = type(first)
        return kind(np.stack([start.values for start in starts]))
    if isinstance(first, SeedingIn):
        metrics, fixed = ([getattr(start, name) for start in starts] for name in ("metric", "fixed_seeds"))
        if first.metric is not None and len({metric.ndim for metric in metrics}) > 1:
            # A covariance may be diagonal by chance.
            metrics = [np.diag(metric) if metric.ndim == 1 else metric for metric in metrics]
        stacked = (None if parts[0] is None else np.stack(parts) for parts in (metrics, fixed))
        return SeedingIn(first.seeding, *stacked)
    return list(starts)


def say_all(name: str, tasks: Sequence[Task], fits: Sequence[Fit]) -> dict[Result, list[int]]:
    """Warn of those that are an answer short of convergence, one warning for a kind; which of the others are none."""
    ended: dict[Result, list[int]] = {}
    for number, (task, fit) in enumerate(zip(tasks, fits, strict=True)):
        if fit.result not in (None, Result.CONVERGED, *task.silent):
            ended.setdefault(fit.result, []).append(number)
    for result, remedy in _WARNED.items():
        if result in ended:
            warn(f"{name}: {result.value} in {listed(ended[result])}; {remedy}.", ConvergenceWarning)
    return {result: ended[result] for result in _RAISED if result in ended}


def throw(name: str, wrong: Mapping[Result, list[int]], estimators: list[Any]) -> None:
    """Raise a ``FitError`` that says which data sets have no answer, if any.

    Raises
    ------
    FitError
        With the estimators in ``fit``, None where there is none.
    """
    if wrong:
        said = "; ".join(f"{result.value} in {listed(numbers)}; {_RAISED[result]}" for result, numbers in wrong.items())
        without = estimators.count(None)
        raise FitError(
            f"{name}: {without} of {len(estimators)} data sets have no answer: {said}. The others are in the error's"
            " .fit.",
            estimators,
        )
