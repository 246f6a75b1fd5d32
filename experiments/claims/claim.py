"""What a claim is, and what checking it on one data set returns."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

# Sums of N terms on two ways through the same densities: some hundred roundings of 2e-16 each, and room.
SAME = 1e-10
# One way, compared with itself a half-step later: rounding alone.
ROUNDING = 1e-12


def worst(*residuals: Any) -> float:
    """The largest of all residuals, each a number or an array of them; not a number if any of them is none.

    Python's ``max(0.0, nan)`` is 0.0, so that a claim would hold on residuals that were never computed: every
    comparison is reduced here, and nowhere else.

    Raises
    ------
    ValueError : there is no residual at all
    """
    values = [np.ravel(np.asarray(residual, float)) for residual in residuals]
    if not sum(residual.size for residual in values):
        raise ValueError("nothing was compared: there is no residual")
    return float(np.maximum.reduce(np.concatenate(values)))


def excess(values: Any, limit: float | int = 0.0) -> float:
    """By how much the largest value is above the limit, and 0 where none is; not a number if any value is none."""
    return float(np.maximum(worst(np.asarray(values, float) - limit), 0.0))


def relative(first: float, second: float, *terms: float) -> float:
    """The difference, relative to the largest of all that was added up on the way."""
    return abs(first - second) / worst(np.abs([first, second, *terms]))


def violations(holds: Any) -> int:
    """At how many places a comparison is false.

    What must be true is stated, not what must not: every comparison with NaN is false, and so is counted.

    Raises
    ------
    ValueError : there is no comparison at all
    TypeError : numbers where comparisons are expected
    """
    compared = np.asarray(holds)
    if not compared.size:
        raise ValueError("nothing was compared: there is no comparison to count")
    if compared.dtype != bool:
        raise TypeError(f"comparisons are true or false, not of type {compared.dtype}")
    return int((~compared).sum())


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
class Check:
    """Two sides of a claim, computed independently on one data set.

    ``residual`` is a number or a collection of them, of which the ``worst`` is kept. The verdict is
    ``residual <= tolerance``: a check that wants an inequality to be strict says by how much in ``compared`` and puts
    the shortfall in the residual. A residual that is not a number fails. A check with tolerance 0 is exact.

    Raises
    ------
    ValueError : no residual, one below 0 (a distance is none), or a tolerance that is negative or not finite
    """

    claim: str
    dataset: str
    compared: str
    residual: Any
    tolerance: float | int
    numbers: Mapping[str, float | int | str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        residual = worst(self.residual)
        if residual < 0:
            raise ValueError(f"a residual of {residual:g} in {self.compared!r}: a distance is at least 0")
        if not 0 <= self.tolerance < np.inf:
            raise ValueError(f"a tolerance of {self.tolerance:g} in {self.compared!r}: it is at least 0, and finite")
        object.__setattr__(self, "residual", residual)

    @property
    def holds(self) -> bool:
        return bool(self.residual <= self.tolerance)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A numbered claim of the theory, in words and as a formula, and how it is checked.

    ``check(dataset, seed)`` yields one or more ``Check``; ``datasets`` restricts a claim to the sets named (None:
    every set of the configuration), and ``short_datasets`` to those of a run that has minutes (None: the same sets).
    ``by_itself(seed)`` yields the checks that are about no data set, so that they are made, and counted, once;
    ``full_by_itself`` yields longer ladders of them, for a run that has half an hour (None: the same checks). Claims
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
        """The claim as a run of half an hour checks it, with longer ladders."""
        return dataclasses.replace(self, by_itself=self.full_by_itself or self.by_itself)
