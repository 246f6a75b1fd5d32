"""The plan in words."""

import numpy as np
import pytest

import probem
from tests.programs.examples import EXAMPLES
from tests.programs.fits import KMEANS, PROGRAM, X


def updates(explanation) -> dict[str, str]:
    return {row.site: row.update for row in explanation.rows}


@pytest.mark.slow
def test_every_site_of_a_mixture_is_explained() -> None:
    explanation = probem.explain(PROGRAM, X)
    assert updates(explanation) == {
        "t": "posterior",
        "weights": "closed form: share of the rows",
        "loc": "closed form: weighted mean",
        "scale": "closed form: moments of 'scale'",
        "x": "exponential family (Normal, 4 statistics)",
    }
    assert {row.site: row.shape for row in explanation.rows}["scale"] == "(2, 2)"
    assert {row.site: row.family for row in explanation.rows}["t"] == "Categorical()"
    lines = str(explanation).splitlines()
    assert lines[0].split() == ["site", "role", "shape", "family", "update"]
    assert "one pass: 4 statistics x 2 components" in lines[-1]
    assert "float64" in lines[-1]
    assert len({line.find("closed form") for line in lines if "closed form" in line}) == 1  # a table: columns line up


def test_k_means_needs_the_rows_themselves_only() -> None:
    explanation = probem.explain(KMEANS, X.astype(np.float32), families=probem.HARD_EM)
    assert updates(explanation)["t"] == "mode of the posterior"
    assert "one pass: 2 statistics x 3 components" in explanation.cost
    assert "float32" in explanation.cost


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "directions",
            {
                "angle": "log density of the program, row by row",
                "concentration": "gradient over the data, guarded",
                "scale": "closed form: moments of 'scale', pooled over components",
            },
        ),
        (
            "priors",
            {
                "loc": "closed form: mode of its conditional posterior",
                "weights": "closed form: mode of its conditional posterior",
                "scale": "maximised numerically over K-sized statistics",
            },
        ),
    ],
)
@pytest.mark.slow
def test_other_updates(name: str, expected: dict[str, str]) -> None:
    example = EXAMPLES[name]
    explanation = probem.explain(example.program, *example.data, families={"t": probem.TopC(1)})
    found = updates(explanation)
    assert {site: found[site] for site in expected} == expected
    assert found["t"] == "projection of the posterior"
    if name == "directions":
        assert "the program itself for angle" in explanation.cost
    else:
        assert {row.role for row in explanation.rows} == {"assignment", "prior", "observed"}


def test_explain_refuses_what_fit_refuses() -> None:
    with pytest.raises(probem.InputError, match="unknown site 'z'"):
        probem.explain(PROGRAM, X, families={"z": probem.Delta()})
