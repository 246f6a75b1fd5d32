"""Whether every component has a distribution of its own."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Shaped

from probem.errors import InputError
from probem.form.form import ExponentialForm
from probem.program.dependence import row_tables
from probem.program.program import Program
from probem.program.sites import Params


def check_components_differ(sorted_form: ExponentialForm) -> None:
    """An index past the end of a parameter is read as its last entry, in silence: then two components are one."""
    program = sorted_form.program
    for axis, assignment in enumerate(program.assignments):
        if assignment.size > 1 and _are_one(sorted_form, axis):
            raise InputError(
                f"one distribution for the last two of the {assignment.size} values of '{assignment.name}', whatever"
                " the parameters",
                f"{assignment.size} entries in every parameter that '{assignment.name}' picks from",
                "give its probabilities (or their prior) and those parameters the same number of entries",
            )


def _are_one(sorted_form: ExponentialForm, axis: int) -> bool:
    """Whether the last two values of an assignment mean the same to every other site, whatever the parameters."""
    program = sorted_form.program
    others = [name for name in program.local if name != program.assignments[axis].name]

    def differ(value: Shaped[np.ndarray, "K ..."], at: int) -> bool:
        """Whether anything ``[K, ...]`` is different at the last value of the assignment and at another."""
        by_value = np.moveaxis(value.reshape(*program.enumeration_shape, -1), axis, 0)
        both = np.isfinite(by_value[-1]) & np.isfinite(by_value[at])
        return not np.allclose(by_value[-1][both], by_value[at][both], rtol=1e-5, atol=1e-8)

    for sample in sorted_form.samples:
        for term in sorted_form.terms:
            if term.site in others and any(differ(value, -2) for value in sample.arguments[term.site].values()):
                return False
    generic = [name for name in sorted_form.generic if name in others]
    moves = False
    for params, rows in _random_rows(program) if generic else ():
        with jax.debug_nans(False):  # some rows may lie outside the support
            tables = row_tables(program, params, rows)
        if any(differ(tables[name].T, -2) for name in generic):
            return False
        moves = moves or any(differ(tables[name].T, 0) for name in generic)
    # Of a density that is known by its values on some rows alone, a difference elsewhere may have been missed.
    return moves or not generic


def _random_rows(program: Program) -> Iterator[tuple[Params, tuple[Any, ...]]]:
    """Parameters and a few rows, small and large, in the shape in which the program is looked at anyway."""
    random = np.random.default_rng(0)
    for seed, scale in itertools.product((11, 12), (None, 1.0, 30.0, 1000.0)):
        for rows in program.spec.examples():
            if scale is not None:
                rows = jax.tree.map(
                    lambda leaf, scale=scale: (
                        (scale * random.normal(size=leaf.shape)).astype(leaf.dtype)
                        if np.issubdtype(leaf.dtype, np.floating)
                        else leaf
                    ),
                    rows,
                )
            yield program.random_params(seed), rows
