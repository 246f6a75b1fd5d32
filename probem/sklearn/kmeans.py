"""k-means."""

import functools
import math
import numbers
from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Int
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_array, check_is_fitted

from probem.analysis.options import FitOptions
from probem.errors import InputError
from probem.families import Delta
from probem.jit.precision import precision
from probem.models import kmeans
from probem.results.fit import Fit
from probem.solver.initialisers import Parameters
from probem.solver.result import Result
from probem.solver.seedings import KMeansPlusPlus, RandomRows
from probem.stopping import ParameterShift
from probem.streaming.absorb import check_step_size

from .attributes import floating, means_of
from .base import Fitted
from .checks import (
    are_complete,
    check_choice,
    check_flag,
    check_positive,
    clamped,
    is_plain,
    largest_number,
    partial_labels_of,
    seed,
    valid,
    weights_of,
)
from .nearest import distances, nearest, squares_to_nearest
from .rows import (
    Rows,
    divided,
    is_csr,
    mean_variance,
    nearest_of_sparse,
    squared_distances,
    squares_of_sparse,
    unit,
)
from .tasks import Batch, Task, best_of, warn

# How far the range of centres may be below that of the rows before its own is the better unit.
_FAR_BELOW = 2.0**-20


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, Fitted):
    """scikit-learn's ``KMeans``: hard EM for a Gaussian mixture with identity covariances and equal weights.

    The arguments, attributes and defaults are those of ``sklearn.cluster.KMeans`` 1.9, and from the same centres it
    makes the same iterations. The differences:

    - ``random_state`` draws other numbers, so random starts differ. They depend on the set of rows and not on their
      order; a row of weight 2 is drawn as two rows; of more than some thousand rows, seeds are drawn from a part.
    - ``algorithm`` may be "lloyd" or "elkan", which give the same answer; both run the former.
    - Of ``n_init`` starts, all of which run side by side, the one with the lowest inertia is kept.
    - Sparse rows are never formed as an array, but for the K rows that seeds and empty clusters are moved to. They are
      not centred: ``inertia_`` and ``elbo_`` keep their digits (distances are sums of differences), the iterations of
      rows far from zero fewer than those of an array. NaN in them is refused.
    - ``copy_x`` changes nothing: rows are never written to.
    - ``verbose`` shows a progress bar on a terminal, once a fit takes long, and prints the inertia of every iteration
      once all starts have ended.
    - ``elbo_`` is F in nats, total: -inertia / 2 - N log K - N D log(2 pi) / 2, N the sum of the weights.
    - NaN is a missing value: distances and means are those of what is there. ``partial_fit`` is stepwise hard EM, with
      ``decay``; at 1 that is mini-batch k-means. ``labels_`` and ``inertia_`` are those of the batch then.
    - ``partial_labels=True`` takes ``y`` as the known clusters of some rows, -1 where unknown (scikit-learn ignores y);
      they are so in ``labels_``.
    - A row of weight 0 is no row, for ``tol`` as well. One of weight 2 is two, but that an empty cluster is moved to a
      row with all its weight, and that ``tol`` is a fraction of the variance without weights, both as in scikit-learn.
    - ``fit_many`` fits many data sets of one shape in one call. Ctrl-C keeps the best state so far, and raises
      KeyboardInterrupt. A fit that fails keeps the fit before it.

    Source: the mixture and its three restrictions are those of ``probem.models.kmeans``.
    """

    _parameter_names = ("cluster_centers_",)

    @no_type_check  # scikit-learn's constructors take anything, and fit says what is wrong with it
    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: int | float = 1e-4,
        verbose: int = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        partial_labels: bool = False,
        decay: int | float = 0.6,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.partial_labels = partial_labels
        self.decay = decay

    def _task(self, X: Any, y: Any, sample_weight: Any) -> Task:
        self._check()
        rows = valid(self, X, dtype=[np.float64, np.float32], order="C")
        if rows.shape[0] < self.n_clusters:
            raise ValueError(f"n_samples={rows.shape[0]} should be >= n_clusters={self.n_clusters}.")
        if self.algorithm == "elkan" and self.n_clusters == 1:
            warn("algorithm='elkan' doesn't make sense for a single cluster. Using 'lloyd' instead.", RuntimeWarning)
        weights = weights_of(sample_weight, rows)
        self._unit = unit(rows)
        inner = self._inner(rows)
        return Task(
            self._program(),
            inner,
            FitOptions(
                key=seed(self.random_state),
                families={"t": Delta(fill_empty=True)},
                init=self._start(rows),
                restarts=self._restarts(),
                max_steps=self.max_iter + 1,
                tolerance=ParameterShift(self.tol * mean_variance(inner if weights is None else inner[weights > 0])),
                row_weights=weights,
                labels=partial_labels_of(self, y),
            ),
            # scikit-learn says nothing of the one, and of the other what is said in the end.
            silent=(Result.STEP_LIMIT, Result.EMPTY_COMPONENT),
        )

    def _end(self, fit: Fit, task: Task) -> None:
        # A power of two: the rows as they were given, to the last bit.
        rows = task.rows * task.rows.dtype.type(self._unit)
        self._keep(fit, Batch(rows, task.options.row_weights, task.options.labels))
        self.n_iter_ = min(fit.num_steps - (1 if fit.settled else 0), self.max_iter)
        distinct = len(np.unique(self.labels_))
        if distinct < self.n_clusters:
            warn(
                f"Number of distinct clusters ({distinct}) found smaller than n_clusters ({self.n_clusters})."
                " Possibly due to duplicate points in X.",
                ConvergenceWarning,
            )

    def _print(self, fit: Fit, task: Task) -> None:
        inertias = -2 * self._unit**2 * (fit.restart_elbos - self._constant)
        for number, inertia in enumerate(inertias):
            print("Initialization complete")
            if number != best_of(fit):
                print(f"Ended with inertia {inertia}; another start was kept.")
                continue
            for iteration, elbo in enumerate(fit.history.elbo[::2][: self.n_iter_]):
                print(f"Iteration {iteration}, inertia {-2 * self._unit**2 * (elbo - self._constant)}.")
            last = f"Converged at iteration {self.n_iter_ - 1}"
            if fit.settled:
                tolerance = self._unit**2 * float(getattr(task.options.tolerance, "tolerance", 0.0))
                print(f"{last}: center shift is within tolerance {tolerance}.")
            else:
                ended = fit.result in (Result.CONVERGED, Result.EMPTY_COMPONENT)
                print(f"{last}: strict convergence." if ended else f"No convergence in {self.n_iter_} iterations.")

    def _go_on(self, before: Fit, fit: Fit, batch: Batch) -> None:
        self._keep(fit, batch)
        self.n_iter_ += 1

    def _keep(self, fit: Fit, batch: Batch) -> None:
        assert fit.plan is not None
        self._fit = fit
        self.cluster_centers_ = np.asarray(fit.params["loc"]) * self._unit
        complete = is_csr(batch.rows) or are_complete(batch.rows)
        self.labels_ = clamped(self._nearest(batch.rows, complete), batch.labels)
        self.inertia_ = _inertia(batch.rows, self.cluster_centers_, self.labels_, batch.weights)
        count, dim = self.cluster_centers_.shape
        # Of partly observed rows, the last columns of the statistics count what was there.
        values = fit.sums[:, -dim:].sum() if fit.plan.form.partial else fit.total_weight * dim
        self._constant = constant = -fit.total_weight * math.log(count) - 0.5 * math.log(2 * math.pi) * float(values)
        # Of squared distances between rows and centres, not of second moments, which lose all digits of those that are
        # far apart. In a stream F is of all rows seen, of which there are no others than second moments.
        streamed = fit.num_batches > 1
        self.elbo_ = constant + (self._unit**2 * (fit.elbo - constant) if streamed else -0.5 * self.inertia_)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Int[np.ndarray, " N"]:
        """Find the centres, and the nearest of them for every row, ``[N]``."""
        return self.fit(X, y, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> Int[np.ndarray, " N"]:
        """The nearest centre of every row, ``[N]``, ties to the lowest index."""
        labels = self._quickly(nearest, X)
        return self._nearest(*self._checked(X)) if labels is None else labels

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Float[np.ndarray, "N K"]:
        """Find the centres, and the distance of every row to each, ``[N, K]``."""
        return self.fit(X, y, sample_weight=sample_weight).transform(X)

    def transform(self, X: Any) -> Float[np.ndarray, "N K"]:
        """The distance of every row to each centre, ``[N, K]``."""
        (rows, complete), centres = self._checked(X), self._centres_now()
        if complete:
            return euclidean_distances(rows, centres) if is_csr(rows) else distances(rows, centres)
        squares = [np.nansum((rows - centre) ** 2, axis=1) for centre in centres]
        return np.sqrt(np.stack(squares, axis=1))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Minus the sum of the squared distances to the nearest centres."""
        del y
        squares = self._quickly(squares_to_nearest, X)
        rows, complete = (X, True) if squares is not None else self._checked(X)
        weights, centres = weights_of(sample_weight, rows), self._centres_now()
        if squares is not None:
            total = float(squares.sum(dtype=np.float64) if weights is None else weights @ squares)
            number = np.finfo(squares.dtype)
            # Squares that are small beside those of the unit have lost digits, and large ones may be infinite.
            if len(rows) * float(number.tiny / number.eps) < total < math.inf:
                scale = self._unit_of(centres)
                return -total * scale * scale
        return -_inertia(self._widened(rows), centres, self._nearest(rows, complete), weights)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _dtype(self) -> np.dtype:
        return floating(getattr(self, "cluster_centers_", 0.0))

    @property
    def _num_features(self) -> int:
        return self._centres_now().shape[1]

    @property
    def _n_features_out(self) -> int:
        """What names of features come from, in scikit-learn."""
        return len(self._centres_now())

    def _centres_now(self) -> Float[np.ndarray, "K D"]:
        """``cluster_centers_`` as they are, checked."""
        return means_of(self, "cluster_centers_", "n_clusters")

    def _program(self) -> Callable[..., Any]:
        return _kmeans_program(self.n_clusters)

    def _check(self) -> None:
        check_positive("n_clusters", self.n_clusters, 1, whole=True)
        check_positive("max_iter", self.max_iter, 1, whole=True)
        check_positive("tol", self.tol)
        check_choice("algorithm", self.algorithm, ("lloyd", "elkan"))
        if isinstance(self.n_init, str):
            check_choice("n_init", self.n_init, ("auto",))
        else:
            check_positive("n_init", self.n_init, 1, whole=True)
        check_flag("partial_labels", self.partial_labels)
        check_step_size("decay", self.decay, 0.5)
        if isinstance(self.init, str):
            check_choice("init", self.init, ("k-means++", "random"))
        elif isinstance(self.init, numbers.Number) or self.init is None:
            raise InputError(f"init={self.init!r}", "'k-means++', 'random', centres or a callable", "change it")

    def _restarts(self) -> int:
        given = not isinstance(self.init, str) and not callable(self.init)
        if isinstance(self.n_init, str):
            return 1 if given or self.init == "k-means++" else 10
        if given and self.n_init != 1:
            warn(
                "Explicit initial center position passed: performing only one init in KMeans instead of"
                f" n_init={self.n_init}.",
                RuntimeWarning,
            )
            return 1
        return int(self.n_init)

    def _start(self, rows: Rows) -> Any:
        if isinstance(self.init, str):
            return KMeansPlusPlus() if self.init == "k-means++" else RandomRows()
        if not callable(self.init):
            return Parameters({"loc": self._inner(self._centres(self.init, rows))})
        random = np.random.RandomState(seed(self.random_state))

        def drawn(key: Any, _: Any) -> Parameters:
            centres = self.init(rows, self.n_clusters, random_state=random)
            return Parameters({"loc": self._inner(self._centres(centres, rows))})

        return drawn

    def _centres(self, centres: Any, rows: Rows) -> Float[np.ndarray, "K D"]:
        array = check_array(centres, dtype=str(rows.dtype))
        wanted = (f"clusters {self.n_clusters}", f"features of the data {rows.shape[1]}")
        for length, right, named in zip(array.shape, (self.n_clusters, rows.shape[1]), wanted, strict=True):
            if length != right:
                raise ValueError(
                    f"The shape of the initial centers {array.shape} does not match the number of {named}."
                )
        return array

    def _quickly(self, answer: Callable[..., Any], X: Any) -> Any:
        """The answer of ``nearest`` or ``squares_to_nearest``, in units of ``_unit_of``; None if rows have to be
        checked first, have gaps, or may be so far away that squares are infinite.
        """
        check_is_fitted(self)
        if not is_plain(self, X):
            return None
        rows, centres = self._widened(X), self._centres_now()
        scale, largest = rows.dtype.type(self._unit_of(centres)), largest_number(X.dtype)
        # Rows may be as large as that, and centres far smaller.
        if not largest_number(rows.dtype) / float(np.finfo(rows.dtype).max) < scale:
            return None
        with precision(rows.dtype):
            return answer(rows, centres, scale, largest)

    def _nearest(self, rows: Rows, complete: bool) -> Int[np.ndarray, " N"]:
        """The nearest centre of every row, of rows that were checked."""
        centres = self._centres_now()
        scale = rows.dtype.type(self._unit_of(centres))
        if is_csr(rows):
            return nearest_of_sparse(divided(rows, scale), centres / scale)
        if complete and (labels := self._quickly(nearest, rows)) is not None:
            return labels
        places, inner = centres / scale, rows / scale
        program = _kmeans_program(len(centres))
        with precision(rows.dtype):
            fitted = Fit.at(program, (inner,), {"t": Delta()}, {"loc": places}, {"x": places.mean(axis=0)})
            return np.asarray(fitted.predict(inner)).astype(np.int32)

    def _unit_of(self, centres: Float[np.ndarray, "K D"]) -> float:
        """The unit of the fit; of centres at another scale, which were set by hand, their own."""
        of_centres, of_fit = unit(centres), getattr(self, "_unit", 0.0)
        return of_fit if len(centres) == 1 or of_fit * _FAR_BELOW <= of_centres <= of_fit else of_centres

    def _inner(self, rows: Rows) -> Rows:
        """The rows at a scale of one, to the last bit the same but for their exponents."""
        return divided(rows, self._unit)


@functools.cache
def _kmeans_program(num_clusters: int) -> Callable[..., Any]:
    return functools.partial(kmeans, num_components=num_clusters)


def _inertia(
    rows: Rows,
    centres: Float[np.ndarray, "K D"],
    labels: Int[np.ndarray, " N"],
    weights: Float[np.ndarray, " N"] | None,
) -> float:
    """The sum of the squared distances to the centres of these labels, each as often as its row counts."""
    if not is_csr(rows):
        return squared_distances(rows, centres, labels, weights)
    # A power of two, whose square is left out of squares that might be too small or too large.
    scale = max(unit(rows), unit(centres))
    squares = squares_of_sparse(divided(rows, scale), divided(centres, scale), labels)
    return scale**2 * float(squares.sum() if weights is None else weights @ squares)
