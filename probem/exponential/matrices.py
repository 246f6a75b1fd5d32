"""Symmetric matrices in vectors of statistics."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def flat(matrix: jax.Array, log_det: jax.Array) -> jax.Array:
    """A matrix ``[..., D, D]`` row by row, and its log determinant, ``[..., D^2 + 1]``."""
    rows = matrix.reshape(*matrix.shape[:-2], -1)
    return jnp.concatenate([rows, jnp.broadcast_to(log_det[..., None], (*rows.shape[:-1], 1))], axis=-1)


def square(flattened: jax.Array) -> jax.Array:
    """The matrix in what ``flat`` made."""
    dim = math.isqrt(flattened.shape[-1])
    return flattened[..., :-1].reshape(*flattened.shape[:-1], dim, dim)


def upper(matrix: jax.Array) -> jax.Array:
    """The upper triangle of ``[..., D, D]``, row by row, ``[..., D (D + 1) / 2]``."""
    rows, columns = np.triu_indices(matrix.shape[-1])
    return matrix[..., rows, columns]
