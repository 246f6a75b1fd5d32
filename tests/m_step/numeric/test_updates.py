"""The numeric route: maxima known by hand in every unit, from far away, in every parametrisation; and the promise."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optimistix
import pytest
from numpyro.distributions import constraints

from probem.analysis.routes import make_plan
from probem.families import Categorical, Families
from probem.form.statistics import Statistics
from probem.m_step.numeric import updates as numeric
from probem.mean_field.mean_field import objective
from probem.plan.plan import Plan
from probem.program.reading import read

UNITS = (1e-8, 1.0, 1e8)
RANDOM = np.random.default_rng(0)
Q = np.stack([first := RANDOM.random(60), 1 - first], 1)
PROBS = jnp.array([0.4, 0.6])


def plan_of(program, data) -> Plan:
    return make_plan(read(program, (data,)), Families(Categorical()))


def statistics_of(plan: Plan, rows: np.ndarray) -> Statistics:
    shift = {"x": jnp.asarray(rows.mean(0))[None]}
    return Statistics(jnp.asarray(Q.sum(0)), Q.T @ plan.form.features((jnp.asarray(rows),), shift), shift)


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf, float) for leaf in leaves]), *trees)


def updated(plan: Plan):
    """One M half-step side by side for several statistics and starts; the objective, and what it still promises."""

    def update(statistics, params):
        found = numeric.numeric_updates(plan, statistics, params)
        return found, objective(plan.mean_field, statistics, found), numeric.promised(plan, statistics, found)

    return jax.jit(jax.vmap(update))


def symmetric(x):
    """Two means that are one parameter, and one variance."""
    loc = numpyro.param("loc", jnp.array(1.0))
    variance = numpyro.param("variance", jnp.array(1.0), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(PROBS))
        numpyro.sample("x", dist.Normal(jnp.stack([loc, -loc])[t], jnp.sqrt(variance)), obs=x)


SYMMETRIC = RANDOM.normal(size=60) + np.where(RANDOM.random(60) < 0.5, 1.0, -1.0)


@pytest.fixture(scope="module")
def symmetric_plan() -> Plan:
    return plan_of(symmetric, SYMMETRIC)


@pytest.mark.slow
def test_one_step_reaches_the_maximum_in_every_unit(symmetric_plan):
    """From scales a million times too small and too large, and from a mean at zero, side by side."""
    starts = [(unit, loc, off) for unit in UNITS for loc in (0.0, 3.0) for off in (1e-6, 1.0, 1e6)]
    statistics = {unit: statistics_of(symmetric_plan, SYMMETRIC * unit) for unit in UNITS}
    found, value, promise = updated(symmetric_plan)(
        stacked([statistics[unit] for unit, *_ in starts]),
        stacked([{"loc": loc * unit, "variance": (off * unit) ** 2} for unit, loc, off in starts]),
    )
    loc = (Q[:, 0] - Q[:, 1]) @ SYMMETRIC / 60
    scale = np.sqrt((Q[:, 0] @ (SYMMETRIC - loc) ** 2 + Q[:, 1] @ (SYMMETRIC + loc) ** 2) / 60)
    best = Q.sum(0) @ np.log(PROBS) - 60 * (np.log(scale) + 0.5)
    units = np.array([unit for unit, *_ in starts])
    # Rounding: 60 log(1e8) = 1105 nats, of 16 digits.
    np.testing.assert_allclose(value + 60 * np.log(units), best, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found["loc"] / units, loc, rtol=1e-6)
    np.testing.assert_allclose(jnp.sqrt(found["variance"]) / units, scale, rtol=1e-6)
    assert (promise.nats < 1e-11).all()
    assert not promise.is_saddle.any()


def test_the_promise_is_what_there_is_to_gain_near_the_maximum(symmetric_plan):
    """The objective is quadratic in the mean; of the logarithm of the variance, the error is of third order."""
    loc = (Q[:, 0] - Q[:, 1]) @ SYMMETRIC / 60
    scale = np.sqrt((Q[:, 0] @ (SYMMETRIC - loc) ** 2 + Q[:, 1] @ (SYMMETRIC + loc) ** 2) / 60)
    run = jax.jit(lambda statistics, params: numeric.promised(symmetric_plan, statistics, params))
    for unit in UNITS:
        near = {"loc": jnp.asarray(unit * (loc + 1e-4)), "variance": jnp.asarray((unit * scale) ** 2 * (1 + 2e-4))}
        nats, is_saddle = run(statistics_of(symmetric_plan, SYMMETRIC * unit), near)
        np.testing.assert_allclose(nats, 60 * (0.5e-8 / scale**2 + 1e-8), rtol=1e-3)
        assert not is_saddle


def test_a_worse_candidate_is_never_taken(symmetric_plan, monkeypatch):
    """Whatever the optimiser comes back with: a point far below, one that is not finite, and one that is better."""
    statistics = statistics_of(symmetric_plan, SYMMETRIC)
    start = {"loc": jnp.array(3.0), "variance": jnp.array(1.0)}

    def update(where):
        def lost(function, solver, origin, **options):
            found = minimise(function, solver, origin, **{**options, "max_steps": 1})
            return type(found)(found.value + where, found.result, found.aux, found.stats, found.state)

        monkeypatch.setattr(optimistix, "minimise", lost)
        return numeric.numeric_updates(symmetric_plan, statistics, start)

    minimise = optimistix.minimise
    found = jax.jit(jax.vmap(update))(jnp.array([1e3, np.nan, np.inf, 0.1]))
    np.testing.assert_array_equal(found["loc"] == 3.0, [True, True, True, False])
    np.testing.assert_array_equal(found["variance"] == 1.0, [True, True, True, False])


def product(x):
    """A direction times a length: where both are zero, the gradient vanishes, and nothing is at its best."""
    length, direction = numpyro.param("length", jnp.array(0.0)), numpyro.param("direction", jnp.zeros(2))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(PROBS))
        side = jnp.array([1.0, -1.0])[t][..., None]
        numpyro.sample("x", dist.Normal(side * length * direction, 1.0).to_event(1), obs=x)


def test_a_saddle_is_named():
    rows = RANDOM.normal(size=(60, 2)) + np.array([1.0, -2.0])
    plan = plan_of(product, rows)
    saddle = {"length": jnp.array(0.0), "direction": jnp.zeros(2)}
    maximum = {"length": jnp.array(1.0), "direction": (Q[:, 0] - Q[:, 1]) @ rows / 60}
    promise = jax.jit(jax.vmap(lambda params: numeric.promised(plan, statistics_of(plan, rows), params)))
    nats, is_saddle = promise(stacked([saddle, maximum]))
    np.testing.assert_array_equal(is_saddle, [True, False])
    np.testing.assert_allclose(nats, 0.0, atol=1e-12)


def by_factor(x):
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    tril = numpyro.param("tril", jnp.stack([jnp.eye(2)] * 2), constraint=constraints.lower_cholesky)
    return loc, lambda t: tril[t], {"tril": lambda scale: np.stack([np.eye(2) * scale] * 2)}


def by_precision(x):
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    precision = numpyro.param("precision", jnp.stack([jnp.eye(2)] * 2), constraint=constraints.positive_definite)
    factor = jnp.linalg.cholesky(jnp.linalg.inv(precision))
    return loc, lambda t: factor[t], {"precision": lambda scale: np.stack([np.eye(2) / scale**2] * 2)}


def by_correlation(x):
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    log_scale = numpyro.param("log_scale", jnp.zeros((2, 2)))
    factor = numpyro.param("factor", jnp.stack([jnp.eye(2)] * 2), constraint=constraints.corr_cholesky)
    starts = {"log_scale": lambda scale: np.full((2, 2), np.log(scale)), "factor": lambda _: np.stack([np.eye(2)] * 2)}
    return loc, lambda t: jnp.exp(log_scale)[t][..., None] * factor[t], starts


@pytest.mark.slow
@pytest.mark.parametrize("parts", [by_factor, by_precision, by_correlation])
def test_parametrisations_of_a_covariance_agree(parts):
    """With the maximum by hand, -n/2 (log |2 pi S| + D), in every unit and from far away."""

    def program(x):
        loc, tril, _ = parts(x)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(PROBS))
            numpyro.sample("x", dist.MultivariateNormal(loc[t], scale_tril=tril(t)), obs=x)

    rows = RANDOM.normal(size=(60, 2)) @ np.array([[1.0, 0.0], [0.9, 0.3]])
    means = [q @ rows / q.sum() for q in Q.T]
    covariances = [(q * (rows - mean).T) @ (rows - mean) / q.sum() for q, mean in zip(Q.T, means, strict=True)]
    best = Q.sum(0) @ (np.log(PROBS) - [0.5 * np.linalg.slogdet(own)[1] + 1 for own in covariances])
    plan = plan_of(program, rows)
    with numpyro.handlers.seed(rng_seed=0):
        starts_of = parts(rows)[2]
    cases = [(unit, off) for unit in UNITS for off in (1e-6, 1.0, 1e6)]
    units = np.array([unit for unit, _ in cases])
    starts = [
        {name: start(unit * off) for name, start in starts_of.items()} | {"loc": unit * np.stack(means)}
        for unit, off in cases
    ]
    _, value, promise = updated(plan)(stacked([statistics_of(plan, rows * unit) for unit in units]), stacked(starts))
    np.testing.assert_allclose(value + 120 * np.log(units), best, rtol=0, atol=1e-10)
    assert (promise.nats < 1e-10).all()


def by_variance(x):
    loc = numpyro.param("loc", jnp.zeros((2, x.shape[1])))
    variance = numpyro.param("variance", jnp.ones((2, x.shape[1])), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(PROBS))
        numpyro.sample("x", dist.Normal(loc[t], jnp.sqrt(variance[t])).to_event(1), obs=x)


@pytest.mark.slow
def test_very_many_parameters():
    """300 variances of features whose units lie 16 decades apart, too many for a Hessian."""
    units = np.logspace(-8, 8, 150)
    rows = RANDOM.normal(size=(60, 150)) * units
    plan = plan_of(by_variance, rows)
    means = Q.T @ rows / Q.sum(0)[:, None]
    variances = np.stack([q @ (rows - mean) ** 2 / q.sum() for q, mean in zip(Q.T, means, strict=True)])
    best = Q.sum(0) @ (np.log(PROBS) - 0.5 * (np.log(variances) + 1).sum(1))
    start = {"loc": means, "variance": np.broadcast_to(units**2, (2, 150)) * np.exp(RANDOM.normal(size=(2, 150)))}
    statistics, update = stacked([statistics_of(plan, rows)]), updated(plan)
    _, value, promise = update(statistics, stacked([start]))
    np.testing.assert_allclose(value[0], best, rtol=0, atol=1e-9)
    assert promise.nats[0] < 1e-9
    assert not promise.is_saddle[0]
    near = stacked([{"loc": means, "variance": variances * (1 + 1e-4)}])
    promise = jax.vmap(lambda *given: numeric.promised(plan, *given))(statistics, near)
    # n/4 (1e-4)^2 of every variance.
    np.testing.assert_allclose(promise.nats[0], 150 * 60 / 4 * 1e-8, rtol=1e-3)
