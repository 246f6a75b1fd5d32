"""Mixing weights: learned, fixed and equal, or with a prior."""

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


def dirichlet(num_components: int, concentration: jax.typing.ArrayLike = 1.0) -> jax.Array:
    """Mixing weights ``weights`` [K] with a symmetric Dirichlet prior; concentrations below 1 empty components."""
    return numpyro.sample("weights", dist.Dirichlet(jnp.full(num_components, concentration)))


def stick_breaking(num_components: int, concentration: jax.typing.ArrayLike = 1.0) -> jax.Array:
    """A Dirichlet process truncated at K components: each takes the share ``sticks`` [K - 1] of what is left, the last
    one all of it.

    Source: Ishwaran & James (2001), Gibbs sampling methods for stick-breaking priors, eq. 5.
    """
    if num_components < 2:
        raise ValueError(f"a stick-breaking prior truncated at {num_components} component; it takes at least two")
    sticks = numpyro.sample("sticks", dist.Beta(1.0, concentration).expand([num_components - 1]).to_event(1))
    left = jnp.concatenate([jnp.ones(1), jnp.cumprod(1.0 - sticks)])
    return jnp.concatenate([sticks, jnp.ones(1)]) * left
