"""The pictures of the claims about convergence."""

from typing import TYPE_CHECKING, Any

import numpy as np

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.plotting.fit import SERIES

from . import incremental, limits, mixture, rates, steps
from .acceleration import runs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "^")
# Distances below this are rounding.
_LEAST = 1e-13


def _figure(width: float, height: float) -> Any:
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="constrained")


def errors(dataset: Dataset, seed: int) -> "Figure":
    """D3: the distance from the fixed point, step by step, and the line that the Jacobian predicts."""
    run = rates.run_of(dataset, seed)
    rate = rates.eigenvalues(mixture.curvatures(run.end, run.rows)[0])[0]
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    places = np.arange(len(run.errors))
    axes.plot(places, run.errors, "o", color=SERIES[0], markersize=3, label="steps of the engine")
    first, _ = run.window
    line = run.errors[first] * rate ** (places - first)
    axes.plot(places, line, color=INK, linewidth=1, linestyle="dashed", label=f"slope log λ, λ = {rate:.4f}")
    axes.set(yscale="log", xlabel="iteration", ylabel="distance from the fixed point")
    axes.set_ylim(run.errors.min() / 3, run.errors.max() * 3)
    axes.legend()
    return figure


def information(dataset: Dataset, seed: int) -> "Figure":
    """G3: eigenvalues of the map beside fractions of missing information; standard errors on two ways."""
    run = rates.run_of(dataset, seed)
    step, observed, complete = (np.asarray(each) for each in mixture.curvatures(run.end, run.rows))
    missing = np.sort(1 - np.linalg.eigvals(np.linalg.solve(complete, observed)).real)[::-1]
    figure = _figure(8.6, 3.4)
    left, right = figure.subplots(1, 2)
    numbers = np.arange(1, len(missing) + 1)
    left.plot(numbers, missing, "s", color=SERIES[1], markersize=9, fillstyle="none", label="missing information")
    left.plot(numbers, rates.eigenvalues(step), "o", color=SERIES[0], markersize=4, label="eigenvalues of the map")
    left.axhline(run.rate, color=INK, linewidth=1, linestyle="dashed", label="seen in the steps")
    left.set(xlabel="number, by size", ylabel="fraction", ylim=(-0.05, 1), xticks=numbers[::2])
    left.legend(fontsize=8)
    expected = rates.standard_errors_by_jacobian(run)
    ours = rates.standard_errors_of(run)
    for (name, value), colour, marker in zip(expected.items(), SERIES, _MARKERS, strict=False):
        right.plot(value.ravel(), ours[name].ravel(), marker, color=colour, markersize=5, label=name)
    ends = [min(value.min() for value in expected.values()), max(value.max() for value in expected.values())]
    right.plot(ends, ends, color=INK, linewidth=1, zorder=0)
    right.set(xscale="log", yscale="log", xlabel="standard error by I_c (I − J)", ylabel="of the fit")
    right.legend(fontsize=8)
    return figure


def moves(dataset: Dataset, seed: int) -> "Figure":
    """G2: every entry of every move against what the gradient predicts."""
    both = steps.directions(dataset.rows, seed)
    figure = _figure(9.6, 3.2)
    words = {"weights": "weights", "loc": "locations", "covariance": "covariances"}
    for axes, (name, title), colour, marker in zip(
        figure.subplots(1, 3), words.items(), SERIES, _MARKERS, strict=False
    ):
        by_gradient = np.concatenate([predicted[name].ravel() for _, predicted in both])
        moved = np.concatenate([step[name].ravel() for step, _ in both])
        axes.axline((0, 0), slope=1, color=INK, linewidth=1, zorder=0)
        axes.plot(by_gradient, moved, marker, color=colour, markersize=4, fillstyle="none")
        axes.set(title=title, xlabel="P(θ) times the gradient")
    figure.axes[0].set_ylabel("move of an iteration")
    return figure


def accelerated(dataset: Dataset, seed: int) -> "Figure":
    """D4: how far F is from its end, iteration by iteration."""
    runs = runs_of(dataset, seed)
    top = max(fit.elbo for fit in runs.fits.values())
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    for (name, fit), colour, marker in zip(runs.fits.items(), SERIES, _MARKERS, strict=False):
        bounds, outcomes = fit.history.elbo[::2], fit.history.accelerated[::2]
        short = np.maximum(top - bounds, _LEAST * abs(top))
        places, kept = np.arange(len(short)), outcomes >= 0
        axes.plot(places[kept], short[kept], color=colour, label=f"{name}: {fit.num_steps} iterations")
        axes.plot(places[kept][::8], short[kept][::8], marker, color=colour, markersize=4)
        axes.plot(places[~kept], short[~kept], "x", color=colour, markersize=6)
    axes.set(yscale="log", xlabel="iteration", ylabel="nats below the end (× given up)")
    axes.legend()
    return figure


def blocks(dataset: Dataset, seed: int) -> "Figure":
    """G13: F against passes over the rows."""
    run = incremental.run_of(dataset, seed)
    top = max(run.judged[-1], run.whole[-1])
    figure = _figure(6.4, 3.6)
    axes = figure.subplots()
    # Two half-steps for every block; the first M-step came before them.
    passes = 1 + np.arange(len(run.judged)) / (2 * incremental.BLOCKS)
    axes.plot(passes, run.judged, "-o", color=SERIES[0], markersize=3, label=f"{incremental.BLOCKS} blocks, one by one")
    whole = run.whole[1:]
    axes.plot(1 + np.arange(len(whole)), whole, "-s", color=SERIES[1], markersize=6, fillstyle="none", label="EM")
    axes.set(xlabel="passes over the rows", ylabel="F (nats)", ylim=(run.judged[0], top + 0.05 * (top - run.judged[0])))
    axes.legend(loc="lower right")
    return figure


def slopes(dataset: Dataset, seed: int) -> "Figure":
    """G14: the gradient along runs that stay in a bounded region, and along one that leaves every such region."""
    figure = _figure(8.6, 3.4)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for run, colour, marker in zip(limits.bounded_runs(dataset, seed), SERIES, _MARKERS, strict=False):
        left.plot(limits.LADDER, run.slopes, marker=marker, color=colour, markersize=5)
    left.set(
        title="shared covariance",
        xscale="log",
        yscale="log",
        xlabel="iterations",
        ylabel="length of the gradient (nats)",
    )
    collapse = limits.collapse_of(dataset)
    places = np.arange(len(collapse.variances))
    right.plot(places, collapse.run.slopes, "o-", color=SERIES[0], label="gradient (nats)")
    right.plot(places, collapse.variances, "s--", color=SERIES[1], label="smallest variance")
    right.axhline(limits.SLOPE, color=FAINT, linewidth=1, zorder=0)
    right.set(title="a component on one row", yscale="log", xlabel="iteration", xticks=places)
    right.legend(fontsize=8)
    return figure
