"""Rows of weight zero are as if they were not there, whatever they hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem import models
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.programs.fits import KMEANS, PROGRAM, X

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


@pytest.mark.slow
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
