"""Which entries of sites with a Gaussian q meet in a density, and what is refused."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.analysis.routes import make_plan
from probem.families.choice import choose_families
from probem.mean_field.mean_field import MeanField
from probem.program.reading import read
from tests.programs import gaussian_posteriors as programs
from tests.programs.gaussian_posteriors import PLANE, ROWS, SCALES, TWO

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

VB = probem.VARIATIONAL_BAYES
COUNTS = np.arange(len(ROWS)) % 4


def mean_field_of(program: Callable[..., None], rows: np.ndarray, *sites: str) -> MeanField:
    reading = read(program, (jnp.asarray(rows),))
    families = choose_families(reading, VB | dict.fromkeys(sites, probem.Gaussian()))
    return make_plan(reading, families).mean_field


def numbers(mean_field: MeanField) -> dict[str, dict[str, list[list[int]]]]:
    """Of every density that is averaged, the number of every entry, by cell."""
    return {
        name: {site: columns.tolist() for site, columns in nodes.columns.items()}
        for nodes in mean_field.node_sets
        for name in nodes.densities
    }


def test_scales_of_different_components_share_a_number() -> None:
    mean_field = mean_field_of(programs.spread, TWO, "spread")
    (site,) = mean_field.gaussians
    assert (site.cells, site.dim) == (2, 1)
    assert numbers(mean_field) == {"x": {"spread": [[0], [0]]}, "spread": {"spread": [[0], [0]]}}
    assert mean_field.node_sets[0].is_grid


def test_logits_are_one_cell_and_a_location_meets_its_scale() -> None:
    mean_field = mean_field_of(programs.robust, TWO, "logits", "loc", "scale")
    assert {site.name: (site.cells, site.dim) for site in mean_field.gaussians} == {
        "logits": (1, 3),
        "loc": (3, 1),
        "scale": (3, 1),
    }
    assert numbers(mean_field) == {
        "t": {"logits": [[0, 1, 2]]},
        "logits": {"logits": [[0, 1, 2]]},
        "x": {"loc": [[0], [0], [0]], "scale": [[1], [1], [1]]},
        "loc": {"loc": [[0], [0], [0]]},
        "scale": {"scale": [[0], [0], [0]]},
    }
    predictive = mean_field.predictive_nodes
    assert predictive is not None
    assert predictive.nodes.shape[1] == 5  # of one component: three logits, a location and a scale


def test_locations_about_an_uncertain_mean_meet_it_and_not_each_other() -> None:
    mean_field = mean_field_of(programs.levelled, TWO, "mean", "spread", "loc")
    every = numbers(mean_field)
    assert every["loc"] == {"mean": [[0]], "spread": [[1]], "loc": [[2], [2]]}
    assert every["x"] == {"loc": [[0], [0]]}


def test_what_meets_beside_a_full_covariance() -> None:
    mean_field = mean_field_of(programs.correlated, PLANE, "loc", "scale", "factor")
    assert {site.name: (site.cells, site.dim) for site in mean_field.gaussians} == {
        "loc": (1, 2),
        "scale": (1, 2),
        "factor": (1, 1),
    }
    assert numbers(mean_field)["x"] == {"loc": [[0, 1]], "scale": [[2, 3]], "factor": [[4]]}


def test_variational_bayes_says_what_would_do_and_it_does() -> None:
    program = functools.partial(programs.scaled, prior=SCALES["half Cauchy"])
    remedy = r"use families=probem.VARIATIONAL_BAYES \| \{'scale': probem.Gaussian\(\)\}, a Gaussian q, Delta\(\)"
    with pytest.raises(
        probem.InputError, match=rf"Conjugate\(\) on 'scale', with a prior of class HalfCauchy .*{remedy}"
    ):
        probem.explain(program, ROWS, families=VB)
    explanation = probem.explain(program, ROWS, families=VB | {"scale": probem.Gaussian()})
    (row,) = (row for row in explanation.rows if row.site == "scale")
    assert (row.family, row.update) == (
        "Gaussian()",
        "maximised numerically over K-sized statistics: Normal in unconstrained space",
    )


def test_a_density_of_rows_is_refused() -> None:
    message = r"the family Gaussian\(\) on 'slope', on which 'y' depends, .*; use Delta\(\) on 'slope' \(MAP\)"
    with pytest.raises(probem.InputError, match=message):
        probem.explain(programs.counted, ROWS, COUNTS, families={"slope": probem.Gaussian()})
    with pytest.raises(
        probem.InputError, match=r"Conjugate\(\) on 'slope'.*; use Delta\(\) on 'slope' \(MAP\), or draw"
    ):
        probem.explain(programs.counted, ROWS, COUNTS, families=VB)


def many(x: Any, *, num_components: int) -> None:
    scale = numpyro.sample("scale", dist.HalfNormal(1.0).expand([num_components]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.ones(num_components)))
        numpyro.sample("x", dist.Normal(0.0, scale[t]), obs=x)


def test_too_many_entries_are_refused() -> None:
    message = "Gaussian posteriors of 1025 unconstrained entries; expected at most 1024"
    with pytest.raises(probem.InputError, match=message):
        probem.explain(
            functools.partial(many, num_components=1025),
            np.arange(2000.0),
            families={"scale": probem.Gaussian()},
        )
