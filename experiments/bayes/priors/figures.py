"""The pictures of D1, D2 and E5 to E8."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.claims.panels import MARKERS, blank, both_sides, powers_of_ten, zone
from probem.models import dirichlet, stick_breaking
from probem.plotting.fit import SERIES

from . import pruning as e5
from .bounded_likelihood import SCALE_PRIORS, TIGHT, below, ladder, log_prior, regularised, weak_prior
from .degeneracy import fit_from, log_likelihood, pose
from .dp_limit import PENALTY, limit, objective, scaled_bound
from .nuts import each_setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def no_upper_bound(dataset: Dataset, seed: int) -> "Figure":
    """D1: log p(X) against the standard deviation, by itself and with the log prior of E8."""
    del seed
    setting = pose(dataset)
    prior = weak_prior(setting.rows)
    # So far down that the line passes any sensible fit: the density of one row only has to make up for all the others.
    sensible = fit_from(setting, setting.rows.std()).elbo
    scales = np.logspace(1, -80, 163)
    values = np.array([log_likelihood(setting.rows, setting.params(scale)) for scale in scales])
    figure = blank(8.6, 3.4)
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


def bounded(dataset: Dataset, seed: int) -> "Figure":
    """D2: what F lacks to its supremum, half-step by half-step; and three priors down the ladder of D1."""
    figure = blank(7.6, 3.8)
    climbing, priors = figure.subplots(1, 2)
    fits = below.last(dataset, seed)
    for number, each in enumerate(fits):
        style = {"color": SERIES[number], "marker": MARKERS[number], "markersize": 3, "linewidth": 0.9}
        climbing.plot(
            each.fit.history.elbo - each.supremum, label=each.where.replace(" on the precisions", ""), **style
        )
    climbing.set_yscale("symlog", linthresh=1e-6)
    climbing.set_yticks([-1e3, -1, -1e-3, -1e-6, 0], ["−1000", "−1", "−10⁻³", "−10⁻⁶", "0"])
    climbing.minorticks_off()
    tolerance = TIGHT * abs(fits[0].supremum)
    climbing.set(xlabel="half-step", ylabel="F − its supremum, nats", ylim=(None, 100 * tolerance))
    zone(climbing, tolerance, 100 * tolerance, "above the supremum: never")
    climbing.legend(fontsize=8, loc="lower right")
    scales, heights = ladder.last(dataset)
    decades = np.log10(scales[0] / scales)
    rise = dataset.rows.shape[1] * np.log(10) * decades
    priors.plot(scales, rise, color=FAINT, linewidth=1, label="D log 10 for each decade")
    for number, name in enumerate(SCALE_PRIORS):
        # The first two rise alike: rings about dots.
        style = {"markersize": 8, "fillstyle": "none"} if number == 0 else {"markersize": 4}
        style |= {"color": SERIES[number], "marker": MARKERS[number], "linewidth": 0.9}
        priors.plot(scales, heights[name] - heights[name][0], label=name, **style)
    priors.set(
        xscale="log",
        # The third prior falls faster than any scale would show.
        ylim=(-rise.max() / 2, 1.8 * rise.max()),
        xlabel="σ of the cluster on a row",
        ylabel="change of log p(X, σ), nats",
    )
    powers_of_ten(priors.xaxis, [int(np.log10(scale).round()) for scale in scales[::2]])
    priors.invert_xaxis()
    priors.legend(fontsize=8, loc="upper left")
    return figure


def pruning(dataset: Dataset, seed: int) -> "Figure":
    """E5: what is left of ten components against the concentration; F of Bayesian k-means beside the inertia."""
    rows = e5.centred(dataset)
    figure = blank(10.4, 3.4)
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


def dp_means_and_bound(dataset: Dataset, seed: int) -> "Figure":
    """E6: labels and centres where both end; DP-means' objective and the bound, pass by pass."""
    del seed
    found = limit.last(dataset)
    figure = blank(7.6, 3.6)
    plane, falling = figure.subplots(1, 2, width_ratios=(4, 5))
    labels, last = found.runs[-1].labels[-1], found.passes[-1]
    for index, centre in enumerate(last.centres):
        plane.plot(*found.rows[labels == index].T, MARKERS[index], color=SERIES[index], markersize=2.5)
        plane.plot(*found.runs[-1].fits[-1].params["loc"][index], "P", color=SERIES[index], markeredgecolor=INK)
        plane.plot(*centre, "o", color=INK, markersize=12, fillstyle="none")
    different = int((labels != last.labels).sum())
    plane.set(title=f"{different} of {len(labels)} labels differ", xlabel=dataset.columns[0], ylabel=dataset.columns[1])
    plane.set_aspect("equal")
    falling.plot([step.objective for step in found.passes], color=FAINT, linewidth=1, label="DP-means")
    for number, run in enumerate(found.runs):
        places = found.first + 1 + np.arange(len(run.fits))
        bounds = [scaled_bound(found.rows, run, place) for place in range(len(run.fits))]
        exact = [objective(found.rows, each) for each in run.labels]
        words = (f"−2σ²F, σ² = {run.variance:g}", "objective of the same labels" if number else None)
        both_sides(falling, places, bounds, exact, SERIES[number], words, MARKERS[number])
    falling.set(xlabel="pass", ylabel=f"squared distances + {PENALTY:g} K")
    falling.legend(fontsize=8)
    return figure


def marginals(dataset: Dataset, seed: int) -> "Figure":
    """E7: draws of NUTS as histograms, q as curves; places are of one width in all panels."""
    figure = blank(8.6, 4.6)
    panels = figure.subplots(2, 2)
    both = each_setting.last(dataset, seed)
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


def kept_from_collapse(dataset: Dataset, seed: int) -> "Figure":
    """E8: F + log p(θ) half-step by half-step, and the narrowest direction of the covariances."""
    del seed
    found = regularised.last(dataset)
    figure = blank(7.6, 3.4)
    climbing, narrowest = figure.subplots(1, 2)
    climbing.plot(found.plain, color=FAINT, linewidth=1, label="from SciPy’s densities")
    for half, colour, marker in ((0, SERIES[0], "o"), (1, SERIES[1], "^")):
        places, words = np.arange(half, len(found.plain), 2), f"recorded after an {'EM'[half]} half-step"
        climbing.plot(places, found.recorded[half::2], marker, color=colour, markersize=3, label=words)
    climbing.set(xlabel="half-step", ylabel="F + log p(θ), nats")
    climbing.legend(fontsize=8, loc="lower right")
    setting = found.setting
    widths = [setting.start, *np.sqrt(found.eigenvalues.min(axis=1))]
    narrowest.plot(widths, "o-", color=SERIES[0], markersize=3, label="with the prior")
    # Maximum likelihood ends when a covariance is singular.
    steps = fit_from(setting, setting.start).num_steps
    ends = [fit_from(setting, setting.start, max_steps=number) for number in range(1, steps + 1)]
    collapsing = [np.sqrt(np.linalg.eigvalsh(fit.params["covariance"]).min()) for fit in ends]
    narrowest.plot([setting.start, *collapsing], "^-", color=SERIES[1], markersize=4, label="maximum likelihood")
    narrowest.plot(steps, collapsing[-1], "x", color=SERIES[1], markersize=10)
    narrowest.axhline(found.floor**0.5, color=INK, linewidth=1, linestyle="dashed", label="the floor")
    narrowest.set(xlabel="iteration", ylabel="least standard deviation, minutes", yscale="log")
    powers_of_ten(narrowest.yaxis, range(-2, 1))
    narrowest.legend(fontsize=8)
    return figure
