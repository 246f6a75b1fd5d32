"""C5: where annealed EM ends, and where EM from random starts does."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import probem
from probem.checking.residuals import excess
from probem.experiments.claims.claim import NO_DATASET, Check
from probem.models import equal, gmm, shared_spherical

from .plain import Spheres, soft_means

#: Clusters of so many rows, their standard deviation 1, no two closer than that, in a square of this half side.
CLUSTERS, ROWS, CLOSEST, SIDE = 8, 30, 5.0, 12.0
#: Random restarts, annealed ones, and how many of each a plain loop repeats.
RESTARTS, ANNEALED, REPEATED = 40, 12, 6
#: The power begins at this part of the critical one and grows by this factor in a step.
FIRST, FACTOR = 0.8, 1.05
#: Steps of the plain loop after the schedule, and nats per row at which the engine stops.
AFTERWARDS, TOLERANCE = 400, 1e-9
#: Relative; two ends differ by some hundred nats in a thousand.
SAME_END = 1e-6


def clusters(seed: int) -> np.ndarray:
    """Eight clusters of thirty rows at random places, ``[240, 2]``."""
    generator, centres = np.random.default_rng(seed), np.zeros((0, 2))
    while len(centres) < CLUSTERS:
        place = generator.uniform(-SIDE, SIDE, 2)
        if np.all(np.linalg.norm(centres - place, axis=1) > CLOSEST):
            centres = np.vstack([centres, place])
    return np.repeat(centres, ROWS, axis=0) + generator.standard_normal((CLUSTERS * ROWS, 2))


def critical(rows: np.ndarray) -> float:
    """The power at which the centres leave the mean (G9)."""
    return 1 / float(np.linalg.eigvalsh(np.cov(rows, rowvar=False, bias=True))[-1])


def annealed_from(first: float) -> probem.Annealed:
    """The posterior to a power that grows from ``first`` by ``FACTOR`` in a step until it is 1."""
    return probem.Annealed(start=first, steps=-np.log(first) / np.log(FACTOR))


def random_starts(rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """Random rows as centres, ``[K, D]`` each."""
    generator = np.random.default_rng((seed, 1))
    return [rows[generator.choice(len(rows), CLUSTERS, replace=False)] for _ in range(RESTARTS)]


def starts_at_the_mean(rows: np.ndarray, seed: int) -> list[np.ndarray]:
    """The mean of all rows, and a hundredth of a standard deviation beside it, ``[K, D]`` each."""
    generator = np.random.default_rng((seed, 2))
    return [rows.mean(axis=0) + 0.01 * generator.standard_normal((CLUSTERS, 2)) for _ in range(ANNEALED)]


def ends(rows: np.ndarray, starts: list[np.ndarray], families: Any) -> np.ndarray:
    """F of the engine where the fit from each start ends, nats."""
    left = iter(starts)
    fit = probem.fit(
        functools.partial(gmm, num_components=CLUSTERS, covariance=shared_spherical, weights=equal),
        rows,
        families=families,
        init=lambda key, seen: {"loc": next(left), "scale": np.float64(1.0)},
        fixed={"scale": 1.0},
        restarts=len(starts),
        max_steps=2000,
        tolerance=TOLERANCE,
        throw=False,
    )
    return np.asarray(fit.restart_elbos)


def plain_end(rows: np.ndarray, loc: np.ndarray, power: Callable[[int], float], num_steps: int) -> float:
    """log p(X) after a plain loop, whose posterior is raised to a power in every step; nats."""
    for number in range(num_steps):
        loc = soft_means(rows, np.exp(Spheres(loc, 1.0).log_q(rows, power(number))))
    return Spheres(loc, 1.0).log_likelihood(rows)


@functools.cache
def compared(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """F of random restarts, and of annealed ones, nats."""
    rows = clusters(seed)
    annealed = {"t": annealed_from(FIRST * critical(rows))}
    return (
        ends(rows, random_starts(rows, seed), probem.EM),
        ends(rows, starts_at_the_mean(rows, seed), annealed),
    )


def annealed_and_random(seed: int) -> Iterator[Check]:
    """C5."""
    rows = clusters(seed)
    random, annealed = compared(seed)
    first = FIRST * critical(rows)
    last = int(np.ceil(annealed_from(first).steps))

    def rising(number: int) -> float:
        return float(np.minimum(1.0, first * FACTOR**number))

    words = f"eight clusters, set {seed}"
    plain = [plain_end(rows, loc, lambda number: 1.0, AFTERWARDS) for loc in random_starts(rows, seed)[:REPEATED]]
    yield Check(
        "C5",
        NO_DATASET,
        f"{words}: F where {REPEATED} random restarts end, and log p(X) after a plain loop, relative",
        np.abs(random[:REPEATED] / np.array(plain) - 1),
        # The engine stops where it expects to gain 1e-9 nats a row, of a few.
        SAME_END,
        {"steps of the plain loop": AFTERWARDS},
    )
    starts = starts_at_the_mean(rows, seed)[:REPEATED]
    plain = [plain_end(rows, loc, rising, last + AFTERWARDS) for loc in starts]
    alike = np.abs(annealed[:REPEATED] / np.array(plain) - 1) <= SAME_END
    yield Check(
        "C5",
        NO_DATASET,
        f"{words}: of {REPEATED} annealed fits, how many fewer than half end where a plain loop does (centres that "
        "have met part again along the last digit)",
        excess(REPEATED / 2 - int(alike.sum())),
        0,
        {"that end there": int(alike.sum()), "steps of the schedule": last},
    )
    best = np.maximum(random.max(), annealed.max())
    at_the_best = {
        f"of {len(values)} {kind} starts, those that end at the highest F": int((values > best - 0.01).sum())
        for kind, values in (("random", random), ("annealed", annealed))
    }
    yield Check(
        "C5",
        NO_DATASET,
        f"{words}: how far the median F of annealed EM is below that of random restarts, relative",
        excess(np.median(random) - np.median(annealed)) / abs(best),
        1e-7,
        {
            "median of random restarts": float(np.median(random)),
            "median of annealed EM": float(np.median(annealed)),
            "lowest of annealed EM": float(annealed.min()),
            "highest F of all": float(best),
            **at_the_best,
        },
    )
    yield Check(
        "C5",
        NO_DATASET,
        f"{words}: what the share of annealed starts that end at the highest F lacks to be that of random ones",
        excess(np.mean(random > best - 0.01) - np.mean(annealed > best - 0.01)),
        0,
    )


def several_sets(seed: int) -> Iterator[Check]:
    """C5 in full."""
    for number in range(6):
        yield from annealed_and_random(seed + number)
