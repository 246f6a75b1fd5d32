"""F1: hard EM of an exponential family is Bregman clustering."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import probem
from probem.checking.residuals import ROUNDING, SAME, violations, worst
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.kmeans.trajectories import distance

from .divergences import DIVERGENCES, Iteration, cluster

COMPONENTS = 3
#: Random starts on each kind of rows.
STARTS = 3

#: The density of one entry as a function of what is fitted, the mean or one over it; its constraint; the mean.
KINDS: dict[str, tuple[Callable[[jax.Array], Any], Any, Callable[[np.ndarray], np.ndarray]]] = {
    "Poisson": (dist.Poisson, constraints.positive, np.asarray),
    "Bernoulli": (lambda probs: dist.Bernoulli(probs=probs), constraints.unit_interval, np.asarray),
    "exponential": (dist.Exponential, constraints.positive, np.reciprocal),
}


def mixture(x: jax.Array, *, kind: str) -> None:
    """Independent entries of one kind, components equally probable."""
    density, constraint, _ = KINDS[kind]
    value: Any = numpyro.param("value", jnp.full((COMPONENTS, x.shape[-1]), 0.5), constraint=constraint)
    equal: Any = dist.Categorical(probs=jnp.full(COMPONENTS, 1 / COMPONENTS))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", equal)
        numpyro.sample("x", density(value[t]).to_event(1), obs=x)


def rows_of(dataset: Dataset, kind: str) -> np.ndarray:
    """The columns of a data set as counts of tenths, as whether they exceed their quartiles, or as they are."""
    rows = dataset.rows
    if kind == "Poisson":
        return np.rint(10 * rows)
    if kind == "Bernoulli":
        quartiles = np.quantile(rows, (0.2, 0.4, 0.6, 0.8), axis=0)
        return np.concatenate([rows > limit for limit in quartiles], axis=1).astype(float)
    return rows


def start_of(rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Means of a few rows each, inside of every support, ``[K, D]``."""
    chosen = [generator.choice(len(rows), len(rows) // 8, replace=False) for _ in range(COMPONENTS)]
    mixed = np.stack([rows[choice].mean(axis=0) for choice in chosen])
    return 0.9 * mixed + 0.1 * rows.mean(axis=0)


def hard_em(rows: np.ndarray, kind: str, centres: np.ndarray) -> tuple[list[Iteration], np.ndarray]:
    """The engine's iterations, their cost unknown; and F after every E-step, nats."""
    to_mean = KINDS[kind][2]
    fits = probem.iterate(
        functools.partial(mixture, kind=kind),
        rows,
        families=probem.HARD_EM,
        # The mean of an exponential density is one over its rate, and the other way round.
        init=probem.Parameters({"value": to_mean(centres)}),
        throw=False,
    )
    iterations, bounds = [], []
    for fit in fits:
        value = to_mean(np.asarray(fit.params["value"]))
        iterations.append(Iteration(value, np.asarray(fit.predict(rows)), np.nan))
        bounds.append(fit.elbo)
    return iterations, np.array(bounds)


def bregman_clustering(dataset: Dataset, seed: int) -> Iterator[Check]:
    """F1."""
    for kind, divergence in DIVERGENCES.items():
        rows, generator = rows_of(dataset, kind), np.random.default_rng(seed)
        different, apart, later, bounds, ties, count = 0, [], [], [], 0, 0
        constant = float(divergence.log_rest(rows).sum()) - len(rows) * np.log(COMPONENTS)
        for _ in range(STARTS):
            start = start_of(rows, generator)
            ours, values = hard_em(rows, kind, start)
            theirs = cluster(rows, start, divergence)
            later.append(abs(len(ours) - len(theirs)))
            count += len(ours)
            for first, second, value in zip(ours, theirs, values, strict=False):
                two = np.partition(divergence.table(rows, second.centres), 1, axis=1)[:, :2]
                at_tie = two[:, 1] - two[:, 0] <= ROUNDING * (1 + two[:, 0])
                different += violations((first.labels == second.labels) | at_tie)
                ties += int(at_tie.sum())
                apart.append(distance(first.centres, second.centres))
                expected = constant - second.cost
                bounds.append(abs(value - expected) / worst(np.abs([constant, second.cost])))
        words = f"{kind}, {divergence.name}"
        numbers = {"starts": STARTS, "iterations": count, "labels at a tie to rounding": ties}
        yield Check(
            "F1", dataset.name, f"{words}: labels of any iteration that differ, off a tie", different, 0, numbers
        )
        yield Check("F1", dataset.name, f"{words}: means of every iteration, relative", apart, ROUNDING)
        yield Check("F1", dataset.name, f"{words}: difference in the number of iterations", later, 0)
        yield Check(
            "F1",
            dataset.name,
            f"{words}: F after every E-step, and Σ log b(x) − N log K − Σ d(x, μ), relative",
            bounds,
            SAME,
            {"Σ log b(x) − N log K": constant},
        )
