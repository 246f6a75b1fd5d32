"""Rows in other units: densities move by the log of the unit, and nothing else does, from 1e-30 to 1e30."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats
from scipy.special import logsumexp

import probem
from probem.analysis.routes import make_plan
from probem.families.choice import choose_families
from probem.models import GaussianPrior, bayesian_gmm, diagonal, full, gmm, kmeans, tied
from probem.models.bayesian_covariance import diagonal as bayesian_diagonal
from probem.models.covariance import spherical
from probem.program.reading import read

N, D, K, STEPS = 48, 2, 3, 6
UNITS = (1e-30, 1.6e-19, 1e14, 1e30)
STRUCTURES = {"full": full, "tied": tied, "diagonal": diagonal, "spherical": spherical}
RANDOM = np.random.default_rng(1913)
GROUPS = np.arange(N) % K
X = 3.0 * RANDOM.normal(size=(K, D))[GROUPS] + RANDOM.normal(size=(N, D))
LABELS = np.where(RANDOM.random(N) < 0.2, (GROUPS + 1) % K, GROUPS)
# Rounding of sums of some fifty terms, and of logs of 1e30, carried through six iterations.
CLOSE: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}


def run(program: Any, x: np.ndarray, families: Any = None, **options: Any) -> probem.Fit:
    options = {"init": probem.Labels(LABELS), "max_steps": STEPS, "tolerance": 0, "throw": False} | options
    return probem.fit(program, x, families=families, **options)


def spread_in(unit: float, name: str) -> float:
    """What a parameter of rows in this unit is larger by."""
    return {"loc": unit, "scale": unit, "covariance": unit**2, "precision": unit**-2.0}.get(name, 1.0)


def assert_same(own: probem.Fit, other: probem.Fit, x: np.ndarray, unit: float, shift: float) -> None:
    """That ``other``, of the rows x in this unit, is ``own``, of x; its F is lower by ``shift`` log(unit)."""
    assert other.result is own.result
    np.testing.assert_allclose(other.history.elbo + shift * np.log(unit), own.history.elbo, **CLOSE)
    for name, value in own.params.items():
        found = np.asarray(other.params[name]) / spread_in(unit, name)
        np.testing.assert_allclose(found, value, rtol=1e-8, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(other.responsibilities(unit * x), own.responsibilities(x), **CLOSE)
    there = (~np.isnan(x)).sum(1)
    np.testing.assert_allclose(other.log_density(unit * x) + there * np.log(unit), own.log_density(x), **CLOSE)
    np.testing.assert_array_equal(other.predict(unit * x), own.predict(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "families"),
    [("full", probem.EM), ("tied", probem.EM), ("diagonal", probem.HARD_EM), ("spherical", probem.EM)],
)
def test_a_mixture_is_the_same_in_every_unit(name: str, families: Any) -> None:
    program = functools.partial(gmm, num_components=K, covariance=STRUCTURES[name])
    own = run(program, X, families)
    for unit in UNITS:
        other = run(program, unit * X, families)
        assert_same(own, other, X, unit, N * D)
        if name == "full":
            # By SciPy at its own parameters: after an exact E half-step F is the log likelihood.
            weights, loc = np.asarray(other.params["weights"]), np.asarray(other.params["loc"]) / unit
            covariances = np.asarray(other.params["covariance"]) / unit**2
            parts = zip(weights, loc, covariances, strict=True)
            joint = [np.log(weight) + stats.multivariate_normal(*own).logpdf(X) for weight, *own in parts]
            expected = logsumexp(joint, axis=0) - D * np.log(unit)
            np.testing.assert_allclose(other.log_density(unit * X), expected, **CLOSE)
            assert other.elbo == pytest.approx(expected.sum(), rel=1e-10)


@pytest.mark.parametrize("unit", [1e-30, 1e14, 1e30, 1e100])
def test_inertia_of_any_size_is_a_bound(unit: float) -> None:
    """k-means knows the unit matrix: F = -J / 2 - N log K - N D log(2 pi) / 2 with J in squares of the unit."""
    found = run(functools.partial(kmeans, num_components=K), unit * X, probem.HARD_EM, max_steps=100)
    assert found.result is probem.Result.CONVERGED
    labels = found.predict(unit * X)
    loc = np.stack([X[labels == own].mean(0) for own in range(K)])
    np.testing.assert_array_equal(labels, ((X[:, None] - loc) ** 2).sum(2).argmin(1))
    np.testing.assert_allclose(np.asarray(found.params["loc"]) / unit, loc, rtol=1e-12)
    constant = -N * np.log(K) - 0.5 * N * D * np.log(2 * np.pi)
    inertia = ((X - loc[labels]) ** 2).sum()
    assert found.elbo == pytest.approx(constant - 0.5 * unit**2 * inertia, rel=1e-9)


@pytest.mark.slow
def test_missing_values_and_noise_are_in_the_units_of_the_rows() -> None:
    x = X.copy()
    x[::7, 0], x[3::11, 1] = np.nan, np.nan
    program = functools.partial(gmm, num_components=K, covariance=tied)
    own = run(program, x, added_variance=0.3)
    for unit in UNITS:
        other = run(program, unit * x, added_variance=0.3 * unit**2)
        assert_same(own, other, x, unit, (~np.isnan(x)).sum())
        np.testing.assert_allclose(other.impute(unit * x) / unit, own.impute(x), rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("families", [probem.VARIATIONAL_BAYES, probem.EM])
def test_priors_in_the_units_of_the_rows(families: Any) -> None:
    """Full posteriors know of no densities of parameters; a mode is one of (loc, precision), with units of its own.

    Precisions are 1e-60 here: beside them, an offset of 1e-17 that rounding left in the plan was the whole prior.
    """
    unit = 1e30

    def fitted(x: np.ndarray) -> probem.Fit:
        prior = GaussianPrior.from_data(jnp.asarray(x), K)
        program = functools.partial(bayesian_gmm, num_components=K, prior=prior, covariance=bayesian_diagonal)
        return run(program, x, families)

    # Of loc [K, D], one over the unit each; of precision [K, D], its square.
    density = 0 if families is probem.VARIATIONAL_BAYES else K * D - 2 * K * D
    assert_same(fitted(X), fitted(unit * X), X, unit, N * D + density)


def waiting_times(x: Any, *, num_components: int) -> None:
    """Gamma in the first column, exponential in the second."""
    weights = numpyro.param("weights", jnp.full(num_components, 1 / num_components), constraint=constraints.simplex)
    shape = numpyro.param("shape", jnp.ones(num_components), constraint=constraints.positive)
    rate = numpyro.param("rate", jnp.ones(num_components), constraint=constraints.positive)
    slow = numpyro.param("slow", jnp.ones(num_components), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Gamma(shape[t], rate[t]), obs=x[:, 0])
        numpyro.sample("y", dist.Exponential(slow[t]), obs=x[:, 1])


@pytest.mark.slow
def test_waiting_times_are_the_same_in_every_unit() -> None:
    x = np.exp(0.5 * X)
    program = functools.partial(waiting_times, num_components=K)
    own = run(program, x)
    for unit in UNITS:
        other = run(program, unit * x)
        # Logs of the unit are added to statistics of size one, and taken out again.
        np.testing.assert_allclose(other.history.elbo + N * D * np.log(unit), own.history.elbo, rtol=1e-8, atol=1e-8)
        for name, power in (("weights", 0), ("shape", 0), ("rate", -1), ("slow", -1)):
            found = np.asarray(other.params[name]) / unit**power
            np.testing.assert_allclose(found, own.params[name], rtol=1e-8, err_msg=name)
        np.testing.assert_allclose(other.responsibilities(unit * x), own.responsibilities(x), rtol=1e-8, atol=1e-8)


@pytest.mark.slow
def test_what_is_impossible_stays_so() -> None:
    """A rate of zero: no density for a row above zero, and the density of one for a row of zero."""

    def counts(x: Any) -> None:
        rate = numpyro.param("rate", jnp.array([0.5, 2.0]), constraint=constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Poisson(rate[t]), obs=x)

    x = np.array([0.0, 0.0, 0.0, 4.0, 6.0])
    found = probem.fit(counts, x, init=probem.Labels((x > 0).astype(int)), families=probem.HARD_EM)
    np.testing.assert_array_equal(found.params["rate"], [0.0, 5.0])
    expected = np.log(0.5) + np.array([0.0, 0.0, 0.0, *stats.poisson(5.0).logpmf(x[3:])])
    assert found.elbo == pytest.approx(expected.sum(), rel=1e-12)
    np.testing.assert_array_equal(found.responsibilities(x)[3:], [[0.0, 1.0]] * 2)
    together = np.logaddexp(np.log(0.5) * np.ones(3), np.log(0.5) + stats.poisson(5.0).logpmf(x[:3]))
    np.testing.assert_allclose(found.log_density(x), [*together, *expected[3:]], rtol=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1e20])
def test_a_closed_form_is_proved_in_the_unit_of_its_gradient(unit: float) -> None:
    """A location that components of different scale share is no plain mean, however flat those scales make F."""

    def program(x: Any) -> None:
        weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
        loc = numpyro.param("loc", jnp.zeros(()))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(weights))
            numpyro.sample("x", dist.Normal(loc, unit * jnp.array([1.0, 3.0])[t]), obs=x)

    known = read(program, (X[:, 0],))
    plan = make_plan(known, choose_families(known, None))
    assert [name for link in plan.closed for name in link.source] == ["weights"]
    assert plan.numeric == ("loc",)
