"""What scikit-learn's users rely on: parameters, pipelines, frames, warm starts, warnings, samples."""

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.cluster
import sklearn.mixture
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from probem import models
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture
from tests.sklearn.data import clusters

# One shape for all, which compiles once: two columns, two components.
ROWS = clusters(1, 2, 2, 200, 4.0)
PROGRAM = functools.partial(models.gmm, num_components=2)
ESTIMATORS = {
    "k-means": KMeans(2, random_state=0),
    "EM": GaussianMixture(2, random_state=0),
    "variational Bayes": BayesianGaussianMixture(n_components=2, random_state=0, max_iter=300),
    "program": Mixture(PROGRAM, random_state=0),
}
QUICK = ("k-means",)
ALL = pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ESTIMATORS]
)
DENSITIES = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) for n in ESTIMATORS if n != "k-means"]
)


@pytest.fixture(scope="module")
def fitted():
    return functools.cache(lambda name: clone(ESTIMATORS[name]).fit(ROWS))


def attributes(estimator):
    """What a fit leaves, but for how long it is."""
    return {
        name: np.asarray(value, float)
        for name, value in vars(estimator).items()
        if name.endswith("_")
        and isinstance(value, np.ndarray | np.floating | float | list | tuple)
        and name not in ("lower_bounds_", "elbos_", "feature_names_in_")
    }


@ALL
def test_parameters_are_those_of_the_constructor(name):
    estimator = ESTIMATORS[name]
    # A clone has a copy of a program, and partial functions are compared by identity.
    assert {**clone(estimator).get_params(), "program": None} == {**estimator.get_params(), "program": None}
    other = clone(estimator).set_params(max_iter=7)
    assert other.max_iter == 7
    with pytest.raises(ValueError, match="Invalid parameter 'wrong'"):
        other.set_params(wrong=1)
    theirs = {
        "k-means": sklearn.cluster.KMeans,
        "EM": sklearn.mixture.GaussianMixture,
        "variational Bayes": sklearn.mixture.BayesianGaussianMixture,
    }.get(name)
    if theirs is not None:
        defaults = type(estimator)().get_params()
        assert {key: defaults[key] for key in theirs().get_params()} == theirs().get_params()


@ALL
def test_nothing_is_answered_before_fit(name):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        clone(ESTIMATORS[name]).predict(ROWS)


@pytest.mark.slow
@ALL
def test_a_pickle_answers_as_the_estimator_does(name, fitted):
    estimator = fitted(name)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict(ROWS), estimator.predict(ROWS))
    assert again.score(ROWS) == estimator.score(ROWS)
    # It goes on with batches where the other would.
    for one in (again, copy := pickle.loads(pickle.dumps(estimator))):
        one.partial_fit(ROWS[:40])
    for key, value in attributes(copy).items():
        np.testing.assert_array_equal(value, attributes(again)[key])


@pytest.mark.slow
@ALL
def test_pipelines_cross_validation_and_threads(name):
    pipeline = make_pipeline(StandardScaler(), clone(ESTIMATORS[name]))
    labels = pipeline.fit(ROWS).predict(ROWS)
    direct = clone(ESTIMATORS[name]).fit(StandardScaler().fit_transform(ROWS))
    np.testing.assert_array_equal(labels, direct.predict(StandardScaler().fit_transform(ROWS)))
    found = cross_val_predict(clone(ESTIMATORS[name]), ROWS, cv=2)
    assert found.shape == (len(ROWS),)


@pytest.mark.slow
def test_a_grid_search_finds_the_number_of_components():
    search = GridSearchCV(
        GaussianMixture(random_state=0),
        {"n_components": [1, 2], "covariance_type": ["spherical", "diag"]},
        cv=2,
        n_jobs=2,
        refit=False,
    )
    # Workers of other processes would compile everything again.
    from joblib import parallel_backend

    with parallel_backend("threading"):
        search.fit(np.random.default_rng(0).permutation(ROWS))
    assert search.best_params_["n_components"] == 2


@ALL
@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_have_names_which_are_remembered(name, frame, fitted):
    columns = ["first", "second"]
    rows = frame({column: ROWS[:, place] for place, column in enumerate(columns)})
    estimator = clone(ESTIMATORS[name]).fit(rows)
    np.testing.assert_array_equal(estimator.feature_names_in_, columns)
    np.testing.assert_array_equal(estimator.predict(rows), fitted(name).predict(ROWS))
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame({"first": ROWS[:, 0], "third": ROWS[:, 1]}))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        estimator.predict(ROWS)


@ALL
def test_layout_and_kind_of_the_rows_do_not_matter(name, fitted):
    rows = ROWS.copy()
    rows.setflags(write=False)
    for other in (np.asfortranarray(ROWS), rows, ROWS.tolist(), np.repeat(ROWS, 2, axis=0)[::2]):
        found = clone(ESTIMATORS[name]).fit(other, None)
        np.testing.assert_array_equal(found.predict(other), fitted(name).predict(ROWS))
    whole = np.round(10 * ROWS).astype(int)
    frame = pd.DataFrame(whole, columns=["first", "second"])
    for integers in (whole, whole.astype(np.int32), frame):
        found = clone(ESTIMATORS[name]).fit(integers)
        own = attributes(clone(ESTIMATORS[name]).fit(whole.astype(float)))
        for key, value in attributes(found).items():
            np.testing.assert_array_equal(value, own[key], err_msg=key)


@ALL
def test_y_is_ignored(name, fitted):
    found = clone(ESTIMATORS[name]).fit(ROWS, np.array(["a", "b"] * (len(ROWS) // 2)))
    for key, value in attributes(found).items():
        np.testing.assert_array_equal(value, attributes(fitted(name))[key])


@ALL
def test_a_random_state_is_a_seed_or_goes_on(name):
    seeded = [clone(ESTIMATORS[name]).set_params(random_state=5).fit(ROWS) for _ in range(2)]
    for key, value in attributes(seeded[0]).items():
        np.testing.assert_array_equal(value, attributes(seeded[1])[key])
    state = np.random.RandomState(0)
    estimator = clone(ESTIMATORS[name]).set_params(random_state=state)
    for _ in range(2):
        before = state.get_state()[2]
        assert np.isfinite(estimator.fit(ROWS).elbo_)
        assert state.get_state()[2] != before


@DENSITIES
def test_a_warm_start_goes_on_where_the_last_fit_ended(name):
    estimator = clone(ESTIMATORS[name]).set_params(warm_start=True).fit(ROWS)
    bound = estimator.elbo_
    # A program's n_iter_ counts E half-steps: two rises have to be known before it is said that nothing is left.
    assert estimator.fit(ROWS).n_iter_ <= (3 if name == "program" else 1)
    assert estimator.converged_
    assert estimator.elbo_ >= bound - 1e-9 * abs(bound)


@pytest.mark.slow
def test_a_warm_start_counts_iterations_as_scikit_learn_does():
    start = {"means_init": ROWS[:2], "weights_init": [0.5, 0.5], "precisions_init": [np.eye(2)] * 2}
    ours = GaussianMixture(2, warm_start=True, max_iter=2, **start)
    theirs = sklearn.mixture.GaussianMixture(2, warm_start=True, max_iter=2, **start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in range(12):
            ours.fit(ROWS)
            theirs.fit(ROWS)
            assert (ours.n_iter_, ours.converged_) == (theirs.n_iter_, theirs.converged_)
            # Both go on from the same numbers, to the rounding of some thirty iterations.
            np.testing.assert_allclose(ours.means_, theirs.means_, rtol=1e-9)
            np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, rtol=1e-9)
    assert theirs.converged_


@pytest.mark.slow
def test_a_warm_start_of_another_shape_is_one_sentence():
    for estimator in (GaussianMixture(2, warm_start=True), BayesianGaussianMixture(n_components=2, warm_start=True)):
        estimator.set_params(covariance_type="spherical", max_iter=300).fit(ROWS)
        with pytest.raises(ValueError, match="warm_start"):
            estimator.set_params(n_components=1).fit(ROWS)
        with pytest.raises(ValueError, match="warm_start"):
            estimator.set_params(n_components=2).fit(ROWS[:, :1])
        with pytest.raises(ValueError, match="warm_start"):
            estimator.set_params(covariance_type="diag").fit(ROWS)


@pytest.mark.slow
def test_the_limit_of_iterations_is_a_warning_for_mixtures_alone():
    for name in ("EM", "variational Bayes"):
        short = clone(ESTIMATORS[name]).set_params(max_iter=1, covariance_type="spherical", tol=1e-12)
        with pytest.warns(ConvergenceWarning, match="the step limit was reached.*raise max_iter or tol"):
            short.fit(ROWS)
        assert not short.converged_
        assert short.n_iter_ == len(short.lower_bounds_) == 1
    assert KMeans(2, max_iter=1, random_state=3).fit(ROWS).n_iter_ == 1


@pytest.mark.slow
def test_no_iteration_leaves_the_start():
    means = [[0.0, 1.0], [2.0, 3.0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = GaussianMixture(
            2,
            covariance_type="diag",
            max_iter=0,
            means_init=means,
            weights_init=[0.25, 0.75],
            precisions_init=[[1, 4], [1, 1]],
        ).fit(ROWS)
    assert (found.n_iter_, found.converged_, found.lower_bounds_) == (0, False, [])
    np.testing.assert_array_equal(found.means_, means)
    np.testing.assert_allclose(found.weights_, [0.25, 0.75], rtol=1e-15)
    np.testing.assert_allclose(found.covariances_, [[1, 0.25], [1, 1]], rtol=1e-15)


def test_k_means_with_given_centres_has_one_start():
    with pytest.warns(RuntimeWarning, match="performing only one init in KMeans instead of n_init=5"):
        KMeans(2, init=ROWS[:2], n_init=5).fit(ROWS)
    drawn = KMeans(2, init=lambda rows, count, random_state: rows[:count], n_init=1).fit(ROWS)
    given = KMeans(2, init=ROWS[:2], n_init=1).fit(ROWS)
    np.testing.assert_array_equal(drawn.cluster_centers_, given.cluster_centers_)
    theirs = sklearn.cluster.KMeans(2, init=ROWS[:2], n_init=1).fit(ROWS)
    np.testing.assert_allclose(given.fit_transform(ROWS), theirs.transform(ROWS), rtol=1e-12)
    np.testing.assert_array_equal(given.get_feature_names_out(), theirs.get_feature_names_out())
    assert list(given.set_output(transform="pandas").transform(ROWS).columns) == ["kmeans0", "kmeans1"]
    assert given.elbo_ == pytest.approx(-given.inertia_ / 2 - 200 * (np.log(2) + np.log(2 * np.pi)), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_more_starts_of_k_means_are_no_worse(init):
    hard = clusters(21, 2, 2, 300, 0.3)
    found = [
        KMeans(2, init=init, n_init=count, random_state=1, verbose=count - 1).fit(hard).inertia_ for count in (1, 2)
    ]
    assert found[1] <= found[0] * (1 + 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("init_params", ["kmeans", "k-means++", "random", "random_from_data"])
def test_every_start_of_a_mixture_is_an_answer(init_params):
    estimator = GaussianMixture(2, init_params=init_params, n_init=2, random_state=0, max_iter=500, tol=1e-6)
    assert estimator.fit(ROWS).converged_
    assert np.isfinite(estimator.elbo_)


@DENSITIES
def test_samples_have_the_moments_of_the_mixture(name, fitted):
    estimator = fitted(name)
    count = 4000
    rows, labels = estimator.sample(count)
    assert rows.shape == (count, 2)
    assert (np.diff(labels) >= 0).all()
    # Against the rows fitted, whose moments those of the mixture are but for the prior of the Bayesian one.
    slack = 5 * np.sqrt(ROWS.var(axis=0) * (1 / count + (1 / len(ROWS) if name == "variational Bayes" else 0)))
    assert (np.abs(rows.mean(axis=0) - ROWS.mean(axis=0)) <= slack).all()
    share = np.bincount(estimator.predict(ROWS), minlength=2) / len(ROWS)
    assert np.abs(np.bincount(labels, minlength=2) / count - share).max() <= 5 * np.sqrt(0.25 / count) + 0.02
    agree = (estimator.predict(rows) == labels).mean()
    assert agree >= estimator.predict_proba(ROWS).max(axis=1).mean() - 5 * np.sqrt(0.25 / count) - 0.02
    again, _ = estimator.sample(count)
    np.testing.assert_array_equal(again, rows)  # an integer is a seed, as in scikit-learn
    with pytest.raises(ValueError, match="requires at least one sample"):
        estimator.sample(0)


@ALL
def test_an_estimator_shows_itself(name, fitted):
    assert type(fitted(name)).__name__ in fitted(name)._repr_html_()
    assert repr(clone(ESTIMATORS[name])).startswith(type(fitted(name)).__name__)
