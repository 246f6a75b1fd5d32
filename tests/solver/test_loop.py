"""The loop: what the history means, when it stops, and every result by name."""

import functools
import sys

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem import Result, models
from probem.solver import judgement
from tests.oracles import plain
from tests.programs.fits import KMEANS, PROGRAM, START, X, hard, normal_table, soft

FULL = functools.partial(models.gmm, num_components=2)


def test_the_history_has_two_entries_a_step() -> None:
    history, num_steps = soft().history, soft().num_steps
    assert len(history) == 2 * num_steps
    np.testing.assert_array_equal(history.step, np.repeat(np.arange(num_steps), 2))
    np.testing.assert_array_equal(history.half, ["E", "M"] * num_steps)
    np.testing.assert_allclose(
        history.elbo, history.expected_log_joint + history.entropy + history.log_prior, rtol=1e-14
    )
    np.testing.assert_array_equal(history.objective, history.elbo)
    np.testing.assert_array_equal(history.log_prior, 0)
    # An M half-step changes the parameters alone, so the entropy stands still.
    np.testing.assert_array_equal(history.entropy[::2], history.entropy[1::2])
    assert (history.moved == -1).all()
    assert (hard().history.moved[1::2] == -1).all()
    assert (hard().history.moved[::2] >= 0).all()
    assert plain.rises(history)
    assert plain.rises(hard().history)


def test_the_bound_reported_is_that_of_the_parameters_reported() -> None:
    fit = soft()
    assert fit.elbo == fit.history.elbo[-2]  # the last E half-step; the M half-step after it is not taken
    np.testing.assert_allclose(fit.elbo, plain.log_likelihood(normal_table(fit.params, X)), rtol=1e-12)


def test_point_masses_stop_exactly_when_no_row_moved() -> None:
    moved = hard().history.moved[::2]
    assert moved[-1] == 0
    assert (moved[:-1] > 0).all()
    assert moved[0] == len(X)


@pytest.mark.slow
def test_rows_of_weight_zero_do_not_move() -> None:
    """Or k-means would wait for them, which pull no centre."""
    weights = np.random.default_rng(7).integers(0, 2, len(X)).astype(float)
    for key in range(6):
        fit = probem.fit(KMEANS, X, families=probem.HARD_EM, row_weights=weights, key=key, throw=False)
        without = probem.fit(KMEANS, X[weights > 0], families=probem.HARD_EM, key=key, throw=False)
        np.testing.assert_array_equal(fit.history.moved, without.history.moved)
        np.testing.assert_allclose(fit.elbo, without.elbo, rtol=1e-12)


@pytest.mark.slow
def test_the_objective_of_a_tempered_family_rises_and_its_bound_is_reported() -> None:
    beta = 0.4
    fit = probem.fit(PROGRAM, X, families={"t": probem.Tempered(beta)}, init=START, max_steps=30, throw=False)
    history = fit.history
    np.testing.assert_allclose(history.objective, history.expected_log_joint + history.entropy / beta, rtol=1e-12)
    assert plain.rises(history)
    table = normal_table(fit.params, X)
    q = plain.posterior(beta * table)
    np.testing.assert_allclose(fit.elbo, plain.bound(table, q), rtol=1e-11)


def test_tolerance_and_step_limit() -> None:
    loose = probem.fit(PROGRAM, X, init=START, tolerance=1e-3)
    assert loose.num_steps < soft().num_steps
    rises = np.diff(loose.history.elbo[::2]) / len(X)
    assert rises[-1] <= 1e-3
    assert loose.promised <= 1e-3 * len(X)
    endless = probem.fit(PROGRAM, X, init=START, tolerance=0, max_steps=500, throw=False)
    assert endless.result is Result.STEP_LIMIT
    assert endless.num_steps == 500
    one = probem.fit(PROGRAM, X, init=START, max_steps=1, throw=False)
    assert (one.num_steps, one.result) == (1, Result.STEP_LIMIT)
    for name, value in START.values.items():
        np.testing.assert_array_equal(one.params[name], value)
    with pytest.raises(probem.FitError, match=r"step limit .* after 2 steps, F = -\d.*; raise max_steps") as caught:
        probem.fit(PROGRAM, X, init=START, max_steps=2)
    assert caught.value.fit.num_steps == 2
    assert np.isfinite(caught.value.fit.elbo)


def test_a_tolerance_is_any_real_number_in_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    # The check of annotations, which is there while testing only, would come first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    given = np.float32(1e-6)
    fit, same = (probem.fit(PROGRAM, X, init=START, tolerance=tolerance) for tolerance in (given, float(given)))
    assert fit.num_steps == same.num_steps < soft().num_steps
    for refused in ("x", 1.0, -1, None, 1e-6j):
        expected = r"a number in \[0, 1\), or a rule of probem.stopping"
        with pytest.raises(probem.InputError, match=rf"^got tolerance=[^;]*; expected {expected}; [^\n]*\.$"):
            probem.fit(PROGRAM, X, init=START, tolerance=refused)


def heavy_tails(x):
    """Locations of a known scale: the first step of an ascent that does not know it is a thousand times too long."""
    loc = numpyro.param("loc", jnp.array([-1e-3, 1e-3]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.StudentT(3.0, loc[t], 1e-3), obs=x)


@pytest.mark.slow
def test_steps_that_were_all_too_long_are_no_sign_of_a_maximum() -> None:
    x = 1e-3 * (np.tile([-4.0, 4.0], 30) + np.random.default_rng(0).standard_t(3, size=60))
    fit = probem.fit(heavy_tails, x, init=probem.Parameters({}))

    @jax.jit
    @jax.grad
    def gradient(loc):
        return jax.nn.logsumexp(probem.log_joint(heavy_tails, {"loc": loc}, x), axis=1).sum()

    # F promises less than 1e-10 nats a row: the square root of that is left of the gradient.
    start = np.abs(gradient(jnp.array([-1e-3, 1e-3]))).max()
    assert np.abs(gradient(fit.params["loc"])).max() < 1e-4 * start


def test_iterate_takes_the_steps_of_fit() -> None:
    fits = list(probem.iterate(PROGRAM, X, init=START, tolerance=1e-12))
    assert [fit.num_steps for fit in fits] == list(range(1, soft().num_steps + 1))
    assert all(fit.result is None for fit in fits[:-1])
    assert fits[-1].result is Result.CONVERGED
    np.testing.assert_array_equal(fits[0].params["loc"], START.values["loc"])
    np.testing.assert_array_equal([fit.elbo for fit in fits], soft().history.elbo[::2])
    np.testing.assert_array_equal(fits[-1].params["loc"], soft().params["loc"])
    some = probem.iterate(PROGRAM, X, init=START, max_steps=2)
    next(some)
    next(some)
    with pytest.raises(probem.FitError, match="step limit"):
        next(some)


# Results, each by its name and with the last good state.


def test_singular_names_the_component() -> None:
    """THEORY D1: a mean on a point, with a small variance, grows without limit; the point is far from the others."""
    x = np.concatenate([X, [[50.0, 50.0]]])
    start = {"loc": np.array([[0.0, 0.0], [50.0, 50.0]]), "scale": np.ones((2, 2))}
    with pytest.raises(probem.FitError, match=r"collapsed.* \(component 1 of site 'x'\) after .*; use fewer") as caught:
        probem.fit(PROGRAM, x, init=probem.Parameters(start))
    fit = caught.value.fit
    assert fit.result is Result.SINGULAR
    assert fit.component == 1
    assert all(np.isfinite(value).all() for value in fit.params.values())
    assert (fit.params["scale"] > 0).all()
    np.testing.assert_allclose(fit.elbo, plain.log_likelihood(normal_table(fit.params, x)), rtol=1e-11)


def test_singular_from_the_start() -> None:
    """A component of one row has no variance, and no step is made."""
    labels = np.zeros(len(X), int)
    labels[7] = 1
    fit = probem.fit(PROGRAM, X, init=probem.Labels(labels), throw=False)
    assert fit.result is Result.SINGULAR
    assert fit.component == 1
    assert len(fit.history) == 2 * fit.num_steps
    with pytest.raises(probem.FitError, match=r"component 1 of site 'x'"):
        probem.fit(PROGRAM, X, init=probem.Labels(labels))


@pytest.mark.slow
def test_a_shared_spread_of_identical_rows_is_singular_too() -> None:
    x = np.repeat([[0.0, 0.0], [1.0, 2.0]], 20, axis=0)
    program = functools.partial(models.gmm, num_components=2, covariance=models.shared_spherical)
    fit = probem.fit(program, x, throw=False, key=1)
    assert fit.result is Result.SINGULAR


def test_an_empty_component_keeps_its_parameters_and_is_named() -> None:
    """k-means with a centre so far away that no row ever comes to it."""
    centres = np.array([X[0], [500.0, 500.0], X[1]])
    with pytest.raises(probem.FitError, match=r"no row belongs to \(component 1 of site 't'\) .*; use fewer") as caught:
        probem.fit(KMEANS, X, families=probem.HARD_EM, init=probem.Parameters({"loc": centres}))
    fit = caught.value.fit
    assert fit.result is Result.EMPTY_COMPONENT
    np.testing.assert_array_equal(fit.params["loc"][1], [500.0, 500.0])
    assert fit.counts[1] == 0


@pytest.mark.slow
def test_non_finite_when_no_component_allows_a_row() -> None:
    """A row outside both intervals has no density; nothing but the numbers says so."""

    def intervals(x):
        size = numpyro.param("size", jnp.array([1.0, 2.0]), constraint=constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Uniform(-size[t], size[t]), obs=x)

    x = np.array([1.0, 2.0, -1.0, 3.0])
    with pytest.raises(probem.FitError, match=r"not finite.*check that the distributions allow every value") as caught:
        probem.fit(intervals, x, init=probem.Parameters({}))
    assert caught.value.fit.result is Result.NON_FINITE
    assert np.isfinite(caught.value.fit.params["size"]).all()


@pytest.mark.slow
def test_a_bound_that_falls_is_a_result_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: an M-step that overshoots its means threefold, in a program that nothing else compiles."""
    program = functools.partial(models.kmeans, num_components=5)
    right = judgement.maximise

    def overshooting(plan, statistics, params):
        found = right(plan, statistics, params)
        return found | {"loc": params["loc"] + 3.0 * (found["loc"] - params["loc"])}

    monkeypatch.setattr(judgement, "maximise", overshooting)
    with pytest.raises(
        probem.FitError, match=r"bound fell by more than rounding explains after .* report the program"
    ) as caught:
        probem.fit(program, X, families=probem.HARD_EM, init=probem.Parameters({"loc": X[:5]}))
    fit = caught.value.fit
    assert fit.result is Result.BOUND_FELL
    assert not plain.rises(fit.history)
    assert fit.elbo == np.max(fit.history.elbo[::2])


def test_so_is_one_that_falls_in_an_e_half_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: rows go to the farthest centre, in a program that nothing else compiles."""
    program = functools.partial(models.kmeans, num_components=4)
    farthest = probem.Delta.project
    monkeypatch.setattr(probem.Delta, "project", lambda family, table: farthest(family, -table))
    fit = probem.fit(program, X, families=probem.HARD_EM, init=probem.Parameters({"loc": X[:4]}), throw=False)
    # Up by the M half-step, down again by the E half-step that follows, which ends the fit.
    (first, raised, fallen), halves = fit.history.elbo[:3], fit.history.half
    assert first < raised > fallen
    assert (fit.result, halves[2]) == (Result.BOUND_FELL, "E")


def test_control_c_returns_the_best_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted before the fourth call of compiled code, of one step and then a few more each."""
    module = sys.modules["probem.fitting.run"]
    right, calls = module.advance, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return right(*arguments)

    monkeypatch.setattr(module, "advance", interrupted)
    monkeypatch.setattr(module, "_next_steps", lambda num_steps, seconds: 1)
    fit = probem.fit(PROGRAM, X, init=START, tolerance=1e-12)
    assert fit.result is Result.INTERRUPTED
    assert fit.num_steps == 3
    assert fit.elbo == soft().history.elbo[4]
    assert np.isfinite(fit.params["loc"]).all()


def test_control_c_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call compiles, which takes the longest."""
    module = sys.modules["probem.fitting.run"]

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "advance", interrupted)
    fit = probem.fit(PROGRAM, X, init=START)
    assert fit.result is Result.INTERRUPTED
    np.testing.assert_array_equal(fit.params["loc"], START.values["loc"])
    assert len(fit.history) == 0


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3])
def test_the_gradient_route_does_not_depend_on_units(scale: float) -> None:
    """Neither the first step nor what happened under the q of the seeds may end a fit."""
    x = scale * (np.tile([-4.0, 4.0], 30) + np.random.default_rng(0).standard_t(3, size=60))

    def program(x):
        loc = numpyro.param("loc", jnp.array([-scale, scale]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.StudentT(3.0, loc[t], scale), obs=x)

    fit = probem.fit(program, x)

    # The maximum at scale 1, by SciPy; F changes by N log scale.
    def negative(loc):
        table = scipy.stats.t.logpdf(x[:, None] / scale, 3.0, loc)
        return -(np.logaddexp.reduce(table, axis=1) + np.log(0.5)).sum()

    best = scipy.optimize.minimize(negative, [-4.0, 4.0], tol=1e-10)
    np.testing.assert_allclose(fit.elbo, -best.fun - len(x) * np.log(scale), atol=1e-5)
