"""Full posteriors of regression coefficients: exact beside the textbook's, a bound beside NumPyro's draws."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from probem.errors import InputError
from tests.programs.regressions import (
    BAYESIAN,
    GROUP,
    PAIR,
    TIME,
    X,
    Y,
    Z,
    shared_slopes,
    two_outputs,
    with_intercepts,
)

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

VB = probem.VARIATIONAL_BAYES
SPREAD, NOISE = 2.0, 0.7
ONES = np.column_stack([np.ones(120), X])
COVARIANCE = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, -0.4], [0.0, -0.4, 1.5]])


def one_line(y: jax.Array, x: jax.Array, correlated: bool = False) -> None:
    """Bayesian linear regression with a known variance, as a mixture of one component."""
    prior: Any = dist.MultivariateNormal(jnp.ones(3), jnp.asarray(COVARIANCE)).expand([1]).to_event(1)
    independent = dist.Normal(jnp.ones((1, 3)), SPREAD).to_event(2)
    b = numpyro.sample("b", prior if correlated else independent)
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(1)))
        numpyro.sample("y", dist.Normal(b[t, 0] + (x * b[t, 1:]).sum(-1), NOISE), obs=y)


@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("far", [0.0, 100.0])
def test_one_component_is_bayesian_linear_regression(correlated: bool, far: float) -> None:
    """F is the exact log evidence, q the posterior. Source: Bishop (2006), equations 3.50 and 3.58."""
    program = functools.partial(one_line, correlated=correlated)
    prior = COVARIANCE if correlated else SPREAD**2 * np.eye(3)
    design, new = ONES + np.array([0.0, far, 0.0]), np.array([[1.0, 0.3 + far, -2.0], [1.0, 4.0 + far, 1.0]])
    fit = probem.fit(program, Y, design[:, 1:], families=VB)
    precision = np.linalg.inv(prior) + design.T @ design / NOISE**2
    posterior = np.linalg.inv(precision)
    mean = posterior @ (np.linalg.inv(prior) @ np.ones(3) + design.T @ Y / NOISE**2)
    # Numbers of 1e4 squared cancel far away, against a variance of one half.
    tolerance = 1e-7 if far else 1e-10
    np.testing.assert_allclose(fit.variational["b"]["loc"][0], mean, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(fit.variational["b"]["covariance"][0], posterior, rtol=10 * tolerance, atol=tolerance)
    whole = NOISE**2 * np.eye(120) + design @ prior @ design.T
    evidence = scipy.stats.multivariate_normal.logpdf(Y, design @ np.ones(3), whole)
    np.testing.assert_allclose(fit.elbo, evidence, rtol=tolerance)
    variance = NOISE**2 + np.einsum("ni,ij,nj->n", new, posterior, new)
    expected = scipy.stats.norm.logpdf([1.0, 2.0], new @ mean, np.sqrt(variance))
    np.testing.assert_allclose(fit.log_density(np.array([1.0, 2.0]), new[:, 1:]), expected, rtol=10 * tolerance)


def test_a_posterior_that_float32_loses_is_unresolved() -> None:
    """A thousand units from zero an intercept and a slope are one direction, to seven digits."""

    def vague_line(y, x):
        b = numpyro.sample("b", dist.Normal(jnp.zeros((1, 2)), 30.0).to_event(2))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(1)))
            numpyro.sample("y", dist.Normal(b[t, 0] + b[t, 1] * x, NOISE), obs=y)

    y, x = Y.astype(np.float32), (1e3 + X[:, 0]).astype(np.float32)
    with jax.enable_x64(False):
        fit = probem.fit(vague_line, y, x, families=VB, throw=False)
        many = probem.fit_many(vague_line, y[None], x[None], families=VB, throw=False)
        solution = probem.solve(vague_line, y, x, families=VB)
        with pytest.raises(probem.FitError, match=r"rounding decides \(site 'b'\).* centre and scale the covariates"):
            probem.fit(vague_line, y, x, families=VB)
    assert fit.result is many.results[0] is tuple(probem.Result)[int(solution.result)] is probem.Result.UNRESOLVED
    assert probem.fit(vague_line, Y, 1e3 + X[:, 0], families=VB).result is probem.Result.CONVERGED


def test_covariates_that_part_in_few_rows_have_a_bound_of_the_program() -> None:
    """A step in another year for each component: F is that of NumPyro's densities under q."""
    year = np.linspace(1950, 2020, 120)
    y = np.where(GROUP == 0, 2.0 * (year > 1986.0), 5.0 - 3.0 * (year > 1988.1)) + 0.2 * np.sin(np.arange(120.0))

    def steps(y, x):
        b = numpyro.sample("b", dist.Normal(jnp.zeros((2, 2)), 5.0).to_event(2))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
            step = jnp.where(t == 0, x > 1986.0, x > 1988.1)
            numpyro.sample("y", dist.Normal(b[t, 0] + b[t, 1] * step, 0.3), obs=y)

    fit = probem.fit(steps, y, year, families=VB, init=probem.Labels(GROUP))
    design = np.stack([np.stack([np.ones(120), year > cut], 1) for cut in (1986.0, 1988.1)])
    mean, covariance = (np.asarray(fit.variational["b"][name]) for name in ("loc", "covariance"))
    mean, covariance = mean.reshape(2, 2), covariance.reshape(2, 2, 2)
    squares = (y - np.einsum("knp,kp->kn", design, mean)) ** 2 + np.einsum(
        "knp,kpr,knr->kn", design, covariance, design
    )
    table = np.log(0.5) - 0.5 * np.log(2 * np.pi * 0.09) - squares / 0.18
    prior = scipy.stats.norm.logpdf(mean, 0, 5).sum() - np.einsum("kpp->", covariance) / 50
    entropy = sum(scipy.stats.multivariate_normal(mean[k], covariance[k]).entropy() for k in (0, 1))
    np.testing.assert_allclose(fit.elbo, np.logaddexp.reduce(table, axis=0).sum() + prior + entropy, rtol=1e-8)


def test_the_evidence_of_two_lines_is_above_the_bound() -> None:
    """By the sum over all labellings: with coefficients alone uncertain it has a closed form."""

    def two_lines(y, time):
        b = numpyro.sample("b", dist.Normal(jnp.zeros((2, 2)), SPREAD).to_event(2))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.4, 0.6])))
            numpyro.sample("y", dist.Normal(b[t, 0] + b[t, 1] * time, NOISE), obs=y)

    y, time = Z[:6], TIME[:6]
    fit = probem.fit(two_lines, y, time, families=VB, restarts=3)
    design, terms = np.column_stack([np.ones(6), time]), []
    for number in range(2**6):
        labels = np.array([number >> row & 1 for row in range(6)])
        members = np.eye(2)[labels] @ np.eye(2)[labels].T
        covariance = NOISE**2 * np.eye(6) + SPREAD**2 * members * (design @ design.T)
        value = scipy.stats.multivariate_normal.logpdf(y, np.zeros(6), covariance)
        terms.append(value + np.log(np.array([0.4, 0.6])[labels]).sum())
    evidence = np.logaddexp.reduce(terms)
    np.testing.assert_allclose(probem.evidence(two_lines, y, time), evidence, rtol=1e-10)
    assert evidence - 3.0 < fit.elbo < evidence


def test_every_update_is_that_of_a_loop() -> None:
    """One M half-step by NumPy, site after site. Source: Bishop (2006), section 10.3."""
    program = functools.partial(with_intercepts, declared=BAYESIAN)
    first, second = probem.fit(program, Y, X, families=VB, init=probem.Labels(GROUP), max_steps=1, throw=False), None
    for step in probem.iterate(program, Y, X, families=VB, init=probem.Labels(GROUP), throw=False):
        if step.num_steps == 2:
            second = step
            break
    assert second is not None
    q = np.asarray(first.responsibilities(Y, X), float)
    before = {
        name: {key: np.asarray(value) for key, value in arguments.items()}
        for name, arguments in first.variational.items()
    }
    after = {
        name: {key: np.asarray(value) for key, value in arguments.items()}
        for name, arguments in second.variational.items()
    }
    tau = before["s"]["concentration"] / before["s"]["rate"]
    for k in range(2):
        weights, slopes = q[:, k], before["b"]["loc"][k]
        precision = 1 / 9 + tau[k] * weights.sum()
        intercept = tau[k] * weights @ (Y - X @ slopes) / precision
        np.testing.assert_allclose(after["a"]["loc"][k], intercept, rtol=1e-10)
        precisions = np.eye(2) / 9 + tau[k] * (X.T * weights) @ X
        slopes = np.linalg.solve(precisions, tau[k] * X.T @ (weights * (Y - intercept)))
        np.testing.assert_allclose(after["b"]["loc"][k], slopes, rtol=1e-10)
        np.testing.assert_allclose(after["b"]["covariance"][k], np.linalg.inv(precisions), rtol=1e-10)
        square = (Y - intercept - X @ slopes) ** 2 + 1 / precision
        square = square + np.einsum("ni,ij,nj->n", X, np.linalg.inv(precisions), X)
        np.testing.assert_allclose(after["s"]["concentration"][k], 2.0 + 0.5 * weights.sum(), rtol=1e-10)
        np.testing.assert_allclose(after["s"]["rate"][k], 1.0 + 0.5 * weights @ square, rtol=1e-10)
    np.testing.assert_allclose(after["weights"]["concentration"].ravel(), 1.0 + q.sum(0), rtol=1e-10)


def test_shared_slopes_have_one_posterior() -> None:
    fit = probem.fit(functools.partial(shared_slopes, declared=BAYESIAN), Y, X, families=VB, restarts=3)
    assert np.shape(fit.variational["b"]["covariance"]) == (1, 2, 2)


def test_the_predictive_density_of_a_learned_precision_is_refused_beside_uncertain_slopes() -> None:
    fit = probem.fit(functools.partial(with_intercepts, declared=BAYESIAN), Y, X, families=VB)
    with pytest.raises(InputError, match="a location and a precision that are independent under q"):
        fit.log_density(Y, X)
    at_means = np.asarray(fit.log_density(Y[:3], X[:3], plug_in=True))
    scale, mean = (
        np.asarray(fit.params["s"]) ** -0.5,
        np.asarray(fit.params["a"]) + X[:3] @ np.asarray(fit.params["b"]).T,
    )
    table = scipy.stats.norm.logpdf(Y[:3, None], mean, scale) + np.log(np.asarray(fit.params["weights"]))
    np.testing.assert_allclose(at_means, np.logaddexp.reduce(table, axis=1), rtol=1e-9)


def test_the_predictive_density_of_certain_slopes_is_a_student_t() -> None:
    """Points beside a posterior of the precision; of two outputs one may be missing."""
    program = functools.partial(two_outputs, declared=BAYESIAN)
    families = VB | {"a": probem.Delta(), "b": probem.Delta()}
    y = PAIR.copy()
    y[::5, 1] = np.nan
    fit = probem.fit(program, y, X, families=families, init=probem.Labels(GROUP))
    mean = np.asarray(fit.params["a"])[:, None] + np.einsum("nd,kdo->kno", X[:10], np.asarray(fit.params["b"]))
    q = {name: np.asarray(value).reshape(2, 1, 2) for name, value in fit.variational["s"].items()}
    scale = np.sqrt(q["rate"] / q["concentration"])
    table = np.nansum(scipy.stats.t.logpdf(y[:10], 2 * q["concentration"], mean, scale), axis=2).T
    shares = np.asarray(fit.variational["weights"]["concentration"]).ravel()
    expected = np.logaddexp.reduce(table + np.log(shares / shares.sum()), axis=1)
    np.testing.assert_allclose(fit.log_density(y[:10], X[:10]), expected, rtol=1e-10)


def test_f_is_numpyros_elbo_of_the_guide() -> None:
    """Within four standard errors of draws from q, which are few enough for a nat to show."""
    program = functools.partial(with_intercepts, declared=BAYESIAN)
    probem.claim("A6", program, Y[:40], X[:40], families=VB).raise_for_failure()
