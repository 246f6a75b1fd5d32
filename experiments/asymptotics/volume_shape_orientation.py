"""The fourteen covariance structures of the package mclust, as NumPyro programs.

The covariance of component k is lambda_k D_k A_k D_kᵀ: its volume lambda_k = |Sigma_k|^(1/D), its shape A_k, diagonal
with determinant 1, and its orientation D_k, a rotation. In a name of three letters each of them, in this order, is
equal for all components (E), varies (V), or is the identity (I).

Source: Celeux & Govaert (1995), Gaussian parsimonious clustering models, table 1.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, ArrayLike, Float

from probem.models import diagonal, full, gmm, shared_spherical, spherical, tied
from probem.models.covariance import Component

# NumPyro declares what it returns as anything between a number and an array.
_param: Any = numpyro.param

#: In mclust's order.
NAMES = ("EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV")


def program(name: str, num_components: int) -> Callable[..., None]:
    """The Gaussian mixture with this structure and K components."""
    return functools.partial(gmm, num_components=num_components, covariance=STRUCTURES[name])


def contrasts(dim: int) -> Float[np.ndarray, "D D-1"]:
    """Orthonormal columns that add up to 0: what log shapes are made of, since their sum is 0."""
    columns = [np.append(np.ones(d), -float(d)) / np.sqrt(d * (d + 1)) for d in range(1, dim)]
    return np.stack([np.pad(column, (0, dim - len(column))) for column in columns], axis=1)


def rotation(angles: Float[ArrayLike, "*batch P"], dim: int) -> Float[Array, "*batch D D"]:
    """The product of the D (D - 1) / 2 rotations of two axes by these angles."""
    angles, product = jnp.asarray(angles), jnp.eye(dim)
    for number, (i, j) in enumerate(itertools.combinations(range(dim), 2)):
        cosine, sine = jnp.cos(angles[..., number]), jnp.sin(angles[..., number])
        first, second = product[..., i], product[..., j]
        cosine, sine = cosine[..., None], sine[..., None]
        product = jnp.broadcast_to(product, (*angles.shape[:-1], dim, dim))
        product = product.at[..., i].set(cosine * first + sine * second).at[..., j].set(cosine * second - sine * first)
    return product


def _volume(varies: bool, num_components: int) -> jax.Array:
    """``volume`` [K] or []."""
    shape = (num_components,) if varies else ()
    return _param("volume", jnp.ones(shape), constraint=dist.constraints.positive)


def _log_shape(varies: bool, num_components: int, dim: int) -> jax.Array:
    """The logarithms of the entries of A, [K, D] or [D], by their coordinates ``shape`` [K, D - 1] or [D - 1]."""
    shape = (num_components, dim - 1) if varies else (dim - 1,)
    return _param("shape", jnp.zeros(shape)) @ jnp.asarray(contrasts(dim)).T


def shared_diagonal(num_components: int, dim: int) -> Component:
    """One standard deviation for every feature, for all components: ``scale`` [D]."""
    scale = _param("scale", jnp.ones(dim), constraint=dist.constraints.positive)
    return lambda loc, t: dist.Normal(loc, scale).to_event(1)


def along_axes(volume: bool, shape: bool, num_components: int, dim: int) -> Component:
    """Orientation I: the axes of the ellipsoids are those of the coordinates."""
    log_variance = jnp.log(_volume(volume, num_components))[..., None] + _log_shape(shape, num_components, dim)
    scale = jnp.broadcast_to(jnp.exp(log_variance / 2), (num_components, dim))
    return lambda loc, t: dist.Normal(loc, scale[t]).to_event(1)


def alike(volume: bool, varies: bool, num_components: int, dim: int) -> Component:
    """Shape and orientation both equal or both different: |C| = 1 and nothing else is asked of C = A with its axes.

    It has the Cholesky factor of diagonal exp(shape) and the entries ``below`` it [(K,) D (D - 1) / 2].
    """
    rows, columns = np.tril_indices(dim, -1)
    below = _param("below", jnp.zeros((num_components, len(rows)) if varies else (len(rows),)))
    log_diagonal = _log_shape(varies, num_components, dim)
    factor = (jnp.eye(dim) * jnp.exp(log_diagonal)[..., None, :]).at[..., rows, columns].set(below)
    factor = jnp.sqrt(_volume(volume, num_components))[..., None, None] * factor
    factor = jnp.broadcast_to(factor, (num_components, dim, dim))
    return lambda loc, t: dist.MultivariateNormal(loc, scale_tril=factor[t])


def turned(volume: bool, shape: bool, orientation: bool, num_components: int, dim: int) -> Component:
    """Of shape and orientation one is equal for all components: ``angles`` [(K,) D (D - 1) / 2]."""
    pairs = dim * (dim - 1) // 2
    axes = rotation(_param("angles", jnp.zeros((num_components, pairs) if orientation else (pairs,))), dim)
    log_variance = jnp.log(_volume(volume, num_components))[..., None] + _log_shape(shape, num_components, dim)
    matrix = jnp.einsum("...ij,...j,...kj->...ik", axes, jnp.exp(log_variance), axes)
    matrix = jnp.broadcast_to(matrix, (num_components, dim, dim))
    return lambda loc, t: dist.MultivariateNormal(loc, covariance_matrix=matrix[t])


#: By name. Five are those of ``probem.models``; they and EEI have an M-step in closed form, the others a numerical one.
STRUCTURES: dict[str, Callable[[int, int], Component]] = {
    "EII": shared_spherical,
    "VII": spherical,
    "EEI": shared_diagonal,
    "VEI": functools.partial(along_axes, True, False),
    "EVI": functools.partial(along_axes, False, True),
    "VVI": diagonal,
    "EEE": tied,
    "VEE": functools.partial(alike, True, False),
    "EVE": functools.partial(turned, False, True, False),
    "VVE": functools.partial(turned, True, True, False),
    "EEV": functools.partial(turned, False, False, True),
    "VEV": functools.partial(turned, True, False, True),
    "EVV": functools.partial(alike, False, True),
    "VVV": full,
}
