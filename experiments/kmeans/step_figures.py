"""The pictures of B2, B3, B4 and B7: one half-step, and the number of steps."""

import itertools
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.claims.panels import MARKERS, blank
from probem.experiments.oracles.lloyd import inertia, squared_distances
from probem.plotting.fit import SERIES

from .paths import COMPONENTS, all_runs
from .steps import anywhere, both_ways, joint_and_posterior, log_joint, maximum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of every label of which all entries are drawn.
FEW = 4


def with_and_without_normaliser(dataset: Dataset, seed: int) -> "Figure":
    """B2: both tables of a few rows, the largest entry of each row filled."""
    tables = joint_and_posterior.last(dataset, seed)
    labels = tables[0].argmax(axis=1)
    few = np.concatenate([np.flatnonzero(labels == index)[:FEW] for index in range(tables[0].shape[1])])
    figure = blank(5.4, 3.8)
    panels = figure.subplots(2, 1, sharex=True)
    words = ("log p(x, t = c), nats", "log p(t = c | x), nats")
    places = np.arange(1, len(few) + 1)
    for axes, table, label in zip(panels, tables, words, strict=True):
        largest = table[few].argmax(axis=1)
        for index in range(table.shape[1]):
            style = {"marker": MARKERS[index], "color": SERIES[index], "markersize": 6}
            axes.plot(places, table[few, index], ":", linewidth=0.8, fillstyle="none", **style)
            here = largest == index
            axes.plot(places[here], table[few[here], index], linestyle="", label=f"cluster {index + 1}", **style)
        axes.set(ylabel=label)
    panels[1].set(xlabel=f"{len(few)} rows; filled: the largest of the row")
    panels[1].set_xticks(places)
    figure.legend(*panels[1].get_legend_handles_labels(), fontsize=8, loc="outside upper center", ncols=3)
    return figure


def most_probable_and_nearest(dataset: Dataset, seed: int) -> "Figure":
    """B3: labels of the E-step within the boundaries of the nearest centre, and log odds against distances."""
    rows, centres = dataset.rows, anywhere(dataset.rows, seed)[0]
    _, labels = both_ways(rows, centres)
    distances, table = squared_distances(rows, centres), log_joint(rows, centres)
    figure = blank(7.6, 3.6)
    plane, odds = figure.subplots(1, 2)
    low, high = rows.min(axis=0), rows.max(axis=0)
    edges = [np.linspace(*ends, 80) for ends in zip(low - 0.5, high + 0.5, strict=True)]
    grid = np.meshgrid(*edges)
    owners = squared_distances(np.stack([part.ravel() for part in grid], axis=1), centres)
    for index, centre in enumerate(centres):
        mine, colour, marker = labels == index, SERIES[index], MARKERS[index]
        ahead = (owners[:, index] - np.delete(owners, index, axis=1).min(axis=1)).reshape(grid[0].shape)
        plane.contour(*grid, ahead, levels=[0], colors=[INK], linewidths=0.8)
        plane.plot(*rows[mine].T, marker, color=colour, markersize=2.5)
        plane.plot(*centre, "P", color=colour, markersize=9, markeredgecolor=INK)
        nearer = (np.delete(distances, index, axis=1).min(axis=1) - distances[:, index])[mine] / 2
        likelier = (table[:, index] - np.delete(table, index, axis=1).max(axis=1))[mine]
        odds.plot(nearer, likelier, marker, color=colour, markersize=3, label=f"label {index + 1}")
    reach = odds.dataLim.x1
    odds.plot([-reach / 4, reach], [-reach / 4, reach], color=INK, linewidth=0.8, zorder=0)
    odds.axvspan(-reach / 4, 0, color=FAINT, alpha=0.22, linewidth=0)
    odds.annotate("another\ncentre\nis nearer", (-reach / 8, reach / 2), ha="center", va="center", fontsize=8)
    odds.set(xlabel="half the lead in squared distance", ylabel="log odds of the label to the next best, nats")
    odds.set_xlim(-reach / 4, 1.03 * reach)
    odds.legend(fontsize=8, loc="lower right")
    plane.set(xlabel=dataset.columns[0], ylabel=dataset.columns[1], aspect="equal")
    return figure


def mean_and_maximum(dataset: Dataset, seed: int) -> "Figure":
    """B4: F and its slope while a centre passes by the mean of its rows, by the program and by hand."""
    found = maximum.last(dataset, seed)
    reach, fine = np.linspace(-1.0, 1.0, 11), np.linspace(-1.0, 1.0, 81)
    top, _ = found.bound_and_slope(jnp.asarray(found.averages.ravel()))
    figure = blank(7.6, 3.4)
    bounds, slopes = figure.subplots(1, 2)
    for index, count in enumerate(found.counts):
        values = []
        for step in reach:
            centres = found.averages.copy()
            centres[index, 0] += step
            bound, slope = found.bound_and_slope(jnp.asarray(centres.ravel()))
            values.append((float(bound - top), float(slope.reshape(centres.shape)[index, 0])))
        style = {"color": SERIES[index], "markersize": 4}
        words = f"cluster {index + 1}, {count} rows"
        for axes, column, by_hand in ((bounds, 0, -count * fine**2 / 2), (slopes, 1, -count * fine)):
            axes.plot(fine, by_hand, color=SERIES[index], linewidth=0.9)
            axes.plot(reach, [value[column] for value in values], MARKERS[index], label=words, **style)
    for axes, words in ((bounds, "F − F at the means, nats"), (slopes, "slope of F, nats to a unit")):
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.set(xlabel="centre − mean of its rows", ylabel=words, xticks=(-1, -0.5, 0, 0.5, 1))
    slopes.legend(fontsize=8)
    return figure


def until_labels_repeat(dataset: Dataset, seed: int) -> "Figure":
    """B7: J, and the rows that changed their label, iteration by iteration, from every start."""
    figure = blank(7.6, 3.4)
    falling, moving = figure.subplots(1, 2)
    drawn = set()
    for num_components, _, run in all_runs(dataset, seed):
        costs = np.array([inertia(dataset.rows, each.labels, each.centres) for each in run.iterations])
        moved = [int((a.labels != b.labels).sum()) for a, b in itertools.pairwise(run.iterations)]
        series = COMPONENTS.index(num_components)
        words = None if num_components in drawn else f"K = {num_components}"
        drawn.add(num_components)
        style = {"color": SERIES[series], "marker": MARKERS[series], "markersize": 3, "linewidth": 0.9, "label": words}
        falling.plot(costs / costs[-1] - 1, **style)
        moving.plot(np.arange(1, len(costs)), moved, **style)
    # Linear near 0, which both end on, and logarithmic above.
    falling.set_yscale("symlog", linthresh=1e-4)
    falling.set_yticks([0, 1e-4, 1e-3, 0.01, 0.1, 1.0], ["0", "10⁻⁴", "10⁻³", "0.01", "0.1", "1"])
    moving.set_yscale("symlog", linthresh=1)
    moving.set_yticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    falling.set(xlabel="iteration", ylabel="J over the J it ends with, less 1")
    moving.set(xlabel="iteration", ylabel="rows whose label changed")
    for axes in (falling, moving):
        axes.minorticks_off()
        axes.axhline(0, color=FAINT, linewidth=0.8)
    falling.legend(fontsize=8)
    return figure
