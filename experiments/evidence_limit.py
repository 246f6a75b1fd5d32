"""E4: variational Bayes under flat priors beside EM, as the rows grow in number."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import probem
from probem import models
from probem.models.priors import GaussianPrior

from .claim import Check, Dataset
from .evidence_values import program, two_columns

#: From where EM itself is near its limit: on overlapping clusters, 100 rows are too few.
SIZES = (400, 1600, 6400)
SAMPLES = 4
#: As flat as the families go: no row's worth for a location, D - 1 degrees of freedom, no scatter.
FLAT = GaussianPrior(np.zeros(2), 1e-6, 1.0 + 1e-6, 1e-6 * np.eye(2))


@dataclasses.dataclass(frozen=True)
class Source:
    """A Gaussian mixture to draw rows from."""

    weights: np.ndarray
    loc: np.ndarray
    covariance: np.ndarray

    def draw(self, generator: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[N, D]`` and their labels ``[N]``."""
        labels = generator.choice(len(self.weights), num_rows, p=self.weights)
        noise = generator.standard_normal((num_rows, self.loc.shape[1], 1))
        return self.loc[labels] + (np.linalg.cholesky(self.covariance)[labels] @ noise)[..., 0], labels


def source_of(dataset: Dataset, seed: int) -> Source:
    """What EM finds in the data set, two components."""
    fit = probem.fit(_em(), two_columns(dataset), key=seed)
    return Source(*(np.asarray(fit.params[name]) for name in ("weights", "loc", "covariance")))


def _em() -> Callable[..., None]:
    return functools.partial(models.gmm, num_components=2)


def estimates(params: Mapping[str, Any]) -> np.ndarray:
    """Weights, locations and covariances, of q its means, side by side."""
    covariance = params["covariance"] if "covariance" in params else np.linalg.inv(params["precision"])
    return np.concatenate([np.ravel(part) for part in (params["weights"], params["loc"], covariance)])


def errors(dataset: Dataset, seed: int) -> np.ndarray:
    """Root mean square distance of variational Bayes and EM, ``[SAMPLES, SIZES]``, from the same start."""
    source, generator = source_of(dataset, seed), np.random.default_rng(seed)
    found = np.zeros((SAMPLES, len(SIZES)))
    for sample in range(SAMPLES):
        for place, size in enumerate(SIZES):
            rows, labels = source.draw(generator, size)
            options: dict[str, Any] = {"init": probem.Labels(labels), "tolerance": 1e-14, "throw": False}
            em = probem.fit(_em(), rows, **options)
            full = probem.fit(program(2, FLAT), rows, families=probem.VARIATIONAL_BAYES, **options)
            found[sample, place] = np.sqrt(np.mean((estimates(em.params) - estimates(full.params)) ** 2))
    return found


def slope_of(found: np.ndarray) -> float:
    """Of the logarithm of the error against that of N, by least squares."""
    return float(np.polyfit(np.tile(np.log(SIZES), len(found)), np.log(found).ravel(), 1)[0])


def meets(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E4."""
    found = errors(dataset, seed)
    slope = slope_of(found)
    means = np.exp(np.log(found).mean(0))
    yield Check(
        "E4",
        dataset.name,
        "slope of log error against log N, and -1",
        abs(slope + 1.0),
        # Rows are drawn anew for every N, and what is of higher order than 1/N has not quite gone at the fewest.
        0.4,
        {"slope": slope, **{f"error at N = {size}": float(own) for size, own in zip(SIZES, means, strict=True)}},
    )
