"""EM with infinitely many rows: the nodes of a quadrature are the rows, and each counts with its share of the density.

The integrands are smooth and vanish at both ends, so that equal steps integrate them to rounding as long as the step is
small beside the distance of the nearest pole: that of tanh(theta x) is at pi / (2 theta), and the error is of the order
of exp(-pi² / (theta step)), 2e-11 for theta = 20.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.stats import norm

import probem
from probem.models import kmeans

#: The nodes, in standard deviations, and the distance from one to the next.
NODES = np.linspace(-14.0, 14.0, 1401)
STEP = NODES[1] - NODES[0]
#: Mixtures side by side in one compiled call; fewer are filled up.
BATCH = 24


def shares(*centres: float) -> Float[np.ndarray, " N"]:
    """What each node is worth under equally common N(centre, 1)."""
    return norm.pdf(NODES[:, None], centres, 1.0).mean(axis=1) * STEP


@functools.cache
def _many(num_components: int) -> Any:
    """Soft k-means on rows ``[B, N, 1]``: so many E half-steps, all but the last with an M half-step behind them."""
    program = functools.partial(kmeans, num_components=num_components)

    def one(rows: Any, row_weights: Any, start: Any, num_steps: Any) -> Any:
        init = probem.Parameters({"loc": start})
        options = {"row_weights": row_weights, "max_steps": num_steps, "tolerance": 0.0}
        return probem.solve(program, rows, init=init, **options)

    return jax.jit(jax.vmap(one, in_axes=(0, 0, 0, None)))


def after(
    num_steps: int,
    starts: Float[np.ndarray, "B K"],
    row_weights: Float[np.ndarray, "B N"],
    rows: Float[np.ndarray, "B N"] | None = None,
) -> tuple[Float[np.ndarray, "B K"], Float[np.ndarray, " B"]]:
    """Centres after so many steps of EM with unit variances and equal weights from each start, and F there (nats)."""
    rows = np.broadcast_to(NODES, row_weights.shape) if rows is None else rows
    left = -len(starts) % BATCH
    filled = [np.concatenate([array, np.repeat(array[-1:], left, axis=0)]) for array in (rows, row_weights, starts)]
    solution = _many(starts.shape[1])(filled[0][..., None], filled[1], filled[2][..., None], num_steps + 1)
    return np.asarray(solution.params["loc"])[: len(starts), :, 0], np.asarray(solution.elbo)[: len(starts)]


def mirrored(distances: Sequence[float] | Float[np.ndarray, " B"]) -> Float[np.ndarray, "B 2"]:
    """Centres at minus and plus each distance."""
    return np.stack([-np.asarray(distances, float), np.asarray(distances, float)], axis=1)


def expected(function: Callable[[float], float], distance: float) -> float:
    """E f(X) for an even f, X equally often from N(-distance, 1) and N(distance, 1), by adaptive quadrature."""

    def integrand(x: float) -> float:
        # Both normal densities, without SciPy's checks of its arguments.
        both = math.exp(-((x - distance) ** 2) / 2) + math.exp(-((x + distance) ** 2) / 2)
        return function(x) * both / math.sqrt(2 * math.pi)

    # The half line has all of an even function. Beyond 14 standard deviations nothing is left that counts.
    value, _ = quad(integrand, 0.0, distance + 14.0, epsabs=1e-13, epsrel=1e-12, limit=400)
    return value
