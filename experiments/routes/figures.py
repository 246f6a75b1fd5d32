"""The pictures of H1 to H7."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

import probem
from probem.checking.residuals import SAME
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.claims.panels import MARKERS, blank, both_sides, differences, ellipse, tolerated, zone
from probem.experiments.oracles import plain_em
from probem.plotting.fit import SERIES

from . import checks
from .checks import Ended, Followed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: How far a parameter is moved from where a fit stops, in both directions: locations in units of the rows.
REACH = np.linspace(-0.4, 0.4, 17)


def numeric_route(dataset: Dataset, seed: int) -> "Figure":
    """H1."""
    del dataset, seed
    return _nothing_above(checks.mirrored_ends.last(), checks.log_density_mirrored, ("m", "log scale"))


def gradient_route(dataset: Dataset, seed: int) -> "Figure":
    """H2."""
    del dataset, seed
    names = ("log odds", "centre 1", "centre 2", "log scale 1", "log scale 2")
    return _nothing_above(checks.heavy_ends.last(), checks.log_density_heavy, names)


def _nothing_above(
    ends: Sequence[Ended], log_density: Callable[[np.ndarray, np.ndarray], float], names: Sequence[str]
) -> "Figure":
    """Rows and the density that was fitted, slices of log p(X) through where it stops, and F in several units."""
    figure = blank(9.0, 3.3)
    density, slices, units = figure.subplots(1, 3)
    end = next(end for end in ends if end.unit == 1)
    density.hist(end.rows, bins=20, density=True, color=FAINT, alpha=0.5)
    places = np.linspace(end.rows.min() - 0.5, end.rows.max() + 0.5, 100)
    heights = [np.exp(log_density(np.array([place]), end.at)) for place in places]
    density.plot(places, heights, color=SERIES[0])
    density.set(xlabel="x", ylabel="density", title=f"{len(end.rows)} rows")
    for index, name in enumerate(names):
        moved = [end.at + step * np.eye(len(end.at))[index] for step in REACH]
        values = [log_density(end.rows, at) - end.here for at in moved]
        slices.plot(REACH, values, marker=MARKERS[index], markersize=3, linewidth=0.9, color=SERIES[index], label=name)
    low = slices.get_ylim()[0]
    zone(slices, 0, -low / 4, "above the end: nothing")
    slices.set(xlabel="one parameter, from the end", ylabel="change of log p(X), nats", ylim=(low, -low / 4))
    slices.legend(fontsize=8, loc="lower center")
    for number, each in enumerate(ends):
        offset = each.comparable - each.fit.elbo
        style = {"fillstyle": "none" if number else "full", "markersize": (3, 7, 11)[number]}
        # After E half-steps only, so that markers are apart.
        values = each.fit.history.elbo[::2] + offset
        units.plot(values, MARKERS[number], color=SERIES[number], label=f"unit {each.unit:g}", **style)
    units.axhline(end.best, color=INK, linewidth=1, linestyle="dashed", label="SciPy’s maximum")
    units.set(xlabel="iteration", ylabel="F + N log(unit), nats")
    units.legend(fontsize=8)
    return figure


def _followed(both: Followed) -> tuple["Figure", "Axes"]:
    """A figure with F of every iteration on both sides and their difference; the panel beside them is left to fill."""
    figure = blank(7.6, 3.6)
    axes = figure.subplot_mosaic([["F", "plane"], ["differences", "plane"]], height_ratios=(3, 1))
    above, below = axes["F"], axes["differences"]
    ours = np.array([fit.elbo for fit in both.fits])
    plain = np.array([iteration.log_likelihood for iteration in both.plain])
    steps = np.arange(len(ours))
    both_sides(above, steps, ours, plain, SERIES[0], ("F by the engine", "log p by a plain loop"))
    above.set(ylabel="nats", xticklabels=[])
    above.legend(fontsize=8, loc="lower right")
    differences(below, steps, np.abs(ours / plain - 1), marker="o", linestyle="")
    tolerated(below, SAME, -16, 3)
    below.set(xlabel="iteration", ylabel="difference")
    return figure, axes["plane"]


def _ends(axes: "Axes", dataset: Dataset, fit: probem.Fit, plain: plain_em.Params) -> None:
    """The clusters of both sides, each in its colour."""
    for index in range(checks.COMPONENTS):
        _outline(axes, index, fit, plain, SERIES[index])
        axes.plot(*fit.params["loc"][index], "P", color=SERIES[index], markersize=8, markeredgecolor=INK)
    _name_axes(axes, dataset)


def _outline(axes: "Axes", index: int, fit: probem.Fit, plain: plain_em.Params, colour: str) -> None:
    """One standard deviation about a centre: of the engine in colour, of a plain loop dotted on top of it."""
    centre, covariance = (np.asarray(fit.params[name][index]) for name in ("loc", "covariance"))
    ellipse(axes, centre, covariance, color=colour, linewidth=2.4)
    ellipse(axes, plain.loc[index], plain.covariance[index], color=INK, linewidth=1, linestyle="dotted")


def _name_axes(axes: "Axes", dataset: Dataset) -> None:
    axes.set(xlabel=f"{dataset.columns[0]}, minutes", ylabel=f"{dataset.columns[1]}, minutes")


def missing_values(dataset: Dataset, seed: int) -> "Figure":
    """H3: rows with a value missing, where the engine and where conditioning fills them in."""
    both = checks.with_gaps.last(dataset, seed)
    figure, plane = _followed(both)
    ours, expected = checks.filled(both)
    gone = np.isnan(both.rows).any(axis=1)
    plane.plot(*both.rows[~gone].T, ".", color=FAINT, markersize=4, label="nothing missing")
    for row, true in zip(expected[gone], both.special[gone], strict=True):
        plane.plot(*np.stack([row, true]).T, color=FAINT, linewidth=0.5, zorder=0)
    plane.plot(*ours[gone].T, "s", color=SERIES[2], markersize=3, label="filled in")
    plane.plot(*expected[gone].T, "s", color=SERIES[2], markersize=7, fillstyle="none", label="by conditioning")
    _ends(plane, dataset, both.fits[-1], both.plain[-1].params)
    plane.legend(fontsize=8, loc="upper left")
    return figure


def weights(dataset: Dataset, seed: int) -> "Figure":
    """H4: rows as large as their weight."""
    both = checks.weighted.last(dataset, seed)
    figure, plane = _followed(both)
    for weight in np.unique(both.special):
        here = both.rows[both.special == weight].T
        style = {"color": FAINT, "markersize": 2 + 2.5 * weight if weight else 4, "alpha": 0.7}
        plane.plot(*here, "x" if weight == 0 else "o", label=f"weight {weight}", **style)
    _ends(plane, dataset, both.fits[-1], both.plain[-1].params)
    plane.legend(fontsize=8, loc="upper left")
    return figure


def known_labels(dataset: Dataset, seed: int) -> "Figure":
    """H5: rows whose label is known, in its colour."""
    both = checks.labelled.last(dataset, seed)
    figure, plane = _followed(both)
    plane.plot(*both.rows[both.special < 0].T, ".", color=FAINT, markersize=4, label="unknown")
    for index in range(checks.COMPONENTS):
        here = both.rows[both.special == index].T
        plane.plot(*here, MARKERS[index], color=SERIES[index], markersize=5, label=f"known: {index + 1}")
    _ends(plane, dataset, both.fits[-1], both.plain[-1].params)
    plane.legend(fontsize=8, loc="upper left")
    return figure


def streams(dataset: Dataset, seed: int) -> "Figure":
    """H6: the clusters after the last batch, with a decay that forgets and with one that does not; and the parameters
    of both sides after every batch.
    """
    figure = blank(7.6, 3.8)
    axes = figure.subplot_mosaic([["plane", "shares"], ["plane", "differences"]], height_ratios=(3, 1))
    plane, shares, below = (axes[name] for name in ("plane", "shares", "differences"))
    found = checks.streamed.last(dataset, seed)
    for number, (batch, marker) in enumerate(zip(found[0].batches, ".+x", strict=True), start=1):
        plane.plot(*batch.T, marker, color=FAINT, markersize=4, label=f"batch {number}", zorder=0)
    for stream, colour, marker in zip(found, SERIES, MARKERS, strict=False):
        for index in range(checks.COMPONENTS):
            _outline(plane, index, stream.fits[-1], stream.plain[-1], colour)
        places = np.arange(1, len(stream.fits) + 1)
        ours = [fit.params["weights"][0] for fit in stream.fits]
        plain = [params.weights[0] for params in stream.plain]
        shares.plot(places, ours, color=colour, linewidth=0.8)
        both_sides(shares, places, ours, plain, colour, (f"decay {stream.decay:g}", None), marker)
        apart = [np.max(checks.apart(*pair)) for pair in zip(stream.fits, stream.plain, strict=True)]
        differences(below, places, apart, marker=marker, color=colour, linestyle="")
    tolerated(below, checks.STEPWISE, -16, 4)
    _name_axes(plane, dataset)
    plane.legend(fontsize=8, loc="upper left")
    shares.set(ylabel="weight of cluster 1", xticks=places, xticklabels=[])
    shares.legend(fontsize=8)
    below.set(xlabel="batches seen", ylabel="difference", xticks=places)
    return figure


def best_restart(dataset: Dataset, seed: int) -> "Figure":
    """H7: plain loops from every start, where the engine ends from each, and what it returns."""
    found = checks.restarted.last(dataset, seed)
    figure = blank(5.4, 3.4)
    axes = figure.subplots()
    for number, (run, bound) in enumerate(zip(found.runs, found.fit.restart_elbos, strict=True)):
        colour, marker = SERIES[number], MARKERS[number]
        axes.plot([iteration.log_likelihood for iteration in run], color=colour, linewidth=1)
        axes.plot(len(run) - 1, bound, marker, color=colour, markersize=5, label=f"start {number + 1}")
    axes.plot(len(run) - 1, found.fit.elbo, "o", color=INK, markersize=12, fillstyle="none", label="returned")
    axes.set(xlabel="iteration", ylabel="log p(X) by plain loops (lines), F (markers)")
    axes.legend(fontsize=8, loc="lower right")
    return figure
