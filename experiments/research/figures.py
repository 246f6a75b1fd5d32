"""Small multiples over the axes of a grid: the mean of measures over the seeds, with its interval."""

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probem.experiments.claims.drawing import FAINT, INK
from probem.plotting.fit import SERIES

from .measures import described_as
from .results import Results
from .settings import FigureSettings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.6)), (0, (6, 2, 1, 2)))
_WIDEST = 3
# Letters that have room beside a panel.
_LETTERS = 32
# The width of a letter.
_INCHES = 0.08


def draw_figure(results: Results, settings: FigureSettings) -> "Figure":
    """A panel for each value of ``panels``; in it a line for each ``y`` and each value of ``colour`` over ``x``."""
    from matplotlib.figure import Figure

    results = results.differences(settings.against) if settings.against else results
    panels = _values(results, settings.panels)
    measures = _measures(results, settings)
    columns = 2 if len(panels) == 4 else min(len(panels), _WIDEST)
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(0.9 + 3.0 * columns, 0.7 + 2.6 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=settings.share_y, squeeze=False)
    places = list(grid.flat)
    for place, panel in zip(places, panels, strict=False):
        _panel(place, results, settings, measures, panel)
        if settings.panels is not None:
            place.set_title(f"{_short(settings.panels)} {_text(panel)}")
    for place in places[len(panels) :]:
        place.set_visible(False)
    for number in range(len(panels)):
        if number >= len(panels) - columns:
            places[number].set_xlabel(_short(settings.x))
            places[number].tick_params(labelbottom=True)
    for place in grid[:, 0]:
        said = described_as(measures[0]) if len(measures) == 1 else _unit(measures)
        said = f"difference in {said}" if settings.against else said
        place.set_ylabel("\n".join(textwrap.fill(line, _LETTERS) for line in said.splitlines()))
    handles, labels = places[0].get_legend_handles_labels()
    if len(labels) > 1:
        figure.set_figwidth(figure.get_figwidth() + 0.5 + _INCHES * max(map(len, labels)))
        figure.legend(handles, labels, loc="outside right upper", title=settings.colour and _short(settings.colour))
    return figure


def caption(results: Results, settings: FigureSettings) -> str:
    """What a figure shows, in a sentence or two."""
    results = results.differences(settings.against) if settings.against else results
    shown = {settings.x, settings.colour, settings.panels} - {None}
    others = [path for path in results.axes if path not in shown and len(_values(results, path)) > 1]
    seeds = len(results.experiment.each_seed)
    words = " and ".join(settings.y)
    over = f"the {seeds} seeds" if "seed" not in shown else "the cells"
    also = f" and over {', '.join(others)}" if others else ""
    title = f"{settings.title}. " if settings.title else ""
    partner = ", ".join(f"{path} {_text(value)}" for path, value in settings.against.items())
    paired = f", less that of {partner} with the same seed," if settings.against else ""
    return (
        f"{title}Mean of {words}{paired} over {over}{also}, with the 95 % interval of the mean,"
        f" against {settings.x}"
        + (f"; a colour and a marker for each {settings.colour}" if settings.colour else "")
        + (f"; a panel for each {settings.panels}" if settings.panels else "")
        + "."
    )


def _panel(place: "Axes", results: Results, settings: FigureSettings, measures: Sequence[str], panel: Any) -> None:
    ticks = [value for value in _values(results, settings.x) if value is not None]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in ticks)
    colours = _values(results, settings.colour)
    by = [name for name in (settings.x, settings.colour, settings.panels) if name is not None]
    for style, name in enumerate(measures):
        summaries = results.summaries(name, by)
        for number, colour in enumerate(colours):
            wanted = {settings.colour: colour, settings.panels: panel}
            points = []
            for summary in summaries:
                values = dict(zip(by, summary.values, strict=True))
                if values[settings.x] is not None and all(
                    values[key] == value for key, value in wanted.items() if key is not None
                ):
                    x = values[settings.x]
                    # Names stand side by side, so that their bars do not cover each other.
                    shift = 0.08 * (number + style * len(colours) - (len(colours) * len(measures) - 1) / 2)
                    points.append((float(x) if numeric else ticks.index(x) + shift, summary))
            points.sort(key=lambda point: point[0])
            if not points:
                continue
            hue = number if settings.colour is not None else style
            place.errorbar(
                [x for x, _ in points],
                [summary.mean for _, summary in points],
                [summary.half if math.isfinite(summary.half) else 0.0 for _, summary in points],
                color=SERIES[hue % len(SERIES)],
                marker=_MARKERS[hue % len(_MARKERS)],
                markersize=4.5,
                linestyle=_LINES[style % len(_LINES)] if numeric else "none",
                linewidth=1.4,
                elinewidth=1.0,
                markerfacecolor="none" if style % 2 and settings.colour is not None else None,
                label=_label(settings, measures, name, colour),
            )
    _references(place, results, settings, measures, panel)
    if settings.against:
        place.axhline(0.0, color=INK, linewidth=0.8)
    if not numeric:
        words = [_text(value).replace("(", "\n(") for value in ticks]
        place.set_xticks(range(len(ticks)), words)
        if max(len(line) for word in words for line in word.splitlines()) * len(ticks) > _LETTERS + 16:
            place.tick_params(axis="x", labelrotation=30)
            for text in place.get_xticklabels():
                text.set_horizontalalignment("right")
                text.set_rotation_mode("anchor")
        place.set_xlim(-0.5, len(ticks) - 0.5)
    for axis in settings.log:
        if axis == "y" or numeric:
            getattr(place, f"set_{axis}scale")("log")
    if numeric and len(ticks) <= 8 and ("x" in settings.log or all(isinstance(value, int) for value in ticks)):
        place.set_xticks([float(value) for value in ticks], [_text(value) for value in ticks])
        place.minorticks_off()
    place.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)


def _references(place: "Axes", results: Results, settings: FigureSettings, measures: Sequence[str], panel: Any) -> None:
    """A level line for the mean over every other cell, in which nothing along x varies: those of another grid."""
    others = [path for path in results.axes if path not in (settings.x, settings.colour, settings.panels)]
    by = [settings.x, *others, *([settings.panels] if settings.panels else [])]
    for name in measures:
        level = [
            summary
            for summary in results.summaries(name, by)
            if summary.values[0] is None and (settings.panels is None or summary.values[-1] == panel)
        ]
        for number, summary in enumerate(level):
            said = dict(zip(by, summary.values, strict=True))
            words = [f"{_short(path)} {_text(said[path])}" for path in others if said[path] is not None]
            label = ", ".join([*words, *([name] if len(measures) > 1 else [])])
            place.axhline(summary.mean, color=INK, linewidth=1.0, linestyle=_LINES[1 + number % 3], label=label)


def _label(settings: FigureSettings, measures: Sequence[str], name: str, colour: Any) -> str:
    if settings.colour is None:
        return name
    return _text(colour) if len(measures) == 1 else f"{_text(colour)}, {name}"


def _measures(results: Results, settings: FigureSettings) -> list[str]:
    """The measures drawn; one with parts stands for all of them."""
    names = []
    for name in settings.y:
        parts = [each for each in results.measures if each.startswith(f"{name}.")]
        names += parts or [name]
    return list(dict.fromkeys(names))


def _unit(measures: Sequence[str]) -> str:
    units = {described_as(name).partition(", ")[2] for name in measures}
    return f"{', '.join(measures)}\n{units.pop()}" if len(units) == 1 and "" not in units else ", ".join(measures)


def _values(results: Results, path: str | None) -> list[Any]:
    if path is None:
        return [None]
    values = {line.seed if path == "seed" else line.axes.get(path): None for line in results.lines}
    if len(values) > 1:
        # Cells without this axis are drawn beside it.
        values.pop(None, None)
    if all(isinstance(value, int | float) for value in values):
        return sorted(values)
    return list(values)


def _short(path: str) -> str:
    path = path.removesuffix(".name")
    return path.partition(".")[2].replace("_", " ") or path


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
