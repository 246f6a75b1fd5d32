"""Mixtures of regressions: EM beside loops of weighted least squares, in every corner of what a fit can be asked."""

import functools
import warnings
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
from probem.errors import InputError
from tests.oracles.least_squares import em_step
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
    polynomial,
    two_outputs,
    with_intercepts,
)
from tests.programs.routes import plan_of

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

VB = probem.VARIATIONAL_BAYES
START = probem.Labels(GROUP)


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


def options_of(name: str, bayesian: bool) -> tuple[Any, tuple[np.ndarray, ...], dict[str, Any]]:
    regression = REGRESSIONS[name]
    program = functools.partial(regression.program, declared=BAYESIAN) if bayesian else regression.program
    return program, regression.data, {"families": VB} if bayesian else {}


@pytest.mark.parametrize("bayesian", [False, True])
@pytest.mark.parametrize("name", REGRESSIONS)
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
