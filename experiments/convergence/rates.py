"""D3, G3: how fast EM converges, seen in its steps, in the Jacobian of its map and in the missing information."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

import probem
from probem.experiments.claims.claim import Check, Dataset
from probem.models import gmm

from . import mixture
from .plain import iterated

COMPONENTS = 2
#: Steps of the engine that are followed, and of the plain loop that goes on from there to the fixed point.
FOLLOWED, TO_THE_END = 160, 700
#: Errors, in free coordinates, between which the slope is taken: below, what falls off faster is gone and EM is linear;
#: above, the fixed point is known to many more digits than the error has.
BELOW, ABOVE = 1e-3, 1e-8
#: Four digits: what falls off faster than the slowest direction is not quite gone, and steps are not quite linear.
FOUR_DIGITS = 1e-4
#: Second derivatives on two ways: rounding, times the condition of the information, which may be in the thousands.
DERIVATIVES = 1e-10


def program() -> Callable[..., None]:
    """Two normal distributions with covariances of their own."""
    return functools.partial(gmm, num_components=COMPONENTS)


class Run(NamedTuple):
    """A run of the engine: the fixed point to which a plain loop goes on from its end, and how far from that every step
    was, in free coordinates.
    """

    rows: np.ndarray
    end: dict[str, np.ndarray]
    errors: np.ndarray

    @property
    def window(self) -> tuple[int, int]:
        """The steps between which the slope is taken; the same step twice if too few are on the way."""
        inside = np.flatnonzero((self.errors < BELOW) & (self.errors > ABOVE))
        if len(inside) < 3:
            return 0, 0
        # The later half, in which the slowest direction is nearly all there is.
        return int(inside[len(inside) // 2]), int(inside[-1])

    @property
    def rate(self) -> float:
        """The factor by which a step brings the error down; not a number if too few are on the way."""
        first, last = self.window
        if first == last:
            return float("nan")
        return float((self.errors[last] / self.errors[first]) ** (1 / (last - first)))


_all_free = jax.jit(jax.vmap(mixture.free))


def _engine_iteration(params: Any, rows: Any) -> Any:
    """The parameters after one iteration of the engine."""
    return probem.solve(program(), rows, init=probem.Parameters(params), max_steps=2, tolerance=0).params


@jax.jit
def _steps(params: Any, rows: Any) -> Any:
    """The parameters before every iteration of the engine."""
    return jax.lax.scan(lambda now, _: (_engine_iteration(now, rows), now), params, None, FOLLOWED)[1]


@functools.cache
def _followed(name: str, rows: bytes, shape: tuple[int, ...], seed: int) -> Run:
    del name
    x = np.frombuffer(rows).reshape(shape)
    start = probem.fit(program(), x, key=seed, max_steps=1, throw=False)
    every = _steps(mixture.as_numbers(start.params), x)
    end = iterated({name: np.asarray(value[-1]) for name, value in every.items()}, x, TO_THE_END)
    apart = np.asarray(_all_free(every)) - np.asarray(mixture.free(end))
    return Run(x, end, np.linalg.norm(apart, axis=1))


def run_of(dataset: Dataset, seed: int) -> Run:
    """The run from a start by this seed."""
    return _followed(dataset.name, np.ascontiguousarray(dataset.rows).tobytes(), dataset.rows.shape, seed)


def eigenvalues(step: Any) -> np.ndarray:
    """Those of a Jacobian, the largest first; they are real where it is similar to a symmetric matrix."""
    return np.sort(np.linalg.eigvals(np.asarray(step)).real)[::-1]


def linear_rate(dataset: Dataset, seed: int) -> Iterator[Check]:
    """D3."""
    run = run_of(dataset, seed)
    step, _, _ = mixture.curvatures(run.end, run.rows)
    values = eigenvalues(step)
    first, last = run.window
    yield Check(
        "D3",
        dataset.name,
        f"the factor by which steps {first} to {last} bring the error down, and the largest eigenvalue of the map,"
        " relative",
        abs(run.rate / values[0] - 1),
        FOUR_DIGITS,
        {"by the steps": run.rate, "by the Jacobian": float(values[0]), "the second eigenvalue": float(values[1])},
    )


@mixture.quickly_compiled
def _engine_step(params: Any, rows: Any) -> jax.Array:
    """The Jacobian of an iteration of the engine, by forward differentiation of a fit of one step."""
    back = mixture.back_from(params)
    return jax.jacfwd(lambda vector: mixture.free(_engine_iteration(back(vector), rows)))(mixture.free(params))


def standard_errors_by_jacobian(run: Run) -> dict[str, np.ndarray]:
    """Those of the parameters by (I_c (I - J))^-1, with J of the engine's own iteration."""
    _, _, complete = mixture.curvatures(run.end, run.rows)
    step = np.asarray(_engine_step(run.end, run.rows))
    covariance = np.linalg.inv(np.asarray(complete) @ (np.eye(len(step)) - step))
    derivatives = mixture.derivatives(run.end)
    return {name: np.sqrt(np.einsum("...i,ij,...j->...", each, covariance, each)) for name, each in derivatives.items()}


def standard_errors_of(run: Run) -> dict[str, np.ndarray]:
    """Those of a fit by the engine that begins, and ends, at the fixed point."""
    fit = probem.fit(program(), run.rows, init=probem.Parameters(run.end), tolerance=1e-12)
    return fit.standard_errors(run.rows)


def missing_information(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G3."""
    run = run_of(dataset, seed)
    _, observed, complete = (np.asarray(each) for each in mixture.curvatures(run.end, run.rows))
    step = np.asarray(_engine_step(run.end, run.rows))
    by_step = complete @ (np.eye(len(step)) - step)
    size = np.sqrt(np.outer(np.diag(observed), np.diag(observed)))
    yield Check(
        "G3",
        dataset.name,
        "I_c (I − J) with J of the engine’s iteration, and I_o by autodiff of NumPyro’s density, per its diagonal",
        np.abs(by_step - observed) / size,
        DERIVATIVES,
    )
    largest, fraction = eigenvalues(step)[0], 1 - np.linalg.eigvals(np.linalg.solve(complete, observed)).real.min()
    yield Check(
        "G3",
        dataset.name,
        "the largest eigenvalue of J, and the largest fraction of missing information",
        abs(largest - fraction),
        DERIVATIVES,
        {"of J": float(largest), "missing": float(fraction), "seen in the steps": run.rate},
    )
    errors, expected = standard_errors_of(run), standard_errors_by_jacobian(run)
    yield Check(
        "G3",
        dataset.name,
        "standard errors of the fit, and those by the Jacobian, relative",
        np.concatenate([np.abs(errors[name] / expected[name] - 1).ravel() for name in expected]),
        # Inverses of the information lose as many digits again.
        1e-8,
        {f"standard error of loc[{k}, 0]": float(errors["loc"][k, 0]) for k in range(COMPONENTS)},
    )
