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
from probem.data.compressed import CompressedRows, compressed, is_sparse
from probem.data.observations import Observations
from probem.data.row_axes import RowAxes
from probem.errors import InputError

# The frames between a caller and the check of its data, those of annotations checked in tests among them.
_OURS = ("probem", "jax", "jaxtyping", "beartype")


def check_data(
    data: tuple[Any, ...], missing: bool = False, num_sets: int | None = None, sparse: bool = False
) -> tuple[Any, ...]:
    """The data arguments as arrays, or one sentence about what is wrong with them.

    ``missing`` allows NaN; ``sparse`` a sparse matrix of SciPy, which is all of the data then, and comes back as
    ``CompressedRows``. The rows may be those of ``num_sets`` data sets. Traced arrays are checked for their shapes
    only.
    """
    # A list is rows of numbers, as NumPy reads it, and not a structure of arrays.
    arrays = jax.tree.map(_array, data, is_leaf=lambda node: isinstance(node, list))
    leaves = jax.tree.leaves(arrays)
    _check_sparse(leaves, sparse)
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
        if isinstance(leaf, CompressedRows):
            _check_finite_values(leaf)
            continue
        _check_finite(np.asarray(leaf), where, missing, RowAxes(len(leaf) // (num_sets or 1), num_sets))
    return arrays


def _check_sparse(leaves: list[Any], allowed: bool) -> None:
    """Refuse sparse rows where they are not taken, and beside other data."""
    if not any(isinstance(leaf, CompressedRows) for leaf in leaves):
        return
    if not allowed:
        raise _no_sparse_rows()
    if len(leaves) > 1:
        raise InputError(
            f"{len(leaves)} data arguments, one of them sparse",
            "sparse rows that are all of the data",
            "pass .toarray()",
        )


def check_not_sparse(data: tuple[Any, ...]) -> None:
    """Refuse sparse rows where arrays may be traced, which SciPy's are not."""
    if any(is_sparse(leaf) for leaf in jax.tree.leaves(data)):
        raise _no_sparse_rows()


def _no_sparse_rows() -> InputError:
    return InputError("sparse rows", "an array, of which all entries are stored", "pass x.toarray()")


def _check_finite_values(rows: CompressedRows) -> None:
    """Refuse values that are not finite: NaN too, since sparse rows have no gaps."""
    wrong = ~np.isfinite(rows.matrix.data)
    if wrong.any():
        columns = np.unique(rows.matrix.indices[wrong])
        named = ", ".join(str(column) for column in columns[:10]) + (", ..." if len(columns) > 10 else "")
        raise InputError(
            f"{int(wrong.sum())} NaN or infinite values in sparse rows ({'columns' if len(columns) > 1 else 'column'}"
            f" {named})",
            "finite numbers: sparse rows have no missing values",
            "drop or impute those rows, or pass .toarray(), in which NaN is a missing value",
        )


def _array(leaf: Any) -> Array | np.ndarray | CompressedRows:
    if is_sparse(leaf):
        leaf = compressed(leaf, "data")
    if isinstance(leaf, CompressedRows):
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        _warn_of_precision(leaf.dtype, dtype)
        return leaf if leaf.dtype == dtype else leaf.astype(dtype)
    array = numeric(leaf, "data", "real numbers")
    if isinstance(array, jax.Array):
        return array
    # As JAX will have it: float64 only where x64 is on.
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    _warn_of_precision(array.dtype, dtype)
    return np.asarray(array, dtype)


def _warn_of_precision(given: np.dtype, taken: np.dtype) -> None:
    if given == np.float64 != taken:
        _warn(
            "float64 data is fitted in float32, because JAX's x64 mode is off: switch it on with"
            " numpyro.enable_x64(), or pass float32 data if that is meant."
        )


def _warn(sentence: str) -> None:
    """A warning that points at the code which called probem."""
    frame: Any = sys._getframe()
    depth = 1
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] in _OURS or frame.f_code.co_filename.startswith("<")
    ):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(sentence, stacklevel=depth)


def _check_finite(array: Float[np.ndarray, "N ..."], where: str, missing: bool, axes: RowAxes) -> None:
    rows = max(1, 2**22 // max(1, array[:1].size))
    bad = 0
    columns: set[int] = set()
    sets: set[int] = set()
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        wrong = np.isinf(part) if missing else ~np.isfinite(part)
        if wrong.any():
            bad += int(wrong.sum())
            wrong = wrong.reshape(len(wrong), -1)
            columns |= set(np.flatnonzero(wrong.any(0)).tolist())
            sets |= set(((start + np.flatnonzero(wrong.any(1))) // axes.num_rows).tolist())
    if bad:
        named = ", ".join(str(column) for column in sorted(columns)[:10]) + (", ..." if len(columns) > 10 else "")
        noun = "value that is" if bad == 1 else "values that are"
        plural = "column" if len(columns) == 1 else "columns"
        raise InputError(
            f"{bad} {noun} {'' if missing else 'NaN or '}infinite in {axes.place(where, list(sets))}"
            f" ({plural} {named})",
            "finite numbers" + (", or NaN where a value is missing" if missing else ""),
            "drop or impute those rows",
        )


def check_row_weights(row_weights: Any, axes: RowAxes) -> Shaped[Any, " N"] | None:
    """Row weights, of many data sets ``[B N]``, finite and not negative, or None. Traced ones are checked for shape and
    type only.
    """
    if row_weights is None:
        return None
    weights = row_weights if isinstance(row_weights, Tracer) else np.asarray(numeric(row_weights, "row_weights"), float)
    if weights.shape != axes.shape:
        raise InputError(f"row_weights of shape {weights.shape}", f"shape {axes.shape}", "give one weight for each row")
    if isinstance(weights, Tracer):
        if not jnp.isdtype(weights.dtype, ("bool", "integral", "real floating")):
            raise InputError(f"row_weights of type {weights.dtype}", "real numbers", "convert them first")
        return weights
    weights = weights.reshape(-1)
    each = axes.by_set(weights)
    bad = np.flatnonzero(~(np.isfinite(each).all(1) & (each >= 0).all(1) & (each.sum(1) > 0)))
    if bad.size:
        raise InputError(
            f"row_weights with a negative, non-finite or no positive value{axes.in_sets(bad)}",
            "weights >= 0",
            "check them",
        )
    return weights


def check_labels(labels: Any, axes: RowAxes, num_components: int) -> Shaped[Any, " N"] | None:
    """Known assignments, of many data sets ``[B N]``, -1 where unknown, or None where all are. Traced ones are checked
    for shape and type only.
    """
    if labels is None:
        return None
    given = labels if isinstance(labels, Tracer) else np.asarray(numeric(labels, "labels", "whole numbers from -1"))
    if given.shape != axes.shape:
        raise InputError(f"labels of shape {given.shape}", f"shape {axes.shape}", "give one label for each row")
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
    return None if (given < 0).all() else given.reshape(-1).astype(np.int32)


def check_columns(rows: Observations, axes: RowAxes) -> None:
    """Refuse a column without any value, or none in a row that counts: nothing could be learned of it.

    Raises
    ------
    InputError
        Naming the column, or the data sets.
    """
    leaves = jax.tree.leaves(rows.missing)
    uncounted = None if rows.weights is None or isinstance(rows.weights, Tracer) else axes.by_set(rows.weights) <= 0
    for position, leaf in enumerate(leaves):
        absent = axes.by_set(np.asarray(leaf).reshape(len(leaf), -1))
        sets, columns = np.nonzero((absent if uncounted is None else absent | uncounted[:, :, None]).all(1))
        where = f"data argument {position + 1}" if len(leaves) > 1 else "the data"
        named = ", ".join(map(str, columns[:10]))
        if len(sets) and axes.num_sets is None:
            raise InputError(
                f"no value at all in column {named} of {where}", "at least one value in each", "leave it out"
            )
        if len(sets):
            raise InputError(
                f"a column without any value in {axes.place(where, sets)}",
                "at least one value in each",
                "leave those data sets out",
            )
