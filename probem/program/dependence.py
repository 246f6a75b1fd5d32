"""Which densities depend on which sites, found by running the program with NaN in one of them."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from probem.errors import InputError
from probem.jit.compilation import concrete
from probem.program.densities import finite_outside
from probem.program.program import Program
from probem.program.sites import Params

Tables = dict[str, Float[Array, "_ K"] | Float[Array, ""]]

# Of three rows, those that are looked at by themselves, in another order.
_FEWER = [2, 0]
# What is put into the other rows while one is looked at: what compares or counts with NaN is not moved by it.
_POISONS = (np.nan, 1e3, -1e3)
# The part of a density that rounding may take, where the shapes of arrays or the iterations of a function differ.
_ROUNDING = {"float32": 1e-3, "float64": 1e-6}


def row_tables(
    program: Program, params: Params, data: tuple[Any, ...]
) -> dict[str, Float[np.ndarray, "n K"] | Float[np.ndarray, ""]]:
    """The table ``[n, K]`` of every site in the data plate by its name, and the log prior as ``"prior"``, nats; finite
    outside of bounds that are computed, to say what depends on what. The rows are some of three.
    """
    tables: Any = _tables(program, params, data)[0]  # for the host, as all that is concrete
    return tables


@concrete
def _tables(program: Program, params: Params, data: tuple[Any, ...]) -> tuple[Tables, Tables]:
    """Those of three rows, and of two of them: one program costs little more than its half."""
    return tables_in_trace(program, params, data), tables_in_trace(
        program, params, jax.tree.map(lambda leaf: leaf[np.array(_FEWER)], data)
    )


def tables_in_trace(program: Program, params: Params, data: tuple[Any, ...]) -> Tables:
    """``row_tables`` as a part of something that is compiled."""
    with finite_outside():
        sites = program.enumerated_trace(params, data)
        tables = {name: program.table(sites, (name,)) for name in program.local}
        return {**tables, "prior": program.log_prior(params, sites)}


@functools.lru_cache(maxsize=256)
def dependents(program: Program) -> dict[str, frozenset[str]]:
    """For every global site, what depends on it: names of sites, and ``"prior"``; found by poisoning it with NaN.

    Raises
    ------
    InputError
        If the density of one row depends on other rows, or a prior on the data: then chunks would change the answer.
    """
    run = functools.partial(_tables, program)
    params = program.random_params(0)
    tolerance = _ROUNDING[jnp.result_type(float).name]
    close = functools.partial(np.allclose, rtol=tolerance, atol=tolerance, equal_nan=True)
    with jax.debug_nans(False):
        for data in program.spec.examples():
            clean, fewer = run(params, data)
            for row, value in itertools.product(range(3), _POISONS):
                poisoned, _ = run(params, jax.tree.map(functools.partial(_poisoned, row=row, value=value), data))
                # A special function may go on for all rows until the last converges: numbers cost digits, NaN none.
                same = close if np.isfinite(value) else functools.partial(np.array_equal, equal_nan=True)
                moved = [n for n in clean if not same(_rows(clean[n], [row]), _rows(poisoned[n], [row]))]
                _refuse_dependent(moved)
            # Two rows, in another order: nothing may depend on the first row, the place of a row or their number.
            _refuse_dependent([name for name in clean if not close(_rows(clean[name], _FEWER), fewer[name])])
        dependent = {}
        for site in program.globals:
            poisoned, _ = run({**params, site.name: np.full_like(params[site.name], np.nan)}, data)
            # What is impossible everywhere, or no number, tells nothing, and may depend on everything.
            silent = {name for name, value in clean.items() if not (value > -np.inf).any()}
            dependent[site.name] = frozenset(silent | {name for name in clean if _differ(clean[name], poisoned[name])})
    return dependent


def _poisoned(leaf: Shaped[np.ndarray, "3 ..."], row: int, value: float) -> Shaped[np.ndarray, "3 ..."]:
    """The rows of an example with others in the place of all but one."""
    is_number = np.issubdtype(leaf.dtype, np.floating)
    poisoned = np.full_like(leaf, value) if is_number else (1 - leaf.astype(int)).astype(leaf.dtype)
    poisoned[row] = leaf[row]
    return poisoned


def _rows(value: Float[np.ndarray, "..."], rows: list[int]) -> Float[np.ndarray, "..."]:
    return value[rows] if value.ndim else value


def _refuse_dependent(names: list[str]) -> None:
    remedy = "compute it from the data beforehand and bind it with functools.partial"
    if "prior" in names:
        raise InputError(
            "a prior that depends on the rows of the data", "priors that are the same for every chunk of rows", remedy
        )
    if names:
        raise InputError(
            f"the site '{names[0]}' whose density of one row depends on other rows",
            "rows that are independent given the parameters",
            remedy,
        )


def _differ(clean: Float[np.ndarray, "*shape"], poisoned: Float[np.ndarray, "*shape"]) -> bool:
    # Not only NaN: a program, or NumPyro, may turn a NaN into minus infinity.
    return not np.array_equal(clean, poisoned, equal_nan=True)
