"""How many fits are computed side by side, and the others after them."""

import math
from collections.abc import Callable
from typing import Any

import jax

# Rows of all the fits side by side, and the most of these. Measured on a CPU, where more at once only wait for the
# slowest of them, and for memory.
_BATCH_ROWS = 2**12
_MOST_FITS = 64


def batch_size(num_fits: int, num_rows: int) -> int:
    """How many of some fits are computed side by side: a power of two, no more than there are."""
    most = max(1, min(_MOST_FITS, _BATCH_ROWS // num_rows, num_fits))
    return 2 ** math.floor(math.log2(most))


def whole_batch_size(num_fits: int, num_rows: int) -> int:
    """As ``batch_size``, such that all batches are full; on another device than a CPU all fits at once."""
    if jax.default_backend() != "cpu":
        return num_fits
    most = max(1, min(_MOST_FITS, _BATCH_ROWS // num_rows))
    return max(size for size in range(1, min(most, num_fits) + 1) if num_fits % size == 0)


def in_batches(function: Callable[[Any], Any], size: int, arguments: Any) -> Any:
    """The function of every fit, ``size`` at a time; all arguments have a leading axis B, a multiple of that."""
    if size == 1:
        return jax.lax.map(function, arguments)
    groups = jax.tree.map(lambda leaf: leaf.reshape(len(leaf) // size, size, *leaf.shape[1:]), arguments)
    results = jax.lax.map(jax.vmap(function), groups)
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * size, *leaf.shape[2:]), results)
