"""Mixtures of counts with exposures and numbers of trials: EM and full posteriors beside plain loops."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from numpyro.distributions import constraints

import probem

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(8)
GROUP = np.arange(150) % 2
SIZE = RANDOM.integers(1, 30, 150)
EXPOSURE = RANDOM.uniform(0.2, 5.0, 150)
SUCCESSES = RANDOM.binomial(SIZE, np.array([0.2, 0.6])[GROUP])
FAILURES = RANDOM.negative_binomial(SIZE, np.array([0.8, 0.3])[GROUP])
EVENTS = RANDOM.poisson(EXPOSURE * np.array([1.0, 6.0])[GROUP])
START = probem.Labels(GROUP)
VB = probem.VARIATIONAL_BAYES


def mixture(observed: Callable[..., Any], bayesian: bool, is_rate: bool, y, beside) -> None:
    """Two components with a number each, in the interval or positive."""
    if bayesian:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
        prior = dist.Gamma(2.0, 0.5) if is_rate else dist.Beta(2.0, 3.0)
        value = numpyro.sample("value", prior.expand([2]).to_event(1))
    else:
        weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
        constraint = constraints.positive if is_rate else constraints.unit_interval
        value = numpyro.param("value", jnp.array([0.3, 0.6]), constraint=constraint)
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", observed(value[t], beside), obs=y)


def poisson(rate, exposure):
    return dist.Poisson(rate * exposure)


def negative_binomial(probs, size):
    return dist.NegativeBinomialProbs(size, probs)


# The distribution, data, whether the number is a rate, and the two statistics that say all of the rows.
COUNTS: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, np.ndarray], bool, tuple[np.ndarray, np.ndarray]]] = {
    "poisson": (poisson, (EVENTS, EXPOSURE), True, (EVENTS, EXPOSURE)),
    "binomial": (dist.BinomialProbs, (SUCCESSES, SIZE), False, (SUCCESSES, SIZE - SUCCESSES)),
    "negative binomial": (negative_binomial, (FAILURES, SIZE), False, (FAILURES, SIZE)),
}


# The log beta function of JAX, by which NumPyro has the negative binomial distribution, has seven digits.
PRECISION = {"poisson": 1e-9, "binomial": 1e-9, "negative binomial": 1e-7}


def log_likelihood(name: str, value: np.ndarray) -> np.ndarray:
    """SciPy's, [N, K]."""
    y, beside = (each[:, None] for each in COUNTS[name][1])
    if name == "poisson":
        return scipy.stats.poisson.logpmf(y, beside * value)
    if name == "binomial":
        return scipy.stats.binom.logpmf(y, beside, value)
    return scipy.stats.nbinom.logpmf(y, beside, 1 - value)


@pytest.mark.parametrize("name", COUNTS)
def test_em_is_that_of_a_loop(name: str) -> None:
    observed, data, is_rate, (first, second) = COUNTS[name]
    program = functools.partial(mixture, observed, False, is_rate)
    fit = probem.fit(program, *data, init=START)
    assert not fit.plan.form.generic
    assert {site for link in fit.plan.closed for site in link.source} == {"value", "weights"}
    q, trajectory = np.eye(2)[GROUP], []
    for _ in range(fit.num_steps + 1):
        weights, value = q.mean(0), (q.T @ first) / (q.T @ (second if is_rate else first + second))
        table = np.log(weights) + log_likelihood(name, value)
        trajectory.append(np.logaddexp.reduce(table, axis=1).sum())
        q = scipy.special.softmax(table, axis=1)
    after_e_steps = fit.history.elbo[::2]
    np.testing.assert_allclose(after_e_steps, trajectory[: len(after_e_steps)], rtol=PRECISION[name])
    new = tuple(each[:7] for each in data)
    table = np.log(fit.params["weights"]) + log_likelihood(name, np.asarray(fit.params["value"]))[:7]
    np.testing.assert_allclose(fit.log_density(*new), np.logaddexp.reduce(table, axis=1), rtol=PRECISION[name])


@pytest.mark.parametrize("name", COUNTS)
def test_full_posteriors_are_those_of_a_loop(name: str) -> None:
    """Coordinate ascent by the conjugate updates, and F term by term."""
    observed, data, is_rate, (first, second) = COUNTS[name]
    program = functools.partial(mixture, observed, True, is_rate)
    fit = probem.fit(program, *data, families=VB, init=START)
    prior = np.array([2.0, 0.5]) if is_rate else np.array([2.0, 3.0])
    base = log_likelihood(name, np.array([0.5]))[:, 0]
    base = base - (first * np.log(0.5) + second * (-0.5 if is_rate else np.log(0.5)))
    q, digamma, gammaln = np.eye(2)[GROUP], scipy.special.digamma, scipy.special.gammaln
    for _ in range(fit.num_steps + 5):
        alpha = 1.0 + q.sum(0)
        a, b = prior[0] + q.T @ first, prior[1] + q.T @ second
        if is_rate:
            logs = digamma(a) - np.log(b), -a / b
            kl = (a - prior[0]) * digamma(a) - gammaln(a) + gammaln(prior[0])
            kl = kl + prior[0] * np.log(b / prior[1]) + a * (prior[1] - b) / b
        else:
            logs = digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)
            log_beta = scipy.special.betaln
            kl = log_beta(*prior) - log_beta(a, b) + (a - prior[0]) * digamma(a) + (b - prior[1]) * digamma(b)
            kl = kl + (prior.sum() - a - b) * digamma(a + b)
        log_weights = digamma(alpha) - digamma(alpha.sum())
        table = base[:, None] + log_weights + np.outer(first, logs[0]) + np.outer(second, logs[1])
        q = scipy.special.softmax(table, axis=1)
        elbo = scipy.special.logsumexp(table, axis=1).sum() - kl.sum()
        elbo -= gammaln(alpha.sum()) - gammaln(alpha).sum() - gammaln(2.0) + ((alpha - 1) * log_weights).sum()
    np.testing.assert_allclose(fit.elbo, elbo, rtol=10 * PRECISION[name])
    assert np.isfinite(fit.log_density(*(each[:5] for each in data))).all()


@pytest.mark.parametrize("bayesian", [False, True])
@pytest.mark.parametrize("name", COUNTS)
def test_the_theory_holds(name: str, bayesian: bool) -> None:
    observed, data, is_rate, _ = COUNTS[name]
    program = functools.partial(mixture, observed, bayesian, is_rate)
    few = tuple(each[:40] for each in data)
    probem.check(program, *few, families=VB if bayesian else None).raise_for_failure()


def test_a_size_that_is_learned_keeps_to_the_gradient() -> None:
    def dispersed(y):
        size = numpyro.param("size", jnp.array([1.0, 3.0]), constraint=constraints.positive)
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
            numpyro.sample("y", dist.NegativeBinomialProbs(size[t], 0.5), obs=y)

    fit = probem.fit(dispersed, FAILURES, init=START, throw=False, max_steps=5)
    assert fit.plan.form.generic == ("y",)


def test_a_size_of_each_component_keeps_to_the_gradient() -> None:
    """The number of trials is no number of the data alone."""

    def unlike(y):
        value = numpyro.param("value", jnp.array([0.3, 0.6]), constraint=constraints.unit_interval)
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
            numpyro.sample("y", dist.BinomialProbs(value[t], jnp.array([30, 40])[t]), obs=y)

    fit = probem.fit(unlike, SUCCESSES, init=START, throw=False, max_steps=5)
    assert fit.plan.form.generic == ("y",)


def test_an_exposure_is_no_missing_value() -> None:
    with pytest.raises(probem.InputError):
        probem.fit(
            functools.partial(mixture, poisson, False, True),
            EVENTS.astype(float),
            np.where(np.arange(150) == 3, np.nan, EXPOSURE),
        )


def test_counts_that_are_missing_are_rows_that_are_not_there() -> None:
    y = np.where(np.arange(150) % 5 == 0, np.nan, SUCCESSES)
    program = functools.partial(mixture, dist.BinomialProbs, False, False)
    fit = probem.fit(program, y, SIZE, init=START)
    there = ~np.isnan(y)
    fewer = probem.fit(program, SUCCESSES[there], SIZE[there], init=probem.Labels(GROUP[there]))
    np.testing.assert_allclose(fit.params["value"], fewer.params["value"], rtol=1e-4)
    np.testing.assert_allclose(fit.elbo, fewer.elbo, rtol=1e-6)
