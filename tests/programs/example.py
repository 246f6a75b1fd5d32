"""A program with its table of log joints as plain loops over SciPy's densities."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import constraints

Params = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A program, data, parameters, and log p(row, components | params) by hand.

    ``log_joint(params, row, *values)`` takes one value for each assignment site, from ``supports``; ``row`` holds the
    data arguments at one row.
    """

    program: Callable[..., None]
    data: tuple[Any, ...]
    params: Params
    supports: tuple[tuple[int, ...], ...]
    log_joint: Callable[..., float]
    log_prior: Callable[[Params], float] = lambda params: 0.0

    @property
    def num_rows(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    def table(self, params: Params | None = None) -> np.ndarray:
        """[N, K], joint values in row-major order."""
        params = self.params if params is None else params
        joint = [[]]
        for support in self.supports:
            joint = [[*values, value] for values in joint for value in support]
        rows = [jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[n], self.data) for n in range(self.num_rows)]
        return np.array([[self.log_joint(params, row, *values) for values in joint] for row in rows])


def two_groups(seed: int, num_rows: int = 60) -> tuple[np.random.Generator, np.ndarray]:
    random = np.random.default_rng(seed)
    return random, random.permutation(np.arange(num_rows) % 5 < 2).astype(int)


def weights_param(num_components: int, name: str = "weights") -> jax.Array:
    return numpyro.param(name, jnp.full(num_components, 1 / num_components), constraint=constraints.simplex)
