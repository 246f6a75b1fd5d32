"""``fit_many``: the estimators of many data sets are those fitted one by one."""

import functools
import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import probem
from probem import models
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture
from tests.sklearn.data import clusters

SETS = (
    np.stack([clusters(seed, 2, 2, 60, 2.0) for seed in range(5)]) * np.array([1.0, 3.0, 0.1, 10.0, 2.0])[:, None, None]
)
WEIGHTS = np.random.default_rng(1).integers(0, 3, SETS.shape[:2]).astype(float)
GAPS = np.where(np.arange(SETS.size).reshape(SETS.shape) % 11 == 0, np.nan, SETS)
PARTLY = np.where(np.arange(60) < 6, np.arange(60) % 2, -1) * np.ones((5, 1), int)
PROGRAM = functools.partial(models.gmm, num_components=2, covariance=models.diagonal)
CASES = {
    "k-means": (KMeans(2, random_state=0), SETS, {}),
    "k-means, ten random starts": (KMeans(3, init="random", n_init=10, random_state=0), SETS, {}),
    "k-means, weights": (KMeans(2, random_state=0), SETS, {"sample_weight": WEIGHTS}),
    "k-means, function": (KMeans(2, init=lambda X, k, random_state: X[:k], n_init=1), SETS, {}),
    "EM": (GaussianMixture(2, random_state=0), SETS, {}),
    "EM, weights": (GaussianMixture(2, random_state=3, covariance_type="diag"), SETS, {"sample_weight": WEIGHTS}),
    "EM, three starts": (GaussianMixture(2, random_state=0, n_init=3), SETS, {}),
    "EM, gaps": (GaussianMixture(2, random_state=0), GAPS, {}),
    "EM, some known": (GaussianMixture(2, random_state=0, partial_labels=True), SETS, {"y": PARTLY}),
    "EM, some of the start": (GaussianMixture(2, random_state=0, weights_init=[0.3, 0.7]), SETS, {}),
    "EM, random": (GaussianMixture(2, random_state=0, init_params="random_from_data"), SETS, {}),
    "EM, one iteration": (GaussianMixture(2, random_state=0, max_iter=1), SETS, {}),
    "variational Bayes, seeds": (
        BayesianGaussianMixture(n_components=2, random_state=0, init_params="k-means++", covariance_type="diag"),
        SETS,
        {"sample_weight": WEIGHTS},
    ),
    "variational Bayes, gaps": (BayesianGaussianMixture(n_components=2, random_state=0), GAPS[:2], {}),
    "program": (Mixture(PROGRAM, random_state=0), SETS, {}),
    "program, three starts": (Mixture(PROGRAM, random_state=0, n_init=3), SETS, {}),
}


def numbers(estimator):
    """Every number that a fit leaves."""
    found = {}
    for name, value in vars(estimator).items():
        if name.endswith("_") and not name.startswith("_"):
            pairs = value.items() if isinstance(value, dict) else [("", value)]
            found |= {
                f"{name}{key}": own
                for key, own in pairs
                if isinstance(own, np.ndarray | np.number | float | int | tuple | list)
            }
    return found


def centres(estimator):
    if isinstance(estimator, KMeans):
        return estimator.cluster_centers_
    return estimator.params_["loc"] if isinstance(estimator, Mixture) else estimator.means_


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name == "k-means" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_every_estimator_is_that_of_its_own_fit(name):
    estimator, sets, options = CASES[name]
    before = dict(vars(estimator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        many = estimator.fit_many(sets, **options)
        alone = [
            clone(estimator).fit(own, **{key: value[number] for key, value in options.items()})
            for number, own in enumerate(sets)
        ]
    assert vars(estimator) == before
    assert len(many) == len(sets)
    for ours, theirs, rows in zip(many, alone, sets, strict=True):
        expected = numbers(theirs)
        if "starts" in name and not np.allclose(centres(ours), centres(theirs)):
            # The best of several is reached from several, and rounding says from which.
            order = [int(np.abs(centres(ours) - own).sum(1).argmin()) for own in centres(theirs)]
            np.testing.assert_allclose(centres(ours)[order], centres(theirs), rtol=1e-6)
            np.testing.assert_allclose(ours.elbo_, theirs.elbo_, rtol=1e-9)
            continue
        assert numbers(ours).keys() == expected.keys()
        assert len(expected) >= 4
        for key, value in numbers(ours).items():
            # Sums in chunks of another size, over up to a hundred iterations.
            size = np.asarray(expected[key], float)
            size = np.abs(size[np.isfinite(size)]).max(initial=1e-300)
            np.testing.assert_allclose(value, expected[key], rtol=1e-7, atol=1e-8 * size, err_msg=key)
        np.testing.assert_array_equal(ours.predict(rows), theirs.predict(rows))
        assert type(ours) is type(theirs)


@pytest.mark.slow
def test_they_are_estimators_like_any_other():
    many = GaussianMixture(2, random_state=0).fit_many(SETS)
    again = pickle.loads(pickle.dumps(many[1]))
    np.testing.assert_allclose(again.score_samples(SETS[1]), many[1].score_samples(SETS[1]), rtol=1e-14)
    assert again.partial_fit(SETS[1][:20]).means_.shape == (2, 2)
    # Their bounds, one after every iteration, rise to where they stopped.
    for one in many:
        assert len(one.lower_bounds_) == one.n_iter_
        assert (np.diff(one.lower_bounds_) > -1e-6).all()


@pytest.mark.slow
def test_one_without_an_answer_loses_no_other():
    """Of data set 3 all rows but one are the same, and nothing is added to the spread."""
    sets = SETS.copy()
    sets[3, 1:] = 7.0
    estimator = GaussianMixture(2, random_state=0, reg_covar=0.0)
    with pytest.raises(
        probem.FitError, match=r"GaussianMixture: 1 of 5 data sets have no answer: the spread .* in data set 3; raise"
    ) as caught:
        estimator.fit_many(sets)
    assert [one is None for one in caught.value.fit] == [False, False, False, True, False]
    theirs = clone(estimator).fit(sets[4])
    np.testing.assert_allclose(caught.value.fit[4].means_, theirs.means_, rtol=1e-8)


@pytest.mark.slow
def test_those_that_did_not_converge_are_named_in_one_warning():
    with pytest.warns(
        ConvergenceWarning, match=r"step limit .* in 5 data sets \(0, 1, 2, 3, 4\); raise max_iter"
    ) as seen:
        GaussianMixture(2, random_state=0, max_iter=1, tol=0.0).fit_many(SETS)
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"X": 3}, r"X of type int; expected one entry for each data set: X \[B, N, D\]"),
        ({"X": []}, "no data sets; expected at least one"),
        ({"X": SETS, "sample_weight": WEIGHTS[:2]}, "sample_weight of length 2; expected one entry for each data set"),
        ({"X": SETS[0]}, "data set 0: Expected 2D array, got 1D array"),
        ({"X": [SETS[0], SETS[1][:9]]}, r"of \(60, 2\) float64 and, number 1, of \(9, 2\) float64; expected one shape"),
        ({"X": [SETS[0], SETS[1].astype("float32")]}, "number 1, of .* float32; expected one shape and precision"),
        ({"X": [SETS[0], SETS[1] * np.inf]}, "data set 1: Input X contains infinity"),
        ({"X": SETS, "sample_weight": -WEIGHTS}, "data set 0: Negative values"),
    ],
)
def test_what_cannot_be_fitted_is_said_of_the_data_set(arguments, match):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=match):
        KMeans(2).fit_many(**arguments)
