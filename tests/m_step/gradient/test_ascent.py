"""The gradient route where densities become zero: against SciPy, from where a fit stops."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from jax.scipy.stats import norm

import probem
import probem.stopping
from probem.models import diagonal, gmm

positive = dist.constraints.positive
X = np.linspace(-20.0, 20.0, 60)
Y = np.where(X < 1, 0.0, 5.0) + np.random.default_rng(0).normal(size=60)


def gated(x: jax.Array, y: jax.Array) -> None:
    """The gate is exactly 0 or 1 on most rows."""
    a, b = numpyro.param("a", 0.0), numpyro.param("b", 2.0)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    p = norm.cdf(a + b * x)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.stack([1 - p, p], -1)))
        numpyro.sample("y", dist.Normal(loc[t] + 0.1 * x, 1.0), obs=y)


def negative(u: np.ndarray) -> float:
    """Minus the log likelihood, with logarithms of both tails."""
    gate = u[0] + u[1] * X
    low = scipy.stats.norm.logsf(gate) + scipy.stats.norm.logpdf(Y, u[2] + 0.1 * X)
    high = scipy.stats.norm.logcdf(gate) + scipy.stats.norm.logpdf(Y, u[3] + 0.1 * X)
    return -np.logaddexp(low, high).sum()


@pytest.mark.slow
def test_a_gate_that_closes_to_rounding_is_climbed_to_its_maximum() -> None:
    fit = probem.fit(gated, X, Y)
    assert fit.result is probem.Result.CONVERGED
    stopped = np.concatenate([np.ravel(fit.params[name]) for name in ("a", "b", "loc")])
    np.testing.assert_allclose(fit.elbo, -negative(stopped), rtol=1e-12)
    # The maximum lies at an infinite slope: what is left of it falls with the slope's inverse.
    assert negative(stopped) - scipy.optimize.minimize(negative, stopped).fun < 1e-4


class Gate(dist.Distribution):
    """A Bernoulli distribution whose probabilities may be 0 and 1: NumPyro's own keeps them apart from these."""

    support = dist.constraints.boolean

    def __init__(self, p: jax.Array) -> None:
        self.p = p
        super().__init__(jnp.shape(p))

    def log_prob(self, value: Any) -> jax.Array:
        return jnp.log(jnp.where(value == 1, self.p, 1 - self.p))


def gated_by_group(x: jax.Array, group: jax.Array, sign: jax.Array, y: jax.Array) -> None:
    """Shares that are looked up, beside probabilities that are exactly 0 or 1 on most rows."""
    theta = numpyro.param("theta", jnp.full((2, 2), 0.5), constraint=dist.constraints.simplex)
    a = numpyro.param("a", 0.0)
    p = norm.cdf(a + 2 * x)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(theta[group]))
        numpyro.sample("sign", Gate(jnp.where(t == 1, p, 1 - p)), obs=sign)
        numpyro.sample("y", dist.Normal(jnp.array([-1.0, 1.0])[t], 1.0), obs=y)


@pytest.mark.slow
def test_shares_are_climbed_where_reverse_mode_loses_the_gradient() -> None:
    random = np.random.default_rng(4)
    x, group = random.uniform(-30.0, 30.0, 200), np.repeat([0, 1], 100)
    t = random.random(200) < np.array([0.2, 0.7])[group]
    sign = (random.random(200) < scipy.stats.norm.cdf(0.5 + 2 * x)) == t
    y = np.where(t, 1.0, -1.0) + random.normal(size=200)

    def table(u: np.ndarray) -> np.ndarray:
        gate = np.where(sign, 1, -1) * (u[2] + 2 * x)
        second = scipy.special.log_expit(u[group]) + scipy.stats.norm.logcdf(gate) + scipy.stats.norm.logpdf(y, 1)
        first = scipy.special.log_expit(-u[group]) + scipy.stats.norm.logsf(gate) + scipy.stats.norm.logpdf(y, -1)
        return np.stack([first, second], 1)

    fit = probem.fit(gated_by_group, x, group, sign.astype(int), y)
    assert fit.result is probem.Result.CONVERGED
    theta = np.asarray(fit.params["theta"])
    stopped = np.append(scipy.special.logit(theta[:, 1]), fit.params["a"])
    likelihood = np.logaddexp.reduce(table(stopped), axis=1).sum()
    np.testing.assert_allclose(fit.elbo, likelihood, rtol=1e-12)
    best = scipy.optimize.minimize(lambda u: -np.logaddexp.reduce(table(u), axis=1).sum(), stopped, tol=1e-10)
    assert -best.fun - likelihood < 1e-6
    q = scipy.special.softmax(table(stopped), axis=1)
    np.testing.assert_allclose(theta, [q[:100].mean(0), q[100:].mean(0)], atol=1e-5)


def circular(x: jax.Array) -> None:
    """Two von Mises distributions."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros(2))
    concentration = numpyro.param("concentration", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.VonMises(loc[t], concentration[t]), obs=x)


ANGLES = np.concatenate([np.random.default_rng(2).vonmises(loc, 3.0, 100) for loc in (-1.5, 1.5)])


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-10, probem.stopping.BoundChange(1e3)])
def test_every_way_to_fit_starts_alike(tolerance: Any) -> None:
    """The steps under the q of a start end by a rule of their own, whether the loop makes them or a trace."""
    fit = probem.fit(circular, ANGLES, tolerance=tolerance)
    solved = probem.solve(circular, ANGLES, tolerance=tolerance)
    many = probem.fit_many(circular, ANGLES[None], key=0, init=probem.Labels(ANGLES[None] > 0), tolerance=tolerance)
    again = probem.fit(circular, ANGLES, init=probem.Labels(ANGLES > 0), tolerance=tolerance)
    np.testing.assert_allclose([float(solved.elbo), many[0].elbo], [fit.elbo, again.elbo], rtol=1e-10)
    assert (int(solved.num_steps), many[0].num_steps) == (fit.num_steps, again.num_steps)
    if isinstance(tolerance, float):
        sparse = probem.fit(circular, ANGLES, families={"t": probem.TopC(2)}, tolerance=tolerance)
        np.testing.assert_allclose(sparse.history.elbo[0], fit.history.elbo[0], rtol=1e-8)


def three_gated(x: jax.Array, y: jax.Array) -> None:
    """A gate that is exactly 0 or 1 on most rows, and shares behind it."""
    a, b = numpyro.param("a", 0.0), numpyro.param("b", 2.0)
    behind = numpyro.param("behind", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc, scale = numpyro.param("loc", jnp.zeros(3)), numpyro.param("scale", jnp.ones(3), constraint=positive)
    p = norm.cdf(a + b * x)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.stack([1 - p, p * behind[0], p * behind[1]], -1)))
        numpyro.sample("y", dist.Normal(loc[t], scale[t]), obs=y)


@pytest.mark.slow
def test_a_label_is_held_where_a_gate_would_close_on_it() -> None:
    """From the labels that rows were drawn with, from responsibilities near them, and from seeds: one maximum."""
    random, x = np.random.default_rng(0), np.linspace(-30.0, 30.0, 300)
    z = np.where(x < 0.3, 0, np.where(random.random(300) < 0.4, 1, 2))
    y = np.array([-3.0, 0.0, 4.0])[z] + random.normal(size=300)
    near = probem.fit(three_gated, x, y, init=probem.Responsibilities(0.9 * np.eye(3)[z] + 0.1 / 3), throw=False)
    for start in ({"init": probem.Labels(z)}, {"key": 0}, {"key": 2}):
        fit = probem.fit(three_gated, x, y, throw=False, **start)
        # The slope of the gate has its maximum at infinity.
        np.testing.assert_allclose(fit.elbo, near.elbo, rtol=0, atol=1e-4)


def heavy(x: jax.Array) -> None:
    """Two distributions of Student's t, each with degrees of freedom of its own."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros(2))
    scale, df = (numpyro.param(name, jnp.full(2, 3.0), constraint=positive) for name in ("scale", "df"))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.StudentT(df[t], loc[t], scale[t]), obs=x)


@pytest.mark.slow
def test_degrees_of_freedom_stop_before_the_density_loses_its_digits() -> None:
    """Rows of two uniform distributions have tails lighter than normal: the supremum is that of two normals."""
    random = np.random.default_rng(4)
    x = np.concatenate([random.uniform(-6, -2, 200), random.uniform(2, 6, 300)])
    fit = probem.fit(heavy, x)
    normal = probem.fit(functools.partial(gmm, num_components=2, covariance=diagonal), x[:, None])
    # Beyond 1e8 degrees of freedom NumPyro's density is off by 1e-7 a row and more.
    assert normal.elbo - 1e-3 < fit.elbo < normal.elbo + 1e-4
