"""Checks the claims on the data sets, and writes what came of it into one folder."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import jax
import pydantic

from probem.config import Settings, one_of
from probem.errors import InputError
from probem.folders import dated, whole_folder

from . import bound, kmeans
from .claim import Check, Claim, Dataset
from .datasets import DATASETS, load
from .drawing import Drawing, draw

CLAIMS: tuple[Claim, ...] = (*bound.CLAIMS, *kmeans.CLAIMS)
GROUPS = tuple(dict.fromkeys(claim.id[0] for claim in CLAIMS))
NAMES = (*GROUPS, *(claim.id for claim in CLAIMS))


class VerifySettings(Settings):
    """What to check: claims (a letter stands for its group), data sets, and the seed of all that is drawn."""

    claims: Annotated[list[Annotated[str, one_of(NAMES)]], pydantic.Field(min_length=1)]
    data: Annotated[list[Annotated[str, one_of(DATASETS)]], pydantic.Field(min_length=1)]
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)]
    output: str | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One claim on one data set: its checks, and what was raised if it did not come to an end."""

    claim: Claim
    dataset: str
    checks: tuple[Check, ...]
    seconds: float
    error: str | None = None

    @property
    def holds(self) -> bool:
        return self.error is None and all(check.holds for check in self.checks)


@dataclasses.dataclass(frozen=True)
class Verification:
    """All that a run found; ``drawings`` go by claim, ``remarks`` say what could not be drawn."""

    settings: VerifySettings
    claims: tuple[Claim, ...]
    datasets: tuple[Dataset, ...]
    outcomes: tuple[Outcome, ...]
    drawings: dict[str, Drawing]
    remarks: tuple[str, ...]
    interrupted: bool
    started: datetime
    seconds: float

    @property
    def checks(self) -> tuple[Check, ...]:
        return tuple(check for outcome in self.outcomes for check in outcome.checks)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if not outcome.holds)


@dataclasses.dataclass(frozen=True)
class Step:
    """Where the run stands: about to check ``what``, or just done with ``outcome``."""

    done: int
    total: int
    what: str
    outcome: Outcome | None = None


def main(settings: VerifySettings, progress: Callable[[Step], None] = lambda step: None) -> tuple[Verification, Path]:
    """Run the claims and write the run folder; returns what was found and where it was written.

    Ctrl-C ends the run after the check in hand: what was done until then is written all the same.

    Raises
    ------
    InputError : no chosen claim is checked on a chosen data set, or the folder cannot be written
    """
    from .report import write

    jax.config.update("jax_enable_x64", True)
    with whole_folder(destination := Path(settings.output) if settings.output else dated("verify")) as folder:
        verification = run(CLAIMS, settings, progress)
        write(verification, folder)
    return verification, destination


def run(claims: Sequence[Claim], settings: VerifySettings, progress: Callable[[Step], None]) -> Verification:
    """Check those of ``claims`` that the settings choose."""
    started, clock = datetime.now().astimezone(), time.perf_counter()
    chosen = tuple(claim for claim in claims if {claim.id, claim.id[0]} & set(settings.claims))
    datasets = {name: load(name) for name in dict.fromkeys(settings.data)}
    pairs = [(claim, name) for claim in chosen for name in datasets if claim.datasets is None or name in claim.datasets]
    if not pairs:
        needed = ", ".join(dict.fromkeys(name for claim in chosen for name in claim.datasets or ()))
        raise InputError(
            f"the claims {', '.join(settings.claims)} with the data {', '.join(settings.data)}",
            f"data on which they are checked ({needed})",
            "name it with --data",
        )
    drawn = [claim for claim in chosen if claim.figure]
    total = len(pairs) + len(drawn)
    outcomes: list[Outcome] = []
    drawings: dict[str, Drawing] = {}
    remarks: list[str] = []
    with _interruption() as interrupted:
        for claim, name in pairs:
            if interrupted():
                break
            progress(Step(len(outcomes), total, f"{claim.id} on {name}"))
            outcome = _check(claim, datasets[name], settings.seed, interrupted)
            # What an interrupted check says is not to be relied on: a fit inside it may have been cut short.
            if not interrupted():
                outcomes.append(outcome)
                progress(Step(len(outcomes), total, f"{claim.id} on {name}", outcome))
        for number, claim in enumerate(drawn):
            if interrupted():
                break
            progress(Step(len(pairs) + number, total, f"drawing {claim.id}"))
            try:
                drawings[claim.id] = _draw(claim, datasets, settings.seed)
            except KeyboardInterrupt:
                break
            except Exception as error:
                remarks.append(f"The figure of {claim.id} could not be drawn: {_sentence(error)}.")
        stopped = interrupted()
    seconds = time.perf_counter() - clock
    return Verification(
        settings, chosen, tuple(datasets.values()), tuple(outcomes), drawings, tuple(remarks), stopped, started, seconds
    )


def _check(claim: Claim, dataset: Dataset, seed: int, interrupted: Callable[[], bool]) -> Outcome:
    clock = time.perf_counter()
    checks: list[Check] = []
    error = None
    try:
        for check in claim.check(dataset, seed):
            if interrupted():
                break
            checks.append(check)
        if not checks:
            error = "nothing was compared"
    except KeyboardInterrupt:
        pass
    except Exception as raised:
        error = _sentence(raised)
    return Outcome(claim, dataset.name, tuple(checks), time.perf_counter() - clock, error)


def _draw(claim: Claim, datasets: dict[str, Dataset], seed: int) -> Drawing:
    figure = claim.figure
    if figure is None:
        raise ValueError(f"{claim.id} has no figure")
    name = claim.figure_dataset or next(iter(datasets))
    dataset = datasets[name] if name in datasets else load(name)
    return draw(lambda: figure(dataset, seed), prefix=claim.id)


def _sentence(error: Exception) -> str:
    """What was raised, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed inside the block, even where a fit caught it to return its best state."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def remember(number: int, frame: FrameType | None) -> None:
        pressed.set()
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGINT, remember)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, earlier)
