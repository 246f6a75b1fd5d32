"""What ``select`` returns: every candidate with its criteria, the best of them, a table and a figure."""

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from probem.errors import FitError
from probem.results.failures import REMEDIES
from probem.results.fit import Fit
from probem.runs.text_table import text_table
from probem.selection.candidates import shown
from probem.selection.criteria import CRITERIA, Criterion, criterion_of
from probem.solver.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A program of a ``Selection`` and how its fit went; what could not be computed is NaN.

    Each of the criteria is an attribute as well, under its name: ``bic``, ``elbo``.

    Attributes
    ----------
    settings : the values tried, by name
    num_parameters : the number of free parameters; None where the program could not be read
    log_likelihood : sum_n w_n log p(x_n | params), nats, total over the rows
    criteria : the criteria by name, nats, totals over the rows
    result, fit : how the fit ended, and the ``Fit``; None where the program or the data could not be used
    message : the sentence that says why, or that of the result, with why a criterion is NaN that raised or is no number
    """

    settings: Mapping[str, Any]
    num_parameters: int | None
    log_likelihood: float
    criteria: Mapping[str, float]
    result: Result | None
    fit: Fit | None
    message: str

    def __getattr__(self, name: str) -> float:
        # While a copy is made there are no criteria yet.
        criteria = self.__dict__.get("criteria", {})
        if name not in criteria:
            raise AttributeError(f"a candidate has no '{name}'", name=name, obj=self)
        return criteria[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self.criteria]

    @property
    def ended_well(self) -> bool:
        """Whether the fit converged: no other candidate is chosen."""
        return self.result is Result.CONVERGED


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """What ``select`` returns: a row for every candidate, and the best of them; ``str`` of it is a table.

    Attributes
    ----------
    table : the candidates in the order of ``over``, whose last name varies fastest
    criterion : what they are compared by
    interrupted : whether Ctrl-C left out the candidates after those of the table
    """

    table: tuple[Candidate, ...]
    criterion: str | Criterion
    interrupted: bool = False

    @property
    def best_candidate(self) -> Candidate:
        """The candidate with the best criterion among the fits that converged, the first of equals.

        Raises
        ------
        FitError
            If no fit converged, or none with a finite criterion; its ``fit`` is this selection.
        """
        criterion = criterion_of(self.criterion)
        sign = 1.0 if criterion.lower_is_better else -1.0
        values = {row: sign * self._value(row, criterion) for row in self.table if row.ended_well}
        values = {row: value for row, value in values.items() if math.isfinite(value)}
        if not values:
            raise FitError(_none_ended_well(self), self)
        return min(values, key=lambda row: values[row])

    @property
    def best(self) -> Fit:
        """The fit of the best candidate.

        Raises
        ------
        FitError
            If no fit converged, or none with a finite criterion; its ``fit`` is this selection.
        """
        fit = self.best_candidate.fit
        assert fit is not None
        return fit

    @property
    def best_settings(self) -> Mapping[str, Any]:
        """The values tried in the best candidate, by name.

        Raises
        ------
        FitError
            If no fit converged, or none with a finite criterion; its ``fit`` is this selection.
        """
        return self.best_candidate.settings

    def to_dict(self) -> dict[str, list[Any]]:
        """The table by columns, as the constructor of a DataFrame takes it; functions by their names."""
        chosen = self._chosen()
        # On the scale of log p(X), as the likelihood is, then on that of -2 log p(X).
        criteria = {each.name: each for each in sorted(self._criteria, key=lambda each: each.lower_is_better)}
        fields = ("num_parameters", "log_likelihood", *criteria)
        columns: dict[str, list[Any]] = {}
        for name in self.table[0].settings:
            values = [row.settings[name] for row in self.table]
            plain = all(isinstance(value, int | float | str | None) for value in values)
            # The program may have an argument of the name of a column.
            key = name if name not in (*fields, "result", "message", "best") else f"over_{name}"
            columns[key] = values if plain else [shown(value) for value in values]
        columns |= {name: [getattr(row, name) for row in self.table] for name in fields[:2]}
        columns |= {name: [self._value(row, each) for row in self.table] for name, each in criteria.items()}
        columns["result"] = [row.result.name if row.result else None for row in self.table]
        columns["message"] = [row.message for row in self.table]
        columns["best"] = [row is chosen for row in self.table]
        return columns

    def plot(self) -> "Figure":
        """A figure of the criterion over the first numeric setting, a line for each value of the others (nats).

        Fits that did not converge are crosses at the foot. Needs matplotlib (``probem[cli]``).
        """
        from probem.plotting.selection import Tried, selection_figure

        names, chosen = list(self.table[0].settings), self._chosen()
        numeric = [name for name in names if all(_is_number(row.settings[name]) for row in self.table)]
        across = (numeric or names)[0]
        others = [name for name in names if name != across]
        criterion = criterion_of(self.criterion)
        tried = [
            Tried(
                line=", ".join(shown(row.settings[name]) for name in others),
                across=row.settings[across] if numeric else shown(row.settings[across]),
                criterion=self._value(row, criterion) if row.ended_well else math.nan,
                is_best=row is chosen,
            )
            for row in self.table
        ]
        better = f"{criterion.label} (nats, {'lower' if criterion.lower_is_better else 'higher'} is better)"
        return selection_figure(tried, across, better, ", ".join(others))

    def _chosen(self) -> Candidate | None:
        try:
            return self.best_candidate
        except FitError:
            return None

    @property
    def _criteria(self) -> list[Criterion]:
        """Those that are known, and that by which was chosen."""
        chosen = criterion_of(self.criterion)
        return list({**CRITERIA, chosen.name: chosen}.values())

    @staticmethod
    def _value(row: Candidate, criterion: Criterion) -> float:
        return row.criteria.get(criterion.name, math.nan)

    def __str__(self) -> str:
        chosen, names = self._chosen(), list(self.table[0].settings)
        measured = {"log p(X)": [row.log_likelihood for row in self.table]}
        measured |= {each.label: [self._value(row, each) for row in self.table] for each in self._criteria}
        measured = {label: values for label, values in measured.items() if not all(map(math.isnan, values))}
        cells = [["", *names, "parameters", *measured, "result"]]
        for place, row in enumerate(self.table):
            settings = [shown(row.settings[name]) for name in names]
            numbers = [f"{values[place]:.2f}".replace("nan", "") for values in measured.values()]
            count = "" if row.num_parameters is None else str(row.num_parameters)
            result = row.result.name if row.result else "refused"
            cells.append(["*" if row is chosen else "", *settings, count, *numbers, result])
        table = text_table(cells, "<" * (1 + len(names)) + ">" * (1 + len(measured)) + "<")
        by = criterion_of(self.criterion)
        none = f"no fit with a finite {by.label}" if any(row.ended_well for row in self.table) else "no fit converged"
        said = [f"* {'lowest' if by.lower_is_better else 'highest'} {by.label}" if chosen else none]
        said += ["interrupted: the other candidates were not fitted"] if self.interrupted else []
        unusual = [row for row in self.table if row.result is None or row.message != row.result.value]
        reasons = [f"{_named(row.settings)}: {row.message}" for row in unusual]
        return "\n".join([table, "", "; ".join(said) + "; nats, totals over the data", *reasons])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _named(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={shown(value)}" for name, value in settings.items())


def _none_ended_well(selection: Selection) -> str:
    if ended_well := [row for row in selection.table if row.ended_well]:
        label = criterion_of(selection.criterion).label
        said = f"no finite {label} among the fits that converged ({len(ended_well)} of {len(selection.table)})"
        return f"{said}; {ended_well[0].message.removesuffix('.')}. The table is in the error's .fit."
    results = [row.result for row in selection.table if row.result is not None]
    counts = collections.Counter(results).most_common()
    said = ", ".join(f"{count} {result.name}" for result, count in counts)
    said += f", {refused} refused" if (refused := len(selection.table) - len(results)) else ""
    remedy = next((REMEDIES[result] for result, _ in counts if result in REMEDIES), "fit them again")
    which = "no candidate was fitted" if not selection.table else f"none of {len(selection.table)} candidates converged"
    return f"{which} ({said.removeprefix(', ')}); {remedy}. The table is in the error's .fit."
