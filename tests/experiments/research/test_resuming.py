"""An interrupted sweep goes on to the same table, in one process or several: its log, its cells, its outlook."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from probem.errors import InputError
from probem.experiments.research import run, work
from probem.experiments.research.log import Row, append, resumed
from probem.experiments.research.run import main, outlook
from tests.experiments.research.experiments import LIGHT, SMALL, changed

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

#: Three cells of three seeds that compile little: which of them are fitted, and where, is asked here.
MEANS = {
    "program": {"name": "kmeans", "num_components": 2},
    "data": SMALL["data"],
    "families": "HARD_EM",
    "grid": {"data.separation": [0.0, 2.0, 8.0]},
    "seeds": 3,
    "measure": ["elbo"],
}


def test_resume_repeats_nothing_and_takes_new_cells(tmp_path, monkeypatch):
    out, fitted = tmp_path / "sweep", []
    perform = work.perform

    def counting(experiment, cell, folder):
        fitted.append(cell.axes)
        return perform(experiment, cell, folder)

    monkeypatch.setattr(work, "perform", counting)
    main(MEANS | {"grid": {"data.separation": [0.0, 2.0]}}, out=out)
    assert len(fitted) == 2
    results = main(MEANS, out=out, resume=True)
    assert [axes["data.separation"] for axes in fitted[2:]] == [8.0]
    assert results.num_resumed == 6
    assert len(results) == 9
    # More seeds: every cell lacks some.
    four = MEANS | {"grid": {"data.separation": [0.0]}, "seeds": 4}
    results = main(four, out=out, resume=True)
    assert len(fitted) == 4
    assert results.num_resumed == 3
    # The cells that are no longer asked for are kept for a run that asks for them again.
    assert len(results.others) == 6
    planned = outlook(four, out=out, resume=True)
    assert (planned.lines, planned.done, planned.structures, planned.seconds) == (4, 4, 0, 0.0)
    assert main(MEANS, out=out, resume=True).num_resumed == 9
    assert len(fitted) == 4


def test_ctrl_c_keeps_what_was_done(tmp_path):
    out, alone = tmp_path / "sweep", main(MEANS)

    def interrupt(step):
        if step.done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        main(MEANS, out=out, progress=interrupt)
    assert not out.exists()
    log = tmp_path / "sweep.jsonl"
    assert len(log.read_text().splitlines()) == 6
    # As if the process had been killed while it wrote.
    with log.open("a") as file:
        file.write('{"key": "half a li')
    results = main(MEANS, out=out, resume=True)
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


def test_a_process_that_died_is_still_to_come_in_the_outlook(tmp_path):
    experiment = MEANS | {"grid": {"data.separation": [2.0]}, "seeds": 1}
    died = dataclasses.replace(main(experiment).lines[0], result=work.DIED, values={})
    append(tmp_path / "sweep.jsonl", [died])
    assert outlook(experiment, out=tmp_path / "sweep", resume=True).done == 0


def test_a_line_ends_where_json_says(tmp_path):
    """A name may hold what Unicode takes for the end of a line."""
    row = Row("key", {"program": "one\u2028two\x85"}, 0, "CONVERGED", "", {"elbo": 1.0})
    append(tmp_path / "log", [row, dataclasses.replace(row, key="other")])
    assert resumed(tmp_path / "log") == {"key": row, "other": dataclasses.replace(row, key="other")}


def test_two_processes_make_the_same_table():
    results = main(MEANS, jobs=2)
    assert len(results) == 9
    assert results.to_polars().equals(main(MEANS).to_polars())


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
