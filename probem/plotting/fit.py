"""Two pictures of a fit: the rows by component, and the bound step by step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RINGS = "a value missing, drawn where it is expected"
#: Blue, vermilion, green, violet, ochre, rose: any two apart for the colour-blind as well, and from white.
SERIES = ("#24539a", "#bc3b0c", "#17836b", "#804fdb", "#b68711", "#cd5cac")
_INK = "#222222"
# An ellipse of a component with fewer rows than this is not drawn: it shows its prior, or nothing.
_FEWEST_ROWS = 0.5


class Gaussian(NamedTuple):
    """A component whose observation is Gaussian."""

    mean: Float[np.ndarray, " D"]
    covariance: Float[np.ndarray, "D D"]


class Drawn(NamedTuple):
    """What is drawn of a fit.

    Attributes
    ----------
    rows : ``[N, D]``, what is missing filled in
    missing : which entries these are
    responsibilities : q(t_n = k)
    columns : what to call the D columns
    gaussians : the components, where all that is observed is one Gaussian of D entries
    bounds : F after every half-step, nats, total
    """

    rows: Float[np.ndarray, "N D"]
    missing: Bool[np.ndarray, "N D"]
    responsibilities: Float[np.ndarray, "N K"]
    columns: Sequence[str]
    gaussians: Sequence[Gaussian] | None
    bounds: Float[np.ndarray, " T"]


def blank_figure() -> tuple["Figure", np.ndarray]:
    """A figure with room for both pictures, which no window shows."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    return figure, figure.subplots(1, 2, width_ratios=(3, 2))


def draw_fit(axes: Sequence["Axes"], drawn: Drawn) -> None:
    """The rows coloured by their component in the first axes, and the trace of F in the second.

    One column becomes a histogram, two a scatter plot, more the first two principal components. Gaussian components
    that have rows are drawn at their mean, with the ellipse of two standard deviations; all others are named where
    their rows are, on average. A row in which a value is missing is a ring, where it has been filled in; one without
    any value is not drawn.
    """
    from matplotlib.ticker import MaxNLocator

    rows, trace = axes
    _draw_rows(rows, drawn)
    if len(drawn.bounds):
        trace.plot(drawn.bounds, color=SERIES[0], marker="o" if len(drawn.bounds) < 40 else "", markersize=3)
    else:
        trace.text(0.5, 0.5, "no steps on record", ha="center", va="center", transform=trace.transAxes)
    trace.set(xlabel="half-step", ylabel="F (nats)")
    trace.xaxis.set_major_locator(MaxNLocator(integer=True))
    for part in (rows, trace):
        part.spines[["top", "right"]].set_visible(False)


def _draw_rows(axes: "Axes", drawn: Drawn) -> None:
    is_drawn = ~drawn.missing.all(1)
    x, responsibilities = drawn.rows[is_drawn], drawn.responsibilities[is_drawn]
    labels, partial = responsibilities.argmax(1), drawn.missing[is_drawn].any(1)
    counts = responsibilities.sum(0)
    shown = np.flatnonzero(counts >= _FEWEST_ROWS).tolist()
    colours = series_colours(responsibilities.shape[1])
    if x.shape[1] == 1:
        _histogram(axes, x[:, 0], labels, colours, drawn.gaussians, counts)
        axes.set(xlabel=drawn.columns[0], ylabel="rows")
        return
    directions, centre, names = _plane(x, drawn.columns)
    plane = (x - centre) @ directions
    shades = np.array([colours[k] for k in labels])
    axes.scatter(*plane[~partial].T, s=9, c=shades[~partial], alpha=0.7, linewidths=0)
    if partial.any():
        rings = plane[partial].T
        axes.scatter(*rings, s=14, facecolors="none", edgecolors=shades[partial].tolist(), linewidths=0.8, label=_RINGS)
        axes.legend(loc="best", frameon=False, fontsize="small")
    for k in shown:
        if drawn.gaussians:
            mean, covariance = drawn.gaussians[k]
            _ellipse(axes, (mean - centre) @ directions, directions.T @ covariance @ directions, colours[k])
            place = (mean - centre) @ directions
        else:
            place = responsibilities[:, k] @ plane / counts[k]
        _name(axes, k, place)
    axes.set(xlabel=names[0], ylabel=names[1])


def _name(axes: "Axes", component: int, place: np.ndarray) -> None:
    """The number of a component beside its middle: more of them than a few are not told apart by colour alone."""
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    offset = {"xytext": (5, 5), "textcoords": "offset points"}
    axes.annotate(str(component), tuple(place), **offset, color=_INK, fontsize="small", weight="bold", bbox=box)


def _plane(x: np.ndarray, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Two axes [D, 2] to look along, the origin [D], and what to call the axes."""
    if x.shape[1] == 2:
        return np.eye(2), np.zeros(2), (columns[0], columns[1])
    centre = x.mean(axis=0)
    axes = np.linalg.svd(x - centre, full_matrices=False)[2][:2].T
    # Fewer rows than two leave one axis only; the second is then blank.
    axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    return axes, centre, ("first principal component", "second principal component")


def _ellipse(axes: "Axes", mean: np.ndarray, covariance: np.ndarray, colour: str) -> None:
    from matplotlib.patches import Ellipse

    variances, directions = np.linalg.eigh(covariance)
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    width, height = 4 * np.sqrt(np.maximum(variances[::-1], 0))
    axes.add_patch(Ellipse(tuple(mean), width, height, angle=angle, fill=False, edgecolor=colour, linewidth=1.4))
    axes.plot(*mean, marker="+", color=colour, markersize=9, markeredgewidth=2)


def _histogram(
    axes: "Axes",
    x: np.ndarray,
    labels: np.ndarray,
    colours: Sequence[str],
    gaussians: Sequence[Gaussian] | None,
    counts: np.ndarray,
) -> None:
    edges = np.histogram_bin_edges(x, bins="auto").tolist()
    groups = [x[labels == k] for k in range(len(colours))]
    named = [str(k) if counts[k] >= _FEWEST_ROWS else "_" for k in range(len(colours))]
    axes.hist(groups, bins=edges, stacked=True, color=colours, alpha=0.45, label=named)
    axes.legend(title="component", frameon=False, fontsize="small", ncols=1 + len(colours) // 9)
    grid = np.linspace(edges[0], edges[-1], 400)
    for k, (mean, covariance) in enumerate(gaussians or ()):
        if counts[k] < _FEWEST_ROWS:
            continue
        deviation = np.sqrt(covariance[0, 0])
        density = np.exp(-0.5 * ((grid - mean[0]) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
        axes.plot(grid, counts[k] * (edges[1] - edges[0]) * density, color=colours[k])


def series_colours(total: int) -> list[str]:
    """As many colours, as hex codes: the first of ``SERIES`` where those are enough."""
    if total <= len(SERIES):
        return list(SERIES[:total])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["turbo"](np.linspace(0.05, 0.95, total))]
