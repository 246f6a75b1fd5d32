"""B8 and B10: where k-means stops, and where it stops being EM's special case."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

import probem
from probem.checking.residuals import excess, violations, worst
from probem.experiments.claims.claim import NO_DATASET, Check, Dataset
from probem.experiments.oracles.lloyd import inertia, lloyd, means, nearest, partitions, squared_distances, starts, tied
from probem.families import Corner
from probem.models import equal, full, gmm, identity, spherical
from probem.models import tied as tied_covariance

from .paths import COMPONENTS
from .trajectories import Trajectory, distance, follow_em, k_means

#: Four rows on a line whose mean is a whole number, so that nothing is rounded. From the start 2, 3 the centres become
#: 1 and 3: the row at 2 is then equally far from both.
TIED_ROWS = np.array([[0.0], [2.0], [3.0], [3.0]])
#: The same with the pair moved a little to the right: no tie, and yet not the best there is.
LOCAL_ROWS = np.array([[0.0], [2.0], [3.25], [3.25]])
TIED_START = np.array([[2.0], [3.0]])

# How far from a tied fixed point it is tried whether J is lower, as parts of the way to the other labelling's means.
_PARTS_OF_THE_WAY = 10.0 ** -np.arange(1, 8)

#: How many rows are few enough to try every partition of them.
FEW = 9

#: Iterations in which labels have to part from Lloyd's.
MAX_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Dropped:
    """What is left of the model when one restriction is dropped, and what its start needs beside the centres."""

    restrictions: Mapping[str, Any]
    start: Mapping[str, Callable[[int, int], np.ndarray]]
    corner: Corner = probem.HARD_EM


DROPPED = {
    "free weights": Dropped({"covariance": identity}, {"weights": lambda k, d: np.full(k, 1 / k)}),
    "its own σ² for each cluster": Dropped(
        {"covariance": spherical, "weights": equal}, {"scale": lambda k, d: np.ones(k)}
    ),
    "its own full covariance for each cluster": Dropped(
        {"covariance": full, "weights": equal}, {"covariance": lambda k, d: np.tile(np.eye(d), (k, 1, 1))}
    ),
    "one full covariance, shared": Dropped(
        {"covariance": tied_covariance, "weights": equal}, {"covariance": lambda k, d: np.eye(d)}
    ),
    "no point mass, any q": Dropped({"covariance": identity, "weights": equal}, {}, probem.EM),
}


def landscape(rows: np.ndarray, centres: np.ndarray) -> float:
    """J as a function of the centres alone: every row counts with its nearest."""
    return float(squared_distances(rows, centres).min(axis=1).sum())


def best_partition(rows: np.ndarray, num_components: int) -> tuple[float, np.ndarray]:
    """The least inertia of any partition into K parts, and the partition ``[N]``, by trying them all."""
    blank = np.zeros((num_components, rows.shape[1]))
    tried = [
        (inertia(rows, labels, means(rows, labels, blank)), labels) for labels in partitions(len(rows), num_components)
    ]
    return tried[int(np.argmin([cost for cost, _ in tried]))]


def where_it_stops(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B8 on a few rows of the data set, where every partition can be tried."""
    generator = np.random.default_rng(seed)
    distinct = np.unique(dataset.rows, axis=0)
    rows = distinct[generator.choice(len(distinct), FEW, replace=False)]
    best, _ = best_partition(rows, COMPONENTS[0])
    runs = [k_means(rows, start) for start in starts(rows, COMPONENTS[0], 6, seed)]
    yield from _fixed_points(dataset.name, f"{FEW} rows of the set", rows, runs)
    limits = [landscape(rows, run.iterations[-1].centres) for run in runs]
    yield Check(
        "B8",
        dataset.name,
        f"{FEW} rows of the set: how far below the best of all partitions a limit is, relative (never)",
        excess(best - np.array(limits)) / best,
        1e-12,
        {
            "best of all partitions": best,
            "starts": len(runs),
            "at the best": sum(j <= best * (1 + 1e-9) for j in limits),
        },
    )
    yield Check(
        "B8",
        dataset.name,
        f"{FEW} rows of the set: how far J falls, relative, when the centres of a tieless limit move a little (never)",
        excess([_fall_nearby(rows, run.iterations[-1].centres, generator) for run in runs]),
        1e-12,
    )


def four_rows(seed: int) -> Iterator[Check]:
    """B8 by itself: on two made-up sets of four rows."""
    del seed
    yield from _not_global(NO_DATASET)
    yield from _not_local(NO_DATASET)


def _fixed_points(name: str, where: str, rows: np.ndarray, runs: list[Trajectory]) -> Iterator[Check]:
    last = [run.iterations[-1] for run in runs]
    moved = sum(int(((end.labels != nearest(rows, end.centres)) & ~tied(rows, end.centres)).sum()) for end in last)
    yield Check(
        "B8", name, f"{where}: rows that another E-step would move, off a tie, over all limits", float(moved), 0.0
    )
    shift = [distance(end.centres, means(rows, end.labels, end.centres)) for end in last]
    yield Check("B8", name, f"{where}: how far another M-step would move a centre, relative", shift, 1e-12)


def _fall_nearby(rows: np.ndarray, centres: np.ndarray, generator: np.random.Generator) -> float:
    """The largest relative fall of J over random small moves of the centres; 0 at a tie, where more may be lower."""
    distances = np.sort(squared_distances(rows, centres), axis=1)
    room = np.sqrt(distances[:, 1]) - np.sqrt(distances[:, 0])
    if tied(rows, centres).any():
        return 0.0
    # Within half the room of the tightest row no row changes its nearest centre.
    moves = generator.standard_normal((50, *centres.shape))
    moves *= 0.5 * room.min() / np.sqrt((moves**2).sum(axis=(1, 2), keepdims=True))
    here = landscape(rows, centres)
    return worst([(here - landscape(rows, centres + move)) / here for move in moves])


def _not_global(name: str) -> Iterator[Check]:
    run = k_means(LOCAL_ROWS, TIED_START)
    limit, (best, _) = landscape(LOCAL_ROWS, run.iterations[-1].centres), best_partition(LOCAL_ROWS, 2)
    yield from _fixed_points(name, "0, 2, 3.25, 3.25", LOCAL_ROWS, [run])
    nearby = _fall_nearby(LOCAL_ROWS, run.iterations[-1].centres, np.random.default_rng(0))
    missing = violations([not tied(LOCAL_ROWS, run.iterations[-1].centres).any(), limit > best * 1.5]) + excess(nearby)
    yield Check(
        "B8",
        name,
        "0, 2, 3.25, 3.25: a limit without a tie that is a local minimum and not the global one (J at least half as "
        "much again)",
        missing,
        1e-12,
        {"J at the limit": limit, "best of all partitions": best},
    )


def _not_local(name: str) -> Iterator[Check]:
    run = k_means(TIED_ROWS, TIED_START)
    last = run.iterations[-1]
    yield from _fixed_points(name, "0, 2, 3, 3", TIED_ROWS, [run])
    # The other way to resolve the tie: row 1 to the second centre.
    other = means(TIED_ROWS, np.array([0, 1, 1, 1]), last.centres)
    here = landscape(TIED_ROWS, last.centres)
    along = [landscape(TIED_ROWS, last.centres + part * (other - last.centres)) for part in _PARTS_OF_THE_WAY]
    best, _ = best_partition(TIED_ROWS, 2)
    yield Check(
        "B8",
        name,
        "0, 2, 3, 3: a limit at a tie with lower J arbitrarily near; of seven distances the number at which J is not "
        "lower",
        violations([*(lower < here for lower in along), bool(tied(TIED_ROWS, last.centres).any())]),
        0.0,
        {"J at the limit": here, "nearest try": float(_PARTS_OF_THE_WAY[-1]), "best of all partitions": best},
    )


def dropped(rows: np.ndarray, start: np.ndarray, name: str) -> Trajectory:
    """EM from the same start with one restriction of k-means dropped; labels are the mode of q."""
    left = DROPPED[name]
    program = functools.partial(gmm, num_components=len(start), **left.restrictions)
    params: Mapping[str, Any] = {"loc": start} | {site: make(*start.shape) for site, make in left.start.items()}
    return follow_em(program, rows, params, left.corner, MAX_STEPS)


def first_difference(rows: np.ndarray, start: np.ndarray, run: Trajectory) -> tuple[int | None, int]:
    """The first iteration with labels unlike Lloyd's off a tie, and how many; None and 0 where there is none.

    Labels from parameters that are no numbers are unlike any others: they are no difference.
    """
    for number, (iteration, other) in enumerate(zip(run.iterations, lloyd(rows, start), strict=False)):
        different = int(((iteration.labels != other.labels) & ~tied(rows, other.centres)).sum())
        if different and all(np.isfinite(value).all() for value in run.params[number].values()):
            return number, different
    return None, 0


def standardised(dataset: Dataset) -> np.ndarray:
    """Every column with mean 0 and variance 1, so that squared distances and log pi are of one size."""
    return (dataset.rows - dataset.rows.mean(axis=0)) / dataset.rows.std(axis=0)


def each_restriction(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B10: drop one restriction at a time."""
    rows = standardised(dataset)
    # Between rows: no tie that could be resolved either way.
    chosen = starts(rows, COMPONENTS[0], 4, seed)[1::2]
    for name in DROPPED:
        runs = [dropped(rows, start, name) for start in chosen]
        firsts = [first_difference(rows, start, run) for start, run in zip(chosen, runs, strict=True)]
        numbers: dict[str, int | str] = {"rows": len(rows)}
        for number, (iteration, different) in enumerate(firsts, start=1):
            numbers[f"start {number}: first iteration that differs"] = "none" if iteration is None else iteration
            numbers[f"start {number}: rows that differ there"] = different
        yield Check(
            "B10",
            dataset.name,
            f"{name}: starts (of two) from which EM still has Lloyd's labels throughout",
            float(sum(iteration is None for iteration, _ in firsts)),
            0.0,
            numbers,
        )
        if name == "free weights":
            yield from _moved_boundaries(dataset.name, rows, runs[0])


def _moved_boundaries(name: str, rows: np.ndarray, run: Trajectory) -> Iterator[Check]:
    """With free weights the boundary of two clusters moves by log(pi_a / pi_b) / |mu_a - mu_b| along their line."""
    different = 0
    residuals, shifts = [], []
    table_of = jax.jit(
        functools.partial(probem.log_joint, functools.partial(gmm, num_components=COMPONENTS[0], covariance=identity))
    )
    for iteration, params in zip(run.iterations, run.params, strict=True):
        # A cluster that has lost its rows has weight 0, and no boundary.
        with np.errstate(divide="ignore"):
            costs = squared_distances(rows, iteration.centres) - 2 * np.log(params["weights"])
        two = np.sort(costs, axis=1)[:, :2]
        at_tie = two[:, 1] - two[:, 0] <= 1e-12 * np.abs(two).max(axis=1)
        different += int(((iteration.labels != costs.argmin(axis=1)) & ~at_tie).sum())
        alive = np.flatnonzero(params["weights"] > 0)
        pairs = [(first, second) for first in alive for second in alive if first < second]
        points = []
        for first, second in pairs:
            gap = iteration.centres[second] - iteration.centres[first]
            moved = np.log(params["weights"][first] / params["weights"][second]) / np.linalg.norm(gap)
            points.append(
                (iteration.centres[first] + iteration.centres[second]) / 2 + moved * gap / np.linalg.norm(gap)
            )
            shifts.append(abs(moved))
        table = np.asarray(table_of(params, np.array(points)))
        both = np.array([(row[first], row[second]) for row, (first, second) in zip(table, pairs, strict=True)])
        residuals.append(worst(np.abs(both[:, 0] - both[:, 1]) / np.abs(both).max(axis=1)))
    yield Check(
        "B10",
        name,
        "free weights: rows not at the least ‖x − μ_c‖² − 2 log π_c, off a tie, over all iterations",
        float(different),
        0.0,
        {"iterations": len(run.iterations)},
    )
    yield Check(
        "B10",
        name,
        "free weights: the joints of two clusters at log(π_a/π_b)/‖μ_a − μ_b‖ from the midpoint of their centres, "
        "relative",
        residuals,
        1e-12,
        {"furthest that a boundary moved": worst(shifts)},
    )
