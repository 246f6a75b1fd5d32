"""The pictures of the claims about the bound."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, softmax

from probem.checking.residuals import SAME
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.claims.panels import MARKERS, blank, both_sides, differences, powers_of_ten, tolerated, zone
from probem.experiments.oracles.mixtures import pose
from probem.plotting.fit import SERIES

from .steps import FAMILIES, half_steps, kmeans_run, trajectory
from .values import DRAWS, KINDS, STANDSTILL, bounds, divergence, guides, perturbed, random_assignments, slopes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_E, _M, _EVIDENCE = SERIES[0], SERIES[1], SERIES[2]


def gap_figure(dataset: Dataset, seed: int) -> "Figure":
    """A1: F, and the gap on top of it, while q moves from anywhere to the posterior."""
    from matplotlib.figure import Figure

    problem = pose(dataset, seed)
    table = problem.log_joint(problem.params)
    posterior, log_posterior = softmax(table, axis=1), log_softmax(table, axis=1)
    _, anywhere, *_ = random_assignments(np.random.default_rng(seed), len(problem.rows), problem.num_components)
    shares = np.linspace(0.0, 1.0, 13)
    way = [(1 - share) * anywhere + share * posterior for share in shares]
    values = bounds(problem, problem.params, way)
    gaps = np.array([divergence(q, log_posterior) for q in way])
    # Bars start below the lowest F, since only differences of F mean anything.
    floor = values.min() - 0.6 * gaps.max()
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 * (shares[1] - shares[0])
    axes.bar(shares, values - floor, width, floor, color=_E, linewidth=0, label="F(q, θ)")
    axes.bar(shares, gaps, width, values, color=_M, alpha=0.55, linewidth=0, label="Σ KL(q ‖ posterior)")
    axes.axhline(problem.log_likelihood(problem.params), color=INK, linewidth=1.2, label="log p(X), by NumPyro")
    axes.set(
        xlabel="q, from a random one (0) to the posterior (1)",
        ylabel="nats",
        ylim=(floor, values.max() + 0.28 * gaps.max()),
    )
    axes.legend(loc="upper left", ncols=3, fontsize=8)
    return figure


def posterior_figure(dataset: Dataset, seed: int) -> "Figure":
    """A2: what F loses when q leaves the posterior, however it leaves."""
    from matplotlib.ticker import NullLocator

    near = perturbed.last(dataset, seed)
    figure = blank(5.4, 3.6)
    axes = figure.subplots()
    # Pinsker: a divergence is at least twice the square of the total variation, row by row, and so of the means.
    distances = np.geomspace(near.distances.min() / 2, 1, 50)
    axes.plot(distances, -2 * len(near.q) * distances**2, color=FAINT, label="Pinsker: −2N distance²")
    for number, (kind, marker) in enumerate(zip(KINDS, MARKERS, strict=False)):
        places, changes = (values[number :: len(KINDS)] for values in (near.distances, near.changes))
        axes.plot(places, changes, marker, color=SERIES[number], markersize=5, label=kind)
    # Nats from a millionth to thousands, of either sign; what is above the posterior would stand in the band.
    axes.set_yscale("symlog", linthresh=1e-6)
    axes.set(
        xscale="log",
        xlabel="distance of q from the posterior (total variation)",
        ylabel="F(q) − F(posterior), nats",
        ylim=(10 * near.changes.min(), 1e-4),
    )
    axes.set_yticks([-1e4, -1e2, -1, -1e-2, -1e-4, 0.0], ["−10⁴", "−100", "−1", "−0.01", "−10⁻⁴", "0"])
    axes.yaxis.set_minor_locator(NullLocator())
    powers_of_ten(axes.xaxis, range(-5, 1))
    axes.axhline(0, color=INK, linewidth=1)
    zone(axes, 0, 1e-4, "above the posterior: no q")
    axes.legend(loc="lower left", fontsize=8)
    return figure


def slopes_figure(dataset: Dataset, seed: int) -> "Figure":
    """A5: both gradients entry by entry, and the first of them along EM."""
    both = slopes.last(dataset, seed)
    figure = blank(7.6, 3.6)
    axes = figure.subplot_mosaic([["slopes", "way"], ["differences", "way"]], width_ratios=(3, 2), height_ratios=(3, 1))
    above, below, way = (axes[name] for name in ("slopes", "differences", "way"))
    places, size = np.arange(1, len(both.marginal) + 1), np.abs(both.marginal).max()
    above.axhline(0, color=FAINT, linewidth=0.8)
    both_sides(above, places, both.marginal, both.joint, SERIES[0], ("∇ log p(X)", "E ∇ log p(X, T)"))
    above.set(ylabel="slope, nats", title="at the start", xticklabels=[])
    above.legend(fontsize=8)
    differences(below, places, np.abs(both.marginal - both.joint) / size, marker="o", linestyle="")
    tolerated(below, SAME, -16, 3)
    below.set(xlabel="free parameter", ylabel="difference")
    steps = [*(2**power for power in range(both.fit.num_steps.bit_length())), both.fit.num_steps]
    # A fit is not asked for no steps at all.
    values = np.array([size, *map(both.after, steps)]) / size
    way.plot([0, *steps], values, "o-", color=SERIES[1], markersize=3)
    tolerated(way, STANDSTILL, -7, 1)
    powers_of_ten(way.yaxis, range(-7, 1))
    way.set(xlabel="iterations of EM", ylabel="largest slope, the start being 1", title="on the way")
    return figure


def guides_figure(dataset: Dataset, seed: int) -> "Figure":
    """A6: F of the engine and of NumPyro under every guide, and NumPyro's estimates from draws of the labels."""
    found = guides.last(dataset, seed)
    figure = blank(7.6, 3.6)
    axes = figure.subplot_mosaic([["F", "draws"], ["differences", "draws"]], height_ratios=(3, 1))
    above, below, right = (axes[name] for name in ("F", "differences", "draws"))
    ours, theirs, places = np.array(found.ours), np.array(found.theirs), np.arange(len(found.names))
    both_sides(above, places, ours, theirs, SERIES[0], ("F by probem", "ELBO by NumPyro"))
    above.set(ylabel="nats", xticklabels=[], title="four guides")
    above.legend(fontsize=8)
    differences(below, places, np.abs(ours / theirs - 1), marker="o", linestyle="")
    tolerated(below, SAME, -16, 3)
    below.set_xticks(places, ["none", "hard", "soft", "another"])
    below.set(ylabel="difference", xlabel="guide")
    for panel in (above, below):
        panel.set_xlim(-0.5, len(places) - 0.5)
    mean = found.draws.mean()
    counts, edges = np.histogram(found.draws, bins=16)
    right.stairs(counts, edges, fill=True, color=FAINT, alpha=0.5)
    right.axvline(ours[-1], color=SERIES[0], label="F by probem")
    reach = 4 * found.error
    right.errorbar(
        mean, counts.max() + 1, xerr=reach, fmt="s", color=SERIES[1], capsize=4, markersize=4, label="mean ± 4 s.e."
    )
    right.set(xlabel="log p(X, T) − log q(T), nats", ylabel=f"draws of T, of {DRAWS}", title="draws from another")
    right.set(ylim=(0, 1.4 * counts.max()))
    right.legend(fontsize=8, loc="upper left")
    return figure


def ascent_figure(dataset: Dataset, seed: int) -> "Figure":
    """A3: what every family maximises, half-step by half-step."""
    from matplotlib.figure import Figure

    problem = pose(dataset, seed)
    figure = Figure(figsize=(8.6, 5.0), layout="constrained")
    for axes, case in zip(figure.subplots(2, 2, sharex=True).flat, FAMILIES, strict=True):
        values = half_steps(problem, case, trajectory(problem, case.family, 12))
        _half_steps(axes, values)
        axes.set_title(case.name)
        axes.margins(y=0.12)
    for axes in figure.axes[2:]:
        axes.set_xlabel("half-step")
    for axes in figure.axes[::2]:
        axes.set_ylabel("nats")
    figure.axes[0].legend(fontsize=8, loc="lower right")
    return figure


def likelihood_figure(dataset: Dataset, seed: int) -> "Figure":
    """A4: F and log p(X), side by side under soft EM and under k-means."""
    from matplotlib.figure import Figure

    problem = pose(dataset, seed)
    soft = trajectory(problem, FAMILIES[0].family, 9)
    hard, hard_evidence = kmeans_run(dataset)
    soft_evidence = np.array([problem.log_likelihood(fit.params) for fit in soft])
    figure = Figure(figsize=(8.6, 3.5), layout="constrained")
    panels = zip(
        figure.subplots(1, 2), ("soft EM", "k-means"), (soft, hard), (soft_evidence, hard_evidence), strict=True
    )
    for axes, title, fits, evidence in panels:
        values = fits[-1].history.elbo[: 2 * len(fits) - 1]
        _half_steps(axes, values - values[0])
        # The parameters, and with them log p(X), change in M half-steps only.
        likelihood = np.repeat(evidence, 2)[: len(values) + 1] - evidence[0]
        axes.step(np.arange(len(values)), likelihood[1:], where="post", color=_EVIDENCE, label="log p(X)")
        axes.set(title=title, xlabel="half-step")
        axes.margins(y=0.12)
    figure.axes[0].set_ylabel("nats since the start")
    figure.axes[0].legend(fontsize=8, loc="lower right")
    return figure


def _half_steps(axes: "Axes", values: np.ndarray) -> None:
    """F as it climbs: E half-steps at even places, M half-steps at odd ones."""
    steps = np.arange(len(values))
    axes.plot(steps, values, color=FAINT, linewidth=0.9, zorder=1)
    axes.scatter(steps[::2], values[::2], s=15, color=_E, label="F after an E half-step", zorder=2)
    axes.scatter(steps[1::2], values[1::2], s=15, color=_M, marker="^", label="F after an M half-step", zorder=2)
