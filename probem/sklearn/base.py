"""What the estimators share: checks, precision, how a fit ends, and the answers of a density model."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from probem.errors import InputError, nearest
from probem.families import EM
from probem.fit import fit
from probem.fitted import Fit, placed
from probem.loop import Result

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


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """float64 for float64 rows, whatever the process is set to, which stays as it is."""
    with jax.enable_x64(True) if np.dtype(dtype) == np.float64 else contextlib.nullcontext():
        yield


def seed(random_state: Any) -> int:
    """A seed of the engine from a ``random_state``."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def check_positive(name: str, value: Any, least: float = 0.0, whole: bool = False) -> None:
    """One sentence about a number that is out of its range."""
    kind = int | np.integer if whole else int | float | np.integer | np.floating
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value < float("inf"):
        number = "whole number" if whole else "number"
        raise InputError(f"{name}={value!r}", f"a {number} of at least {least:g}", "change it")


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """One sentence about a word that is none of the choices."""
    if value not in choices:
        raise InputError(f"{name}={value!r}", "one of " + ", ".join(map(repr, choices)), nearest(str(value), choices))


def run(estimator: Any, program: Callable[..., Any], rows: np.ndarray, **settings: Any) -> Fit:
    """Fit, and say in scikit-learn's way how it ended: a warning where there is an answer, else an error.

    Raises
    ------
    ValueError
        For a result that is no answer (a spread that collapsed), with the remedy.
    """
    found = fit(program, rows, throw=False, progress=bool(estimator.verbose), **settings)
    result = found.result
    if result in (Result.CONVERGED, Result.INTERRUPTED) or result is None:
        return found
    where = f" (component {found.component})" if result in (Result.SINGULAR, Result.EMPTY_COMPONENT) else ""
    sentence = f"{type(estimator).__name__}: {result.value}{where} after {found.num_steps} steps"
    if result not in _WARNED:
        raise ValueError(f"{sentence}; {_RAISED[result]}.")
    warnings.warn(f"{sentence}; {_WARNED[result]}.", ConvergenceWarning, stacklevel=3)
    return found


def valid(estimator: Any, X: Any, **options: Any) -> np.ndarray:
    """Rows ``[N, D]`` as scikit-learn checks them; the estimator remembers the number and the names of the columns."""
    return np.asarray(validate_data(estimator, X, **options))


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


class DensityEstimator(DensityMixin, BaseEstimator):
    """The answers of a fitted mixture about rows, from its attributes alone, so that it can be pickled and loaded."""

    def _program(self) -> Callable[..., Any]:
        raise NotImplementedError

    def _families(self) -> Any:
        return EM

    def _state(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The arguments of q and the points of every site, and the origin of every observed site, from attributes."""
        raise NotImplementedError

    def _to_program(self, rows: np.ndarray) -> np.ndarray:
        """The rows as the program has them."""
        return rows

    def _log_volume(self) -> float:
        """What a log density of the rows as the program has them is too high by, nats per row."""
        return 0.0

    def _fit_at(self, rows: np.ndarray) -> Fit:
        variational, shifts = self._state()
        return placed(self._program(), (rows,), self._families(), variational, shifts)

    def _rows(self, X: Any, **options: Any) -> np.ndarray:
        check_is_fitted(self)
        return valid(self, X, reset=False, dtype=[np.float64, np.float32], **options)

    def _answer(self, X: Any, ask: Callable[[Fit, np.ndarray], Any]) -> np.ndarray:
        rows = self._rows(X)
        with precision(rows.dtype):
            rows = self._to_program(rows)
            return np.asarray(ask(self._fit_at(rows), rows))

    def predict(self, X: Any) -> np.ndarray:
        """The most probable component of every row, ``[N]``, ties to the lowest index."""
        return self._answer(X, lambda fitted, rows: fitted.predict(rows)).astype(np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """q(t_n = k), ``[N, K]``."""
        return self._answer(X, lambda fitted, rows: fitted.responsibilities(rows))

    def score_samples(self, X: Any) -> np.ndarray:
        """log p(x_n), ``[N]``, nats per row."""
        return self._answer(X, lambda fitted, rows: fitted.log_density(rows)) - self._log_volume()

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of log p(x_n), nats per row."""
        del y
        return float(np.mean(self.score_samples(X)))

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> np.ndarray:
        """Fit, and the most probable component of every row, ``[N]``."""
        return self.fit(X, y, sample_weight=sample_weight).predict(X)  # pyright: ignore[reportAttributeAccessIssue]

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Draw ``n_samples`` new rows ``[n, D]``, sorted by component, and their components ``[n]``."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one sample.")
        rows = np.zeros((n_samples, self.n_features_in_), self._dtype)  # pyright: ignore[reportAttributeAccessIssue]
        with precision(rows.dtype):
            fitted = self._fit_at(rows)
            drawn = fitted.sample(seed(self.random_state), n_samples, rows)  # pyright: ignore[reportAttributeAccessIssue]
            assert fitted.plan is not None
            program = fitted.plan.program
            if len(program.observed) != 1 or len(program.assignments) != 1:
                raise InputError(
                    "a program with several sites in its plate", "one of each", "use probem.fit(...).sample"
                )
            labels = np.asarray(drawn[program.assignments[0].name])
            values = np.asarray(drawn[program.observed[0]])
        order = np.argsort(labels, kind="stable")
        return self._from_program(values[order]), labels[order].astype(np.int64)

    def _from_program(self, rows: np.ndarray) -> np.ndarray:
        return rows
