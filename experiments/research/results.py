"""The results of a sweep: a row for every cell and seed, and tables of them."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probem.errors import InputError, nearest
from probem.runs.text_table import text_table

from .cells import paths
from .log import Row
from .settings import Experiment

if TYPE_CHECKING:
    import polars

# Lines of a table in a notebook.
_SHOWN = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """A measure over the rows that share the values of some axes: how many there are, mean, and half of an interval.

    The interval is mean ± half, that of 95 % of Student's t for the mean of independent rows; infinite for one row.
    """

    values: tuple[Any, ...]
    count: int
    mean: float
    half: float


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """What came of a sweep.

    Attributes
    ----------
    experiment : what was asked for
    lines : one for every cell and seed, cell by cell
    folder : where it was written, None if nowhere
    seconds : how long this run took
    num_resumed : how many lines an earlier run had made
    others : lines of an earlier run about cells that the experiment does not have now; kept for one that has them again
    """

    experiment: Experiment
    lines: tuple[Row, ...]
    folder: Path | None = None
    seconds: float = 0.0
    num_resumed: int = 0
    others: tuple[Row, ...] = ()

    @property
    def axes(self) -> tuple[str, ...]:
        """The paths that the grids vary."""
        return paths(self.experiment)

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of what was measured of any fit."""
        return tuple(dict.fromkeys(name for line in self.lines for name in line.values))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A mapping for every cell and seed: axes, seed, result, message, and the measures (NaN where one failed)."""
        measures = self.measures
        return [
            {
                **{path: line.axes.get(path) for path in self.axes},
                "seed": line.seed,
                "result": line.result,
                "message": line.message,
                **{name: line.values.get(name, math.nan) for name in measures},
            }
            for line in self.lines
        ]

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The columns of ``rows``."""
        rows = self.rows
        return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}

    @property
    def tidy(self) -> list[dict[str, Any]]:
        """A mapping for every measurement: key, axes, seed, result, ``measure`` and ``value``."""
        return [
            {
                "key": line.key,
                **{path: line.axes.get(path) for path in self.axes},
                "seed": line.seed,
                "result": line.result,
                "measure": name,
                "value": value,
            }
            for line in self.lines
            for name, value in (line.values.items() if line.values else [(None, None)])
        ]

    def to_polars(self, tidy: bool = True) -> "polars.DataFrame":
        """The measurements one a row, or with ``tidy=False`` the measures in columns."""
        import polars

        rows = self.tidy if tidy else self.rows
        names = list(rows[0]) if rows else []
        # An axis may hold numbers and names.
        columns = {name: _one_type([row[name] for row in rows]) for name in names}
        return polars.DataFrame(columns, strict=False)

    @property
    def unconverged(self) -> list[Row]:
        """The lines of fits that ended in anything but convergence, or not at all."""
        return [line for line in self.lines if line.result != "CONVERGED"]

    @property
    def unmeasured(self) -> list[Row]:
        """The lines of fits that converged, of which a measure failed."""
        return [line for line in self.lines if line.result == "CONVERGED" and line.message]

    def summaries(self, measure: str, by: Sequence[str]) -> list[Summary]:
        """Mean and interval of a measure over rows with the same values of some axes; those without it are left out."""
        groups: dict[tuple[Any, ...], list[float]] = {}
        for line in self.lines:
            values = tuple(line.seed if path == "seed" else line.axes.get(path) for path in by)
            number = line.values.get(measure, math.nan)
            if math.isfinite(number):
                groups.setdefault(values, []).append(number)
        return [Summary(values, len(numbers), *_interval(numbers)) for values, numbers in groups.items()]

    def differences(self, against: Mapping[str, Any]) -> "Results":
        """Measures less those of the row with the same seed whose axes ``against`` have these values, the others being
        equal: pairs that share what the seed draws, so that its influence is in none of the intervals.

        Parameters
        ----------
        against : values of axes, as they stand in the table: ``{"families": "EM"}``

        Returns
        -------
        Results : rows that have a partner, without the partners; a measure that one of the two lacks is left out

        Raises
        ------
        InputError
            For axes that there are not, values that no row has, and where no row has a partner.
        """
        for path, value in against.items():
            values = list(dict.fromkeys(line.axes[path] for line in self.lines)) if path in self.axes else []
            if not values:
                raise InputError(f"{path!r}", f"one of {', '.join(self.axes)}", nearest(path, self.axes))
            if value not in values:
                known = [_text(each) for each in values]
                raise InputError(f"{value!r} of {path}", f"one of {', '.join(known)}", nearest(_text(value), known))

        def pair(line: Row) -> tuple[Any, ...]:
            return (line.seed, *(value for path, value in line.axes.items() if path not in against))

        def is_partner(line: Row) -> bool:
            return all(line.axes[path] == value for path, value in against.items())

        partners = {pair(line): line for line in self.lines if is_partner(line)}
        lines = [
            dataclasses.replace(
                line,
                # A pair has converged if both have.
                result=partners[pair(line)].result if line.result == "CONVERGED" else line.result,
                values={
                    name: value - partners[pair(line)].values[name]
                    for name, value in line.values.items()
                    if name in partners[pair(line)].values
                },
            )
            for line in self.lines
            if not is_partner(line) and pair(line) in partners
        ]
        if not lines:
            said = ", ".join(f"{path} {_text(value)}" for path, value in against.items())
            raise InputError(f"no row beside those of {said}", "rows that differ from them in this alone", "add values")
        return dataclasses.replace(self, lines=tuple(lines), others=())

    def table(self) -> list[list[str]]:
        """Mean ± half of the interval of every measure for every cell, with headings; and how many fits converged, if
        not all did.
        """
        shown = self.measures
        cells: dict[tuple[Any, ...], list[bool]] = {}
        for line in self.lines:
            cells.setdefault(tuple(line.axes.get(path) for path in self.axes), []).append(line.result == "CONVERGED")
        by_measure = {name: {summary.values: summary for summary in self.summaries(name, self.axes)} for name in shown}
        counts = ["converged fits"] if self.unconverged else []
        lines = [[*(path.partition(".")[2] or path for path in self.axes), *counts, *shown]]
        for values, ended in cells.items():
            numbers = [by_measure[name].get(values) for name in shown]
            count = [f"{sum(ended)} of {len(ended)}"] if counts else []
            lines.append([*map(_text, values), *count, *(_number(summary) for summary in numbers)])
        return lines

    def __len__(self) -> int:
        return len(self.lines)

    def __str__(self) -> str:
        table = self.table()
        return text_table(table, "<" * len(self.axes) + ">" * (len(table[0]) - len(self.axes)))

    def _repr_html_(self) -> str:
        heading, *lines = self.table()
        more = f"<p>{len(lines) - _SHOWN} more cells: <code>.rows</code></p>" if len(lines) > _SHOWN else ""
        head = "".join(f"<th>{html.escape(word)}</th>" for word in heading)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(word)}</td>" for word in line) + "</tr>" for line in lines[:_SHOWN]
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _interval(numbers: list[float]) -> tuple[float, float]:
    """Mean, and half of the 95 % interval of Student's t."""
    from scipy.stats import t

    mean, count = float(np.mean(numbers)), len(numbers)
    if count == 1:
        return mean, math.inf
    return mean, float(t.ppf(0.975, count - 1) * np.std(numbers, ddof=1) / math.sqrt(count))


def _number(summary: Summary | None) -> str:
    if summary is None:
        return "–"
    if not math.isfinite(summary.half):
        return f"{summary.mean:.5g}"
    if summary.half < 1e-6 * max(1.0, abs(summary.mean)):
        return f"{summary.mean:.6g} ± {summary.half:.1g}"
    decimals = max(0, 1 - math.floor(math.log10(summary.half)))
    return f"{summary.mean:.{decimals}f} ± {summary.half:.{decimals}f}"


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _one_type(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if str in kinds and len(kinds) > 1:
        return [None if value is None else str(value) for value in values]
    return [float(value) if float in kinds and type(value) is int else value for value in values]
