"""``probem run``: an experiment from a file and the options, live progress, the table, the exit code."""

import importlib.resources
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from probem.experiments.report.report import count, number
from probem.experiments.research import run as research
from probem.experiments.research.report import endings
from probem.experiments.research.results import Results
from probem.runs.process import FAILED, INTERRUPTED

from .console import console

# Seconds between two lines of progress in a pipe.
_EVERY = 5.0
# Cells that a table in the terminal shows.
_SHOWN = 60


def run(config: Path, sets: Sequence[str], out: Path | None, resume: bool, jobs: int) -> int:
    """Run, print and write; the exit code."""
    config, destination = _file(config), out or _folder(config)
    errors = console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("fits", total=None, left="")
        in_lines = _in_lines(errors)

        def progress(step: research.Step) -> None:
            bar.update(task, completed=step.done, total=step.total, left=_left(step))
            if not errors.is_terminal:
                in_lines(step)

        try:
            results = research.main(config, sets=sets, out=destination, resume=resume, jobs=jobs, progress=progress)
        except KeyboardInterrupt:
            log = research.log_of(destination)
            if not log.exists():
                raise
            errors.print(
                f"Interrupted: what was done is in {escape(str(log))}; --resume goes on from there.", soft_wrap=True
            )
            return INTERRUPTED
    _print(results, destination)
    return FAILED if len(results.unconverged) == len(results) else 0


def plan(config: Path, sets: Sequence[str], out: Path | None, resume: bool) -> None:
    """Print what would be run."""
    config = _file(config)
    outlook = research.outlook(config, sets=sets, out=out or _folder(config), resume=resume)
    output = console()
    axes = list(outlook.cells[0].axes)
    for cell in outlook.cells[:_SHOWN]:
        values = ", ".join(f"{path} = {cell.axes[path]}" for path in axes) or "one cell"
        output.print(f"{values}", markup=False, soft_wrap=True)
    if len(outlook.cells) > _SHOWN:
        output.print(f"and {count(len(outlook.cells) - _SHOWN, 'more cell')}")
    done = f", {number(outlook.done)} of them there already" if outlook.done else ""
    output.print(
        f"{count(len(outlook.cells), 'cell')}, {count(outlook.lines, 'fit')}{done};"
        f" {count(outlook.structures, 'structure')} to compile; about {_seconds(outlook.seconds)}"
        " (by the first cell, made twice), in one process."
    )


def _file(config: Path) -> Path:
    """The file, or that of this name among those installed."""
    installed = Path(str(importlib.resources.files("probem.configs") / f"{config}.yaml"))
    return installed if not config.exists() and config.parent == Path() and installed.exists() else config


def _folder(config: Path) -> Path:
    return Path("runs") / config.stem


def _in_lines(errors: Console) -> Callable[[research.Step], None]:
    """Progress for a pipe: a line now and then."""
    last = [time.monotonic()]

    def say(step: research.Step) -> None:
        if time.monotonic() - last[0] >= _EVERY:
            last[0] = time.monotonic()
            left = _left(step)
            errors.print(f"{step.done} of {step.total} fits{', ' + left if left else ''}", markup=False)

    return say


def _left(step: research.Step) -> str:
    if step.seconds_left is None or step.done == step.total:
        return ""
    return f"about {_seconds(step.seconds_left)} left"


def _seconds(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _print(results: Results, folder: Path) -> None:
    output = console()
    lines = str(results).splitlines()
    for line in lines[: _SHOWN + 2]:
        output.print(line, markup=False, soft_wrap=True)
    if len(lines) > _SHOWN + 2:
        output.print(f"and {count(len(lines) - _SHOWN - 2, 'more cell')} in results.csv")
    if said := endings(results):
        output.print(said[0].upper() + said[1:], markup=False, soft_wrap=True)
    resumed = f", {number(results.num_resumed)} of them from an earlier run" if results.num_resumed else ""
    output.print(f"{count(len(results), 'fit')}{resumed} in {results.seconds:.0f} s.")
    if results.others:
        kept = f"{count(len(results.others), 'result')} of cells that are not in the experiment now"
        output.print(f"In results.jsonl, for a run that asks for them again: {kept}.", soft_wrap=True)
    output.print(f"Report: {escape(str(folder / 'report.html'))}", soft_wrap=True)
