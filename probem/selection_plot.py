"""The figure of a selection: its criterion over what was tried."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .candidates import shown
from .criteria import CRITERIA
from .plot import series_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .selected import Candidate, Selection


def selection_figure(selection: "Selection", best: "Candidate | None") -> "Figure":
    """The criterion of a selection (nats) over its first numeric setting, a line for each value of the others.

    ``best`` is ringed. Fits that did not converge are crosses at the foot: where they ended says nothing.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    table, names = selection.table, list(selection.table[0].settings)
    numeric = [name for name in names if all(_is_number(row.settings[name]) for row in table)]
    across = (numeric or names)[0]
    ticks = list(dict.fromkeys(shown(row.settings[across]) for row in table))
    lines: dict[str, list[Candidate]] = {}
    for row in table:
        others = ", ".join(shown(row.settings[name]) for name in names if name != across)
        lines.setdefault(others, []).append(row)

    def place(row: "Candidate") -> int | float:
        return row.settings[across] if numeric else ticks.index(shown(row.settings[across]))

    label, lower_is_better = CRITERIA[selection.criterion]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for (others, rows), colour in zip(lines.items(), series_colours(len(lines)), strict=True):
        rows = sorted(rows, key=place)
        values = [getattr(row, selection.criterion) if row.ended_well else np.nan for row in rows]
        axes.plot([place(row) for row in rows], values, marker="o", markersize=4, color=colour, label=others)
        failed = [place(row) for row in rows if not row.ended_well]
        foot = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "x", color=colour, transform=foot, clip_on=False)
    if best is not None:
        value = getattr(best, selection.criterion)
        ring = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black", "linestyle": ""}
        axes.plot([place(best)], [value], marker="o", label=f"best: {value:.1f} nats", **ring)
    if any(not row.ended_well for row in table):
        axes.plot([], [], "x", color="black", label="did not converge")
    if not numeric:
        axes.set_xticks(range(len(ticks)), ticks)
    elif all(isinstance(row.settings[across], int) for row in table):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=across, ylabel=f"{label} (nats, {'lower' if lower_is_better else 'higher'} is better)")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, title=", ".join(name for name in names if name != across) or None)
    return figure


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
