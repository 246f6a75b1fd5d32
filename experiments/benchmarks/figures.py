"""Two figures: how the cost of an iteration grows, and the ratio and the share of every case."""

from typing import TYPE_CHECKING

from probem.experiments.claims.drawing import FAINT, INK
from probem.plotting.fit import SERIES

from .benchmark import Benchmark
from .timing import PROBEM

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_AXES = ("rows N", "columns D", "components K")


def _plain(axis: "Axis") -> None:
    """Numbers as 0.5, 1, 2 on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def growth(benchmark: Benchmark) -> "Figure":
    """Above the time of an iteration, below the ratio, against N, D and K; a colour for each base."""
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(10.5, 6.0), layout="constrained")
    panels = figure.subplots(2, 3, sharex="col", sharey="row")
    for (base, axes), colour in zip(benchmark.growth.items(), SERIES, strict=False):
        for (above, below), points in zip(panels.T, axes, strict=True):
            values = [value for value, _ in points]
            times, peers = (
                [1e3 * point.medians[side or point.fastest] for _, point in points] for side in (PROBEM, "")
            )
            above.plot(values, times, "o-", color=colour, markersize=4, label=base)
            above.plot(values, peers, "s--", color=colour, markersize=4, fillstyle="none", label="its fastest peer")
            below.plot(values, [point.ratio for _, point in points], "o-", color=colour, markersize=4, label=base)
    for (above, below), label in zip(panels.T, _AXES, strict=True):
        below.axhline(1.0, color=FAINT, linewidth=1, zorder=0)
        below.set_xlabel(label)
        for panel in (above, below):
            panel.set_xscale("log", base=2)
            panel.set_yscale("log")
            _plain(panel.yaxis)
    panels[0, 0].set_ylabel("one iteration (ms)")
    panels[1, 0].set_ylabel("fastest peer / probem")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def shares(benchmark: Benchmark) -> "Figure":
    """A line for every case: left the ratio of every round (a stroke) and the median (a dot), right the share.

    A line across the cases of a kind is the geometric mean of their ratios.
    """
    from matplotlib import pyplot

    names: list[str] = []
    figure = pyplot.figure(figsize=(10.5, 1.2 + 0.19 * len(benchmark.measurements)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for number, (kind, measurements) in enumerate(benchmark.kinds.items()):
        colour = SERIES[number % len(SERIES)]
        for measurement in measurements:
            place = len(names)
            names.append(measurement.case)
            left.plot(measurement.ratios, [place] * len(measurement.ratios), "|", color=FAINT, markersize=5)
            left.plot(measurement.ratio, place, "o", color=colour, markersize=4)
            if measurement.share is not None:
                right.barh(place, 100 * measurement.share, height=0.6, color=colour)
        mean = benchmark.geometric_means[kind]
        ends = (len(names) - len(measurements) - 0.4, len(names) - 0.6)
        left.plot([mean, mean], ends, color=colour, linewidth=1, label=f"{kind}: {mean:.2f}")
    left.axvline(1.0, color=INK, linewidth=0.8, zorder=0)
    left.set(xscale="log", xlabel="fastest peer / probem")
    _plain(left.xaxis)
    left.set_yticks(range(len(names)), names)
    left.margins(y=0.01)
    left.invert_yaxis()
    right.set(xlabel="share of the arithmetic bound (%)")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
