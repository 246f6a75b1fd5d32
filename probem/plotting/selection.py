"""The figure of a selection: its criterion over what was tried."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from probem.plotting.fit import series_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Tried(NamedTuple):
    """A candidate as the figure has it: on which ``line``, at which place ``across``, and its criterion, NaN where its
    fit did not converge.
    """

    line: str
    across: int | float | str
    criterion: float
    is_best: bool


def selection_figure(tried: Sequence[Tried], across: str, criterion: str, lines: str) -> "Figure":
    """The criterion over what was tried, a line for each value of the other settings; the best is ringed.

    Fits that did not converge are crosses at the foot: where they ended says nothing. ``across``, ``criterion`` and
    ``lines`` are the labels of the axes and of the legend; places that are texts stand in their order.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    ticks = list(dict.fromkeys(trial.across for trial in tried if isinstance(trial.across, str)))
    places = [float(ticks.index(trial.across)) if isinstance(trial.across, str) else trial.across for trial in tried]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(trial.line for trial in tried))
    for name, colour in zip(names, series_colours(len(names)), strict=True):
        points = sorted(
            (place, trial.criterion) for place, trial in zip(places, tried, strict=True) if trial.line == name
        )
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=colour, label=name)
        failed = [place for place, value in points if math.isnan(value)]
        foot = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "x", color=colour, transform=foot, clip_on=False)
    for place, trial in zip(places, tried, strict=True):
        if trial.is_best:
            ring = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black", "linestyle": ""}
            axes.plot([place], [trial.criterion], marker="o", label=f"best: {trial.criterion:.1f} nats", **ring)
    if any(math.isnan(trial.criterion) for trial in tried):
        axes.plot([], [], "x", color="black", label="did not converge")
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks)
    elif all(isinstance(trial.across, int) for trial in tried):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=across, ylabel=criterion)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, title=lines or None)
    return figure
