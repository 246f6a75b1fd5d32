"""``main``: an experiment from a file or a mapping, cell by cell, to ``Results``."""

import contextlib
import copy
import dataclasses
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from probem.errors import InputError
from probem.runs.config import Document, settings_in
from probem.runs.folders import check_destination, whole_folder

from .cells import Cell, cells_of, complaints_about, resolve_set, row_key
from .log import Row, append, resumed
from .report import RESULTS, write
from .results import Results
from .settings import Experiment
from .work import DIED, in_turn, perform, set_precision, side_by_side

Config = str | Path | Mapping[str, Any] | Experiment


@dataclasses.dataclass(frozen=True)
class Step:
    """Where a sweep stands: lines that are there, all of them, and the seconds that the rest is expected to take."""

    done: int
    total: int
    seconds_left: float | None


@dataclasses.dataclass(frozen=True)
class Outlook:
    """What a sweep would do: cells, lines, those that are there already, structures to compile, expected seconds."""

    cells: tuple[Cell, ...]
    lines: int
    done: int
    structures: int
    seconds: float


def main(
    config: Config,
    *,
    sets: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    jobs: int = 1,
    progress: Callable[[Step], None] = lambda step: None,
) -> Results:
    """Run an experiment.

    Parameters
    ----------
    config : a YAML file, or a mapping of what such a file holds, in which functions may stand for names
    sets : ``path=value`` or ``path=value,value``, as ``--set`` takes them
    out : the run folder; None writes nothing
    resume : keep the results that are in ``out``, or beside it from a run that was interrupted
    jobs : the number of processes
    progress : is told where the sweep stands

    Returns
    -------
    Results : a line for every cell and seed

    Raises
    ------
    InputError : the experiment cannot be run as it stands (``ConfigError``, with the places of all that is wrong), or
        the folder cannot be written
    KeyboardInterrupt : Ctrl-C was pressed; with ``out`` what was done is kept for ``resume``
    """
    experiment, folder = experiment_of(config, sets)
    destination = None if out is None else Path(out)
    earlier = _earlier(destination, resume)
    if destination is not None:
        destination.parent.mkdir(parents=True, exist_ok=True)
    started, clock = datetime.now().astimezone(), time.perf_counter()
    set_precision()
    cells = cells_of(experiment, folder)
    if jobs > 1:
        _check_pickled(experiment)
    wanted = [row_key(cell, seed) for cell in cells for seed in experiment.each_seed]
    known = {key: earlier[key] for key in wanted if key in earlier}
    others = tuple(row for key, row in earlier.items() if key not in known)
    num_resumed = len(known)
    todo = [cell for cell in cells if any(row_key(cell, seed) not in known for seed in experiment.each_seed)]
    work = (
        side_by_side(experiment, todo, folder, min(jobs, len(todo)))
        if jobs > 1 and todo
        else in_turn(experiment, todo, folder)
    )
    progress(Step(len(known), len(wanted), None))
    expectation = _Expectation(todo)
    with contextlib.closing(work):
        for cell, rows in work:
            # Of a cell that was interrupted half-way all seeds are fitted again, side by side as before.
            fresh = [row for row in rows if row.key not in known]
            if destination is not None:
                append(log_of(destination), fresh)
            known |= {row.key: row for row in fresh}
            progress(Step(len(known), len(wanted), expectation.after(cell)))
    lines = tuple(_in_order(known[key], cell, seed) for key, cell, seed in _expected(cells, experiment))
    results = Results(experiment, lines, destination, time.perf_counter() - clock, num_resumed, others)
    if destination is not None:
        with whole_folder(destination) as partial:
            write(results, partial, started, folder)
        log_of(destination).unlink(missing_ok=True)
    return results


def outlook(
    config: Config, *, sets: Sequence[str] = (), out: str | Path | None = None, resume: bool = False
) -> Outlook:
    """What ``main`` would do; its time is that of the first cell, made twice and not kept."""
    experiment, folder = experiment_of(config, sets)
    earlier = _earlier(None if out is None else Path(out), resume)
    set_precision()
    cells = cells_of(experiment, folder)
    todo = [cell for cell in cells if any(row_key(cell, seed) not in earlier for seed in experiment.each_seed)]
    structures = len({cell.structure for cell in todo})
    seconds = 0.0
    if todo:
        times = []
        for _ in range(2):
            clock = time.perf_counter()
            perform(experiment, todo[0], folder)
            times.append(time.perf_counter() - clock)
        seconds = structures * max(0.0, times[0] - times[1]) + len(todo) * times[1]
    lines = len(cells) * len(experiment.each_seed)
    done = lines - sum(row_key(cell, seed) not in earlier for cell in cells for seed in experiment.each_seed)
    return Outlook(tuple(cells), lines, done, structures, seconds)


def experiment_of(config: Config, sets: Sequence[str] = ()) -> tuple[Experiment, Path]:
    """An experiment that was found right, and the folder where its paths begin.

    Raises
    ------
    ConfigError : it is not; all that is wrong is listed, with its places
    """
    if isinstance(config, str | Path):
        document, folder = Document.read(Path(config)), Path(config).parent
    else:
        values = config.model_dump() if isinstance(config, Experiment) else copy.deepcopy(dict(config))
        document, folder = Document("the experiment", values), Path()
    for text in sets:
        _set(document, text, folder)
    return settings_in(document, Experiment, lambda experiment: complaints_about(experiment, folder)), folder


class _Expectation:
    """How long the cells that are left will take, by those that were made: the first of a structure is compiled."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.left = {cell.key: cell.structure for cell in cells}
        self.seen: set[str] = set()
        self.firsts: list[float] = []
        self.others: list[float] = []
        self.last = time.perf_counter()

    def after(self, cell: Cell) -> float | None:
        """Seconds, once this cell was made; None while no cell says how long others of its structure take."""
        now = time.perf_counter()
        (self.others if cell.structure in self.seen else self.firsts).append(now - self.last)
        self.last = now
        self.seen.add(cell.structure)
        del self.left[cell.key]
        new = set(self.left.values()) - self.seen
        again = len(self.left) - len(new)
        if again and not self.others:
            return None
        first = sum(self.firsts) / len(self.firsts) if self.firsts else 0.0
        return len(new) * first + (again * sum(self.others) / len(self.others) if again else 0.0)


def log_of(destination: Path) -> Path:
    """Where lines are kept until the folder is whole."""
    return destination.with_name(f"{destination.name}.jsonl")


def _set(document: Document, text: str, folder: Path) -> None:
    """Set one value, or several as an axis of every grid; a path that a grid varies keeps its axis."""
    if not isinstance(document.value, dict):
        return
    key, values = resolve_set(document.value, text, folder)
    if key == ("seeds",):
        document.put(key, values[0] if len(values) == 1 else values)
        return
    path = ".".join(key)
    written = document.value.get("grid") or {}
    grids = [dict(grid) for grid in (written if isinstance(written, list) else [written]) if isinstance(grid, dict)]
    varied = [grid for grid in grids if path in grid]
    if len(values) == 1 and not varied:
        document.put(key, values[0])
        return
    for grid in grids if len(values) > 1 else varied:
        grid[path] = values
    document.put(("grid",), grids if isinstance(written, list) else grids[0])


def _check_pickled(experiment: Experiment) -> None:
    """Refuse functions that other processes cannot import.

    Raises
    ------
    InputError : there are some
    """
    try:
        pickle.dumps(experiment)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise InputError(
            "functions that no other process can import", "names, or path/to/file.py:function", "take jobs=1"
        ) from None


def _earlier(destination: Path | None, resume: bool) -> dict[str, Row]:
    """The lines of an earlier run into the folder, of a whole one and of one that was interrupted, but for those of
    processes that died, which are made again.

    Raises
    ------
    InputError : there are some, and they are not to be kept; or the folder is somebody's own
    """
    if destination is None:
        return {}
    check_destination(destination)
    log = log_of(destination)
    if not resume and (log.exists() or (destination / RESULTS).exists()):
        there = log if log.exists() else destination
        raise InputError(
            f"results of an earlier run in {there}",
            "a new folder",
            "add --resume to keep them, or name another with --out",
        )
    rows = resumed(destination / RESULTS) | resumed(log)
    return {key: row for key, row in rows.items() if row.result != DIED}


def _expected(cells: Sequence[Cell], experiment: Experiment) -> Iterator[tuple[str, Cell, int]]:
    for cell in cells:
        for seed in experiment.each_seed:
            yield row_key(cell, seed), cell, seed


def _in_order(row: Row, cell: Cell, seed: int) -> Row:
    """A row with the axes of this experiment: one that was resumed may have been made by another grid."""
    return dataclasses.replace(row, axes=cell.axes, seed=seed)
