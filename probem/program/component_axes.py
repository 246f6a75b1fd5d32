"""Components numbered otherwise: the axes of parameters along which an assignment picks an entry, in another order."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from probem.program.dependence import row_tables
from probem.program.program import Program

# What two log densities may differ by, relative and absolute, and be the same.
_SAME = 1e-5
# Choices that are tried, of axes that may belong to an assignment.
_MOST_CHOICES = 1000


class ComponentAxis(NamedTuple):
    """An ``axis`` of a site that has an entry for each value of an assignment, the one at this ``place`` among them."""

    place: int
    axis: int


@functools.lru_cache(maxsize=256)
def component_axes(program: Program) -> dict[str, tuple[ComponentAxis, ...]]:
    """Of every site outside the data plate the axes along which its entries belong to components; of a site that all
    components share none, whatever its shape.

    Components numbered otherwise are the same mixture: of every site in the plate, the smallest choice of axes is
    taken for which entries in another order give its log densities in that order. Where there is none, as for sticks
    of a stick-breaking prior, nothing is said.
    """
    params, data = program.random_params(31), program.spec.examples()[0]

    def tables(values: Mapping[str, Float[np.ndarray, "..."]]) -> dict[str, Float[np.ndarray, "..."]]:
        every = row_tables(program, dict(values), data)
        shape = (-1, *program.enumeration_shape)
        return {name: np.asarray(every[name], float).reshape(shape) for name in program.local}

    axes: dict[str, set[ComponentAxis]] = {site.name: set() for site in program.globals}
    with jax.debug_nans(False):  # values in another order may be off their constraint
        before = tables(params)
        for place, assignment in enumerate(program.assignments):
            if assignment.size < 2:
                continue
            orders = generators(assignment.size)
            left = set(program.local)
            for choice in itertools.islice(choices(program, assignment.size), _MOST_CHOICES):
                after = [tables(reordered(params, choice, order)) for order in orders]
                for name in tuple(left):
                    if all(
                        np.allclose(moved[name], np.take(before[name], order, 1 + place), _SAME, _SAME)
                        for moved, order in zip(after, orders, strict=True)
                    ):
                        left.discard(name)
                        for site, axis in choice.items():
                            axes[site].add(ComponentAxis(place, axis))
                if not left:
                    break
    return {name: tuple(sorted(found)) for name, found in axes.items()}


def generators(size: int) -> tuple[list[int], list[int]]:
    """A transposition of the first two and a rotation of all, which generate every order of so many entries."""
    return [1, 0, *range(2, size)], [*range(1, size), 0]


def choices(program: Program, size: int) -> Iterator[dict[str, int]]:
    """Axes of so many entries, by site: of no site, of one, and then of more."""
    possible = [
        (site.name, axis) for site in program.globals for axis, length in enumerate(site.shape) if length == size
    ]
    for count in range(len(program.globals) + 1):
        for chosen in itertools.combinations(possible, count):
            if len({name for name, _ in chosen}) == count:
                yield dict(chosen)


def reordered(
    params: Mapping[str, Float[np.ndarray, "..."]], axes: Mapping[str, int], order: list[int]
) -> dict[str, Float[np.ndarray, "..."]]:
    """Values with their entries in another order along these axes."""
    return {
        name: np.take(value, order, axes[name]) if name in axes else np.asarray(value) for name, value in params.items()
    }
