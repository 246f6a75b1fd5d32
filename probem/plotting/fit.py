"""One figure of a fit: the rows by component, and the bound step by step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpyro.distributions as dist

from probem.exponential import MultivariateNormal, Normal
from probem.results.fit import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RINGS = "a value missing, drawn where it is expected"
#: Blue, vermilion, green, violet, ochre, rose: any two apart for the colour-blind as well, and from white.
SERIES = ("#24539a", "#bc3b0c", "#17836b", "#804fdb", "#b68711", "#cd5cac")


def fit_figure(
    fit: Fit,
    x: np.ndarray,
    responsibilities: np.ndarray,
    columns: Sequence[str],
    missing: np.ndarray | None = None,
) -> "Figure":
    """The rows ``x`` [N, D] coloured by their component, beside the trace of F (nats, total).

    One column becomes a histogram, two a scatter plot, more the first two principal components. Components whose
    observation is Gaussian are drawn at their mean, with the ellipse of two standard deviations. A row in which a value
    is ``missing`` [N, D] is a ring, where ``x`` has filled it in; one without any value is not drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    rows, trace = figure.subplots(1, 2, width_ratios=(3, 2))
    missing = np.zeros(x.shape, bool) if missing is None else missing
    drawn = ~missing.all(1)
    x, responsibilities, partial = x[drawn], responsibilities[drawn], missing[drawn].any(1)
    labels = responsibilities.argmax(1)
    colours = series_colours(responsibilities.shape[1])
    gaussians = gaussian_components(fit, x.shape[1])
    if x.shape[1] == 1:
        _histogram(rows, x[:, 0], labels, colours, gaussians, responsibilities)
        rows.set(xlabel=columns[0], ylabel="rows")
    else:
        axes, centre, names = _plane(x, columns)
        plane = (x - centre) @ axes
        shades = np.array([colours[k] for k in labels])
        rows.scatter(*plane[~partial].T, s=9, c=shades[~partial], alpha=0.7, linewidths=0)
        if partial.any():
            rings = plane[partial].T
            rows.scatter(*rings, s=14, facecolors="none", edgecolors=shades[partial], linewidths=0.8, label=_RINGS)
            rows.legend(loc="best", frameon=False, fontsize="small")
        for k, (mean, covariance) in enumerate(gaussians or ()):
            _ellipse(rows, (mean - centre) @ axes, axes.T @ covariance @ axes, colours[k])
        rows.set(xlabel=names[0], ylabel=names[1])
    bounds = fit.history.elbo
    trace.plot(bounds, color=SERIES[0], marker="o" if len(bounds) < 40 else "", markersize=3)
    trace.set(xlabel="half-step", ylabel="F (nats)")
    for part in (rows, trace):
        part.spines[["top", "right"]].set_visible(False)
    return figure


def gaussian_components(fit: Fit, num_columns: int) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Mean [D] and covariance [D, D] of every component, or None unless all that is observed is one Gaussian of D.

    A Gaussian that depends on a covariate is no such: every row has a mean of its own.
    """
    if fit.plan is None or len(fit.plan.program.observed) != 1 or not fit.plan.form.data_terms:
        return None
    (term,) = fit.plan.form.data_terms
    many = (term.copies, *term.event_shape)
    if (type(term.view), many) not in ((Normal, (num_columns,)), (MultivariateNormal, (1, num_columns))):
        return None
    arguments = fit.plan.form.arguments(fit.params)[term.site]
    # A fit that collapsed is drawn too, and its covariance may be singular by a rounding.
    gaussians = term.view.distributions[0](**arguments, validate_args=False)
    means = np.asarray(gaussians.mean).reshape(-1, num_columns)
    if isinstance(gaussians, dist.MultivariateNormal):
        return list(zip(means, np.asarray(gaussians.covariance_matrix)[:, 0], strict=True))
    return list(zip(means, map(np.diag, np.asarray(gaussians.variance)), strict=True))


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
    gaussians: list[tuple[np.ndarray, np.ndarray]] | None,
    responsibilities: np.ndarray,
) -> None:
    edges = np.histogram_bin_edges(x, bins="auto").tolist()
    groups = [x[labels == k] for k in range(len(colours))]
    axes.hist(groups, bins=edges, stacked=True, color=colours, alpha=0.45)
    grid = np.linspace(edges[0], edges[-1], 400)
    for k, (mean, covariance) in enumerate(gaussians or ()):
        deviation = np.sqrt(covariance[0, 0])
        density = np.exp(-0.5 * ((grid - mean[0]) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
        axes.plot(grid, responsibilities[:, k].sum() * (edges[1] - edges[0]) * density, color=colours[k])


def series_colours(total: int) -> list[str]:
    """As many colours, as hex codes: the first of ``SERIES`` where those are enough."""
    if total <= len(SERIES):
        return list(SERIES[:total])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps["turbo"](np.linspace(0.05, 0.95, total))]
