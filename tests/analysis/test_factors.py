"""Which parts q has: cells, their dimensions and ties."""

import numpy as np

import probem
from probem.mean_field.locations import TiedLocation
from tests.programs.bayesian import (
    EXAMPLES,
    MIXED,
    MIXED_CELLS,
    NORMAL,
    mixture,
    sticks,
)
from tests.programs.plans import VB, plan_of, slow, some_slow


@some_slow([*EXAMPLES, *MIXED], quick=("diagonal", "poisson"))
def test_cells_and_ties_are_found(name: str) -> None:
    expected = MIXED_CELLS[name] if name in MIXED else {"weights": (1, 0, None), **EXAMPLES[name].cells}
    sites = plan_of(name).mean_field.sites
    found = {site.name: (site.cells, getattr(site, "dim", 0), getattr(site, "parent", None)) for site in sites}
    assert found == expected
    for site in sites:
        if isinstance(site, TiedLocation):
            # Cells and their precisions in the same order, one for each or one for all of a column.
            count = {own.name: own.cells for own in sites}[site.parent]
            shared = np.tile(np.arange(count), site.cells) if name.startswith("tied") else None
            features = np.arange(site.cells) * count // site.cells if shared is None else shared[: site.cells]
            np.testing.assert_array_equal(site.parent_cells, features)


@slow
def test_explain_says_the_parts() -> None:
    families = VB | {"precision": probem.Delta()}
    rows = probem.explain(mixture("factorised location"), NORMAL, families=families).rows
    assert {row.site: (row.family, row.update) for row in rows} == {
        "t": ("Categorical()", "posterior"),
        "weights": ("Conjugate()", "closed form: Dirichlet, prior + statistics"),
        "precision": ("Delta() (MAP)", "closed form: mode of its conditional posterior"),
        "loc": ("Conjugate()", "closed form: Normal, 2 entries together, prior + statistics"),
        "x": ("", "exponential family (MultivariateNormal, 5 statistics)"),
    }
    rows = probem.explain(mixture("full", weights=sticks), NORMAL, families=VB).rows
    assert {row.site: row.update for row in rows if row.role == "prior"} == {
        "sticks": "closed form: Beta, prior + statistics",
        "precision": "closed form: Wishart, prior + statistics",
        "loc": "closed form: Normal given 'precision', prior + statistics",
    }
    rows = probem.explain(mixture("poisson"), EXAMPLES["poisson"].rows, families=VB).rows
    assert {row.site: row.update for row in rows}["rate"] == "closed form: Gamma, prior + statistics"
