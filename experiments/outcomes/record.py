"""What a verification is asked for, and what it found."""

import dataclasses
from datetime import datetime
from typing import Annotated

import pydantic

from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.datasets import DATASETS
from probem.experiments.claims.drawing import Drawing
from probem.runs.config import StrictModel, one_of

from .all_claims import NAMES


class VerifySettings(StrictModel):
    """What to check: claims (a letter stands for its group), data sets (None: all, of which a run that is not ``full``
    takes those that each claim names for it), and the seed of all that is drawn.
    """

    claims: Annotated[list[Annotated[str, one_of(NAMES)]], pydantic.Field(min_length=1)]
    data: Annotated[list[Annotated[str, one_of(DATASETS)]], pydantic.Field(min_length=1)] | None = None
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)]
    full: bool = False
    output: str | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """One claim to check on one data set, or its figure to draw there."""

    claim: str
    dataset: str
    is_figure: bool = False

    def __str__(self) -> str:
        if self.is_figure:
            return f"drawing {self.claim}"
        return f"{self.claim} {self.dataset}" if self.dataset == NO_DATASET else f"{self.claim} on {self.dataset}"


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
class Picture:
    """The figure of a claim, or why there is none."""

    claim: Claim
    drawing: Drawing | None
    error: str | None = None


Result = Outcome | Picture


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
