"""Estimators in other units, and float32 rows whose digits are not enough for their second moments."""

import numpy as np
import pytest
import sklearn.mixture

from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans

RANDOM = np.random.default_rng(5)
ROWS = np.concatenate([RANDOM.normal(size=(40, 2)), RANDOM.normal(size=(30, 2)) * 0.5 + 4.0])


def apart(distance: float) -> np.ndarray:
    """Two clusters so far apart, in float32; what that rounds is of the order of 1e-7 of the distance."""
    return np.concatenate([ROWS[:40], ROWS[40:] + distance]).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [0.0, 30.0, 1000.0])
def test_the_bound_of_k_means_keeps_its_digits_in_float32(distance):
    x = apart(distance)
    found = KMeans(2, init=x[[0, -1]], n_init=1).fit(x)
    assert found.cluster_centers_.dtype == np.float32
    centres = np.stack([x[found.labels_ == own].mean(0, dtype=float) for own in range(2)])
    inertia = ((x - centres[found.labels_]) ** 2).sum()
    expected = -0.5 * inertia - len(x) * np.log(2) - 0.5 * x.size * np.log(2 * np.pi)
    # Centres are rounded to float32, which changes the sum of squares by the square of that.
    assert found.elbo_ == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["diag", "full", "tied"])
def test_two_rows_far_apart_have_the_variance_that_is_added(kind):
    """The squares of the rows are 1e7 times as large, one unit in the last place of float32."""
    x = np.array([[-2500.0, 3.0], [6400.0, -900.0]], np.float32)
    found = GaussianMixture(2, covariance_type=kind, reg_covar=0.2, random_state=0).fit(x)
    expected = 0.2 * (np.ones((2, 2)) if kind == "diag" else np.eye(2))
    np.testing.assert_allclose(found.covariances_, np.broadcast_to(expected, found.covariances_.shape), atol=1e-3)


@pytest.mark.slow
def test_float32_clusters_far_apart_are_those_of_float64():
    """Ordinary rows stay in float32; of these not one digit would be left, in one fit or in many."""
    x, near = apart(1e4), apart(0.0)
    one = GaussianMixture(2, random_state=0)
    fitted, ordinary = one.fit_many([x, near])
    assert (fitted.means_.dtype, ordinary.means_.dtype) == (np.float64, np.float32)
    labels = fitted.predict(x)
    other = sklearn.mixture.GaussianMixture(2, means_init=fitted.means_, random_state=0).fit(x.astype(float))
    np.testing.assert_array_equal(labels, other.predict(x.astype(float)))
    # scikit-learn centres on each component; the float64 that is left here has seven digits.
    np.testing.assert_allclose(fitted.means_, other.means_, rtol=1e-6)
    np.testing.assert_allclose(fitted.covariances_, other.covariances_, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.score_samples(x), other.score_samples(x.astype(float)), atol=1e-4)
    alone = one.fit(x)
    np.testing.assert_allclose(alone.covariances_, fitted.covariances_, rtol=1e-6, atol=1e-9)
    assert alone.partial_fit(x[:9]).means_.dtype == np.float64


@pytest.mark.slow
@pytest.mark.parametrize("cls", [GaussianMixture, BayesianGaussianMixture])
def test_mixtures_are_the_same_in_every_unit(cls):
    """A power of two, so that the rows are the same to the last bit; ``reg_covar`` is a variance."""
    own = cls(n_components=2, reg_covar=1e-3, random_state=0).fit(ROWS)
    for unit in (2.0**-100, 2.0**100):
        other = cls(n_components=2, reg_covar=1e-3 * unit**2, random_state=0).fit(unit * ROWS)
        assert other.n_iter_ == own.n_iter_
        np.testing.assert_allclose(other.means_ / unit, own.means_, rtol=1e-9)
        np.testing.assert_allclose(other.covariances_ / unit**2, own.covariances_, rtol=1e-9, atol=1e-12)
        moved = ROWS.size * np.log(unit)
        assert other.elbo_ + moved == pytest.approx(own.elbo_, rel=1e-10)
        np.testing.assert_allclose(
            other.score_samples(unit * ROWS) + 2 * np.log(unit), own.score_samples(ROWS), rtol=1e-9
        )
        np.testing.assert_allclose(other.predict_proba(unit * ROWS), own.predict_proba(ROWS), atol=1e-9)
