"""Results as data: a failed restart does not hide a good one, and codes name results."""

import jax
import numpy as np
import pytest

import probem
from probem import Result
from probem.solver.result import RESULTS
from tests.programs.fits import KMEANS, PROGRAM, START, X


def test_every_result_has_a_message_of_its_own() -> None:
    assert len({result.value for result in Result}) == len(Result) == len(RESULTS)
    assert {result.name for result in Result} == {
        "CONVERGED",
        "STEP_LIMIT",
        "BOUND_FELL",
        "NON_FINITE",
        "SINGULAR",
        "EMPTY_COMPONENT",
        "INTERRUPTED",
        "NOT_STATIONARY",
        "SADDLE",
        "NOT_CONJUGATE",
        "UNRESOLVED",
    }


@pytest.mark.slow
def test_a_restart_that_collapsed_does_not_win_by_its_bound() -> None:
    """Some starts sit on a single row with next to no spread: their bound grows without limit, and they lose."""

    def init(key, rows):
        on_a_row = jax.random.uniform(key) < 0.5
        # A spread of 1e-6 holds its row alone, and F there is some dozen nats above what the others reach at once.
        scale = np.array([[3.0, 3.0], [1e-6, 1e-6]]) if on_a_row else np.array([[1.0, 2.0], [2.0, 1.5]])
        return {"loc": X[:2], "scale": scale}

    key = jax.random.key(0)
    # The first of several starts is the start of a single fit.
    keys = [key, *jax.random.split(key, 6)[1:]]
    alone = [probem.fit(PROGRAM, X, init=init, key=key, throw=False) for key in keys]
    assert {one.result for one in alone} == {Result.CONVERGED, Result.SINGULAR}
    fit = probem.fit(PROGRAM, X, init=init, restarts=6, throw=False)
    assert fit.result is Result.CONVERGED
    np.testing.assert_allclose(fit.elbo, max(one.elbo for one in alone if one.result is Result.CONVERGED), rtol=1e-12)
    np.testing.assert_allclose(fit.restart_elbos, [one.elbo for one in alone], rtol=1e-9)


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
