"""What an estimator remembers: of a fit that fails, of batches, of arguments that were changed, of other threads."""

import dataclasses
import math
import pickle
import threading

import numpy as np
import pytest
import scipy.stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import probem
from probem.fitting.fit import fitted
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, Imputer, KMeans
from tests.sklearn.data import clusters

ROWS = clusters(1, 2, 2, 200, 4.0)
GAPS = np.where(np.random.default_rng(1).random(ROWS.shape) < 0.2, np.nan, ROWS)
VB = BayesianGaussianMixture(n_components=2, random_state=0, max_iter=300)


def attributes(estimator):
    return {name: value for name, value in vars(estimator).items() if name.endswith("_")}


def same(ours, theirs):
    assert attributes(ours).keys() == attributes(theirs).keys()
    for name, value in attributes(theirs).items():
        np.testing.assert_array_equal(np.asarray(getattr(ours, name)), np.asarray(value), err_msg=name)


@pytest.mark.parametrize(
    ("estimator", "broken", "rows"),
    [
        (KMeans(2, init=ROWS[[0, -1]], n_init=1), {"init": np.zeros((3, 2))}, 1000 * ROWS),
        pytest.param(VB, {"partial_labels": True}, 100 * ROWS + 7, marks=pytest.mark.slow),
    ],
)
def test_a_fit_that_fails_leaves_the_one_before(estimator, broken, rows):
    """Its unit or its frame is that of the first rows still, so a batch joins them."""
    ours, theirs = (clone(estimator).fit(ROWS) for _ in range(2))
    before = {name: getattr(ours, name) for name in broken}
    with pytest.raises(ValueError, match=r"no y|shape of the initial centers"):
        ours.set_params(**broken).fit(rows)
    same(ours, theirs)
    ours.set_params(**before)
    same(ours.partial_fit(ROWS[:50]), theirs.partial_fit(ROWS[:50]))


def test_the_first_fit_that_fails_leaves_nothing():
    estimator = KMeans(2, init=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="shape of the initial centers"):
        estimator.fit(ROWS)
    with pytest.raises(NotFittedError):
        estimator.predict(ROWS)


@pytest.mark.slow
def test_the_bound_of_rows_with_gaps_is_that_of_the_values_there_are():
    """One component of independent normal columns: F is log p(X), a Student t column by column, in any units."""
    options = {"covariance_type": "diag", "weight_concentration_prior_type": "dirichlet_distribution"}
    for scale in (1.0, 0.01, 1e3):
        rows = scale * GAPS
        fitted = BayesianGaussianMixture(reg_covar=0, tol=1e-9, **options).fit(rows)
        expected = 0.0
        for column, mean, variance in zip(rows.T, fitted.mean_prior_, fitted.covariance_prior_, strict=True):
            x = column[~np.isnan(column)]
            # Half the degrees of freedom are the shape of the gamma prior, half the prior variance is its rate.
            a, b = fitted.degrees_of_freedom_prior_ / 2, variance / 2
            strength, loc = fitted.mean_precision_prior_, mean
            # A chain of Student t: every value given those before.
            for value in x:
                spread = math.sqrt(b / a * (1 + 1 / strength))
                expected += scipy.stats.t.logpdf(value, 2 * a, loc, spread)
                b += strength * (value - loc) ** 2 / (2 * (strength + 1))
                loc, strength, a = (strength * loc + value) / (strength + 1), strength + 1, a + 0.5
        np.testing.assert_allclose(fitted.elbo_, expected, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tied", "diag"])
def test_the_bound_of_rows_with_gaps_follows_their_units(kind):
    estimator = BayesianGaussianMixture(n_components=2, random_state=0, covariance_type=kind, reg_covar=0.0)
    there = (~np.isnan(GAPS)).sum()
    one, ten = (clone(estimator).fit(scale * GAPS) for scale in (1.0, 10.0))
    np.testing.assert_allclose(one.elbo_ - ten.elbo_, there * math.log(10), rtol=1e-8)
    np.testing.assert_allclose(one.lower_bounds_[-1], one.lower_bound_)
    np.testing.assert_allclose(one.lower_bound_, one.elbo_, rtol=1e-2)
    # And batch by batch, of rows that had their first weight.
    one, ten = (
        clone(estimator).set_params(decay=1.0).partial_fit(scale * GAPS).partial_fit(scale * GAPS[:90])
        for scale in (1.0, 10.0)
    )
    there += (~np.isnan(GAPS[:90])).sum()
    np.testing.assert_allclose(one.elbo_ - ten.elbo_, there * math.log(10), rtol=1e-8)


@pytest.mark.slow
def test_a_batch_with_gaps_joins_a_stream_that_allows_for_them():
    batch = ROWS[:100].copy()
    batch[:, 0] = np.nan
    with pytest.raises(ValueError, match=r"missing values after a fit of complete rows; .* begin it with partial_fit"):
        clone(VB).fit(ROWS).partial_fit(batch)
    before = clone(VB).partial_fit(ROWS)
    means = before.means_
    after = before.partial_fit(batch + np.array([0.0, 10.0]))
    assert (after.means_[:, 1] - means[:, 1]).max() > 1  # what is there counts


@pytest.mark.slow
def test_bounds_of_a_stream_go_on_where_the_fit_ended():
    em = GaussianMixture(2, random_state=0).fit(ROWS)
    bounds = em.lower_bounds_
    em.partial_fit(ROWS)
    assert em.lower_bounds_[:-1] == bounds
    np.testing.assert_allclose(em.lower_bounds_[-1], em.elbo_ / 400)
    np.testing.assert_allclose(em.lower_bound_, bounds[-1], atol=0.01)
    vb = clone(VB).fit(ROWS)
    bounds = vb.lower_bounds_
    vb.partial_fit(ROWS)
    assert vb.lower_bounds_ == [*bounds, vb.elbo_]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [GaussianMixture(2, random_state=0), VB], ids=["EM", "VB"])
def test_answers_are_those_of_the_fit_whatever_is_set_afterwards(estimator):
    fitted = clone(estimator).fit(ROWS)
    expected = fitted.score_samples(ROWS)
    fitted.set_params(n_components=3, covariance_type="diag")
    np.testing.assert_array_equal(fitted.score_samples(ROWS), expected)
    with pytest.raises(ValueError, match="warm_start=True after a fit with full covariances, 2 components"):
        fitted.set_params(warm_start=True).fit(ROWS)
    if estimator is VB:
        fitted.set_params(
            n_components=2, covariance_type="full", weight_concentration_prior_type="dirichlet_distribution"
        )
        with pytest.raises(ValueError, match="2 components under a dirichlet_process"):
            fitted.fit(ROWS)
    for name in ("weights_", "means_", "covariances_", "precisions_"):
        getattr(fitted, name)[...] += 0  # they can be written to


@pytest.mark.slow
def test_a_function_that_starts_sees_the_rows_as_they_are():
    seen = []

    def start(key, rows):
        seen.append(np.asarray(rows))
        return (np.asarray(rows)[:, 0] > ROWS[:, 0].mean()).astype(int)

    for estimator in (VB, GaussianMixture(2)):
        clone(estimator).set_params(init_params=start).fit(ROWS)
        np.testing.assert_allclose(seen.pop(), ROWS, rtol=1e-12)

    def parameters(key, rows):
        return {"loc": np.asarray(rows)[:2]}

    with pytest.raises(ValueError, match="parameters from init_params; expected labels or responsibilities"):
        clone(VB).set_params(init_params=parameters).fit(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["kmeans", "k-means++"])
def test_means_that_are_fixed_are_seeds(start):
    """Of four clusters the means of two are fixed, by the wrong numbers; none of the others starts there."""
    centres = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 30.0], [30.0, 30.0]])
    rows = np.concatenate([centre + np.random.default_rng(k).normal(size=(60, 2)) for k, centre in enumerate(centres)])
    means = np.full((4, 2), np.nan)
    means[2], means[0] = centres[0], centres[3]
    for seed in range(6):
        weights = None if seed % 2 else np.ones(len(rows))
        fitted = GaussianMixture(4, random_state=seed, init_params=start, fixed={"means": means})
        found = fitted.fit(rows, sample_weight=weights).means_
        np.testing.assert_array_equal(found[[2, 0]], centres[[0, 3]])
        np.testing.assert_allclose(sorted(found[[1, 3]].tolist()), sorted(centres[[1, 2]].tolist()), atol=1.0)


def test_known_labels_are_those_of_the_clusters():
    y = np.full(len(ROWS), -1)
    y[:3], y[-3:], y[100] = 1, 0, 1
    fitted = KMeans(2, random_state=0, partial_labels=True).fit(ROWS, y)
    assert fitted.predict(ROWS[100:101])[0] == 0
    assert fitted.labels_[100] == 1
    for k in range(2):
        np.testing.assert_allclose(fitted.cluster_centers_[k], ROWS[fitted.labels_ == k].mean(0), rtol=1e-12)
    constant = len(ROWS) * (math.log(2) + math.log(2 * math.pi))
    np.testing.assert_allclose(fitted.elbo_, -fitted.inertia_ / 2 - constant, rtol=1e-12)


@pytest.mark.slow
def test_fit_predict_keeps_what_is_known():
    y = np.full(len(ROWS), -1)
    y[:3], y[-3:], y[100] = 1, 0, 1
    labels = GaussianMixture(2, random_state=0, partial_labels=True).fit_predict(ROWS, y)
    assert labels[100] == 1
    assert labels[101] == 0


@pytest.mark.slow
def test_float32_rows_with_weights_stay_float32():
    fitted = clone(VB).fit(ROWS.astype("f4"), sample_weight=np.ones(len(ROWS)))
    assert {value.dtype for value in attributes(fitted).values() if isinstance(value, np.ndarray)} == {np.dtype("f4")}
    assert fitted.partial_fit(ROWS[:30].astype("f4")).means_.dtype == np.float32


@pytest.mark.slow
def test_clusters_too_far_apart_for_their_spread_are_a_warning():
    """Half the distance is 1.5e6 standard deviations: of the 16 digits of float64 less than three are left."""
    random = np.random.default_rng(0)
    rows = np.concatenate([random.normal(size=(100, 1)), 300 + random.normal(size=(100, 1))])
    far = rows + np.repeat([[0.0], [3e6]], 100, axis=0)
    with pytest.warns(UserWarning, match=r"1\.\de\+06 of its standard deviations .* relative error of some [2-9]e-03"):
        fitted = GaussianMixture(2, random_state=0).fit(far)
    np.testing.assert_allclose(fitted.covariances_.reshape(-1), rows.reshape(2, 100).var(1), rtol=0.05)
    GaussianMixture(2, random_state=0).fit(rows)  # of these, all that matter
    # It is the distance between components that counts, and not where they lie.
    BayesianGaussianMixture(n_components=2, random_state=0).fit(rows + 1e8)


def test_ctrl_c_is_raised_and_what_was_done_is_kept(monkeypatch):
    """The engine returns the best state so far."""

    def interrupted(*arguments, **options):
        return dataclasses.replace(fitted(*arguments, **options), result=probem.Result.INTERRUPTED)

    monkeypatch.setattr("probem.sklearn.tasks.fitted", interrupted)
    estimator = KMeans(2, init=ROWS[:2], n_init=1)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(ROWS)
    monkeypatch.undo()
    same(estimator, KMeans(2, init=ROWS[:2], n_init=1).fit(ROWS))


@pytest.mark.slow
def test_other_threads_may_unpickle_meanwhile():
    data = pickle.dumps(GaussianMixture(2, random_state=0).fit(ROWS))
    wrong = []

    def load():
        for _ in range(10):
            try:
                pickle.loads(data)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    GaussianMixture(2, random_state=0, covariance_type="tied").fit(ROWS)
    for thread in threads:
        thread.join()
    assert wrong == []


def test_k_means_starts_where_a_function_says_by_the_name_of_its_argument():
    def start(X, n_clusters, *, random_state):
        assert isinstance(random_state, np.random.RandomState)
        return X[:n_clusters]

    ours = KMeans(2, init=start, n_init=1).fit(ROWS)
    same(ours, KMeans(2, init=ROWS[:2], n_init=1).fit(ROWS))


def test_a_row_of_weight_zero_changes_nothing_of_k_means():
    far = np.concatenate([ROWS, [[1e6, 1e6]]])
    weights = np.append(np.ones(len(ROWS)), 0.0)
    ours = KMeans(2, init=ROWS[:2], n_init=1).fit(far, sample_weight=weights)
    theirs = KMeans(2, init=ROWS[:2], n_init=1).fit(ROWS)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=1e-12)


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda: KMeans(2, n_init="Auto").fit(ROWS), "n_init='Auto'; expected one of 'auto'"),
        (lambda: KMeans(2, decay="x").fit(ROWS), r"decay='x'; expected a number in \(0\.5, 1\]"),
        (lambda: KMeans(2, partial_labels="no").fit(ROWS), "partial_labels='no'; expected True or False"),
        (lambda: GaussianMixture(2, warm_start=1).fit(ROWS), "warm_start=1; expected True or False"),
        (lambda: GaussianMixture(2, covariance_type=np.array(["full"])).fit(ROWS), "expected one of 'full', 'tied'"),
        (lambda: GaussianMixture(2, fixed={"mean": 0}).fit(ROWS), r"fixed\['mean'\].*did you mean 'means'"),
        (
            lambda: GaussianMixture(2, partial_labels=True).fit(ROWS, np.full(200, np.nan)),
            "expected whole numbers, -1 where unknown; write -1 there",
        ),
        (lambda: BayesianGaussianMixture(mean_precision_prior=0).fit(ROWS), "=0; expected a number above 0"),
        (lambda: KMeans(2).fit(ROWS.astype("f4") * 1e20), r"float32 rows with a value of size .* less than 2e\+17"),
        (lambda: KMeans(2, random_state=0).fit(ROWS).predict(ROWS * 1e160), "float64 rows with a value of size"),
        (lambda: Imputer(KMeans(2)).fit(GAPS), "estimator of type KMeans of probem; expected a mixture"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(act, match):
    with pytest.raises(ValueError, match=match):
        act()
