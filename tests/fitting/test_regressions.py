"""Mixtures of regressions: EM beside loops of weighted least squares, in every corner of what a fit can be asked."""

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem.errors import InputError
from tests.programs.counted import cost
from tests.programs.regressions import (
    BAYESIAN,
    GROUP,
    PAIR,
    REGRESSIONS,
    TIME,
    X,
    Y,
    Z,
    clusterwise,
    maximum_likelihood_weights,
    polynomial,
    positive,
    real,
    two_outputs,
    with_intercepts,
)
from tests.programs.routes import plan_of

VB = probem.VARIATIONAL_BAYES
START = probem.Labels(GROUP)


def em_step(params: dict, y: np.ndarray, design: np.ndarray, weights: np.ndarray) -> tuple[float, dict]:
    """F after the E-step, and the parameters after the M-step, by NumPy's least squares component by component."""
    coefficients, scale = params["coefficients"], params["s"]
    table = np.log(params["weights"]) + scipy.stats.norm.logpdf(y[:, None], design @ coefficients.T, scale)
    rows = np.logaddexp.reduce(table, axis=1)
    q = np.exp(table - rows[:, None]) * weights[:, None]
    new: dict[str, list] = {"coefficients": [], "s": []}
    for each in q.T:
        root = np.sqrt(each)
        solution = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0]
        new["coefficients"].append(solution)
        new["s"].append(np.sqrt(np.average((y - design @ solution) ** 2, weights=each)))
    after = {name: np.stack(values) for name, values in new.items()}
    return float(weights @ rows), {**after, "weights": q.sum(0) / weights.sum()}


def in_one(params: Any) -> dict:
    """Slopes, then intercepts."""
    coefficients = np.column_stack([params["b"], params["a"]])
    return {"coefficients": coefficients, "s": np.asarray(params["s"]), "weights": np.asarray(params["weights"])}


@pytest.mark.parametrize("row_weights", [None, np.arange(120) % 4])
def test_the_trajectory_is_that_of_weighted_least_squares(row_weights: np.ndarray | None) -> None:
    start = {"a": np.array([0.5, -0.5]), "b": np.array([[-1.0, 0.0], [1.0, 0.5]]), "s": np.ones(2)}
    start |= {"weights": np.array([0.3, 0.7])}
    weights = np.ones(120) if row_weights is None else row_weights.astype(float)
    expected, design = in_one(start), np.column_stack([X, np.ones(120)])
    steps = probem.iterate(with_intercepts, Y, X, init=probem.Parameters(start), row_weights=row_weights, throw=False)
    for _, step in zip(range(10), steps, strict=False):
        for name, value in in_one(step.params).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-9, err_msg=name)
        bound, expected = em_step(expected, Y, design, weights)
        np.testing.assert_allclose(step.elbo, bound, rtol=1e-11)


def test_many_covariates_are_summed_by_matrix_products() -> None:
    """Then no products of two are formed for any row, and the table is that of residuals."""
    random = np.random.default_rng(0)
    x, group = random.normal(size=(300, 9)) + 2.0, random.integers(0, 2, 300)
    slopes = random.normal(size=(2, 9))
    y = (slopes[group] * x).sum(1) + random.normal(size=300)
    start = {"a": np.zeros(2), "b": slopes + 0.5, "s": np.ones(2), "weights": np.full(2, 0.5)}
    expected, design = in_one(start), np.column_stack([x, np.ones(300)])
    steps = probem.iterate(with_intercepts, y, x, init=probem.Parameters(start), throw=False)
    for _, step in zip(range(5), steps, strict=False):
        assert [term.site for term in step.plan.by_products] == ["y"]
        for name, value in in_one(step.params).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-9, err_msg=name)
        bound, expected = em_step(expected, y, design, np.ones(300))
        np.testing.assert_allclose(step.elbo, bound, rtol=1e-11)


def test_a_fit_far_from_zero_has_the_same_slopes() -> None:
    """Six digits are lost in the numbers themselves, and no more."""
    near = probem.fit(with_intercepts, Y, X, init=START)
    far = probem.fit(with_intercepts, Y + 1e6, X + 1e6, init=START)
    np.testing.assert_allclose(far.params["b"], near.params["b"], rtol=1e-8)
    np.testing.assert_allclose(far.params["s"], near.params["s"], rtol=1e-8)
    np.testing.assert_allclose(far.elbo, near.elbo, rtol=1e-9)


def test_float32() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single = probem.fit(with_intercepts, Y.astype(np.float32), X.astype(np.float32), init=START)
    double = probem.fit(with_intercepts, Y, X, init=START)
    np.testing.assert_allclose(single.params["b"], double.params["b"], rtol=1e-3)
    np.testing.assert_allclose(single.elbo, double.elbo, rtol=1e-5)


def test_values_that_are_missing_are_rows_that_are_not_there() -> None:
    y = Y.copy()
    y[::7] = np.nan
    here = ~np.isnan(y)
    # The shares count rows without a value too, and in proportion: only F may end a rounding apart.
    gaps = probem.fit(with_intercepts, y, X, init=START, tolerance=1e-13)
    without = probem.fit(with_intercepts, Y[here], X[here], init=probem.Labels(GROUP[here]), tolerance=1e-13)
    np.testing.assert_allclose(gaps.elbo, without.elbo, rtol=1e-9)
    np.testing.assert_allclose(gaps.params["b"], without.params["b"], rtol=1e-5)


def test_one_of_two_outputs_is_missing() -> None:
    """F is that of the values observed, by SciPy."""
    y = PAIR.copy()
    y[::5, 1], y[1::9, 0] = np.nan, np.nan
    fit = probem.fit(two_outputs, y, X, init=START)
    loc = np.asarray(fit.params["a"])[:, None] + np.einsum("nd,kdo->kno", X, np.asarray(fit.params["b"]))
    table = np.nansum(scipy.stats.norm.logpdf(y, loc, np.asarray(fit.params["s"])[:, None]), axis=2).T
    bound = np.logaddexp.reduce(table + np.log(np.asarray(fit.params["weights"])), axis=1).sum()
    np.testing.assert_allclose(fit.elbo, bound, rtol=1e-10)


def test_a_covariate_may_not_be_missing() -> None:
    rows = np.stack([Y, X[:, 0]], 1)
    rows[5, 1] = np.nan
    with pytest.raises(InputError, match="NaN in row 5 that is not simply an observed value"):
        probem.fit(clusterwise, rows)
    rows[5, 0] = np.nan  # where the value is missing too, nothing depends on the covariate
    assert probem.fit(clusterwise, rows, restarts=2).result is probem.Result.CONVERGED


def test_chunks_and_batches_change_nothing() -> None:
    """Data in many blocks, and a stream in which all rows count alike, beside one block."""
    random = np.random.default_rng(0)
    x, group = random.normal(size=(40_000, 2)), random.integers(0, 2, 40_000)
    y = (
        np.array([1.0, -1.0])[group]
        + np.array([[-2.0, 0.5], [2.0, 1.0]])[group, 0] * x[:, 0]
        + random.normal(size=40_000)
    )
    start = {"a": np.zeros(2), "b": np.array([[-1.0, 0.0], [1.0, 0.0]]), "s": np.ones(2), "weights": np.full(2, 0.5)}
    design, expected = np.column_stack([x, np.ones(len(x))]), in_one(start)
    *_, last = probem.iterate(with_intercepts, y, x, init=probem.Parameters(start), max_steps=3, throw=False)
    assert len(last.plan.program.observed) == 1
    for _ in range(last.num_steps - 1):
        _, expected = em_step(expected, y, design, np.ones(len(x)))
    np.testing.assert_allclose(last.params["b"], expected["coefficients"][:, :2], rtol=1e-9)


def test_a_stream_is_one_step_of_em_on_all_rows() -> None:
    """With decay=1 the statistics of both batches count alike, though each has its own q and its own origin."""
    first = probem.fit(with_intercepts, Y[:60], X[:60] + 3.0, init=probem.Labels(GROUP[:60]))
    both = probem.absorb(first, Y[60:], X[60:] + 5.0, decay=1)
    x = np.concatenate([X[:60] + 3.0, X[60:] + 5.0])
    q = np.asarray(first.responsibilities(Y, x))
    design = np.column_stack([x, np.ones(120)])
    for k in range(2):
        root = np.sqrt(q[:, k])
        solution = np.linalg.lstsq(design * root[:, None], Y * root, rcond=None)[0]
        # The first fit ended where its own rows change nothing, but for its tolerance.
        np.testing.assert_allclose(both.params["b"][k], solution[:2], rtol=1e-5)


def test_a_fit_that_was_saved_answers_as_before(tmp_path: Any) -> None:
    fit = probem.fit(with_intercepts, Y, X, init=START)
    fit.save(tmp_path / "fit.npz")
    again = probem.load(tmp_path / "fit.npz", with_intercepts)
    np.testing.assert_array_equal(again.responsibilities(Y, X), fit.responsibilities(Y, X))


def test_other_numbers_compile_nothing() -> None:
    def fit(spread: float, known: float) -> probem.Fit:
        def program(y, time):
            slope = numpyro.sample("slope", dist.Normal(0.0, spread).expand([2]).to_event(1))
            with numpyro.plate("data", y.shape[0]):
                t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
                numpyro.sample("y", dist.Normal(known * time + slope[t] * jnp.cos(known * time), 0.5), obs=y)

        return probem.fit(program, Z, TIME, init=START, families=VB)

    fit(2.0, 0.7)
    again: list[probem.Fit] = []
    _, compilations = cost(lambda: again.append(fit(1.0, 1.3)))
    assert again[0].result is probem.Result.CONVERGED
    # Its own proof on random values runs what was compiled for the other.
    assert compilations == 0


def test_standard_errors_are_those_of_least_squares() -> None:
    """One component: the inverse of X'X times the variance."""

    def line(y, x):
        a, b = numpyro.param("a", 0.0), numpyro.param("b", jnp.zeros(2))
        s = numpyro.param("s", 1.0, constraint=constraints.positive)
        with numpyro.plate("data", y.shape[0]):
            numpyro.sample("t", dist.Categorical(probs=jnp.ones(1)))
            numpyro.sample("y", dist.Normal(a + x @ b, s), obs=y)

    fit = probem.fit(line, Y, X)
    errors = fit.standard_errors(Y, X)
    design = np.column_stack([X, np.ones(120)])
    expected = np.sqrt(np.diag(np.linalg.inv(design.T @ design))) * float(fit.params["s"])
    np.testing.assert_allclose([*errors["b"], errors["a"]], expected, rtol=1e-8)
    np.testing.assert_allclose(errors["s"], float(fit.params["s"]) / np.sqrt(2 * 120), rtol=1e-8)


def test_a_coefficient_that_is_clipped_is_fitted_by_its_gradient() -> None:
    """However far out: a predictor holds for every value of its coefficients."""

    def clipped(y, time):
        b = numpyro.param("b", jnp.array([-1.0, 1.0]))
        s = numpyro.param("s", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
            numpyro.sample("y", dist.Normal(jnp.clip(b[t], -1e7, 1e7) * time, s[t]), obs=y)

    assert plan_of(clipped, Z, TIME).form.generic == ("y",)


def lines(mean, num_slopes: int, y, x, components: int = 2) -> None:
    """Two regressions around ``mean(t, x, a, b)`` without priors."""
    a, b = real("a", (components,)), real("b", (components, num_slopes))
    s, weights = positive("s", (components,)), maximum_likelihood_weights("weights", (components,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", dist.Normal(mean(t, x, a, b), s[t]), obs=y)


def least_squares(y: np.ndarray, design: np.ndarray, steps: int = 200) -> tuple[float, dict]:
    """F and the parameters after many steps of EM by NumPy from the groups of the first rows."""
    group = np.arange(len(y)) % 2
    each = [np.linalg.lstsq(design[group == k], y[group == k], rcond=None)[0] for k in (0, 1)]
    spread = [np.std((y - design @ solution)[group == k]) for k, solution in enumerate(each)]
    params = {"coefficients": np.stack(each), "s": np.array(spread), "weights": np.full(2, 0.5)}
    elbo = -np.inf
    for _ in range(steps):
        elbo, params = em_step(params, y, design, np.ones(len(y)))
    return elbo, params


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


def through_powers(y, x):
    b, s = numpyro.param("b", jnp.zeros((2, x.shape[1]))), positive("s", (2,))
    weights = maximum_likelihood_weights("weights", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", dist.Normal((x * b[t]).sum(-1), s[t]), obs=y)


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_a_line_through_its_rows_is_reported() -> None:
    y = np.where(GROUP == 0, 3.0 - 2.0 * TIME + TIME**2, Z)
    with pytest.raises(probem.FitError, match=r"component 0 of site 'y'"):
        probem.fit(polynomial, y, TIME, init=START)


@pytest.mark.parametrize("name", REGRESSIONS)
def test_routes(name: str) -> None:
    regression = REGRESSIONS[name]
    plan = plan_of(regression.program, *regression.data)
    closed = {parameter for link in plan.closed for parameter in link.source}
    routes = dict.fromkeys(closed, "closed") | dict.fromkeys(plan.numeric, "numeric")
    assert routes | dict.fromkeys(plan.gradient, "gradient") == regression.routes


# Those that all others are variations of.
REPRESENTATIVE = ("intercepts", "shared slopes", "two outputs", "two assignments", "noise", "groups")


def options_of(name: str, bayesian: bool) -> tuple[Any, tuple[np.ndarray, ...], dict[str, Any]]:
    regression = REGRESSIONS[name]
    program = functools.partial(regression.program, declared=BAYESIAN) if bayesian else regression.program
    return program, regression.data, {"families": VB} if bayesian else {}


@pytest.mark.slow
@pytest.mark.parametrize("bayesian", [False, True])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in REPRESENTATIVE else pytest.mark.exhaustive) for name in REGRESSIONS],
)
def test_every_program_in_every_corner(name: str, bayesian: bool) -> None:
    """It converges, and the theory of the bound holds on it beside NumPyro's densities; or it is refused."""
    program, data, options = options_of(name, bayesian)
    refused = REGRESSIONS[name].refused
    if bayesian and refused is not None:
        with pytest.raises(InputError, match=refused):
            probem.fit(program, *data, **options)
        return
    # The others have more components than there are groups.
    start = {"restarts": 4} if name in ("noise", "two assignments") else {"init": START}
    fit = probem.fit(program, *data, **options, **start, max_steps=5000)
    assert fit.result is probem.Result.CONVERGED
    probem.check(program, *(leaf[:40] for leaf in data), **options).raise_for_failure()
