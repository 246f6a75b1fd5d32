"""Data in several blocks takes the step from the host: the fit is that of one block."""

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
from probem.analysis.routes import _make_plan
from probem.families import Corner
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.oracles import plain
from tests.programs import fits
from tests.programs.fits import CENTRES, KMEANS, PROGRAM, START, em_step, lloyd_step, normal_table


@functools.cache
def _many(num_rows: int) -> np.ndarray:
    random = np.random.default_rng(5)
    means = np.array([[-3.0, 0.0], [0.5, 1.0], [3.0, -1.0]])
    return means[random.integers(0, 3, num_rows)] + random.normal(size=(num_rows, 2))


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param("soft", marks=pytest.mark.slow), "hard"])
def test_several_blocks_are_one(family: str) -> None:
    """More rows than a block holds, against the plain loop."""
    x = _many(300_000 if family == "soft" else 70_000)
    program, init, choice = (PROGRAM, START, None) if family == "soft" else (KMEANS, CENTRES, probem.HARD_EM)
    fit = probem.fit(program, x, families=choice, init=init, max_steps=4, throw=False, verbose=0)
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
        pytest.param(probem.HARD_EM, Chunking(1024, 1024, parallel_blocks=3), id="by threes and two left over"),
        pytest.param(probem.HARD_EM, Chunking(2048, 2048, parallel_blocks=4), id="four in one loop"),
    ],
)
def test_blocks_chunks_restarts_and_weights_meet(
    corner: Corner, cut: Chunking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One data set in one block and in more."""
    small = in_one_block(corner)
    jax.clear_caches()
    _make_plan.cache_clear()
    monkeypatch.setattr(Plan, "cut", lambda self, num_rows: cut)
    large = started(corner)
    for one, other in zip(small, large, strict=True):
        np.testing.assert_allclose(one.history.elbo, other.history.elbo, rtol=1e-11)
        np.testing.assert_allclose(one.restart_elbos, other.restart_elbos, rtol=1e-11)
        for name in one.params:
            np.testing.assert_allclose(one.params[name], other.params[name], rtol=1e-9, atol=1e-12)
    monkeypatch.undo()
    jax.clear_caches()
    _make_plan.cache_clear()
    fits.soft.cache_clear()
    fits.hard.cache_clear()


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
        _make_plan.cache_clear()
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
    _make_plan.cache_clear()
    fits.soft.cache_clear()
    fits.hard.cache_clear()
