"""The rows of a data set: observations with their gaps split off, weights and known assignments."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Shaped, UInt64

from probem.data.compressed import CompressedRows

# Rows that are told apart at once.
_ROWS_AT_ONCE = 2**18


class Observations(NamedTuple):
    """What is known of N rows: the data, how often each counts, its assignment, -1 if unknown, and which entries
    of the data are missing (and hold some value that fills the gap).
    """

    data: tuple[Any, ...]
    weights: Shaped[Any, " N"] | None = None
    labels: Shaped[Any, " N"] | None = None
    missing: Any = None

    @property
    def num_rows(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def are_sparse(self) -> bool:
        """Whether the data are rows of which the non-zeros alone are stored."""
        return any(isinstance(leaf, CompressedRows) for leaf in jax.tree.leaves(self.data))


def split_gaps(data: tuple[Any, ...], weights: Shaped[Any, " N"] | None = None) -> Observations:
    """The data without NaN, each replaced by the first value of its column in a row that counts, and where they were.

    ``weights`` are those of the rows, None where all count.
    """
    leaves, treedef = jax.tree.flatten(data)
    if Observations(data).are_sparse:
        return Observations(data)
    floating = [not isinstance(leaf, Tracer) and np.issubdtype(leaf.dtype, np.floating) for leaf in leaves]
    absent = [
        np.isnan(leaf) if real else np.zeros(leaf.shape, bool) for leaf, real in zip(leaves, floating, strict=True)
    ]
    if not any(gaps.any() for gaps in absent):
        return Observations(data)
    filled = []
    uncounted = np.zeros(len(absent[0]), bool) if weights is None or isinstance(weights, Tracer) else weights == 0
    for leaf, gaps in zip(leaves, absent, strict=True):
        if gaps.any():
            # A value that was observed, since a density may allow no other; one where there is none.
            without = gaps | uncounted.reshape(-1, *(1,) * (gaps.ndim - 1))
            first = np.take_along_axis(np.asarray(leaf), without.argmin(0)[None], 0)
            leaf = np.where(gaps, np.where(without.all(0), leaf.dtype.type(1), first), leaf)
        filled.append(leaf)
    return Observations(jax.tree.unflatten(treedef, filled), missing=jax.tree.unflatten(treedef, absent))


def distinct_compressed_rows(rows: CompressedRows, wanted: int) -> int:
    """The number of distinct rows, counted no further than ``wanted``."""
    distinct: set[bytes] = set()
    matrix = rows.matrix
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        distinct.add(matrix.indices[start:stop].tobytes() + matrix.data[start:stop].tobytes())
        if len(distinct) >= wanted:
            break
    return len(distinct)


def distinct_rows(leaves: list[Shaped[np.ndarray, "N ..."]], wanted: int) -> int:
    """The number of distinct rows of all data arguments together, counted no further than ``wanted``."""
    distinct: set[bytes] = set()
    # Most data has as many in its first few rows.
    few = min(len(leaves[0]), 4 * wanted)
    for row in range(few):
        distinct.add(b"".join(np.ascontiguousarray(leaf[row]).tobytes() for leaf in leaves))
        if len(distinct) >= wanted:
            return wanted
    if few == len(leaves[0]):
        return len(distinct)
    # One number stands for a row; that two which differ share theirs is as likely as a draw of one in 2^64.
    keys = np.zeros(0, np.uint64)
    for start in range(0, len(leaves[0]), _ROWS_AT_ONCE):
        parts = [np.ascontiguousarray(leaf[start : start + _ROWS_AT_ONCE]) for leaf in leaves]
        keys = np.unique(np.concatenate([keys, _mixed(parts)]))
        if len(keys) >= wanted:
            return wanted
    return len(keys)


def _mixed(parts: list[Shaped[np.ndarray, "n ..."]]) -> UInt64[np.ndarray, " n"]:
    """One number for the bytes of every row, mixed as by Steele, Lea & Flood (2014), SplitMix."""
    mixed = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        for column in part.view(f"u{part.dtype.itemsize}").reshape(len(part), -1).T:
            mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(27)
    return mixed


def restore_gaps(data: tuple[Any, ...], missing: Any) -> tuple[Any, ...]:
    """The data with NaN where it is missing."""

    def holes(
        leaf: Shaped[Array | np.ndarray, "*shape"], absent: Bool[Array | np.ndarray, "*shape"]
    ) -> Shaped[Array | np.ndarray, "*shape"]:
        return jnp.where(absent, jnp.nan, leaf) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(holes, data, missing)
