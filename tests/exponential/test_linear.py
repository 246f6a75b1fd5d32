"""The normal distribution around a linear predictor: its density, and its least squares, beside NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from probem.exponential import LinearNormal, Location

N, K, P = 60, 3, 4


def _drawn(has_intercept, seed=0, far=0.0):
    """Rows [N, 1 + P], coefficients [K, Q], standard deviations [K], weights [N, K] and an origin."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(N, 1 + P)) + far
    coefficients, scale = random.normal(size=(K, P + has_intercept)), random.uniform(0.5, 2.0, K)
    return rows, coefficients, scale, random.uniform(size=(N, K)) ** 2, random.normal(size=1 + P) + far


def _design(rows, has_intercept):
    return np.column_stack([rows[:, 1:], np.ones(N)]) if has_intercept else rows[:, 1:]


def _arguments(coefficients, scale, origin):
    free = np.ones(coefficients.shape)
    named = {"coefficients": coefficients, "scale": scale, "free": free, "origin": origin}
    return {name: jnp.asarray(value) for name, value in named.items()}


@pytest.mark.parametrize("has_intercept", [True, False])
def test_the_density_is_that_of_scipy_about_any_origin(has_intercept):
    rows, coefficients, scale, _, origin = _drawn(has_intercept)
    view, arguments = LinearNormal(P, has_intercept), _arguments(coefficients, scale, origin)
    with jax.numpy_rank_promotion("raise"):
        statistics = view.statistics(jnp.asarray(rows - origin))
        natural, log_normaliser = view.natural_and_log_normaliser(arguments)
        base = view.log_base_measure(jnp.asarray(rows))
    table = statistics @ natural.T - log_normaliser[None] + base[:, None]
    expected = scipy.stats.norm.logpdf(rows[:, :1], _design(rows, has_intercept) @ coefficients.T, scale)
    # Terms of the size of some hundred cancel.
    np.testing.assert_allclose(table, expected, atol=1e-12)


@pytest.mark.parametrize("has_intercept", [True, False])
def test_expectations_under_uncertain_coefficients(has_intercept):
    """E[log p] falls below log p at the mean by the variance of the predictor, over twice the variance."""
    rows, coefficients, scale, _, origin = _drawn(has_intercept)
    view, arguments = LinearNormal(P, has_intercept), _arguments(coefficients, scale, origin)
    random = np.random.default_rng(1)
    roots = random.normal(size=(K, P + has_intercept, P + has_intercept))
    covariance = roots @ np.swapaxes(roots, 1, 2)
    precision = view.argument_statistics(arguments)
    location = Location(jnp.asarray(coefficients), jnp.asarray(covariance))
    with jax.numpy_rank_promotion("raise"):
        natural, log_normaliser = view.expected(precision, location, arguments)
    table = view.statistics(jnp.asarray(rows - origin)) @ natural.T - log_normaliser[None] - 0.5 * np.log(2 * np.pi)
    design = _design(rows, has_intercept)
    at_mean = scipy.stats.norm.logpdf(rows[:, :1], design @ coefficients.T, scale)
    variance = np.einsum("nq,kqr,nr->nk", design, covariance, design)
    np.testing.assert_allclose(table, at_mean - 0.5 * variance / scale**2, rtol=1e-11)


def _fitted(view, rows, weights, arguments):
    origin = np.average(rows, axis=0)
    arguments = {**arguments, "origin": jnp.asarray(origin)}
    mean_statistics = weights.T @ view.statistics(jnp.asarray(rows - origin)) / weights.sum(0)[:, None]
    for name in view.argument_names:
        moment = view.moment(name, mean_statistics, arguments)
        arguments = {**arguments, name: view.from_moment(name, moment, arguments)}
    return mean_statistics, arguments


@pytest.mark.parametrize(("has_intercept", "far"), [(True, 0.0), (False, 0.0), (True, 1e6)])
def test_moments_are_those_of_least_squares(has_intercept, far):
    """Far from zero with an intercept alone: lines through zero are nearly one there."""
    rows, coefficients, scale, weights, origin = _drawn(has_intercept, far=far)
    view = LinearNormal(P, has_intercept)
    _, arguments = _fitted(view, rows, weights, _arguments(coefficients, scale, origin))
    near = rows - far
    for k in range(K):
        root = np.sqrt(weights[:, k])
        solution = np.linalg.lstsq(_design(near, has_intercept) * root[:, None], near[:, 0] * root, rcond=None)[0]
        # The condition number of the normal equations, below 100, times the rounding of rows at 1e6 in their products.
        tolerance = 1e-8 if far else 1e-11
        np.testing.assert_allclose(arguments["coefficients"][k, :P], solution[:P], rtol=tolerance, atol=tolerance)
        residual = near[:, 0] - _design(near, has_intercept) @ solution
        variance = np.average(residual**2, weights=weights[:, k])
        np.testing.assert_allclose(arguments["scale"][k] ** 2, variance, rtol=1e-7 if far else 1e-11)


def test_coefficients_that_are_zero_for_good_stay_so():
    """Component 0 has no intercept, component 1 no second slope."""
    rows, coefficients, scale, weights, origin = _drawn(True)
    view, arguments = LinearNormal(P, True), _arguments(coefficients, scale, origin)
    free = np.ones((K, P + 1))
    free[0, P] = free[1, 1] = 0.0
    _, arguments = _fitted(view, rows, weights, {**arguments, "free": jnp.asarray(free)})
    for k in range(K):
        root, used = np.sqrt(weights[:, k]), free[k] > 0
        design = _design(rows, True)[:, used]
        solution = np.linalg.lstsq(design * root[:, None], rows[:, 0] * root, rcond=None)[0]
        np.testing.assert_allclose(np.asarray(arguments["coefficients"][k])[used], solution, rtol=1e-10)
        assert (np.asarray(arguments["coefficients"][k])[~used] == 0).all()


def test_of_several_solutions_the_shortest():
    """A column that stands twice, in another unit: each takes half, in units of the columns."""
    rows, coefficients, scale, weights, origin = _drawn(True)
    rows[:, 2] = 5.0 * rows[:, 1]
    view = LinearNormal(P, True)
    _, arguments = _fitted(view, rows, weights, _arguments(coefficients, scale, origin))
    for k in range(K):
        root = np.sqrt(weights[:, k])
        solution = np.linalg.lstsq(_design(rows, True) * root[:, None], rows[:, 0] * root, rcond=None)[0]
        fitted = _design(rows, True) @ np.asarray(arguments["coefficients"][k])
        np.testing.assert_allclose(fitted, _design(rows, True) @ solution, atol=1e-10)
    np.testing.assert_allclose(arguments["coefficients"][:, 1] * 5.0, arguments["coefficients"][:, 0], rtol=1e-9)


def test_rows_that_a_line_meets_are_collapsed():
    rows, coefficients, scale, weights, origin = _drawn(True)
    rows[:, 0] = rows[:, 1:] @ np.arange(1.0, P + 1) + 2.0
    weights[: N // 2, 0] = 0.0
    view = LinearNormal(P, True)
    mean_statistics, arguments = _fitted(view, rows, weights, _arguments(coefficients, scale, origin))
    assert view.degenerate(mean_statistics, arguments).all()
    rows[:, 0] += 1e-4 * np.random.default_rng(0).normal(size=N)
    mean_statistics, arguments = _fitted(view, rows, weights, arguments)
    assert not view.degenerate(mean_statistics, arguments).any()


def test_the_matrix_of_a_density_and_the_sums_of_products():
    """``canonical`` and ``packed`` are the statistics as a vector and a matrix."""
    rows, coefficients, scale, weights, origin = _drawn(True)
    view = LinearNormal(P, True)
    natural = view.natural(_arguments(coefficients, scale, origin))
    linear, matrix = view.canonical(natural)
    inner = rows @ linear.T - 0.5 * np.einsum("ni,kij,nj->nk", rows, matrix, rows)
    np.testing.assert_allclose(inner, view.statistics(jnp.asarray(rows)) @ natural.T, rtol=1e-11)
    sums = view.packed(jnp.asarray(weights.T @ rows), jnp.einsum("nk,ni,nj->kij", weights, rows, rows))
    np.testing.assert_allclose(sums, weights.T @ view.statistics(jnp.asarray(rows)), rtol=1e-12)
    noise = view.spread(jnp.asarray(0.7))
    np.testing.assert_allclose(noise @ natural[0], -0.5 * 0.7 / scale[0] ** 2, rtol=1e-12)


def test_an_intercept_alone_is_the_mean() -> None:
    """A location that is a known offset and a parameter has no covariate."""
    view = LinearNormal(0, True)
    y = jnp.asarray([1.0, 2.0, 6.0])[:, None]
    mean = view.statistics(y).mean(0)
    arguments = {"coefficients": jnp.zeros(1), "free": jnp.ones(1), "scale": jnp.ones(())}
    np.testing.assert_allclose(view.moment("coefficients", mean, arguments), [3.0])
    assert view.condition(mean, arguments) == 1.0
    assert view.rank(mean, arguments) == 0


def test_a_constant_covariate_has_no_slope():
    """Its variance is the rounding of two sums, and so would be its slope."""
    random, view = np.random.default_rng(0), LinearNormal(2, True)
    for seed in range(20):
        weights = random.random(60)
        events = np.stack([random.normal(size=60), np.full(60, 2.7 + seed), random.normal(size=60)], 1)
        mean = weights @ np.asarray(view.statistics(jnp.asarray(events))) / weights.sum()
        arguments = {"coefficients": jnp.zeros(3), "free": jnp.ones(3), "scale": jnp.ones(())}
        slopes = view.moment("coefficients", jnp.asarray(mean), arguments)
        design, root = np.stack([events[:, 2], np.ones(60)], 1), np.sqrt(weights)
        expected = np.linalg.lstsq(design * root[:, None], events[:, 0] * root, rcond=None)[0]
        assert slopes[0] == 0.0
        np.testing.assert_allclose(slopes[1], expected[0], rtol=1e-9)
