"""Results as data: a failed restart does not hide a good one, and codes name results."""

import jax
import numpy as np
import pytest
from fits import KMEANS, PROGRAM, START, X

import probem
from probem import Result
from probem.loop import RESULTS


def test_every_result_has_a_message_of_its_own() -> None:
    assert len({result.value for result in Result}) == len(Result) == len(RESULTS) == 7
    assert {result.name for result in Result} == {
        "CONVERGED",
        "STEP_LIMIT",
        "BOUND_FELL",
        "NON_FINITE",
        "SINGULAR",
        "EMPTY_COMPONENT",
        "INTERRUPTED",
    }


@pytest.mark.slow
def test_a_restart_that_collapsed_does_not_win_by_its_bound() -> None:
    """Of three starts one sits on a single far point, whose likelihood grows without limit."""
    x = np.concatenate([X, [[50.0, 50.0]]])

    def init(key, rows):
        far = jax.random.uniform(key) < 0.5
        return {
            "loc": np.array([[0.0, 0.0], [50.0, 50.0]]) if far else X[:2],
            "scale": np.ones((2, 2)) if far else 20 * np.ones((2, 2)),
        }

    keys = jax.random.split(jax.random.key(0), 6)
    far = [bool(jax.random.uniform(key) < 0.5) for key in keys]
    assert any(far)
    assert not all(far)
    fit = probem.fit(PROGRAM, x, init=init, restarts=6, throw=False, max_steps=40)
    assert fit.result in (Result.CONVERGED, Result.STEP_LIMIT) or all(far)
    assert len(fit.restart_elbos) == 6


def test_the_same_failure_is_returned_and_raised() -> None:
    returned = probem.fit(PROGRAM, X, init=START, max_steps=2, throw=False)
    with pytest.raises(probem.FitError, match="step limit") as caught:
        probem.fit(PROGRAM, X, init=START, max_steps=2)
    assert returned.result is caught.value.fit.result is Result.STEP_LIMIT
    assert returned.elbo == caught.value.fit.elbo


@pytest.mark.slow
def test_solve_reports_the_place_of_the_result() -> None:
    found = probem.solve(KMEANS, X, families=probem.HARD_EM, init=probem.Parameters({"loc": X[:3]}), max_steps=2)
    assert RESULTS[int(found.result)] is Result.STEP_LIMIT
