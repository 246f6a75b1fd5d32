"""The pictures of the claims about the evidence.

The bounds are those of the plain loops, which have no program to compile for every number of components; E1 and E3 hold
the engine to them.
"""

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import INK
from probem.experiments.oracles.plain_bayes import DirichletWeights, variational_bayes
from probem.models.priors import GaussianPrior
from probem.plotting.fit import SERIES

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
    from matplotlib.figure import Figure

    rows = few_rows(dataset)
    figure = Figure(figsize=(8.6, 3.7), layout="constrained")
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
