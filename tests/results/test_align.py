"""Components of two fits are matched by their rows."""

import numpy as np
import pytest

import probem
from tests.programs.bayesian import NORMAL, mixture


@pytest.mark.slow
def test_alignment_undoes_a_permutation() -> None:
    labels = np.random.default_rng(0).integers(3, size=40)
    order = np.array([2, 0, 1])
    fit, other = (
        probem.fit(mixture("full", 3), NORMAL, families=probem.VARIATIONAL_BAYES, init=probem.Labels(own))
        for own in (labels, np.argsort(order)[labels])
    )
    found = probem.align(fit, other, NORMAL)
    np.testing.assert_array_equal(found, np.argsort(order))
    np.testing.assert_allclose(other.params["loc"][found], fit.params["loc"], rtol=1e-8)
    np.testing.assert_array_equal(probem.align(fit, fit, NORMAL), np.arange(3))
