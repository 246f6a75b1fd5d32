"""KMeans and scikit-learn's KMeans from the same centres."""

import warnings

import numpy as np
import pytest
import sklearn.cluster
from sklearn.exceptions import ConvergenceWarning

from probem.sklearn import KMeans
from tests.sklearn.data import SETS, count_of, residual, rows_of, starting_rows

QUICK = ("iris",)
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SETS if name != "grid"]
# Means of a few hundred rows, and a factor for the iterations.
ROUNDING = 1e-12


def both(rows, start, weights=None, **settings):
    found = []
    for kind in (KMeans, sklearn.cluster.KMeans):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(kind(len(start), init=start, n_init=1, **settings).fit(rows, sample_weight=weights))
    return found


def ties(rows, centres, labels, others):
    """How many labels differ where two centres are equally near, to the rounding of scikit-learn's distances."""
    different = np.flatnonzero(labels != others)
    centred = rows - rows.mean(axis=0)
    size = (centred**2).sum(axis=1).max() + ((centres - rows.mean(axis=0)) ** 2).sum(axis=1).max()
    squares = ((rows[:, None, :] - centres[None]) ** 2).sum(axis=2)
    gaps = np.abs(squares[different, labels[different]] - squares[different, others[different]])
    assert (gaps <= 64 * np.finfo(float).eps * size).all()
    return len(different)


def compare(rows, ours, theirs, record_property):
    assert ours.n_iter_ == theirs.n_iter_
    assert residual(ours.cluster_centers_, theirs.cluster_centers_) <= ROUNDING
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-10)
    count = ties(rows, theirs.cluster_centers_, ours.labels_, theirs.labels_)
    record_property("labels at a tie to rounding", int(count))
    assert count == 0
    assert ours.labels_.dtype == theirs.labels_.dtype
    np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
    assert residual(ours.transform(rows), theirs.transform(rows)) <= 1e-10
    assert ours.score(rows) == pytest.approx(theirs.score(rows), rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_k_means_is_that_of_scikit_learn_from_the_same_centres(name, record_property):
    rows = rows_of(name)
    generator = np.random.default_rng(0)
    weights = generator.exponential(size=len(rows))
    weights[generator.permutation(len(rows))[:20]] = 0.0
    for seed, settings in enumerate(({"tol": 0.0}, {"tol": 0.0}, {}, {}, {"tol": 0.05}, {"max_iter": 2})):
        start = starting_rows(name, seed)
        compare(rows, *both(rows, start, weights if seed % 2 else None, **settings), record_property)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("far", [1, 2])
def test_an_empty_cluster_gets_the_farthest_row_as_in_scikit_learn(name, far, record_property):
    rows, count = rows_of(name), count_of(name)
    spread = np.abs(rows - rows.mean(axis=0)).max(axis=0)
    start = starting_rows(name, 0)
    # Centres that no row is near: of one cluster, or of two.
    far = min(far, count - 1)
    start[:far] = rows.mean(axis=0) + 20 * spread * (1 + np.arange(far)[:, None])
    first = ((rows[:, None, :] - start[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert len(np.unique(first)) == count - far
    generator = np.random.default_rng(1)
    for weights in (None, generator.exponential(size=len(rows))):
        ours, theirs = both(rows, start, weights)
        assert len(np.unique(ours.labels_)) == count
        compare(rows, ours, theirs, record_property)


def test_on_a_grid_labels_differ_from_those_of_scikit_learn_at_ties_alone(record_property):
    rows = rows_of("grid")
    centres, differ, tied = starting_rows("grid", 3), 0, 0
    for _ in range(12):
        # One iteration at a time, since after a tie the two go on from different clusters.
        ours, theirs = both(rows, centres, max_iter=1, tol=0.0)
        squares = np.sort(((rows[:, None, :] - centres[None]) ** 2).sum(axis=2), axis=1)
        at_tie = int((squares[:, 1] - squares[:, 0] <= 1e-12).sum())
        tied += at_tie
        if residual(ours.cluster_centers_, theirs.cluster_centers_) <= ROUNDING:
            differ += ties(rows, theirs.cluster_centers_, ours.labels_, theirs.labels_)
        else:
            assert at_tie
            differ += 1
        if np.array_equal(centres, theirs.cluster_centers_):
            break
        centres = theirs.cluster_centers_
    record_property("rows at a tie to rounding", int(tied))
    record_property("labels or iterations that differ there", int(differ))
    # Otherwise this says nothing of ties.
    assert tied > 0


@pytest.mark.slow
def test_a_score_that_is_too_large_is_minus_infinity() -> None:
    estimator = KMeans(2, random_state=0, n_init=1).fit(np.arange(8.0)[:, None])
    estimator.cluster_centers_ = np.array([[0.0], [1e160]]) + 1e160
    assert estimator.score(np.arange(8.0)[:, None]) == -np.inf
