"""E6: the Dirichlet-process mixture with point masses on the assignments, as its variance vanishes, and DP-means.

The concentration is tied to the variance, log alpha = D/2 log(1 + SPREAD² / variance) - PENALTY / (2 variance). Source:
Kulis & Jordan (2012), Revisiting k-means: new algorithms via Bayesian nonparametrics, section 3.1.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np
from scipy.special import digamma

import probem
from probem.checking.residuals import violations, worst
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.experiments.oracles.dp_means import Pass, dp_means
from probem.experiments.oracles.lloyd import inertia, means, nearest, squared_distances
from probem.models import gmm, spherical, stick_breaking

from .pruning import SPREAD, centred, known_variance

#: DP-means' penalty, and the variances. With a smaller one the concentration, exp(-673) here, is no number any more.
PENALTY, VARIANCES = 7.0, (0.052, 0.0052)
#: Every second row: among all of them, in some pass, there are some too near to a boundary for the variances above.
EVERY = 2


@dataclasses.dataclass(frozen=True)
class Run:
    """The engine from the first pass after which DP-means opens no cluster: a fit and labels for every pass."""

    variance: float
    fits: list[probem.Fit]
    labels: list[np.ndarray]


def log_concentration(variance: float, dim: int) -> float:
    """log alpha for which the probability of a new cluster costs what the squared distance PENALTY does."""
    return float(dim / 2 * np.log1p(SPREAD**2 / variance) - PENALTY / (2 * variance))


def last_opening(passes: tuple[Pass, ...]) -> int:
    """The pass after which the number of clusters stays what it is."""
    sizes = [len(step.centres) for step in passes]
    return next(number for number in range(len(sizes)) if len(set(sizes[number:])) == 1)


def follow(rows: np.ndarray, first: Pass, variance: float) -> Run:
    """Point masses on the assignments, full posteriors otherwise; as many components as DP-means has clusters."""
    concentration = float(np.exp(log_concentration(variance, rows.shape[1])))
    weights = functools.partial(stick_breaking, concentration=concentration)
    program = functools.partial(known_variance, num_components=len(first.centres), weights=weights, variance=variance)
    corner, start = probem.MAXIMIZATION_EXPECTATION, probem.Labels(first.labels)
    fits = list(probem.iterate(program, rows, families=corner, init=start))
    return Run(variance, fits, [np.asarray(fit.predict(rows)) for fit in fits])


def scaled_bound(rows: np.ndarray, run: Run, number: int = -1) -> float:
    """-2 variance F of a pass, otherwise the last, without the constants that no assignment changes."""
    (num_rows, dim), variance = rows.shape, run.variance
    constant = num_rows * dim / 2 * np.log(2 * np.pi * variance) + dim / 2 * np.log1p(SPREAD**2 / variance)
    return float(-2 * variance * (run.fits[number].elbo + constant) + PENALTY)


def objective(rows: np.ndarray, labels: np.ndarray) -> float:
    """DP-means' objective sum_n ‖x_n - mu_(t_n)‖² + PENALTY K, at the means and without empty clusters."""
    num_components = labels.max() + 1
    centres = means(rows, labels, np.zeros((num_components, rows.shape[1])))
    return inertia(rows, labels, centres) + PENALTY * len(np.unique(labels))


def strays(rows: np.ndarray, run: Run) -> tuple[int, int, float]:
    """Over all passes: rows not with the nearest centre, those outside the margin among them, the widest margin.

    The E-step of the engine is argmin_k ‖x - m_k‖² + v_k - 2 variance E log w_k, where v_k is the trace of the
    covariance of the centre under q. It is the nearest centre wherever two distances differ by more than these do.
    """
    different = outside = 0
    margins = []
    for fit, labels in zip(run.fits, run.labels, strict=True):
        q = {name: np.asarray(value) for name, value in fit.variational["sticks"].items()}
        total = digamma(q["concentration1"] + q["concentration0"])
        taken, remaining = digamma(q["concentration1"]) - total, digamma(q["concentration0"]) - total
        log_weights = np.append(taken, 0.0) + np.append(0.0, np.cumsum(remaining))
        centres = np.asarray(fit.params["loc"])
        covariance = np.asarray(fit.variational["loc"]["covariance"]).reshape(centres.shape)
        margin = float(np.ptp(covariance.sum(axis=1) - 2 * run.variance * log_weights))
        distances = squared_distances(rows, centres)
        chosen = distances[np.arange(len(rows)), labels]
        different += int((labels != nearest(rows, centres)).sum())
        outside += violations(chosen - distances.min(axis=1) <= margin)
        margins.append(margin)
    return different, outside, worst(margins)


def opening(rows: np.ndarray, passed: Pass, variance: float) -> tuple[int, int]:
    """How many rows DP-means would open a cluster for, and how many the log joint treats otherwise, off a margin.

    The table is that of a mixture with the clusters as they are (weights by their rows, known variance) and one more,
    of weight alpha, for whose centre there is only the prior.
    """
    (num_rows, dim), counts = rows.shape, np.bincount(passed.labels)
    weights = np.append(counts, np.exp(log_concentration(variance, dim)))
    scale = np.append(np.full(len(counts), variance), variance + SPREAD**2) ** 0.5
    program = functools.partial(gmm, num_components=len(weights), covariance=spherical)
    params = {"weights": weights / weights.sum(), "loc": np.vstack([passed.centres, np.zeros(dim)]), "scale": scale}
    table = np.asarray(jax.jit(functools.partial(probem.log_joint, program))(params, rows))
    chosen = table.argmax(axis=1)
    distances = squared_distances(rows, passed.centres)
    # What DP-means compares: squared distances to centres, and the penalty for a new one.
    costs = np.column_stack([distances, np.full(num_rows, PENALTY)])
    margin = 2 * variance * (np.log(num_rows) + (rows**2).sum(axis=1).max() / (2 * SPREAD**2))
    right = costs[np.arange(num_rows), chosen] - costs.min(axis=1) <= margin
    # What is no number has no largest entry, and so no choice.
    right &= np.isfinite(table).all(axis=1)
    return int((distances.min(axis=1) > PENALTY).sum()), violations(right)


@dataclasses.dataclass(frozen=True, eq=False)
class Limit:
    """DP-means on rows ``[N, 2]``, the pass ``first`` after which it opens no cluster, and the engine from there, once
    for each variance.
    """

    rows: np.ndarray
    passes: tuple[Pass, ...]
    first: int
    runs: list[Run]


@Kept
def limit(dataset: Dataset) -> Limit:
    """DP-means and the engine."""
    rows = centred(dataset)[::EVERY]
    passes = dp_means(rows, PENALTY)
    first = last_opening(passes)
    return Limit(rows, passes, first, [follow(rows, passes[first], variance) for variance in VARIANCES])


def small_variance(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E6: rule, labels and objective."""
    del seed
    found = limit(dataset)
    rows, passes, first, runs = found.rows, found.passes, found.first, found.runs
    every = Pass(np.zeros(len(rows), dtype=int), rows.mean(axis=0, keepdims=True), 0.0)
    openings = [opening(rows, step, VARIANCES[-1]) for step in (every, passes[first], passes[-1])]
    yield Check(
        "E6",
        dataset.name,
        "one more cluster: rows for which the log joint chooses otherwise than DP-means’ rule, off the margin",
        sum(wrong for _, wrong in openings),
        0,
        {"rows that ask for a cluster at the start": openings[0][0], "at the end": openings[-1][0]},
    )
    for run in runs:
        different, outside, margin = strays(rows, run)
        yield Check(
            "E6",
            dataset.name,
            f"σ² = {run.variance:g}: rows of all passes not with the nearest of the engine’s centres, off the margin",
            outside,
            0,
            {"passes": len(run.labels), "rows within the margin": different, "margin, a squared distance": margin},
        )
    ours, theirs = runs[-1].labels, [step.labels for step in passes[first + 1 :]]
    yield Check(
        "E6",
        dataset.name,
        f"σ² = {VARIANCES[-1]:g}: labels unlike DP-means’ in any pass once it opens no cluster, and passes too many",
        sum(int((labels != other).sum()) for labels, other in zip(ours, theirs, strict=False))
        + abs(len(ours) - len(theirs)),
        0,
        {"passes compared": len(ours), "passes before": first + 1, "clusters": len(passes[-1].centres)},
    )
    errors = [scaled_bound(rows, run) - objective(rows, run.labels[-1]) for run in runs]
    yield Check(
        "E6",
        dataset.name,
        "−2σ²F, constants aside, and DP-means’ objective: their difference over σ², at one variance and the other",
        abs(errors[1] / errors[0] * VARIANCES[0] / VARIANCES[1] - 1),
        1e-3,
        {"DP-means’ objective": objective(rows, runs[-1].labels[-1])}
        | {f"difference at σ² = {run.variance:g}": error for run, error in zip(runs, errors, strict=True)},
    )
