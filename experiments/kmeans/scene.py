"""What a reader steps through: k-means and EM on Old Faithful, under several temperatures and covariances."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import probem
from probem import models
from probem.experiments.claims.datasets import old_faithful

#: Restrictions of the covariance, from that of k-means on, in words.
COVARIANCES = (
    ("one sphere for both, σ\u00a0=\u00a01", models.identity),
    ("one ellipse for both, learned", models.tied),
    ("an ellipse for each, learned", models.full),
)
#: β of q ∝ p(x, t)^β, from vague to certain; infinite for point masses.
TEMPERATURES = (0.25, 0.5, 1.0, 2.0, 4.0, math.inf)
#: Two rows of one cluster: from here k-means takes six iterations.
START = (269, 244)

_MAX_STEPS = 24
# Digits that a picture shows.
_DIGITS = 4


def scene(seed: int) -> Mapping[str, Any]:
    """The rows ``[N, 2]``, standardised, the path of k-means, and those of EM, covariance by covariance and temperature
    by temperature: centres, covariances, F and what is climbed (nats) after every E half-step, from one start.
    """
    del seed
    dataset = old_faithful()
    rows = (dataset.rows - dataset.rows.mean(axis=0)) / dataset.rows.std(axis=0)
    k_means = functools.partial(models.kmeans, num_components=2)
    paths = [[_path(_gmm(structure), rows, beta) for beta in TEMPERATURES] for _, structure in COVARIANCES]
    return {
        "columns": dataset.columns,
        "rows": rows.round(_DIGITS).tolist(),
        "covariances": [words for words, _ in COVARIANCES],
        "temperatures": [None if math.isinf(beta) else beta for beta in TEMPERATURES],
        "kmeans": _path(k_means, rows, math.inf),
        "em": paths,
    }


def _gmm(structure: Any) -> Callable[..., None]:
    return functools.partial(models.gmm, num_components=2, covariance=structure, weights=models.equal)


def _path(program: Callable[..., None], rows: np.ndarray, beta: float) -> list[Mapping[str, Any]]:
    start: dict[str, Any] = {"loc": rows[list(START)]}
    covariance = program.keywords.get("covariance") if isinstance(program, functools.partial) else None
    if covariance is models.tied:
        start["covariance"] = np.eye(2)
    elif covariance is models.full:
        start["covariance"] = np.tile(np.eye(2), (2, 1, 1))
    family = probem.Delta() if math.isinf(beta) else probem.Tempered(beta)
    steps: Iterator[probem.Fit] = probem.iterate(
        program,
        rows,
        families={"t": family},
        init=probem.Parameters(start),
        max_steps=_MAX_STEPS,
        tolerance=1e-6,
        throw=False,
    )
    return [
        {
            "loc": np.asarray(step.params["loc"]).round(_DIGITS).tolist(),
            "covariance": _matrices(step.params.get("covariance", np.eye(2))).round(_DIGITS).tolist(),
            "elbo": round(step.elbo, 3),
            "objective": round(step.elbo + (family.entropy_weight - 1.0) * float(step.bound.entropy), 3),
        }
        for step in itertools.islice(steps, _MAX_STEPS)
    ]


def _matrices(covariance: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(covariance), (2, 2, 2))
