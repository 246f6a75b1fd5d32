"""Where large terms cancel, a check allows what their rounding makes up, and no more."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.checking.residuals import ROUNDING, SAME, difference, relative, share
from probem.models import GaussianPrior, bayesian_gmm, gmm
from probem.models import diagonal as diagonal_covariance

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

ROWS = np.random.default_rng(0).normal(size=(60, 2)) + np.repeat([[0.0, 0.0], [4.0, 4.0]], 30, axis=0)


def spikes(scale, place=0.0):
    """Two clusters at a distance of 1, so narrow that (x - m)^2 / s^2 is a difference of terms of 1 / scale^2."""
    random = np.random.default_rng(0)
    return (np.r_[random.normal(0, scale, 40), random.normal(1, scale, 40)] + place)[:, None]


def test_a_share_of_the_scale_and_what_is_lost():
    assert share(0.0, 0.0) == 0
    assert share(2e-10, 1.0) == pytest.approx(2.0 * SAME)
    assert share(2e-10, 1.0, lost=1.5e-10) <= SAME < share(2e-10, 1.0, lost=0.5e-10)
    assert share([1e-12, 1e-12], [1.0, 1.0], [0.0, 1e-12], ROUNDING) == pytest.approx([ROUNDING, ROUNDING / 2])
    assert relative(1.0, 1.0 + 2e-10, 2.0) == pytest.approx(SAME, rel=1e-5)
    assert relative(0.0, 0.0) == 0
    assert relative(1e-300, 0.0) == 1
    assert difference(np.array([1.0, -np.inf, -np.inf]), np.array([3.0, -np.inf, 0.0])).tolist() == [-2.0, 0.0, -np.inf]
    assert share(-np.inf, 1.0) == np.inf
    assert np.isnan(share(np.nan, 1.0))
    assert np.isnan(relative(np.nan, 1.0))


NARROW = {
    "spikes": (functools.partial(gmm, num_components=3, covariance=diagonal_covariance), spikes(1e-3)),
    "spikes with terms of 1e12": (functools.partial(gmm, num_components=2), spikes(1e-6)),
    "spikes far from zero": (
        functools.partial(gmm, num_components=2, covariance=diagonal_covariance),
        spikes(1e-4, 1e4),
    ),
    "far from zero": (functools.partial(gmm, num_components=2), ROWS + 1e9),
    "tiny": (functools.partial(gmm, num_components=2), ROWS * 1e-30),
}


@pytest.mark.parametrize("name", NARROW)
def test_no_alarm_where_terms_cancel(name):
    program, rows = NARROW[name]
    probem.check(program, rows).raise_for_failure()


def test_no_alarm_under_full_posteriors():
    prior = GaussianPrior(np.zeros(1), 0.1, 3.0, 1e-6 * np.eye(1))
    program = functools.partial(bayesian_gmm, num_components=3, prior=prior)
    probem.check(program, spikes(1e-3), families=probem.VARIATIONAL_BAYES).raise_for_failure()


def by_hand(params, x):
    """The table of a mixture with diagonal covariances in NumPy, each square of a difference before its division."""
    loc, scale, weights = (np.asarray(params[name], float) for name in ("loc", "scale", "weights"))
    away = (x[:, None] - loc) / scale
    return np.log(weights) - (0.5 * away**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)).sum(-1)


def test_what_is_allowed_is_no_more_than_rounding():
    """A table that is off by 1e-7 nats a row is found between spikes whose terms are a million each: by F of the fit,
    not beside the gap of a random q, which is as large as these.
    """
    program, rows = functools.partial(gmm, num_components=2, covariance=diagonal_covariance), spikes(1e-3)
    probem.claim("A1", program, rows, oracle=by_hand).raise_for_failure()
    wrong = probem.claim("A1", program, rows, oracle=lambda params, x: by_hand(params, x) + 1e-7)
    assert wrong.failed == tuple(row for row in wrong.rows if row.compared.startswith("F of the fit"))
    assert len(wrong.failed) == 2


def test_a_probability_that_is_lost_to_rounding_is_no_infinite_divergence():
    """Sixty standard deviations apart, the second q says zero where the first says next to nothing."""

    def program(x):
        with numpyro.plate("components", 2):
            loc = numpyro.sample("loc", dist.Normal(0.0, 100.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(-30, 1, 20), random.normal(30, 1, 20)])
    start = probem.Responsibilities(np.where((x > 0)[:, None], [0.48, 0.52], [0.52, 0.48]))
    report = probem.claim("G1", program, x, families=probem.VARIATIONAL_BAYES, init=start)
    report.raise_for_failure()
    assert report.remarks == ("G1: the gains of E 1: a q(t) there falls to zero, and its logarithm is lost.",)
    assert {row.half_step for row in report.rows} >= {"M 0", "E 2"}
