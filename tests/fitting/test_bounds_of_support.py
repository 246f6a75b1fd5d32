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


def scaled_beta(x):
    a = numpyro.param("a", jnp.array([1.5, 2.5]), constraint=positive)
    height = numpyro.param("height", jnp.array([2.0, 4.1]), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        scale = dist.transforms.AffineTransform(0.0, height[t], domain=dist.constraints.unit_interval)
        numpyro.sample("x", dist.TransformedDistribution(dist.Beta(a[t], 2.0), scale), obs=x)


@pytest.mark.slow
def test_a_density_without_a_slope_outside_its_bounds_climbs():
    """The logarithm of a beta density is no number outside of (0, 1), which made the slope of all rows none."""
    random = np.random.default_rng(1)
    x = np.r_[1.3 * random.beta(2, 2, 40), 4.0 * random.beta(3, 2, 40)]
    report = probem.check(scaled_beta, x)
    report.raise_for_failure()
    assert {"A5", "G14"} <= {row.claim for row in report.rows}
    fit = report.fit

    def loss(log_params):
        a, height = np.exp(log_params[:2]), np.exp(log_params[2:])
        parts = scipy.stats.beta.logpdf(x[:, None], a, 2.0, scale=height) - np.log(2)
        return -scipy.special.logsumexp(parts, axis=1).sum()

    here = np.log(np.r_[fit.params["a"], fit.params["height"]])
    assert fit.elbo == pytest.approx(-loss(here), rel=1e-12)
    assert loss(np.log([1.5, 2.5, 2.0, 4.1])) > -fit.elbo + 1  # it has moved
    best = scipy.optimize.minimize(loss, here, method="Nelder-Mead", options={"fatol": 1e-12})
    assert fit.elbo == pytest.approx(-best.fun, abs=1e-6)


@pytest.mark.parametrize("masked", ["inside", "outside"])
def test_masked_rows_between_bounds_of_components_count_nothing(masked):
    """NumPyro's density under a mask does not run where bounds have an axis of components that values have not."""

    def cut(x, counts):
        weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=simplex)
        loc = numpyro.param("loc", jnp.array([1.0, 5.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(weights))
            density = dist.TruncatedNormal(loc[t], 1.0, low=0.0, high=jnp.array([6.0, 8.0])[t])
            numpyro.sample("x", density.mask(counts), obs=x)

    x = np.r_[np.abs(RANDOM.normal(1, 1, 30)), RANDOM.normal(5, 0.8, 30)]
    counts = np.arange(60) % 7 > 0
    hidden = np.where(counts, x, {"inside": 2.0, "outside": 9.0}[masked])
    fit, rest = probem.fit(cut, hidden, counts), probem.fit(cut, x[counts], np.ones(counts.sum(), bool))
    assert fit.elbo == pytest.approx(rest.elbo, rel=1e-9)
    # A masked row tells nothing: it has the weights for its responsibilities, and holds them where they are.
    np.testing.assert_allclose(fit.params["loc"], rest.params["loc"], rtol=1e-4)
    low, high = -fit.params["loc"], np.array([6.0, 8.0]) - fit.params["loc"]
    parts = scipy.stats.truncnorm.logpdf(x[counts, None], low, high, loc=fit.params["loc"])
    assert scipy.special.logsumexp(parts + np.log(fit.params["weights"]), axis=1).sum() == pytest.approx(
        fit.elbo, rel=1e-12
    )
