"""Noise that the M half-step sees (``added_variance``)."""

from typing import Any

import numpy as np
import pytest

import probem
from tests.programs.groups import ROWS, STRUCTURES

MATRIX = np.array([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.4]])
Q = np.random.default_rng(1).dirichlet([1.0, 1.0], 40)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["diagonal", *(pytest.param(name, marks=pytest.mark.slow) for name in STRUCTURES if name != "diagonal")]
)
def test_noise_is_that_of_rows_scattered_by_it(name: str) -> None:
    """One M-step: each row replaced by points around it with the covariance of the noise, to rounding."""
    families = probem.VARIATIONAL_BAYES if name == "posterior" else probem.EM
    options: dict[str, Any] = {"max_steps": 1, "families": families, "throw": False}
    # A number is that times the unit matrix, whatever is fitted: it compiles by itself.
    for noise in (0.3, MATRIX) if name in ("full", "diagonal") else (MATRIX,):
        root = np.linalg.cholesky(noise * np.eye(3) if np.isscalar(noise) else noise) * np.sqrt(3)
        points = np.concatenate([ROWS + sign * root[:, d] for d in range(3) for sign in (-1, 1)])
        own = probem.fit(STRUCTURES[name], ROWS, init=probem.Responsibilities(Q), added_variance=noise, **options)
        scattered = probem.fit(
            STRUCTURES[name],
            points,
            init=probem.Responsibilities(np.tile(Q, (6, 1))),
            row_weights=np.full(240, 1 / 6),
            **options,
        )
        for site, value in scattered.params.items():
            np.testing.assert_allclose(own.params[site], value, rtol=1e-9, atol=1e-10, err_msg=site)


@pytest.mark.slow
def test_noise_keeps_spreads_above_it_and_need_not_be_of_full_rank() -> None:
    same = np.repeat(ROWS[:2], 20, axis=0)
    fit = probem.fit(STRUCTURES["full"], same, added_variance=1e-3, key=1, throw=False)
    assert fit.result is probem.Result.CONVERGED
    np.testing.assert_allclose(fit.params["covariance"], np.stack([1e-3 * np.eye(3)] * 2), rtol=1e-9, atol=1e-12)
    direction = np.array([1.0, 2.0, 3.0]) / 7
    fit = probem.fit(STRUCTURES["full"], ROWS, added_variance=np.outer(direction, direction), max_steps=2, throw=False)
    assert np.isfinite(fit.elbo)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (-1.0, "added_variance=-1.0; expected a finite number from 0"),
        (np.ones(3), r"added_variance of shape \(3,\); expected a number, or shape \(3, 3\)"),
        (-np.eye(3), "expected a finite number from 0, or a covariance matrix"),
        (np.triu(np.ones((3, 3))) + np.eye(3), "expected a finite number from 0, or a covariance matrix"),
        (np.nan, "added_variance=nan; expected a finite number from 0"),
    ],
)
def test_noise_that_cannot_be_is_one_sentence(noise: Any, message: str) -> None:
    with pytest.raises(probem.InputError, match=message):
        probem.fit(STRUCTURES["full"], ROWS, added_variance=noise)
