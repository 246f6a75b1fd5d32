"""Sweeps: the numbers are those of single fits, and an interrupted sweep goes on to the same table."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest
from sklearn.metrics import adjusted_rand_score

import probem
from probem.errors import InputError
from probem.experiments.oracles import evidence as oracle
from probem.experiments.research import run, work
from probem.experiments.research.data import Data, source_of
from probem.experiments.research.generators import GENERATORS, bernoulli_features, gaussian_clusters, poisson_counts
from probem.experiments.research.log import Row, append, resumed
from probem.experiments.research.measures import Measured, measure_all
from probem.experiments.research.resolution import Resolver
from probem.experiments.research.run import main, outlook
from probem.models import GaussianPrior, bayesian_covariance, bayesian_gmm, gmm
from tests.experiments.research.experiments import LIGHT, OWN, SMALL, TEXT, changed

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
    assert str(small).splitlines()[0].split() == ["separation", "prior.strength", *small.measures]


def test_summaries_are_means_with_their_interval(small):
    (summary,) = (each for each in small.summaries("elbo", small.axes) if each.values == (2.0, 1.0))
    numbers = [
        row["elbo"] for row in small.rows if (row["data.separation"], row["program.prior.strength"]) == (2.0, 1.0)
    ]
    assert summary.count == 3
    assert summary.mean == pytest.approx(np.mean(numbers))
    # The quantile of Student's t with two degrees of freedom, from a table.
    assert summary.half == pytest.approx(4.302653 * np.std(numbers, ddof=1) / np.sqrt(3), rel=1e-6)


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


def test_resume_repeats_nothing_and_takes_new_cells(tmp_path, monkeypatch):
    out, fitted = tmp_path / "sweep", []
    perform = work.perform

    def counting(experiment, cell, folder):
        fitted.append(cell.axes)
        return perform(experiment, cell, folder)

    monkeypatch.setattr(work, "perform", counting)
    main(changed(grid={"data.separation": [0.0, 2.0]}, figures=None), out=out)
    assert len(fitted) == 2
    results = main(changed(grid={"data.separation": [0.0, 2.0, 8.0]}, figures=None), out=out, resume=True)
    assert [axes["data.separation"] for axes in fitted[2:]] == [8.0]
    assert results.num_resumed == 6
    assert len(results) == 9
    # More seeds: every cell lacks some.
    four = changed(grid={"data.separation": [0.0]}, seeds=4, figures=None)
    results = main(four, out=out, resume=True)
    assert len(fitted) == 4
    assert results.num_resumed == 3
    planned = outlook(four, out=out, resume=True)
    assert (planned.lines, planned.done, planned.structures, planned.seconds) == (4, 4, 0, 0.0)


def test_ctrl_c_keeps_what_was_done(tmp_path):
    out, alone = tmp_path / "sweep", main(SMALL)

    def interrupt(step):
        if step.done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        main(SMALL, out=out, progress=interrupt)
    assert not out.exists()
    log = tmp_path / "sweep.jsonl"
    assert len(log.read_text().splitlines()) == 6
    # As if the process had been killed while it wrote.
    with log.open("a") as file:
        file.write('{"key": "half a li')
    results = main(SMALL, out=out, resume=True)
    assert results.num_resumed == 6
    assert results.to_polars().equals(alone.to_polars())
    assert not log.exists()


def test_a_log_is_cut_where_it_is_half_and_refused_where_it_is_broken(tmp_path):
    path = tmp_path / "x.jsonl"
    rows = [Row(str(n), {"a": 1.0}, n, "CONVERGED", "", {"elbo": value}) for n, value in enumerate([1.5, -np.inf])]
    append(path, rows)
    assert list(resumed(path).values()) == rows
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"key": "2", "ax')
    assert list(resumed(path).values()) == rows
    assert path.read_bytes() == whole
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(InputError, match="line 1 of"):
        resumed(path)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_same_table(tmp_path):
    """SIGKILL in the middle, at whatever place; then the table is byte for byte that of a sweep that was left alone."""
    # A second structure has to be compiled after the first: the sweep is not done before it is killed.
    (tmp_path / "x.yaml").write_text(LIGHT.replace("grid:\n", "grid:\n  program.num_components: [1, 2]\n"))

    command = [sys.executable, "-m", "probem.cli", "run", "x.yaml", "--out", "killed"]
    killed = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "killed.jsonl", time.monotonic() + 300
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    done = len(log.read_text().splitlines())
    assert 0 < done < 36
    assert not (tmp_path / "killed").exists()
    results = main(tmp_path / "x.yaml", out=tmp_path / "killed", resume=True)
    assert (len(results), results.num_resumed) == (36, done)
    main(tmp_path / "x.yaml", out=tmp_path / "alone")
    for name in ("results.csv", "results.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.slow
def test_a_process_that_died_is_still_to_come_in_the_outlook(tmp_path):
    experiment = changed(grid={"data.separation": [2.0]}, seeds=1, measure=["elbo"], figures=[])
    died = dataclasses.replace(main(experiment).lines[0], result=work.DIED, values={})
    append(tmp_path / "sweep.jsonl", [died])
    assert outlook(experiment, out=tmp_path / "sweep", resume=True).done == 0


def test_a_line_ends_where_json_says(tmp_path):
    """A name may hold what Unicode takes for the end of a line."""
    row = Row("key", {"program": "one\u2028two\x85"}, 0, "CONVERGED", "", {"elbo": 1.0})
    append(tmp_path / "log", [row, dataclasses.replace(row, key="other")])
    assert resumed(tmp_path / "log") == {"key": row, "other": dataclasses.replace(row, key="other")}


def test_two_processes_make_the_same_table(tmp_path):
    (tmp_path / "x.yaml").write_text(LIGHT)
    results = main(tmp_path / "x.yaml", jobs=2)
    assert len(results) == 18
    assert results.to_polars().equals(main(tmp_path / "x.yaml").to_polars())


@pytest.mark.slow
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


@pytest.mark.slow
def test_held_out_rows_and_priors_from_the_scale_of_the_rows():
    results = main(
        {
            "program": {"name": "bayesian_gmm", "num_components": 2, "prior": {"strength": 0.5}},
            "data": {"name": "old_faithful", "held_out": 0.25},
            "families": "VARIATIONAL_BAYES",
            "seeds": 2,
            "measure": ["log_density", "elbo"],
        }
    )
    from probem.experiments.claims.datasets import old_faithful

    x = old_faithful().rows
    for row in results.rows:
        order = np.random.default_rng([row["seed"], 272]).permutation(272)
        apart, kept = np.sort(order[:68]), np.sort(order[68:])
        prior = GaussianPrior.from_data(jnp.asarray(x[kept]), num_components=2)._replace(strength=0.5)
        program = partial(bayesian_gmm, num_components=2, prior=prior)
        fit = probem.fit(program, x[kept], families=probem.VARIATIONAL_BAYES, key=row["seed"])
        assert row["elbo"] == pytest.approx(fit.elbo, abs=1e-8)
        assert row["log_density"] == pytest.approx(fit.log_density(x[apart]).mean(), abs=1e-9)


@pytest.mark.slow
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


def test_rows_are_standardised_by_those_that_are_fitted():
    """What is held out leaks into nothing; true parameters are in other units, and left out."""

    def lines(seed):
        rows = np.random.default_rng(seed).normal(3.0, 5.0, size=(20, 2))
        return rows, None, {"loc": np.zeros((2, 2))}

    section = {"name": lines, "held_out": 0.25}
    plain, scaled = (
        source_of(section | {"standardise": standardise}, Resolver(Path())).draw(3) for standardise in (False, True)
    )
    mean, spread = plain.rows.mean(axis=0), plain.rows.std(axis=0)
    np.testing.assert_allclose(scaled.rows, (plain.rows - mean) / spread, atol=1e-14)
    np.testing.assert_allclose(scaled.held_out, (plain.held_out - mean) / spread, atol=1e-14)
    assert list(plain.parameters) == ["loc"]
    assert not scaled.parameters


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


def test_measures_beside_plain_computations():
    results = main(
        {
            "program": {"name": "gmm", "num_components": 3, "covariance": "shared_spherical"},
            "data": {"name": "gaussian_clusters", "rows": 90, "components": 3, "separation": 5.0},
            "families": {"t": {"name": "tempered", "beta": 0.5}},
            "fit": {"init": "truth"},
            "measure": ["terms", "elbo", "gap", "ari", "parameters_error", "occupied", "converged"],
        }
    )
    (row,) = results.rows
    x, labels, true = gaussian_clusters(0, rows=90, components=3, separation=5.0)
    program = partial(gmm, num_components=3, covariance=probem.models.shared_spherical)
    fit = probem.fit(program, x, families={"t": probem.Tempered(0.5)}, init=probem.Labels(labels))
    table = np.asarray(probem.log_joint(program, fit.params, x))
    log_q = 0.5 * table - np.logaddexp.reduce(0.5 * table, axis=1, keepdims=True)
    log_posterior = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
    assert row["gap"] == pytest.approx((np.exp(log_q) * (log_q - log_posterior)).sum(), rel=1e-6)
    assert sum(value for name, value in row.items() if name.startswith("terms.")) == pytest.approx(row["elbo"])
    assert row["ari"] == pytest.approx(adjusted_rand_score(labels, table.argmax(axis=1)))
    # It starts at the truth: component k is component k.
    loc = np.asarray(fit.params["loc"])
    assert row["parameters_error.loc"] == pytest.approx(np.sqrt(((loc - true["loc"]) ** 2).mean()), rel=1e-6)
    assert row["occupied"] == 3
    assert row["converged"] == 1


@pytest.mark.slow
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
    annealed = one(families={"t": {"name": "annealed", "start": 0.7, "half_steps": 30.0}})
    constant = one(families={"t": {"name": "annealed", "start": 1.0, "half_steps": 30.0}})
    assert annealed["elbo"] == pytest.approx(plain["elbo"], abs=1e-5)
    assert constant["elbo"] == pytest.approx(plain["elbo"], abs=1e-5)
    assert annealed["steps"] > 30
    with pytest.raises(InputError, match="did you mean"):
        one(families={"t": {"name": "anealed"}})


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generators_are_functions_of_their_seed(name):
    first, again, other = (GENERATORS[name](seed, rows=50).rows for seed in (1, 1, 2))
    assert first.shape[0] == 50
    assert (first == again).all()
    assert (first != other).any()


def test_generators_draw_from_their_parameters():
    """Means of a hundred thousand rows, within five standard errors."""
    n = 100_000
    for drawn in (
        gaussian_clusters(3, rows=n, components=3, separation=4.0, weights=[1.0, 2.0, 3.0]),
        poisson_counts(3, rows=n, components=2, rate=1.5),
        bernoulli_features(3, rows=n, components=2),
    ):
        means = drawn.parameters.get("loc", drawn.parameters.get("rate", drawn.parameters.get("probs")))
        shares = np.bincount(drawn.labels) / n
        assert np.abs(shares - drawn.parameters["weights"]).max() < 5 * 0.5 / np.sqrt(n)
        for k, mean in enumerate(means):
            rows = drawn.rows[drawn.labels == k]
            assert (np.abs(rows.mean(axis=0) - mean) < 5 * rows.std(axis=0) / np.sqrt(len(rows))).all()
    centres = gaussian_clusters(0, components=5, separation=4.0).parameters["loc"]
    assert np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=1) == pytest.approx([4.0] * 5)


@pytest.mark.slow
def test_outlook_counts_cells_and_structures():
    grid = {"program.num_components": [1, 2], "data.separation": [0.0, 2.0]}
    planned = outlook(changed(grid=grid, measure=["elbo", "steps"], figures=None))
    assert (len(planned.cells), planned.lines, planned.done, planned.structures) == (4, 12, 0, 2)
    assert planned.seconds > 0


def test_lines_are_json(tmp_path):
    append(tmp_path / "x.jsonl", [Row("k", {"a": None}, 0, "CONVERGED", "", {"x": np.nan, "y": 2.0})])
    fields = json.loads((tmp_path / "x.jsonl").read_text(), parse_constant=lambda text: pytest.fail(text))
    assert fields["values"] == {"x": "nan", "y": 2.0}


def test_units_cut_a_structure_up_only_where_there_are_too_few():
    experiment, folder = run.experiment_of(SMALL)
    cells = run.cells_of(experiment, folder)
    assert [len(unit) for unit in work.units(cells, 1)] == [6]
    assert sorted(len(unit) for unit in work.units(cells, 4)) == [1, 1, 2, 2]
    assert sorted(cell.key for unit in work.units(cells, 4) for cell in unit) == sorted(cell.key for cell in cells)


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


def test_a_file_of_rows_and_its_column_of_labels(tmp_path):
    """The labels are no column of the rows, and are what the agreement is measured against."""
    labels = np.repeat([3, 7], 20)
    x = np.random.default_rng(0).normal(size=(40, 2)) + 20.0 * (labels[:, None] == 7)
    polars.DataFrame({"a": x[:, 0], "kind": labels, "b": x[:, 1]}).write_csv(tmp_path / "rows.csv")
    (tmp_path / "x.yaml").write_text("""\
program: {name: kmeans, num_components: 2}
data: {name: rows.csv, labels: kind}
families: HARD_EM
measure: [ari, elbo]
""")
    (row,) = main(tmp_path / "x.yaml").rows
    assert row["ari"] == 1.0
    centred = x - np.stack([x[labels == kind].mean(axis=0) for kind in (3, 7)])[(labels == 7).astype(int)]
    # log p(x, t) of unit spheres and equal weights.
    assert row["elbo"] == pytest.approx(-0.5 * (centred**2).sum() - 40 * (np.log(2 * np.pi) + np.log(2)), rel=1e-9)


def test_parameters_are_compared_under_the_best_numbering():
    """Components in another order are as good; a centre that is off by 3 in one of two columns costs 3 / sqrt(6)."""
    true = {"loc": np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), "weights": np.array([0.5, 0.25, 0.25])}
    order = [2, 0, 1]
    fitted = {name: value[order].copy() for name, value in true.items()}
    fitted["loc"][0, 1] += 3.0
    rows = np.repeat(true["loc"], 5, axis=0) + np.random.default_rng(0).normal(size=(15, 2))
    fit = probem.fit(partial(gmm, num_components=3), rows, max_steps=1, throw=False)
    data = Data(rows, None, None, true)
    values, failures = measure_all(
        ["parameters_error"],
        Path(),
        Measured(dataclasses.replace(fit, params={**fit.params, **jax.tree.map(jnp.asarray, fitted)}), data, None, 0.0),
    )
    assert failures == []
    assert values == pytest.approx({"parameters_error.loc": 3 / np.sqrt(6), "parameters_error.weights": 0.0})
