"""Lloyd's algorithm in plain NumPy, and scikit-learn's, iteration by iteration: what k-means as EM is held against.

Nothing here knows of probem's engine, of densities or of a bound.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One iteration: the centres ``[K, D]`` that it begins with, and the labels ``[N]`` that they give."""

    centres: np.ndarray
    labels: np.ndarray


def starts(rows: np.ndarray, num_components: int, count: int, seed: int) -> list[np.ndarray]:
    """``count`` starts ``[K, D]``, drawn at random: rows, no two of them equal, and points between rows, in turn.

    Rows written with few decimals are often equally far from two others, points between them hardly ever: the first
    kind of start shows what happens at a tie, and the second follows the whole way without one.
    """
    distinct = np.unique(rows, axis=0)
    generator = np.random.default_rng((seed, num_components))
    drawn = []
    for number in range(count):
        chosen = distinct[generator.choice(len(distinct), num_components, replace=False)]
        if number % 2:
            others = distinct[generator.choice(len(distinct), num_components, replace=False)]
            chosen = chosen + generator.uniform(0.1, 0.4, (num_components, 1)) * (others - chosen)
        drawn.append(chosen)
    return drawn


def squared_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """‖x_i - mu_c‖², ``[N, K]``."""
    return np.stack([((rows - centre) ** 2).sum(axis=1) for centre in centres], axis=1)


def nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The index of the nearest centre, ``[N]``; of several at the same distance the lowest."""
    labels = np.zeros(len(rows), dtype=int)
    shortest = np.full(len(rows), np.inf)
    for index, distances in enumerate(squared_distances(rows, centres).T):
        closer = distances < shortest
        labels[closer], shortest[closer] = index, distances[closer]
    return labels


def tied(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Whether the two nearest centres are equally far up to rounding, ``[N]``.

    Rounding is that of |x|² - 2 x·mu + |mu|², a sum of D + 2 products, the form in which fast implementations have it.
    """
    if len(centres) == 1:
        return np.zeros(len(rows), dtype=bool)
    two = np.partition(squared_distances(rows, centres), 1, axis=1)[:, :2]
    size = (rows**2).sum(axis=1) + (centres**2).sum(axis=1).max()
    return two[:, 1] - two[:, 0] <= 4 * (rows.shape[1] + 2) * np.finfo(np.float64).eps * size


def means(rows: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The mean of the rows of each label, ``[K, D]``; a centre without rows stays where it is."""
    moved = centres.copy()
    for index in range(len(centres)):
        if (labels == index).any():
            moved[index] = rows[labels == index].mean(axis=0)
    return moved


def inertia(rows: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> float:
    """J = sum_i ‖x_i - mu_(c_i)‖², over all rows."""
    return float(sum(((rows[labels == index] - centre) ** 2).sum() for index, centre in enumerate(centres)))


def lloyd(rows: np.ndarray, centres: np.ndarray, max_steps: int = 1000) -> tuple[Iteration, ...]:
    """Assign, average, repeat, until an assignment repeats the one before.

    Source: Lloyd (1982), Least squares quantization in PCM; the article's steps 1 to 4.
    """
    iterations = [Iteration(centres, nearest(rows, centres))]
    while len(iterations) < max_steps:
        centres = means(rows, iterations[-1].labels, centres)
        iterations.append(Iteration(centres, nearest(rows, centres)))
        if np.array_equal(iterations[-1].labels, iterations[-2].labels):
            break
    return tuple(iterations)


def scikit_learn_lloyd(rows: np.ndarray, centres: np.ndarray, max_steps: int = 1000) -> tuple[Iteration, ...]:
    """Every iteration of scikit-learn's ``KMeans``, which is run anew from the start for 1, 2, 3, ... iterations.

    After ``max_iter=s`` it holds the centres of s averages and the labels that these give; the number of iterations is
    the ``n_iter_`` of a run that may take as many as it needs. The labels before the first average are those of
    ``pairwise_distances_argmin``.
    """
    from sklearn.metrics import pairwise_distances_argmin
    from threadpoolctl import threadpool_limits

    # Sets this small are clustered faster by one thread than by several.
    with threadpool_limits(1):
        iterations = [Iteration(centres, pairwise_distances_argmin(rows, centres))]
        for steps in range(1, _k_means(rows, centres, max_steps).n_iter_):
            estimator = _k_means(rows, centres, steps)
            iterations.append(Iteration(estimator.cluster_centers_, estimator.labels_))
    return tuple(iterations)


def _k_means(rows: np.ndarray, centres: np.ndarray, max_steps: int) -> Any:
    import sklearn.cluster

    # scikit-learn's annotations know of strings only, where it takes arrays and numbers too.
    make: Any = sklearn.cluster.KMeans
    estimator = make(len(centres), init=centres, n_init=1, max_iter=max_steps, tol=0.0, algorithm="lloyd")
    return estimator.fit(rows)


def partitions(num_rows: int, num_components: int) -> Iterator[np.ndarray]:
    """Every way to cut N rows into K parts, none empty, as labels ``[N]``; parts are numbered by their first row."""

    def extend(labels: list[int], used: int) -> Iterator[np.ndarray]:
        if len(labels) == num_rows:
            if used == num_components:
                yield np.array(labels)
            return
        for label in range(min(used + 1, num_components)):
            yield from extend([*labels, label], max(used, label + 1))

    yield from extend([], 0)
