"""Checks the claims on the data sets, and writes what came of it into one folder."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import jax

from probem.errors import InputError
from probem.experiments.claims.claim import NO_DATASET, Claim, Dataset
from probem.experiments.claims.datasets import DATASETS, load
from probem.experiments.claims.readings import GROUPS
from probem.experiments.outcomes.all_claims import CLAIMS
from probem.experiments.outcomes.costs import cost
from probem.experiments.outcomes.record import Outcome, Picture, Result, Task, Verification, VerifySettings
from probem.experiments.report.report import write
from probem.runs.folders import dated, whole_folder

from .work import in_turn, side_by_side

# Each holds a JAX of its own; most of the time goes into compiling, which one process does on one core.
MAX_PROCESSES = 4


@dataclasses.dataclass(frozen=True)
class Step:
    """Where the run stands: how much is done, in seconds that it took once, and what was last.

    ``outcomes`` are those of the group of claims that ends with it, if one does and all groups before it have.
    """

    done: float
    total: float
    what: str
    outcomes: tuple[Outcome, ...] = ()


def main(settings: VerifySettings, progress: Callable[[Step], None] = lambda step: None) -> tuple[Verification, Path]:
    """Run the claims and write the run folder; returns what was found and where it was written.

    Ctrl-C ends the run at once: what was done until then is written all the same.

    Raises
    ------
    InputError : no chosen claim is checked on a chosen data set, or the folder cannot be written
    """
    jax.config.update("jax_enable_x64", True)
    with whole_folder(destination := Path(settings.output) if settings.output else dated("verify")) as folder:
        verification = run(CLAIMS, settings, progress, min(MAX_PROCESSES, os.cpu_count() or 1))
        write(verification, folder)
    return verification, destination


def run(
    claims: Sequence[Claim], settings: VerifySettings, progress: Callable[[Step], None], num_processes: int = 1
) -> Verification:
    """Check those of ``claims`` that the settings choose; in several processes only claims that can be pickled."""
    started, clock = datetime.now().astimezone(), time.perf_counter()
    chosen = {
        claim.id: _in_depth(claim, settings) for claim in claims if {claim.id, claim.id[0]} & set(settings.claims)
    }
    datasets = {name: load(name) for name in dict.fromkeys(settings.data or DATASETS)}
    checks = [
        Task(claim.id, name)
        for claim in chosen.values()
        for name in [*datasets, *([NO_DATASET] if claim.by_itself else [])]
        if _is_checked(claim, name)
    ]
    if not checks:
        needed = ", ".join(dict.fromkeys(name for claim in chosen.values() for name in claim.datasets or ()))
        raise InputError(
            f"the claims {', '.join(settings.claims)} with the data {', '.join(datasets)}",
            f"data on which they are checked ({needed})",
            "name it with --data",
        )
    figures = [
        Task(claim.id, claim.figure_dataset or next(iter(datasets)), is_figure=True)
        for claim in chosen.values()
        if claim.figure
    ]
    units = _units(checks, figures, chosen, datasets)
    processes = min(num_processes, len(units))
    if processes == 1:
        results = in_turn(chosen, checks + figures, settings.seed)
    else:
        results = side_by_side(chosen, units, settings.seed, processes)
    done: dict[Task, Result] = {}
    interrupted, spent, total = False, 0.0, sum(map(cost, (*checks, *figures)))
    groups = {letter: [task for task in checks if task.claim[0] == letter] for letter in GROUPS}
    left = [letter for letter, tasks in groups.items() if tasks]
    progress(Step(0.0, total, "starting"))
    try:
        with contextlib.closing(results):
            for task, result in results:
                done[task] = result
                spent += cost(task)
                progress(Step(spent, total, str(task)))
                while left and all(each in done for each in groups[left[0]]):
                    ended = [done[each] for each in groups[left.pop(0)]]
                    progress(Step(spent, total, str(task), tuple(each for each in ended if isinstance(each, Outcome))))
    except KeyboardInterrupt:
        interrupted = True
    for letter in left:
        if begun := tuple(each for task in groups[letter] if isinstance(each := done.get(task), Outcome)):
            progress(Step(spent, total, "interrupted", begun))
    outcomes = [done[task] for task in checks if task in done]
    pictures = [picture for task in figures if isinstance(picture := done.get(task), Picture)]
    return Verification(
        settings,
        tuple(chosen.values()),
        tuple(datasets.values()),
        tuple(outcome for outcome in outcomes if isinstance(outcome, Outcome)),
        {picture.claim.id: picture.drawing for picture in pictures if picture.drawing},
        tuple(
            f"The figure of {picture.claim.id} could not be drawn: {picture.error}."
            for picture in pictures
            if picture.error
        ),
        interrupted,
        started,
        time.perf_counter() - clock,
    )


def _in_depth(claim: Claim, settings: VerifySettings) -> Claim:
    """Data sets that are named are all taken."""
    if settings.full:
        return claim.full()
    return claim.short() if settings.data is None else claim


def _is_of(figure: Task, task: Task, claims: Mapping[str, Claim]) -> bool:
    """Whether a figure shows what a task of its claim computes: of a claim about no data set, on whichever it is."""
    return figure.dataset == task.dataset or claims[task.claim].check is None


def _is_checked(claim: Claim, name: str) -> bool:
    if name == NO_DATASET:
        return True
    return claim.check is not None and (claim.datasets is None or name in claim.datasets)


def _units(
    checks: Sequence[Task], figures: Sequence[Task], claims: Mapping[str, Claim], datasets: Mapping[str, Dataset]
) -> list[list[Task]]:
    """Tasks that belong in one process: claims on data of one width for which the same code is compiled, each with its
    figure.
    """
    units: dict[tuple[str, int], list[Task]] = {}
    left = list(figures)
    for task in checks:
        together = claims[task.claim].together
        width = 1 if task.dataset == NO_DATASET else datasets[task.dataset].rows.shape[1]
        key = (together, 0) if together else (task.claim[0], width)
        pictures = [figure for figure in left if figure.claim == task.claim and _is_of(figure, task, claims)]
        left = [figure for figure in left if figure not in pictures]
        units.setdefault(key, []).extend([task, *pictures])
    # k-means before everything else, then what takes longest, so that no process is left with it at the end.
    ordered = sorted(units.values(), key=lambda unit: (unit[0].claim[0] != next(iter(GROUPS)), -sum(map(cost, unit))))
    return [*ordered, *([figure] for figure in left)]
