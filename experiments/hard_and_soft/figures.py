"""The pictures of the claims C."""

from typing import TYPE_CHECKING

import numpy as np

import probem
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.oracles.lloyd import inertia, nearest
from probem.plotting.fit import SERIES

from .annealing import critical, distances, growth
from .bias import LADDER, estimates, folded_mean, root_mean_square, spread_of_hard, spread_of_soft
from .checks import BETAS, STEPS, bounds_of, corners_of_a_square, log_beside
from .plain import Spheres
from .runs import COMPONENTS, follow, standardised, start_of, tempered
from .schedules import compared

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "D", "^")


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def towards_a_point_mass(dataset: Dataset, seed: int) -> "Figure":
    """C1: what is not on the mode, in four rows; and sigma² log p(X)."""
    rows = standardised(dataset)
    loc = start_of(rows, seed)
    gaps = Spheres(loc, 1.0).gaps(rows)
    figure = _figure(8.2, 3.3)
    left, right = figure.subplots(1, 2)
    chosen = [int(np.abs(gaps - np.quantile(gaps, share)).argmin()) for share in (0.1, 0.3, 0.6, 0.9)]
    inverse = np.linspace(0.5, 60, 13)
    runs = [follow(rows, Spheres(loc, float(np.sqrt(0.5 / value))), probem.EM)[0] for value in inverse]
    with np.errstate(divide="ignore"):
        beside = np.stack([log_beside(np.log(np.asarray(run.responsibilities(rows)))) for run in runs])
    for row, colour, marker in zip(chosen, SERIES, MARKERS, strict=False):
        line = (np.log(COMPONENTS - 1) - gaps[row] * inverse) / np.log(10)
        left.plot(inverse, line, color=colour, linewidth=0.8)
        left.plot(
            inverse,
            beside[:, row] / np.log(10),
            marker,
            color=colour,
            markersize=4,
            linestyle="none",
            label=f"Δ = {gaps[row]:.2f}",
        )
    left.set(xlabel="1/2σ²", ylabel="log₁₀(1 − max q)", ylim=(-13, 1))
    left.legend(fontsize=8)
    scales = np.geomspace(0.01, 0.4, 14)
    values = [scale**2 * follow(rows, Spheres(loc, float(scale)), probem.EM)[0].elbo for scale in scales]
    half = inertia(rows, nearest(rows, loc), loc) / 2
    right.axhline(-half, color=INK, linewidth=0.8, label="−J/2, of k-means")
    right.plot(scales, values, "o-", color=SERIES[0], markersize=4, label="σ² log p(X)")
    right.set(xscale="log", xlabel="σ", ylabel="squared standard deviations")
    right.legend(fontsize=8)
    return figure


def powers(dataset: Dataset, seed: int) -> "Figure":
    """C2: q between two centres, and what climbs."""
    rows = standardised(dataset)
    start = Spheres(start_of(rows, seed), 0.7)
    figure = _figure(8.2, 3.3)
    left, right = figure.subplots(1, 2)
    line, pair = np.linspace(-2, 2, 201)[:, None], Spheres(np.array([[-0.7], [0.7]]), 0.7)
    for beta, colour, style in zip((*BETAS, 30.0), SERIES, ("-", "--", "-.", ":"), strict=False):
        left.plot(line[:, 0], np.exp(pair.log_q(line, beta)[:, 1]), style, color=colour, label=f"β = {beta:g}")
    left.step(line[:, 0], line[:, 0] > 0, color=INK, linewidth=0.7, where="mid", label="point mass")
    left.set(xlabel="place of a row; centres at −0.7 and 0.7, σ = 0.7", ylabel="q(t = 2)")
    left.legend(fontsize=8)
    for beta, colour, marker in zip(BETAS, SERIES, MARKERS, strict=False):
        history = follow(rows, start, tempered(beta), STEPS)[-1].history
        values = history.objective[: 2 * STEPS + 1]
        places = np.arange(len(values)) / 2
        right.plot(places, values - values[0], color=colour, marker=marker, markersize=3.5, label=f"β = {beta:g}")
    right.set(xlabel="iteration", ylabel="E log p + H/β, nats above the start")
    right.legend(fontsize=8)
    return figure


def moving_apart(dataset: Dataset, seed: int) -> "Figure":
    """C3: the price of point masses, against the separation."""
    del dataset
    figure = _figure(5.2, 3.3)
    axes = figure.subplots()
    separations = np.linspace(0.0, 5.5, 23)
    gaps, limits = [], []
    for separation in separations:
        rows, spheres = corners_of_a_square(float(separation), seed)
        soft, hard = bounds_of(rows, spheres)
        gaps.append(soft - hard)
        limits.append(((COMPONENTS - 1) * np.exp(-spheres.gaps(rows) / 2)).sum())
    axes.axhline(len(rows) * np.log(COMPONENTS), color=INK, linewidth=0.8, label="N log K")
    axes.plot(separations, limits, "--", color=FAINT, label="Σ (K − 1) exp(−Δ/2)")
    axes.plot(separations, gaps, "o", color=SERIES[0], markersize=4, label="F of EM − F of hard EM")
    axes.set(yscale="log", ylim=(1e-7, 3e3), xlabel="half the distance of neighbouring centres, in σ", ylabel="nats")
    axes.legend(fontsize=8)
    return figure


def pushed_apart(dataset: Dataset, seed: int) -> "Figure":
    """C4: where the centres end, and how the errors fall."""
    del dataset
    figure = _figure(8.2, 3.4)
    left, right = figure.subplots(1, 2)
    halves = np.linspace(0, 3, 61)
    left.plot(halves, halves, color=INK, linewidth=0.8, label="the truth")
    left.plot(halves, [folded_mean(a) for a in halves], "--", color=SERIES[0], label="E|x|, the limit of k-means")
    for kind, colour, marker, words in (
        ("hard", SERIES[0], "o", "hard EM"),
        ("soft", SERIES[1], "s", "EM"),
    ):
        for a in (0.0, 1.0):
            each = np.abs(estimates(LADDER, a, kind, seed)[-1])
            label = f"{words}, {LADDER[-1]} rows" if a else None
            left.plot(np.full(each.size, a), each.ravel(), marker, color=colour, markersize=3.5, alpha=0.6, label=label)
    left.set(xlabel="distance of either centre from 0, in σ", ylabel="distance of a fitted centre from 0")
    left.legend(fontsize=8)
    sizes = np.array(LADDER)
    lines = (
        ("hard", folded_mean(1.0), spread_of_hard(1.0), SERIES[0], "o", "hard EM, about E|x|"),
        ("soft", 1.0, spread_of_soft(1.0), SERIES[1], "s", "EM, about the truth"),
    )
    for kind, target, spread, colour, marker, words in lines:
        right.plot(sizes, np.sqrt((spread.middle + spread.half) / sizes), color=colour, linewidth=0.8)
        errors = root_mean_square(estimates(LADDER, 1.0, kind, seed), target)
        right.plot(sizes, errors, marker, color=colour, markersize=6, label=words)
    errors = root_mean_square(estimates(LADDER, 1.0, "hard", seed), 1.0)
    right.plot(sizes, errors, "^--", color=SERIES[2], markersize=6, label="hard EM, about the truth")
    right.set(xscale="log", yscale="log", xlabel="rows; centres at ±1", ylabel="root mean square error")
    right.set_xticks(sizes, [f"{size:,}".replace(",", "\u202f") for size in sizes])
    right.minorticks_off()
    right.legend(fontsize=8)
    return figure


def where_starts_end(dataset: Dataset, seed: int) -> "Figure":
    """C5: the distribution of F over starts."""
    del dataset
    figure = _figure(5.6, 3.4)
    axes = figure.subplots()
    for values, colour, marker, words in zip(
        compared(seed), SERIES, MARKERS, ("random rows as centres", "annealed, from the mean"), strict=False
    ):
        ordered = np.sort(values)
        shares = (np.arange(len(ordered)) + 1) / len(ordered)
        axes.step(ordered, shares, where="post", color=colour, linewidth=1)
        axes.plot(ordered, shares, marker, color=colour, markersize=4.5, label=f"{words}: {len(ordered)} starts")
        axes.axvline(np.median(ordered), color=colour, linewidth=0.8, linestyle=":")
    axes.plot([], [], ":", color=INK, linewidth=0.8, label="medians")
    axes.set(xlabel="F at the end (nats)", ylabel="share of starts that end no higher", ylim=(0, 1.05))
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(0.0, 0.75))
    return figure


def terms_kept(dataset: Dataset, seed: int) -> "Figure":
    """C6: F against the number of terms that are kept, at the start and after some steps."""
    rows = standardised(dataset)
    start = Spheres(start_of(rows, seed), 0.7)
    figure = _figure(5.2, 3.3)
    axes = figure.subplots()
    kept = np.arange(1, COMPONENTS + 1)
    runs = [follow(rows, start, {"t": probem.TopC(int(number))}, STEPS) for number in kept]
    for step, marker, colour in ((0, "o", SERIES[0]), (1, "s", SERIES[1]), (STEPS, "D", SERIES[2])):
        words = "at the start" if step == 0 else f"after {step} step" + "s" * (step > 1)
        axes.plot(kept, [run[step].elbo for run in runs], marker=marker, color=colour, markersize=5, label=words)
    soft, hard = bounds_of(rows, start)
    axes.axhline(soft, color=INK, linewidth=0.8)
    axes.axhline(hard, color=INK, linewidth=0.8, linestyle=":")
    axes.annotate("log p(X) at the start", (kept[1], soft), (30, 4), textcoords="offset points", fontsize=8)
    axes.annotate("hard EM at the start", (kept[-1], hard), (-90, 4), textcoords="offset points", fontsize=8)
    axes.set(xticks=kept, xlabel="terms kept, C", ylabel="F (nats)")
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 0.1))
    return figure


def leaving_the_mean(dataset: Dataset, seed: int) -> "Figure":
    """G9: the growth in a step, and the way of the centres."""
    rows = standardised(dataset)
    figure = _figure(8.2, 3.3)
    left, right = figure.subplots(1, 2)
    parts = np.linspace(0.25, 2.0, 8)
    rates = [growth(rows, part * critical(rows), seed, 8) for part in parts]
    left.plot(parts, parts, color=INK, linewidth=0.8, label="β/β_c")
    left.plot(parts, rates, "o", color=SERIES[0], markersize=5, label="growth in a step of the engine")
    left.axhline(1, color=FAINT, linewidth=0.8, linestyle=":")
    left.set(xlabel="β/β_c", ylabel="growth of the distance from the mean")
    left.legend(fontsize=8)
    for part, colour, marker in zip((0.8, 0.95, 1.05, 1.25), SERIES, MARKERS, strict=False):
        right.plot(
            distances(rows, part, seed),
            color=colour,
            marker=marker,
            markersize=4,
            markevery=8,
            label=f"β = {part:g} β_c",
        )
    right.set(yscale="log", xlabel="step", ylabel="distance of the centres from the mean")
    right.legend(fontsize=8)
    return figure
