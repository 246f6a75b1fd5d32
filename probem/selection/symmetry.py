"""How many relabellings of its components a program does not notice."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.errors import InputError
from probem.jit.compilation import concrete
from probem.program.component_axes import choices, generators, reordered
from probem.program.program import Program

Axes = Mapping[str, int]
Params = Mapping[str, np.ndarray]


@functools.lru_cache(maxsize=256)
def log_relabellings(program: Program) -> float:
    """log of the number of relabellings under which log p(X, theta) is the same for every theta, nats.

    Of one assignment site with K values it is log K!; of several the sum over the sites, each relabelled by itself.

    Raises
    ------
    InputError
        If some relabelling changes log p(X, theta), as it does under stick-breaking weights, under an order that the
        program asks for, and under priors that differ between components.
    """
    data = program.spec.examples()[0]

    def values(params: Params) -> tuple[np.ndarray, np.ndarray]:
        return _table_and_prior(program, params, data)

    for place, site in enumerate(program.assignments):
        if site.size > 1 and not any(
            _is_symmetric(program, values, place, axes) for axes in choices(program, site.size)
        ):
            raise InputError(
                f"criterion='log_evidence' for components of '{site.name}' that are not exchangeable",
                "a program under which every relabelling of the components is as probable (then F sits in one of K!"
                " modes)",
                "use criterion='elbo'",
            )
    return sum(math.lgamma(site.size + 1) for site in program.assignments)


def _is_symmetric(
    program: Program, values: Callable[[Params], tuple[np.ndarray, np.ndarray]], place: int, axes: Axes
) -> bool:
    """Whether relabelled parameters give the table relabelled, and are as probable."""
    size = program.assignments[place].size
    tolerance = float(np.sqrt(np.finfo(jnp.result_type(float)).eps))

    def at(params: Params) -> tuple[Float[np.ndarray, "n ..."], float]:
        table, prior = values(params)
        return np.moveaxis(table.reshape(len(table), *program.enumeration_shape), 1 + place, 1), float(prior)

    params = program.random_params(0)
    table, prior = at(params)
    for order in generators(size):
        other, other_prior = at(reordered(params, axes, order))
        same = np.allclose(other, table[:, order], tolerance, tolerance)
        if not (same and np.isclose(other_prior, prior, tolerance, tolerance)):
            return False
    return True


@concrete
def _table_and_prior(program: Program, params: Any, data: Any) -> tuple[Array, Array]:
    return program.log_joint(params, data), program.log_prior(params)
