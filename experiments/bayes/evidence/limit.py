"""E4: variational Bayes under flat priors, by the engine, beside EM by scikit-learn, as the rows grow in number."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

import probem
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.models.priors import GaussianPrior

from .values import program, two_columns

#: How often the rows are repeated: EM's estimate stays what it is, and what is left of the prior falls like 1/N.
TIMES = (4, 16, 64)
#: Rows drawn from what EM finds in the data set, and how many such samples.
NUM_ROWS, SAMPLES = 100, 4
#: As flat as the families go: no row's worth for a location, D - 1 degrees of freedom, no scatter.
FLAT = GaussianPrior(np.zeros(2), 1e-6, 1.0 + 1e-6, 1e-6 * np.eye(2))


@dataclasses.dataclass(frozen=True)
class Source:
    """A Gaussian mixture to draw rows from."""

    weights: np.ndarray
    loc: np.ndarray
    covariance: np.ndarray

    @property
    def flat(self) -> np.ndarray:
        """All of them side by side."""
        return np.concatenate([np.ravel(part) for part in (self.weights, self.loc, self.covariance)])

    def draw(self, generator: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[N, D]`` and their labels ``[N]``."""
        labels = generator.choice(len(self.weights), num_rows, p=self.weights)
        noise = generator.standard_normal((num_rows, self.loc.shape[1], 1))
        return self.loc[labels] + (np.linalg.cholesky(self.covariance)[labels] @ noise)[..., 0], labels


def source_of(dataset: Dataset, seed: int) -> Source:
    """What EM finds in the data set, two components."""
    rows = two_columns(dataset)
    return em(rows, np.random.default_rng(seed).integers(2, size=len(rows)))


def em(rows: np.ndarray, labels: np.ndarray) -> Source:
    """scikit-learn's EM, from the proportions, means and covariances of labels ``[N]``."""
    from sklearn.mixture import GaussianMixture

    parts = [rows[labels == k] for k in range(2)]
    estimator = GaussianMixture(
        2,
        reg_covar=0.0,
        tol=1e-14,
        max_iter=100_000,
        weights_init=[len(part) / len(rows) for part in parts],
        means_init=[part.mean(axis=0) for part in parts],
        precisions_init=[np.linalg.inv(np.cov(part, rowvar=False, bias=True)) for part in parts],
    ).fit(rows)
    weights, means, covariances = map(np.asarray, (estimator.weights_, estimator.means_, estimator.covariances_))
    return Source(weights, means, covariances)


def variational_bayes(rows: np.ndarray, labels: np.ndarray) -> Source:
    """The engine's q, by its means (of a covariance the inverse of the mean precision), from labels ``[N]``."""
    options: dict[str, Any] = {"init": probem.Labels(labels), "tolerance": 1e-15, "max_steps": 5000, "throw": False}
    params = probem.fit(program(2, FLAT), rows, families=probem.VARIATIONAL_BAYES, **options).params
    return Source(np.asarray(params["weights"]), np.asarray(params["loc"]), np.linalg.inv(params["precision"]))


@Kept
def errors(dataset: Dataset, seed: int) -> np.ndarray:
    """Root mean square distance of variational Bayes and EM, ``[SAMPLES, TIMES]``, from the same start."""
    source, generator = source_of(dataset, seed), np.random.default_rng(seed)
    distances = np.zeros((SAMPLES, len(TIMES)))
    for sample in range(SAMPLES):
        rows, labels = source.draw(generator, NUM_ROWS)
        # Of a row repeated, EM's estimate is that of the row.
        limit = em(rows, labels).flat
        for place, times in enumerate(TIMES):
            full = variational_bayes(np.tile(rows, (times, 1)), np.tile(labels, times)).flat
            distances[sample, place] = np.sqrt(np.mean((full - limit) ** 2))
    return distances


def slope_of(distances: np.ndarray) -> float:
    """Of the logarithm of the error against that of N, by least squares."""
    return float(np.polyfit(np.tile(np.log(TIMES), len(distances)), np.log(distances).ravel(), 1)[0])


def meets(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E4."""
    distances = errors(dataset, seed)
    slope = slope_of(distances)
    means = np.exp(np.log(distances).mean(0))
    yield Check(
        "E4",
        dataset.name,
        "slope of log error against log N, VB by the engine and EM by scikit-learn, and -1",
        abs(slope + 1.0),
        # What is of higher order than 1/N has not quite gone at the fewest.
        0.05,
        {"slope": slope}
        | {f"error at N = {NUM_ROWS * times}": float(mean) for times, mean in zip(TIMES, means, strict=True)},
    )
