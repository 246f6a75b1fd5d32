"""G10 and G15: how far F of variational Bayes is below the log likelihood, as the number of rows grows.

Components are normal with variance 1; centres have a normal prior and weights a symmetric Dirichlet prior. Rows are a few
values with weights, so that a million of them cost what sixty-five do.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp
from scipy.stats import norm

import probem
from probem.experiments.bayes.priors.pruning import known_variance
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset, excess
from probem.models import dirichlet
from probem.plotting.fit import SERIES

from .overfitted import STEP, VALUES, draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Components that are offered.
OFFERED = 3
#: Numbers of rows, each a hundred times the one before.
LADDER = (1e3, 1e5, 1e7)
#: Below the threshold (D + 1) / 2 = 1 and above it.
CONCENTRATIONS = (0.25, 0.6, 1.5, 3.0)
#: Steps of EM; from components that part, the last of them are worth little.
NUM_STEPS = 1500
#: Of a slope over log N: F at N has terms of the order of log(N) / N, and what NUM_STEPS have left undone.
SLOPE = 0.03


def bounds(
    rows: Float[np.ndarray, "N D"],
    concentration: float,
    q: Float[np.ndarray, "B N K"],
    row_weights: Float[np.ndarray, "B N"],
    num_steps: int = NUM_STEPS,
) -> Float[np.ndarray, " B"]:
    """F of variational Bayes from every start, nats, total over the rows."""
    weights = functools.partial(dirichlet, concentration=concentration)
    program = functools.partial(known_variance, num_components=OFFERED, weights=weights)
    # At a tolerance of 0 all take the same number of steps, and components that stay one are no reason to look twice.
    fits = probem.fit_many(
        program,
        np.broadcast_to(rows, (len(q), *rows.shape)),
        families=probem.VARIATIONAL_BAYES,
        init=probem.Responsibilities(q),
        row_weights=row_weights,
        max_steps=num_steps,
        tolerance=0.0,
        throw=False,
    )
    return np.asarray(fits.bound.elbo)


def used(rows: Float[np.ndarray, "N D"], number: int) -> Float[np.ndarray, "N K"]:
    """Responsibilities of so many components in equal parts, for every row."""
    return np.pad(np.full((len(rows), number), 1 / number), ((0, 0), (0, OFFERED - number)))


def parted(rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "N K"]:
    """Responsibilities of equally common N(centre, I)."""
    table = rows @ centres.T - (centres**2).sum(axis=1) / 2
    return np.exp(table - np.asarray(logsumexp(table, axis=1, keepdims=True)))


def coefficient(concentration: float, dim: int, true: int = 1) -> float:
    """Of log N in log p(X | truth) - F: the least over how many components k are used, from the true number on.

    A component that is used costs half of log N for each of its D coordinates and, but for the first, half of log N for
    its weight; the weight of an empty one costs the concentration.
    """
    return min(cost(number, concentration, dim) for number in range(true, OFFERED + 1))


#: By the start from which F is highest.
IN_USE = ("one component", "two components", "all, in one place", "all, from where they part")


def cost(number: int, concentration: float, dim: int) -> float:
    """Of log N, with so many components in use."""
    return (OFFERED - number) * concentration + (dim * number + number - 1) / 2


def deficits(
    rows: Float[np.ndarray, "N D"],
    density: Float[np.ndarray, " N"],
    concentrations: Sequence[float],
    ladder: Sequence[float],
    seed: int,
) -> Float[np.ndarray, "A M S"]:
    """log p(X | truth) - F from each start: k components that are one, for every k, and all of them parted; nats.

    ``density`` [N] is what every row is worth under the truth, of which the rows are the nodes.
    """
    centres = np.random.default_rng(seed).standard_normal((OFFERED, rows.shape[1]))
    starts = [*(used(rows, number) for number in range(1, OFFERED + 1)), parted(rows, centres)]
    sizes = np.repeat(np.asarray(ladder), len(starts))
    q = np.tile(np.array(starts), (len(ladder), 1, 1))
    values = np.array([bounds(rows, alpha, q, sizes[:, None] * density) for alpha in concentrations])
    log_truth = norm.logpdf(rows).sum(axis=1) @ density
    return (sizes * log_truth - values).reshape(len(concentrations), len(ladder), len(starts))


def nodes() -> tuple[Float[np.ndarray, "N 1"], Float[np.ndarray, " N"]]:
    """A quadrature of N(0, 1) by equal steps."""
    return VALUES[:, None], norm.pdf(VALUES) * STEP


def stochastic_complexity(seed: int) -> Iterator[Check]:
    """G10, in one dimension."""
    yield from _coefficients(*nodes(), CONCENTRATIONS, LADDER, seed)


def in_two_dimensions(seed: int) -> Iterator[Check]:
    """G10, in one dimension and in two, where the threshold is 3 / 2."""
    yield from stochastic_complexity(seed)
    x, share = nodes()
    middle = np.abs(x[:, 0]) <= 6
    x, share = x[middle, 0], share[middle]
    rows = np.stack([each.ravel() for each in np.meshgrid(x, x)], axis=1)
    yield from _coefficients(rows, np.outer(share, share).ravel(), (0.6, 1.25, 2.0, 3.0), LADDER, seed)


def _coefficients(
    rows: Float[np.ndarray, "N D"],
    density: Float[np.ndarray, " N"],
    concentrations: Sequence[float],
    ladder: Sequence[float],
    seed: int,
) -> Iterator[Check]:
    dim = rows.shape[1]
    below = deficits(rows, density, concentrations, ladder, seed)
    steps = np.diff(np.log(ladder))
    measured = np.diff(below.min(axis=2), axis=1) / steps
    expected = np.array([coefficient(alpha, dim) for alpha in concentrations])
    names = [f"α = {alpha:g}" for alpha in concentrations]
    yield Check(
        "G10",
        NO_DATASET,
        f"D = {dim}: log p(X | truth) − F at the highest F, its growth over that of log N, and the formula",
        np.abs(measured - expected[:, None]),
        SLOPE,
        {
            f"{name}: growth, and the formula": f"{row[-1]:.4f}, {value:g}"
            for name, row, value in zip(names, measured, expected, strict=True)
        },
    )
    each = np.diff(below[:, :, :OFFERED], axis=1) / steps[:, None]
    costs = np.array([[cost(number, alpha, dim) for number in range(1, OFFERED + 1)] for alpha in concentrations])
    yield Check(
        "G10",
        NO_DATASET,
        f"D = {dim}: the same with 1, 2 or {OFFERED} components in use",
        np.abs(each - costs[:, None]),
        SLOPE,
    )
    # The least cost is that of one component below the threshold, and of all above it.
    best = below[:, -1, :].argmin(axis=1)
    few = np.array([alpha < (dim + 1) / 2 for alpha in concentrations])
    yield Check(
        "G10",
        NO_DATASET,
        f"D = {dim}: concentrations at which the highest F uses one component though α > {(dim + 1) / 2:g}, or more though not",
        int(((best == 0) != few).sum()),
        0,
        {name: IN_USE[place] for name, place in zip(names, best, strict=True)},
    )


# --- G15: F beside BIC ---

#: Data sets of each size, the prior of their weights, and steps of variational Bayes and of EM.
SETS, CONCENTRATION, BAYES_STEPS, EM_STEPS = 16, 0.5, 300, 1000
#: Centres that three components are needed for.
NEEDED = (-4.0, 0.0, 4.0)
#: Two weights and three centres.
PARAMETERS = 2 * OFFERED - 1
#: Of a slope over log N. From set to set F + BIC / 2 varies by about a nat: four standard errors of the slope are
#: 4 sqrt(2 / 16) / 9.2 = 0.15, and log log N of the likelihood ratio rises by 0.9 where one component would do.
GROWTH = 0.25


def highest(counts: Float[np.ndarray, "B N"], start: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " B"]:
    """The log likelihood that a plain loop of EM climbs to, over weights and centres, nats."""
    q = np.broadcast_to(start, (len(counts), *start.shape))
    per_row = np.zeros_like(counts)
    for _ in range(EM_STEPS):
        shares = counts[..., None] * q
        totals = shares.sum(axis=1)
        centres = np.einsum("bnk,n->bk", shares, VALUES) / totals
        # log N(x; centre, 1), less what no component has a part in.
        table = np.log(totals / counts.sum(axis=1, keepdims=True)) - centres**2 / 2
        table = VALUES[:, None] * centres[:, None] + table[:, None]
        top = table.max(axis=2, keepdims=True)
        q = np.exp(table - top)
        sums = q.sum(axis=2, keepdims=True)
        q, per_row = q / sums, (top + np.log(sums))[..., 0]
    return (counts * (per_row - VALUES**2 / 2 - math.log(2 * math.pi) / 2)).sum(axis=1)


def beside_bic(true: tuple[float, ...], ladder: Sequence[float], seed: int) -> Float[np.ndarray, "M B"]:
    """F + BIC / 2 of data sets from these centres, nats; BIC = -2 log L + P log N."""
    values = []
    rows = VALUES[:, None]
    truth = np.array([*true, -0.5, 0.5][:OFFERED])[:, None]
    starts = [used(rows, 1) if len(true) == 1 else parted(rows, truth), parted(rows, truth)]
    for size in ladder:
        counts = draws(np.random.default_rng([seed, int(size), len(true)]), int(size), *true)[:SETS]
        q = np.repeat(starts, len(counts), axis=0)
        fits = bounds(rows, CONCENTRATION, q, np.tile(counts, (len(starts), 1)), BAYES_STEPS)
        bic = -2 * highest(counts, starts[-1]) + PARAMETERS * math.log(size)
        values.append(fits.reshape(len(starts), -1).max(axis=0) + bic / 2)
    return np.array(values)


def bic(seed: int) -> Iterator[Check]:
    """G15."""
    log_n = np.log(LADDER) - np.mean(np.log(LADDER))
    for words, true in (("three clusters, three components", NEEDED), ("one cluster, three components", (0.0,))):
        values = beside_bic(true, LADDER, seed)
        growth = float(log_n @ values.mean(axis=1) / (log_n @ log_n))
        expected = PARAMETERS / 2 - coefficient(CONCENTRATION, 1, len(true))
        yield Check(
            "G15",
            NO_DATASET,
            f"{words}: growth of F + BIC / 2 over that of log N, and {expected:g}",
            abs(growth - expected),
            GROWTH,
            {"growth": growth}
            | {f"N = {size:.0e}: F + BIC / 2": float(mean) for size, mean in zip(LADDER, values.mean(axis=1), strict=True)}
            | {"standard deviation from set to set": float(values.std(axis=1).max())},
        )
