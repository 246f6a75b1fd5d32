"""Covariance structures of a Gaussian mixture, each a few lines of NumPyro.

A structure declares its parameter and returns the component's distribution as a function of the locations and the
assignment: ``component(loc[t], t)``. A new structure is a new function of this shape.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

Component = Callable[[jax.Array, jax.Array], dist.Distribution]


def full(num_components: int, dim: int) -> Component:
    """A covariance matrix of its own for every component: ``covariance`` [K, D, D]."""
    initial = jnp.broadcast_to(jnp.eye(dim), (num_components, dim, dim))
    covariance = numpyro.param("covariance", initial, constraint=dist.constraints.positive_definite)
    return lambda loc, t: dist.MultivariateNormal(loc, covariance_matrix=covariance[t])


def tied(num_components: int, dim: int) -> Component:
    """One covariance matrix for all components: ``covariance`` [D, D]."""
    covariance = numpyro.param("covariance", jnp.eye(dim), constraint=dist.constraints.positive_definite)
    return lambda loc, t: dist.MultivariateNormal(loc, covariance_matrix=covariance)


def diagonal(num_components: int, dim: int) -> Component:
    """A standard deviation for every component and feature: ``scale`` [K, D]."""
    scale = numpyro.param("scale", jnp.ones((num_components, dim)), constraint=dist.constraints.positive)
    return lambda loc, t: dist.Normal(loc, scale[t]).to_event(1)


def spherical(num_components: int, dim: int) -> Component:
    """One standard deviation for every component: ``scale`` [K]."""
    scale = numpyro.param("scale", jnp.ones(num_components), constraint=dist.constraints.positive)
    return lambda loc, t: dist.Normal(loc, scale[t][..., None]).to_event(1)


def shared_spherical(num_components: int, dim: int) -> Component:
    """One standard deviation for all: ``scale`` []."""
    scale = numpyro.param("scale", jnp.ones(()), constraint=dist.constraints.positive)
    return lambda loc, t: dist.Normal(loc, scale).to_event(1)


def identity(num_components: int, dim: int) -> Component:
    """The identity, nothing to learn: every cluster is the unit sphere of the lecture."""
    return lambda loc, t: dist.Normal(loc, 1.0).to_event(1)
