"""What a fit proves once it has ended: the nats that are still promised, edges, and saddles that are no maxima."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import optimize

import probem
from probem import Result, stopping
from probem.experiments.verification import random_programs
from probem.form.statistics import Statistics
from probem.m_step.numeric import updates as numeric
from probem.results import failures
from probem.solver import certificate
from tests.programs.fits import KMEANS, PROGRAM, START, X

NEARLY = random_programs.Sketch("normal", 3, "free", "normal", "fixed", 3, 59182)
EVEN = probem.Responsibilities(np.full((90, 2), 0.5))


def symmetric(x: Any) -> None:
    """N(m, 1) and N(-m, 1) in equal parts: m = 0 is a saddle where the rows vary by more than 1, else the maximum."""
    m = numpyro.param("m", jnp.array(0.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(jnp.stack([m, -m])[t], 1.0), obs=x)


def test_the_rises_of_a_geometric_series_add_up_to_what_is_promised() -> None:
    rises = 3.0 * 0.9 ** np.arange(500)
    promised = stopping.expected_rise(jnp.asarray(rises[10]), jnp.asarray(rises[9]), jnp.asarray(0.0))
    np.testing.assert_allclose(promised, rises[11:].sum(), rtol=1e-12)
    assert stopping.expected_rise(jnp.asarray(2.0), jnp.asarray(1.0), jnp.asarray(0.1)) == np.inf
    assert stopping.expected_rise(jnp.asarray(0.01), jnp.asarray(0.001), jnp.asarray(0.1)) == 0.0


def test_what_is_promised_is_what_the_fit_would_have_risen() -> None:
    """The series is geometric in the end, here to a percent; the last rise alone is a fifth of it."""
    x = np.random.default_rng(0).normal(size=(90, 2)) + 0.7 * np.repeat([-1, 1], 45)[:, None]
    best = probem.fit(PROGRAM, x, init=START, tolerance=1e-14, max_steps=5000)
    for tolerance in (1e-6, 1e-9):
        fit = probem.fit(PROGRAM, x, init=START, tolerance=tolerance)
        last, before = fit.history.elbo[::2][-1:-3:-1]
        assert 4 < (best.elbo - fit.elbo) / (last - before) < 6
        assert fit.promised == pytest.approx(best.elbo - fit.elbo, rel=0.02)
        assert fit.promised <= tolerance * 90
    stopped = probem.fit(PROGRAM, x, init=START, max_steps=80, throw=False)
    assert stopped.result is Result.STEP_LIMIT
    assert stopped.promised == pytest.approx(best.elbo - stopped.elbo, rel=0.02)
    with pytest.raises(probem.FitError, match=r"\(about \S+ nats are still to come\)"):
        probem.fit(PROGRAM, x, init=START, max_steps=80)


def test_components_that_are_one_are_a_saddle() -> None:
    fit = probem.fit(PROGRAM, X, init=EVEN, throw=False)
    assert (fit.result, fit.twins) == (Result.SADDLE, ((0, 1),))
    assert fit.promised == pytest.approx(probem.fit(PROGRAM, X, init=START).elbo - fit.elbo, rel=1e-6)
    with pytest.raises(
        probem.FitError, match=r"components 0 and 1 of site 't'; F rises by at least .* start elsewhere"
    ):
        probem.fit(PROGRAM, X, init=EVEN)
    assert list(probem.iterate(PROGRAM, X, init=EVEN, throw=False))[-1].result is Result.SADDLE


@pytest.mark.slow
def test_many_rows_hide_no_saddle() -> None:
    """Noise of its own in every row averages out: components of 5000 rows would meet again."""
    random = np.random.default_rng(0)
    x = (np.repeat([-3.0, 3.0], 2500) + random.normal(size=5000))[:, None]
    fit = probem.fit(PROGRAM, x, init=probem.Responsibilities(np.full((5000, 2), 0.5)), throw=False)
    assert fit.result is Result.SADDLE
    assert fit.promised == pytest.approx(probem.fit(PROGRAM, x, key=1).elbo - fit.elbo, rel=1e-6)
    # Rows of weight 0 may hold anything.
    wild, weights = np.concatenate([x, [[1e300]]]), np.append(np.ones(5000), 0.0)
    even = probem.Responsibilities(np.full((5001, 2), 0.5))
    assert probem.fit(PROGRAM, wild, init=even, row_weights=weights, throw=False).result is Result.SADDLE


@pytest.mark.parametrize(("spread", "result"), [(0.8, Result.CONVERGED), (1.5, Result.SADDLE)])
def test_components_that_are_one_may_be_the_maximum(spread: float, result: Result) -> None:
    """By the second derivative of the log likelihood at m = 0: sum_n x_n^2 - N."""
    x = spread * np.random.default_rng(0).normal(size=200)
    assert ((x**2).sum() - 200 > 0) == (result is Result.SADDLE)
    fit = probem.fit(symmetric, x, init=probem.Parameters({"m": 0.0}), throw=False)
    assert (fit.result, fit.twins) == (result, ((0, 1),))

    def loss(m: np.ndarray) -> float:
        return -np.logaddexp(-0.5 * (x - m) ** 2, -0.5 * (x + m) ** 2).sum()

    climbs = loss(np.zeros(1)) - min(optimize.minimize(loss, start).fun for start in (0.5, 1.5))
    assert max(fit.promised, 0.0) == pytest.approx(climbs, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "result"), [(0.9, Result.SADDLE), (0.7, Result.CONVERGED)])
def test_a_saddle_of_a_tempered_family_is_that_of_its_objective(spread: float, result: Result) -> None:
    """By the second derivative of E_q[L] + H(q) / beta at m = 0: beta sum_n x_n^2 - N. F itself falls from there."""
    x = spread * np.random.default_rng(0).normal(size=200)
    assert (1.5 * (x**2).sum() - 200 > 0) == (result is Result.SADDLE)
    tempered = {"families": {"t": probem.Tempered(1.5)}, "throw": False}
    fit = probem.fit(symmetric, x, init=probem.Parameters({"m": 0.0}), **tempered)
    assert (fit.result, fit.twins) == (result, ((0, 1),))
    apart = probem.fit(symmetric, x, init=probem.Parameters({"m": 0.5}), **tempered)

    def loss(m: np.ndarray) -> float:
        return -np.logaddexp(-0.75 * (x - m) ** 2, -0.75 * (x + m) ** 2).sum() / 1.5

    climbs = loss(np.zeros(1)) - min(optimize.minimize(loss, start).fun for start in (0.5, 1.5))
    assert max(fit.promised, 0.0) == pytest.approx(climbs, abs=1e-6)
    assert (apart.elbo < fit.elbo - 1e-3) == (result is Result.SADDLE)
    if result is Result.SADDLE:
        with pytest.raises(probem.FitError, match=r"the objective of Tempered rises by at least 0\.528 nats"):
            failures.throw(fit)


@pytest.mark.slow
def test_a_schedule_that_has_ended_does_not_bring_components_together() -> None:
    """Hot steps bring together what was moved apart: two components that are one are a saddle all the same."""
    annealed = {"families": {"t": probem.Annealed(start=0.01, steps=20)}, "throw": False}
    fit = probem.fit(symmetric, 1.5 * np.random.default_rng(0).normal(size=200), **annealed)
    assert fit.num_steps > 20
    assert (fit.result, fit.twins) == (Result.SADDLE, ((0, 1),))


def test_what_the_numeric_route_promises_is_the_rise_of_a_quadratic() -> None:
    """Given q, F is quadratic in m: 1/2 (S - N m)^2 / N below its maximum, S = sum_n (2 q_n - 1) x_n."""
    x = 1.5 * np.random.default_rng(0).normal(size=200)
    fit = probem.fit(symmetric, x, init=probem.Parameters({"m": 1.0}), max_steps=1, throw=False)
    assert fit.plan is not None
    assert fit.totals is not None
    total = np.tanh(x) @ x
    statistics = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), fit.totals.shifts)
    promise, edges = certificate.numeric_promise(fit.plan, dict(fit.params), statistics, 1e-6)
    np.testing.assert_allclose(promise.nats, 0.5 * (total - 200) ** 2 / 200, rtol=1e-10)
    assert (bool(promise.is_saddle), edges) == (False, {})


def test_a_fit_whose_slope_promises_more_has_not_converged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An M half-step that leaves the parameters of the numeric route where they are: the bound does not rise."""

    def shifted(x: Any) -> None:
        symmetric(x + 0.0)  # a program of its own, compiled with the fault

    x = 1.5 * np.random.default_rng(0).normal(size=200)
    monkeypatch.setattr(numeric, "numeric_updates", lambda plan, statistics, params: params)
    with pytest.raises(probem.FitError, match=r"slope promises more .* \(site 'm'; \S+ nats are promised\)") as caught:
        probem.fit(shifted, x, init=probem.Parameters({"m": 1.0}))
    assert caught.value.fit.result is Result.NOT_STATIONARY


@pytest.mark.slow
def test_a_saddle_among_many_fits_is_that_of_one() -> None:
    q = np.stack([EVEN.values, np.asarray(probem.fit(PROGRAM, X, init=START).responsibilities(X))])
    many = probem.fit_many(PROGRAM, np.stack([X, X]), init=probem.Responsibilities(q), throw=False)
    assert many.results == (Result.SADDLE, Result.CONVERGED)
    one = probem.fit(PROGRAM, X, init=EVEN, throw=False)
    assert many[0].twins == one.twins
    np.testing.assert_allclose(many.promised[0], one.promised, rtol=1e-8)
    assert many[1].twins == ()


def test_twins_are_found_by_the_divergence_of_their_densities() -> None:
    """Of normal densities with variance 1: KL + KL = (mu_j - mu_k)^2 nats a row."""
    means = np.array([0.0, 3e-3, 1.0, 1.0 + 3e-2, 7.0])
    counts = np.array([10.0, 20.0, 30.0, 40.0, 1e-6])
    means[4] = 0.0  # as the first, but no rows speak of it
    alike = certificate.find_twins(means[:, None], counts, counts[:, None] * means[:, None], np.zeros(0))
    assert certificate.pairs(alike) == ((0, 1),)
    few = np.array([1.0, 1.0, 30.0, 40.0, 1e-6])  # no rows to speak of: nearly is not enough
    sums = few[:, None] * means[:, None]
    assert certificate.pairs(certificate.find_twins(means[:, None], few, sums, np.zeros(0))) == ()


def test_shares_of_rows_in_one_proportion() -> None:
    q = np.random.default_rng(0).dirichlet(np.ones(3), 50)
    q = np.column_stack([0.3 * q[:, 0], 0.7 * q[:, 0], q[:, 1:]])
    assert certificate.shared_rows(q, [(0, 1), (0, 2), (2, 3)]) == ((0, 1),)
    other = q * np.where(np.arange(50) % 2, 1.01, 1.0)[:, None] ** [1, 0, 0, 0]
    assert certificate.shared_rows(other, [(0, 1), (0, 2)]) == ()
    assert certificate.shared_rows(other, [(0, 1), (0, 2)], nearly=True) == ((0, 1),)


@pytest.mark.slow
def test_components_that_are_about_to_be_one_are_a_saddle() -> None:
    """EM comes so close that its rises are rounding; by SciPy the log likelihood is 7e-4 nats higher not far away."""
    fit = probem.fit(functools.partial(random_programs.program, NEARLY), *random_programs.rows(NEARLY), throw=False)
    assert (fit.result, fit.twins) == (Result.SADDLE, ((1, 2),))
    assert 1e-8 < fit.promised < 7.1e-4


@pytest.mark.slow
def test_probabilities_of_zero_and_one_are_on_the_edge() -> None:
    """A column of ones only: its probability is 1 in every component. Six others tell the components apart."""
    rows = np.column_stack([np.ones(40), *[np.repeat([1.0, 0.0], 20)] * 6, np.tile([0.0, 1.0], 20)])

    def program(x: Any) -> None:
        weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
        p = numpyro.param("p", jnp.full((2, 8), 0.5), constraint=dist.constraints.unit_interval)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(weights))
            numpyro.sample("x", dist.Bernoulli(p[t]).to_event(1), obs=x)

    start = probem.Parameters({"weights": [0.5, 0.5], "p": [[0.9, *[0.8] * 6, 0.5], [0.9, *[0.2] * 6, 0.5]]})
    fit = probem.fit(program, rows, init=start, max_steps=5000, tolerance=1e-12)
    assert set(fit.at_boundary) == {"p"}
    assert fit.at_boundary["p"].tolist() == [[*[True] * 7, False]] * 2
    assert probem.fit(KMEANS, X, families=probem.HARD_EM).at_boundary == {}


def heavy(x: Any) -> None:
    """No site has an exponential-family form but the assignments."""
    loc = numpyro.param("loc", jnp.zeros(2))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.StudentT(4.0, loc[t], 1.0), obs=x)


@pytest.mark.slow
def test_components_without_statistics_are_one_where_they_share_every_row() -> None:
    """The sums that know it ask for the shares of rows; where components differ nobody does."""
    fit = probem.fit(heavy, X[:, 0], init=EVEN, throw=False)
    assert (fit.result, fit.twins) == (Result.SADDLE, ((0, 1),))
    apart = probem.fit(heavy, X[:, 0])
    assert (apart.result, apart.twins) == (Result.CONVERGED, ())
    assert fit.promised == pytest.approx(apart.elbo - fit.elbo, rel=1e-6)
    noise = np.array([[0.3, -0.4], [0.3, 0.1]])
    nothing = np.zeros((2, 2, 0))
    alike = certificate.find_twins(nothing, np.array([[30.0, 20.0], [30.0, 10.0]]), nothing, noise)
    assert alike[:, 0, 1].tolist() == [False, True]


@pytest.mark.parametrize(
    ("constraint", "value", "mask"),
    [
        (dist.constraints.simplex, [0.0, 1e-300, 0.4, 0.6], [1, 1, 0, 0]),
        (dist.constraints.positive, [1e-300, 1e-12, 3.0], [1, 0, 0]),
        (dist.constraints.positive, 1e-30, 0),
        (dist.constraints.greater_than(2.0), [2.0, 5.0], [1, 0]),
        (dist.constraints.interval(-3.0, 7.0), [-3.0, 7.0, 0.0], [1, 1, 0]),
        (dist.constraints.ordered_vector, [-1.0, 2.0, 2.0 + 1e-12, 9.0], [0, 1, 1, 0]),
        (dist.constraints.real, [0.0, 1e300], [0, 0]),
        (dist.constraints.positive_definite, [[1.0, 0.0], [0.0, 1e-14]], [[0, 0], [0, 0]]),
    ],
)
def test_edges_of_constraints(constraint: Any, value: Any, mask: Any) -> None:
    assert certificate._on_edge(constraint, np.asarray(value, float)).tolist() == np.asarray(mask, bool).tolist()


def test_what_is_promised_is_stored(tmp_path: Any) -> None:
    fit = probem.fit(PROGRAM, X, init=EVEN, throw=False)
    fit.save(tmp_path / "fit.npz")
    loaded = probem.load(tmp_path / "fit.npz", PROGRAM)
    assert (loaded.promised, loaded.twins, loaded.result) == (fit.promised, fit.twins, fit.result)
    weights = functools.reduce(np.add, fit.at_boundary.values(), np.zeros(0, bool))
    assert not weights.any()
