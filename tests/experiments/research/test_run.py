"""Sweeps: the numbers are those of single fits, from files and from Python, in tables and in a folder."""

import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars
import pytest

import probem
from probem.errors import InputError
from probem.experiments.oracles import evidence as oracle
from probem.experiments.research import run
from probem.experiments.research.figures import caption, draw_figure
from probem.experiments.research.generators import gaussian_clusters
from probem.experiments.research.run import main
from probem.experiments.research.settings import FigureSettings
from probem.models import GaussianPrior, bayesian_covariance, bayesian_gmm, gmm
from tests.experiments.research.experiments import OWN, SMALL, TEXT

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

KMEANS = {"program": {"name": "kmeans", "num_components": 2}}


@pytest.fixture(scope="module")
def small():
    """The small experiment, run."""
    return main(SMALL)


def test_a_row_is_the_fit_of_its_cell_and_seed(small):
    assert len(small) == 18
    for row in small.rows[::5]:
        x, _, _ = gaussian_clusters(row["seed"], rows=6, dimension=1, separation=row["data.separation"])
        prior = GaussianPrior(np.zeros(1), row["program.prior.strength"], 4.0, 2 * np.eye(1))
        program = partial(bayesian_gmm, num_components=2, covariance=bayesian_covariance.spherical, prior=prior)
        key = jax.random.key(row["seed"])
        fit = probem.fit(program, x, families=probem.VARIATIONAL_BAYES, key=key, throw=False)
        # The same start. A fit of hundreds of steps may end a few earlier by rounding, where F rises by 1e-10 a row.
        assert row["elbo"] == pytest.approx(fit.elbo, abs=1e-8)
        assert row["steps"] == pytest.approx(fit.num_steps, rel=0.01)
        assert row["result"] == fit.result.name


def test_evidence_is_that_of_all_labellings(small):
    """The oracle over all labellings without anything shared between them, beside that of the sweep."""
    for row in small.rows[::7]:
        x, _, _ = gaussian_clusters(row["seed"], rows=6, dimension=1, separation=row["data.separation"])
        prior = oracle.SphericalNormalGamma(np.zeros(1), row["program.prior.strength"], 2.0, 1.0)
        exact = oracle.log_evidence(
            x, 2, lambda t: oracle.dirichlet_log_prob(t, np.ones(2)), oracle.per_component(prior)
        )
        assert row["evidence"] == pytest.approx(exact, abs=1e-10)
        assert row["evidence_gap"] == pytest.approx(exact - row["elbo"], abs=1e-9)
        assert row["evidence_gap"] > 0


def test_results_as_tables(small):
    assert small.axes == ("data.separation", "program.prior.strength")
    assert small.measures == ("elbo", "evidence", "evidence_gap", "steps")
    tidy = small.to_polars()
    assert tidy.columns == ["key", *small.axes, "seed", "result", "measure", "value"]
    assert len(tidy) == 18 * 4
    wide = small.to_polars(tidy=False)
    assert wide["elbo"].to_list() == small.columns["elbo"]
    picked = tidy.filter((polars.col("measure") == "steps") & (polars.col("data.separation") == 2.0))
    assert picked["value"].sum() == sum(row["steps"] for row in small.rows if row["data.separation"] == 2.0)
    assert "<table>" in small._repr_html_()
    heading, *lines = small.table()
    # One fit reaches its step limit, which its mean does not say.
    assert heading == ["separation", "prior.strength", "converged fits", *small.measures]
    ended = [int(line[2].split()[0]) for line in lines]
    assert 0 < sum(ended) == 18 - len(small.unconverged) < 18
    assert {line[2].split()[2] for line in lines} == {"3"}


def test_summaries_are_means_with_their_interval(small):
    (summary,) = (each for each in small.summaries("elbo", small.axes) if each.values == (2.0, 1.0))
    numbers = [
        row["elbo"] for row in small.rows if (row["data.separation"], row["program.prior.strength"]) == (2.0, 1.0)
    ]
    assert summary.count == 3
    assert summary.mean == pytest.approx(np.mean(numbers))
    # The quantile of Student's t with two degrees of freedom, from a table.
    assert summary.half == pytest.approx(4.302653 * np.std(numbers, ddof=1) / np.sqrt(3), rel=1e-6)


def test_differences_are_those_of_one_seed(small):
    """Each row less the row with its seed and separation, and the prior that others are compared with."""
    differences = small.differences({"program.prior.strength": 0.1})
    assert [(row["data.separation"], row["seed"]) for row in differences.rows] == [
        (separation, seed) for separation in (0.0, 2.0, 8.0) for seed in range(3)
    ]
    for row in differences.rows:
        same = [each for each in small.rows if all(each[key] == row[key] for key in ("data.separation", "seed"))]
        by_prior = {each["program.prior.strength"]: each for each in same}
        for measure in small.measures:
            assert row[measure] == by_prior[1.0][measure] - by_prior[0.1][measure]
    (paired,) = (each for each in differences.summaries("evidence", ["data.separation"]) if each.values == (8.0,))
    apart = [each for each in small.summaries("evidence", small.axes) if each.values[0] == 8.0]
    assert paired.mean == pytest.approx(apart[1].mean - apart[0].mean)


def test_a_pair_has_converged_if_both_have_and_rows_without_a_partner_are_left_out(small):
    first, *others = small.lines
    changed = dataclasses.replace(small, lines=(dataclasses.replace(first, result="STEP_LIMIT"), *others))
    against = {path: first.axes[path] for path in ("program.prior.strength",)}
    (pair,) = (
        line
        for line in changed.differences(against).lines
        if (line.seed, line.axes["data.separation"]) == (first.seed, first.axes["data.separation"])
    )
    assert pair.result == "STEP_LIMIT"
    alone = dataclasses.replace(small, lines=(first,))
    with pytest.raises(InputError, match="no row beside those of"):
        alone.differences(against)


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ({"program.strength": 0.1}, "expected one of data.separation, program.prior.strength"),
        ({"program.prior.strength": 0.2}, r"got 0.2 of program.prior.strength; expected one of 0.1, 1"),
        ({"program.prior.strength": 0.1, "seed": 1}, "expected one of data.separation"),
    ],
)
def test_differences_from_what_is_not_there_are_refused(small, against, words):
    with pytest.raises(InputError, match=words):
        small.differences(against)


def test_a_figure_of_differences_has_them_and_says_so(small):
    settings = FigureSettings(x="data.separation", y=["elbo"], against={"program.prior.strength": 0.1})
    place = draw_figure(small, settings).axes[0]
    expected = small.differences(settings.against).summaries("elbo", ["data.separation"])
    drawn: Any = place.containers[0]
    np.testing.assert_array_equal(drawn.lines[0].get_ydata(), [each.mean for each in expected])
    assert place.get_ylabel().startswith("difference in F")
    assert "less that of program.prior.strength 0.1 with the same seed" in caption(small, settings)


def test_a_folder_is_whole_and_its_settings_run_again(tmp_path, small):
    out = tmp_path / "sweep"
    (tmp_path / "x.yaml").write_text(TEXT)
    results = main(tmp_path / "x.yaml", out=out)
    assert [row.values for row in results.lines] == [row.values for row in small.lines]
    assert sorted(os.listdir(tmp_path)) == ["sweep", "x.yaml"]
    names = ["config.yaml", "environment.json", "figures", "report.html", "results.csv", "results.jsonl"]
    assert sorted(os.listdir(out)) == [*names, "results.parquet"]
    assert os.listdir(out / "figures") == ["figure-1.png"]
    page = (out / "report.html").read_text()
    assert "18 fits" in page
    assert "<svg" in page
    frame = polars.read_parquet(out / "results.parquet")
    assert frame.equals(results.to_polars())
    assert polars.read_csv(out / "results.csv")["value"].to_list() == pytest.approx(frame["value"].to_list(), rel=1e-12)
    again = main(out / "config.yaml")
    assert [row.key for row in again.lines] == [row.key for row in results.lines]
    with pytest.raises(InputError, match=r"results of an earlier run.*add --resume"):
        main(tmp_path / "x.yaml", out=out)


def test_what_fails_is_a_line_and_not_the_end(tmp_path):
    """A mixture whose component shrinks onto a row, data that is refused, a measure that raises: each is said."""
    (tmp_path / "own.py").write_text(OWN)
    results = main(
        {
            "program": {"name": "gmm", "num_components": 3},
            "data": {"name": "gaussian_clusters", "rows": 6},
            "grid": {"data.rows": [-1, 2, 6, 60]},
            "seeds": 2,
            "measure": ["elbo", f"{tmp_path}/own.py:fails"],
        }
    )
    endings = {rows: {row["result"] for row in results.rows if row["data.rows"] == rows} for rows in (-1, 2, 6, 60)}
    assert endings[-1] == {"ERROR"}
    assert endings[2] == {"REFUSED"}
    assert endings[6] == {"SINGULAR"}
    assert endings[60] == {"CONVERGED"}
    assert len(results.unconverged) == 6
    assert len(results.unmeasured) == 2
    assert all("fails: RuntimeError: no such number" in row.message for row in results.unmeasured)
    assert np.isfinite([row["elbo"] for row in results.rows if row["data.rows"] == 60]).all()
    assert {row["message"] for row in results.rows[:2]} == {"ValueError: negative dimensions are not allowed"}
    assert "distinct rows" in results.lines[2].message


def test_programs_data_and_measures_of_ones_own(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "x.yaml").write_text("""\
program: {name: own.py:mixture, K: 2}
data: {name: own.py:pairs, width: 9.0}
grid: {program.spread: [1, 0.5]}
seeds: 2
measure: [ari, own.py:span, elbo]
""")
    results = main(tmp_path / "x.yaml")
    assert results.measures == ("ari", "span.loc", "span.rows", "elbo")
    for row in results.rows:
        noise = np.random.default_rng(row["seed"]).normal(size=(10, 1))
        x = np.repeat([0, 1], 5)[:, None] * 9.0 + noise
        assert row["span.rows"] == pytest.approx(np.ptp(x))
        # Two clusters nine apart: the centres are the two means.
        assert row["span.loc"] == pytest.approx(x[5:].mean() - x[:5].mean(), abs=1e-3)
        assert row["ari"] == 1.0


def test_seeds_of_data_that_does_not_change_are_starts(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    program = {"name": f"{tmp_path}/own.py:mixture", "K": 3}
    results = main(
        {
            "program": program,
            "data": f"{tmp_path}/own.py:fixed",
            "seeds": [4, 1],
            "measure": ["elbo"],
            "fit": {"max_steps": 2},
        }
    )
    assert [row["seed"] for row in results.rows] == [4, 1]
    assert results.rows[0]["elbo"] != results.rows[1]["elbo"]


def test_functions_stand_for_names():
    """From Python, and from a notebook, programs, data and measures may be functions."""

    def rows(seed, shift=0.0):
        return np.random.default_rng(seed).normal(size=(30, 1)) + shift

    results = main(
        {
            "program": {"name": gmm, "num_components": 1},
            "data": {"name": rows},
            "grid": {"data.shift": [0.0, 5.0]},
            "measure": [lambda fit, data: float(fit.params["loc"][0, 0] - data.rows.mean())],
        }
    )
    assert np.abs(results.columns["<lambda>"]) == pytest.approx([0.0, 0.0], abs=1e-9)
    with pytest.raises(InputError, match="no other process can import"):
        main({"program": "kmeans", "data": {"name": rows}, "measure": ["elbo"]} | KMEANS, jobs=2)


def test_settings_run_again_from_their_folder_with_files_beside_the_first(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n3,5\n2,2\n7,6\n")
    text = """\
title: own.py
program: {name: gmm, num_components: 2}
data: {name: rows.csv, columns: [a]}
grid:
  program: [{name: "own.py:mixture", K: 1}, {name: kmeans, num_components: 1}]
measure: [elbo, "own.py:span"]
"""
    (tmp_path / "x.yaml").write_text(text)
    results = main(tmp_path / "x.yaml", out=tmp_path / "runs" / "x")
    again = main(tmp_path / "runs" / "x" / "config.yaml")
    assert [line.values for line in again.lines] == [line.values for line in results.lines]
    assert {line.result for line in results.lines} == {"CONVERGED"}


def test_seeds_with_different_numbers_of_rows_are_fitted_one_by_one():
    def growing(seed):
        return np.random.default_rng(seed).normal(size=(6 + seed, 1))

    results = main(
        {
            "program": {"name": "kmeans", "num_components": 1},
            "data": growing,
            "families": "HARD_EM",
            "seeds": 2,
            "measure": ["elbo"],
        }
    )
    for seed, line in enumerate(results.lines):
        rows = growing(seed)
        expected = -0.5 * ((rows - rows.mean()) ** 2).sum() - 0.5 * len(rows) * np.log(2 * np.pi)
        assert line.values["elbo"] == pytest.approx(expected, rel=1e-12)


def test_annealing_ends_as_em_and_begins_warm():
    def one(**fit):
        (row,) = main(
            {
                "program": {"name": "gmm", "num_components": 2, "covariance": "shared_spherical"},
                "data": {"name": "gaussian_clusters", "rows": 60, "separation": 3.0},
                "fit": {"init": "truth"},
                "measure": ["elbo", "steps"],
                **fit,
            }
        ).rows
        return row

    plain = one()
    annealed = one(families={"t": {"name": "annealed", "start": 0.7, "steps": 30.0}})
    constant = one(families={"t": {"name": "annealed", "start": 1.0, "steps": 30.0}})
    assert annealed["elbo"] == pytest.approx(plain["elbo"], abs=1e-5)
    assert constant["elbo"] == pytest.approx(plain["elbo"], abs=1e-5)
    assert annealed["steps"] > 30
    with pytest.raises(InputError, match="did you mean"):
        one(families={"t": {"name": "anealed"}})


@pytest.mark.parametrize(
    "path", sorted(Path(str(probem.__path__[0]), "configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_experiments_that_come_along_are_right(path):
    """Every file but those of other commands resolves, and is short enough to be read at once."""
    text = path.read_text()
    if "\nprogram:" not in text:
        assert path.stem in ("verify", "benchmark", "benchmark_quick")
        return
    experiment, folder = run.experiment_of(path)
    assert run.cells_of(experiment, folder)
    assert experiment.question
    assert experiment.figures
    assert len(text.splitlines()) <= 40
