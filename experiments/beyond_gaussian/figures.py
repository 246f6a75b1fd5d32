"""The pictures of the claims F."""

from typing import TYPE_CHECKING

import numpy as np

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.plotting.fit import SERIES

from .bregman import COMPONENTS, hard_em, rows_of, start_of
from .closed_forms import ONCE, pose
from .divergences import DIVERGENCES, cluster
from .relatives import LEVELS, MEDIANS, MODES, SPHERICAL
from .relatives import start_of as start_of_relative

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def distances(dataset: Dataset, seed: int) -> "Figure":
    """F1: what each density calls far, and F against the sum of these distances."""
    figure = _figure(8.2, 3.4)
    left, right = figure.subplots(1, 2)
    places, mean = np.linspace(0.05, 7, 300), 2.0
    left.plot(places, (places - mean) ** 2 / 2, color=FAINT, label="normal: squares")
    for kind, colour, style in (("Poisson", SERIES[0], "-"), ("exponential", SERIES[1], "--")):
        divergence = DIVERGENCES[kind]
        values = divergence.of(places, np.full_like(places, mean))
        left.plot(places, values, style, color=colour, label=f"{kind}: {divergence.name}")
    left.set(xlabel=f"x; the centre is at {mean:g}", ylabel="d(x, 2), nats", ylim=(0, 4))
    left.legend(fontsize=8)
    for (kind, divergence), colour, marker in zip(DIVERGENCES.items(), SERIES, MARKERS, strict=False):
        rows = rows_of(dataset, kind)
        start = start_of(rows, np.random.default_rng(seed))
        constant = float(divergence.log_rest(rows).sum()) - len(rows) * np.log(COMPONENTS)
        costs = np.array([iteration.cost for iteration in cluster(rows, start, divergence)])
        _, bounds = hard_em(rows, kind, start)
        right.plot(costs[-1] - costs, color=colour, linewidth=1, label=f"{kind}: −Σ d, by a plain loop")
        right.plot(
            bounds - constant + costs[-1],
            marker,
            color=colour,
            markersize=5,
            fillstyle="none",
            label="F, by the engine",
        )
    right.set(xlabel="iteration", ylabel="nats below the last")
    right.legend(fontsize=8)
    return figure


def profiles(dataset: Dataset, seed: int) -> "Figure":
    """F2: the sum that the M-step maximises, site by site, along a random line through the closed form."""
    del dataset
    posed = pose(seed, ONCE)
    direction = np.random.default_rng(seed).standard_normal(len(posed.ours))
    steps = np.linspace(-0.5, 0.5, 31)
    terms = [posed.terms(posed.ours + step * direction) for step in steps]
    best = posed.terms(posed.ours)
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    for each, colour, marker in zip(ONCE, (*SERIES, FAINT), MARKERS, strict=True):
        values = np.array([term[each.name] for term in terms]) - best[each.name]
        axes.plot(
            steps, values, color=colour, marker=marker, markersize=3.5, markevery=5, label=each.name.split(", ")[0]
        )
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(
        xlabel="way from the closed form, along a random line", ylabel="Σ q log p(x | t), nats below", ylim=(-12, 0.7)
    )
    axes.legend(fontsize=8, ncols=2, loc="lower center")
    return figure


def three_relatives(dataset: Dataset, seed: int) -> "Figure":
    """F3: what is clustered, and the centres."""
    figure = _figure(9.0, 3.2)
    for axes, relative in zip(figure.subplots(1, 3), (SPHERICAL, MODES, MEDIANS), strict=True):
        rows = relative.rows(dataset)
        centres = relative.cluster(rows, start_of_relative(relative, rows, seed))[-1]
        labels = relative.table(rows, centres).argmin(axis=1)
        if relative is MODES:
            _bubbles(axes, rows, labels)
        else:
            for index in range(len(centres)):
                axes.plot(*rows[labels == index].T, MARKERS[index], color=SERIES[index], markersize=2.5, alpha=0.7)
        for index, centre in enumerate(centres):
            style = {"color": SERIES[index], "markersize": 10, "markeredgecolor": INK, "markeredgewidth": 0.9}
            axes.plot(*centre, MARKERS[index], **style)
        axes.set_title(relative.name)
        axes.set_xlabel(dataset.columns[0])
    figure.axes[0].set_ylabel(dataset.columns[1])
    figure.axes[0].set_aspect("equal")
    return figure


def _bubbles(axes: "Axes", rows: np.ndarray, labels: np.ndarray) -> None:
    """Levels have no places between them: a circle as large as the number of rows."""
    for place in np.ndindex(LEVELS, LEVELS):
        here = (rows == place).all(axis=1)
        if here.any():
            label = int(np.bincount(labels[here]).argmax())
            axes.plot(*place, "o", color=SERIES[label], markersize=2.2 * np.sqrt(here.sum()), alpha=0.5)
    axes.set(xlim=(-0.7, LEVELS - 0.3), ylim=(-0.7, LEVELS - 0.3), xticks=range(LEVELS), yticks=range(LEVELS))
