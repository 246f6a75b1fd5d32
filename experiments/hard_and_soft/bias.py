"""C4: k-means is biased where clusters overlap, by a number that has a closed form; EM is not."""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
from scipy.stats import chi2, norm

import probem
from probem.checking.residuals import excess
from probem.experiments.claims.claim import NO_DATASET, Check
from probem.models import kmeans

#: Numbers of rows, short and in full, and data sets of each.
LADDER, LONG_LADDER, SETS = (400, 6400), (1000, 10_000, 100_000, 1_000_000), 10
#: A sum of squares of normal errors is outside of these quantiles twice in ten million times.
RARE = 1e-7
#: Half the distance of the two clusters, in their standard deviations: one cluster, and two that overlap.
TRUTHS = (0.0, 1.0)
#: The grid on which a density stands for infinitely many rows: a binary fraction, so that places are exact.
STEP, REACH = 2.0**-8, 15.0


def folded_mean(a: float) -> float:
    """E|x| of equal parts of N(-a, 1) and N(a, 1): the limit of the centres of k-means.

    Source: Bryant & Williamson (1978), Asymptotic behaviour of classification maximum likelihood estimates.
    """
    return float(np.sqrt(2 / np.pi) * np.exp(-(a**2) / 2) + a * (1 - 2 * norm.cdf(-a)))


@dataclasses.dataclass(frozen=True)
class Spread:
    """The limits of N times the variances of the half sum and of the half difference of the two centres."""

    middle: float
    half: float


def spread_of_hard(a: float) -> Spread:
    """By the central limit theorem of k-means: a mean of each half, and a boundary that follows both.

    Source: Pollard (1982), A central limit theorem for k-means clustering, for two clusters in one dimension.
    """
    limit = folded_mean(a)
    # Of |x|; a centre is the mean of half of the rows.
    variance = 1 + a**2 - limit**2
    # The mean of x above a boundary b moves by this part of b.
    follows = 2 * float(norm.pdf(a)) * limit
    return Spread(variance / (1 - follows) ** 2, variance)


def spread_of_soft(a: float) -> Spread:
    """The inverse of the Fisher information of the two means, by a sum over a fine grid."""
    x = np.arange(-REACH, REACH, STEP)
    above, below = norm.pdf(x - a) / 2, norm.pdf(x + a) / 2
    density = above + below
    scores = np.stack([(x + a) * below / density, (x - a) * above / density])
    covariance = np.linalg.inv((scores * density * STEP) @ scores.T)
    return Spread(float(covariance.sum()) / 4, float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / 4)


def centres(rows: np.ndarray, corner: object, weights: np.ndarray | None = None) -> np.ndarray:
    """The two centres of the engine's fit, from -1 and 1, in order."""
    fit = probem.fit(
        functools.partial(kmeans, num_components=2),
        rows[:, None],
        families=corner,
        init=probem.Parameters({"loc": np.array([[-1.0], [1.0]])}),
        row_weights=weights,
        tolerance=1e-12,
        max_steps=300,
        throw=False,
    )
    return np.sort(np.asarray(fit.params["loc"])[:, 0])


@functools.cache
def estimates(ladder: tuple[int, ...], a: float, kind: str, seed: int) -> tuple[np.ndarray, ...]:
    """The centres of every data set, ``[SETS, 2]`` for each number of rows."""
    corner, generator = {"hard": probem.HARD_EM, "soft": probem.EM}[kind], np.random.default_rng((seed, int(a)))
    result = []
    for size in ladder:
        signs = generator.integers(0, 2, (SETS, size)) * 2 - 1
        sets = a * signs + generator.standard_normal((SETS, size))
        result.append(np.stack([centres(rows, corner) for rows in sets]))
    return tuple(result)


def root_mean_square(fitted: tuple[np.ndarray, ...], limit: float) -> np.ndarray:
    """The error of the two centres, by number of rows."""
    return np.array([np.sqrt(((each - [-limit, limit]) ** 2).mean()) for each in fitted])


def biased(seed: int, ladder: tuple[int, ...] = LADDER) -> Iterator[Check]:
    """C4."""
    grid = np.arange(-REACH, REACH, STEP) + STEP / 2
    low, high = chi2.ppf(RARE, SETS), chi2.isf(RARE, SETS)
    for a in TRUTHS:
        limit, words = folded_mean(a), "N(0, 1)" if a == 0 else f"centres at ±{a:g}"
        density = (norm.pdf(grid - a) + norm.pdf(grid + a)) / 2
        endless = centres(grid, probem.HARD_EM, density / density.sum() * len(grid))
        yield Check(
            "C4",
            NO_DATASET,
            f"{words}: centres of hard EM on a density in place of rows, and ± E|x| in closed form",
            np.abs(endless - [-limit, limit]),
            # The midpoint rule, about a kink: step² / 12 times the density there.
            1e-5,
            {"E|x|": limit, "truth": a, "centres": f"{endless[0]:.6f}, {endless[1]:.6f}"},
        )
        kinds = [("hard", limit, spread_of_hard(a))] + ([("soft", a, spread_of_soft(a))] if a else [])
        for kind, target, spread in kinds:
            fitted = estimates(ladder, a, kind, seed)
            outside, ratios = [], {}
            for size, each in zip(ladder, fitted, strict=True):
                errors = {"half sum": each.mean(axis=1), "half difference": (each[:, 1] - each[:, 0]) / 2 - target}
                for name, variance in (("half sum", spread.middle), ("half difference", spread.half)):
                    square = size * float((errors[name] ** 2).sum()) / variance
                    outside += [excess(square / high - 1), excess(low / square - 1)]
                    ratios[f"N = {size}: N E[error²] of the {name}, over its limit"] = square / SETS
            yield Check(
                "C4",
                NO_DATASET,
                f"{words}, {kind} EM: N times the squared errors about {'E|x|' if kind == 'hard' else 'the truth'}, "
                f"{SETS} sets of each N: how far outside the χ² quantiles of their limit, relative",
                outside,
                0,
                ratios,
            )
    # A second cluster that is one too many takes hundreds of steps.
    ladder = ladder[:3]
    fitted = root_mean_square(estimates(ladder, 0.0, "soft", seed), 0.0)
    numbers = {f"N = {size}: root mean square": float(error) for size, error in zip(ladder, fitted, strict=True)}
    yield Check(
        "C4",
        NO_DATASET,
        "N(0, 1), soft EM: root mean square of the centres over the largest N, less that over the smallest",
        excess(fitted[-1] - fitted[0]),
        0,
        numbers,
    )
    yield Check(
        "C4",
        NO_DATASET,
        "N(0, 1): what the centres of soft EM lack to be at most half as far from the truth as those of hard EM",
        excess(fitted[-1] - folded_mean(0.0) / 2),
        0,
    )


def to_a_million(seed: int) -> Iterator[Check]:
    """C4 in full."""
    return biased(seed, LONG_LADDER)
