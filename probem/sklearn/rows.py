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
        largest = float(np.fmax.reduce(np.fmax.reduce(rows) - np.fmin.reduce(rows)))
    return 2.0 ** math.frexp(largest)[1] if largest > 0 else 1.0


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
        return float(np.mean(np.var(rows, axis=0)))
    there = ~np.isnan(rows)
    counts = np.maximum(there.sum(axis=0), 1)
    centred = np.where(there, rows - np.nansum(rows, axis=0) / counts, 0.0)
    return float(np.mean((centred**2).sum(axis=0) / counts))


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
