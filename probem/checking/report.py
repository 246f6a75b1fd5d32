"""What a check of a program reports: the two sides of every comparison, in a table or as HTML."""

import dataclasses
import html
import math
from collections.abc import Mapping
from typing import Any

from probem.checking import residuals
from probem.runs.text_table import text_table


@dataclasses.dataclass(frozen=True)
class Check:
    """Two sides of a claim, computed by different code.

    The verdict is ``residual <= tolerance``: a check that wants an inequality to be strict says by how much in
    ``compared`` and puts the shortfall in the residual. A residual that is not a number fails. A check with tolerance 0
    is exact.

    Attributes
    ----------
    claim : the number of the claim
    dataset : the data set that it is about; empty for the data that ``probem.check`` was given
    compared : which two sides
    residual : their distance, relative to what was added up on the way unless ``compared`` says otherwise. Of a
        collection the largest is kept
    tolerance : the largest residual of a claim that holds
    numbers : what a reader may want to know beside the residual, by name
    left, right : the values of both sides, where they are numbers that mean something by themselves; nats, totals over
        the rows
    half_step : the half-step that it is about, such as ``"M 3"``; empty where it is about none

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
    left: float = math.nan
    right: float = math.nan
    half_step: str = ""

    def __post_init__(self) -> None:
        residual = residuals.worst(self.residual)
        if residual < 0:
            raise ValueError(f"a residual of {residual:g} in {self.compared!r}: a distance is at least 0")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"a tolerance of {self.tolerance:g} in {self.compared!r}: it is at least 0, and finite")
        object.__setattr__(self, "residual", residual)

    @property
    def holds(self) -> bool:
        """Whether the residual is a number, and at most the tolerance."""
        return bool(self.residual <= self.tolerance)

    @property
    def nearness(self) -> float:
        """The part of the tolerance that the residual is; infinite for what is not a number."""
        if math.isnan(self.residual):
            return math.inf
        return self.residual / self.tolerance if self.tolerance > 0 else (math.inf if self.residual > 0 else 0.0)


@dataclasses.dataclass(frozen=True)
class Report:
    """The theory, compared on one program and its data; ``str`` of it is a table.

    Attributes
    ----------
    program : the name of the program
    size : N rows, K components
    rows : all comparisons
    remarks : what was not compared, and why
    fit : the fit that was checked, a ``Fit``
    """

    program: str
    size: tuple[int, int]
    rows: tuple[Check, ...]
    remarks: tuple[str, ...]
    fit: Any

    @property
    def holds(self) -> bool:
        """Whether something was compared, and every comparison holds."""
        return bool(self.rows) and not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The comparisons that do not hold."""
        return tuple(row for row in self.rows if not row.holds)

    def of(self, claim: str) -> "Report":
        """What is about one claim."""
        return dataclasses.replace(self, rows=tuple(row for row in self.rows if row.claim == claim))

    def raise_for_failure(self) -> None:
        """Nothing where something was compared, and every comparison holds.

        Raises
        ------
        AssertionError
            With the comparisons that do not hold, the worst of each kind, or with why nothing was compared.
        """
        if not self.rows:
            raise AssertionError("\n".join([self.summary, *self.remarks]))
        if self.failed:
            raise AssertionError(f"{self.summary}\n{_table(self.failed)}")

    @property
    def summary(self) -> str:
        """One sentence."""
        num_rows, components = self.size
        what = f"{self.program}, {num_rows} rows, {components} components"
        if not self.rows:
            return f"{what}: nothing was compared."
        verdict = f"{len(self.failed)} do not hold" if self.failed else "all hold"
        return f"{what}: {len(self.rows)} comparisons, {verdict}."

    def __str__(self) -> str:
        return "\n".join([_table(self.rows), "", self.summary, *(f"Not compared: {remark}" for remark in self.remarks)])

    def to_html(self) -> str:
        """The report as one HTML page that asks for nothing from outside: the worst of each kind, and all of them."""
        title = f"{html.escape(self.program)}: the bound, checked"
        remarks = "".join(f"<p>Not compared: {html.escape(remark)}</p>" for remark in self.remarks)
        every = _html_table(self.rows) if len(self.rows) > len(worst(self.rows)) else ""
        details = f"<details><summary>All {len(self.rows)} comparisons</summary>{every}</details>" if every else ""
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style>'
            f"<body><h1>{title}</h1><p>{html.escape(self.summary)}</p>{_html_table(worst(self.rows))}{remarks}"
            f"{details}</body></html>"
        )

    def _repr_html_(self) -> str:
        return f"<style>{_STYLE}</style>{_html_table(worst(self.rows))}<p>{html.escape(self.summary)}</p>"


def worst(rows: tuple[Check, ...]) -> tuple[Check, ...]:
    """Of the comparisons of one kind the one nearest to failing, in the order of the kinds."""
    kinds: dict[tuple[str, str], Check] = {}
    for row in rows:
        kind = row.claim, row.compared
        if kind not in kinds or row.nearness > kinds[kind].nearness:
            kinds[kind] = row
    return tuple(kinds.values())


_HEADER = ("claim", "compared", "half-step", "left", "right", "residual", "tolerance", "verdict")


def _cells(row: Check) -> tuple[str, ...]:
    sides = ("" if math.isnan(side) else f"{side:.9g}" for side in (row.left, row.right))
    verdict = "holds" if row.holds else "FAILS"
    return (row.claim, row.compared, row.half_step, *sides, f"{row.residual:.1e}", f"{row.tolerance:.0e}", verdict)


def _table(rows: tuple[Check, ...]) -> str:
    return text_table([_HEADER, *map(_cells, worst(rows))], "<<<>>>><")


def _html_table(rows: tuple[Check, ...]) -> str:
    def line(cells: tuple[str, ...], tag: str, kind: str) -> str:
        return f"<tr{kind}>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(_cells(row), "td", "" if row.holds else ' class="fails"') for row in rows)
    return f'<div class="probem"><table><thead>{line(_HEADER, "th", "")}</thead><tbody>{body}</tbody></table></div>'


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
    ".probem{overflow-x:auto}.probem table{border-collapse:collapse;font-size:.875rem}"
    ".probem th,.probem td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #8884}"
    ".probem td:nth-child(n+4){font-variant-numeric:tabular-nums;white-space:nowrap}"
    ".probem .fails{font-weight:bold;background:#c004}"
)
