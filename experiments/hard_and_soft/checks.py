"""C1, C2, C3 and C6: small variances, temperatures, and what lies between the hard and the soft bound."""

from collections.abc import Iterator

import numpy as np
from scipy.special import logsumexp

import probem
from probem.checking.residuals import ROUNDING, SAME, excess, relative, violations
from probem.experiments.claims.claim import NO_DATASET, Check, Dataset
from probem.experiments.kmeans.trajectories import distance
from probem.experiments.oracles.lloyd import inertia, means, nearest

from .plain import Spheres, path, soft_means, tempered_bound
from .runs import COMPONENTS, centres_of, follow, standardised, start_of, tempered

#: Of 1 / (2 sigma²), in units of one over the smallest gap of squared distances.
LADDER = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
#: log p(x, t) is about as large as one over the smallest gap, and is rounded once for each of its D + 2 terms: some
#: 1e6 nats with errors of 1e-16.
IN_NATS = 1e-8
#: What is not on the mode is compared above the smallest float64, 1e-308.
LEAST = -690.0

#: Powers, steps, and how many random q each of these is held against.
BETAS, STEPS, RANDOM = (0.3, 1.0, 3.0), 6, 50
#: Draws of centres and scale.
DRAWS = 5
#: Half the side of the square in whose corners four clusters of unit variance stand.
SEPARATIONS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)


def scales(gaps: np.ndarray) -> list[float]:
    """The standard deviations of the ladder."""
    return [float(np.sqrt(gaps.min() / (2 * step))) for step in LADDER]


def log_beside(log_q: np.ndarray) -> np.ndarray:
    """log(1 - max_k q_ik), as the logarithm of the sum of all others, ``[N]``."""
    return np.asarray(logsumexp(np.sort(log_q, axis=1)[:, :-1], axis=1))


def small_variance(dataset: Dataset, seed: int) -> Iterator[Check]:
    """C1."""
    rows = standardised(dataset)
    loc = start_of(rows, seed)
    size, dim = rows.shape
    gaps, labels = Spheres(loc, 1.0).gaps(rows), nearest(rows, loc)
    half, closest = inertia(rows, labels, loc) / 2, int(gaps.argmin())
    lloyd_means = means(rows, labels, loc)
    widths = np.linalg.norm(rows[:, None] - lloyd_means, axis=2).max(axis=0)
    errors, above, slopes, moved, further, bounds, distances, late = [], [], [], [], [], [], [], []
    for scale in scales(gaps):
        spheres = Spheres(loc, scale)
        fits = follow(rows, spheres, probem.EM, 1)
        q = np.asarray(fits[0].responsibilities(rows))
        with np.errstate(divide="ignore"):
            beside = np.log(np.sort(q, axis=1)[:, :-1].sum(axis=1))
        limit = np.log(COMPONENTS - 1) - gaps / (2 * scale**2)
        seen = limit > LEAST
        errors.append(np.abs(beside - log_beside(spheres.log_q(rows)))[seen].max())
        above.append(excess(beside - limit))
        slopes.append(beside[closest])
        # A mean moves by at most what its rows are off, times how far a row is from it.
        at_most = np.exp(limit).sum()
        counts = q.sum(axis=0)
        moved.append(np.linalg.norm(np.asarray(fits[1].params["loc"]) - lloyd_means, axis=1))
        further.append(excess(moved[-1] - widths * at_most / counts))
        # sigma² log p(X) without what of it is of Gaussian and weights, above -J / 2.
        constant = size * np.log(COMPONENTS) + size * dim / 2 * np.log(2 * np.pi * scale**2)
        rest = scale**2 * (fits[0].elbo + constant) + half
        bounds.append([excess(rest - scale**2 * at_most), excess(-rest)])
        distances.append(abs(scale**2 * fits[0].elbo + half) / half)
        vanishing = size * (np.log(COMPONENTS) + dim / 2 * abs(np.log(2 * np.pi * scale**2))) + at_most
        late.append(excess(distances[-1] - scale**2 * vanishing / half))
    numbers: dict[str, float | int] = {"rows": size, "smallest gap": float(gaps.min()), "rungs": len(LADDER)}
    name = dataset.name
    yield Check(
        "C1", name, "log(1 − max q) of every row, by the engine and by a plain loop (nats)", errors, IN_NATS, numbers
    )
    yield Check(
        "C1", name, "log(1 − max q): how far above log(K − 1) − Δ/2σ², over all rows and σ (nats)", above, IN_NATS
    )
    rise = (slopes[-1] - slopes[-2]) / (LADDER[-1] - LADDER[-2])
    yield Check(
        "C1",
        name,
        "slope of log(1 − max q) against 1/σ² between the last two rungs, and −Δ/2, in the row of the smallest gap, "
        "relative",
        abs(rise + 1),
        # Further clusters add terms of the size exp(-32 (their gap / the smallest - 1)).
        1e-6,
        {"log(1 − max q) at the widest σ": slopes[0], "and at the narrowest": slopes[-1]},
    )
    yield Check(
        "C1",
        name,
        "centres after one soft update: how much further from Lloyd’s than the bound allows",
        further,
        ROUNDING,
        {"distance at the widest σ": float(moved[0].max()), "at the narrowest": float(moved[-1].max())},
    )
    yield Check("C1", name, "centres after one soft update at the narrowest σ, and Lloyd’s", moved[-1], ROUNDING)
    yield Check(
        "C1",
        name,
        "σ² (log p(X) + N log K + (ND/2) log 2πσ²) + J/2: how far outside 0 to σ² Σ (K − 1) exp(−Δ/2σ²), relative to J",
        np.array(bounds) / half,
        ROUNDING,
        {"J/2": half},
    )
    yield Check(
        "C1",
        name,
        "σ² log p(X) against −J/2: how much further than σ² (N log K + (ND/2) |log 2πσ²| + Σ (K − 1) exp(−Δ/2σ²)), "
        "which vanishes, relative to J",
        late,
        ROUNDING,
        {"distance at the widest σ": distances[0], "at the narrowest": distances[-1]},
    )


def temperature(dataset: Dataset, seed: int) -> Iterator[Check]:
    """C2."""
    rows, generator = standardised(dataset), np.random.default_rng(seed)
    start = Spheres(start_of(rows, seed), 0.7)
    falls, recorded, optimal, random, same, numbers = [], [], [], [], [], {}
    for beta in BETAS:
        fits = follow(rows, start, tempered(beta), STEPS)
        centres, values = centres_of(fits), []
        for now, after in zip(centres, [*centres[1:], None], strict=True):
            log_joint, log_q = Spheres(now, start.scale).log_joint(rows), Spheres(now, start.scale).log_q(rows, beta)
            values.append(tempered_bound(log_joint, log_q, beta))
            optimal.append(relative(values[-1], float(np.asarray(logsumexp(beta * log_joint, axis=1)).sum()) / beta))
            if after is not None:
                values.append(tempered_bound(Spheres(after, start.scale).log_joint(rows), log_q, beta))
        q = np.asarray(fits[0].responsibilities(rows))
        same.append(np.abs(q - np.exp(start.log_q(rows, beta))))
        others = [0.9 * q + 0.1 * generator.dirichlet(np.ones(COMPONENTS), len(rows)) for _ in range(RANDOM)]
        log_joint = start.log_joint(rows)
        random += [tempered_bound(log_joint, np.log(other), beta) < values[0] for other in others]
        falls.append(-np.diff(values) / abs(values[0]))
        objective = fits[-1].history.objective[: len(values)]
        recorded.append(np.abs(objective - np.array(values)) / np.abs(values).max())
        numbers[f"β = {beta:g}: rise over {STEPS} steps (nats)"] = values[-1] - values[0]
    name = dataset.name
    yield Check(
        "C2", name, "q of every row, and p(x, t)^β normalised", same, SAME, {"β": ", ".join(f"{b:g}" for b in BETAS)}
    )
    yield Check(
        "C2",
        name,
        "E log p + H/β after every half-step, as recorded by the engine and by a plain loop, relative",
        np.concatenate(recorded),
        SAME,
    )
    yield Check(
        "C2",
        name,
        "E log p + H/β: by how much it falls in a half-step, relative",
        excess(np.concatenate(falls)),
        ROUNDING,
        numbers,
    )
    yield Check(
        "C2", name, "E log p + H/β after an E-step, and Σ log Σ p(x, t)^β / β, its maximum, relative", optimal, SAME
    )
    yield Check("C2", name, f"of {len(random)} other q, those at which it is no lower", violations(random), 0)
    for words, beta, power in (("β = 1, and EM", 1.0, 1.0), ("β = 10⁹, and Lloyd’s algorithm", 1e9, np.inf)):
        ours = centres_of(follow(rows, start, tempered(beta), STEPS))
        yield _paths(name, f"{words}, by a plain loop", ours, path(rows, start, power, STEPS))
    yield from _one_knob(name, rows, start)


def _one_knob(name: str, rows: np.ndarray, start: Spheres) -> Iterator[Check]:
    beta = BETAS[-1]
    ours = centres_of(follow(rows, start, tempered(beta), STEPS))
    narrow = Spheres(start.loc, start.scale / np.sqrt(beta))
    yield _paths(
        name,
        f"β = {beta:g}, and EM of the engine with σ² / {beta:g}",
        ours,
        centres_of(follow(rows, narrow, probem.EM, STEPS)),
    )
    yield _paths(name, f"β = {beta:g}, and EM with σ² / {beta:g} by a plain loop", ours, path(rows, narrow, 1.0, STEPS))


def _paths(name: str, words: str, ours: list[np.ndarray], theirs: list[np.ndarray]) -> Check:
    apart = [distance(first, second) for first, second in zip(ours, theirs, strict=False)]
    # A fit that ends before the plain loop does is as far from it as can be.
    apart += [np.inf] * abs(len(ours) - len(theirs))
    # The map of a step may stretch a rounding error by a small factor, six times over.
    return Check("C2", name, f"{words}: centres of every iteration, relative", apart, SAME)


def softness(dataset: Dataset, seed: int) -> Iterator[Check]:
    """C3 on the rows of a data set."""
    rows, generator = standardised(dataset), np.random.default_rng(seed)
    residuals, outside, gaps = [], [], []
    most = len(rows) * np.log(COMPONENTS)
    for _ in range(DRAWS):
        loc = generator.standard_normal((COMPONENTS, rows.shape[1]))
        spheres = Spheres(loc, float(np.exp(generator.uniform(-1.5, 1.0))))
        soft, hard = bounds_of(rows, spheres)
        gap, expected = soft - hard, float(-spheres.log_q(rows).max(axis=1).sum())
        residuals.append(relative(gap, expected, soft, hard))
        outside += [excess(-gap) / abs(soft), excess(gap - most) / abs(soft)]
        gaps.append(gap)
    numbers = {"N log K": most, "smallest": float(np.sort(gaps)[0]), "largest": float(np.sort(gaps)[-1])}
    name = dataset.name
    yield Check(
        "C3",
        name,
        f"F of EM less F of hard EM at {DRAWS} random θ, and −Σ log max q by a plain loop, relative to F",
        residuals,
        SAME,
        numbers,
    )
    yield Check("C3", name, "F of EM less F of hard EM: how far outside 0 to N log K, relative to F", outside, ROUNDING)
    equal = Spheres(np.tile(rows.mean(axis=0), (COMPONENTS, 1)), 1.0)
    soft, hard = bounds_of(rows, equal)
    yield Check(
        "C3",
        name,
        "all centres at one place: F of EM less F of hard EM, and N log K, relative to F",
        relative(soft - hard, most, soft, hard),
        SAME,
        {"N log K": most},
    )


def bounds_of(rows: np.ndarray, spheres: Spheres) -> tuple[float, float]:
    """F of EM and of hard EM at the same parameters, by the engine; nats."""
    soft, hard = (follow(rows, spheres, corner)[0].elbo for corner in (probem.EM, probem.HARD_EM))
    return soft, hard


def corners_of_a_square(separation: float, seed: int) -> tuple[np.ndarray, Spheres]:
    """Fifty rows of unit variance about each corner, and the model that they are drawn from."""
    corners = separation * np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    noise = np.random.default_rng(seed).standard_normal((200, 2))
    return np.repeat(corners, 50, axis=0) + noise, Spheres(corners, 1.0)


def separating(seed: int) -> Iterator[Check]:
    """C3 by itself: clusters that move apart."""
    gaps, above, sizes = [], [], []
    for separation in SEPARATIONS:
        rows, spheres = corners_of_a_square(separation, seed)
        soft, hard = bounds_of(rows, spheres)
        limit = np.minimum((COMPONENTS - 1) * np.exp(-spheres.gaps(rows) / 2), np.log(COMPONENTS)).sum()
        gaps.append(soft - hard)
        sizes.append(abs(soft))
        above.append(excess(gaps[-1] - limit) / abs(soft))
    yield Check(
        "C3",
        NO_DATASET,
        "clusters moving apart: how far F of EM less F of hard EM is above Σ (K − 1) exp(−Δ/2), relative to F",
        above,
        ROUNDING,
        {f"corners at ±{s:g}": gap for s, gap in zip(SEPARATIONS, gaps, strict=True)},
    )
    yield Check(
        "C3",
        NO_DATASET,
        "clusters moving apart: F of EM less F of hard EM at the last, relative to F",
        abs(gaps[-1]) / sizes[-1],
        ROUNDING,
    )


def largest_terms(dataset: Dataset, seed: int) -> Iterator[Check]:
    """C6."""
    rows = standardised(dataset)
    start = Spheres(start_of(rows, seed), 0.7)
    ordered = -np.sort(-start.log_joint(rows), axis=1)
    runs = {kept: follow(rows, start, {"t": probem.TopC(kept)}, STEPS) for kept in range(1, COMPONENTS + 1)}
    bounds = [runs[kept][0].elbo for kept in runs]
    expected = [float(np.asarray(logsumexp(ordered[:, :kept], axis=1)).sum()) for kept in runs]
    numbers = {f"C = {kept}": bound for kept, bound in zip(runs, bounds, strict=True)}
    name = dataset.name
    yield Check(
        "C6",
        name,
        "F with the C largest terms, and Σ log of their sum by a plain loop, for every C, relative",
        np.abs(np.divide(bounds, expected) - 1),
        SAME,
        numbers,
    )
    soft, hard = bounds_of(rows, start)
    yield Check(
        "C6",
        name,
        "F with C = 1 and of hard EM, with C = K and of EM, relative",
        [relative(bounds[0], hard), relative(bounds[-1], soft)],
        ROUNDING,
    )
    yield Check(
        "C6",
        name,
        "how often F with one term more is not higher",
        violations(np.diff(bounds) > 0),
        0,
        {"F of EM less F of hard EM (nats)": soft - hard},
    )
    falls = [-np.diff(run[-1].history.elbo[: 2 * STEPS + 1]) / abs(run[0].elbo) for run in runs.values()]
    yield Check(
        "C6", name, f"by how much F falls in any of {2 * STEPS} half-steps, every C, relative", excess(falls), ROUNDING
    )
    apart = []
    for kept, run in runs.items():
        centres = centres_of(run)
        table = Spheres(centres[0], start.scale).log_joint(rows)
        cut = np.where(table >= -np.sort(-table, axis=1)[:, [kept - 1]], table, -np.inf)
        q = np.exp(cut - np.asarray(logsumexp(cut, axis=1, keepdims=True)))
        apart.append(distance(centres[1], soft_means(rows, q)))
    yield Check(
        "C6", name, "centres after a step, and means weighted by the terms kept, every C, relative", apart, SAME
    )
