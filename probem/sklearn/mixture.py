"""Any program as an estimator."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, no_type_check

import numpy as np

from probem.analysis.options import FitOptions
from probem.errors import InputError
from probem.program.fingerprint import program_key
from probem.results.fit import Fit
from probem.solver.initialisers import Parameters
from probem.solver.result import Result
from probem.stopping import check_stopping
from probem.streaming.absorb import check_step_size

from .checks import check_flag, check_positive, partial_labels_of, seed, valid, weights_of
from .density import DensityEstimator, Model
from .gaussian_base import is_given
from .prepared import Identity
from .tasks import Task


class Mixture(DensityEstimator):
    """Any NumPyro program as a scikit-learn estimator.

    Rows are floating point, as in scikit-learn's other mixtures. ``sample`` returns what the program observes.

    Parameters
    ----------
    program : a program of one array of rows ``[N, D]``, everything else bound beforehand (``functools.partial``)
    families : as in ``probem.fit``
    n_init : how many starts run side by side; the one with the highest F is kept
    max_iter, tol, init, fixed, added_variance, acceleration : ``max_steps``, ``tolerance``, ``init``, ``fixed``,
        ``added_variance`` and ``acceleration`` of ``probem.fit``
    partial_labels : ``y`` holds the known components of some rows, -1 where unknown; else it is ignored
    random_state : as in scikit-learn
    warm_start : start where the last fit ended
    decay : of ``partial_fit``

    Attributes
    ----------
    params_ : values by site name; of a site with a full posterior, its mean
    variational_ : the arguments of q of such sites, and the other values
    elbo_, elbo_terms_ : F in nats, total, and its terms site by site
    elbos_ : F after every E half-step
    n_iter_, converged_, result_ : iterations, whether they converged, and how the fit ended
    """

    _parameter_names = ("params_", "variational_")
    _told_by = ("params_", "variational_", "_parameters_of_fit", "_shifts")

    @no_type_check  # scikit-learn's constructors take anything, and fit says what is wrong with it
    def __init__(
        self,
        program: Callable[..., Any] | None = None,
        *,
        families: Any = None,
        n_init: int = 1,
        max_iter: int = 1000,
        tol: Any = 1e-10,
        init: Any = None,
        fixed: Mapping[str, Any] | None = None,
        added_variance: Any = 0.0,
        acceleration: Any = None,
        partial_labels: bool = False,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
        decay: int | float = 0.6,
    ) -> None:
        self.program = program
        self.families = families
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.init = init
        self.fixed = fixed
        self.added_variance = added_variance
        self.acceleration = acceleration
        self.partial_labels = partial_labels
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.decay = decay

    def _task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        if not callable(self.program):
            raise InputError(
                f"program of type {type(self.program).__name__}",
                "a NumPyro program of the rows",
                "pass Mixture(program)",
            )
        check_positive("n_init", self.n_init, 1, whole=True)
        check_positive("max_iter", self.max_iter, 1, whole=True)
        check_flag("warm_start", self.warm_start)
        check_flag("partial_labels", self.partial_labels)
        check_step_size("decay", self.decay, 0.5)
        tolerance = check_stopping(self.tol)
        rows = valid(self, X, dtype=[np.float64, np.float32])
        again = self.warm_start and hasattr(self, "variational_")
        init = Parameters(self.variational_) if again else self.init
        return Task(
            self.program,
            rows,
            FitOptions(
                key=seed(self.random_state),
                families=self.families,
                init=init,
                restarts=1 if init is not None and is_given(init) else self.n_init,
                max_steps=self.max_iter,
                tolerance=tolerance,
                row_weights=weights_of(sample_weight, rows),
                labels=partial_labels_of(self, y),
                fixed=self.fixed,
                added_variance=self.added_variance,
                acceleration=self.acceleration,
            ),
        )

    def _keep(self, fit: Fit) -> None:
        self._fit = fit
        self._of_fit = (fit.program, self.families)
        self.params_, self.variational_ = _plain(fit.params), _plain(fit.variational)
        assert fit.totals is not None
        self._shifts = _plain(fit.totals.shifts)
        self.elbo_, self.elbo_terms_ = fit.elbo, fit.elbo_terms
        self.elbos_ = fit.history.elbo[::2].tolist()
        self.n_iter_ = fit.num_steps
        self.result_ = fit.result
        self.converged_ = fit.result in (Result.CONVERGED, Result.EMPTY_COMPONENT)

    def __sklearn_is_fitted__(self) -> bool:
        # What is set by hand says nothing of the program's other arguments.
        return hasattr(self, "_of_fit")

    def _program_key(self) -> Hashable:
        # What a program closes over, or names, may change.
        program, families = self._of_fit
        return program_key(program), Identity(families)

    def _model(self, complete: bool) -> Model:
        del complete
        if self._was_changed("params_") and not self._was_changed("variational_"):
            raise InputError(
                "params_ that were changed, and variational_ that were not",
                "both to say the same",
                "change variational_, which answers come from, as well",
            )
        program, families = self._of_fit
        return Model(program, families, self.variational_, self._shifts)

    @property
    def _iteration_bounds(self) -> list[float]:
        return self.elbos_

    @property
    def _dtype(self) -> np.dtype:
        return next(iter(self._shifts.values())).dtype if self._shifts else np.dtype(np.float64)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name, and by name within a name, as NumPy arrays."""
    return {name: _plain(value) if isinstance(value, Mapping) else np.array(value) for name, value in values.items()}
