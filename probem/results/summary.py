"""A fit as a table: how it ended, F, and a line for every entry of its parameters."""

import dataclasses
import html
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpyro.distributions import constraints

from probem.errors import InputError
from probem.plan.plan import Plan
from probem.results.intervals import Width, width
from probem.results.record import FitRecord
from probem.runs.text_table import text_table
from probem.solver.result import Result

# How many lines are shown by str, and in a notebook.
_SHOWN, _SHOWN_IN_NOTEBOOK = 200, 40
# The expected numbers of rows of more components than this are not listed.
_LISTED = 12


class Entry(NamedTuple):
    """An entry of a parameter; NaN for what is not defined, or was not asked for.

    Attributes
    ----------
    site : the name of the parameter
    index : its place in it
    estimate : the value in ``fit.params``
    standard_error : of a point, by the observed information
    sd : the standard deviation of q, of a full posterior
    lower, upper : the ends of the interval in which q has the probability ``level``, its tails being equal
    note : ``"fixed"``, or ``"on an edge"`` of its constraint
    """

    site: str
    index: tuple[int, ...]
    estimate: float
    standard_error: float
    sd: float
    lower: float
    upper: float
    note: str


@dataclasses.dataclass(frozen=True, eq=False)
class Summary:
    """A fit as a table; ``str`` of it has the first 200 lines.

    Attributes
    ----------
    fit : the fit
    level : the probability of the intervals
    standard_errors : of points, by site, where they were asked for
    widths : standard deviations and intervals of q, by site with a full posterior
    """

    fit: FitRecord
    level: float
    standard_errors: Mapping[str, Float[np.ndarray, "..."]]
    widths: Mapping[str, Width]

    @property
    def head(self) -> tuple[str, ...]:
        """How the fit ended, F, and the expected number of rows of each component, in sentences."""
        fit = self.fit
        ended = "RUNNING" if fit.result is None else fit.result.name
        said = "" if fit.result in (None, Result.CONVERGED) else f" ({fit.result.value})"
        steps = "1 step" if fit.num_steps == 1 else f"{fit.num_steps} steps"
        bound = f"F = {fit.elbo:.6f} nats, total over rows of weight {fit.total_weight:g}"
        lines = [f"{ended}{said} after {steps}; {bound}"]
        if len(fit.counts) <= _LISTED:
            lines.append(f"expected rows by component: {', '.join(f'{count:.1f}' for count in fit.counts)}")
        if fit.twins:
            pairs = ", ".join(f"{first} and {second}" for first, second in fit.twins)
            lines.append(f"components that have become equal: {pairs}")
        return tuple(lines)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """A line for every entry; of symmetric matrices those on and below the diagonal."""
        return tuple(self._entries())

    def _entries(self) -> Iterator[Entry]:
        for site, value in self.fit.params.items():
            estimate = np.asarray(value, float)
            nothing = np.full(estimate.shape, np.nan)
            fixed = _fixed(self.fit.plan, site, estimate.shape)
            edge = np.broadcast_to(np.asarray(self.fit.at_boundary.get(site, False), bool), estimate.shape)
            errors = np.where(fixed, np.nan, self.standard_errors.get(site, nothing))
            of_q = self.widths.get(site, Width(nothing, nothing, nothing))
            for index in _places(self.fit.plan, site, estimate.shape):
                yield Entry(
                    site,
                    index,
                    estimate=float(estimate[index]),
                    standard_error=float(errors[index]),
                    sd=float(of_q.sd[index]),
                    lower=float(of_q.lower[index]),
                    upper=float(of_q.upper[index]),
                    note="fixed" if fixed[index] else "on an edge" if edge[index] else "",
                )

    @property
    def _columns(self) -> list[tuple[str, str]]:
        """The attributes of an entry that are columns, and what these are called."""
        tail = 50.0 * (1.0 - self.level)
        columns = [("estimate", "estimate")]
        if self.standard_errors:
            columns.append(("standard_error", "std. error"))
        if self.widths:
            columns += [("sd", "sd"), ("lower", f"{tail:g}%"), ("upper", f"{100.0 - tail:g}%")]
        return columns

    def _table(self, shown: int) -> tuple[list[list[str]], int]:
        """Header and lines, as many as are shown, and how many are left out."""
        every = self._entries()
        entries = list(itertools.islice(every, shown))
        left = sum(1 for _ in every)
        columns, notes = self._columns, any(entry.note for entry in entries)
        rows = [["site", "index", *(title for _, title in columns), *(["note"] if notes else [])]]
        for entry in entries:
            index = ", ".join(map(str, entry.index))
            numbers = [_number(getattr(entry, name)) for name, _ in columns]
            rows.append([entry.site, index, *numbers, *([entry.note] if notes else [])])
        return rows, left

    def __str__(self) -> str:
        rows, left = self._table(_SHOWN)
        sides = "<<" + ">" * len(self._columns) + "<" * (len(rows[0]) - 2 - len(self._columns))
        more = [f"... and {left} more lines, in summary.entries"] if left else []
        return "\n".join([*self.head, "", text_table(rows, sides), *more])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows, left = self._table(_SHOWN_IN_NOTEBOOK)
        right = range(2, 2 + len(self._columns))

        def line(cells: list[str], tag: str) -> str:
            sides = ["right" if number in right else "left" for number in range(len(cells))]
            return "".join(
                f'<{tag} style="text-align:{side}">{html.escape(cell)}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )

        head = "<br>".join(map(html.escape, self.head))
        body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows[1:])
        more = f"<p>... and {left} more lines, in <code>summary.entries</code></p>" if left else ""
        return (
            f"<div><p>{head}</p><table><thead><tr>{line(rows[0], 'th')}</tr></thead>"
            f"<tbody>{body}</tbody></table>{more}</div>"
        )


def summarised(
    fit: FitRecord, level: float, posterior: Mapping[str, Any], standard_errors: Mapping[str, Float[np.ndarray, "..."]]
) -> Summary:
    """The table of a fit with these marginals of q, and these standard errors of points.

    Raises
    ------
    InputError
        For a level that is no probability between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"level={level!r}", "a probability between 0 and 1", "write 0.95 for 95%")
    widths = {name: width(q, level, np.shape(fit.params[name])) for name, q in posterior.items()}
    return Summary(fit, level, standard_errors, {name: each for name, each in widths.items() if each})


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.5g}"


def _fixed(plan: Plan | None, site: str, shape: tuple[int, ...]) -> Bool[np.ndarray, "*shape"]:
    """Which entries were held where they are."""
    masks = {} if plan is None else dict(plan.fixed)
    return np.frombuffer(masks[site], bool).reshape(shape) if site in masks else np.zeros(shape, bool)


def _places(plan: Plan | None, site: str, shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The entries in their order, without those above the diagonal of symmetric matrices."""
    constraint: Any = None if plan is None else plan.program.constraints.get(site)
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    symmetric = constraint in (constraints.positive_definite, constraints.positive_semidefinite)
    return (index for index in np.ndindex(*shape) if not symmetric or index[-1] <= index[-2])
