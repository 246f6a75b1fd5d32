"""G9: at which power annealed EM leaves the common mean, and how fast."""

from collections.abc import Iterator

import numpy as np

from probem.checking.residuals import excess, violations
from probem.experiments.claims.claim import Check, Dataset

from .plain import Spheres
from .runs import COMPONENTS, follow, standardised, tempered

#: Powers as parts of the critical one, at which the growth is measured ...
PARTS = (0.5, 0.9, 1.1, 2.0)
#: ... by so many steps from a distance so small that its square is rounding.
ITERATIONS, CLOSE = 25, 1e-7
#: The growth is exact but for terms of the size of that distance, and rounding of 1e-16 over it.
SIX_DIGITS = 1e-6
#: Powers below and above, how many steps of both, and from where.
BELOW, ABOVE, STEPS, NEARBY = 0.8, 1.25, 60, 1e-3
#: The standard deviation that all clusters share.
SCALE = 0.7


def growth(rows: np.ndarray, beta: float, seed: int, iterations: int) -> float:
    """By how much one step of the engine makes the distance from the common mean grow, in the end.

    The centres begin at the mean and a little beside it, in random directions that cancel. After every step they are
    brought back to that distance: what is left is the direction that grows the most.
    """
    mean = rows.mean(axis=0)
    beside = np.random.default_rng(seed).standard_normal((COMPONENTS, rows.shape[1]))
    beside -= beside.mean(axis=0)
    rate = np.nan
    for _ in range(iterations):
        beside *= CLOSE / np.linalg.norm(beside)
        after = follow(rows, Spheres(mean + beside, SCALE), tempered(beta), 1)[1]
        moved = np.asarray(after.params["loc"]) - mean
        # What is common to all centres is not a distance between them.
        moved -= moved.mean(axis=0)
        rate, beside = float(np.linalg.norm(moved) / CLOSE), moved
    return rate


def critical(rows: np.ndarray) -> float:
    """sigma² over the largest eigenvalue of the covariance of the rows."""
    covariance = np.cov(rows, rowvar=False, bias=True).reshape(rows.shape[1], -1)
    return SCALE**2 / float(np.linalg.eigvalsh(covariance)[-1])


def distances(rows: np.ndarray, part: float, seed: int) -> np.ndarray:
    """How far the centres are from the common mean, step by step, at a part of the critical power."""
    mean = rows.mean(axis=0)
    beside = np.random.default_rng(seed).standard_normal((COMPONENTS, rows.shape[1]))
    beside *= NEARBY / np.linalg.norm(beside - beside.mean(axis=0))
    fits = follow(rows, Spheres(mean + beside - beside.mean(axis=0), SCALE), tempered(part * critical(rows)), STEPS)
    return np.array([np.linalg.norm(np.asarray(fit.params["loc"]) - mean) for fit in fits])


def phase_transition(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G9."""
    rows = standardised(dataset)
    limit = critical(rows)
    rates = {part: growth(rows, part * limit, seed, ITERATIONS) for part in PARTS}
    name = dataset.name
    yield Check(
        "G9",
        name,
        "growth of the distance from the common mean in a step, and β/β_c, relative",
        [abs(rate / part - 1) for part, rate in rates.items()],
        SIX_DIGITS,
        {"β_c = σ²/λ_max": limit} | {f"β = {part:g} β_c: growth": rate for part, rate in rates.items()},
    )
    back, away = distances(rows, BELOW, seed), distances(rows, ABOVE, seed)
    width = float(np.sqrt(SCALE**2 / limit))
    # Below, every direction shrinks; a step may not do worse than the slowest of them.
    yield Check(
        "G9",
        name,
        f"β = {BELOW:g} β_c: how far the centres are from the mean after {STEPS} steps, beyond (β/β_c)^{STEPS} of the "
        "start, relative",
        excess(back[-1] / back[0] - 1.01 * BELOW**STEPS),
        0,
        {"at the start": back[0], "at the end": back[-1]},
    )
    yield Check(
        "G9",
        name,
        f"β = {ABOVE:g} β_c: what the centres lack after {STEPS} steps to be a tenth of the width of the data apart",
        excess(0.1 * width - away[-1]),
        0,
        {"at the start": away[0], "at the end": away[-1], "√λ_max": width},
    )
    yield Check(
        "G9",
        name,
        f"β = {ABOVE:g} β_c: steps, of the last half, in which the centres come nearer to the mean",
        violations(np.diff(away[STEPS // 2 :]) > -1e-9 * width),
        0,
    )
