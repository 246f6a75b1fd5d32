"""Components without rows, and the worst-fitted rows that they are given."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem.models import gmm, identity, kmeans
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.programs.groups import ROWS


def filled_lloyd(x: np.ndarray, loc: np.ndarray, weights: np.ndarray, steps: int) -> np.ndarray:
    """Lloyd's iterations in which the farthest rows, one each, go to the clusters without rows."""
    for _ in range(steps):
        distance = ((x[:, None] - loc) ** 2).sum(2)
        labels, own = distance.argmin(1), distance.min(1)
        own[weights == 0] = -np.inf
        counts = np.array([weights[labels == k].sum() for k in range(len(loc))])
        farthest = np.argsort(-own, kind="stable")
        for row, k in zip(farthest, np.flatnonzero(counts == 0), strict=False):
            labels[row] = k
        fresh = loc.copy()
        for k in range(len(loc)):
            if weights[labels == k].sum() > 0:
                fresh[k] = np.average(x[labels == k], axis=0, weights=weights[labels == k])
        loc = fresh
    return loc


AWAY = np.concatenate([ROWS[:2], 100 + np.arange(9.0).reshape(3, 3) ** 2])


@pytest.mark.parametrize(
    ("blocks", "restarts"),
    [(False, 1), *(pytest.param(*own, marks=pytest.mark.slow) for own in ((False, 2), (True, 1), (True, 2)))],
)
def test_several_empty_clusters_at_once_get_the_farthest_rows(
    blocks: bool, restarts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = functools.partial(kmeans, num_components=5)
    if blocks:
        monkeypatch.setattr(Plan, "cut", lambda plan, num_rows: Chunking(16, 8))
        # A program of its own, whose plan has these blocks.
        program = functools.partial(program, covariance=lambda *arguments: identity(*arguments))
    weights = np.random.default_rng(2).integers(0, 3, 40).astype(float)
    for steps in (2, 3):
        fit = probem.fit(
            program,
            ROWS,
            families={"t": probem.Delta(fill_empty=True)},
            init=lambda key, rows: {"loc": jnp.asarray(AWAY)},
            restarts=restarts,
            row_weights=weights,
            max_steps=steps,
            tolerance=0,
            throw=False,
        )
        np.testing.assert_allclose(fit.params["loc"], filled_lloyd(ROWS, AWAY, weights, steps - 1), rtol=1e-11)


FILL: dict[str, Any] = {"families": {"t": probem.Delta(fill_empty=True)}, "throw": False}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "weights", "loc"),
    [
        ([0, 1, 2, 50, 70], [5, 5, 5, 0.1, 0.2], [1, 20, 1e3, 1e4]),
        ([0, 1, 2.5, 50, 60, 75], [5, 5, 5, 0.7, 0.1, 0.2], [1, 20, 1e3, 1e4, 1e5]),
    ],
)
def test_a_component_that_gave_up_all_its_rows_has_none(rows: list, weights: list, loc: list) -> None:
    """The weights of what is taken, subtracted from their sum, leave a rounding, which is no row."""
    x, begin = np.array(rows, float)[:, None], np.array(loc, float)[:, None]
    init, program = probem.Parameters({"loc": begin}), functools.partial(kmeans, num_components=len(loc))
    for steps in (2, 3):
        fit = probem.fit(program, x, init=init, row_weights=weights, max_steps=steps, **FILL)
        expected = filled_lloyd(x, begin, np.array(weights), steps - 1)
        np.testing.assert_allclose(fit.params["loc"], expected, rtol=1e-11)
    whole = probem.fit(program, x, init=init, row_weights=weights, **FILL)
    assert whole.result is probem.Result.CONVERGED
    assert (whole.counts > 0.05).all()


@pytest.mark.slow
@pytest.mark.parametrize("row_weights", [None, [1.0] * 20 + [0.1, 0.2]], ids=["unweighted", "weighted"])
@pytest.mark.parametrize("value", [0.0, 0.3])
def test_fewer_distinct_rows_than_components_leave_some_empty(row_weights: Any, value: float) -> None:
    x = np.array([[value]] * 20 + [[50.0], [70.0]])
    program = functools.partial(kmeans, num_components=5)
    for key in range(4):
        fit = probem.fit(program, x, row_weights=row_weights, key=key, max_steps=50, **FILL)
        assert fit.result is probem.Result.EMPTY_COMPONENT
        assert np.count_nonzero(fit.counts) == 3


@pytest.mark.slow
def test_the_worst_row_is_judged_by_its_whole_density() -> None:
    """A row of one value has one constant of its density, not two: it may be the worst by less of a distance."""
    x = np.array([[0.0, 0.0], [0.1, 0.0], [2.0, np.nan], [1.4, 1.4 + 1e-3], [-2.0, 0.3], [0.2, 0.2]])
    program = functools.partial(gmm, num_components=2, covariance=identity)
    begin = probem.Parameters({"weights": [0.5, 0.5], "loc": [[0.0, 0.0], [50.0, 50.0]]})
    fit = probem.fit(
        program, x, families={"t": probem.Delta(fill_empty=True)}, init=begin, max_steps=2, tolerance=0, throw=False
    )
    seen = ~np.isnan(x)
    density = -0.5 * np.nansum(x**2, 1) - 0.5 * np.log(2 * np.pi) * seen.sum(1)
    assert density.argmin() != (-0.5 * np.nansum(x**2, 1)).argmin() or density.argmin() == 4
    np.testing.assert_allclose(fit.params["loc"][1], x[density.argmin()], rtol=1e-12)
