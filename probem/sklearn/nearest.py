"""The nearest centres of rows without gaps, block by block."""

import functools

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from probem.plan.chunking import TABLE_BYTES, power_of_two
from probem.solver.seedings import nearest_seed

# Rows of a block at most, and of the one that few rows are filled up to: other numbers of rows compile nothing.
_MOST_ROWS = 16384
_FEW_ROWS = 1024


def are_complete(rows: Float[np.ndarray, "N D"]) -> bool:
    """Whether rows of finite numbers and gaps have none."""
    return not np.isnan(np.add.reduce(rows, axis=None))


def nearest(
    rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"], unit: np.floating, squares: bool = False
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"] | None]:
    """The nearest centre of every row, ties to the lowest index, and the squared distance to it in squared units, if
    ``squares`` are wanted. The rows are without gaps, and finite in this unit.
    """
    most = power_of_two(TABLE_BYTES / centres.nbytes * centres.shape[1], _FEW_ROWS, _MOST_ROWS)
    parts = []
    for start in range(0, len(rows), most):
        block = rows[start : start + most]
        size = _FEW_ROWS if len(block) <= _FEW_ROWS else most
        if len(block) < size:
            block = np.concatenate([block, np.zeros((size - len(block), rows.shape[1]), rows.dtype)])
        parts.append(_nearest(block, centres, unit, squares))
    labels, distances = (
        None if leaves[0] is None else np.concatenate([np.asarray(leaf) for leaf in leaves])[: len(rows)]
        for leaves in zip(*parts, strict=True)
    )
    assert labels is not None
    return labels, distances


@functools.partial(jax.jit, static_argnums=3)
def _nearest(
    rows: Float[Array, "n D"], centres: Float[Array, "K D"], unit: Float[Array, ""], squares: bool
) -> tuple[Int[Array, " n"], Float[Array, " n"] | None]:
    inner, places = rows / unit, centres / unit
    labels = nearest_seed(inner, places)
    return labels, ((inner - places[labels]) ** 2).sum(1) if squares else None
