"""SQUAREM and Anderson's acceleration around the steps of the loop: they end where EM does, in fewer steps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.analysis.problem import FitOptions
from probem.families.assignments import Categorical
from probem.fitting.run import begin, drive
from probem.mean_field.naturals import NaturalPosterior
from probem.mean_field.sites import SitePosterior
from probem.models import GaussianPrior, bayesian_gmm, diagonal, gmm
from probem.plan.positions import at_position, position
from probem.solver.anderson import damped
from probem.solver.loop import blank_memory, compiled_run_to_end
from probem.stopping import ParameterShift
from tests.sentences import refused

PROGRAM = functools.partial(gmm, num_components=2, covariance=diagonal)
PRIOR = GaussianPrior(np.zeros(1), 0.1, 3.0, np.eye(1))
BAYESIAN = functools.partial(bayesian_gmm, num_components=2, prior=PRIOR)
BOTH = [probem.SQUAREM(), probem.Anderson()]
# Where F is computed in two ways: some hundred roundings of its terms.
SAME = 1e-10


@functools.cache
def overlapping(num_rows: int = 400, shift: float = 1.6) -> np.ndarray:
    """Two components so near each other that EM takes hundreds of steps."""
    rng = np.random.default_rng(0)
    return np.where(rng.random((num_rows, 1)) < 0.3, shift, 0.0) + rng.normal(size=(num_rows, 1))


@functools.cache
def fitted(acceleration: Any, program: Any = PROGRAM, tolerance: Any = 1e-9, shift: float = 1.6, **options: Any) -> Any:
    settings: dict[str, Any] = {"key": 1, "max_steps": 20_000, "tolerance": tolerance} | options
    return probem.fit(program, overlapping(shift=shift), acceleration=acceleration, **settings)


def check_history(fit: Any) -> None:
    """F never falls from half-step to half-step, but for what is marked as given up."""
    history = fit.history
    kept = history.elbo[history.accelerated >= 0]
    assert (np.diff(kept) >= -1e-12 * abs(fit.elbo)).all()
    outcomes = history.accelerated[::2]
    assert (outcomes == history.accelerated[1::2]).all()
    assert len(outcomes) == fit.num_steps
    assert (outcomes == 1).any()
    for step in np.flatnonzero(outcomes < 0):
        # What was given up was lower than the plain step before it, which is gone on from: a plain step cannot fall.
        assert history.elbo[2 * step] < history.elbo[2 * step - 1]


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", BOTH)
@pytest.mark.parametrize("kind", ["ML", "MAP", "VB"])
def test_it_ends_where_em_does_in_fewer_steps(acceleration: Any, kind: str) -> None:
    given: dict[str, Any] = {"ML": {}, "MAP": {"program": BAYESIAN}, "VB": {"program": BAYESIAN}}[kind]
    if kind == "VB":
        given = {**given, "families": probem.VARIATIONAL_BAYES}
    plain, fast = fitted(None, **given), fitted(acceleration, **given)
    assert plain.result is fast.result is probem.Result.CONVERGED
    # Each promises to be so far below the maximum: twice that, since a promise is an estimate.
    np.testing.assert_allclose(fast.elbo, plain.elbo, rtol=0, atol=2 * 400 * 1e-9)
    assert fast.num_steps < plain.num_steps / 2
    check_history(fast)
    assert not plain.history.accelerated.any()


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", BOTH)
def test_the_fixed_point_is_that_of_em(acceleration: Any) -> None:
    # Steps of 1e-11 at a rate of 0.99 leave 1e-9.
    rule = ParameterShift(1e-22)
    plain, fast = fitted(None, tolerance=rule, shift=2.2), fitted(acceleration, tolerance=rule, shift=2.2)
    assert plain.result is fast.result is probem.Result.CONVERGED
    for name, value in plain.params.items():
        np.testing.assert_allclose(fast.params[name], value, rtol=0, atol=1e-8)
    assert fast.num_steps < plain.num_steps / 2


def plain_squarem(x: np.ndarray, start: dict[str, np.ndarray], num_cycles: int) -> list[np.ndarray]:
    """Scheme S3 in plain NumPy over log weights, locations, log scales; the points at which F is evaluated."""

    def em(point: np.ndarray) -> np.ndarray:
        log_weights, loc, variance = point[:2], point[2:4], np.exp(2 * point[4:])
        table = log_weights - np.log(np.exp(log_weights).sum()) - 0.5 * (x - loc) ** 2 / variance
        table -= 0.5 * np.log(2 * np.pi * variance)
        q = np.exp(table - np.logaddexp(*table.T)[:, None])
        counts = q.sum(0)
        loc = (q * x).sum(0) / counts
        return np.concatenate([np.log(counts / len(x)), loc, 0.5 * np.log((q * (x - loc) ** 2).sum(0) / counts)])

    point = np.concatenate([np.log(start["weights"]), start["loc"].ravel(), np.log(start["scale"].ravel())])
    seen = []
    farthest = 4.0
    for _ in range(num_cycles):
        first = em(point)
        second = em(first)
        r, v = first - point, second - 2 * first + point
        best = np.linalg.norm(r) / np.linalg.norm(v)
        size = min(best, farthest)
        farthest *= 4.0 if best >= farthest else 1.0
        moved = point + 2 * size * r + size**2 * v
        seen += [point, first, moved]
        point = em(moved)
    return seen


def test_squarem_is_that_of_a_plain_loop() -> None:
    x = overlapping()
    start = {"weights": np.array([0.4, 0.6]), "loc": np.array([[-0.5], [1.0]]), "scale": np.ones((2, 1))}
    steps = probem.iterate(
        PROGRAM, x, init=probem.Parameters(start), acceleration=probem.SQUAREM(), max_steps=9, throw=False
    )
    plain = plain_squarem(x, start, 3)
    fits = list(steps)
    assert list(fits[-1].history.accelerated[::2]) == [0, 0, 1] * 3
    for fit, point in zip(fits, plain, strict=True):
        weights = np.exp(point[:2]) / np.exp(point[:2]).sum()
        # A move multiplies what two steps differ by in rounding.
        np.testing.assert_allclose(fit.params["weights"], weights, rtol=1e-9)
        np.testing.assert_allclose(fit.params["loc"].ravel(), point[2:4], rtol=0, atol=1e-9)
        np.testing.assert_allclose(fit.params["scale"].ravel(), np.exp(point[4:]), rtol=1e-9)


def test_a_move_that_lowers_f_is_taken_back() -> None:
    # So long a first move leads out of the hill.
    far = probem.SQUAREM(farthest=1e6)
    fit = probem.fit(PROGRAM, overlapping(), key=1, max_steps=5000, tolerance=1e-9, acceleration=far)
    assert (fit.history.accelerated == -1).any()
    check_history(fit)
    np.testing.assert_allclose(fit.elbo, fitted(None).elbo, rtol=0, atol=2 * 400 * 1e-9)
    # The step limit ends a fit also where it falls upon such a move, and F is that of the parameters that are returned.
    step = int(np.flatnonzero(fit.history.accelerated[::2] == -1)[0])
    cut = probem.fit(PROGRAM, overlapping(), key=1, max_steps=step + 1, acceleration=far, throw=False)
    assert cut.result is probem.Result.STEP_LIMIT
    assert cut.num_steps == step + 1
    assert cut.elbo == pytest.approx(fit.history.elbo[2 * step - 2], rel=SAME)
    again = probem.elbo(PROGRAM, cut.params, cut.responsibilities(overlapping()), overlapping())
    np.testing.assert_allclose(cut.elbo, again.elbo, rtol=SAME)


@pytest.mark.slow
@pytest.mark.parametrize("acceleration", BOTH)
def test_restarts_many_and_solve_are_the_one_loop(acceleration: Any) -> None:
    x, options = overlapping(), {"key": 1, "max_steps": 20_000, "tolerance": 1e-9, "acceleration": acceleration}
    alone = fitted(acceleration)
    several = probem.fit(PROGRAM, x, restarts=3, **options)
    # The first restart is the fit without them; the best is no lower.
    np.testing.assert_allclose(several.restart_elbos[0], alone.elbo, rtol=SAME)
    assert several.elbo >= alone.elbo - SAME * abs(alone.elbo)
    check_history(several)
    many = probem.fit_many(
        PROGRAM,
        np.stack([x, x[::-1] + 3.0]),
        record_history=True,
        **options | {"key": jnp.stack([jax.random.key(1)] * 2)},
    )
    np.testing.assert_allclose(many[0].elbo, alone.elbo, rtol=SAME)
    assert many[0].num_steps == alone.num_steps
    np.testing.assert_array_equal(many[0].history.accelerated, alone.history.accelerated)
    np.testing.assert_allclose(many[1].elbo, alone.elbo, rtol=0, atol=2 * 400 * 1e-9)
    check_history(many[1])
    solved = jax.jit(lambda x: probem.solve(PROGRAM, x, **options))(x)
    assert int(solved.num_steps) == alone.num_steps
    np.testing.assert_allclose(solved.elbo, alone.elbo, rtol=SAME)


@pytest.mark.slow
def test_data_in_many_blocks() -> None:
    x = overlapping(270_000)
    options = FitOptions(max_steps=5000, tolerance=1e-7, key=1)
    plain = drive(*begin(PROGRAM, (x,), options), False)
    run, state = begin(PROGRAM, (x,), options._replace(acceleration=probem.SQUAREM()))
    assert len(run.data_pass.blocks) > run.data_pass.parallel_blocks
    fast = drive(run, state, False)
    assert fast.elbo > plain.elbo - 1e-7 * len(x)
    assert fast.num_steps < plain.num_steps / 2


@pytest.mark.slow
def test_the_loop_to_the_end_takes_as_many_steps() -> None:
    options = FitOptions(max_steps=5000, tolerance=1e-9, key=1, acceleration=probem.SQUAREM())
    run, state = begin(PROGRAM, (overlapping(),), options)
    data_pass = run.data_pass
    ended = compiled_run_to_end(data_pass.plan, state, data_pass.totals, tuple(data_pass.blocks), run.limits)
    assert int(ended.step) == fitted(probem.SQUAREM()).num_steps
    assert blank_memory(data_pass, state, run.limits).past is not None


def constrained(x: jax.Array) -> None:
    """A simplex, a covariance matrix and a Cholesky factor, some of which are fixed."""
    weights = numpyro.param("weights", jnp.full(3, 1 / 3), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.arange(6.0).reshape(3, 2))
    covariance = numpyro.param("covariance", jnp.eye(2), constraint=dist.constraints.positive_definite)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[t], covariance), obs=x)


@pytest.mark.slow
def test_coordinates_lead_there_and_back() -> None:
    x = np.random.default_rng(0).normal(size=(50, 2))
    fixed = {"weights": np.array([0.2, np.nan, np.nan])}
    run, state = begin(constrained, (x,), FitOptions(fixed=fixed))
    plan = run.data_pass.plan
    vector = position(plan, state.params)
    params, inside = at_position(plan, vector, state.params)
    assert bool(inside)
    for name, value in state.params.items():
        np.testing.assert_allclose(params[name], value, rtol=1e-12)
    noise = jnp.asarray(np.random.default_rng(1).normal(size=vector.shape))
    moved, inside = at_position(plan, vector + noise, state.params)
    assert bool(inside)
    assert float(moved["weights"][0]) == pytest.approx(0.2)
    assert float(moved["weights"].sum()) == pytest.approx(1.0)
    assert (np.linalg.eigvalsh(np.asarray(moved["covariance"])) > 0).all()
    # A site without a finite coordinate stays as it was.
    edge, _ = at_position(plan, vector.at[0].set(jnp.inf), state.params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b)), edge, dict(state.params)))


def test_full_posteriors_have_natural_parameters() -> None:
    x = overlapping()
    run, state = begin(BAYESIAN, (x,), FitOptions(families=probem.VARIATIONAL_BAYES))
    plan = run.data_pass.plan
    vector = position(plan, state.params)
    params, inside = at_position(plan, vector, state.params)
    assert bool(inside)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, old, rtol=1e-12), params, dict(state.params))
    # Far away there are no distributions.
    assert not bool(at_position(plan, -1e3 - 10 * jnp.abs(vector), state.params)[1])


def test_damping_shortens_to_the_share() -> None:
    random = np.random.default_rng(0)
    columns, residual = random.normal(size=(7, 3)), random.normal(size=7)
    whole = np.linalg.lstsq(columns, residual, rcond=None)[0]
    for share in (0.01, 0.3, 0.999):
        gamma = np.asarray(damped(jnp.asarray(columns), jnp.asarray(residual), jnp.asarray(share)))
        np.testing.assert_allclose((gamma**2).sum(), share * (whole**2).sum(), rtol=1e-6)
        # That of a ridge: the residual's gradient is a multiple of gamma.
        slope = columns.T @ (residual - columns @ gamma)
        np.testing.assert_allclose(slope / gamma, np.full(3, (slope / gamma)[0]), rtol=1e-5)
    assert not np.asarray(damped(jnp.zeros((7, 3)), jnp.asarray(residual), jnp.asarray(0.5))).any()


class Drawn(Categorical):
    """A family that says that it draws."""

    @property
    def is_stochastic(self) -> bool:
        return True

    @property
    def is_exact(self) -> bool:
        return False


def student(x: jax.Array) -> None:
    """No statistics: its parameters are climbed to."""
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.StudentT(5.0, loc[t], 1.0), obs=x)


def test_what_is_refused() -> None:
    x = overlapping()
    for options, got in (
        ({"families": probem.HARD_EM}, "SQUAREM for assignments that are point masses"),
        ({"families": {"t": Drawn()}}, "SQUAREM for the family Drawn, which draws"),
        ({"added_variance": 0.1}, "SQUAREM with added_variance"),
        ({"acceleration": probem.SQUAREM}, "acceleration=<class"),
        ({"acceleration": 2}, "acceleration=2"),
        ({"acceleration": probem.SQUAREM(growth=1.0)}, "growth=1.0 in SQUAREM"),
        ({"acceleration": probem.Anderson(memory=0)}, "memory=0 in Anderson"),
    ):
        with refused(got):
            begin(PROGRAM, (x,), FitOptions(**{"acceleration": probem.SQUAREM()} | options))
    with refused("Anderson for 'loc', which is climbed to along its gradient"):
        probem.fit(student, x[:, 0], acceleration=probem.Anderson())


def test_a_posterior_without_coordinates_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NaturalPosterior, "coordinates", SitePosterior.coordinates)
    with refused("SQUAREM for q of '[a-z]*', a NaturalPosterior"):
        probem.fit(BAYESIAN, overlapping(), families=probem.VARIATIONAL_BAYES, acceleration=probem.SQUAREM())


@pytest.mark.slow
def test_select_passes_it_on() -> None:
    programs = {"two": PROGRAM}
    options: dict[str, Any] = {"key": 1, "tolerance": 1e-9, "max_steps": 20_000}
    (row,) = probem.select(programs, overlapping(), acceleration=probem.Anderson(), **options).table
    assert row.fit is not None
    assert row.fit.num_steps == fitted(probem.Anderson()).num_steps
