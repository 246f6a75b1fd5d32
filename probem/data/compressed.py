"""Rows most of whose entries are zero: on the host as SciPy's CSR, and blocks of them for sums over the non-zeros.

XLA has no fast product of a sparse matrix on a CPU. What it does well is to take many rows of a dense matrix at once,
and to add them up in the cache. So the non-zeros of a block lie in strips: rows (or columns) sorted by their number of
non-zeros, ``_GROUP`` of them side by side, the j-th non-zero of each in line j of their strip. A strip is as long as
its longest row; long rows are cut into pieces, of which the sums are added. Source: Kreutzer, Hager, Wellein, Fehske &
Bishop (2014), A unified sparse matrix data format for efficient general sparse matrix-vector multiplication on modern
processors with wide SIMD units, section 2.
"""

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from probem.errors import InputError

# Rows of one strip, the lines of it that are added up at once, and the most of them. Measured on a CPU: the sums of a
# strip of so many rows stay in the cache, and are written back once in eight lines.
_GROUP, _FEWEST = 2048, 128
_LINES = 8
_MOST_LINES = 256
# Lines of little data, in turns of so many of them.
_FEWEST_TURNS = 16

#: What an entry adds to the sums of its row or column: a function of the values ``[G]`` and of the rows of a matrix
#: ``[G, k]`` that they meet; zero where the value is.
Combine = Callable[[Float[Array, " G"], Float[Array, "G k"]], Float[Array, "G k"]]


class CompressedRows:
    """N rows of D numbers, of which those that are not zero are stored: by shape, dtype and slices an array.

    ``matrix`` is a SciPy CSR array without duplicates or stored zeros, its indices sorted. JAX takes it for one leaf.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.matrix.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self.matrix.dtype

    @property
    def ndim(self) -> int:
        """Two."""
        return 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Shaped[np.ndarray, " n"]) -> "CompressedRows":
        """Some rows, by a slice, by numbers or by a mask."""
        return CompressedRows(self.matrix[rows])

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        """Never in silence: it may not fit."""
        raise TypeError("sparse rows taken for an array")

    def astype(self, dtype: Any) -> "CompressedRows":
        """The rows in another dtype."""
        return CompressedRows(self.matrix.astype(dtype))

    def dense(self) -> Shaped[np.ndarray, "N D"]:
        """The rows as an array."""
        return self.matrix.toarray()

    def emptied(self, rows: Shaped[np.ndarray, " N"]) -> "CompressedRows":
        """The rows with zeros alone where this mask is true."""
        if not rows.any():
            return self
        matrix = self.matrix.copy()
        matrix.data[np.repeat(rows, np.diff(matrix.indptr))] = 0
        matrix.eliminate_zeros()
        return CompressedRows(matrix)


def is_sparse(value: Any) -> bool:
    """Whether something is a sparse matrix or array of SciPy, which is not imported to find out."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and bool(scipy_sparse.issparse(value))


def compressed(value: Any, what: str) -> CompressedRows:
    """A sparse matrix of SciPy, in whatever format, as rows; what was given stays as it is.

    Raises
    ------
    InputError
        For one that is not of two dimensions, or not of real numbers.
    """
    from scipy import sparse

    if value.ndim != 2:
        raise InputError(f"sparse {what} of shape {value.shape}", "rows and columns", "reshape them")
    if value.dtype.kind not in "biuf":
        raise InputError(f"sparse {what} of type {value.dtype}", "real numbers", "convert them to real numbers")
    matrix: Any = sparse.csr_array(value)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    if not matrix.data.all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return CompressedRows(matrix)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Strips:
    """Non-zeros, in the strips of their rows or columns: ``values`` [L, G] in L lines, each with the ``places`` [L, G]
    of what it meets (the column of a value in strips of rows).

    Strip number s of S has the lines from ``_LINES`` times ``starts[s]`` on, [S + 1]; ``targets`` [S G] says whose sums
    are in it, ``num_targets`` for none. JAX puts other things than arrays in their places when it maps.
    """

    places: Any
    values: Any
    starts: Any
    targets: Any
    num_targets: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, matrix: Any, num_targets: int, dtype: np.dtype) -> "Strips":
        """The rows of a CSR matrix, or the columns of one by columns."""
        lengths = np.diff(matrix.indptr)
        pieces = -(-lengths // _MOST_LINES)
        target = np.repeat(np.arange(len(lengths)), pieces)
        number = np.arange(len(target)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = matrix.indptr[target] + number * _MOST_LINES
        length = np.minimum(matrix.indptr[target + 1] - first, _MOST_LINES)
        order = np.argsort(-length, kind="stable")
        group = int(np.clip(2 ** int(np.ceil(np.log2(max(len(order), 1)))), _FEWEST, _GROUP))
        # Sizes on a coarse grid, so that other data of about as many non-zeros compiles nothing.
        num_strips = _rounded(max(1, -(-len(order) // group)))
        padding = num_strips * group - len(order)
        target = np.concatenate([target[order], np.full(padding, num_targets)]).astype(np.int32)
        first, length = (np.pad(part[order], (0, padding)).reshape(num_strips, group) for part in (first, length))
        turns = -(-length.max(1) // _LINES)
        starts = np.concatenate([[0], np.cumsum(turns)]).astype(np.int32)
        shape = (_rounded(max(_FEWEST_TURNS, int(starts[-1]))) * _LINES, group)
        places, values = np.zeros(shape, np.int32), np.zeros(shape, dtype)
        for strip in range(np.count_nonzero(turns)):
            lines = slice(starts[strip] * _LINES, starts[strip + 1] * _LINES)
            line = np.arange(turns[strip] * _LINES)[:, None]
            is_there = line < length[strip][None, :]
            at = np.where(is_there, first[strip][None, :] + line, 0)
            places[lines] = np.where(is_there, matrix.indices[at], 0)
            values[lines] = np.where(is_there, matrix.data[at], 0)
        parts = (jnp.asarray(part) for part in (places, values, starts, target))
        places, values, starts, targets = parts
        return cls(places, values, starts, targets, num_targets)

    def sums(self, matrix: Float[Array, "m k"], combine: Combine) -> Float[Array, "t k"]:
        """For every row (or column), the sum over its non-zeros of what each makes of the row of ``matrix`` that it
        meets, ``[num_targets, k]``.
        """
        num_columns = matrix.shape[1]

        @jax.custom_batching.custom_vmap
        def summed(strips: "Strips", matrix: Float[Array, "m k"]) -> Float[Array, "t k"]:
            return _summed(strips, matrix, lambda values, rows: _by_parts(combine, values, rows, num_columns))

        @summed.def_vmap
        def side_by_side(
            size: int, is_batched: Any, strips: "Strips", matrix: Float[Array, "R m k"]
        ) -> tuple[Float[Array, "R t k"], bool]:
            # Restarts share the non-zeros, each of which is then looked at once for all of them.
            if any(jax.tree.leaves(is_batched[0])):
                raise NotImplementedError("several sets of sparse rows side by side")
            wide = jnp.moveaxis(matrix, 0, 1).reshape(matrix.shape[1], -1)
            return jnp.moveaxis(summed(strips, wide).reshape(-1, size, num_columns), 1, 0), True

        return summed(self, matrix)


def _by_parts(
    combine: Combine, values: Float[Array, " G"], rows: Float[Array, "G _"], num_columns: int
) -> Float[Array, "G _"]:
    """What values make of rows that are those of several matrices side by side."""
    if rows.shape[1] == num_columns:
        return combine(values, rows)
    parts = rows.reshape(len(rows), -1, num_columns)
    return jax.vmap(combine, (None, 1), 1)(values, parts).reshape(rows.shape)


def _summed(strips: Strips, matrix: Float[Array, "m k"], combine: Combine) -> Float[Array, "t k"]:
    group = strips.values.shape[1]

    def add_strip(strip: Int[Array, ""], total: Float[Array, "t k"]) -> Float[Array, "t k"]:
        def turn(number: Int[Array, ""], sums: Float[Array, "G k"]) -> Float[Array, "G k"]:
            places, values = (
                jax.lax.dynamic_slice_in_dim(leaf, number * _LINES, _LINES) for leaf in (strips.places, strips.values)
            )
            for line in range(_LINES):
                rows = matrix.at[places[line]].get(mode="promise_in_bounds")
                sums = sums + combine(values[line], rows)
            return sums

        nothing = jnp.zeros((group, matrix.shape[1]), matrix.dtype)
        sums = jax.lax.fori_loop(strips.starts[strip], strips.starts[strip + 1], turn, nothing)
        targets = jax.lax.dynamic_slice_in_dim(strips.targets, strip * group, group)
        return total.at[targets].add(sums, mode="drop")

    # Strip by strip: the sums of all side by side would be memory that is used for the first time.
    total = jnp.zeros((strips.num_targets, matrix.shape[1]), matrix.dtype)
    return jax.lax.fori_loop(0, len(strips.starts) - 1, add_strip, total)


def _rounded(number: int) -> int:
    """The number, or one above it by less than an eighth."""
    step = 2 ** max(0, number.bit_length() - 4)
    return -(-number // step) * step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CompressedBlock:
    """n rows of D numbers, those that are padding with zeros alone; without ``by_column`` nothing is summed over them.

    ``T`` in what follows is a function of the values, zero at zero, entry by entry.
    """

    by_row: Strips
    by_column: Strips | None
    num_columns: int = dataclasses.field(metadata={"static": True})

    @classmethod
    def of(cls, rows: CompressedRows, num_rows: int, dtype: np.dtype, is_summed: bool) -> "CompressedBlock":
        """The rows, and as much padding as there is up to ``num_rows``."""
        by_row = Strips.of(rows.matrix, num_rows, dtype)
        num_columns = rows.shape[1]
        by_column = Strips.of(rows.matrix.tocsc(), num_columns, dtype) if is_summed else None
        return cls(by_row, by_column, num_columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return self.by_row.num_targets, self.num_columns

    def times(
        self, weight: Float[Array, "k D"], statistic: Callable[[Array], Array] = lambda values: values
    ) -> Float[Array, "n k"]:
        """sum_d T(x_nd) w_kd."""
        return self.by_row.sums(weight.T, lambda values, rows: statistic(values)[:, None] * rows)

    def compared(self, others: Float[Array, "k D"], combine: Combine) -> Float[Array, "n k"]:
        """sum over the non-zeros of a row of ``combine(x_nd, y_kd)``."""
        return self.by_row.sums(others.T, combine)

    def weighted_sums(
        self, weights: Float[Array, "n k"], statistic: Callable[[Array], Array] = lambda values: values
    ) -> Float[Array, "k D"]:
        """sum_n w_nk T(x_nd)."""
        assert self.by_column is not None
        return self.by_column.sums(weights, lambda values, rows: statistic(values)[:, None] * rows).T

    def taken(self, index: Int[Array, " k"]) -> Float[Array, "k D"]:
        """The rows of these numbers."""
        number = jnp.arange(self.shape[0])[:, None]
        return self.weighted_sums((number == index[None, :]).astype(self.by_row.values.dtype))
