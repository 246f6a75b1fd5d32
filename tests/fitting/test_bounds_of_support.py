"""Densities between bounds that are computed: of rows that are impossible, too, it is known what they depend on."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special
import scipy.stats

import probem

positive, simplex = dist.constraints.positive, dist.constraints.simplex
RANDOM = np.random.default_rng(0)
LONG = np.r_[101 + RANDOM.gamma(2, 10, 60), 150 + RANDOM.gamma(4, 20, 60)]
HEAVY = np.r_[100 * (1 + RANDOM.pareto(3.0, 40)), 200 * (1 + RANDOM.pareto(6.0, 40))]


def truncated(x, low):
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=simplex)
    loc = numpyro.param("loc", jnp.array([120.0, 200.0]))
    scale = numpyro.param("scale", jnp.array([30.0, 30.0]), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.TruncatedNormal(loc[t], scale[t], low=low), obs=x)


def pareto(x):
    alpha = numpyro.param("alpha", jnp.array([2.0, 3.0]), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Pareto(jnp.array([100.0, 200.0])[t], alpha[t]), obs=x)


@pytest.mark.slow
def test_a_bound_as_an_array_is_a_bound_as_a_number():
    """Its rows lie far from the rows by which dependence is found out."""
    fits = [probem.fit(functools.partial(truncated, low=low), LONG, throw=False) for low in (100.0, jnp.array(100.0))]
    assert fits[0].elbo == pytest.approx(fits[1].elbo, abs=1e-6)
    assert np.abs(np.asarray(fits[1].params["loc"]) - [120.0, 200.0]).max() > 1


def test_a_pareto_mixture_is_that_of_scipy():
    fit = probem.fit(pareto, HEAVY, init=probem.Parameters({"alpha": np.array([2.0, 3.0])}))

    def loss(log_alpha):
        parts = scipy.stats.pareto.logpdf(HEAVY[:, None], np.exp(log_alpha), scale=np.array([100.0, 200.0]))
        return -(scipy.special.logsumexp(parts, axis=1) - np.log(2)).sum()

    best = scipy.optimize.minimize(loss, np.log([2.0, 3.0]), method="Nelder-Mead", options={"fatol": 1e-10})
    assert fit.elbo == pytest.approx(-best.fun, abs=1e-5)
    np.testing.assert_allclose(fit.params["alpha"], np.exp(best.x), rtol=1e-3)
