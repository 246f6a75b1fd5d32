"""Starts that no probability of zero holds back."""

import numpy as np
import pytest

import probem
from tests.programs.unequal import topics


@pytest.mark.slow
def test_weights_looked_up_by_a_covariate_do_not_start_at_zero() -> None:
    random = np.random.default_rng(0)
    docs = np.repeat(np.arange(5), 12)
    words = np.where(random.random(60) < docs / 4, random.integers(0, 2, 60), random.integers(1, 4, 60))
    fit = probem.fit(topics, words, docs, max_steps=1, throw=False)
    # Labels alone would push them there; a twentieth of every row is of the other topic.
    assert np.asarray(fit.params["theta"]).min() > 0.02
    assert np.asarray(fit.params["phi"]).min() > 0.0
