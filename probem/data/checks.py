"""Data, row weights and labels as a caller gives them, checked: arrays, or one sentence about what is wrong."""

import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from probem.data.arrays import numeric
from probem.data.observations import Observations
from probem.errors import InputError

# The frames between a caller and the check of its data, those of annotations checked in tests among them.
_OURS = ("probem", "jax", "jaxtyping", "beartype")


def check_data(data: tuple[Any, ...], missing: bool = False) -> tuple[Any, ...]:
    """The data arguments as arrays, or one sentence about what is wrong with them.

    ``missing`` allows NaN. Traced arrays are checked for their shapes only.
    """
    # A list is rows of numbers, as NumPy reads it, and not a structure of arrays.
    arrays = jax.tree.map(_array, data, is_leaf=lambda node: isinstance(node, list))
    leaves = jax.tree.leaves(arrays)
    if not leaves:
        raise InputError("no data", "at least one array with a row per observation", "pass the data after the program")
    for position, leaf in enumerate(leaves):
        where = f"data argument {position + 1}" if len(leaves) > 1 else "the data"
        if leaf.ndim == 0:
            raise InputError(f"{where} as a single number", "an array with one row per observation", "bind it instead")
        if leaf.shape[0] != leaves[0].shape[0]:
            rows = ", ".join(str(other.shape[0]) for other in leaves)
            raise InputError(
                f"data arguments with different numbers of rows ({rows})", "the same number in each", "align them"
            )
        if leaf.shape[0] == 0:
            raise InputError(f"{where} with zero rows (shape {leaf.shape})", "at least one row", "check the selection")
        if isinstance(leaf, Tracer) or not np.issubdtype(np.dtype(leaf.dtype), np.floating):
            continue
        _check_finite(np.asarray(leaf), where, missing)
    return arrays


def _array(leaf: Any) -> Array | np.ndarray:
    array = numeric(leaf, "data", "real numbers")
    if isinstance(array, jax.Array):
        return array
    # As JAX will have it: float64 only where x64 is on.
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.dtype == np.float64 != dtype:
        _warn(
            "float64 data is fitted in float32, because JAX's x64 mode is off: switch it on with"
            " numpyro.enable_x64(), or pass float32 data if that is meant."
        )
    return np.asarray(array, dtype)


def _warn(sentence: str) -> None:
    """A warning that points at the code which called probem."""
    frame: Any = sys._getframe()
    depth = 1
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] in _OURS or frame.f_code.co_filename.startswith("<")
    ):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(sentence, stacklevel=depth)


def _check_finite(array: Float[np.ndarray, "N ..."], where: str, missing: bool) -> None:
    rows = max(1, 2**22 // max(1, array[:1].size))
    bad = 0
    columns: set[int] = set()
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        wrong = np.isinf(part) if missing else ~np.isfinite(part)
        if wrong.any():
            bad += int(wrong.sum())
            columns |= set(np.flatnonzero(wrong.reshape(len(wrong), -1).any(0)).tolist())
    if bad:
        named = ", ".join(str(column) for column in sorted(columns)[:10]) + (", ..." if len(columns) > 10 else "")
        noun = "value that is" if bad == 1 else "values that are"
        plural = "column" if len(columns) == 1 else "columns"
        raise InputError(
            f"{bad} {noun} {'' if missing else 'NaN or '}infinite in {where} ({plural} {named})",
            "finite numbers" + (", or NaN where a value is missing" if missing else ""),
            "drop or impute those rows",
        )


def check_row_weights(row_weights: Any, num_rows: int) -> Shaped[Any, " N"] | None:
    """Row weights, finite and not negative, or None. Traced ones are checked for shape and type only."""
    if row_weights is None:
        return None
    weights = row_weights if isinstance(row_weights, Tracer) else np.asarray(numeric(row_weights, "row_weights"), float)
    if weights.shape != (num_rows,):
        raise InputError(
            f"row_weights of shape {weights.shape}", f"shape ({num_rows},)", "give one weight for each row"
        )
    if isinstance(weights, Tracer):
        if not jnp.isdtype(weights.dtype, ("bool", "integral", "real floating")):
            raise InputError(f"row_weights of type {weights.dtype}", "real numbers", "convert them first")
        return weights
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise InputError("row_weights with a negative, non-finite or no positive value", "weights >= 0", "check them")
    return weights


def check_labels(labels: Any, num_rows: int, num_components: int) -> Shaped[Any, " N"] | None:
    """Known assignments, -1 where unknown, or None where all are. Traced ones are checked for shape and type only."""
    if labels is None:
        return None
    given = labels if isinstance(labels, Tracer) else np.asarray(numeric(labels, "labels", "whole numbers from -1"))
    if given.shape != (num_rows,):
        raise InputError(f"labels of shape {given.shape}", f"shape ({num_rows},)", "give one label for each row")
    if isinstance(given, Tracer):
        if not jnp.isdtype(given.dtype, ("bool", "integral")):
            raise InputError(
                f"traced labels of type {given.dtype}",
                f"whole numbers in 0..{num_components - 1}, and -1 where unknown",
                "convert them to integers first",
            )
        return given
    if given.dtype.kind not in "biuf" or not ((np.rint(given) == given) & (given >= -1) & np.isfinite(given)).all():
        raise InputError(
            f"labels of type {given.dtype} other than whole numbers from -1",
            f"whole numbers in 0..{num_components - 1}, and -1 where unknown",
            "number the components from zero",
        )
    if (given >= num_components).any():
        raise InputError(
            f"the label {int(given.max())}",
            f"labels in 0..{num_components - 1}, and -1 where unknown",
            "number the components from zero, or ask for more of them",
        )
    return None if (given < 0).all() else given.astype(np.int32)


def check_columns(rows: Observations) -> None:
    """Refuse a column without any value, or none in a row that counts: nothing could be learned of it.

    Raises
    ------
    InputError
        Naming the column.
    """
    leaves = jax.tree.leaves(rows.missing)
    counted = slice(None) if rows.weights is None or isinstance(rows.weights, Tracer) else rows.weights > 0
    for position, leaf in enumerate(leaves):
        empty = np.flatnonzero(np.asarray(leaf).reshape(len(leaf), -1)[counted].all(0))
        if len(empty):
            where = f"data argument {position + 1}" if len(leaves) > 1 else "the data"
            named = ", ".join(map(str, empty[:10]))
            raise InputError(
                f"no value at all in column {named} of {where}", "at least one value in each", "leave it out"
            )
