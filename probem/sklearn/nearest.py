"""Distances between centres and rows without gaps, block by block."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from probem.plan.chunking import TABLE_BYTES, power_of_two
from probem.solver.seedings import nearest_seed

from .checks import are_within

# Rows of a block at most, and of those that few rows are cut into: other numbers of rows compile nothing.
_MOST_ROWS = 16384
_FEW_ROWS = 1024
# Up to how many blocks of few rows take less time than one of most rows.
_FEW_BLOCKS = 4
# Blocks that are computed at once: each of two cores has its own, and rows need not wait in memory.
_AT_ONCE = 3
# The most differences between a row and all centres that are written out one by one. A matrix product of so few columns
# takes longer, and forms a table.
_MOST_DIFFERENCES = 256
# The most differences in all that NumPy takes less time for than it takes to call what is compiled.
_FEW_DIFFERENCES = 2**13
# Rows of a block of distances, which the cache of a core holds.
_DISTANCE_ROWS = 2048


def nearest(
    rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"], unit: np.floating, largest: float
) -> Int[np.ndarray, " N"] | None:
    """The nearest centre of every row, ties to the lowest index; None if a number is missing, or may be of a size above
    ``largest``. Such numbers are finite in this unit, a power of two.
    """
    if len(rows) * centres.size > _FEW_DIFFERENCES:
        labels = _by_blocks(rows, centres, unit, largest, squares=False)
        return None if labels is None or labels.min() < 0 else labels
    return _few_squares(rows, centres, unit).argmin(axis=1).astype(np.int32) if are_within(rows, largest) else None


def squares_to_nearest(
    rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"], unit: np.floating, largest: float
) -> Float[np.ndarray, " N"] | None:
    """The squared distance of every row to the nearest centre, by differences, in squared units; None as of
    ``nearest``.
    """
    if len(rows) * centres.size > _FEW_DIFFERENCES:
        squares = _by_blocks(rows, centres, unit, largest, squares=True)
        return None if squares is None or squares.min() < 0 else squares
    return _few_squares(rows, centres, unit).min(axis=1) if are_within(rows, largest) else None


def _few_squares(
    rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"], unit: np.floating
) -> Float[np.ndarray, "N K"]:
    """The squared distance of every row to each centre, in squared units."""
    differences = (rows / unit)[:, None] - centres / unit
    return np.einsum("nkd,nkd->nk", differences, differences)


def _by_blocks(
    rows: Float[np.ndarray, "N D"],
    centres: Float[np.ndarray, "K D"],
    unit: np.floating,
    largest: float,
    squares: bool,
) -> Shaped[np.ndarray, " N"] | None:
    """What ``_of_block`` says of every row; None if numbers had to be compared with ``largest``, and are not within."""
    if centres.size > _MOST_DIFFERENCES and not are_within(rows, largest):
        return None
    # A row with a larger number is farther from each centre than this.
    reach = max(0.0, largest - float(np.abs(centres).max())) / float(unit)
    limit = rows.dtype.type(min(reach * reach, float(np.finfo(rows.dtype).max)))
    num_rows = len(rows)
    most = power_of_two(TABLE_BYTES / centres.nbytes * centres.shape[1], _FEW_ROWS, _MOST_ROWS)
    size = _FEW_ROWS if num_rows <= _FEW_BLOCKS * _FEW_ROWS else most
    if num_rows < size:
        filled = np.zeros((size, rows.shape[1]), rows.dtype)
        filled[:num_rows] = rows
        rows = filled
    answers = np.empty(len(rows), rows.dtype if squares else np.int32)
    pending: list[tuple[int, Array]] = []
    for first in range(0, len(rows), size):
        # The last block is full: some of its rows were in the one before, and have the same answer.
        start = min(first, len(rows) - size)
        pending.append((start, _of_block(rows[start : start + size], centres, unit, limit, squares)))
        if len(pending) == _AT_ONCE:
            start, block = pending.pop(0)
            answers[start : start + size] = block
    for start, block in pending:
        answers[start : start + size] = block
    return answers[:num_rows]


@functools.partial(jax.jit, static_argnums=4)
def _of_block(
    rows: Float[Array, "n D"],
    centres: Float[Array, "K D"],
    unit: Float[Array, ""],
    limit: Float[Array, ""],
    squares: bool,
) -> Shaped[Array, " n"]:
    """The squared distance of every row to its nearest centre if ``squares``, else which centre that is.

    It is -1 of a row whose square is no number below the ``limit``, where differences are written out: what is wrong
    with rows is seen while they are in the cache.
    """
    # Exact, as the unit is a power of two, and faster than to divide.
    scale = 1 / unit
    places = centres * scale
    if places.size > _MOST_DIFFERENCES:
        inner = rows * scale
        labels = nearest_seed(inner, places)
        return ((inner - places[labels]) ** 2).sum(1) if squares else labels
    # Column by column, each of which is read where it lies: one loop over the rows, in which nothing else is formed.
    columns = [rows[:, column] * scale for column in range(rows.shape[1])]
    least, labels = jnp.full(len(rows), jnp.inf, rows.dtype), jnp.zeros(len(rows), jnp.int32)
    for number, place in enumerate(places):
        square = sum((column - value) ** 2 for column, value in zip(columns, place, strict=True))
        nearer = square < least
        least, labels = jnp.where(nearer, square, least), jnp.where(nearer, number, labels)
    return jnp.where(least < limit, least if squares else labels, -1)


def distances(rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "N K"]:
    """The distance of every row to each centre, by |x|^2 - 2 x'c + |c|^2 in float64, in the precision of the rows.

    As ``sklearn.metrics.pairwise.euclidean_distances`` has it, which forms all of each term before the next.
    """
    out = np.empty((len(rows), len(centres)), rows.dtype)
    wide = centres.astype(np.float64, copy=False)
    products, lengths = -2.0 * wide.T, np.einsum("ij,ij->i", wide, wide)
    for start in range(0, len(rows), _DISTANCE_ROWS):
        block = rows[start : start + _DISTANCE_ROWS].astype(np.float64, copy=False)
        squares = block @ products
        # In this order, in which scikit-learn adds them: the digits that are lost to far rows are the same ones.
        squares += np.einsum("ij,ij->i", block, block)[:, None]
        squares += lengths
        np.maximum(squares, 0.0, out=squares)
        np.sqrt(squares, out=out[start : start + _DISTANCE_ROWS], casting="same_kind")
    return out
