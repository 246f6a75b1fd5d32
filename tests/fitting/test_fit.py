"""Whole fits against plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem import models
from tests.oracles import plain
from tests.programs.fits import (
    CENTRES,
    KMEANS,
    PROGRAM,
    START,
    X,
    em_step,
    hard,
    hard_gap,
    lloyd_step,
    normal_table,
    soft,
)


def test_em_is_the_plain_loop_at_every_half_step() -> None:
    fit, params = soft(), {name: np.asarray(value, float) for name, value in START.values.items()}
    for step in range(fit.num_steps):
        elbo, following = em_step(params, X)
        np.testing.assert_allclose(fit.history.elbo[2 * step], elbo, rtol=1e-11)
        if step == fit.num_steps - 1:
            break
        # After the M half-step: the same q at the new parameters.
        q = plain.posterior(normal_table(params, X))
        np.testing.assert_allclose(
            fit.history.elbo[2 * step + 1], plain.bound(normal_table(following, X), q), rtol=1e-11
        )
        params = following
    # Rounding of a thousand steps' worth of a contraction: it does not build up.
    for name, value in params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(fit.elbo, elbo, rtol=1e-12)
    assert plain.rises(fit.history)


def test_a_wrong_m_step_would_be_seen() -> None:
    """A planted fault: variances around the old means."""
    params = {name: np.asarray(value, float) for name, value in START.values.items()}
    _, right = em_step(params, X)
    wrong = right | {"scale": right["scale"] * 1.001}
    q = plain.posterior(normal_table(params, X))
    assert abs(plain.bound(normal_table(wrong, X), q) - soft().history.elbo[1]) > 1e-5


def test_hard_em_is_lloyd_step_by_step() -> None:
    fit, loc = hard(), X[:3]
    previous, steps = None, 0
    while True:
        labels, following = lloyd_step(loc, X)
        moved = len(X) if previous is None else int((labels != previous).sum())
        assert fit.history.moved[2 * steps] == moved
        inertia = ((X - loc[labels]) ** 2).sum()
        expected = -0.5 * inertia - len(X) * np.log(3) - len(X) * np.log(2 * np.pi)
        np.testing.assert_allclose(fit.history.elbo[2 * steps], expected, rtol=1e-12)
        steps += 1
        if moved == 0:
            break
        previous, loc = labels, following
    assert fit.num_steps == steps
    assert fit.result is probem.Result.CONVERGED
    np.testing.assert_allclose(fit.params["loc"], loc, rtol=1e-12)
    np.testing.assert_array_equal(fit.predict(X), labels)
    np.testing.assert_array_equal(fit.responsibilities(X), np.eye(3)[labels])
    np.testing.assert_array_equal(fit.counts, np.bincount(labels, minlength=3))


def without_density(x: jax.Array) -> None:
    """The diagonal mixture of two components, with a flat prior in place of every parameter."""
    weights = numpyro.sample("weights", dist.ImproperUniform(constraints.simplex, (), (2,)))
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.ImproperUniform(constraints.real_vector, (), (2,)))
        scale = numpyro.sample(
            "scale", dist.ImproperUniform(constraints.independent(constraints.positive, 1), (), (2,))
        )
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Normal(loc[t], scale[t]).to_event(1), obs=x)


@pytest.mark.slow
def test_a_flat_prior_is_none() -> None:
    fit = probem.fit(without_density, X, init=START, tolerance=1e-12)
    assert all(site.has_prior for site in fit.plan.program.globals)
    assert (fit.elbo, fit.num_steps) == (pytest.approx(soft().elbo, rel=1e-14), soft().num_steps)
    assert fit.bound.log_prior == 0
    for name, value in soft().params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=0, atol=1e-8)


@pytest.mark.slow
def test_a_flat_prior_has_starts_of_its_own() -> None:
    """Nothing can be drawn from it: what is not seeded starts in the middle of its support."""
    drawn, given = (probem.fit(program, X, key=2, tolerance=1e-12) for program in (without_density, PROGRAM))
    np.testing.assert_allclose(drawn.elbo, given.elbo, rtol=1e-14)
    for name, value in given.params.items():
        np.testing.assert_allclose(drawn.params[name], value, rtol=0, atol=1e-8)
    first = probem.fit(without_density, X, init=probem.Parameters({}), max_steps=1, throw=False)
    np.testing.assert_array_equal(first.params["scale"], 1.0)


def test_the_data_is_left_alone() -> None:
    x = X.copy()
    x.setflags(write=False)
    probem.fit(PROGRAM, x, init=START, tolerance=1e-12)
    np.testing.assert_array_equal(x, X)


def test_the_same_key_gives_the_same_fit() -> None:
    first, again = (probem.fit(KMEANS, X, families=probem.HARD_EM, key=3) for _ in range(2))
    other = probem.fit(KMEANS, X, families=probem.HARD_EM, key=jax.random.key(3))
    np.testing.assert_array_equal(first.params["loc"], again.params["loc"])
    np.testing.assert_array_equal(first.params["loc"], other.params["loc"])
    starts = {float(probem.fit(KMEANS, X, families=probem.HARD_EM, key=key).history.elbo[0]) for key in range(5)}
    assert len(starts) > 1


@pytest.mark.slow
def test_the_best_of_several_restarts_is_kept_and_all_are_reported() -> None:
    fit = probem.fit(KMEANS, X, families=probem.HARD_EM, key=5, restarts=6)
    keys = jax.random.split(jax.random.key(5), 6)
    alone = [probem.fit(KMEANS, X, families=probem.HARD_EM, key=key) for key in keys]
    np.testing.assert_allclose(fit.restart_elbos, [one.elbo for one in alone], rtol=1e-12)
    assert fit.elbo == max(fit.restart_elbos)
    # Several may reach the best bound; the history is that of one of them.
    own = [one for one in alone if one.num_steps == fit.num_steps and np.isclose(one.elbo, fit.elbo, rtol=1e-12)]
    assert any(np.allclose(one.history.elbo, fit.history.elbo, rtol=1e-12) for one in own)
    assert any(np.allclose(one.params["loc"], fit.params["loc"], rtol=1e-12) for one in own)
    assert len(set(np.round(fit.restart_elbos, 6))) > 1


WHOLE = np.random.default_rng(3).integers(0, 4, len(X))


def test_row_weights_equal_repetition_and_a_weight_of_zero_is_absence() -> None:
    repeated = probem.fit(PROGRAM, np.repeat(X, WHOLE, axis=0), init=START, tolerance=1e-12)
    weighted = probem.fit(PROGRAM, X, row_weights=WHOLE, init=START, tolerance=1e-12)
    np.testing.assert_allclose(weighted.elbo, repeated.elbo, rtol=1e-11)
    for name in repeated.params:
        np.testing.assert_allclose(weighted.params[name], repeated.params[name], rtol=1e-10, atol=1e-10)
    assert weighted.total_weight == WHOLE.sum()
    np.testing.assert_allclose(weighted.counts.sum(), WHOLE.sum(), rtol=1e-12)
    # An outlandish row of weight zero changes nothing.
    outlier = np.concatenate([X, [[1e3, -1e3]]])
    absent = probem.fit(PROGRAM, outlier, row_weights=np.r_[WHOLE, 0], init=START, tolerance=1e-12)
    np.testing.assert_allclose(absent.elbo, weighted.elbo, rtol=1e-9)
    np.testing.assert_allclose(absent.params["scale"], weighted.params["scale"], rtol=1e-7)


def test_fractional_weights_are_the_weighted_loop() -> None:
    weights = np.random.default_rng(4).random(len(X))
    fit = probem.fit(PROGRAM, X, row_weights=weights, init=START, max_steps=5, throw=False)
    params = {name: np.asarray(value, float) for name, value in START.values.items()}
    for _ in range(4):
        params = em_step(params, X, weights)[1]
    np.testing.assert_allclose(fit.elbo, em_step(params, X, weights)[0], rtol=1e-11)
    np.testing.assert_allclose(fit.params["loc"], params["loc"], rtol=1e-9)


@pytest.mark.slow
def test_the_gap_is_recorded_when_asked_for_and_known_for_em() -> None:
    asked = probem.fit(KMEANS, X, families=probem.HARD_EM, init=CENTRES, record_gap=True)
    halves = asked.history.half == "E"
    assert np.isfinite(asked.history.gap[halves]).all()
    assert np.isnan(asked.history.gap[~halves]).all()
    np.testing.assert_allclose(asked.history.gap[halves][-1], hard_gap(), rtol=1e-10)
    assert np.isnan(hard().history.gap).all()
    np.testing.assert_array_equal(soft().history.gap[::2], 0)


def test_far_from_the_origin_nothing_is_lost() -> None:
    """Second moments are formed around the mean: a shift of a million scales leaves ten digits of float64."""
    far = probem.fit(
        PROGRAM, X + 1e6, init=probem.Parameters(dict(START.values) | {"loc": X[:2] + 1e6}), tolerance=1e-12
    )
    np.testing.assert_allclose(far.elbo, soft().elbo, rtol=1e-7)
    np.testing.assert_allclose(far.params["scale"], soft().params["scale"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("structure", [models.tied, models.shared_spherical])
def test_covariance_structures_against_their_constraint(structure) -> None:
    """Structures nest. The steps of the others are compared with scikit-learn's."""
    program = functools.partial(models.gmm, num_components=2, covariance=structure)
    fit = probem.fit(program, X, key=1, tolerance=1e-13)
    full = probem.fit(
        functools.partial(models.gmm, num_components=2), X, init=probem.Labels(fit.predict(X)), tolerance=1e-13
    )
    assert full.elbo >= fit.elbo - 1e-9 * abs(fit.elbo)


@pytest.mark.slow
def test_one_component_is_a_single_distribution() -> None:
    fit = probem.fit(functools.partial(models.gmm, num_components=1), X)
    covariance = np.cov(X.T, bias=True)
    np.testing.assert_allclose(fit.params["covariance"][0], covariance, rtol=1e-12)
    np.testing.assert_allclose(
        fit.elbo, scipy.stats.multivariate_normal.logpdf(X, X.mean(0), covariance).sum(), rtol=1e-12
    )
    assert fit.num_steps <= 3


@pytest.mark.slow
@pytest.mark.parametrize("families", [None, probem.HARD_EM])
def test_a_program_without_parameters_is_evaluated(families) -> None:
    def known(x):
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.3, 0.7])))
            numpyro.sample("x", dist.Normal(jnp.array([-1.0, 1.0])[t], 1.0), obs=x)

    fit = probem.fit(known, X[:, 0], families=families)
    assert fit.params == {}
    assert fit.result is probem.Result.CONVERGED


def test_answers_may_be_written_to() -> None:
    """What JAX returns may not."""
    fit = soft()
    for answer in (fit.predict(X), fit.responsibilities(X), fit.log_density(X)):
        answer[0] = 0
