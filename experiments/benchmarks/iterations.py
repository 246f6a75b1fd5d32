"""The time of one iteration.

It is the time of a fit of many iterations minus that of a fit of few, divided by the difference, so that what a fit
does once (checks, copies, the first compilation) is no part of it. All sides start from the same parameters and make
the same number of iterations: as many as none of them needs to converge, if that is fewer than wanted.
"""

import functools
import importlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

import probem
from probem import models
from probem.errors import InputError

from .fresh import first_calls
from .settings import IterationCase
from .timing import PROBEM, Measurement, in_turn, seconds_of

# Iterations of the short fit, and the fewest and the most that a long fit has beyond them.
FEW = 2
_LEAST, _MOST = 4, 200
# How often a round is tried in which the long fit took no longer than the short one, which was interrupted then.
_TRIES = 8


class Steps(NamedTuple):
    """How many iterations a fit has made, and the means or centres that it ended with."""

    count: int
    locations: Float[np.ndarray, "K D"]


Run = Callable[[int], Steps]


def draw(case: IterationCase, seed: int) -> tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "K D"]]:
    """Clusters that overlap, so that many iterations can be made; and rows to start from."""
    num_rows, dim, num_components = case.shape
    random = np.random.default_rng(seed)
    centres = 0.1 * random.normal(size=(num_components, dim))
    rows = random.normal(size=(num_rows, dim)) + centres[random.integers(0, num_components, num_rows)]
    start = rows[random.choice(num_rows, num_components, replace=False)]
    return rows.astype(case.dtype), start.astype(case.dtype)


def sides_of(
    case: IterationCase, peers: list[str], rows: Float[np.ndarray, "N D"], start: Float[np.ndarray, "K D"]
) -> dict[str, Run]:
    """A fit of so many iterations, by probem and by each of the peers that has this model in this precision."""
    sides = {PROBEM: _of_probem(case, rows, start)}
    if "scikit-learn" in peers:
        sides["scikit-learn"] = _of_sklearn(case, rows, start)
    if "scikit-learn-intelex" in peers and case.model == "kmeans":
        sides["scikit-learn-intelex"] = _lloyd(importlib.import_module("sklearnex.cluster").KMeans, rows, start)
    if "faiss-cpu" in peers and case.model == "kmeans" and case.dtype == "float32":
        sides["faiss-cpu"] = _of_faiss(rows, start)
    return sides


def _of_probem(case: IterationCase, rows: Float[np.ndarray, "N D"], start: Float[np.ndarray, "K D"]) -> Run:
    _, dim, count = case.shape
    init: Any = probem.Parameters({"loc": start, **_weights_and_spreads(case)})
    families = probem.EM
    if case.model == "kmeans":
        program, families = functools.partial(models.kmeans, num_components=count), probem.HARD_EM
    elif case.model == "bayesian":
        prior = models.GaussianPrior(rows.mean(0), 1.0, float(dim), np.cov(rows, rowvar=False))
        program = functools.partial(models.bayesian_gmm, num_components=count, prior=prior)
        families, init = probem.VARIATIONAL_BAYES, probem.Labels(_nearest(rows, start))
    else:
        program = functools.partial(models.gmm, num_components=count, covariance=getattr(models, case.model))

    def run(steps: int) -> Steps:
        # The parameters after so many M half-steps are those of the next E half-step.
        fit = probem.fit(
            program,
            rows,
            families=families,
            init=init,
            max_steps=steps + 1,
            tolerance=0.0,
            throw=False,
            verbose=0,
        )
        return Steps(fit.num_steps - 1, np.asarray(fit.params["loc"]))

    return run


def _weights_and_spreads(case: IterationCase) -> dict[str, Any]:
    """Equal weights and unit spreads."""
    _, dim, count = case.shape
    spreads: dict[str, Any] = {
        "full": {"covariance": np.broadcast_to(np.eye(dim), (count, dim, dim))},
        "tied": {"covariance": np.eye(dim)},
        "diagonal": {"scale": np.ones((count, dim))},
        "spherical": {"scale": np.ones(count)},
    }
    return {"weights": np.full(count, 1 / count), **spreads[case.model]} if case.model in spreads else {}


def _nearest(rows: Float[np.ndarray, "N D"], start: Float[np.ndarray, "K D"]) -> Int[np.ndarray, " N"]:
    return np.argmax(rows @ start.T - 0.5 * (start**2).sum(1), axis=1)


def _of_sklearn(case: IterationCase, rows: Float[np.ndarray, "N D"], start: Float[np.ndarray, "K D"]) -> Run:
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    if case.model == "kmeans":
        return _lloyd(KMeans, rows, start)
    if case.model == "bayesian":
        return _bayesian_sklearn(rows, start)
    _, dim, count = case.shape
    # Unit precisions, in the shape of each kind of covariances.
    kind, precisions = {
        "full": ("full", np.broadcast_to(np.eye(dim), (count, dim, dim))),
        "tied": ("tied", np.eye(dim)),
        "diagonal": ("diag", np.ones((count, dim))),
        "spherical": ("spherical", np.ones(count)),
    }[case.model]

    def run(steps: int) -> Steps:
        mixture: Any = GaussianMixture(
            count,
            covariance_type=kind,
            tol=0,
            reg_covar=0,
            max_iter=steps,
            init_params="random_from_data",
            weights_init=np.full(count, 1 / count),
            means_init=start,
            precisions_init=precisions,
        ).fit(rows)
        return Steps(mixture.n_iter_, mixture.means_)

    return run


def _bayesian_sklearn(rows: Float[np.ndarray, "N D"], start: Float[np.ndarray, "K D"]) -> Run:
    from sklearn.mixture import BayesianGaussianMixture

    count, dim = start.shape
    responsibilities = np.eye(count)[_nearest(rows, start)]

    class Started(BayesianGaussianMixture):
        """From given responsibilities."""

        def _initialize_parameters(self, X: np.ndarray, random_state: Any, xp: Any = None) -> None:
            self._initialize(X, responsibilities)

    def run(steps: int) -> Steps:
        mixture = Started(
            n_components=count,
            covariance_type="full",
            weight_concentration_prior_type="dirichlet_distribution",
            weight_concentration_prior=1.0,
            mean_precision_prior=1.0,
            degrees_of_freedom_prior=float(dim),
            reg_covar=0,
            tol=0,
            max_iter=steps,
        ).fit(rows)
        return Steps(mixture.n_iter_, mixture.means_)

    return run


def _lloyd(estimator: Any, rows: Float[np.ndarray, "N D"], start: Float[np.ndarray, "K D"]) -> Run:
    def run(steps: int) -> Steps:
        kmeans = estimator(len(start), init=start, n_init=1, tol=0, max_iter=steps).fit(rows)
        return Steps(kmeans.n_iter_, kmeans.cluster_centers_)

    return run


def _of_faiss(rows: Float[np.ndarray, "N D"], start: Float[np.ndarray, "K D"]) -> Run:
    faiss = importlib.import_module("faiss")

    def run(steps: int) -> Steps:
        # Without these bounds it takes a part of the rows.
        kmeans = faiss.Kmeans(
            *reversed(start.shape), niter=steps, min_points_per_centroid=1, max_points_per_centroid=len(rows)
        )
        kmeans.train(rows, init_centroids=start)
        return Steps(len(kmeans.iteration_stats), kmeans.centroids)

    return run


def _seconds_per_step(run: Run, num_steps: int) -> float:
    """The time of the iterations between the short and the long fit, for each of them."""
    for _ in range(_TRIES):
        seconds = seconds_of(lambda: run(FEW + num_steps)) - seconds_of(lambda: run(FEW))
        if seconds > 0:
            return seconds / num_steps
    raise InputError(
        f"{_TRIES} fits of {FEW + num_steps} iterations that took less time than those of {FEW}",
        "a machine that times can be taken on",
        "ask for more seconds, or wait until others leave it alone",
    )


def _common_steps(case: IterationCase, sides: Mapping[str, Run], seconds: float) -> tuple[int, dict[str, Steps]]:
    """How many iterations a long fit has beyond the short one, and what each side ended with after so many."""
    for run in sides.values():
        run(FEW)  # which compiles
    fastest = min(_seconds_per_step(run, _LEAST) for run in sides.values())
    num_steps = int(np.clip(round(seconds / fastest), _LEAST, _MOST))
    while True:
        ended = {side: run(FEW + num_steps) for side, run in sides.items()}
        fewest = min(steps.count for steps in ended.values()) - FEW
        if fewest >= num_steps:
            return num_steps, ended
        num_steps = fewest
        if num_steps < 1:
            raise InputError(
                f"{fewest + FEW} iterations until '{case.name}' ends", f"more than {FEW}", "change the data's seed"
            )


def _differences(case: IterationCase, rows: Float[np.ndarray, "N D"], ended: Mapping[str, Steps]) -> dict[str, float]:
    """By peer, what shows that it made other iterations than probem.

    Of k-means that is the relative difference of the inertias: in float32 a row between two centres may fall to either,
    and centres drift apart after it. Of mixtures it is the largest difference of means, in standard deviations of the
    noise, which is 1.
    """
    if case.model == "kmeans":
        inertias = {side: _inertia(rows, steps.locations) for side, steps in ended.items()}
        return {side: abs(value / inertias[PROBEM] - 1) for side, value in inertias.items() if side != PROBEM}
    means = {side: steps.locations for side, steps in ended.items()}
    return {side: float(np.abs(value - means[PROBEM]).max()) for side, value in means.items() if side != PROBEM}


def _inertia(rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"]) -> float:
    places = centres.astype(float)
    norms = (places**2).sum(1)
    total = 0.0
    for part in np.array_split(rows, len(rows) // 8192 + 1):
        part = part.astype(float)
        total += (part**2).sum() + (norms - 2 * part @ places.T).min(1).sum()
    return float(total)


@functools.cache
def _square(side: int, dtype: str) -> Callable[[], jax.Array]:
    """The product of two square matrices, compiled."""
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(lambda left, right: left @ right)
    product(matrix, matrix).block_until_ready()
    return lambda: product(matrix, matrix)


def measure(
    kind: str,
    case: IterationCase,
    peers: list[str],
    seed: int,
    *,
    rounds: int,
    seconds: float,
    matmul: int,
    fresh: bool = False,
) -> Measurement:
    """The time of one iteration of each side, and that of a matrix product, in turn."""
    rows, start = draw(case, seed)
    sides = sides_of(case, peers, rows, start)
    num_steps, ended = _common_steps(case, sides, seconds)
    timed = {side: functools.partial(_seconds_per_step, run, num_steps) for side, run in sides.items()}
    product = _square(matmul, case.dtype)
    taken = in_turn({**timed, "product": lambda: seconds_of(product)}, rounds)
    bounds = [case.num_flops * second / (2 * matmul**3) for second in taken.pop("product")]
    shares = [bound / second for bound, second in zip(bounds, taken[PROBEM], strict=True)]
    first, memory = first_calls(case, list(sides), seed) if fresh else (None, {})
    return Measurement(kind, case.name, taken, first, memory, shares, num_steps, _differences(case, rows, ended))


def first_call(case: IterationCase, side: str, seed: int) -> float:
    """Seconds of the first short fit of one side beyond those of the next, in this process."""
    rows, start = draw(case, seed)
    run = sides_of(case, [side], rows, start)[side]
    times = []
    for _ in range(2):
        began = time.perf_counter()
        run(FEW)
        times.append(time.perf_counter() - began)
    return times[0] - times[1]
