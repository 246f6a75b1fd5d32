"""The pictures of the claims about the bound."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import log_softmax, softmax

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.oracles.mixtures import pose
from probem.plotting.fit import SERIES

from .steps import FAMILIES, half_steps, kmeans_run, trajectory
from .values import bounds, divergence, random_assignments

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
