"""The pictures of B1 to B10."""

import functools
from typing import TYPE_CHECKING

import numpy as np

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.claims.panels import blank, ellipse
from probem.experiments.oracles.lloyd import inertia, lloyd, means, squared_distances, starts
from probem.models import equal, gmm, shared_spherical
from probem.plotting.fit import SERIES

from .limits import (
    DROPPED,
    LOCAL_ROWS,
    TIED_ROWS,
    TIED_START,
    best_partition,
    dropped,
    first_difference,
    landscape,
    standardised,
)
from .paths import COMPONENTS, SCALES, fixed
from .steps import LECTURE
from .trajectories import hard_em, k_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _rows(axes: "Axes", rows: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> None:
    """Rows in the colour of their label, and crosses at the centres."""
    for index, centre in enumerate(centres):
        axes.plot(*rows[labels == index].T, ".", color=SERIES[index], markersize=2.4)
        axes.plot(*centre, marker="P", color=SERIES[index], markersize=8, markeredgecolor=INK, markeredgewidth=0.8)
    axes.set(xticks=[], yticks=[], aspect="equal")


def _keep_view(axes: "Axes", rows: np.ndarray) -> None:
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = 0.05 * (high - low)
    axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))


def price_of_a_point_mass(dataset: Dataset, seed: int) -> "Figure":
    """B1: -log p, with the lecture's two clusters on it."""
    del dataset, seed
    figure = blank(4.6, 2.8)
    axes = figure.subplots()
    p = np.linspace(0.05, 1, 200)
    axes.plot(p, -np.log(p), color=FAINT)
    for index, (probability, divergence) in enumerate(LECTURE):
        axes.plot([probability] * 2, [0, divergence], color=SERIES[index], linewidth=1)
        axes.plot(probability, divergence, "o", color=SERIES[index])
        words = f"cluster {index + 1}: {divergence:.3f} nats"
        axes.annotate(words, (probability, divergence), (8, 4), textcoords="offset points", color=SERIES[index])
    axes.set(
        xlabel="posterior probability p of the cluster chosen", ylabel="KL(δ ‖ p) = −log p", xlim=(0, 1), ylim=(0, 3)
    )
    return figure


def bound_and_inertia(dataset: Dataset, seed: int) -> "Figure":
    """B5: one staircase, two scales."""
    start = starts(dataset.rows, COMPONENTS[0], 2, seed)[1]
    run = k_means(dataset.rows, start)
    history = run.fit.history
    size, dimension = dataset.rows.shape
    constant = size * np.log(len(start)) + size * dimension / 2 * np.log(2 * np.pi)
    halves = []
    for iteration in run.iterations:
        averages = means(dataset.rows, iteration.labels, iteration.centres)
        halves += [inertia(dataset.rows, iteration.labels, centres) for centres in (iteration.centres, averages)]
    figure = blank(6.4, 3.2)
    axes = figure.subplots()
    axes.step(np.arange(len(history.elbo)) / 2, history.elbo, where="post", color=FAINT, linewidth=1)
    for half, colour in (("E", SERIES[0]), ("M", SERIES[1])):
        places = np.flatnonzero(history.half == half)
        axes.plot(places / 2, history.elbo[places], "o", color=colour, markersize=4, label=f"F after the {half}-step")
    from_inertia = -np.array(halves) / 2 - constant
    axes.plot(
        np.arange(len(halves)) / 2, from_inertia, "o", markersize=9, fillstyle="none", color=INK, label="from J alone"
    )
    axes.set(xlabel="iteration", ylabel="F (nats)")
    right = axes.secondary_yaxis(
        "right", functions=(lambda f: -2 * (f + constant), lambda j: -0.5 * np.asarray(j) - constant)
    )
    right.set_ylabel("inertia J")
    right.spines["right"].set_visible(True)
    axes.legend(loc="lower right")
    return figure


def side_by_side(dataset: Dataset, seed: int) -> "Figure":
    """B6: Lloyd's algorithm above, restricted EM below, at the same iterations."""
    rows = dataset.rows
    start = starts(rows, COMPONENTS[0], 2, seed)[1]
    above, below = lloyd(rows, start), k_means(rows, start).iterations
    shown = sorted({0, 1, min(3, len(above) - 1), len(above) - 1})
    figure = blank(2.5 * len(shown), 4.3)
    panels = figure.subplots(2, len(shown), squeeze=False)
    low, high = rows.min(axis=0), rows.max(axis=0)
    grid = np.meshgrid(*(np.linspace(a - 0.1 * (b - a), b + 0.1 * (b - a), 60) for a, b in zip(low, high, strict=True)))
    points = np.stack([part.ravel() for part in grid], axis=1)
    for column, number in enumerate(shown):
        upper, lower = panels[:, column]
        _rows(upper, rows, above[number].labels, above[number].centres)
        distances = squared_distances(points, above[number].centres)
        for index in range(len(start)):
            # Zero where this centre is as near as the nearest of the others.
            ahead = distances[:, index] - np.delete(distances, index, axis=1).min(axis=1)
            upper.contour(*grid, ahead.reshape(grid[0].shape), levels=[0], colors=[FAINT], linewidths=0.8)
        _rows(lower, rows, below[number].labels, below[number].centres)
        for index, centre in enumerate(below[number].centres):
            ellipse(lower, centre, np.eye(2), color=SERIES[index])
        different = int((above[number].labels != below[number].labels).sum())
        upper.set_title(f"iteration {number}" + (", the last" if number == len(above) - 1 else ""))
        lower.set_xlabel(f"{different} of {len(rows)} labels differ")
        for axes in (upper, lower):
            _keep_view(axes, rows)
    panels[0, 0].set_ylabel("Lloyd’s k-means:\nthe nearest centre, the mean")
    panels[1, 0].set_ylabel("EM: Σ = I, π = 1/K,\nq a point mass")
    return figure


def where_it_stops(dataset: Dataset, seed: int) -> "Figure":
    """B8: J over the two centres of four rows on a line, with a tie and without."""
    del dataset, seed
    figure = blank(8.4, 4.0)
    panels = figure.subplots(1, 2, sharey=True)
    places = np.linspace(-0.3, 3.8, 160)
    for axes, rows, words in (
        (panels[0], TIED_ROWS, "rows 0, 2, 3, 3: the limit is at a tie,\non a crease of J and not at a minimum"),
        (panels[1], LOCAL_ROWS, "rows 0, 2, 3¼, 3¼: the limit is a local\nminimum and not the global one"),
    ):
        heights = [[landscape(rows, np.array([[first], [second]])) for first in places] for second in places]
        levels = np.geomspace(0.7, 30, 16)
        axes.contour(places, places, heights, levels=levels, colors=[FAINT], linewidths=0.8)
        path = np.array([iteration.centres[:, 0] for iteration in k_means(rows, TIED_START).iterations])
        axes.plot(*path.T, "-", color=SERIES[0])
        axes.plot(*path[0], "o", color=SERIES[0], fillstyle="none", label="start")
        axes.plot(*path[-1], "o", color=SERIES[0], label=f"limit, J = {landscape(rows, path[-1][:, None]):.3g}")
        best, labels = best_partition(rows, 2)
        averages = means(rows, labels, np.zeros((2, 1)))[:, 0]
        axes.plot(*averages, "*", color=SERIES[1], markersize=11, label=f"best of all, J = {best:.3g}")
        axes.plot(*averages[::-1], "*", color=SERIES[1], markersize=11)
        axes.set(xlabel="first centre", title=words, aspect="equal")
        axes.legend(loc="lower left")
    panels[0].set_ylabel("second centre")
    return figure


def any_shared_variance(dataset: Dataset, seed: int) -> "Figure":
    """B9: four variances, one set of labels; the curves are one standard deviation."""
    rows = dataset.rows
    start = starts(rows, COMPONENTS[0], 2, seed)[1]
    reference = lloyd(rows, start)
    figure = blank(10.0, 3.0)
    panels = figure.subplots(1, 4)
    model = functools.partial(gmm, num_components=len(start), weights=equal)
    variances = [SCALES[0], 1.0, SCALES[1], None]
    for axes, scale in zip(panels, variances, strict=True):
        if scale is None:
            run = hard_em(
                functools.partial(model, covariance=shared_spherical), rows, {"loc": start, "scale": rows.std()}
            )
        elif scale == 1:
            run = k_means(rows, start)
        else:
            run = hard_em(functools.partial(model, covariance=fixed(scale)), rows, {"loc": start})
        number = min(3, len(run.iterations) - 1)
        iteration = run.iterations[number]
        width = float(run.params[number]["scale"]) if scale is None else scale
        _rows(axes, rows, iteration.labels, iteration.centres)
        for index, centre in enumerate(iteration.centres):
            ellipse(axes, centre, width**2 * np.eye(2), color=SERIES[index])
        _keep_view(axes, rows)
        different = sum(int((a.labels != b.labels).sum()) for a, b in zip(run.iterations, reference, strict=True))
        axes.set_title(f"σ² learned, now {width**2:.3g}" if scale is None else f"σ² = {scale**2:g}")
        axes.set_xlabel(f"{len(run.iterations)} iterations,\n{different} labels differ from Lloyd’s")
    panels[0].set_ylabel(f"iteration {number}")
    return figure


def _two_lines(words: str) -> str:
    return words.replace(" for each", "\nfor each").replace(", ", ",\n")


def each_restriction(dataset: Dataset, seed: int) -> "Figure":
    """B10: the first iteration at which labels differ; rows whose label is not Lloyd's have a ring."""
    rows = standardised(dataset)
    start = starts(rows, COMPONENTS[0], 2, seed)[1]
    reference = lloyd(rows, start)
    figure = blank(11.0, 2.9)
    for axes, name in zip(figure.subplots(1, len(DROPPED)), DROPPED, strict=True):
        run = dropped(rows, start, name)
        number = first_difference(rows, start, run)[0] or 0
        iteration, params = run.iterations[number], run.params[number]
        different = iteration.labels != reference[number].labels
        _rows(axes, rows, iteration.labels, iteration.centres)
        axes.plot(*rows[different].T, "o", color=INK, fillstyle="none", markersize=4.5, markeredgewidth=0.6)
        for index, centre in enumerate(iteration.centres):
            scale = params["scale"][index] if "scale" in params else 1.0
            covariance = params.get("covariance", scale**2 * np.eye(2))
            covariance = covariance[index] if covariance.ndim == 3 else covariance
            ellipse(axes, centre, covariance, color=SERIES[index])
        _keep_view(axes, rows)
        # A title as wide as its panel.
        weights = ", ".join(f"{weight:.2f}" for weight in params["weights"]) if "weights" in params else ""
        axes.set_title((weights and f"{name}:\n{weights}") or _two_lines(name), fontsize=9)
        axes.set_xlabel(f"iteration {number}: {int(different.sum())} of {len(rows)}\nlabels are not Lloyd’s")
    return figure
