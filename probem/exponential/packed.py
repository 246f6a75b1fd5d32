"""Symmetric matrices as vectors: the upper triangle, row by row."""

import math

import jax
import numpy as np


def pack(matrix: jax.Array) -> jax.Array:
    """The upper triangle of ``[..., D, D]``, ``[..., D (D + 1) / 2]``."""
    rows, columns = np.triu_indices(matrix.shape[-1])
    return matrix[..., rows, columns]


def unpack(packed: jax.Array) -> jax.Array:
    """The symmetric matrix with this upper triangle."""
    dim = (math.isqrt(8 * packed.shape[-1] + 1) - 1) // 2
    rows, columns = np.triu_indices(dim)
    position = np.zeros((dim, dim), int)
    position[rows, columns] = position[columns, rows] = np.arange(rows.size)
    return packed[..., position]
