"""Rows as estimators take them: arrays, or SciPy's CSR where an estimator allows it."""

import math
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int
from sklearn.utils.sparsefuncs import mean_variance_axis

from probem.data.compressed import compressed

#: Rows ``[N, D]``: an array, or SciPy's CSR where an estimator takes sparse rows.
Rows = Any

# Rows whose distances to all centres are formed at once.
_ROWS_AT_ONCE = 16384
# Numbers that are reduced side by side, and that a core's cache holds.
_SIDE_BY_SIDE, _CACHED = 512, 2**16


def as_csr(rows: Any) -> Rows:
    """Sparse rows without duplicates and stored zeros."""
    return compressed(rows, "X").matrix


def is_csr(rows: Any) -> bool:
    """Whether rows are sparse."""
    return scipy.sparse.issparse(rows)


def unit(rows: Rows) -> float:
    """A power of two near the range of the rows, by which they are divided without rounding.

    Beside the constants of a density, distances far below 1 would be lost to rounding.
    """
    if is_csr(rows):
        # That of all columns together: the zeros that are not stored are in each of them.
        largest = float(np.max(rows.data, initial=0.0)) - float(np.min(rows.data, initial=0.0))
    else:
        largest = float(np.fmax.reduce(_over_rows(np.fmax, rows) - _over_rows(np.fmin, rows)))
    return 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0


def _over_rows(ufunc: np.ufunc, rows: Float[np.ndarray, "N D"], dtype: Any = None) -> Float[np.ndarray, " D"]:
    """``ufunc.reduce(rows, dtype=dtype)``, many rows side by side.

    NumPy goes from row to row: where columns are few that takes twenty times as long.
    """
    together = max(1, _SIDE_BY_SIDE // rows.shape[1])
    most = len(rows) // together * together
    if together == 1 or most == 0:
        return ufunc.reduce(rows, dtype=dtype)
    side_by_side = ufunc.reduce(rows[:most].reshape(-1, together * rows.shape[1]), dtype=dtype).reshape(together, -1)
    return ufunc.reduce(np.concatenate([side_by_side, rows[most:]]), dtype=dtype)


def divided(rows: Rows, unit: float | np.floating) -> Rows:
    """The rows in a unit, in their precision; SciPy divides in float64."""
    number = rows.dtype.type(unit)
    if not is_csr(rows):
        return rows / number
    return scipy.sparse.csr_array((rows.data / number, rows.indices, rows.indptr), rows.shape)


def mean_variance(rows: Rows) -> float:
    """The mean over the columns of the variance of what is there of each."""
    if is_csr(rows):
        moments: Any = mean_variance_axis(scipy.sparse.csr_matrix(rows), axis=0)
        return float(np.mean(moments[1]))
    if not np.isnan(rows).any():
        mean = (_over_rows(np.add, rows, np.float64) / len(rows)).astype(rows.dtype)
        return squared_distances(rows, mean) / rows.size
    there = ~np.isnan(rows)
    counts = np.maximum(there.sum(axis=0), 1)
    centred = np.where(there, rows - np.nansum(rows, axis=0) / counts, 0.0)
    return float(np.mean((centred**2).sum(axis=0) / counts))


def squared_distances(
    rows: Float[np.ndarray, "N D"],
    places: Float[np.ndarray, "K D"] | Float[np.ndarray, " D"],
    labels: Int[np.ndarray, " N"] | None = None,
    weights: Float[np.ndarray, " N"] | None = None,
) -> float:
    """The sum over the rows of the squared distances to a place, or to that of each label; in float64, without what is
    missing.
    """
    total, size = 0.0, max(1, _CACHED // rows.shape[1])
    for start in range(0, len(rows), size):
        these = slice(start, start + size)
        moved = rows[these] - (places if labels is None else places.take(labels[these], axis=0))
        largest = float(max(np.fmax.reduce(moved, axis=None), -np.fmin.reduce(moved, axis=None)))
        if not largest > 0:  # nothing is there, or all of it at its place
            continue
        # A power of two, whose square is left out of squares that might be too small or too large.
        scale = 2.0 ** math.frexp(largest)[1]
        moved /= moved.dtype.type(scale)
        squares = np.square(moved, out=moved)
        if weights is not None:
            squares = squares * weights[these, None]
        here = float(squares.sum(dtype=np.float64))
        # A product may be infinite, a power of Python's may not.
        total += scale * scale * (float(np.nansum(squares, dtype=np.float64)) if math.isnan(here) else here)
    return total


def nearest_of_sparse(rows: Rows, centres: Float[np.ndarray, "K D"]) -> Int[np.ndarray, " N"]:
    """The nearest centre of every sparse row, ties to the lowest index."""
    half_squares = 0.5 * (centres**2).sum(axis=1)
    columns = np.ascontiguousarray(centres.T)
    parts = [
        np.argmax(rows[start : start + _ROWS_AT_ONCE] @ columns - half_squares, axis=1)
        for start in range(0, rows.shape[0], _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts).astype(np.int32)


def squares_of_sparse(
    rows: Rows, centres: Float[np.ndarray, "K D"], labels: Int[np.ndarray, " N"]
) -> Float[np.ndarray, " N"]:
    """The squared distance of every sparse row to the centre of its label, from the differences of its non-zeros; in
    float64.

        |x - c|^2 = sum over the non-zeros of (x_d - c_d)^2 + |c|^2 - sum over the non-zeros of c_d^2
    """
    squares = (centres.astype(np.float64) ** 2).sum(axis=1)
    entries = np.count_nonzero(centres, axis=1)
    parts = []
    for start in range(0, rows.shape[0], _ROWS_AT_ONCE):
        block, of_block = rows[start : start + _ROWS_AT_ONCE], labels[start : start + _ROWS_AT_ONCE]
        owner = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        there = centres[of_block[owner], block.indices].astype(np.float64)
        count = block.shape[0]
        moved = np.bincount(owner, (block.data - there) ** 2, count)
        met = np.bincount(owner, there**2, count)
        # Nothing, and not what rounding leaves, where the row has all entries of its centre.
        is_rest = np.bincount(owner, there != 0, count) < entries[of_block]
        parts.append(moved + np.where(is_rest, np.maximum(squares[of_block] - met, 0.0), 0.0))
    return np.concatenate(parts)
