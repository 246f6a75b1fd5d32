"""Whether the components of a program are exchangeable: whether the numbers of its seeds mean nothing.

They are where every permutation of the components is matched by one of the entries of the parameters, on their
constraints and of the same prior: then seeds in any order start the same fit. Means ``low`` and ``low + d`` with d > 0,
an ordered vector, a component with a fixed density or priors that differ are not.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int
from numpyro.distributions import constraints

from probem.program.dependence import row_tables
from probem.program.fixed import Masks
from probem.program.program import Program
from probem.program.sites import Params

# Ways to permute the entries of all parameters that are tried before the components are taken for different.
_MOST_WAYS = 32


@functools.lru_cache(maxsize=256)
def is_exchangeable(program: Program, fixed: Masks = ()) -> bool:
    """Whether a permutation of the components is one of the parameters, found by trying on random parameters and rows.

    A parameter of which entries are fixed counts as one whose values differ.
    """
    count = program.num_components
    if count == 1:
        return True
    if len(program.assignments) > 1:
        return False  # the values of each may be permuted, but not their pairs
    data = program.spec.examples()[0]
    params = program.random_params(21)
    run = functools.partial(row_tables, program)
    # A transposition and a cycle generate all permutations.
    orders = [np.array([1, 0, *range(2, count)]), np.roll(np.arange(count), 1)][: count - 1]
    with jax.debug_nans(False):  # some rows may lie outside the support
        before = run(params, data)
        return any(
            all(
                _matches(program, before, run(moved, data), order)
                for order, moved in zip(orders, permuted, strict=True)
            )
            for permuted in _ways(program, params, orders, {name for name, _ in fixed})
        )


def _ways(program: Program, params: Params, orders: list[Int[np.ndarray, " K"]], fixed: set[str]) -> Any:
    """The parameters in each of the orders, for every choice of the axis that belongs to the components."""
    count = program.num_components
    axes = [
        [None] if name in fixed else [*(axis for axis, size in enumerate(np.shape(value)) if size == count), None]
        for name, value in params.items()
    ]
    for choice in itertools.islice(itertools.product(*axes), _MOST_WAYS):
        permuted = [
            {
                name: value if axis is None else np.take(value, order, axis)
                for axis, (name, value) in zip(choice, params.items(), strict=True)
            }
            for order in orders
        ]
        moved = [(name, axis) for axis, name in zip(choice, params, strict=True) if axis is not None]
        if all(_keeps_constraint(program, name, axis, permuted) for name, axis in moved):
            yield permuted


def _keeps_constraint(program: Program, name: str, axis: int, permuted: list[Params]) -> bool:
    constraint = program.constraints[name]
    if constraint is constraints.simplex or axis < permuted[0][name].ndim - constraint.event_dim:
        return True
    with jax.ensure_compile_time_eval():
        return all(np.asarray(constraint(jnp.asarray(params[name]))).all() for params in permuted)


def _matches(program: Program, before: Params, after: Params, order: Int[np.ndarray, " K"]) -> bool:
    close = functools.partial(np.allclose, rtol=1e-3, atol=1e-3, equal_nan=True)
    tables = all(close(after[name], before[name][:, order]) for name in program.local)
    return tables and close(after["prior"], before["prior"])
