"""Nearest centres and their squared distances, block by block, against a plain loop."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from probem.sklearn import KMeans
from probem.sklearn.nearest import are_complete, nearest


def _squares(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return cdist(np.asarray(rows, float), np.asarray(centres, float), "sqeuclidean")


@pytest.mark.parametrize(("count", "num_rows"), [(5, 7), (5, 1024), (5, 20_000), (300, 3000)])
def test_blocks_are_one(count: int, num_rows: int) -> None:
    random = np.random.default_rng(count)
    rows, centres = random.normal(size=(num_rows, 3)), random.normal(size=(count, 3))
    labels, squares = nearest(rows, centres, np.float64(4.0), squares=True)
    expected = _squares(rows, centres)
    np.testing.assert_array_equal(labels, expected.argmin(1))
    np.testing.assert_allclose(squares, expected.min(1) / 16.0, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(nearest(rows, centres, np.float64(4.0))[0], labels)


def test_ties_go_to_the_lowest_index() -> None:
    rows = np.array([[0.0], [1.0], [2.0]])
    np.testing.assert_array_equal(nearest(rows, np.array([[2.0], [0.0], [2.0]]), np.float64(2.0))[0], [1, 0, 0])


def test_gaps_are_seen() -> None:
    assert are_complete(np.array([[1.0, -1e130]]))
    assert not are_complete(np.array([[1.0, np.nan]]))


@pytest.mark.parametrize("unit", [2.0**-450, 2.0**-40, 1.0, 2.0**330])
def test_score_in_any_unit(unit: float) -> None:
    """Minus the sum of squares, of rows that are near, far away, or on the centres; a unit rounds nothing."""
    random = np.random.default_rng(3)
    rows, weights = unit * random.normal(size=(400, 2)), random.uniform(0, 2, 400)
    fitted = KMeans(3, n_init=1, random_state=0).fit(rows)
    for other in (rows, 1e20 * rows, fitted.cluster_centers_ * (1 + 1e-14)):
        least = _squares(other / unit, fitted.cluster_centers_ / unit).min(1)
        np.testing.assert_allclose(-fitted.score(other) / unit / unit, least.sum(), rtol=1e-8, atol=1e-300)
    least = _squares(rows / unit, fitted.cluster_centers_ / unit).min(1)
    np.testing.assert_allclose(-fitted.score(rows, sample_weight=weights) / unit / unit, weights @ least, rtol=1e-10)
    np.testing.assert_array_equal(fitted.predict(rows), fitted.labels_)


def test_gaps_are_left_out_of_the_score() -> None:
    random = np.random.default_rng(4)
    rows = random.normal(size=(300, 2)) + 6.0 * random.integers(0, 2, 300)[:, None]
    fitted = KMeans(2, n_init=1, random_state=0).fit(rows)
    rows[::5, 0] = np.nan
    squares = np.nansum((rows[:, None] - fitted.cluster_centers_) ** 2, axis=2).min(1)
    np.testing.assert_allclose(-fitted.score(rows), squares.sum(), rtol=1e-10)
