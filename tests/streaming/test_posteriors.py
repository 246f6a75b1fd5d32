"""Streams under full posteriors: Bayes' rule applied batch by batch."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from probem.models import GaussianPrior, bayesian_gmm
from tests.programs.fits import X
from tests.streaming.batches import BATCHES, draw


def bayesian(x, num_components: int) -> None:
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(num_components, 1.5)))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(0.5, 3.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", dist.Normal(loc[numpyro.sample("t", dist.Categorical(weights))], 0.8), obs=x)


@pytest.mark.slow
def test_pseudo_counts_add_up_to_prior_and_rows() -> None:
    fit = probem.fit(functools.partial(bayesian, num_components=2), X[:, 0], families=probem.VARIATIONAL_BAYES)
    for number in range(5):
        fit = probem.absorb(fit, draw(70, number)[:, 0], row_weights=np.full(70, 1.5))
        assert fit.total_weight == 90 + 105 * (number + 1)
        total = np.sum(fit.variational["weights"]["concentration"])
        np.testing.assert_allclose(total, 2 * 1.5 + fit.total_weight, rtol=1e-8)
        np.testing.assert_allclose(sum(fit.elbo_terms.values()), fit.elbo, rtol=1e-10)
        assert fit.history.elbo[-1] > fit.history.elbo[-2]


@pytest.mark.slow
def test_one_component_is_bayes_rule_batch_by_batch() -> None:
    """Nothing is hidden then: with decay = 1 the posterior after the stream is that of all rows, and F the evidence."""
    fit = probem.fit(functools.partial(bayesian, num_components=1), X[:, 0], families=probem.VARIATIONAL_BAYES)
    mean, variance = 0.5, 9.0
    for x in (X, *BATCHES):
        fit = fit if x is X else probem.absorb(fit, x[:, 0], decay=1)
        precision = 1 / variance + len(x) / 0.64
        mean, variance = (mean / variance + x[:, 0].sum() / 0.64) / precision, 1 / precision
        np.testing.assert_allclose(fit.variational["loc"]["loc"].item(), mean, rtol=1e-11)
        np.testing.assert_allclose(fit.variational["loc"]["covariance"].item(), variance, rtol=1e-11)
    rows = np.concatenate([X, *BATCHES])[:, 0]
    evidence = scipy.stats.multivariate_normal(np.full(len(rows), 0.5), 0.64 * np.eye(len(rows)) + 9.0)
    np.testing.assert_allclose(fit.elbo, evidence.logpdf(rows), rtol=1e-10)


@pytest.mark.slow
def test_and_of_covariances() -> None:
    prior = GaussianPrior.from_data(jnp.asarray(X), num_components=2)
    program = functools.partial(bayesian_gmm, num_components=1, prior=prior)
    fit = probem.fit(program, X, families=probem.VARIATIONAL_BAYES)
    for x in BATCHES:
        fit = probem.absorb(fit, x, decay=1)
    whole = probem.fit(program, np.concatenate([X, *BATCHES]), families=probem.VARIATIONAL_BAYES)
    for site, own in whole.variational.items():
        for argument, value in own.items():
            np.testing.assert_allclose(fit.variational[site][argument], value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.elbo, whole.elbo, rtol=1e-11)


def clipped(x) -> None:
    """Locations are what they seem up to twenty, and twenty beyond."""
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 100.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(jnp.clip(loc[t], -20.0, 20.0), 1.0), obs=x)


@pytest.mark.slow
def test_a_stream_that_reaches_what_is_not_conjugate() -> None:
    """A full posterior is refused with the fit in hand; a point is maximised numerically from there on."""
    x = X[:, 0]
    init = probem.Labels(x > 0)
    full = probem.fit(clipped, x, init=init, families=probem.VARIATIONAL_BAYES)
    with pytest.raises(probem.FitError, match=r"does not depend on the parameters .* \(site 'x'\)") as caught:
        probem.absorb(full, x + 30, rate=1)
    assert caught.value.fit.num_batches == 2
    point = probem.fit(clipped, x, init=init)
    assert point.plan.mean_field.by_name["loc"].is_point
    after = probem.absorb(point, x + 30, rate=1)
    assert after.plan.numeric == ("loc",)
    assert after.num_batches == 2
    table = np.log(0.5) - 0.5 * (x[:, None] + 30 - np.clip(after.params["loc"], -20, 20)) ** 2 - 0.5 * np.log(2 * np.pi)
    assert after.log_density(x + 30) == pytest.approx(np.logaddexp.reduce(table, axis=1), rel=1e-10)
