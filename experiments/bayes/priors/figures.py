"""The pictures of D1 and E5 to E7."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.models import dirichlet, stick_breaking
from probem.plotting.fit import SERIES

from . import pruning as e5
from .bounded_likelihood import log_prior, weak_prior
from .degeneracy import fit_from, log_likelihood, pose
from .nuts import posteriors, settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def no_upper_bound(dataset: Dataset, seed: int) -> "Figure":
    """D1: log p(X) against the standard deviation, by itself and with the log prior of E8."""
    del seed
    setting = pose(dataset)
    prior = weak_prior(setting.rows)
    # So far down that the line passes any sensible fit: the density of one row only has to make up for all the others.
    sensible = fit_from(setting, setting.rows.std()).elbo
    scales = np.logspace(1, -80, 163)
    values = np.array([log_likelihood(setting.rows, setting.params(scale)) for scale in scales])
    figure = _figure(8.6, 3.4)
    left, right = figure.subplots(1, 2)
    left.set_xscale("log")
    left.plot(scales, values, color=SERIES[0])
    left.axhline(sensible, color=FAINT, linewidth=1)
    left.annotate("a sensible fit", (scales[0], sensible), (4, 4), textcoords="offset points", color=INK, fontsize=8)
    left.set(title="by itself", ylabel="log p(X), nats")
    left.set_xticks(10.0 ** -np.arange(0, 81, 20))
    left.minorticks_off()
    few = np.logspace(1, -3, 81)
    with_prior = [
        log_likelihood(setting.rows, params) + log_prior(prior, params) for params in map(setting.with_precision, few)
    ]
    right.plot(few, with_prior, color=SERIES[1])
    right.set(title="with a prior on the covariances", ylabel="log p(X) + log p(θ), nats", yscale="symlog")
    right.set_xscale("log")
    for axes in (left, right):
        axes.set(xlabel="σ of the cluster on a row")
        axes.invert_xaxis()
    return figure


def pruning(dataset: Dataset, seed: int) -> "Figure":
    """E5: what is left of ten components against the concentration; F of Bayesian k-means beside the inertia."""
    rows = e5.centred(dataset)
    figure = _figure(10.4, 3.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=(4, 3, 3))
    for (name, prior, values), colour in zip(
        (("Dirichlet", dirichlet, e5.CONCENTRATIONS), ("stick-breaking", stick_breaking, e5.STICKS)),
        SERIES,
        strict=False,
    ):
        pruned = [e5.prune(rows, seed, prior, value) for value in values]
        left.plot(values, [fit.effective for fit in pruned], "o-", color=colour, markersize=4, label=name)
        left.plot(values, [fit.occupied for fit in pruned], "o", color=colour, markersize=9, fillstyle="none")
    kept = e5.keep(rows, seed)
    left.axhline(e5.CLUSTERS, color=FAINT, linewidth=1, zorder=0)
    left.axhline(kept.effective, color=INK, linewidth=1, linestyle="dashed", label="maximum likelihood")
    left.set(
        title="ten components for four clusters",
        xscale="log",
        xlabel="concentration α",
        ylabel="components left of ten",
        ylim=(0, e5.OFFERED + 3),
    )
    left.legend(loc="upper left", fontsize=8)
    choices = e5.choices(rows, seed)
    K = [choice.num_components for choice in choices]
    bounds = np.array([choice.bound for choice in choices])
    middle.plot(K, bounds - bounds.max(), "o-", color=SERIES[0], markersize=4)
    # Thousands of nats too few below four components, a few too few above: linear near the highest, then logarithmic.
    middle.set_yscale("symlog", linthresh=10)
    middle.set(title="Bayesian k-means", xlabel="components K", xticks=K, ylabel="F less the highest (nats)")
    right.plot(K, [choice.inertia for choice in choices], "o-", color=SERIES[1], markersize=4)
    right.set(title="k-means", xlabel="components K", xticks=K, ylabel="inertia", yscale="log")
    return figure


def marginals(dataset: Dataset, seed: int) -> "Figure":
    """E7: draws of NUTS as histograms, q as curves; places are of one width in all panels."""
    figure = _figure(8.6, 4.6)
    panels = figure.subplots(2, 2)
    both = {name: posteriors(rows, seed) for name, rows in settings(dataset.rows).items()}
    reach = 4 * max(posterior.draws.std(axis=0).max() for posterior in both.values())
    for line, name in zip(panels, reversed(both), strict=True):
        posterior = both[name]
        for k, axes in enumerate(line):
            places = np.linspace(posterior.mean[k] - reach, posterior.mean[k] + reach, 200)
            density = norm.pdf(places, posterior.mean[k], posterior.deviation[k])
            axes.hist(posterior.draws[:, k], bins=25, density=True, color=FAINT, alpha=0.5, label="NUTS")
            axes.plot(places, density, color=SERIES[0], label="VB")
            axes.set(title=f"{name}, centre {k + 1}: sd VB / NUTS = {posterior.ratio[k]:.2f}", yticks=[])
            axes.set_xlim(places[0], places[-1])
        line[0].set_ylabel("density")
    panels[0, 0].legend(fontsize=8, loc="upper left")
    for axes in panels[1]:
        axes.set_xlabel("centre")
    return figure
