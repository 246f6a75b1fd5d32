"""GaussianMixture and BayesianGaussianMixture, and scikit-learn's, from the same start."""

import warnings

import numpy as np
import pytest
import sklearn.mixture
from sklearn.exceptions import ConvergenceWarning

from probem.sklearn import BayesianGaussianMixture, GaussianMixture
from tests.sklearn.data import OFFSET, SETS, count_of, residual, rows_of, starting_rows

KINDS = ("full", "tied", "diag", "spherical")
QUICK = {("iris", "full")}
CASES = [
    (name, kind) if (name, kind) in QUICK else pytest.param(name, kind, marks=pytest.mark.slow)
    for kind in KINDS
    for name in SETS
]
TOLERANCE = 1e-8
PARAMETERS = ("weights_", "covariances_")


def centred(name):
    """The rows, those that scikit-learn takes, and where these have their origin.

    scikit-learn subtracts squares of means from means of squares. A million standard deviations from the origin that
    leaves four digits of a variance, so the other side is given such rows moved back, which costs no rounding.
    """
    rows = rows_of(name)
    origin = OFFSET if name == "far away" else np.zeros(rows.shape[1])
    return rows, rows - origin, origin


def responsibilities(name):
    """Every row mostly in the cluster of its nearest starting row."""
    rows, start = rows_of(name), starting_rows(name, 5)
    scale = rows.std(axis=0)
    labels = (((rows[:, None, :] - start[None]) / scale) ** 2).sum(axis=2).argmin(axis=1)
    return 0.8 * np.eye(len(start))[labels] + 0.2 / len(start)


def start_of(name, kind):
    """Weights, means and precisions of soft clusters, their means relative to the origin."""
    rows, q = centred(name)[1], responsibilities(name)
    weights = q.mean(axis=0)
    means = q.T @ rows / q.sum(axis=0)[:, None]
    moved = rows[None] - means[:, None]
    whole = np.einsum("nk,kni,knj->kij", q, moved, moved) / q.sum(axis=0)[:, None, None]
    variances = np.einsum("kii->ki", whole)
    precisions = {
        "full": lambda: np.linalg.inv(whole),
        "tied": lambda: np.linalg.inv(np.einsum("k,kij->ij", weights, whole)),
        "diag": lambda: 1 / variances,
        "spherical": lambda: 1 / variances.mean(axis=1),
    }[kind]()
    return weights, means, precisions


def fitted(estimator, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(rows)


def compare(ours, theirs, rows, their_rows, origin, record_property):
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_ == theirs.converged_
    found = {name: residual(getattr(ours, name), getattr(theirs, name)) for name in PARAMETERS}
    found["means_"] = residual(ours.means_ - origin, theirs.means_)
    record_property("largest residual", float(max(found.values())))
    assert max(found.values()) <= TOLERANCE, found
    # An inverse loses as many digits as the condition of the covariances has, and scikit-learn's diagonal ones those
    # that a mean of squares has over a variance.
    if theirs.covariance_type in ("full", "tied"):
        condition = np.linalg.cond(theirs.covariances_).max()
    else:
        condition = (their_rows**2).mean(axis=0).max() / theirs.covariances_.min()
    record_property("condition of the covariances", float(condition))
    for name in ("precisions_", "precisions_cholesky_"):
        inverse = residual(getattr(ours, name), getattr(theirs, name))
        assert inverse <= TOLERANCE + 64 * np.finfo(float).eps * condition, name
    labels, others = ours.predict(rows), theirs.predict(their_rows)
    different = labels != others
    if different.any():
        two = np.sort(theirs.predict_proba(their_rows)[different], axis=1)[:, -2:]
        assert np.abs(two[:, 1] - two[:, 0]).max() <= TOLERANCE
    record_property("labels at a tie to rounding", int(different.sum()))
    assert labels.dtype == others.dtype


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_em_is_that_of_scikit_learn_from_the_same_start(name, kind, record_property):
    rows, their_rows, origin = centred(name)
    weights, means, precisions = start_of(name, kind)
    settings = {"covariance_type": kind, "weights_init": weights, "precisions_init": precisions}
    count = count_of(name)
    ours = fitted(GaussianMixture(count, means_init=means + origin, **settings), rows)
    theirs = fitted(sklearn.mixture.GaussianMixture(count, means_init=means, **settings), their_rows)
    compare(ours, theirs, rows, their_rows, origin, record_property)
    assert residual(ours.lower_bounds_, theirs.lower_bounds_) <= TOLERANCE
    assert ours.lower_bound_ == ours.lower_bounds_[-1]
    # The bound of the parameters reported is their log likelihood.
    assert ours.elbo_ == pytest.approx(theirs.score(their_rows) * len(rows), rel=TOLERANCE)
    assert ours.bic(rows) == pytest.approx(theirs.bic(their_rows), rel=TOLERANCE)
    assert ours.aic(rows) == pytest.approx(theirs.aic(their_rows), rel=TOLERANCE)
    assert residual(ours.predict_proba(rows), theirs.predict_proba(their_rows)) <= 1e-6
    assert residual(ours.score_samples(rows), theirs.score_samples(their_rows)) <= TOLERANCE


class FromResponsibilities(sklearn.mixture.BayesianGaussianMixture):
    """scikit-learn's, from given responsibilities."""

    def _initialize_parameters(self, X, random_state, xp=None):
        self._initialize(X, self.init_params)


BAYESIAN = [pytest.param(name, marks=pytest.mark.slow) for name in SETS]


@pytest.mark.parametrize("name", BAYESIAN)
def test_variational_bayes_is_that_of_scikit_learn_where_it_is_exact(name, record_property, monkeypatch):
    # Its check would refuse an array as init_params.
    monkeypatch.setitem(sklearn.mixture.BayesianGaussianMixture._parameter_constraints, "init_params", "no_validation")
    rows, their_rows, origin = centred(name)
    settings = {
        "n_components": count_of(name),
        "weight_concentration_prior_type": "dirichlet_distribution",
        "init_params": responsibilities(name),
    }
    # scikit-learn counts reg_covar into its bound, which is no bound then, so the number of iterations is given.
    ours = fitted(BayesianGaussianMixture(tol=0.0, max_iter=30, **settings), rows)
    theirs = fitted(FromResponsibilities(tol=0.0, max_iter=30, **settings), their_rows)
    compare(ours, theirs, rows, their_rows, origin, record_property)
    for attribute in (
        "weight_concentration_",
        "mean_precision_",
        "degrees_of_freedom_",
        "mean_precision_prior_",
        "weight_concentration_prior_",
        "degrees_of_freedom_prior_",
        "covariance_prior_",
    ):
        assert residual(getattr(ours, attribute), getattr(theirs, attribute)) <= TOLERANCE, attribute
    assert residual(ours.mean_prior_ - origin, theirs.mean_prior_) <= TOLERANCE
    # Without it the two stop together; theirs leaves out what is the same in every iteration.
    ours = fitted(BayesianGaussianMixture(reg_covar=0.0, max_iter=200, **settings), rows)
    theirs = fitted(FromResponsibilities(reg_covar=0.0, max_iter=200, **settings), their_rows)
    compare(ours, theirs, rows, their_rows, origin, record_property)
    changes, others = np.diff(ours.lower_bounds_), np.diff(theirs.lower_bounds_)
    assert np.abs(changes - others).max(initial=0.0) <= TOLERANCE * abs(ours.elbo_)
    assert ours.elbo_ >= ours.lower_bound_ - 1e-9 * abs(ours.elbo_)
