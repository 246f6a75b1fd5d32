"""The time of one iteration beside scikit-learn: ``python -m probem.experiments.benchmarks configs/benchmark.yaml``.

Both sides alternate, start from the same parameters and make the same number of steps (as many as neither side needs to
converge, if that is fewer than asked); the ratio is that of the medians. The time to compile is reported apart.
"""

import functools
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import pydantic

import probem
from probem import models
from probem.errors import InputError
from probem.runs.config import StrictModel, read


class CaseSettings(StrictModel):
    """One model on one shape of data; ``wanted`` is how many times faster than scikit-learn an iteration should be."""

    model: Literal["gmm", "bayesian_gmm", "kmeans"]
    rows: Annotated[int, pydantic.Field(ge=2)]
    columns: Annotated[int, pydantic.Field(ge=1)]
    components: Annotated[int, pydantic.Field(ge=1)]
    dtype: Literal["float32", "float64"]
    wanted: Annotated[float, pydantic.Field(gt=0)]
    covariance: Literal["full", "diagonal"] = "full"

    @property
    def name(self) -> str:
        kind = "kmeans" if self.model == "kmeans" else f"{self.model} {self.covariance}"
        return f"{kind} ({self.rows}, {self.columns}, {self.components}) {self.dtype}"


class BenchmarkSettings(StrictModel):
    """Which cases, and how many rounds of each."""

    rounds: Annotated[int, pydantic.Field(ge=1)]
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)]
    cases: Annotated[list[CaseSettings], pydantic.Field(min_length=1)]


# Steps of the short and of the long fit: k-means takes milliseconds a step and needs more of them to be seen.
_STEPS = {"gmm": (2, 18), "bayesian_gmm": (2, 18), "kmeans": (2, 102)}


def rows_of(case: CaseSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clusters that overlap, so that many steps can be made; and rows to start from."""
    random = np.random.default_rng(seed)
    centres = 0.1 * random.normal(size=(case.components, case.columns))
    rows = random.normal(size=(case.rows, case.columns)) + centres[random.integers(0, case.components, case.rows)]
    start = rows[random.choice(case.rows, case.components, replace=False)]
    return rows.astype(case.dtype), start.astype(case.dtype)


def of_probem(case: CaseSettings, rows: np.ndarray, start: np.ndarray) -> Callable[[int], Any]:
    """A fit with probem of so many steps."""
    dim, count = case.columns, case.components
    if case.model == "bayesian_gmm":
        return _variational_bayes(case, rows, start)
    values: dict[str, Any] = {"loc": start}
    if case.model == "kmeans":
        program, families = functools.partial(models.kmeans, num_components=count), probem.HARD_EM
    else:
        structure = models.full if case.covariance == "full" else models.diagonal
        program, families = functools.partial(models.gmm, num_components=count, covariance=structure), probem.EM
        values["weights"] = np.full(count, 1 / count)
        if case.covariance == "full":
            values["covariance"] = np.broadcast_to(np.eye(dim), (count, dim, dim))
        else:
            values["scale"] = np.ones((count, dim))

    def run(steps: int) -> Any:
        init = probem.Parameters(values)
        return probem.fit(
            program, rows, families=families, init=init, max_steps=steps, tolerance=0.0, throw=False, progress=False
        )

    return run


def _variational_bayes(case: CaseSettings, rows: np.ndarray, start: np.ndarray) -> Callable[[int], Any]:
    prior = models.GaussianPrior(rows.mean(0), 1.0, float(case.columns), np.cov(rows, rowvar=False))
    program = functools.partial(models.bayesian_gmm, num_components=case.components, prior=prior)
    init = probem.Labels(_nearest(rows, start))

    def run(steps: int) -> Any:
        return probem.fit(
            program,
            rows,
            families=probem.VARIATIONAL_BAYES,
            init=init,
            max_steps=steps,
            tolerance=0.0,
            throw=False,
            progress=False,
        )

    return run


def _nearest(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    return np.argmax(rows @ start.T - 0.5 * (start**2).sum(1), axis=1)


def _bayesian_sklearn(case: CaseSettings, rows: np.ndarray, start: np.ndarray) -> Callable[[int], Any]:
    from sklearn.mixture import BayesianGaussianMixture

    labels = np.eye(case.components)[_nearest(rows, start)]

    class Started(BayesianGaussianMixture):
        """From given responsibilities."""

        def _initialize_parameters(self, X: np.ndarray, random_state: Any, xp: Any = None) -> None:
            self._initialize(X, labels)

    return lambda steps: Started(
        n_components=case.components,
        covariance_type="full",
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=1.0,
        mean_precision_prior=1.0,
        degrees_of_freedom_prior=float(case.columns),
        reg_covar=0,
        tol=0,
        max_iter=steps,
    ).fit(rows)


def of_sklearn(case: CaseSettings, rows: np.ndarray, start: np.ndarray) -> Callable[[int], Any]:
    """A fit of this case by scikit-learn, of as many steps as asked."""
    if case.model == "bayesian_gmm":
        return _bayesian_sklearn(case, rows, start)
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    if case.model == "kmeans":
        settings: dict[str, Any] = {"init": start, "n_init": 1, "tol": 0}
        return lambda steps: KMeans(case.components, max_iter=steps, **settings).fit(rows)
    kind = "full" if case.covariance == "full" else "diag"
    identity = np.eye(case.columns) if kind == "full" else np.ones(case.columns)
    return lambda steps: GaussianMixture(
        case.components,
        covariance_type=kind,
        tol=0,
        reg_covar=0,
        max_iter=steps,
        init_params="random_from_data",
        weights_init=np.full(case.components, 1 / case.components),
        means_init=start,
        precisions_init=np.broadcast_to(identity, (case.components, *identity.shape)),
    ).fit(rows)


def seconds_per_step(run: Callable[[int], Any], few: int, many: int) -> float:
    """The time of the steps between the short and the long fit, for each of them."""
    began = time.perf_counter()
    run(few)
    between = time.perf_counter()
    run(many)
    return (time.perf_counter() - between - (between - began)) / (many - few)


def measure(case: CaseSettings, rounds: int, seed: int) -> dict[str, Any]:
    """Both sides alternately; medians in seconds, and the ratio of the medians."""
    rows, start = rows_of(case, seed)
    ours, theirs = of_probem(case, rows, start), of_sklearn(case, rows, start)
    few, many = _STEPS[case.model]
    began = time.perf_counter()
    ours(few)
    first = time.perf_counter() - began
    began = time.perf_counter()
    ours(few)
    again = time.perf_counter() - began
    # Neither side may finish early.
    many = min(many, ours(many).num_steps, theirs(many).n_iter_)
    if many <= few:
        raise InputError(f"{many} steps in '{case.name}'", f"more than {few} on either side", "change the data's seed")
    pairs = [(seconds_per_step(ours, few, many), seconds_per_step(theirs, few, many)) for _ in range(rounds)]
    probem_median, sklearn_median = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {
        "case": case.name,
        "probem_seconds": probem_median,
        "sklearn_seconds": sklearn_median,
        "ratio": sklearn_median / probem_median,
        "wanted": case.wanted,
        "compile_seconds": first - again,
        "pairs": pairs,
    }


def main(path: str | Path) -> list[dict[str, Any]]:
    """Run all cases of a configuration, print a line for each, and return the measurements."""
    settings = read(Path(path), BenchmarkSettings)
    jax.config.update("jax_enable_x64", True)
    print(f"{'case':44}{'probem':>12}{'sklearn':>12}{'ratio':>8}{'wanted':>8}{'compile':>10}")
    measurements = []
    with warnings.catch_warnings():
        # scikit-learn warns that a fit of so few steps has not converged: it is not meant to.
        warnings.simplefilter("ignore")
        for case in settings.cases:
            row = measure(case, settings.rounds, settings.seed)
            measurements.append(row)
            print(
                f"{row['case']:44}{1e3 * row['probem_seconds']:9.2f} ms{1e3 * row['sklearn_seconds']:9.2f} ms"
                f"{row['ratio']:8.2f}{row['wanted']:8.1f}{row['compile_seconds']:8.2f} s",
                flush=True,
            )
    return measurements
