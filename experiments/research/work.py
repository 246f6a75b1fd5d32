"""The work of a sweep, cell by cell: in this process, or side by side in several."""

import contextlib
import functools
import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import probem
from probem.errors import InputError
from probem.results.fit import Fit
from probem.runs import processes

from . import data as data_module
from .cells import Cell, row_key
from .data import Data
from .log import Row
from .measures import Measured, measure_all
from .resolution import Program, Resolver
from .settings import Experiment, FitSettings

#: Endings of a cell that are none of a fit: it was refused, something was raised, its process died.
REFUSED, ERROR, DIED = "REFUSED", "ERROR", "DIED"
_STARTS = {"kmeans++": None, "lloyd": probem.Lloyd(), "random_rows": probem.RandomRows()}

Done = tuple[Cell, list[Row]]


def perform(experiment: Experiment, cell: Cell, folder: Path) -> list[Row]:
    """One row for every seed of a cell: all are fitted, side by side where one program is for all of them."""
    seeds = experiment.each_seed
    try:
        fits, data, programs, seconds = _fitted(cell, seeds, folder)
    except Exception as error:
        ending = REFUSED if isinstance(error, InputError) else ERROR
        return [Row(row_key(cell, seed), cell.axes, seed, ending, _sentence(error), {}) for seed in seeds]
    rows = []
    for seed, fit, each, program in zip(seeds, fits, data, programs, strict=True):
        values, failures = measure_all(experiment.measure, folder, Measured(fit, each, program, seconds))
        ending = fit.result.name if fit.result else ERROR
        said = [] if fit.result is probem.Result.CONVERGED or fit.result is None else [fit.result.value]
        rows.append(Row(row_key(cell, seed), cell.axes, seed, ending, "; ".join([*said, *failures]), values))
    return rows


def _fitted(cell: Cell, seeds: Sequence[int], folder: Path) -> tuple[list[Fit], list[Data], list[Any], float]:
    """The fit of every seed, its data and its program, and the seconds of one fit."""
    resolver = Resolver(folder)
    program = resolver.program(cell.settings["program"])
    source = data_module.source_of(cell.settings["data"], resolver)
    families, options = resolver.families(cell.settings["families"]), resolver.options(cell.settings["fit"])
    data = [source.draw(seed) for seed in seeds] if source.differs_by_seed else [source.draw(seeds[0])] * len(seeds)
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    asked: dict[str, Any] = {name: value for name, value in options if name != "init"} | {"families": families}
    programs = _bound(program, data, source.differs_by_seed)
    clock = time.perf_counter()
    shapes = {each.rows.shape for each in data}
    if len(seeds) > 1 and len(shapes) == 1 and all(each is programs[0] for each in programs):
        start = _start(options, [each.labels for each in data])
        rows = np.stack([each.rows for each in data])
        fits = list(probem.fit_many(programs[0], rows, key=keys, init=start, throw=False, **asked))
    else:
        fits = []
        for key, each, bound in zip(keys, data, programs, strict=True):
            start = _start(options, [each.labels])
            if isinstance(start, probem.Labels):
                start = probem.Labels(np.asarray(each.labels))
            fits.append(probem.fit(bound, each.rows, key=key, init=start, throw=False, **asked))
    return fits, data, programs, (time.perf_counter() - clock) / len(seeds)


def _bound(program: Program, data: Sequence[Data], differs: bool) -> list[Any]:
    """The program of every seed: one object where it is the same for all of them."""
    if differs and program.depends_on_rows:
        return [program.bound(each.rows) for each in data]
    return [program.bound(data[0].rows)] * len(data)


def _start(options: FitSettings, labels: Sequence[Any]) -> Any:
    if options.init != "truth":
        return _STARTS[options.init]
    if any(each is None for each in labels):
        raise InputError("init: truth for rows without labels", "data that comes with labels", "choose another start")
    return probem.Labels(np.stack(labels))


def in_turn(experiment: Experiment, cells: Sequence[Cell], folder: Path) -> Generator[Done]:
    """Every cell with its rows, in this process."""
    set_precision()
    for cell in cells:
        yield cell, perform(experiment, cell, folder)


def side_by_side(experiment: Experiment, cells: Sequence[Cell], folder: Path, num_processes: int) -> Generator[Done]:
    """Every cell with its rows, in the order in which they are done; cells with one structure share a process.

    Where a process dies, the cell in hand fails by name, and another process takes its place. If this generator is
    closed or interrupted, the processes end with it.
    """
    each = functools.partial(perform, experiment, folder=folder)
    together = units(cells, num_processes)
    with contextlib.closing(processes.side_by_side(each, together, num_processes, set_precision)) as done:
        for cell, future in done:
            error = future.exception()
            yield cell, _failed(experiment, cell, error) if error else future.result()


def _failed(experiment: Experiment, cell: Cell, error: BaseException) -> list[Row]:
    died = isinstance(error, BrokenProcessPool)
    ending, said = (DIED, processes.DIED) if died else (ERROR, _sentence(error))
    return [Row(row_key(cell, seed), cell.axes, seed, ending, said, {}) for seed in experiment.each_seed]


def units(cells: Sequence[Cell], num_processes: int) -> list[list[Cell]]:
    """Cells that share a process: those of one structure, cut up where there are fewer structures than processes."""
    by_structure: dict[str, list[Cell]] = {}
    for cell in cells:
        by_structure.setdefault(cell.structure, []).append(cell)
    groups = sorted(by_structure.values(), key=len, reverse=True)
    while groups and len(groups) < num_processes and len(groups[0]) > 1:
        longest, *others = groups
        half = (len(longest) + 1) // 2
        groups = sorted([longest[:half], longest[half:], *others], key=len, reverse=True)
    return groups


def set_precision() -> None:
    """float64, and a flag without which NumPyro's densities wait for themselves (``probem/exponential/linalg.py``)."""
    if jax.__version_info__[:2] == (0, 10):  # a flag that XLA does not know ends the process
        flag = "--xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
        if flag not in os.environ.get("XLA_FLAGS", ""):
            os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), flag])
    jax.config.update("jax_enable_x64", True)


def _sentence(error: BaseException) -> str:
    """What was raised, on one line."""
    said = " ".join(str(error).split())
    return said if isinstance(error, InputError) else f"{type(error).__name__}: {said}".removesuffix(": ")
