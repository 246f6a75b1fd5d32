"""Mixing weights: learned, or fixed and equal."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def free(num_components: int) -> jax.Array:
    """Learned mixing weights: ``weights`` [K] on the simplex."""
    initial = jnp.full(num_components, 1 / num_components)
    return numpyro.param("weights", initial, constraint=dist.constraints.simplex)


def equal(num_components: int) -> jax.Array:
    """Every component has weight 1 / K, nothing to learn."""
    return jnp.full(num_components, 1 / num_components)
