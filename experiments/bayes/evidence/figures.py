"""The pictures of the claims about the evidence.

The bounds of E1 are those of the plain loops, which have no program to compile for every number of components; E1 and
E3 hold the engine to them.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.claims.panels import (
    MARKERS,
    blank,
    both_sides,
    differences,
    powers_of_ten,
    tolerated,
)
from probem.experiments.oracles.plain_bayes import DirichletWeights, variational_bayes
from probem.models.priors import GaussianPrior
from probem.plotting.fit import SERIES

from .kinds import ONE, compared, scikit_learn
from .limit import NUM_ROWS, TIMES, errors
from .modes import CHOICES, SETS, modes
from .steps import STEPWISE, followed
from .values import PRIOR, few_rows, in_units, log_evidence, log_joint_of_labels, map_em, wishart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COMPONENTS = (1, 2, 3, 4)
_UNITS = (0.1, 1.0, 10.0, 100.0)
# Starts: the labellings of highest log p(X, T), components in order of appearance.
_STARTS = 6
# So few rows settle in a few steps, point masses in fewer.
_SOFT_STEPS, _HARD_STEPS = 40, 8

Starts = list[np.ndarray]
#: Name and style; those of point masses on top of those of any q, which they nearly reach.
_CORNERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("variational Bayes", {"color": SERIES[0], "marker": "o", "markersize": 8, "markerfacecolor": "none"}),
    ("Bayesian k-means", {"color": SERIES[1], "marker": "o", "markersize": 4, "linestyle": "--"}),
    ("MAP-EM", {"color": SERIES[2], "marker": "s", "markersize": 8, "markerfacecolor": "none"}),
    ("hard MAP-EM", {"color": SERIES[3], "marker": "s", "markersize": 4, "linestyle": "--"}),
)


def bounds(rows: np.ndarray, starts: Starts, prior: GaussianPrior) -> tuple[float, ...]:
    """The highest F of every corner, in the order of ``_CORNERS``."""
    weights = DirichletWeights(np.ones(starts[0].shape[1]))
    full = functools.partial(variational_bayes, rows, prior=wishart(prior), weights=weights)
    runs: tuple[Callable[[np.ndarray], float], ...] = (
        lambda start: full(start, num_steps=_SOFT_STEPS)[-1].bound,
        lambda start: full(start, hard=True, num_steps=_HARD_STEPS)[-1].bound,
        lambda start: map_em(rows, start, prior, False, _SOFT_STEPS),
        lambda start: map_em(rows, start, prior, True, _HARD_STEPS),
    )
    return tuple(max(map(run, starts)) for run in runs)


def starts_of(rows: np.ndarray, num_components: int) -> Starts:
    """The best labellings, one of those that differ in the names of components alone, as ``[N, K]``."""
    labellings = itertools.product(range(num_components), repeat=len(rows))
    in_order = [
        labels for labels in map(np.array, labellings) if list(dict.fromkeys(labels)) == list(range(labels.max() + 1))
    ]
    in_order.sort(key=lambda labels: -log_joint_of_labels(rows, labels, num_components, PRIOR))
    return [np.eye(num_components)[labels] for labels in in_order[:_STARTS]]


def evidence_figure(dataset: Dataset, seed: int) -> "Figure":
    """E1: log evidence and the four bounds, against K; and what is between them, against the unit of measurement."""
    del seed
    rows = few_rows(dataset)
    figure = blank(8.6, 3.7)
    against_components, against_units = figure.subplots(1, 2)
    starts = {num_components: starts_of(rows, num_components) for num_components in _COMPONENTS}
    exact = [log_evidence(rows, num_components, PRIOR) for num_components in _COMPONENTS]
    values = np.array([bounds(rows, starts[num_components], PRIOR) for num_components in _COMPONENTS])
    against_components.plot(_COMPONENTS, exact, color=INK, label="log p(X), exactly")
    _corners(against_components, np.array(_COMPONENTS), values)
    against_components.set(xlabel="components K", ylabel="nats", xticks=_COMPONENTS)
    against_components.set_title("seven rows, in standard deviations")
    differences = []
    for unit in _UNITS:
        prior = in_units(PRIOR, unit)
        top = log_evidence(unit * rows, 2, prior)
        differences.append([value - top for value in bounds(unit * rows, starts[2], prior)])
    against_units.axhline(0.0, color=INK)
    _corners(against_units, np.array(_UNITS), np.array(differences))
    against_units.set(xscale="log", xlabel="units to a standard deviation", ylabel="F − log p(X), nats")
    against_units.set_xticks(_UNITS, [f"{unit:g}" for unit in _UNITS])
    against_units.minorticks_off()
    against_units.set_title("the same with K = 2, in other units")
    handles, labels = against_components.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _corners(axes: "Axes", places: np.ndarray, values: np.ndarray) -> None:
    for (name, style), bounds in zip(_CORNERS, values.T, strict=True):
        axes.plot(places, bounds, label=f"F, {name}", **style)


def one_component_figure(dataset: Dataset, seed: int) -> "Figure":
    """E2: both sides of every kind of observation, and by how much they differ."""
    kinds = [each for each in compared.last(dataset, seed) if not each.is_whole]
    theirs = scikit_learn.last(dataset, seed)
    places = np.arange(len(kinds))
    ours, exact = np.array([each.bound for each in kinds]), np.array([each.exact for each in kinds])
    figure = blank(7.6, 3.6)
    both, apart = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    both.plot(ours, places, "o", color=SERIES[0], markersize=4, label="F")
    both.plot(exact, places, "o", color=SERIES[0], markersize=9, fillstyle="none", label="log p(X)")
    both.plot(theirs.bound, 0, "s", color=SERIES[1], markersize=5, label="lower_bound_")
    both.set_yticks(places, [each.words.replace(" covariance", "") for each in kinds])
    both.set(xlabel="nats", ylim=(len(kinds) - 0.4, -0.6))
    both.legend(fontsize=8, loc="lower left")
    differences(apart, np.abs(ours - exact), places, marker="o", linestyle="", color=SERIES[0])
    apart.plot(abs(theirs.bound - theirs.exact), 0, "s", color=SERIES[1], markersize=5)
    tolerated(apart, ONE, -14, 4, along="x")
    apart.set(xlabel="difference from log p(X), nats")
    return figure


def stepwise_figure(dataset: Dataset, seed: int) -> "Figure":
    """E3: F of every iteration on both sides, and how far the posteriors are apart."""
    figure = blank(7.6, 3.8)
    bounds, apart = figure.subplots(1, 2)
    for run, colour, marker in zip(followed.last(dataset, seed), SERIES, MARKERS, strict=False):
        steps, name = np.arange(1, len(run.fits) + 1), run.structure.name
        ours, plain = [fit.elbo for fit in run.fits], [each.bound for each in run.plain]
        both_sides(bounds, steps, ours, plain, colour, (name, None), marker)
        differences(apart, steps, run.from_plain, marker=marker, color=colour, linewidth=0.8)
        if run.from_scikit_learn:
            differences(apart, steps, run.from_scikit_learn, marker="x", markersize=5, label="scikit-learn, full")
        else:
            apart.plot(1, run.off, marker, color=colour, markersize=6, fillstyle="none")
    tolerated(apart, STEPWISE, -16, 4)
    bounds.set(xlabel="iteration", ylabel="F, nats")
    apart.set(xlabel="iteration", ylabel="difference of q, relative")
    bounds.legend(fontsize=8, loc="lower right")
    apart.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.3))
    return figure


def limit_figure(dataset: Dataset, seed: int) -> "Figure":
    """E4: the distance of the two estimates against the number of rows, and a line of slope -1."""
    distances = errors.last(dataset, seed)
    sizes = NUM_ROWS * np.array(TIMES)
    figure = blank(4.6, 3.4)
    axes = figure.subplots()
    for number, (row, colour, marker) in enumerate(zip(distances, SERIES, MARKERS, strict=False), start=1):
        axes.plot(sizes, row, marker, color=colour, markersize=5, label=f"sample {number}")
    middle = np.exp(np.log(distances).mean())
    axes.plot(sizes, middle * sizes[1] / sizes, color=FAINT, linewidth=1, zorder=0, label="slope −1")
    axes.set(xscale="log", yscale="log", xlabel="rows N", ylabel="‖VB − EM‖, root mean square")
    powers_of_ten(axes.yaxis, range(*np.floor(np.log10([distances.min(), 100 * distances.max()])).astype(int)))
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.xaxis.set_tick_params(which="minor", bottom=False, labelbottom=False)
    axes.legend(fontsize=8)
    return figure


def modes_figure(dataset: Dataset, seed: int) -> "Figure":
    """E9: what F lacks to the evidence, beside log K!, and the K that each criterion prefers."""
    del dataset
    found = modes.last(seed)
    figure = blank(7.6, 3.4)
    gaps, chosen = figure.subplots(1, 2)
    generator = np.random.default_rng(seed)
    for place, K in enumerate(CHOICES):
        jitter = K + generator.uniform(-0.22, 0.22, len(found.bounds))
        here = {"color": SERIES[0], "markersize": 3, "label": f"{SETS} sets" if K == 1 else None}
        gaps.plot(jitter, (found.exact - found.bounds)[:, place], "o", **here)
        words = "log K!" if K == 1 else None
        gaps.hlines(math.lgamma(K + 1), K - 0.35, K + 0.35, color=INK, linewidth=1.4, label=words)
        if K in found.apart:
            bound, exact = found.apart[K]
            words = "far apart" if K == CHOICES[-1] else None
            gaps.plot(K, exact - bound, "s", color=SERIES[1], markersize=9, fillstyle="none", label=words)
    gaps.set(xlabel="components K", ylabel="log p(X) − F, nats", xticks=CHOICES)
    gaps.legend(fontsize=8, loc="upper left")
    criteria = (("evidence", found.exact), ("F", found.bounds), ("F + log K!", found.corrected))
    for number, (name, values) in enumerate(criteria):
        preferred = np.array(CHOICES)[values.argmax(axis=1)]
        counts = [int((preferred == K).sum()) for K in CHOICES]
        alike = int((values.argmax(axis=1) == found.exact.argmax(axis=1)).sum())
        places = np.array(CHOICES) + 0.27 * (number - 1)
        bars = chosen.bar(
            places, counts, 0.25, color=(INK, *SERIES)[number], linewidth=0, label=f"{name}: {alike} right"
        )
        chosen.bar_label(bars, fontsize=8)
    chosen.set(xlabel="components K", ylabel=f"sets, of {SETS}, that prefer K", xticks=CHOICES)
    chosen.legend(fontsize=8)
    return figure
