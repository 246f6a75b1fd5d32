"""Rows with weights, known components and gaps, fixed values, starts that are given, and batches."""

import functools
import math
import pickle

import numpy as np
import pytest
import scipy.stats
import sklearn.mixture
from sklearn.base import clone

import probem
from probem import models
from probem.experiments.oracles.evidence import NormalWishart
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture
from tests.sklearn.data import clusters

ROWS = clusters(1, 2, 2, 200, 2.0)
SOME = np.random.default_rng(0)
PROGRAM = functools.partial(models.gmm, num_components=2)
START = np.column_stack([ROWS[:, 0] > ROWS[:, 0].mean(), ROWS[:, 0] <= ROWS[:, 0].mean()]) * 0.8 + 0.1
# From the same seeds, so that weighted rows and repeated ones start alike.
ESTIMATORS = {
    "k-means": KMeans(2, init=ROWS[:2], n_init=1, tol=0.0),
    "EM": GaussianMixture(2, random_state=0, max_iter=300),
    "variational Bayes": BayesianGaussianMixture(n_components=2, random_state=0, max_iter=500),
    "program": Mixture(PROGRAM, random_state=0),
}
ALL = pytest.mark.parametrize(
    "name", [name if name == "k-means" else pytest.param(name, marks=pytest.mark.slow) for name in ESTIMATORS]
)
# Sums over the same rows in another order.
ROUNDING = 1e-10


def close(ours, theirs, leave=()):
    compared = 0
    for name, value in vars(theirs).items():
        if not name.endswith("_") or name in ("labels_", "elbos_", "lower_bounds_", *leave):
            continue
        if isinstance(value, dict):
            pairs = [(getattr(ours, name)[key], value[key]) for key in value]
        else:
            pairs = [(getattr(ours, name), value)]
        for a, b in pairs:
            if isinstance(b, np.ndarray | float | np.floating | tuple):
                np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=ROUNDING, atol=ROUNDING, err_msg=name)
                compared += 1
    assert compared >= 3


@pytest.mark.slow
@ALL
def test_a_row_of_weight_two_is_two_rows_and_one_of_weight_zero_is_none(name):
    weights = SOME.integers(0, 4, len(ROWS))
    weights[:2] = 1
    estimator = ESTIMATORS[name]
    weighted = clone(estimator).fit(ROWS, sample_weight=weights)
    repeated = clone(estimator).fit(np.repeat(ROWS, weights, axis=0))
    close(weighted, repeated)
    order = SOME.permutation(len(ROWS))
    close(clone(estimator).fit(ROWS[order], sample_weight=weights[order]), weighted)


@ALL
def test_known_components_are_kept(name):
    estimator = clone(ESTIMATORS[name]).set_params(partial_labels=True)
    y = np.full(len(ROWS), -1)
    # The wrong way round for a start from seeds: component 0 is to be that of the last row.
    y[:3], y[-3:] = 1, 0
    if name == "k-means":
        estimator.set_params(init="k-means++", random_state=0)
    found = estimator.fit(ROWS, y)
    labels = found.predict(ROWS)
    means = found.cluster_centers_ if name == "k-means" else getattr(found, "means_", None)
    if means is None:
        means = found.params_["loc"]
    # Known rows draw their component to them.
    assert np.linalg.norm(means[1] - ROWS[:3].mean(0)) < np.linalg.norm(means[0] - ROWS[:3].mean(0))
    assert set(np.unique(labels)) == {0, 1}
    # All known: the means of the rows of each.
    every = np.repeat([0, 1], 100)
    whole = clone(estimator).fit(ROWS, every)
    if name == "k-means":
        np.testing.assert_allclose(whole.cluster_centers_, [ROWS[:100].mean(0), ROWS[100:].mean(0)], rtol=1e-12)
    elif name != "variational Bayes":
        means = whole.means_ if name == "EM" else whole.params_["loc"]
        np.testing.assert_allclose(means, [ROWS[:100].mean(0), ROWS[100:].mean(0)], rtol=1e-12)
    for wrong, message in (
        (None, "no y with partial_labels=True"),
        (np.array(["a"] * len(ROWS)), "labels of type <U1"),
        (np.full(len(ROWS), 2), "the label 2"),
        (every[:5], "labels of shape"),
    ):
        with pytest.raises(ValueError, match=message):
            clone(estimator).fit(ROWS, wrong)


@pytest.mark.slow
def test_fixed_values_stay_and_the_rest_is_fitted():
    means = [[0.0, 1.0], [np.nan, np.nan]]
    found = GaussianMixture(2, fixed={"means": means, "weights": [0.25, np.nan]}, random_state=0, max_iter=500).fit(
        ROWS
    )
    np.testing.assert_array_equal(found.means_[0], means[0])
    np.testing.assert_allclose(found.weights_, [0.25, 0.75], rtol=1e-15)
    q = found.predict_proba(ROWS)
    # The free mean is stationary, to tol.
    np.testing.assert_allclose(found.means_[1], q[:, 1] @ ROWS / q[:, 1].sum(), rtol=0.05)
    for fixed, message in (
        ({"mean": means}, "did you mean 'means'"),
        ({"means": [0.0]}, "'means'"),
        ([1.0], "values by name"),
        ({"weights": [0.9, 0.9]}, "weights"),
        ({"covariances": "x"}, "covariances"),
    ):
        with pytest.raises(ValueError, match=message):
            GaussianMixture(2, fixed=fixed).fit(ROWS)


@pytest.mark.slow
def test_a_start_is_responsibilities_or_a_function():
    given = GaussianMixture(2, init_params=START, n_init=3).fit(ROWS)
    close(GaussianMixture(2, init_params=lambda key, rows: START).fit(ROWS), given)
    q = given.predict_proba(ROWS)
    assert q.shape == START.shape
    for wrong in (START[:5], START * 2, "kmean", 3):
        with pytest.raises(ValueError, match=r"initial responsibilities|did you mean 'kmeans'|init_params"):
            GaussianMixture(2, init_params=wrong).fit(ROWS)


# --- missing values ---

GAPS = np.where(np.random.default_rng(4).random(ROWS.shape) < 0.2, np.nan, ROWS)
GAPS[np.isnan(GAPS).all(axis=1), 0] = 0.5


def log_densities(estimator, rows):
    """log w_k + log N(x_o | mean_o, covariance_oo), row by row."""
    table = np.zeros((len(rows), 2))
    for n, row in enumerate(rows):
        there = ~np.isnan(row)
        for k in range(2):
            mean, covariance = estimator.means_[k][there], estimator.covariances_[k][np.ix_(there, there)]
            table[n, k] = np.log(estimator.weights_[k]) + scipy.stats.multivariate_normal.logpdf(
                row[there], mean, covariance
            )
    return table


def imputed(estimator, rows):
    """sum_k q_k E[x_m | x_o, k], row by row."""
    table = log_densities(estimator, rows)
    q = np.exp(table - np.logaddexp.reduce(table, axis=1)[:, None])
    found = rows.copy()
    for n, row in enumerate(rows):
        there = ~np.isnan(row)
        gone = ~there
        if gone.any():
            found[n, gone] = sum(
                q[n, k]
                * (
                    estimator.means_[k][gone]
                    + estimator.covariances_[k][np.ix_(gone, there)]
                    @ np.linalg.solve(
                        estimator.covariances_[k][np.ix_(there, there)], row[there] - estimator.means_[k][there]
                    )
                )
                for k in range(2)
            )
    return found


@pytest.mark.slow
def test_missing_values_are_summed_out():
    found = GaussianMixture(2, random_state=0, max_iter=500, reg_covar=0.0).fit(GAPS)
    assert found.__sklearn_tags__().input_tags.allow_nan
    table = log_densities(found, GAPS)
    total = np.logaddexp.reduce(table, axis=1)
    np.testing.assert_allclose(found.score_samples(GAPS), total, rtol=1e-10)
    np.testing.assert_allclose(found.predict_proba(GAPS), np.exp(table - total[:, None]), atol=1e-10)
    np.testing.assert_allclose(found.impute(GAPS), imputed(found, GAPS), rtol=1e-9)
    np.testing.assert_array_equal(found.impute(ROWS), ROWS)
    assert found.elbo_ == pytest.approx(total.sum(), rel=1e-10)
    bounds = np.array(found.lower_bounds_)
    assert (np.diff(bounds) >= -1e-12 * np.abs(bounds[1:])).all()
    # A model fitted without gaps answers about rows with them.
    whole = GaussianMixture(2, random_state=0).fit(ROWS)
    np.testing.assert_allclose(whole.impute(GAPS), imputed(whole, GAPS), rtol=1e-9)


def test_k_means_leaves_missing_values_out():
    found = KMeans(2, init=ROWS[:2], n_init=1).fit(GAPS)
    squares = np.nansum((GAPS[:, None] - found.cluster_centers_[None]) ** 2, axis=2)
    np.testing.assert_array_equal(found.labels_, squares.argmin(axis=1))
    np.testing.assert_array_equal(found.predict(GAPS), found.labels_)
    for k in range(2):
        np.testing.assert_allclose(found.cluster_centers_[k], np.nanmean(GAPS[found.labels_ == k], axis=0), rtol=1e-12)
    assert found.inertia_ == pytest.approx(squares.min(axis=1).sum(), rel=1e-12)
    np.testing.assert_allclose(found.transform(GAPS), np.sqrt(squares), rtol=1e-12)
    observed = (~np.isnan(GAPS)).sum()
    expected = -found.inertia_ / 2 - 200 * math.log(2) - 0.5 * observed * math.log(2 * math.pi)
    assert found.elbo_ == pytest.approx(expected, rel=1e-12)
    empty = GAPS.copy()
    empty[:, 1] = np.nan
    for estimator in (found, GaussianMixture(2), BayesianGaussianMixture(n_components=2)):
        with pytest.raises(ValueError, match=r"no value in column 1|column"):
            clone(estimator).fit(empty)


# --- batches ---


@ALL
def test_partial_fit_is_absorb(name):
    batches = np.array_split(np.random.default_rng(2).permutation(ROWS), 4)
    if name == "variational Bayes":
        estimator = clone(ESTIMATORS[name]).fit(ROWS)
    else:
        estimator = clone(ESTIMATORS[name]).partial_fit(batches[0])
        close(estimator, clone(ESTIMATORS[name]).fit(batches[0]))
    fit = estimator._fit
    for batch in batches[1:]:
        own = batch / estimator._unit if name == "k-means" else batch
        if name == "variational Bayes":
            own = estimator._frame_of_fit().apply(batch)
        fit = probem.absorb(fit, own)
        estimator = pickle.loads(pickle.dumps(estimator)).partial_fit(batch)
        for site, value in fit.params.items():
            np.testing.assert_allclose(estimator._fit.params[site], value, rtol=1e-12)
    assert np.isfinite(estimator.elbo_)
    with pytest.raises(ValueError, match=r"decay=0\.1"):
        estimator.set_params(decay=0.1).partial_fit(batches[0])


def test_one_pass_of_k_means_at_decay_one_is_its_running_mean():
    estimator = KMeans(2, init=ROWS[:2], n_init=1, decay=1.0).partial_fit(ROWS[:100])
    sums = np.array([ROWS[:100][estimator.labels_ == k].sum(0) for k in range(2)])
    counts = np.bincount(estimator.labels_, minlength=2)
    for batch in (ROWS[100:150], ROWS[150:]):
        labels = estimator.predict(batch)
        sums += [batch[labels == k].sum(0) for k in range(2)]
        counts += np.bincount(labels, minlength=2)
        estimator.partial_fit(batch)
        np.testing.assert_allclose(estimator.cluster_centers_, sums / counts[:, None], rtol=1e-12)


# --- the bound ---


@pytest.mark.slow
def test_the_bound_of_one_bayesian_gaussian_is_its_evidence():
    found = BayesianGaussianMixture(weight_concentration_prior_type="dirichlet_distribution", reg_covar=0.0).fit(ROWS)
    prior = NormalWishart(ROWS.mean(0), 1.0, 2.0, np.cov(ROWS.T))
    assert found.elbo_ == pytest.approx(prior.log_marginal(ROWS), rel=1e-10)


@pytest.mark.slow
def test_the_bound_of_em_is_the_log_likelihood():
    found = GaussianMixture(2, random_state=0).fit(ROWS)
    theirs = sklearn.mixture.GaussianMixture(2)
    theirs.weights_, theirs.means_, theirs.covariances_ = found.weights_, found.means_, found.covariances_
    theirs.precisions_cholesky_ = found.precisions_cholesky_
    assert found.elbo_ == pytest.approx(theirs.score(ROWS) * len(ROWS), rel=1e-12)
    assert found.bic(ROWS) == pytest.approx(theirs.bic(ROWS), rel=1e-12)
    assert found.aic(ROWS) == pytest.approx(theirs.aic(ROWS), rel=1e-12)


@pytest.mark.slow
def test_what_is_fixed_is_no_parameter_of_bic():
    """Two weights of three are fixed, and so is the third; two values of a mean; one covariance of three."""
    nan = np.nan
    fixed = {
        "weights": [0.2, 0.3, nan],
        "means": [[1.0, 2.0], [nan, nan], [nan, nan]],
        "covariances": np.stack([np.eye(2), np.full((2, 2), nan), np.full((2, 2), nan)]),
    }
    fitted = GaussianMixture(3, fixed=fixed, random_state=0, max_iter=500).fit(ROWS)
    log_likelihood, count = fitted.score_samples(ROWS).sum(), 0 + 4 + 6
    np.testing.assert_allclose(fitted.bic(ROWS), -2 * log_likelihood + count * math.log(len(ROWS)), rtol=1e-12)
    np.testing.assert_allclose(fitted.aic(ROWS), -2 * log_likelihood + 2 * count, rtol=1e-12)
