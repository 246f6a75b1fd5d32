"""Where gaps stand at a start: at the moments of what is there, in every unit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from tests.oracles.gaps import groups, with_gaps
from tests.oracles.plain import rises
from tests.programs.gaps import FULL, TIED, X, by_precision, in_views

# Offsets and scales of the columns. Around 1e6 a value of size one keeps ten digits.
MOVES = [(1e6, 1.0), (0.0, 1e-4), (0.0, 1e4)]
Z = np.random.default_rng(14).integers(0, 2, 60)
INITS = {
    "seeds": None,
    "labels": probem.Labels(Z),
    "responsibilities": probem.Responsibilities(0.3 + 0.4 * np.eye(2)[Z]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "start"),
    [
        pytest.param(program, start, marks=() if (program, start) == (FULL, "labels") else pytest.mark.slow)
        for program in (FULL, TIED, by_precision, in_views)
        for start in INITS
    ],
)
def test_a_start_moves_and_scales_with_the_values_that_are_there(program: Any, start: str) -> None:
    """The program's own initial values say nothing of where the data lies: no gap may be filled by them."""
    x, moves = X, list(MOVES)
    if program is in_views:
        x = with_gaps(groups(60, 4, 2), 0.25, 3).reshape(60, 2, 2)
    elif start != "seeds":  # the distances of seeds are those of the units as they are
        moves += [(np.array([1e5, 0.0, -1e5]), np.array([1e-2, 1.0, 1e3]))]
    options = {"init": INITS[start], "max_steps": 8, "tolerance": 0, "throw": False}
    before = probem.fit(program, x, **options)
    assert rises(before.history)
    for shift, scale in moves:
        after = probem.fit(program, scale * x + shift, **options)
        jacobian = (~np.isnan(x) * np.log(scale)).sum()
        np.testing.assert_allclose(after.history.elbo, before.history.elbo - jacobian, rtol=1e-6)
        loc = (np.asarray(after.params["loc"]) - shift) / scale
        np.testing.assert_allclose(loc, before.params["loc"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("program", [FULL, TIED])
def test_so_does_that_of_many_data_sets(program: Any) -> None:
    data = np.stack([X, *(scale * X + shift for shift, scale in MOVES)])
    jacobian = (~np.isnan(X)).sum() * np.log([1.0, *(scale for _, scale in MOVES)])
    for init in (None, probem.Labels(np.tile(Z, (len(data), 1)))):
        key = jnp.stack([jax.random.key(0)] * len(data))
        many = probem.fit_many(program, data, init=init, key=key, max_steps=8, tolerance=0, throw=False)
        np.testing.assert_allclose(many.elbo + jacobian, many.elbo[0], rtol=1e-6)


@pytest.mark.slow
def test_gaps_stand_at_the_start_at_the_moments_of_what_is_there() -> None:
    """Means of each component, and a variance of each column around them; of a row with nothing there is no event."""
    labels = np.arange(60) % 2
    fit = probem.fit(FULL, X, init=probem.Labels(labels), max_steps=1, throw=False)
    loc = np.stack([np.nanmean(X[labels == k], axis=0) for k in range(2)])
    gaps, deviation = np.isnan(X), X - loc[labels]
    variance = np.nansum(deviation**2, axis=0) / (~gaps).sum(0)
    for k in range(2):
        mine = (labels == k) & ~gaps.all(1)
        own = np.where(gaps, 0, deviation)[mine]
        scatter = own.T @ own + np.diag(gaps[mine].sum(0) * variance)
        np.testing.assert_allclose(fit.params["loc"][k], loc[k], rtol=1e-12)
        np.testing.assert_allclose(fit.params["covariance"][k], scatter / mine.sum(), rtol=1e-11, atol=1e-12)
