"""What a claim is, and what checking it on one data set returns."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set: its name and its rows, ``[N, D]`` in float64 (standardised where its loader says so)."""

    name: str
    rows: np.ndarray
    description: str
    columns: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Check:
    """Two sides of a claim, computed independently on one data set.

    The verdict is ``residual <= tolerance``: a check that wants an inequality to be strict says by how much in
    ``compared`` and puts the shortfall in the residual. A residual that is not a number fails.
    """

    claim: str
    dataset: str
    compared: str
    residual: float | int
    tolerance: float | int
    numbers: Mapping[str, float | int | str] = dataclasses.field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return bool(self.residual <= self.tolerance)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A numbered claim of the theory, in words and as a formula, and how it is checked.

    ``check(dataset, seed)`` yields one or more ``Check``; ``datasets`` restricts a claim to the sets named (None:
    every set of the configuration). Claims with the same
    ``together`` (those of one letter, where it is empty) compile the same programs and are best checked in one process.
    ``figure(dataset, seed)``, where there is one, returns a matplotlib Figure.
    """

    id: str
    title: str
    statement: str
    formula: str
    source: str
    check: Callable[[Dataset, int], Iterator[Check]]
    datasets: tuple[str, ...] | None = None
    figure: Callable[[Dataset, int], object] | None = None
    figure_dataset: str | None = None
    figure_caption: str = ""
    together: str = ""
