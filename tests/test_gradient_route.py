"""The gradient route where densities become zero: against SciPy, from where a fit stops."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.optimize
import scipy.stats
from jax.scipy.stats import norm

import probem
from probem.expectation import _finite_vjp, is_finite


def test_a_slope_of_infinity_counts_nothing_where_its_weight_is_zero() -> None:
    weights = jnp.array([0.0, 1.0, 2.0])
    value, back = _finite_vjp(lambda at: jnp.log(at), jnp.array([0.0, 0.5, 4.0]))
    assert value[0] == -jnp.inf
    np.testing.assert_allclose(back(weights), [0.0, 2.0, 0.5])
    # Reverse mode by itself loses the gradient of all rows.
    assert jnp.isnan(jax.vjp(jnp.log, jnp.array([0.0, 0.5, 4.0]))[1](weights)[0][0])
    # A weight above zero leaves what nobody takes for a small slope.
    assert not is_finite(back(weights.at[0].set(1e-10)))
    assert is_finite(back(weights))


def test_second_derivatives_skip_what_has_no_weight() -> None:
    def gradient(at: jax.Array) -> jax.Array:
        return _finite_vjp(jnp.log, at)[1](jnp.array([0.0, 1.0, 2.0]))

    hessian = jax.jvp(gradient, (jnp.array([0.0, 0.5, 4.0]),), (jnp.ones(3),))[1]
    np.testing.assert_allclose(hessian, [0.0, -4.0, -0.125])


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


def test_a_gate_that_closes_to_rounding_is_climbed_to_its_maximum() -> None:
    fit = probem.fit(gated, X, Y)
    assert fit.result is probem.Result.CONVERGED
    stopped = np.concatenate([np.ravel(fit.params[name]) for name in ("a", "b", "loc")])
    np.testing.assert_allclose(fit.elbo, -negative(stopped), rtol=1e-12)
    # The maximum lies at an infinite slope: what is left of it falls with the slope's inverse.
    assert negative(stopped) - scipy.optimize.minimize(negative, stopped).fun < 1e-4
