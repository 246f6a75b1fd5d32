"""Every argument that cannot be used is one sentence: got, expected, remedy."""

import functools

import numpy as np
import pytest
import scipy.sparse

from probem import InputError, models
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture
from tests.sklearn.data import clusters

ROWS = clusters(1, 2, 2, 60, 4.0)
PROGRAM = functools.partial(models.gmm, num_components=2)

WRONG = {
    KMeans: {
        "n_clusters": (0, -1, 1.5, "2", None, True),
        "max_iter": (0, 2.5, "many"),
        "tol": (-1.0, float("nan"), "small", None),
        "algorithm": ("lloid", None),
        "n_init": (0, 1.5, "aut"),
        "init": ("kmeans++", None, 3),
    },
    GaussianMixture: {
        "n_components": (0, 1.5, "2"),
        "covariance_type": ("fulll", None, 3),
        "tol": (-1.0, float("inf"), "small"),
        "reg_covar": (-1e-6, None),
        "max_iter": (-1, 2.5),
        "n_init": (0, True),
        "init_params": ("k-mean", "centres"),
    },
    BayesianGaussianMixture: {
        "n_components": (0, 1.5),
        "covariance_type": ("diagonal",),
        "weight_concentration_prior_type": ("dirichlet", None),
        "weight_concentration_prior": (0.0, -1.0, "one"),
        "mean_precision_prior": (0.0, "one"),
        "degrees_of_freedom_prior": (0.0, "one"),
    },
    Mixture: {"n_init": (0,), "max_iter": (0, "many"), "tol": (-1.0, "small"), "program": (None, "gmm")},
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, own in WRONG.items() for name, values in own.items() for value in values],
)
def test_a_wrong_argument_is_one_sentence_with_its_name(kind, name, value):
    estimator = kind(**({"program": PROGRAM} if kind is Mixture else {})).set_params(**{name: value})
    shown = {"tol": "tol|tolerance", "init_params": "init_params|initial"}.get(name, name)
    with pytest.raises(InputError, match=rf"got .*({shown}).*; expected .*; .*\.$") as caught:
        estimator.fit(ROWS)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


SHAPES = {
    "weights_init": ([0.5], r"weights_init.*\(2,\)"),
    "means_init": ([[0.0, 1.0]], r"means_init.*\(2, 2\)"),
    "precisions_init": (np.eye(2), r"precisions_init.*\(2, 2, 2\)"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_start_of_another_shape_is_named(name):
    value, message = SHAPES[name]
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2, **{name: value}).fit(ROWS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights_init": [0.9, 0.9]}, "off the simplex"),
        ({"weights_init": [1.5, -0.5]}, "off the simplex"),
        ({"precisions_init": [-np.eye(2), np.eye(2)]}, "symmetric and positive definite"),
        ({"precisions_init": [1.0, 0.0], "covariance_type": "spherical"}, "positive precisions"),
        ({"means_init": [[np.nan, 0], [0, 0]]}, "NaN"),
        ({"partial_labels": True}, "no y with partial_labels=True"),
        ({"fixed": {"mean": [0, 0]}}, "did you mean 'means'"),
    ],
)
def test_a_start_off_its_range_says_so(settings, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(2, **settings).fit(ROWS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"covariance_prior": -np.eye(2)}, "symmetric, positive-definite"),
        ({"covariance_prior": np.eye(3)}, r"should have the shape of \(2, 2\)"),
        ({"mean_prior": [0.0]}, r"should have the shape of \(2,\)"),
        ({"degrees_of_freedom_prior": 1.0}, "greater than 1"),
    ],
)
def test_a_prior_that_is_none_says_so(settings, message):
    with pytest.raises(ValueError, match=message):
        BayesianGaussianMixture(n_components=2, **settings).fit(ROWS)


@pytest.mark.parametrize("estimator", [GaussianMixture(2), BayesianGaussianMixture(n_components=2)])
def test_sparse_rows_that_cannot_be_used_are_one_sentence(estimator):
    with pytest.raises(TypeError, match="Sparse data was passed"):
        estimator.fit(scipy.sparse.csr_matrix(ROWS))


@pytest.mark.parametrize("estimator", [KMeans(2), GaussianMixture(2), BayesianGaussianMixture(n_components=2)])
def test_rows_that_cannot_be_used_are_one_sentence(estimator):
    for rows, message in (
        (ROWS[:1], "n_samples|minimum of 2"),
        (ROWS[:, 0], "Expected 2D array"),
        (np.where(ROWS > 0, np.inf, ROWS), "infinity"),
        (ROWS * 1e200, "scale the rows"),
        (np.where([True, False], np.nan, ROWS), "no value at all in column 0"),
        (np.empty((0, 2)), "0 sample"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            estimator.fit(rows)
    for weights, message in (
        (np.ones(3), "sample_weight"),
        (-np.ones(len(ROWS)), "[Nn]egative"),
        (np.zeros(len(ROWS)), "weight"),
        (np.full(len(ROWS), np.nan), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            estimator.fit(ROWS, sample_weight=weights)


def test_k_means_refuses_centres_of_another_shape():
    for init in (ROWS[:3], ROWS[:2, :1], lambda rows, count, random_state: rows[:1]):
        with pytest.raises(ValueError, match="The shape of the initial centers"):
            KMeans(2, init=init, n_init=1).fit(ROWS)
    with pytest.raises(ValueError, match="should be >= n_clusters=61"):
        KMeans(61).fit(ROWS)
