"""Whole fits against plain loops, and what a fit answers about rows."""

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
from probem.analysis.routes import make_plan
from probem.families import Corner
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.oracles import plain
from tests.programs import fits
from tests.programs.fits import CENTRES, KMEANS, PROGRAM, START, X, em_step, hard, lloyd_step, normal_table, soft


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


@pytest.mark.parametrize("num_rows", [90, 700])
def test_log_densities_can_be_differentiated_by_the_rows(num_rows: int) -> None:
    """The score, in one chunk and in several: against central differences, whose error is the square of the step."""
    fit = fits.soft()
    x = jnp.asarray(np.random.default_rng(2).normal(size=(num_rows, 2)))
    scores = jax.grad(lambda rows: fit.log_density(rows).sum())(x)
    for column in np.eye(2):
        ahead, behind = (np.asarray(fit.log_density(x + step * column)) for step in (1e-5, -1e-5))
        np.testing.assert_allclose(scores @ column, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-7)


def test_answers_about_rows() -> None:
    fit = soft()
    table = normal_table(fit.params, X)
    np.testing.assert_allclose(fit.log_density(X), np.logaddexp.reduce(table, axis=1), rtol=1e-12)
    np.testing.assert_allclose(fit.responsibilities(X), plain.posterior(table), atol=1e-12)
    np.testing.assert_array_equal(fit.predict(X), table.argmax(1))
    np.testing.assert_allclose(fit.gap(X), 0, atol=1e-10)
    np.testing.assert_allclose(hard().gap(X), _hard_gap(), rtol=1e-10)
    new = X[:7] + 100.0
    np.testing.assert_allclose(
        fit.log_density(new), np.logaddexp.reduce(normal_table(fit.params, new), axis=1), rtol=1e-11
    )
    assert fit.families == {"t": probem.Categorical()}
    assert repr(fit).startswith("Fit(CONVERGED, elbo=")
    with pytest.raises(
        probem.InputError, match=r"got data of row shapes \(3,\) float64; expected \(2,\) float64 as fitted"
    ):
        fit.predict(np.ones((4, 3)))
    with pytest.raises(probem.InputError, match=r"1 value that is infinite in the data \(column 1\)"):
        fit.predict(np.array([[0.0, np.inf]]))


def _hard_gap() -> float:
    q = plain.posterior(normal_table(hard().params, X))
    return -np.log(q.max(1)).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, bool])
def test_rows_of_another_kind_of_number_are_those_numbers(dtype) -> None:
    rows = np.abs(2 * X).astype(dtype)
    fit, same = soft(), rows.astype(float)
    np.testing.assert_array_equal(fit.predict(rows), normal_table(fit.params, same).argmax(1))
    for answer in (fit.predict, fit.responsibilities, fit.log_density):
        np.testing.assert_array_equal(answer(rows), answer(same))
        assert answer(rows).dtype == answer(same).dtype


def test_rows_that_the_fitted_type_cannot_hold_are_refused() -> None:
    single = probem.fit(PROGRAM, X.astype(np.float32), init=START, max_steps=2, throw=False)
    with pytest.raises(probem.InputError, match=r"float64 values beyond the range of float32; expected values that"):
        single.predict(np.where(X == X[3, 0], 1e300, X))


@pytest.mark.parametrize("rows", [X[:, :1], X[:, 0], X[:, :, None]], ids=lambda rows: str(rows.shape))
def test_rows_of_another_shape_are_refused(rows) -> None:
    with pytest.raises(probem.InputError, match=r"^got data of row shapes [^;]*; expected \(2,\) float64 as fitted; "):
        soft().predict(rows)
    with pytest.raises(probem.InputError, match=r"\(2,\) float64, \(2,\) float64; expected \(2,\) float64 as fitted"):
        soft().predict(X, X)


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
    np.testing.assert_allclose(asked.history.gap[halves][-1], _hard_gap(), rtol=1e-10)
    assert np.isnan(hard().history.gap).all()
    np.testing.assert_array_equal(soft().history.gap[::2], 0)


def test_far_from_the_origin_nothing_is_lost() -> None:
    """Second moments are formed around the mean: a shift of a million scales leaves ten digits of float64."""
    far = probem.fit(
        PROGRAM, X + 1e6, init=probem.Parameters(dict(START.values) | {"loc": X[:2] + 1e6}), tolerance=1e-12
    )
    np.testing.assert_allclose(far.elbo, soft().elbo, rtol=1e-7)
    np.testing.assert_allclose(far.params["scale"], soft().params["scale"], rtol=1e-5)


# Data in several blocks takes the step from the host.


@functools.cache
def _many(num_rows: int) -> np.ndarray:
    random = np.random.default_rng(5)
    means = np.array([[-3.0, 0.0], [0.5, 1.0], [3.0, -1.0]])
    return means[random.integers(0, 3, num_rows)] + random.normal(size=(num_rows, 2))


@pytest.mark.parametrize("family", [pytest.param("soft", marks=pytest.mark.slow), "hard"])
def test_several_blocks_are_one(family: str) -> None:
    """More rows than a block holds, against the plain loop."""
    x = _many(300_000 if family == "soft" else 70_000)
    program, init, choice = (PROGRAM, START, None) if family == "soft" else (KMEANS, CENTRES, probem.HARD_EM)
    fit = probem.fit(program, x, families=choice, init=init, max_steps=4, throw=False, progress=False)
    params = {name: np.asarray(value, float) for name, value in init.values.items()}
    for step in range(4):
        if family == "soft":
            elbo, following = em_step(params, x)
        else:
            labels, loc = lloyd_step(params["loc"], x)
            elbo, following = np.take_along_axis(normal_table(params, x), labels[:, None], 1).sum(), {"loc": loc}
        np.testing.assert_allclose(fit.history.elbo[2 * step], elbo, rtol=1e-10)
        if step < 3:
            params = following
    np.testing.assert_allclose(fit.params["loc"], params["loc"], rtol=1e-9)
    np.testing.assert_array_equal(fit.predict(x), normal_table(params, x).argmax(1))
    assert fit.plan.cut(len(x)).block_rows < len(x)


@functools.cache
def in_one_block(corner: Corner) -> list[probem.Fit]:
    """Of the same rows every way to start, weights and restarts included."""
    return started(corner)


def started(corner: Corner) -> list[probem.Fit]:
    x, weights = _many(8000), np.random.default_rng(0).random(8000)
    choices = [
        {"init": START, "row_weights": weights},
        {"init": probem.Labels(normal_table(START.values, x).argmax(1)), "restarts": 1},
        {"init": probem.Responsibilities(plain.posterior(normal_table(START.values, x)))},
        {"init": lambda key, rows: {"loc": rows[jax.random.choice(key, len(rows), (2,))]}, "restarts": 3, "key": 1},
    ]
    return [probem.fit(PROGRAM, x, families=corner, max_steps=6, throw=False, **choice) for choice in choices]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corner", "cut"),
    [
        pytest.param(probem.EM, Chunking(2048, 256), id="from the host"),
        pytest.param(probem.HARD_EM, Chunking(1024, 1024, abreast=3), id="by threes and two left over"),
        pytest.param(probem.HARD_EM, Chunking(2048, 2048, abreast=4), id="four in one loop"),
    ],
)
def test_blocks_chunks_restarts_and_weights_meet(
    corner: Corner, cut: Chunking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One data set in one block and in more."""
    small = in_one_block(corner)
    jax.clear_caches()
    make_plan.cache_clear()
    monkeypatch.setattr(Plan, "cut", lambda self, num_rows: cut)
    large = started(corner)
    for one, other in zip(small, large, strict=True):
        np.testing.assert_allclose(one.history.elbo, other.history.elbo, rtol=1e-11)
        np.testing.assert_allclose(one.restart_elbos, other.restart_elbos, rtol=1e-11)
        for name in one.params:
            np.testing.assert_allclose(one.params[name], other.params[name], rtol=1e-9, atol=1e-12)
    monkeypatch.undo()
    jax.clear_caches()
    make_plan.cache_clear()
    fits.soft.cache_clear()
    fits.hard.cache_clear()


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
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def known(x):
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.3, 0.7])))
            numpyro.sample("x", dist.Normal(jnp.array([-1.0, 1.0])[t], 1.0), obs=x)

    fit = probem.fit(known, X[:, 0], families=families)
    assert fit.params == {}
    assert fit.result is probem.Result.CONVERGED


def heavy_tails(x: jax.Array) -> None:
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.4))
        numpyro.sample("x", dist.StudentT(4.0, loc[t], scale[t]), obs=x)


@pytest.mark.slow
def test_the_gradient_route_ends_at_a_maximum_in_any_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over the rows in another order differ by rounding, which is no gain and no sign of a maximum."""
    random = np.random.default_rng(0)
    many = random.standard_t(4, (12, 600)) * np.where(random.random((12, 600)) < 0.4, 0.7, 1.0)
    many += np.where(random.random((12, 600)) < 0.4, 2.0, -3.0)

    def negative(vector: np.ndarray, x: np.ndarray) -> float:
        table = scipy.stats.t.logpdf(x[:, None], 4.0, vector[:2], np.exp(vector[2:])) + np.log([0.6, 0.4])
        return -np.logaddexp.reduce(table, axis=1).sum()

    def check() -> None:
        jax.clear_caches()
        make_plan.cache_clear()
        for x in many:
            fit = probem.fit(heavy_tails, x, init=probem.Labels((x > 0).astype(int)))
            found = np.concatenate([fit.params["loc"], np.log(fit.params["scale"])])
            best = scipy.optimize.minimize(negative, found, args=(x,), tol=1e-9)
            # The last rise was below 1e-9 of F; what is left adds up to a few of those.
            np.testing.assert_allclose(fit.elbo, -best.fun, atol=1e-4)

    check()
    monkeypatch.setattr(Plan, "cut", lambda self, num_rows: Chunking(64, 64))
    check()
    monkeypatch.undo()
    jax.clear_caches()
    make_plan.cache_clear()
    fits.soft.cache_clear()
    fits.hard.cache_clear()


COUNTS = np.random.default_rng(3).poisson(np.where(np.arange(60)[:, None] < 30, 2.0, 9.0), (60, 2))
POISSON = functools.partial(models.poisson_mixture, num_components=2)


def log_normal(x: jax.Array) -> None:
    """Known by its log_prob alone, which is minus infinity at zero."""
    loc = numpyro.param("loc", jnp.array([0.0, 2.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.LogNormal(loc[t], 1.0), obs=x)


def padded(x: np.ndarray, value: float, front: bool) -> tuple[np.ndarray, np.ndarray]:
    """With four rows of weight 0 that hold the value."""
    rows, weights = np.full((4, *x.shape[1:]), value, x.dtype), np.repeat([0.0, 1.0], [4, len(x)])
    return (np.concatenate([rows, x]), weights) if front else (np.concatenate([x, rows]), weights[::-1].copy())


@pytest.mark.parametrize("front", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_of_weight_zero_may_hold_what_the_densities_do_not_allow(front: bool) -> None:
    x, weights = padded(COUNTS, -1, front)
    options = {"init": probem.Parameters({"rate": np.array([[1.0, 2.0], [6.0, 5.0]])}), "max_steps": 6, "tolerance": 0}
    without, fit = (
        probem.fit(POISSON, *rows, row_weights=own, throw=False, **options)
        for rows, own in (([COUNTS], None), ([x], weights))
    )
    np.testing.assert_allclose(fit.history.elbo, without.history.elbo, rtol=1e-12)
    np.testing.assert_allclose(fit.params["rate"], without.params["rate"], rtol=1e-12)
    np.testing.assert_allclose(
        probem.absorb(fit, x, row_weights=weights).elbo, probem.absorb(without, COUNTS).elbo, rtol=1e-12
    )
    traced = jax.jit(lambda weights: probem.solve(POISSON, x, row_weights=weights, **options).elbo)(weights)
    np.testing.assert_allclose(traced, without.elbo, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("front", [False, True])
def test_so_they_may_whatever_is_fitted(front: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From seeds; many data sets; beside gaps; in blocks; a density known by its log_prob alone; huge values."""
    x, weights = padded(COUNTS, -1, front)
    without = probem.fit(POISSON, COUNTS)
    many = probem.fit_many(POISSON, np.stack([x, x]), row_weights=np.stack([weights] * 2), tolerance=1e-13)
    np.testing.assert_allclose(many.elbo, without.elbo, rtol=1e-8)
    gaps = np.where(np.arange(len(x))[:, None] == 7, np.nan, x)
    kept = probem.fit(POISSON, gaps[weights > 0])
    np.testing.assert_allclose(probem.fit(POISSON, gaps, row_weights=weights).elbo, kept.elbo, rtol=1e-12)
    monkeypatch.setattr(Plan, "cut", lambda plan, num_rows: Chunking(16, 16))
    in_blocks = probem.fit(functools.partial(POISSON), x, row_weights=weights, tolerance=1e-13)
    np.testing.assert_allclose(in_blocks.elbo, without.elbo, rtol=1e-8)
    monkeypatch.undo()
    y = np.exp(np.random.default_rng(4).normal(size=60) + np.repeat([0.0, 3.0], 30))
    rows, weights = padded(y, 0.0, front)
    fit, without = probem.fit(log_normal, rows, row_weights=weights), probem.fit(log_normal, y)
    np.testing.assert_allclose(fit.history.elbo, without.history.elbo, rtol=1e-11)
    rows, weights = padded(X, 1e300, front)
    for program, families in ((PROGRAM, probem.EM), (KMEANS, probem.HARD_EM)):
        fit = probem.fit(program, rows, row_weights=weights, families=families)
        np.testing.assert_allclose(fit.elbo, probem.fit(program, X, families=families).elbo, rtol=1e-11)
