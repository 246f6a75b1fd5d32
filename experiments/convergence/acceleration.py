"""D4: an acceleration guarded by F keeps the fixed point of EM and takes fewer iterations."""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

import probem
from probem.checking.residuals import ROUNDING, excess
from probem.experiments.claims.claim import Check, Dataset
from probem.stopping import ParameterShift

from . import mixture
from .plain import iterated
from .rates import TO_THE_END, program

#: Parameters that moved so little in an iteration, squared and summed, are final: at a rate of 0.99 they are within
#: a hundred times the root of it.
RULE = ParameterShift(1e-22)
MOST_STEPS = 5000
#: By name; None is plain EM.
ACCELERATIONS: dict[str, Any] = {"EM": None, "SQUAREM": probem.SQUAREM(), "Anderson": probem.Anderson()}
#: That two runs end at the same place, relative to the largest parameter of its kind.
SAME_POINT = 1e-8


class Runs(NamedTuple):
    """The fits by the name of their acceleration, and where a plain loop leads from the end of plain EM."""

    fits: dict[str, probem.Fit]
    fixed_point: dict[str, np.ndarray]


@functools.cache
def _runs(name: str, rows: bytes, shape: tuple[int, ...], seed: int) -> Runs:
    del name
    x = np.frombuffer(rows).reshape(shape)
    fits = {
        words: probem.fit(program(), x, key=seed, tolerance=RULE, max_steps=MOST_STEPS, acceleration=each, throw=False)
        for words, each in ACCELERATIONS.items()
    }
    return Runs(fits, iterated(mixture.as_numbers(fits["EM"].params), x, TO_THE_END))


def runs_of(dataset: Dataset, seed: int) -> Runs:
    """Three fits from the same start."""
    return _runs(dataset.name, np.ascontiguousarray(dataset.rows).tobytes(), dataset.rows.shape, seed)


def falls(fit: probem.Fit) -> np.ndarray:
    """By how much F fell from half-step to half-step, relative, in what was not given up."""
    kept = fit.history.elbo[fit.history.accelerated >= 0]
    return np.maximum(-np.diff(kept), 0) / abs(fit.elbo)


def same_end_sooner(dataset: Dataset, seed: int) -> Iterator[Check]:
    """D4."""
    runs = runs_of(dataset, seed)
    slow = runs.fits["EM"].num_steps
    for name, fit in runs.fits.items():
        outcomes = fit.history.accelerated[::2]
        numbers = {
            "iterations": fit.num_steps,
            "moved": int((outcomes == 1).sum()),
            "given up": int((outcomes < 0).sum()),
        }
        ends = mixture.as_numbers(fit.params)
        yield Check(
            "D4",
            dataset.name,
            f"{name}: where it ends, and the fixed point of a plain loop, relative",
            [np.abs(ends[site] - end).max() / np.abs(end).max() for site, end in runs.fixed_point.items()],
            SAME_POINT,
            numbers,
        )
        yield Check(
            "D4", dataset.name, f"{name}: by how much F falls in a half-step, relative, and 0", falls(fit), ROUNDING
        )
        if fit is not runs.fits["EM"]:
            yield Check(
                "D4",
                dataset.name,
                f"{name}: iterations beyond half of those of EM",
                excess(fit.num_steps, slow / 2),
                0,
                {"EM": slow, name: fit.num_steps},
            )
