"""Attributes that were set by hand, on an estimator that was never fitted or after a fit: answers are theirs."""

import copy
import pickle

import numpy as np
import pytest
import scipy.stats
import sklearn.mixture
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(30, 2)) + RNG.choice([0.0, 3.0], size=(30, 1))
WEIGHTS = np.array([0.6, 0.4])
MEANS = np.array([[0.0, 0.0], [3.0, 3.0]])
COVARIANCES = {
    "full": np.array([[[1.0, 0.2], [0.2, 1.0]], [[2.0, 0.5], [0.5, 1.0]]]),
    "tied": np.array([[2.0, 0.5], [0.5, 1.0]]),
    "diag": np.array([[1.0, 2.0], [0.5, 1.0]]),
    "spherical": np.array([1.0, 2.0]),
}
ATTRIBUTES = {"weights_": WEIGHTS, "means_": MEANS, "covariances_": COVARIANCES["full"]}


def factors(kind):
    """``precisions_cholesky_``, P with P P' = the precision."""
    own = COVARIANCES[kind]
    if kind in ("diag", "spherical"):
        return 1 / np.sqrt(own)
    return np.swapaxes(np.linalg.inv(np.linalg.cholesky(own)), -1, -2)


def matrices(kind):
    own = COVARIANCES[kind]
    return {
        "full": lambda: own,
        "tied": lambda: np.stack([own, own]),
        "diag": lambda: np.stack([np.diag(row) for row in own]),
        "spherical": lambda: own[:, None, None] * np.eye(2),
    }[kind]()


def joint(rows, kind, means=MEANS):
    """log p(x, t = k), ``[N, K]``, by SciPy."""
    parts = zip(WEIGHTS, means, matrices(kind), strict=True)
    return np.stack([np.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(rows) for w, m, c in parts], -1)


def made(cls=GaussianMixture, **attributes):
    """An estimator of two components that was never fitted; an attribute that is None is not there."""
    estimator = cls(n_components=2, random_state=0)
    for name, value in (ATTRIBUTES | attributes).items():
        if value is not None:
            setattr(estimator, name, value)
    return estimator


def agrees(estimator, kind, means=MEANS):
    table = joint(ROWS, kind, means)
    density = logsumexp(table, axis=1)
    # Rounding alone: a table of numbers of size ten.
    np.testing.assert_allclose(estimator.score_samples(ROWS), density, rtol=1e-10)
    np.testing.assert_allclose(estimator.predict_proba(ROWS), np.exp(table - density[:, None]), atol=1e-10)
    np.testing.assert_array_equal(estimator.predict(ROWS), table.argmax(1))


@pytest.mark.slow
def test_a_mixture_made_by_hand_answers():
    """Whatever determines it, and in copies; lists are arrays."""
    given = {name: value.tolist() for name, value in ATTRIBUTES.items()}
    ours = made(**given)
    agrees(ours, "full")
    agrees(pickle.loads(pickle.dumps(copy.deepcopy(ours))), "full")
    agrees(made(covariances_=None, precisions_cholesky_=factors("full")), "full")
    agrees(made(precisions_=np.linalg.inv(COVARIANCES["full"]), covariances_=None), "full")
    with pytest.raises(NotFittedError, match="not fitted yet"):
        clone(ours).predict(ROWS)
    theirs = sklearn.mixture.GaussianMixture(2)
    for name, value in (ATTRIBUTES | {"precisions_cholesky_": factors("full")}).items():
        setattr(theirs, name, value)
    np.testing.assert_allclose(ours.bic(ROWS), theirs.bic(ROWS), rtol=1e-12)
    np.testing.assert_allclose(ours.aic(ROWS), theirs.aic(ROWS), rtol=1e-12)
    rows, labels = ours.sample(1000)
    # Four standard errors of a mean of some 400 rows.
    np.testing.assert_allclose(rows[labels == 1].mean(0), MEANS[1], atol=0.3)
    rows, labels = ours.sample(3)
    assert rows.shape == (3, 2)
    assert labels.shape == (3,)


@pytest.mark.slow
def test_a_fit_that_was_changed_answers_as_changed():
    """A batch does not join it: the sums over the rows before it are those of the parameters before."""
    fitted = GaussianMixture(2, means_init=MEANS, max_iter=5, tol=1e9).fit(ROWS)
    for name, value in (ATTRIBUTES | {"precisions_cholesky_": factors("full")}).items():
        setattr(fitted, name, value)
    with pytest.raises(ValueError, match="precisions_ and covariances_ that contradict each other"):
        fitted.predict(ROWS)
    del fitted.precisions_
    agrees(fitted, "full")
    fitted.means_[0] += 1.0  # in place
    agrees(fitted, "full", fitted.means_)
    with pytest.raises(ValueError, match=r"attributes were changed since; .* set them back, or begin with a clone"):
        fitted.partial_fit(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tied", "diag", "spherical"])
def test_every_covariance_made_by_hand(kind):
    own = {"covariances_": COVARIANCES[kind], "precisions_cholesky_": factors(kind)}
    agrees(made(**own).set_params(covariance_type=kind), kind)
    agrees(made(**own | {"covariances_": None}).set_params(covariance_type=kind), kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "spherical"])
def test_a_bayesian_mixture_made_by_hand(kind):
    """Points alone are a Gaussian mixture; with a posterior, what scikit-learn expects of it."""
    agrees(made(BayesianGaussianMixture, covariances_=COVARIANCES[kind]).set_params(covariance_type=kind), kind)
    theirs = sklearn.mixture.BayesianGaussianMixture(
        n_components=2,
        covariance_type=kind,
        weight_concentration_prior_type="dirichlet_distribution",
        random_state=0,
        tol=1e9,
    ).fit(ROWS)
    ours = BayesianGaussianMixture(n_components=2, covariance_type=kind)
    names = ("means_", "precisions_cholesky_", "weight_concentration_", "mean_precision_", "degrees_of_freedom_")
    for name in names:
        setattr(ours, name, getattr(theirs, name))
    if kind == "spherical":
        # Ours count D numbers for each row.
        ours.degrees_of_freedom_ = 2 * theirs.degrees_of_freedom_
        assert (ours.predict(ROWS) == theirs.predict(ROWS)).mean() > 0.9
    else:
        np.testing.assert_allclose(ours.predict_proba(ROWS), theirs.predict_proba(ROWS), atol=1e-10)
        ours.weights_ = theirs.weights_[::-1]
        with pytest.raises(ValueError, match="weights_ and weight_concentration_ that contradict each other"):
            ours.predict(ROWS)
    del ours.mean_precision_
    with pytest.raises(NotFittedError, match="no mean_precision_"):
        ours.predict(ROWS)


def test_centres_set_by_hand_at_any_scale():
    ours = KMeans(5)
    for scale in (1.0, 1e-100, 1e13):
        ours.cluster_centers_ = (MEANS * scale).tolist()
        squares = ((ROWS[:, None] - MEANS) ** 2).sum(-1)
        np.testing.assert_array_equal(ours.predict(scale * ROWS), squares.argmin(1))
        np.testing.assert_allclose(ours.score(scale * ROWS) / scale / scale, -squares.min(1).sum(), rtol=1e-10)
    # scikit-learn's distances lose half of the digits.
    np.testing.assert_allclose(ours.transform(scale * ROWS), scale * np.sqrt(squares), rtol=1e-6)
    assert ours.get_feature_names_out().tolist() == ["kmeans0", "kmeans1"]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"means_": None}, "no means_"),
        ({"covariances_": None}, "no covariances_; .* precisions_cholesky_"),
        ({"weights_": [0.3, 0.3, 0.4]}, r"weights_ of shape \(3,\); expected the shape \(2,\)"),
        ({"weights_": [0.3, 0.3]}, "weights_ with the sum 0.6"),
        ({"means_": [0.0, 1.0]}, r"means_ of shape \(2,\)"),
        ({"means_": [[0.0, 1.0], [1.0]]}, "means_ of type list that is no array of numbers"),
        ({"means_": [[0.0, np.nan], [1.0, 1.0]]}, "means_ with a value that is not finite"),
        ({"covariances_": np.ones((2, 3))}, r"covariances_ of shape \(2, 3\); expected shape \(2, 2, 2\) for full"),
        ({"covariances_": np.stack([np.eye(2), -np.eye(2)])}, "covariances_ of component 1 that is no covariance"),
        ({"covariances_": np.stack([np.eye(2), [[1.0, 0.5], [0.0, 1.0]]])}, "of component 1 that is no covariance"),
        ({"precisions_": 2 * ATTRIBUTES["covariances_"]}, "precisions_ and covariances_ that contradict each other"),
        ({"covariances_": None, "precisions_cholesky_": np.zeros((2, 2, 2))}, "precisions_cholesky_ of component 0"),
        ({"means_": MEANS[:, :1], "covariances_": np.ones((2, 1, 1))}, "X has 2 features, but GaussianMixture"),
    ],
)
def test_attributes_that_do_not_belong_together(attributes, message):
    with pytest.raises(ValueError, match=message):
        made(**attributes).predict(ROWS)


def test_centres_that_are_none():
    ours = KMeans(2)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        ours.predict(ROWS)
    for centres, message in (
        ([0.0, 1.0], r"cluster_centers_ of shape \(2,\)"),
        (np.zeros((2, 3)), "X has 2 features, but KMeans is expecting 3"),
    ):
        ours.cluster_centers_ = centres
        with pytest.raises(ValueError, match=message):
            ours.predict(ROWS)
