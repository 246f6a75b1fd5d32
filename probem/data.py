"""Rows on their way into the pass: blocks of one fixed size, so that a new number of rows compiles nothing."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from .arrays import numeric
from .errors import InputError

Carry = TypeVar("Carry")

# Rows that are told apart at once.
_ROWS_AT_ONCE = 2**18


class Block(NamedTuple):
    """A fixed number B of rows, of which the first ``num_rows`` are real and the rest padding.

    Padding repeats a real row, whose density is finite; so does a row of weight 0. ``row_weights`` [B] is None where
    every row counts once, ``labels`` [B] (-1: unknown) where no assignment is known. ``features`` [B, S] holds the
    statistics where they are worth keeping; then ``data`` may be empty. ``missing`` says which entries of ``data`` only
    fill a gap.
    """

    data: tuple[Any, ...]
    features: Array | None
    row_weights: Array | None
    num_rows: Array
    labels: Array | None = None
    missing: Any = None

    @property
    def size(self) -> int:
        return jax.tree.leaves((self.data, self.features))[0].shape[0]

    @property
    def weights(self) -> Array:
        """The weight of every row, zero for padding, ``[B]``."""
        real = self.real
        return real * 1.0 if self.row_weights is None else jnp.where(real, self.row_weights, 0.0)

    @property
    def real(self) -> Array:
        """Which rows are real, ``[B]``."""
        return jnp.arange(self.size, dtype=jnp.int32) < self.num_rows


class Rows(NamedTuple):
    """What is known of N rows: the data, how often each counts ``[N]``, its assignment ``[N]``, -1 if unknown, and
    which entries of the data are missing (and hold some value that fills the gap).
    """

    data: tuple[Any, ...]
    weights: Any = None
    labels: Any = None
    missing: Any = None

    @property
    def num_rows(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]


def to_blocks(rows: Rows, block_rows: int, dtype: Any) -> Iterator[Block]:
    """Cut the rows into blocks of ``block_rows``, the last one padded."""
    stand_in = _first_counted(rows)
    for start in range(0, rows.num_rows, block_rows):
        stop = min(start + block_rows, rows.num_rows)
        part = jax.tree.map(lambda leaf, start=start, stop=stop: padded(leaf[start:stop], block_rows), rows)
        yield _block(part, stand_in, jnp.asarray(stop - start, jnp.int32), dtype)


def _first_counted(rows: Rows) -> Rows | None:
    """The first row that counts, to stand in for those that do not; None where all do."""
    weights = rows.weights
    if weights is None or (isinstance(weights, np.ndarray) and (weights > 0).all()):
        return None
    if isinstance(weights, np.ndarray):
        first = int(np.argmax(weights > 0))
        return jax.tree.map(lambda leaf: leaf[first], rows._replace(weights=None))
    place = jnp.argmax(weights > 0)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[place], rows._replace(weights=None))


def _block(rows: Rows, stand_in: Rows | None, num_rows: Array, dtype: Any) -> Block:
    if stand_in is not None:
        # A row of weight 0 is no row, whatever it holds: 0 times a log density of minus infinity is no number.
        counted = jnp.asarray(rows.weights) > 0

        def chosen(leaf: Array, other: Any) -> Array:
            return jnp.where(counted.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, other)

        rows = jax.tree.map(chosen, rows._replace(weights=None), stand_in)._replace(weights=rows.weights)
    weights = None if rows.weights is None else rows.weights.astype(dtype)
    labels = None if rows.labels is None else rows.labels.astype(jnp.int32)
    return Block(rows.data, None, weights, num_rows, labels, rows.missing)


def padded(leaf: Any, num_rows: int) -> Array:
    """The array with its first row repeated at the end, up to ``num_rows`` rows."""
    padding = num_rows - leaf.shape[0]
    if padding:
        xp = np if isinstance(leaf, np.ndarray) else jnp
        leaf = xp.concatenate([leaf, xp.broadcast_to(leaf[:1], (padding, *leaf.shape[1:]))])
    return jnp.asarray(leaf)


def one_block(rows: Rows, chunk_rows: int, dtype: Any) -> Block:
    """The same under a trace, where the number of rows is fixed: one block, a multiple of the chunk long."""
    num_rows = rows.num_rows
    size = num_rows + -num_rows % chunk_rows
    part = jax.tree.map(lambda leaf: padded(leaf, size), rows)
    return _block(part, _first_counted(rows), jnp.asarray(num_rows, jnp.int32), dtype)


def chunk(block: Block, index: Array, chunk_rows: int) -> Block:
    """Rows ``index * chunk_rows`` onwards; ``num_rows`` counts the real ones among them."""
    rows = block._replace(num_rows=None)
    cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index * chunk_rows, chunk_rows), rows)
    return cut._replace(num_rows=jnp.clip(block.num_rows - index * chunk_rows, 0, chunk_rows))


def over_chunks(block: Block, chunk_rows: int, body: Callable[[Array, Block, Carry], Carry], start: Carry) -> Carry:
    """``body(index, part, carry)`` over the chunks of a block that hold a real row.

    A block that is one chunk is used in place, without a loop, and whether or not any of its rows is real.
    """
    if block.size == chunk_rows:
        return body(jnp.zeros((), jnp.int32), block, start)
    count = (block.num_rows + chunk_rows - 1) // chunk_rows
    return jax.lax.fori_loop(0, count, lambda index, carry: body(index, chunk(block, index, chunk_rows), carry), start)


def separated(data: tuple[Any, ...], weights: Any = None) -> Rows:
    """The data without NaN, each replaced by the first value of its column in a row that counts, and where they were.

    ``weights`` [N] are those of the rows, None where all count.
    """
    leaves, treedef = jax.tree.flatten(data)
    floating = [not isinstance(leaf, Tracer) and np.issubdtype(leaf.dtype, np.floating) for leaf in leaves]
    absent = [
        np.isnan(leaf) if real else np.zeros(leaf.shape, bool) for leaf, real in zip(leaves, floating, strict=True)
    ]
    if not any(own.any() for own in absent):
        return Rows(data)
    filled = []
    uncounted = np.zeros(len(absent[0]), bool) if weights is None or isinstance(weights, Tracer) else weights == 0
    for leaf, own in zip(leaves, absent, strict=True):
        if own.any():
            # A value that was observed, since a density may allow no other; one where there is none.
            without = own | uncounted.reshape(-1, *(1,) * (own.ndim - 1))
            first = np.take_along_axis(np.asarray(leaf), without.argmin(0)[None], 0)
            leaf = np.where(own, np.where(without.all(0), leaf.dtype.type(1), first), leaf)
        filled.append(leaf)
    return Rows(jax.tree.unflatten(treedef, filled), missing=jax.tree.unflatten(treedef, absent))


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


def _array(leaf: Any) -> Any:
    array = numeric(leaf, "data", "real numbers")
    if isinstance(array, jax.Array):
        return array
    # As JAX will have it: float64 only where x64 is on.
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if array.dtype == np.float64 != dtype:
        warnings.warn(
            "float64 data is fitted in float32, because JAX's x64 mode is off: switch it on with"
            " numpyro.enable_x64(), or pass float32 data if that is meant.",
            stacklevel=4,
        )
    return np.asarray(array, dtype)


def _check_finite(array: np.ndarray, where: str, missing: bool) -> None:
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


def check_row_weights(row_weights: Any, num_rows: int) -> Any:
    """Row weights ``[N]``, finite and not negative, or None. Traced ones are checked for shape and type only."""
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


def check_labels(labels: Any, num_rows: int, num_components: int) -> Any:
    """Known assignments ``[N]``, -1 where unknown, or None where all are. Traced ones are checked for shape and type
    only.
    """
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


def distinct_rows(leaves: list[np.ndarray], wanted: int) -> int:
    """The number of distinct rows of all data arguments together, counted no further than ``wanted``."""
    found: set[bytes] = set()
    # Most data has as many in its first few rows.
    few = min(len(leaves[0]), 4 * wanted)
    for row in range(few):
        found.add(b"".join(np.ascontiguousarray(leaf[row]).tobytes() for leaf in leaves))
        if len(found) >= wanted:
            return wanted
    if few == len(leaves[0]):
        return len(found)
    # One number stands for a row; that two which differ share theirs is as likely as a draw of one in 2^64.
    keys = np.zeros(0, np.uint64)
    for start in range(0, len(leaves[0]), _ROWS_AT_ONCE):
        parts = [np.ascontiguousarray(leaf[start : start + _ROWS_AT_ONCE]) for leaf in leaves]
        keys = np.unique(np.concatenate([keys, _mixed(parts)]))
        if len(keys) >= wanted:
            return wanted
    return len(keys)


def _mixed(parts: list[np.ndarray]) -> np.ndarray:
    """One number ``[n]`` for the bytes of every row, mixed as by Steele, Lea & Flood (2014), SplitMix."""
    mixed = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        for column in part.view(f"u{part.dtype.itemsize}").reshape(len(part), -1).T:
            mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(27)
    return mixed
