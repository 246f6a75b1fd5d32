"""``probem run``: what it prints, how it ends, and how it says no."""

import os
from pathlib import Path

import pytest

from probem.experiments.research import run as research
from probem.experiments.research import work
from probem.experiments.research.log import Row
from tests.cli.invoking import invoke, refused

TEXT = """\
program: {name: kmeans, num_components: 2}
data: {name: gaussian_clusters, rows: 20}
families: HARD_EM
grid: {data.separation: [2.0, 6.0]}
seeds: 2
measure: [elbo]
"""


@pytest.fixture(autouse=True)
def _file():
    Path("x.yaml").write_text(TEXT)


@pytest.fixture
def endings(monkeypatch):
    """Fits that are not made: all end as this list says, seed by seed."""
    names = ["CONVERGED", "CONVERGED"]

    def perform(experiment, cell, folder):
        return [
            Row(research.row_key(cell, seed), cell.axes, seed, names[seed], "", {"elbo": -float(seed)})
            for seed in experiment.each_seed
        ]

    monkeypatch.setattr(work, "perform", perform)
    monkeypatch.setattr(research, "perform", perform)
    return names


@pytest.mark.usefixtures("endings")
def test_run_prints_a_table_and_writes_its_folder():
    result = invoke("run", "x.yaml")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["separation", "elbo"]
    assert [line.split()[0] for line in lines[2:4]] == ["2", "6"]
    assert "4 fits in" in result.stdout
    assert lines[-1] == "Report: runs/x/report.html"
    assert "\x1b" not in result.output
    assert os.path.exists("runs/x/report.html")
    assert "add --resume to keep them" in refused("run", "x.yaml")
    assert "4 fits, 4 of them from an earlier run" in invoke("run", "x.yaml", "--resume").stdout


def test_fits_that_end_badly_are_counted(endings):
    endings[0] = "SINGULAR"
    result = invoke("run", "x.yaml", "--out", "here")
    assert result.exit_code == 0
    assert "2 fits of 4 converged; 2 ended as SINGULAR." in result.stdout
    endings[1] = "STEP_LIMIT"
    assert invoke("run", "x.yaml", "--out", "there").exit_code == 1


@pytest.mark.usefixtures("endings")
def test_dry_run_writes_nothing():
    result = invoke("run", "x.yaml", "--dry-run", "--set", "separation=1,2,3")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:3] == [f"data.separation = {value}" for value in (1, 2, 3)]
    assert "3 cells, 6 fits; 1 structure to compile; about 0 s" in result.stdout
    assert os.listdir() == ["x.yaml"]


def test_ctrl_c_says_where_it_goes_on_from(monkeypatch, endings):
    del endings
    perform = work.perform

    def interrupted(experiment, cell, folder):
        if cell.axes["data.separation"] == 6.0:
            raise KeyboardInterrupt
        return perform(experiment, cell, folder)

    monkeypatch.setattr(work, "perform", interrupted)
    result = invoke("run", "x.yaml")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "Interrupted: what was done is in runs/x.jsonl; --resume goes on from there."
    )
    monkeypatch.setattr(work, "perform", perform)
    assert "4 fits, 2 of them from an earlier run" in invoke("run", "x.yaml", "--resume").stdout


@pytest.mark.usefixtures("endings")
def test_progress_in_a_pipe_is_lines(monkeypatch):
    from probem.cli import running

    monkeypatch.setattr(running, "_EVERY", 0.0)
    lines = invoke("run", "x.yaml").stderr.splitlines()
    assert lines[0] == "0 of 4 fits"
    # One cell does not say how long another of its structure takes, which has nothing to compile.
    assert lines[1] == "2 of 4 fits"
    assert lines[2] == "4 of 4 fits"


@pytest.mark.usefixtures("endings")
def test_time_that_is_left(monkeypatch):
    """Two structures of two cells: 10 s for the first of each, 1 s for the second."""
    clock = iter([0.0, 10.0, 11.0, 21.0, 22.0])
    config = {
        "program": {"name": "kmeans", "num_components": 1},
        "data": {"name": "gaussian_clusters", "rows": 20},
        "grid": {"program.num_components": [1, 2], "data.separation": [2.0, 6.0]},
        "measure": ["elbo"],
    }
    experiment, folder = research.experiment_of(config)
    cells = research.cells_of(experiment, folder)
    monkeypatch.setattr(research.time, "perf_counter", lambda: next(clock))
    expectation = research._Expectation(cells)
    assert [expectation.after(cell) for cell in cells] == [None, 11.0, 1.0, 0.0]


@pytest.mark.usefixtures("endings")
def test_an_experiment_that_was_installed_is_known_by_its_name():
    result = invoke("run", "evidence", "--dry-run", "--set", "seeds=1")
    assert result.exit_code == 0, result.output
    assert "18 cells, 18 fits" in result.stdout
    assert "no file at evidense" in refused("run", "evidense")


def test_run_refuses_with_places():
    Path("y.yaml").write_text(TEXT.replace("separation", "separatio").replace("elbo", "ebo"))
    result = invoke("run", "y.yaml")
    assert result.exit_code == 2
    first, second = result.stderr.removeprefix("Error: ").splitlines()
    assert first.startswith("y.yaml:4: grid.data.separatio: got an unknown key")
    assert second.startswith("y.yaml:6: measure[0]: got 'ebo'; expected one of elbo,")
    assert second.endswith("did you mean 'elbo'.")
    assert "no file at nowhere.yaml" in refused("run", "nowhere.yaml")
    assert "expected path=value" in refused("run", "x.yaml", "--set", "separation")
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("kept")
    assert "holds no results of probem" in refused("run", "x.yaml", "--out", "mine")
