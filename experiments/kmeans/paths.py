"""B5, B6, B7 and B9: k-means from start to end, iteration by iteration."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpyro.distributions as dist

from probem.checking.residuals import ROUNDING, violations, worst
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.oracles.lloyd import Iteration, inertia, lloyd, means, scikit_learn_lloyd, starts, tied
from probem.models import equal, gmm, shared_spherical
from probem.models.covariance import Component

from .trajectories import Agreement, Trajectory, compare, hard_em, k_means

#: Numbers of clusters, and how many starts for each.
COMPONENTS = (3, 10)
STARTS = 4

#: Standard deviations other than 1 at which B9 fixes the clusters.
SCALES = (0.1, 10.0)


def all_runs(dataset: Dataset, seed: int) -> Iterator[tuple[int, np.ndarray, Trajectory]]:
    """Number of clusters, start and k-means from there, for every start."""
    for num_components in COMPONENTS:
        for start in starts(dataset.rows, num_components, STARTS, seed):
            yield num_components, start, k_means(dataset.rows, start)


def bound_is_inertia(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B5, with J by a plain loop over the clusters."""
    rows = dataset.rows
    size, dimension = rows.shape
    residuals = []
    for num_components, _, trajectory in all_runs(dataset, seed):
        for iteration, bound in zip(trajectory.iterations, trajectory.bounds, strict=True):
            half = inertia(rows, iteration.labels, iteration.centres) / 2
            expected = -half - size * np.log(num_components) - size * dimension / 2 * np.log(2 * np.pi)
            residuals.append(abs(bound - expected) / abs(expected))
    yield Check(
        "B5",
        dataset.name,
        "F after every E-step against −J/2 − N log K − (ND/2) log 2π, relative",
        residuals,
        # The engine sums statistics, the other side squared distances; N D terms each way.
        1e-12,
        {"iterations": len(residuals), "starts": STARTS * len(COMPONENTS), "K": "3 and 10"},
    )


def lloyd_step_by_step(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B6 against plain NumPy and against scikit-learn."""
    runs = [run for _, _, run in all_runs(dataset, seed)]
    # A cluster that loses all its rows keeps its centre, as in the article's steps; scikit-learn moves it to a row.
    full = [
        run
        for run in runs
        if all(len(np.unique(iteration.labels)) == len(iteration.centres) for iteration in run.iterations)
    ]
    for name, reference, chosen in (
        ("Lloyd in plain NumPy", lloyd, runs),
        ("scikit-learn's KMeans", scikit_learn_lloyd, full),
    ):
        follow = functools.partial(reference, dataset.rows)
        agreements = [compare(dataset.rows, run.iterations, follow) for run in chosen]
        yield from agreement(
            "B6", dataset, name, agreements, {"starts left out, a cluster emptied": len(runs) - len(chosen)}
        )


def agreement(
    claim: str, dataset: Dataset, name: str, agreements: list[Agreement], others: Mapping[str, int] | None = None
) -> Iterator[Check]:
    """What several trajectories have in common with those of a reference."""
    ties = sorted({row for path in agreements for _, row in path.ties})
    numbers: dict[str, int | str] = {
        "starts": len(agreements),
        "iterations": sum(path.iterations for path in agreements),
        "starts without a tie": sum(not path.ties for path in agreements),
        "labels at a tie to rounding": sum(len(path.ties) for path in agreements),
        "iterations that part at a tie": sum(path.parted for path in agreements),
        **(others or {}),
    }
    if ties:
        numbers["numbers of tied rows"] = ", ".join(map(str, ties[:12])) + (" …" if len(ties) > 12 else "")
    different = float(sum(path.different for path in agreements))
    yield Check(
        claim, dataset.name, f"{name}: labels that differ, at any iteration, off a tie", different, 0.0, numbers
    )
    centres = [path.centres for path in agreements]
    yield Check(claim, dataset.name, f"{name}: centres at every iteration, relative", centres, 1e-12)
    later = [path.excess for path in agreements]
    yield Check(claim, dataset.name, f"{name}: difference in the number of iterations", later, 0.0)


def finitely_many_steps(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B7 on the partitions that the engine went through."""
    level = repeated = unfinished = 0
    smallest, longest = [], 0
    for _, _, trajectory in all_runs(dataset, seed):
        steps = trajectory.iterations
        inertias = [inertia(dataset.rows, iteration.labels, iteration.centres) for iteration in steps]
        moves = [not np.array_equal(after.labels, before.labels) for before, after in itertools.pairwise(steps)]
        falls = [(before - after) / before for before, after in itertools.pairwise(inertias)]
        fell = [fall > 0 if moved else fall >= -ROUNDING for moved, fall in zip(moves, falls, strict=True)]
        level += violations([*np.isfinite(inertias), *fell])
        smallest += [fall for moved, fall in zip(moves, falls, strict=True) if moved]
        seen = [_canonical(iteration) for iteration in (steps[:-1] if moves and not moves[-1] else steps)]
        repeated += len(seen) - len(set(seen))
        unfinished += bool(moves and moves[-1])
        longest = len(steps) if len(steps) > longest else longest
    numbers: dict[str, float | int] = {"starts": STARTS * len(COMPONENTS), "longest": longest}
    if smallest:
        numbers["smallest relative fall"] = -worst(np.negative(smallest))
    yield Check(
        "B7", dataset.name, "iterations in which labels moved and J did not fall, or J rose", float(level), 0.0, numbers
    )
    yield Check("B7", dataset.name, "partitions that came twice before the end", float(repeated), 0.0)
    yield Check("B7", dataset.name, "runs that did not end on labels repeated", float(unfinished), 0.0)


def _canonical(iteration: Iteration) -> bytes:
    """The partition, whatever its parts are called."""
    _, first, inverse = np.unique(iteration.labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32).tobytes()


@functools.cache
def fixed(scale: float) -> Callable[[int, int], Component]:
    """The structure in which every cluster is a sphere of this standard deviation, nothing to learn."""

    def structure(num_components: int, dim: int) -> Component:
        return lambda loc, t: dist.Normal(loc, scale).to_event(1)

    return structure


def any_shared_variance(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B9: the same labels whatever the variance, and F where it is learned."""
    rows, num_components = dataset.rows, COMPONENTS[0]
    size, dimension = rows.shape
    chosen = starts(rows, num_components, 2, seed)
    follow = functools.partial(lloyd, rows)
    for scale in SCALES:
        program = functools.partial(gmm, num_components=num_components, covariance=fixed(scale), weights=equal)
        runs = [hard_em(program, rows, {"loc": start}) for start in chosen]
        agreements = [compare(rows, run.iterations, follow) for run in runs]
        yield from agreement("B9", dataset, f"σ² fixed at {scale**2:g}", agreements)
        residuals = []
        for run in runs:
            for iteration, bound in zip(run.iterations, run.bounds, strict=True):
                half = inertia(rows, iteration.labels, iteration.centres) / (2 * scale**2)
                spread = size * dimension / 2 * np.log(2 * np.pi * scale**2)
                expected = -half - size * np.log(num_components) - spread
                # The two parts may cancel: each is as exact as its own size allows.
                residuals.append(abs(bound - expected) / (half + abs(spread)))
        yield Check(
            "B9",
            dataset.name,
            f"σ² fixed at {scale**2:g}: F after every E-step against −J/2σ² − N log K − (ND/2) log 2πσ², relative",
            residuals,
            1e-12,
        )
    program = functools.partial(gmm, num_components=num_components, covariance=shared_spherical, weights=equal)
    runs = [hard_em(program, rows, {"loc": start, "scale": rows.std()}) for start in chosen]
    agreements = [compare(rows, run.iterations, follow) for run in runs]
    yield from agreement("B9", dataset, "σ² learned", agreements)
    yield from _learned(dataset, num_components, runs)


def _learned(dataset: Dataset, num_components: int, runs: list[Trajectory]) -> Iterator[Check]:
    rows = dataset.rows
    size, dimension = rows.shape
    of_bound, of_variance = [], []
    for run in runs:
        bounds = run.fit.history.elbo[run.fit.history.half == "M"]
        for number, ours in enumerate(run.iterations):
            # At a tie the labels that the averages were taken over are not known from outside.
            if tied(rows, ours.centres).any():
                continue
            average = inertia(rows, ours.labels, means(rows, ours.labels, ours.centres)) / (size * dimension)
            expected = -size * np.log(num_components) - size * dimension / 2 * np.log(2 * np.pi * np.e * average)
            of_bound.append(abs(bounds[number] - expected) / abs(expected))
            if number + 1 < len(run.params):
                learned = float(run.params[number + 1]["scale"]) ** 2
                of_variance.append(abs(learned - average) / average)
    yield Check(
        "B9",
        dataset.name,
        "σ² learned: F after every M-step against −N log K − (ND/2) log(2πe J/(ND)), relative",
        of_bound,
        1e-12,
        {"iterations": len(of_bound)},
    )
    yield Check(
        "B9",
        dataset.name,
        "σ² learned: its value after every M-step against J/(ND), relative",
        of_variance,
        1e-12,
    )
