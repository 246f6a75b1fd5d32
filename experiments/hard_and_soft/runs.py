"""The engine's side of the claims C: one program, one number of components, and so one compilation for each family."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import probem
from probem.experiments.claims.claim import Dataset
from probem.experiments.oracles.lloyd import nearest, starts
from probem.models import equal, gmm, shared_spherical

from .plain import Spheres

COMPONENTS = 4
# Starts among which some have a row for every centre: most have.
_DRAWN = 50


def program() -> Callable[..., None]:
    """Spheres of one standard deviation, equally probable."""
    return functools.partial(gmm, num_components=COMPONENTS, covariance=shared_spherical, weights=equal)


def standardised(dataset: Dataset) -> np.ndarray:
    """Every column with mean 0 and variance 1, so that a variance of 1 is as wide as the data."""
    return (dataset.rows - dataset.rows.mean(axis=0)) / dataset.rows.std(axis=0)


def start_of(rows: np.ndarray, seed: int) -> np.ndarray:
    """Centres between rows, so that no row is equally far from two of them, each nearest to some row, ``[K, D]``."""
    drawn = starts(rows, COMPONENTS, 2 * _DRAWN, seed)[1::2]
    return next(loc for loc in drawn if len(np.unique(nearest(rows, loc))) == COMPONENTS)


def follow(rows: np.ndarray, start: Spheres, families: Any, num_steps: int = 0) -> list[probem.Fit]:
    """The engine's fit at the start and after every step, the standard deviation fixed."""
    steps = probem.iterate(
        program(),
        rows,
        families=families,
        init=probem.Parameters({"loc": start.loc, "scale": np.float64(start.scale)}),
        fixed={"scale": start.scale},
        max_steps=num_steps + 1,
        tolerance=0,
        throw=False,
    )
    return list(steps)


def tempered(beta: float) -> dict[str, probem.Tempered]:
    """q proportional to p(x, t)^beta."""
    return {"t": probem.Tempered(beta)}


def centres_of(fits: list[probem.Fit]) -> list[np.ndarray]:
    """The centres of every iteration, ``[K, D]`` each."""
    return [np.asarray(fit.params["loc"]) for fit in fits]
