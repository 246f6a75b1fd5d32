"""What a benchmark measures, as a YAML file says it; a section that is not there is left out."""

from typing import Annotated, Literal

import pydantic

from probem.runs.config import StrictModel

Count = Annotated[int, pydantic.Field(ge=1)]
Seconds = Annotated[float, pydantic.Field(gt=0)]
Estimator = Literal["KMeans", "GaussianMixture", "BayesianGaussianMixture"]
Answer = Literal[
    "KMeans.predict",
    "KMeans.transform",
    "KMeans.score",
    "GaussianMixture.predict",
    "GaussianMixture.score_samples",
    "BayesianGaussianMixture.predict",
    "BayesianGaussianMixture.score_samples",
]
Process = Literal[
    "KMeans",
    "GaussianMixture",
    "BayesianGaussianMixture",
    "grid search of 18 fits",
    "import probem",
    "import probem.sklearn",
]

# What a model is called in a table.
_TITLES = {
    "kmeans": "k-means",
    "full": "GMM full",
    "tied": "GMM tied",
    "diagonal": "GMM diagonal",
    "spherical": "GMM spherical",
    "bayesian": "VB, GMM full",
}


class IterationCase(StrictModel):
    """k-means, EM for a Gaussian mixture with some covariances, or variational Bayes for full ones."""

    model: Literal["kmeans", "full", "tied", "diagonal", "spherical", "bayesian"]
    shape: Annotated[list[Count], pydantic.Field(min_length=3, max_length=3)]  # N, D, K
    dtype: Literal["float32", "float64"]

    @property
    def name(self) -> str:
        numbers = ", ".join(map(str, self.shape))
        return f"{_TITLES[self.model]} ({numbers}) {self.dtype.replace('float', 'f')}"

    @property
    def num_flops(self) -> int:
        """Of the two matrix products of an iteration, S statistics of N rows for K components: 4 N S K."""
        num_rows, dim, num_components = self.shape
        moments = {"kmeans": 0, "tied": 0, "spherical": 1, "diagonal": dim}
        return 4 * num_rows * (dim + moments.get(self.model, dim * (dim + 1) // 2)) * num_components


class Iterations(StrictModel):
    """Cases whose cost of one iteration is measured.

    ``seconds`` is how long the fastest side's iterations take in every round, ``matmul`` the side of the square
    matrices whose product says how fast the machine multiplies, ``fresh`` whether a process of its own makes the first
    call of every side, for the time to compile and the peak memory.
    """

    rounds: Count
    seconds: Seconds
    matmul: Count
    fresh: bool
    cases: Annotated[list[IterationCase], pydantic.Field(min_length=1)]


class Sweep(StrictModel):
    """A case, and the N, D and K that take the place of its own, each by itself."""

    base: IterationCase
    rows: list[Count]
    columns: list[Count]
    components: list[Count]

    def along(self, axis: int) -> list[IterationCase]:
        """The cases along one entry of the shape, the base among them, in order."""
        values = {*(self.rows, self.columns, self.components)[axis], self.base.shape[axis]}
        shapes = ([*self.base.shape[:axis], value, *self.base.shape[axis + 1 :]] for value in sorted(values))
        return [self.base.model_copy(update={"shape": shape}) for shape in shapes]


class Growth(StrictModel):
    """Sweeps over N, D and K, measured as ``Iterations`` are."""

    rounds: Count
    seconds: Seconds
    matmul: Count
    sweeps: Annotated[list[Sweep], pydantic.Field(min_length=1)]


class Answers(StrictModel):
    """Calls of estimators about (N, D) rows, for each N, float64."""

    rounds: Count
    seconds: Seconds
    rows: list[Count]
    columns: Count
    components: Count
    calls: list[Answer]


class SmallFits(StrictModel):
    """Many fits of (N, D) rows, float64, each until it converges.

    The loops of peers, whose cost is that of the fits one by one, take the first ``looped`` of the data sets, and their
    times are scaled to all of them.
    """

    rounds: Count
    sets: Count
    looped: Count
    shape: Annotated[list[Count], pydantic.Field(min_length=3, max_length=3)]
    models: list[Estimator]


class Restarts(StrictModel):
    """Starts of one data set, of a fixed number of iterations each, float64."""

    rounds: Count
    starts: Count
    steps: Count
    shape: Annotated[list[Count], pydantic.Field(min_length=3, max_length=3)]
    models: list[Literal["KMeans", "GaussianMixture"]]


class Processes(StrictModel):
    """Interpreters that start, do one thing and end; fits are those of iris."""

    rounds: Count
    names: list[Process]


class BenchmarkSettings(StrictModel):
    """One run: its seed, the peers that are measured where they are installed, and what is measured."""

    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)]
    peers: list[Literal["scikit-learn", "scikit-learn-intelex", "faiss-cpu"]]
    iterations: Iterations | None = None
    growth: Growth | None = None
    answers: Answers | None = None
    small_fits: SmallFits | None = None
    restarts: Restarts | None = None
    processes: Processes | None = None
