"""Accelerations that an experiment names are those of ``probem.fit``."""

from functools import partial

import pytest

import probem
from probem.experiments.research.generators import gaussian_clusters
from probem.experiments.research.run import main
from probem.models import gmm, shared_spherical


@pytest.mark.slow
def test_accelerations_of_a_grid_are_those_of_fit() -> None:
    rows = main(
        {
            "program": {"name": "gmm", "num_components": 2, "covariance": "shared_spherical"},
            "data": {"name": "gaussian_clusters", "rows": 60, "dimension": 1, "separation": 2.0},
            "fit": {"init": "truth", "tolerance": 1e-10, "max_steps": 5000},
            "grid": {"fit.acceleration": [None, "squarem", {"name": "anderson", "memory": 3}]},
            "measure": ["elbo", "steps"],
        }
    ).rows
    x, labels, _ = gaussian_clusters(0, rows=60, dimension=1, separation=2.0)
    program = partial(gmm, num_components=2, covariance=shared_spherical)
    for row, acceleration in zip(rows, (None, probem.SQUAREM(), probem.Anderson(memory=3)), strict=True):
        fit = probem.fit(
            program, x, init=probem.Labels(labels), tolerance=1e-10, max_steps=5000, acceleration=acceleration
        )
        assert (row["steps"], row["elbo"]) == (fit.num_steps, fit.elbo)
    assert [row["fit.acceleration"] for row in rows] == [None, "squarem", "anderson"]
    assert rows[1]["steps"] < rows[0]["steps"] / 2
    assert rows[2]["steps"] < rows[0]["steps"] / 2
