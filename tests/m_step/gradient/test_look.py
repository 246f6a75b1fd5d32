"""Corners and collapses on the gradient route: densities whose slope jumps, or that grow without limit."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize

import probem

positive = dist.constraints.positive
DENSITIES = {"laplace": dist.Laplace, "cauchy": dist.Cauchy}


def lines(x: jax.Array, z: jax.Array, unit: float = 1.0) -> None:
    """Two regressions with Laplace errors."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    intercept, slope = numpyro.param("intercept", unit * jnp.array([-1.0, 1.0])), numpyro.param("slope", jnp.zeros(2))
    scale = numpyro.param("scale", jnp.full(2, unit), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Laplace(intercept[t] + slope[t] * z, scale[t]), obs=x)


def drawn_lines(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two lines that cross, their covariate, and where they belong."""
    random = np.random.default_rng(seed)
    label, z = random.integers(0, 2, 80), random.normal(size=80)
    x = np.where(label == 0, 2 + 1.5 * z, -2 - 0.5 * z) + random.laplace(size=80) * np.where(label == 0, 0.5, 1.0)
    return x, z, label


def least_absolute(x: np.ndarray, z: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Intercept and slope with the least weighted sum of absolute residuals, and that sum: a linear program."""
    rows, count = np.stack([np.ones_like(z), z], 1), len(x)
    solved = scipy.optimize.linprog(
        np.concatenate([np.zeros(2), weights, weights]),
        A_eq=np.concatenate([rows, np.eye(count), -np.eye(count)], 1),
        b_eq=x,
        bounds=[(None, None)] * 2 + [(0, None)] * (2 * count),
    )
    return solved.x[:2], solved.fun


@pytest.mark.parametrize(
    ("seed", "unit"), [pytest.param(*own, marks=pytest.mark.slow) for own in ((0, 1.0), (1, 1e6), (2, 1e-6))]
)
def test_a_regression_with_laplace_errors_ends_where_a_linear_program_does(seed: int, unit: float) -> None:
    """At the maximum each line runs through two rows, and neither intercept nor slope can move alone."""
    x, z, label = drawn_lines(seed)
    x = x * unit
    program = functools.partial(lines, unit=unit)
    fit = probem.fit(program, x, z, init=probem.Labels(label), tolerance=1e-12)
    q = np.asarray(fit.responsibilities(x, z))
    for component in range(2):
        weights = q[:, component]
        best, least = least_absolute(x / unit, z, weights)
        ours = np.array([fit.params["intercept"][component], fit.params["slope"][component]]) / unit
        residuals = np.abs(x / unit - ours[0] - ours[1] * z)
        # A nat is an e-fold of the scale of one row; linprog stops at 1e-9.
        np.testing.assert_allclose(weights @ residuals, least, rtol=1e-8)
        np.testing.assert_allclose(ours, best, atol=1e-6)
        np.testing.assert_allclose(fit.params["scale"][component], unit * least / weights.sum(), rtol=1e-5)


def heavy(x: jax.Array, name: str = "laplace", unit: float = 1.0) -> None:
    """Two components of which each may collapse onto rows that are the same."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", unit * jnp.array([-1.0, 1.0]))
    scale = numpyro.param("scale", jnp.full(2, unit), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", DENSITIES[name](loc[t], scale[t]), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("laplace", 1.0),
        *(pytest.param(*own, marks=pytest.mark.slow) for own in (("laplace", 1e-8), ("cauchy", 1.0), ("cauchy", 1e-8))),
    ],
)
def test_a_density_without_a_closed_form_that_collapses_is_singular(name: str, unit: float) -> None:
    """Five rows are one value, and the likelihood of a component on them has no maximum."""
    random = np.random.default_rng(0)
    x = unit * np.concatenate([np.full(5, 1.7), 5 + random.standard_normal(60)])

    program = functools.partial(heavy, name=name, unit=unit)
    with pytest.raises(probem.FitError, match=r"collapsed.*\(component 0 of site 'x'\)") as failed:
        probem.fit(program, x, init=probem.Labels((np.arange(65) >= 5).astype(int)))
    assert failed.value.fit.result is probem.Result.SINGULAR
    # Without those rows there is a maximum, with a scale as large as it gets.
    assert probem.fit(program, x[5:], init=probem.Labels((x[5:] > 5 * unit).astype(int))).promised < 1e-8


def directions(x: jax.Array) -> None:
    """Two von Mises distributions."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]), constraint=dist.constraints.circular)
    concentration = numpyro.param("concentration", jnp.ones(2), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.VonMises(loc[t], concentration[t]), obs=x)


@pytest.mark.slow
def test_rows_of_little_weight_are_rows_all_the_same() -> None:
    """Scales that begin far too low, and rows that count a thousandth each: every bound is a thousandth."""
    x, label = np.concatenate([np.linspace(-6, -4, 40), np.linspace(3, 7, 40)]), np.arange(80) // 40
    program = functools.partial(heavy, name="cauchy", unit=1e-4)
    options: dict[str, Any] = {"init": probem.Labels(label), "tolerance": 1e-12}
    fits = [probem.fit(program, x, row_weights=np.full(80, weight), **options) for weight in (1.0, 1e-3)]
    np.testing.assert_allclose(1e3 * fits[1].elbo, fits[0].elbo, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_in_single_precision_a_small_concentration_still_moves(seed: int) -> None:
    """It starts at 0.007, and has to grow (seed 1) or vanish (seed 2): a few nats, and 1e-3 of a nat for each row."""
    random = np.random.default_rng(seed)
    x = np.concatenate([random.vonmises(-1.5, 3, 1000), random.vonmises(1, 1.5, 1000)]).astype(np.float32)
    fit = probem.fit(directions, x)
    exact = {name: np.asarray(value, float) for name, value in fit.params.items()}
    exact["weights"] /= exact["weights"].sum()
    best = probem.fit(directions, x.astype(float), init=probem.Parameters(exact))
    # EM stops where its rises are lost in the seven digits of F.
    np.testing.assert_allclose(best.history.elbo[0], best.elbo, rtol=1e-5)


def test_an_empty_component_is_filled_in_closed_form_alone() -> None:
    """One step along a gradient does not fit a component to the row that it was given, and F would fall."""
    with pytest.raises(probem.InputError, match=r"fill_empty=True\).* 'loc' follows the gradient"):
        probem.fit(heavy, np.arange(5.0), families={"t": probem.Delta(fill_empty=True)})


def looked_up(x: jax.Array, z: jax.Array) -> None:
    """Shares that a covariate looks up: they follow the gradient to a maximum in closed form."""
    weights = numpyro.param("weights", jnp.full((3, 2), 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights[z]))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


@pytest.mark.slow
def test_shares_in_closed_form_are_no_hindrance() -> None:
    x = np.concatenate([np.zeros(15), np.full(15, 5.0)])
    fit = probem.fit(looked_up, x, np.arange(30) % 3, families={"t": probem.Delta(fill_empty=True)})
    np.testing.assert_allclose(np.sort(fit.params["loc"]), [0.0, 5.0], atol=1e-12)


def free_of_units(x: jax.Array, unit: float) -> None:
    """Two multivariate t distributions of any shape; ``unit`` is that of the rows."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", unit * jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    factor = numpyro.param("factor", unit * jnp.stack([jnp.eye(2)] * 2), constraint=dist.constraints.lower_cholesky)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.MultivariateStudentT(5.0, loc[t], factor[t]), obs=x)


def ordered(x: jax.Array, unit: float) -> None:
    """Two logistic distributions in order."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", unit * jnp.array([-1.8, 1.8]), constraint=dist.constraints.ordered_vector)
    scale = numpyro.param("scale", jnp.full(2, unit), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Logistic(loc[t], scale[t]), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize("program", [free_of_units, ordered])
def test_real_coordinates_of_other_constraints_know_no_unit(program) -> None:
    """The first of an ordered vector, what is below a diagonal: as free at 1e9 as at 1, where no step has a limit."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((300, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]]) + 4.0 * (np.arange(300)[:, None] < 100)
    x = rows if program is free_of_units else rows[:, 0]
    labels = probem.Labels((np.arange(300) < 100).astype(int))
    fits = [probem.fit(functools.partial(program, unit=unit), unit * x, init=labels) for unit in (1.0, 1e9)]
    np.testing.assert_allclose(fits[1].elbo + x.size * np.log(1e9), fits[0].elbo, atol=1e-6)


def columns(x: jax.Array, at: np.ndarray, size: np.ndarray) -> None:
    """Two components with columns that are independent and have a scale of their own; where they begin."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc, scale = numpyro.param("loc", jnp.asarray(at)), numpyro.param("scale", jnp.asarray(size), constraint=positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Laplace(loc[t], scale[t]).to_event(1), obs=x)


@pytest.mark.slow
def test_sound_scales_of_many_sizes_are_not_singular() -> None:
    """Picofarads beside megahertz, and a component 1e15 times as narrow as the other: neither has collapsed."""
    random, label = np.random.default_rng(0), np.arange(200) // 100
    unit = np.array([1e-12, 1e-12, 1e6])
    x = (1 + label[:, None] + 0.1 * random.standard_normal((200, 3))) * unit
    beside = functools.partial(columns, at=np.array([[1.0], [2.0]]) * unit, size=np.array([[0.1], [0.1]]) * unit)
    assert probem.fit(beside, x).result is probem.Result.CONVERGED
    size = np.array([[1e-7], [1e8]]) * np.ones(3)
    x = size[label] * random.laplace(size=(200, 3))
    narrow = functools.partial(columns, at=np.zeros((2, 3)), size=size)
    fit = probem.fit(narrow, x, init=probem.Labels(label))
    np.testing.assert_allclose(fit.params["scale"], size, rtol=0.5)
