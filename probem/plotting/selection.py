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

    ticks = list(dict.fromkeys(one.across for one in tried if isinstance(one.across, str)))
    places = [float(ticks.index(one.across)) if isinstance(one.across, str) else one.across for one in tried]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(one.line for one in tried))
    for name, colour in zip(names, series_colours(len(names)), strict=True):
        own = sorted((place, one.criterion) for place, one in zip(places, tried, strict=True) if one.line == name)
        axes.plot(*zip(*own, strict=True), marker="o", markersize=4, color=colour, label=name)
        failed = [place for place, value in own if math.isnan(value)]
        foot = axes.get_xaxis_transform()
        axes.plot(failed, [0.02] * len(failed), "x", color=colour, transform=foot, clip_on=False)
    for place, one in zip(places, tried, strict=True):
        if one.is_best:
            ring = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black", "linestyle": ""}
            axes.plot([place], [one.criterion], marker="o", label=f"best: {one.criterion:.1f} nats", **ring)
    if any(math.isnan(one.criterion) for one in tried):
        axes.plot([], [], "x", color="black", label="did not converge")
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks)
    elif all(isinstance(one.across, int) for one in tried):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=across, ylabel=criterion)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, title=lines or None)
    return figure
