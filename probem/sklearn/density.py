"""What estimators of a density share: the model that their attributes say, and its answers about rows."""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted

from probem.errors import InputError
from probem.jit.compilation import is_compiling
from probem.jit.precision import precision
from probem.program.support_rules import support_rules
from probem.results.fit import Fit

from .base import Fitted, Frame
from .checks import clamped, partial_labels_of, seed
from .prepared import prepared
from .tasks import Batch, Task, best_of

# Up to how many rows ``sample`` draws some in vain.
_FEW_DRAWS = 1024


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
    that an estimator has checked is left to be checked. ``about`` holds the functions that answer, by method.
    """

    model: Model
    fit: Fit
    anywhere: bool
    about: dict[str, Callable[..., Any]]

    @classmethod
    def of(cls, model: Model, rows: Float[np.ndarray, "N D"], complete: bool) -> "Answering":
        """What answers about rows of this kind, with or without gaps; their numbers are not looked at."""
        fit = Fit.at(model.program, (rows,), model.families, model.state, model.shifts)
        assert fit.plan is not None
        return cls(model, fit, complete and not fit.plan.form.gaps and not support_rules(fit.plan.program), {})

    def seen(self, rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """The rows as the fit sees them."""
        return rows if self.model.frame is None else self.model.frame.apply(rows)

    def ask(self, method: str, rows: Float[np.ndarray, "N D"]) -> Shaped[np.ndarray, "N ..."]:
        """What this method of the fit says about the rows."""
        about = self.about.get(method)
        if about is None:
            about = self.fit.about_checked(method) if self.anywhere else getattr(self.fit, method)
            # What is computed inside a trace is of no use outside.
            if not is_compiling():
                self.about[method] = about
        return np.asarray(about(self.seen(rows)))


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
                said = f"\t change {change:.5f}" if self.verbose >= 2 else ""
                print(f"  Iteration {iteration}\t bound {bounds[iteration - 1]:.5f}{said}")
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
            answering = self._answering(rows, complete=True)
            model, fitted = answering.model, answering.fit
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
