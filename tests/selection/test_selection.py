"""What a selection shows of its candidates, and which of them it calls the best."""

import dataclasses

import numpy as np
import pytest

import probem
from probem import Result
from probem.models import full
from tests.selection.grid import grid


@pytest.mark.slow
def test_the_best_is_the_lowest_and_is_marked() -> None:
    found = grid()
    bic = [row.bic for row in found.table]
    assert found.best is found.table[int(np.argmin(bic))].fit
    assert found.best_settings == {"num_components": 3}
    assert found.criterion == "bic"
    lines = str(found).splitlines()
    assert lines[0].split() == ["num_components", "parameters", "log", "p(X)", "BIC", "AIC", "ICL", "F", "result"]
    assert [line[0] for line in lines[2:5]] == [" ", " ", "*"]
    assert f"{min(bic):.2f}" in lines[4]
    assert len({len(line) for line in lines[:1]} | {len(line) for line in lines[2:5]}) <= 2
    assert lines[-1] == "* lowest BIC; nats, totals over the data"
    assert not found.interrupted


@pytest.mark.slow
def test_columns_for_a_data_frame() -> None:
    columns = grid().to_dict()
    assert list(columns) == [
        *("num_components", "num_parameters", "log_likelihood", "elbo", "log_evidence", "bic", "aic", "icl"),
        *("result", "message", "best"),
    ]
    assert columns["num_components"] == [1, 2, 3]
    assert columns["best"] == [False, False, True]
    assert columns["result"] == ["CONVERGED"] * 3
    assert {len(column) for column in columns.values()} == {3}


@pytest.mark.slow
def test_the_figure_shows_every_value() -> None:
    figure = grid().plot()
    (axes,) = figure.axes
    line, crosses, ring = axes.lines
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), [row.bic for row in grid().table])
    assert len(crosses.get_xdata()) == 0
    np.testing.assert_allclose(ring.get_xydata(), [[3, grid().table[2].bic]])
    assert axes.get_xlabel() == "num_components"
    assert axes.get_ylabel() == "BIC (nats, lower is better)"


def ended(result: Result | None, **values) -> probem.Candidate:
    """A row of a table, without a fit."""
    return probem.Candidate({"K": 1, "shape": full}, 3, float("nan"), values, result, None, "said why")


def test_what_failed_is_never_chosen() -> None:
    """However good it looks."""
    rows = (
        ended(Result.SINGULAR, bic=-1e9),
        ended(Result.CONVERGED, bic=5.0),
        ended(Result.CONVERGED, bic=float("nan")),
        ended(Result.EMPTY_COMPONENT, bic=1.0),
        ended(None),
    )
    found = probem.Selection(rows, "bic")
    assert found.best_candidate is rows[1]
    table = str(found)
    assert "full" in table
    assert "refused" in table
    assert table.endswith("K=1, shape=full: said why")
    figure = found.plot()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "full",
        "best: 5.0 nats",
        "did not converge",
    ]
    # In the order of the axis, whatever that of the grid.
    reverse = tuple(dataclasses.replace(rows[1], settings={"K": K, "shape": full}) for K in (3, 1, 2))
    np.testing.assert_array_equal(probem.Selection(reverse, "bic").plot().axes[0].lines[0].get_xdata(), [1, 2, 3])
    none = probem.Selection(rows[:1] + rows[3:], "bic")
    with pytest.raises(probem.FitError, match=r"none of 3 candidates converged \(1 SINGULAR, 1 EMPTY_COMPONENT, 1 ref"):
        _ = none.best
    assert "no fit converged" in str(none)
    assert none.to_dict()["best"] == [False] * 3


def test_the_bound_is_best_where_it_is_highest() -> None:
    rows = (ended(Result.CONVERGED, elbo=-7.0), ended(Result.CONVERGED, elbo=-6.0))
    assert probem.Selection(rows, "elbo").best_candidate is rows[1]
