"""Programs whose components are not all alike, or not at first sight."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist


def noise_and_signals(x):
    """Four normals, and one whose mean is known: the last one, which no seed knows."""
    weights = numpyro.param("weights", jnp.full(5, 0.2), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros(4))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(jnp.append(loc, 3.0)[t], 0.5), obs=x)


def topics(words, docs):
    phi = numpyro.param("phi", jnp.ones((2, 4)) / 4, constraint=dist.constraints.simplex)
    theta = numpyro.param("theta", jnp.ones((5, 2)) / 2, constraint=dist.constraints.simplex)
    with numpyro.plate("tokens", words.shape[0]):
        z = numpyro.sample("z", dist.Categorical(theta[docs]))
        numpyro.sample("words", dist.Categorical(phi[z]), obs=words)
