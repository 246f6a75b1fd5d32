"""G14: where likelihoods of at least what a run begins with lie in a bounded region, what it tends to is stationary; a
run that leaves every such region need not tend to anything.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import multivariate_normal

import probem
from probem.checking.residuals import ROUNDING, excess, violations
from probem.experiments.bayes.priors.degeneracy import pose
from probem.experiments.claims.claim import Check, Dataset
from probem.models import gmm, tied

from . import mixture
from .plain import Sums, log_density
from .rates import COMPONENTS, program

# SciPy's annotations know of no matrix.
normal: Any = multivariate_normal

#: Starts with a shared covariance, and the numbers of iterations after which the gradient is looked at.
STARTS, LADDER = 2, (1, 4, 16, 64, 256)
#: Starts that are drawn for those that are high enough.
DRAWN = 200
#: Nats a row for a unit of a coordinate without constraints: no slope, to the root of what F can resolve.
NO_SLOPE = 1e-7
#: Nats for a unit: a slope that does not go away, of at least one row's worth.
SLOPE = 0.5
#: Iterations towards a collapse, of which the last before the engine says SINGULAR count.
MOST_STEPS, LAST = 60, 3


def shared() -> Callable[..., None]:
    """Two normal distributions with one covariance matrix: a likelihood that is bounded."""
    return functools.partial(gmm, num_components=COMPONENTS, covariance=tied)


@mixture.quickly_compiled
def _along(starts: Any, rows: Any) -> dict[str, jax.Array]:
    """The engine's parameters after the iterations of the ladder, ``[starts, ladder, ...]``."""

    def after(start: Any, num_steps: Any) -> Any:
        init = probem.Parameters(start)
        return probem.solve(shared(), rows, init=init, max_steps=num_steps + 1, tolerance=0).params

    steps = jnp.asarray(LADDER)
    return jax.vmap(lambda start: jax.vmap(lambda number: after(start, number))(steps))(starts)


def _seen(params: Any, rows: Any) -> tuple[jax.Array, jax.Array]:
    """log p(X), and the length of its gradient without constraints, by autodiff of NumPyro's density; nats."""
    value, slope = jax.value_and_grad(lambda vector: mixture.log_density(mixture.back_from(params)(vector), rows))(
        mixture.free(params)
    )
    return value, jnp.linalg.norm(slope)


def high_starts(rows: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Starts at which log p(X) is above that of one normal distribution: shares, means and the covariance of rows that
    are nearest to one of two rows.

    Raises
    ------
    ValueError : too few of those that were drawn are
    """
    starts: list[dict[str, np.ndarray]] = []
    alone, scale = single_normal(rows), rows.std(0)
    for _ in range(DRAWN):
        seeds = rows[generator.choice(len(rows), COMPONENTS, replace=False)]
        nearest = (((rows[:, None, :] - seeds) / scale) ** 2).sum(2).argmin(1)
        each = Sums.of(np.eye(COMPONENTS)[nearest], rows).maximised()
        each["covariance"] = np.einsum("k,kij->ij", each["weights"], each["covariance"])
        if log_density(each, rows) > alone:
            starts.append(each)
        if len(starts) == STARTS:
            return {name: np.stack([start[name] for start in starts]) for name in each}
    raise ValueError(f"{len(starts)} of {DRAWN} starts are above one normal distribution")


_compiled_seen = jax.jit(_seen)
_all_seen = jax.jit(jax.vmap(jax.vmap(_seen, (0, None)), (0, None)))


class Run(NamedTuple):
    """log p(X) and the length of its gradient along a run, nats."""

    values: np.ndarray
    slopes: np.ndarray


@functools.cache
def _bounded(name: str, rows: bytes, shape: tuple[int, ...], seed: int) -> tuple[Run, ...]:
    del name
    x = np.frombuffer(rows).reshape(shape)
    every = _along(high_starts(x, np.random.default_rng(seed)), jnp.asarray(x))
    seen = _all_seen(every, x)
    return tuple(Run(*pair) for pair in zip(*(np.asarray(each) for each in seen), strict=True))


def bounded_runs(dataset: Dataset, seed: int) -> tuple[Run, ...]:
    """Runs with a shared covariance."""
    return _bounded(dataset.name, np.ascontiguousarray(dataset.rows).tobytes(), dataset.rows.shape, seed)


class Collapse(NamedTuple):
    """The run from D1's start: how it ended, log p(X) and slopes, and the smallest variance of every iteration."""

    result: str
    run: Run
    variances: np.ndarray


@functools.cache
def _collapse(name: str, rows: bytes, shape: tuple[int, ...]) -> Collapse:
    x = np.frombuffer(rows).reshape(shape)
    setting = pose(Dataset(name, x, "", ()))
    start = probem.Parameters(setting.params(setting.start))
    fits = list(probem.iterate(program(), x, init=start, max_steps=MOST_STEPS, throw=False))
    every = [mixture.as_numbers(fit.params) for fit in fits]
    seen = np.array([[float(each) for each in _compiled_seen(params, x)] for params in every])
    variances = np.array([np.linalg.eigvalsh(params["covariance"]).min() for params in every])
    result = fits[-1].result
    return Collapse("none" if result is None else result.name, Run(seen[:, 0], seen[:, 1]), variances)


def collapse_of(dataset: Dataset) -> Collapse:
    """The run from a component on a single row."""
    return _collapse(dataset.name, np.ascontiguousarray(dataset.rows).tobytes(), dataset.rows.shape)


def single_normal(rows: np.ndarray) -> float:
    """The highest log p(X) of one normal distribution, nats: what a mixture tends to where a component goes away."""
    return float(normal(rows.mean(0), np.cov(rows, rowvar=False, bias=True)).logpdf(rows).sum())


def limit_points(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G14."""
    runs, alone = bounded_runs(dataset, seed), single_normal(dataset.rows)
    begins = [float(run.values[0]) for run in runs]
    yield Check(
        "G14",
        dataset.name,
        f"a shared covariance, {STARTS} starts: the gradient of log p(X) after {LADDER[-1]} iterations (nats a row)",
        [run.slopes[-1] / len(dataset.rows) for run in runs],
        NO_SLOPE,
        {f"after {LADDER[0]}": float(runs[0].slopes[0] / len(dataset.rows))}
        | {f"after {LADDER[i]}": float(runs[0].slopes[i] / len(dataset.rows)) for i in (1, 2, 3)},
    )
    yield Check(
        "G14",
        dataset.name,
        "by how much they begin below one normal distribution: above it a region is bounded",
        excess(alone, np.min(begins)),
        0,
        {
            "log p(X) of one": alone,
            "lowest beginning": float(np.min(begins)),
            "lowest end": float(np.min([run.values[-1] for run in runs])),
        },
    )
    collapse = collapse_of(dataset)
    run = collapse.run
    yield Check(
        "G14",
        dataset.name,
        f"free covariances, from a component on one row: what the gradient lacks of {SLOPE:g} nats at the last {LAST}"
        " iterations",
        excess(SLOPE, run.slopes[-LAST:].min()),
        0,
        {
            "iterations": len(run.slopes),
            "log p(X) at first": float(run.values[0]),
            "log p(X) at last": float(run.values[-1]),
            "slope at last": float(run.slopes[-1]),
            "smallest variance at last": float(collapse.variances[-1]),
            "ended as": collapse.result,
        },
    )
    yield Check(
        "G14",
        dataset.name,
        "there: iterations in which log p(X) does not rise or the smallest variance does not fall",
        violations(
            np.concatenate([np.diff(run.values) > -ROUNDING * abs(run.values[-1]), np.diff(collapse.variances) < 0])
        ),
        0,
    )
