"""Symmetric matrices in vectors of statistics."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def flat(matrix: Float[Array, "*batch D D"], log_det: Float[Array, "..."]) -> Float[Array, "*batch D*D+1"]:
    """A matrix row by row, and its log determinant."""
    rows = matrix.reshape(*matrix.shape[:-2], -1)
    return jnp.concatenate([rows, jnp.broadcast_to(log_det[..., None], (*rows.shape[:-1], 1))], axis=-1)


def square(flattened: Float[Array, "*batch A"]) -> Float[Array, "*batch D D"]:
    """The matrix in what ``flat`` made."""
    dim = math.isqrt(flattened.shape[-1])
    return flattened[..., :-1].reshape(*flattened.shape[:-1], dim, dim)


def upper(matrix: Float[Array, "*batch D D"]) -> Float[Array, "*batch D*(D+1)//2"]:
    """The upper triangle, row by row."""
    rows, columns = np.triu_indices(matrix.shape[-1])
    return matrix[..., rows, columns]
