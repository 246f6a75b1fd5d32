"""The axes of parameters along which an assignment picks an entry."""

import functools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from probem.program.dependence import row_tables
from probem.program.program import Program

# By how much entries are multiplied, and what is no change.
_FACTOR, _NOTHING = 1.01, 1e-4


class ComponentAxis(NamedTuple):
    """An ``axis`` of a site that has an entry for each value of an assignment, the one at this ``place`` among them."""

    place: int
    axis: int


@functools.lru_cache(maxsize=256)
def component_axes(program: Program) -> dict[str, tuple[ComponentAxis, ...]]:
    """Of every site outside the data plate the axes along which its entries belong to components; of a site that all
    components share none, whatever its shape.

    Found by changing the entries at one index: the log joints of that component change in another way than those of all
    others, which change by one number, as where weights are normalised.
    """
    params, data = program.random_params(31), program.spec.examples()[0]

    def table(name: str, value: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        tables = row_tables(program, {**params, name: value}, data)
        joint = sum((np.asarray(tables[site], float) for site in program.local), np.zeros(()))
        return np.reshape(joint, (-1, *program.enumeration_shape))

    axes = {}
    with jax.debug_nans(False):  # off the constraints
        for site in program.globals:
            value = np.asarray(params[site.name], float)
            before = table(site.name, value)
            axes[site.name] = tuple(
                ComponentAxis(place, axis)
                for axis, length in enumerate(value.shape)
                for place, assignment in enumerate(program.assignments)
                if length == assignment.size > 1
                and all(
                    _is_alone(table(site.name, _changed(value, axis, index)) - before, 1 + place, index)
                    for index in range(length)
                )
            )
    return axes


def _changed(value: Float[np.ndarray, "..."], axis: int, index: int) -> Float[np.ndarray, "..."]:
    changed = np.moveaxis(value.copy(), axis, 0)
    changed[index] *= _FACTOR
    return np.moveaxis(changed, 0, axis)


def _is_alone(change: Float[np.ndarray, "..."], axis: int, index: int) -> bool:
    here, others = np.take(change, index, axis), np.delete(change, index, axis)
    level = others.flat[0]
    return bool((np.abs(others - level) <= _NOTHING).all() and (np.abs(here - level) > _NOTHING).any())
