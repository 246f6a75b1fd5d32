"""KMeans of sparse rows: beside the array, and beside scikit-learn's KMeans of sparse rows from the same centres."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn.cluster
from sklearn.exceptions import ConvergenceWarning

from probem import InputError
from probem.sklearn import KMeans

COUNT, DIM, K = 240, 50, 5
RANDOM = np.random.default_rng(3)
GROUPS = RANDOM.integers(0, K, COUNT)
PROFILES = RANDOM.random((K, DIM)) < 0.2
ROWS = np.where(RANDOM.random((COUNT, DIM)) < 0.06 + 0.5 * PROFILES[GROUPS], RANDOM.random((COUNT, DIM)), 0.0)
ROWS[11] = 0
WEIGHTS = RANDOM.integers(0, 4, COUNT).astype(float)
START = {"init": ROWS[:K], "n_init": 1}
# Sums of some hundred numbers, and the rounding of a difference of squares.
ROUNDING = {np.float64: 1e-10, np.float32: 2e-5}


def same(first, second, dtype=np.float64):
    np.testing.assert_array_equal(first.labels_, second.labels_)
    assert first.n_iter_ == second.n_iter_
    assert first.inertia_ == pytest.approx(second.inertia_, rel=ROUNDING[dtype])
    np.testing.assert_allclose(first.cluster_centers_, second.cluster_centers_, atol=ROUNDING[dtype])
    assert first.cluster_centers_.dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "weights"),
    [
        pytest.param(np.float64, WEIGHTS, id="float64-weights"),
        pytest.param(np.float64, None, id="float64", marks=pytest.mark.slow),
        pytest.param(np.float32, WEIGHTS, id="float32-weights", marks=pytest.mark.slow),
    ],
)
def test_sparse_rows_are_the_array_and_scikit_learns(dtype, weights):
    x = ROWS.astype(dtype)
    rows = sp.csr_matrix(x)
    sparse, dense, theirs = (
        kind(K, **START).fit(data, sample_weight=weights)
        for kind, data in ((KMeans, rows), (KMeans, x), (sklearn.cluster.KMeans, rows))
    )
    same(sparse, dense, dtype)
    same(sparse, theirs, dtype)
    assert sparse.elbo_ == pytest.approx(dense.elbo_, rel=ROUNDING[dtype])
    for data in (rows, x):
        np.testing.assert_array_equal(sparse.predict(data), sparse.labels_)
        np.testing.assert_allclose(sparse.transform(data), theirs.transform(x), atol=100 * ROUNDING[dtype])
        score = sparse.score(data, sample_weight=weights)
        assert score == pytest.approx(theirs.score(x, sample_weight=weights), rel=ROUNDING[dtype])
    # By differences, in float64.
    squares = ((x.astype(float) - sparse.cluster_centers_.astype(float)[sparse.labels_]) ** 2).sum(1)
    assert sparse.inertia_ == pytest.approx(
        (1 if weights is None else weights) @ squares if weights is not None else squares.sum(),
        rel=1e-12 if dtype is np.float64 else 1e-6,
    )


@pytest.mark.slow
def test_inertia_keeps_its_digits_where_rows_are_near_their_centres():
    """|x|^2 - 2 x'c + |c|^2 would have none left: rows of size 1e4, a thousandth of a unit apart."""
    noise = 1e-3 * RANDOM.standard_normal((60, DIM))
    x = np.repeat(1e4 * (RANDOM.random((2, DIM)) < 0.5), 30, axis=0) + noise
    fit = KMeans(2, init=x[[0, 59]], n_init=1).fit(sp.csr_array(x))
    squares = ((x - fit.cluster_centers_[fit.labels_]) ** 2).sum()
    assert fit.inertia_ == pytest.approx(squares, rel=1e-7)
    assert fit.inertia_ == pytest.approx((noise**2).sum(), rel=0.1)


FORMATS = [sp.csr_array, sp.csc_matrix, sp.coo_array, lambda x: sp.csr_array(x).astype(np.int32), sp.lil_array]


@pytest.mark.slow
@pytest.mark.parametrize("format_of", FORMATS, ids=["csr", "csc", "coo", "whole numbers", "lil"])
def test_other_formats_and_whole_numbers_are_taken(format_of):
    x = np.rint(3 * ROWS)
    sparse, theirs = (kind(K, init=x[:K], n_init=1).fit(format_of(x)) for kind in (KMeans, sklearn.cluster.KMeans))
    # Of whole numbers two centres may be equally near; where they are, scikit-learn's rounding decides.
    assert sparse.inertia_ == pytest.approx(theirs.inertia_, rel=1e-10)
    np.testing.assert_allclose(sparse.cluster_centers_, theirs.cluster_centers_, atol=1e-10)


@pytest.mark.slow
def test_large_indices_stored_zeros_and_duplicates_are_the_same_rows_and_stay():
    rows = sp.csr_array(ROWS)
    twice = sp.csr_array(
        (np.repeat(rows.data / 2, 2), np.repeat(rows.indices, 2).astype(np.int64), 2 * rows.indptr.astype(np.int64)),
        rows.shape,
    )
    twice.data[:2] = 0.0
    plain = ROWS.copy()
    plain[rows.nonzero()[0][0], rows.nonzero()[1][0]] = 0.0
    before = twice.data.copy()
    same(KMeans(K, **START).fit(twice), KMeans(K, **START).fit(plain))
    np.testing.assert_array_equal(twice.data, before)
    assert twice.indices.dtype == np.int64


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"init": "k-means++"},
        pytest.param({"init": "random", "n_init": 3}, marks=pytest.mark.slow),
        pytest.param({"init": "k-means++", "n_init": 3}, marks=pytest.mark.slow),
        pytest.param(
            {"init": lambda x, k, random_state: x[:k].toarray() if sp.issparse(x) else x[:k]}, marks=pytest.mark.slow
        ),
    ],
    ids=["k-means++", "random", "several", "function"],
)
def test_starts_are_those_of_the_array(settings):
    sparse, dense = (KMeans(K, random_state=0, **settings).fit(x) for x in (sp.csr_array(ROWS), ROWS))
    assert sparse.inertia_ == pytest.approx(dense.inertia_, rel=1e-10)


@pytest.mark.slow
def test_known_labels_are_kept():
    known = np.where(RANDOM.random(COUNT) < 0.3, GROUPS, -1)
    sparse, dense = (KMeans(K, partial_labels=True, random_state=0).fit(x, known) for x in (sp.csr_array(ROWS), ROWS))
    np.testing.assert_array_equal(sparse.labels_[known >= 0], known[known >= 0])
    same(sparse, dense)


@pytest.mark.slow
def test_batches_are_those_of_the_array():
    def streamed(*batches):
        estimator = KMeans(K, **START)
        for start, rows in enumerate(batches):
            estimator.partial_fit(rows, sample_weight=None if start else WEIGHTS[: rows.shape[0]])
        return estimator

    parts = np.split(ROWS, [100, 170])
    expected = streamed(*parts)
    same(streamed(*map(sp.csr_array, parts)), expected)
    mixed = streamed(sp.csr_array(parts[0]), parts[1], sp.csr_array(parts[2]))
    same(mixed, expected)
    assert mixed.elbo_ == pytest.approx(expected.elbo_, rel=1e-10)


def test_empty_clusters_are_moved_as_in_scikit_learn():
    far = np.concatenate([ROWS[: K - 2], 50 + np.arange(2.0 * DIM).reshape(2, DIM)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        sparse, theirs = (
            kind(K, init=far, n_init=1).fit(sp.csr_matrix(ROWS)) for kind in (KMeans, sklearn.cluster.KMeans)
        )
    assert len(np.unique(sparse.labels_)) == K
    same(sparse, theirs)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value):
    rows = sp.csr_array(ROWS)
    rows.data[5] = value
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)"):
        KMeans(K).fit(rows)
    with pytest.raises(InputError, match="sparse rows of many data sets"):
        KMeans(K).fit_many([rows, rows])
    with pytest.raises(ValueError, match="X has 3 features"):
        KMeans(K, **START).fit(sp.csr_array(ROWS)).predict(sp.csr_array(ROWS[:, :3]))
