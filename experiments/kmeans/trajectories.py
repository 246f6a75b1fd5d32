"""The engine's fits iteration by iteration, and how one trajectory of labels and centres is held against another."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import probem
from probem.checking.residuals import worst
from probem.experiments.oracles.lloyd import Iteration, tied
from probem.families import Corner
from probem.models import kmeans

# Two centres further apart than this, relative to the largest coordinate, do not differ by rounding.
PARTED = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """What EM went through: centres, labels, parameters, F after every E-step (nats), and the fit at the end."""

    iterations: tuple[Iteration, ...]
    params: tuple[Mapping[str, np.ndarray], ...]
    bounds: np.ndarray
    fit: probem.Fit


def hard_em(
    program: Callable[..., Any], rows: np.ndarray, start: Mapping[str, Any], max_steps: int = 1000
) -> Trajectory:
    """Hard EM of a Gaussian mixture from the parameters of ``start``, one of which is ``loc`` [K, D]."""
    return follow_em(program, rows, start, probem.HARD_EM, max_steps)


def follow_em(
    program: Callable[..., Any], rows: np.ndarray, start: Mapping[str, Any], corner: Corner, max_steps: int
) -> Trajectory:
    """EM of a Gaussian mixture in this corner; labels are the mode of q."""
    fits = list(
        probem.iterate(
            program,
            rows,
            families=corner,
            init=probem.Parameters(dict(start)),
            max_steps=max_steps,
            throw=False,
        )
    )
    params = tuple({name: np.asarray(value) for name, value in fit.params.items()} for fit in fits)
    labels = [np.asarray(fit.predict(rows)) for fit in fits]
    iterations = tuple(Iteration(values["loc"], label) for values, label in zip(params, labels, strict=True))
    return Trajectory(iterations, params, np.array([fit.elbo for fit in fits]), fits[-1])


def k_means(rows: np.ndarray, centres: np.ndarray) -> Trajectory:
    """k-means as hard EM of ``models.kmeans`` from these centres ``[K, D]``. What was asked once is remembered."""
    return _k_means(rows.tobytes(), rows.shape, centres.tobytes(), centres.shape)


@functools.lru_cache(maxsize=128)
def _k_means(rows: bytes, rows_shape: tuple[int, ...], centres: bytes, centres_shape: tuple[int, ...]) -> Trajectory:
    start = np.frombuffer(centres).reshape(centres_shape)
    program = functools.partial(kmeans, num_components=len(start))
    return hard_em(program, np.frombuffer(rows).reshape(rows_shape), {"loc": start})


def forget() -> None:
    """Forget the trajectories remembered."""
    _k_means.cache_clear()


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Two trajectories side by side.

    ``different`` counts labels that differ where no two centres tie; ``ties`` names every (iteration, row) at a tie;
    ``parted`` counts the iterations at which the two resolve a tie differently; ``centres`` is the largest difference
    of a coordinate relative to the largest coordinate; ``excess`` is how many iterations one takes more than the other.
    """

    iterations: int
    different: int
    ties: tuple[tuple[int, int], ...]
    parted: int
    centres: float
    excess: int


def compare(
    rows: np.ndarray, ours: Sequence[Iteration], follow: Callable[[np.ndarray], Sequence[Iteration]]
) -> Agreement:
    """``ours`` beside the trajectory that ``follow`` finds from the same start.

    At a tie either label is Lloyd's. Where the two resolve one differently they part for that reason alone, and
    ``follow`` is asked again from where our next iteration begins.
    """
    theirs, offset = follow(ours[0].centres), 0
    different = parted = 0
    apart = []
    ties: list[tuple[int, int]] = []
    for number, iteration in enumerate(ours):
        if number - offset >= len(theirs):
            break
        other = theirs[number - offset]
        at_tie = tied(rows, iteration.centres)
        ties += [(number, int(row)) for row in np.flatnonzero(at_tie)]
        apart.append(distance(iteration.centres, other.centres))
        different += int(((iteration.labels != other.labels) & ~at_tie).sum())
        if at_tie.any() and _part(ours[number + 1 :], theirs[number - offset + 1 :]):
            parted += 1
            theirs, offset = follow(ours[number + 1].centres), number + 1
    excess = abs(offset + len(theirs) - len(ours))
    # A trajectory begun anew has no assignment before it to repeat, and so may take one iteration more.
    return Agreement(
        len(ours), different, tuple(ties), parted, worst(apart), excess - 1 if parted and excess else excess
    )


def _part(ours: Sequence[Iteration], theirs: Sequence[Iteration]) -> bool:
    """Whether the next averages were taken over different rows."""
    return bool(ours) and (not theirs or distance(ours[0].centres, theirs[0].centres) > PARTED)


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of a coordinate, relative to the largest coordinate."""
    return worst(np.abs(ours - theirs)) / worst(np.abs(theirs), np.finfo(float).tiny)
