"""What a claim is, and what checking it on one data set returns."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from probem.checking.report import Check as Check

#: Where the data set is named: what a claim says of none.
NO_DATASET = "by itself"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set: its name and its rows, ``[N, D]`` in float64 (standardised where its loader says so)."""

    name: str
    rows: np.ndarray
    description: str
    columns: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A numbered claim of the theory, in words and as a formula, and how it is checked.

    ``check(dataset, seed)`` yields one or more ``Check``; ``datasets`` restricts a claim to the sets named (None:
    every set of the configuration), and ``short_datasets`` to those of a run that has minutes (None: the same sets).
    ``by_itself(seed)`` yields the checks that are about no data set, so that they are made, and counted, once;
    ``full_by_itself`` yields longer ladders of them, for a run that has more (None: the same checks). Claims
    with the same ``together`` (those of one letter, where it is empty) compile the same programs and are best checked
    in one process.
    ``figure(dataset, seed)``, where there is one, returns a matplotlib Figure, and ``scene(seed)`` what a reader steps
    through beside it, as plain values.
    """

    id: str
    title: str
    statement: str
    formula: str
    source: str
    check: Callable[[Dataset, int], Iterator[Check]] | None
    datasets: tuple[str, ...] | None = None
    figure: Callable[[Dataset, int], object] | None = None
    figure_dataset: str | None = None
    figure_caption: str = ""
    together: str = ""
    by_itself: Callable[[int], Iterator[Check]] | None = None
    short_datasets: tuple[str, ...] | None = None
    full_by_itself: Callable[[int], Iterator[Check]] | None = None
    scene: Callable[[int], Mapping[str, Any]] | None = None

    def short(self) -> "Claim":
        """The claim as a run of minutes checks it, on fewer data sets."""
        return dataclasses.replace(self, datasets=self.short_datasets or self.datasets)

    def full(self) -> "Claim":
        """The claim as a run that has more than minutes checks it, with longer ladders."""
        return dataclasses.replace(self, by_itself=self.full_by_itself or self.by_itself)
