"""Rows on their way into the pass: blocks of few sizes, so that a new number of rows compiles nothing."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Shaped

from probem.data.compressed import CompressedBlock, CompressedRows
from probem.data.observations import Observations


class Block(NamedTuple):
    """A fixed number n of rows, of which the first ``num_rows`` are real and the rest padding.

    Padding repeats a real row, whose density is finite; so does a row of weight 0. ``row_weights`` is None where every
    row counts once, ``labels`` (-1: unknown) where no assignment is known. ``features`` holds the statistics where they
    are worth keeping; then ``data`` may be empty. ``missing`` says which entries of ``data`` only fill a gap.
    ``events`` holds, by site, what is worth computing from the data once.
    """

    data: tuple[Any, ...]
    features: Float[Array, "n S"] | None
    row_weights: Float[Array, " n"] | None
    num_rows: Int[Array, ""] | np.int32
    labels: Int[Array, " n"] | None = None
    missing: Any = None
    events: Any = None

    @property
    def size(self) -> int:
        is_rows = lambda node: isinstance(node, CompressedBlock)  # noqa: E731
        return jax.tree.leaves((self.data, self.features), is_leaf=is_rows)[0].shape[0]

    @property
    def weights(self) -> Float[Array, " n"]:
        """The weight of every row, zero for padding."""
        real = self.real
        return real * 1.0 if self.row_weights is None else jnp.where(real, self.row_weights, 0.0)

    @property
    def real(self) -> Bool[Array, " n"]:
        """Which rows are real."""
        return jnp.arange(self.size, dtype=jnp.int32) < self.num_rows


def num_entries(blocks: Sequence[Block]) -> int:
    """How many numbers there are in the real rows, or inside a trace in all."""
    last = blocks[-1]
    size = sum(leaf.size for leaf in jax.tree.leaves((last.data, last.features)))
    # The last block alone is padded.
    padding = 0 if isinstance(last.num_rows, Tracer) else last.size - int(last.num_rows)
    return size * (len(blocks) * last.size - padding) // last.size


def to_blocks(rows: Observations, block_rows: int, dtype: np.dtype, is_summed: bool = True) -> Iterator[Block]:
    """Cut the rows into blocks of ``block_rows``, the last one padded; unless ``is_summed``, nothing is to be summed
    over them, and they stay on the host.
    """
    rows = _without_uncounted(rows)
    stand_in, num_rows = _first_counted(rows), rows.num_rows
    for start in range(0, num_rows, block_rows):
        stop = min(start + block_rows, num_rows)
        cut = jax.tree.map(lambda leaf, start=start, stop=stop: leaf[start:stop], rows)
        part = jax.tree.map(lambda leaf: _padded_rows(leaf, block_rows, dtype, is_summed), cut)
        count = jnp.asarray(stop - start, jnp.int32) if is_summed else np.int32(stop - start)
        yield _block(part, stand_in, count, dtype)


def _without_uncounted(rows: Observations) -> Observations:
    """Sparse rows of weight 0 are rows of zeros, as padding is: their density is finite where statistics are sums over
    non-zeros.
    """
    weights = rows.weights
    if not rows.are_sparse or weights is None:
        return rows
    return rows._replace(data=jax.tree.map(lambda leaf: leaf.emptied(weights <= 0), rows.data))


def _padded_rows(leaf: Any, num_rows: int, dtype: np.dtype, is_summed: bool = True) -> Any:
    if isinstance(leaf, CompressedRows):
        return CompressedBlock.of(leaf, num_rows, dtype, is_summed)
    return padded(leaf, num_rows) if is_summed else _filled(leaf, num_rows)


def _first_counted(rows: Observations) -> Observations | None:
    """The first row that counts, to stand in for those that do not; None where all do."""
    weights = rows.weights
    if weights is None or rows.are_sparse or (isinstance(weights, np.ndarray) and (weights > 0).all()):
        return None
    if isinstance(weights, np.ndarray):
        first = int(np.argmax(weights > 0))
        return jax.tree.map(lambda leaf: leaf[first], rows._replace(weights=None))
    place = jnp.argmax(weights > 0)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[place], rows._replace(weights=None))


def _block(
    rows: Observations, stand_in: Observations | None, num_rows: Int[Array, ""] | np.int32, dtype: np.dtype
) -> Block:
    if stand_in is not None:
        # A row of weight 0 is no row, whatever it holds: 0 times a log density of minus infinity is no number.
        counted = jnp.asarray(rows.weights) > 0

        def chosen(leaf: Shaped[Array, "n ..."], other: Shaped[ArrayLike, "..."]) -> Shaped[Array, "n ..."]:
            return jnp.where(counted.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, other)

        rows = jax.tree.map(chosen, rows._replace(weights=None), stand_in)._replace(weights=rows.weights)
    weights = None if rows.weights is None else rows.weights.astype(dtype)
    labels = None if rows.labels is None else rows.labels.astype(jnp.int32)
    return Block(rows.data, None, weights, num_rows, labels, rows.missing)


def padded(leaf: Shaped[Array | np.ndarray, " _ *row"], num_rows: int) -> Shaped[Array, " n *row"]:
    """The array with its first row repeated at the end, up to ``num_rows`` rows."""
    return jnp.asarray(_filled(leaf, num_rows))


def _filled(leaf: Shaped[Array | np.ndarray, " _ *row"], num_rows: int) -> Shaped[Array | np.ndarray, " n *row"]:
    padding = num_rows - leaf.shape[0]
    if padding:
        if isinstance(leaf, np.ndarray):
            whole = np.empty((num_rows, *leaf.shape[1:]), leaf.dtype)
            whole[: len(leaf)], whole[len(leaf) :] = leaf, leaf[0]
            return whole
        return jnp.concatenate([leaf, jnp.broadcast_to(leaf[:1], (padding, *leaf.shape[1:]))])
    return leaf


def one_block(rows: Observations, chunk_rows: int, dtype: np.dtype) -> Block:
    """The rows as one block, a multiple of the chunk long, for use under a trace, where their number is fixed."""
    num_rows = rows.num_rows
    size = num_rows + -num_rows % chunk_rows
    rows = _without_uncounted(rows)
    part = jax.tree.map(lambda leaf: _padded_rows(leaf, size, dtype), rows)
    return _block(part, _first_counted(rows), jnp.asarray(num_rows, jnp.int32), dtype)


def chunk_of(block: Block, index: Int[Array, ""], chunk_rows: int) -> Block:
    """Rows ``index * chunk_rows`` onwards; ``num_rows`` counts the real ones among them."""
    rows = block._replace(num_rows=None)
    cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index * chunk_rows, chunk_rows), rows)
    return cut._replace(num_rows=jnp.clip(block.num_rows - index * chunk_rows, 0, chunk_rows))
