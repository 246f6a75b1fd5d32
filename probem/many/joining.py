"""Data sets of one shape as one: the rows of all of them, one after another."""

from typing import Any

import jax

from probem.data.arrays import numeric
from probem.data.compressed import is_sparse
from probem.errors import InputError


def joined(data: tuple[Any, ...]) -> tuple[tuple[Any, ...], int | None]:
    """Data arguments ``[B, N, ...]`` as arrays ``[B N, ...]``, and B; None where there is no data.

    Raises
    ------
    InputError
        For arguments of other axes than these.
    """
    if any(is_sparse(leaf) for leaf in jax.tree.leaves(data)):
        raise InputError(
            "sparse rows of many data sets", "arrays [B, N, ...]", "fit them one by one, or pass arrays (.toarray())"
        )
    arrays = jax.tree.map(
        lambda leaf: numeric(leaf, "data", "real numbers"), data, is_leaf=lambda node: isinstance(node, list)
    )
    leaves = jax.tree.leaves(arrays)
    for leaf in leaves:
        if leaf.ndim < 2 or leaf.shape[:2] != leaves[0].shape[:2] or 0 in leaf.shape[:2]:
            shapes = ", ".join(str(other.shape) for other in leaves)
            raise InputError(
                f"data of shape {shapes}",
                "arrays [B, N, ...]: B data sets of N rows, the same and at least one in each argument",
                "stack the data sets, x[None] if there is one",
            )
    rows = jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), arrays)
    return rows, len(leaves[0]) if leaves else None
