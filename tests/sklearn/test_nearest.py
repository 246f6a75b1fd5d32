"""Nearest centres and their squared distances, block by block, against a plain loop."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from probem.sklearn import KMeans
from probem.sklearn.checks import are_complete, are_within
from probem.sklearn.nearest import distances, nearest, squares_to_nearest

FAR = 1e130


def _squares(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return cdist(np.asarray(rows, float), np.asarray(centres, float), "sqeuclidean")


@pytest.mark.parametrize(
    ("count", "num_rows"),
    [(5, 7), (5, 700), (5, 1024), (5, 3000), (5, 5000), (5, 20_000), (85, 3000), (86, 3000), (300, 20), (300, 3000)],
)
def test_blocks_are_one(count: int, num_rows: int) -> None:
    """Few rows in NumPy, some in one block or several, many in larger ones; differences of few columns, or products."""
    random = np.random.default_rng(count)
    rows, centres = random.normal(size=(num_rows, 3)), random.normal(size=(count, 3))
    labels, expected = nearest(rows, centres, np.float64(4.0), FAR), _squares(rows, centres)
    np.testing.assert_array_equal(labels, expected.argmin(1))
    squares = squares_to_nearest(rows, centres, np.float64(4.0), FAR)
    np.testing.assert_allclose(squares, expected.min(1) / 16.0, rtol=1e-12, atol=1e-14)
    assert (labels.dtype, labels.flags.writeable, squares.flags.writeable) == (np.int32, True, True)


@pytest.mark.parametrize("copies", [1, 1000, 10_000])
def test_ties_go_to_the_lowest_index(copies: int) -> None:
    rows = np.tile([[0.0], [1.0], [2.0]], (copies, 1))
    labels = nearest(rows, np.array([[2.0], [0.0], [2.0]]), np.float64(2.0), FAR)
    np.testing.assert_array_equal(labels, np.tile([1, 0, 0], copies))


@pytest.mark.parametrize("count", [5, 300])
@pytest.mark.parametrize("num_rows", [20, 3000, 20_000])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 2e130, -2e130])
def test_what_is_missing_or_too_large_is_seen_wherever_it_is(count: int, num_rows: int, wrong: float) -> None:
    random = np.random.default_rng(count)
    rows, centres = random.normal(size=(num_rows, 3)), random.normal(size=(count, 3))
    for place in (0, num_rows // 2, num_rows - 1):
        bad = rows.copy()
        bad[place, place % 3] = wrong
        assert nearest(bad, centres, np.float64(4.0), FAR) is None
        assert squares_to_nearest(bad, centres, np.float64(4.0), FAR) is None


def test_gaps_are_seen() -> None:
    assert are_complete(np.array([[1.0, -1e130]]))
    assert not are_complete(np.array([[1.0, np.nan]]))
    assert are_within(np.array([[1.0, -2.0]]), 2.0)
    for wrong in (np.nan, np.inf, 2.1, -2.1):
        assert not are_within(np.array([[1.0, wrong, 0.0]]), 2.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("num_rows", [3, 5000])
def test_distances_are_those_of_scikit_learn(num_rows: int, dtype: type) -> None:
    random = np.random.default_rng(0)
    rows, centres = (random.normal(size=(size, 4)).astype(dtype) for size in (num_rows, 6))
    measured = distances(rows, centres)
    assert measured.dtype == dtype
    # A square loses no more digits than |x|^2 / |x - c|^2 has; the nearest of these rows is at 0.1.
    np.testing.assert_allclose(
        measured, cdist(rows.astype(float), centres.astype(float)), rtol=1e3 * np.finfo(dtype).eps
    )


@pytest.mark.slow
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


@pytest.mark.slow
def test_gaps_are_left_out_of_the_score() -> None:
    random = np.random.default_rng(4)
    rows = random.normal(size=(300, 2)) + 6.0 * random.integers(0, 2, 300)[:, None]
    fitted = KMeans(2, n_init=1, random_state=0).fit(rows)
    rows[::5, 0] = np.nan
    squares = np.nansum((rows[:, None] - fitted.cluster_centers_) ** 2, axis=2).min(1)
    np.testing.assert_allclose(-fitted.score(rows), squares.sum(), rtol=1e-10)
