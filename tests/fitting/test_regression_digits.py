"""Regressions whose covariates coincide, lie far out or are close to collinear: what sums of products lose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

import probem
from tests.oracles.least_squares import least_squares
from tests.programs.regressions import GROUP, X, maximum_likelihood_weights, positive, real

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

START = probem.Labels(GROUP)


def lines(mean, num_slopes: int, y, x, components: int = 2) -> None:
    """Two regressions around ``mean(t, x, a, b)`` without priors."""
    a, b = real("a", (components,)), real("b", (components, num_slopes))
    s, weights = positive("s", (components,)), maximum_likelihood_weights("weights", (components,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", dist.Normal(mean(t, x, a, b), s[t]), obs=y)


def through_powers(y, x):
    b, s = numpyro.param("b", jnp.zeros((2, x.shape[1]))), positive("s", (2,))
    weights = maximum_likelihood_weights("weights", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", dist.Normal((x * b[t]).sum(-1), s[t]), obs=y)


def test_covariates_that_part_in_few_rows_are_two() -> None:
    """Two steps with eight rows between them; also where many are fitted, and inside a trace."""
    random = np.random.default_rng(1)
    year, group = np.sort(random.uniform(1950, 2020, 500)), np.arange(500) % 2
    first, second = year > 1986.0, year > 1987.3
    assert (first & ~second).sum() == 8
    y = (
        np.array([0.0, 3.0])[group]
        + np.array([1.0, -2.0])[group] * first
        + 9.0 * second
        + 0.3 * random.normal(size=500)
    )
    program = functools.partial(lines, lambda t, x, a, b: a[t] + b[t, 0] * (x > 1986.0) + b[t, 1] * (x > 1987.3), 2)
    elbo, params = least_squares(y, np.column_stack([first, second, np.ones(500)]))
    start = probem.Labels(group)
    fit = probem.fit(program, y, year, init=start)
    assert not fit.plan.form.generic
    # A rule that stops at a rise of 1e-10 a row leaves less than that times the rows over.
    np.testing.assert_allclose(fit.elbo, elbo, atol=1e-5)
    np.testing.assert_allclose(fit.params["b"], params["coefficients"][:, :2], atol=1e-4)
    many = probem.fit_many(program, y[None], year[None], init=probem.Labels(group[None]))
    solution = probem.solve(program, y, year, init=start)
    np.testing.assert_allclose([many.elbo[0], solution.elbo], elbo, atol=1e-5)


def test_rows_that_were_not_fitted_have_the_density_of_the_program() -> None:
    """A covariate that is 1 in all rows of the fit, and 0 in a new one."""
    random = np.random.default_rng(2)
    x = random.uniform(1.0, 3.0, 120)
    y = np.array([0.0, 5.0])[GROUP] + np.array([1.0, -1.0])[GROUP] * x + 0.2 * random.normal(size=120)
    program = functools.partial(lines, lambda t, x, a, b: a[t] + b[t, 0] * (x != 0) + b[t, 1] * x, 2)
    fit = probem.fit(program, y, x, init=START)
    assert not fit.plan.form.generic
    means = (fit.params["a"][:, None] + fit.params["b"] @ np.array([[1.0, 0.0], [2.0, 0.0]])).T
    table = np.log(fit.params["weights"]) + scipy.stats.norm.logpdf(np.array([[0.0], [0.5]]), means, fit.params["s"])
    got = fit.log_density(np.array([0.0, 0.5]), np.array([2.0, 0.0]))
    np.testing.assert_allclose(got, np.logaddexp.reduce(table, axis=1), rtol=1e-10)


def test_a_constant_column_far_from_a_covariate() -> None:
    """Beside z + 10^8 a column of ones is no direction of its own to second moments."""
    z = np.random.default_rng(3).normal(size=120)
    y = np.array([0.0, 4.0])[GROUP] + np.array([1.0, -1.0])[GROUP] * z + 0.3 * np.sin(np.arange(120.0))
    elbo, _ = least_squares(y, np.column_stack([np.ones(120), z]))
    fit = probem.fit(through_powers, y, np.column_stack([np.ones(120), z + 1e8]), init=START)
    assert fit.plan.form.generic == ("y",)
    np.testing.assert_allclose(fit.elbo, elbo, atol=1e-4)
    many = probem.fit_many(
        through_powers, y[None], np.column_stack([np.ones(120), z + 1e8])[None], init=probem.Labels(GROUP[None])
    )
    np.testing.assert_allclose(many.elbo, elbo, atol=1e-4)
    solution = probem.solve(through_powers, y, np.column_stack([np.ones(120), z + 1e8]), init=START)
    assert tuple(probem.Result)[int(solution.result)] is probem.Result.UNRESOLVED
    steps = list(probem.iterate(through_powers, y, np.column_stack([np.ones(120), z + 1e8]), init=START, throw=False))
    assert steps[-1].plan.form.generic == ("y",)


def test_a_covariate_that_is_constant_in_a_component_has_no_slope() -> None:
    """Not one of rounding; the rows say that nothing was lost."""
    x = np.where(GROUP == 0, np.sin(np.arange(120.0)), 2.7)
    y = np.where(GROUP == 0, x, 5.0) + 0.1 * np.cos(np.arange(120.0))
    program = functools.partial(lines, lambda t, x, a, b: a[t] + b[t, 0] * x, 1)
    fit = probem.fit(program, y, x, init=START)
    assert not fit.plan.form.generic
    assert fit.params["b"][1, 0] == 0.0
    np.testing.assert_allclose(fit.params["b"][0, 0], np.polyfit(x[GROUP == 0], y[GROUP == 0], 1)[0], rtol=1e-6)


@pytest.mark.parametrize("distance", [1e3, 1e8])
def test_rows_far_out_keep_the_digits_of_their_residuals(distance: float) -> None:
    """Terms of size 1e17 cancel in a density of size 1."""
    x = X[:, 0]
    y = GROUP + 2.0 * x + 0.3 * np.sin(np.arange(120.0))
    fit = probem.fit(functools.partial(lines, lambda t, x, a, b: a[t] + b[t, 0] * x, 1), y, x, init=START)
    a, b, s, weights = (np.asarray(fit.params[site]) for site in ("a", "b", "s", "weights"))
    new = distance * np.array([1.0, -1.0, 0.5])
    value = a[0] + b[0, 0] * new + 0.2
    table = np.log(weights) + scipy.stats.norm.logpdf(value[:, None], a + b[:, 0] * new[:, None], s)
    # A value of 1e8 has 1e-8 of rounding, of a deviation of 0.3.
    np.testing.assert_allclose(fit.log_density(value, new), np.logaddexp.reduce(table, axis=1), rtol=1e-5)
    np.testing.assert_allclose(fit.responsibilities(value, new), scipy.special.softmax(table, axis=1), atol=1e-6)


def test_a_slope_that_is_lost_on_the_way_is_not_lost_in_the_end() -> None:
    """Of two lines that are 10^7 apart the first sums say nothing of the slopes, and EM would go elsewhere."""
    unit = np.sin(np.arange(120.0))
    x = 1e7 * GROUP + 0.3 * unit
    y = np.where(GROUP == 0, unit, 5 - 2 * unit) + 0.1 * np.cos(3.0 * np.arange(120))
    program = functools.partial(lines, lambda t, x, a, b: a[t] + b[t, 0] * x, 1)
    fit = probem.fit(program, y, x, init=START)
    assert fit.plan.form.generic == ("y",)
    expected = [np.polyfit(x[GROUP == k] - 1e7 * k, y[GROUP == k], 1)[0] for k in (0, 1)]
    np.testing.assert_allclose(fit.params["b"][:, 0], expected, rtol=1e-2)
    many = probem.fit_many(program, y[None], x[None], init=probem.Labels(GROUP[None]), throw=False)
    assert many.plan.form.generic == ("y",)
    solution = probem.solve(program, y, x, init=START)
    assert tuple(probem.Result)[int(solution.result)] is probem.Result.UNRESOLVED


def test_rows_of_much_leverage_in_float32() -> None:
    """F is that of the program at the parameters; by sums of products it would be nats too high."""
    random = np.random.default_rng(5)
    x = random.normal(size=20000)
    x[:4] = [500.0, -500.0, 400.0, -400.0]
    group = np.arange(20000) % 2
    y = 0.8 * group + 2.0 * x + 0.3 * random.normal(size=20000)
    y[:4] = 2.0 * x[:4] + 0.4
    y, x = y.astype(np.float32), x.astype(np.float32)
    program = functools.partial(lines, lambda t, x, a, b: a[t] + b[t, 0] * x, 1)
    with jax.enable_x64(False):
        fit = probem.fit(program, y, x, init=probem.Labels(group))
        solution = probem.solve(program, y, x, init=probem.Labels(group))
    a, b, s, weights = (np.asarray(fit.params[site], float) for site in ("a", "b", "s", "weights"))
    table = np.log(weights) + scipy.stats.norm.logpdf(y[:, None].astype(float), a + b[:, 0] * x[:, None], s)
    np.testing.assert_allclose(fit.elbo, np.logaddexp.reduce(table, axis=1).sum(), rtol=1e-5)
    assert tuple(probem.Result)[int(solution.result)] is probem.Result.UNRESOLVED


def test_components_that_are_tight_beside_their_distance_in_float32() -> None:
    """A slope of 33 through a tenth of a unit, a hundred units from the other component: the rows have digits that
    their second moments about one origin have not.
    """
    unit = np.sin(np.arange(120.0))
    x = (100.0 * GROUP + 0.3 * unit).astype(np.float32)
    y = (np.where(GROUP == 0, unit, 5 - 2 * unit) + 0.1 * np.cos(3.0 * np.arange(120))).astype(np.float32)
    program = functools.partial(lines, lambda t, x, a, b: a[t] + b[t, 0] * x, 1)
    with jax.enable_x64(False):
        # Its gradient ends where rounding lets the bound fall, and says so.
        fit = probem.fit(program, y, x, init=START, throw=False)
    assert fit.plan.form.generic == ("y",)
    expected = [np.polyfit(x[GROUP == k].astype(float), y[GROUP == k], 1)[0] for k in (0, 1)]
    np.testing.assert_allclose(fit.params["b"][:, 0], expected, rtol=2e-2)


@pytest.mark.parametrize("powers", [3, 4])
def test_powers_of_a_year_have_the_fit_of_centred_ones(powers: int) -> None:
    """What second moments cannot tell apart (the cubic, in float64) the gradient of the program fits."""
    year = np.linspace(1960, 2020, 120)
    unit = (year - 1990) / 30
    y = np.array([0.0, 4.0])[GROUP] + np.array([1.0, -1.0])[GROUP] * unit + 2 * unit**2 + 0.3 * np.sin(np.arange(120.0))
    elbo, _ = least_squares(y, np.stack([unit**power for power in range(powers)], 1))
    design = np.stack([year**power for power in range(powers)], 1)
    fit = probem.fit(through_powers, y, design, init=START)
    assert fit.plan.form.generic == (("y",) if powers == 4 else ())
    np.testing.assert_allclose(fit.elbo, elbo, atol=1e-4)
