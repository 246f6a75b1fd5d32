"""Programs drawn at random: what says CONVERGED is a maximum, by NumPyro's log density and SciPy from there."""

import functools

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from probem.experiments.verification import random_programs
from probem.experiments.verification.random_programs import Sketch


@pytest.mark.slow
@settings(max_examples=5, phases=[Phase.generate], suppress_health_check=(HealthCheck.too_slow,))
@given(sketch=random_programs.sketches())
def test_what_says_converged_is_a_maximum(sketch: Sketch) -> None:
    outcome = random_programs.try_out(sketch)
    assert outcome.holds, outcome


# A gate that had all but closed for one component, on its way back: what it promised was small, and grew.
CLOSING = Sketch("normal", 3, "gate", "cauchy", "fixed", -5, 10766)
# A density with corners, where the slope promises more than there is.
CORNERS = Sketch("laplace", 2, "free", "free", "each", 0, 1)
# Two lines through two rows each: neither intercept nor slope can move alone.
EDGES = Sketch("laplace", 2, "equal", "regression", "shared", 0, 2)
# A gate that separates: its slope goes to infinity, and the gradient is zero.
SEPARATES = Sketch("normal", 2, "gate", "symmetric", "halfnormal", 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("sketch", [CLOSING, CORNERS, EDGES, SEPARATES])
def test_what_once_said_so_and_was_none(sketch: Sketch) -> None:
    outcome = random_programs.try_out(sketch)
    assert outcome.result == "CONVERGED"
    assert outcome.holds, outcome


def test_the_other_side_climbs_from_where_there_is_no_maximum() -> None:
    """A step of a standard deviation away from the means of two normals, whose log density is known."""
    sketch = Sketch("normal", 2, "equal", "free", "fixed", 3, 0)
    data = random_programs.rows(sketch)
    bound = functools.partial(random_programs.program, sketch)
    log_density, start = random_programs.numpyros(bound, data, {"location": np.array([-500.0, 1500.0])})
    (x,) = data
    table = -0.5 * ((x[:, None] - [-500.0, 1500.0]) / 1000) ** 2 - 0.5 * np.log(2 * np.pi * 1e6) - np.log(2)
    value = float(log_density(start)[0])
    np.testing.assert_allclose(value, np.logaddexp.reduce(table, axis=1).sum(), rtol=1e-12)
    assert random_programs.climb(log_density, start) > value + 1e-3
