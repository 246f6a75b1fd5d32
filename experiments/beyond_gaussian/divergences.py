"""Bregman clustering in plain NumPy: Lloyd's algorithm with another distance. Nothing here knows of densities or of F.

A strictly convex phi makes the divergence d(x, m) = phi(x) - phi(m) - phi'(m) (x - m), and the density
exp(-d(x, m)) b(x) of an exponential family with mean m. Source: Banerjee et al. (2005), Clustering with Bregman
divergences, theorem 4 and algorithm 1.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, xlogy


@dataclasses.dataclass(frozen=True)
class Divergence:
    """d(x, m) of one entry, and log b(x), what the density has beside it."""

    name: str
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    log_rest: Callable[[np.ndarray], np.ndarray]

    def table(self, rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """The sum of d over the columns, for every row and centre, ``[N, K]``."""
        return np.stack([self.of(rows, centre).sum(axis=1) for centre in centres], axis=1)


def _logistic(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return -np.where(x > 0, np.log(mean), np.log1p(-mean))


DIVERGENCES = {
    "Poisson": Divergence(
        "I-divergence",
        lambda x, mean: xlogy(x, x) - xlogy(x, mean) - x + mean,
        lambda x: xlogy(x, x) - x - gammaln(x + 1),
    ),
    "Bernoulli": Divergence("logistic loss", _logistic, np.zeros_like),
    "exponential": Divergence(
        "Itakura–Saito divergence",
        lambda x, mean: x / mean - np.log(x / mean) - 1,
        lambda x: -np.log(x) - 1,
    ),
}


def means(rows: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The mean of the rows of each label, ``[K, D]``; a centre without rows stays where it is."""
    each = [rows[labels == index] for index in range(len(centres))]
    return np.stack([part.mean(axis=0) if len(part) else old for part, old in zip(each, centres, strict=True)])


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One iteration: the centres ``[K, D]`` that it begins with, the labels ``[N]`` that they give, and the cost."""

    centres: np.ndarray
    labels: np.ndarray
    cost: float


def cluster(rows: np.ndarray, centres: np.ndarray, divergence: Divergence) -> list[Iteration]:
    """Assign every row to the centre of the least divergence, average, repeat until no label changes."""
    iterations: list[Iteration] = []
    while True:
        table = divergence.table(rows, centres)
        labels = table.argmin(axis=1)
        iterations.append(Iteration(centres, labels, float(table.min(axis=1).sum())))
        if len(iterations) > 1 and np.array_equal(labels, iterations[-2].labels):
            return iterations
        centres = means(rows, labels, centres)
