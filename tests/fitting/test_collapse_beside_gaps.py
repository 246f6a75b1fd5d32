"""A covariance that collapses while gaps are filled in from it: named, not taken for convergence or a fall."""

import functools

import numpy as np
import pytest

import probem
from probem import models


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 6], ids=["was CONVERGED", "was BOUND_FELL"])
def test_a_full_covariance_that_collapses_beside_gaps_is_singular(seed: int) -> None:
    """Six rows of four columns, two in five of their values missing: the likelihood of a flat normal through them grows
    without limit, by less than a nat a step.
    """
    random = np.random.default_rng(seed)
    x = random.normal(size=(60, 4))
    x[:6] += 8
    gaps = np.where(random.random(x.shape) < 0.4, np.nan, x)
    gaps[np.isnan(gaps).all(1), 0] = 0.0
    fit = probem.fit(
        functools.partial(models.gmm, num_components=2),
        gaps,
        init=probem.Labels((np.arange(60) >= 6).astype(int)),
        tolerance=1e-13,
        throw=False,
    )
    assert fit.result is probem.Result.SINGULAR
    # F rose all the way: it is the collapse that ends the fit, not the rounding that it leads to.
    assert np.diff(fit.history.elbo).min() > 0
