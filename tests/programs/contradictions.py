"""Programs that the random trials of a plan take for what they are not."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

RNG = np.random.default_rng(0)
LINE = np.concatenate([RNG.normal(0.0, 1.0, 20), RNG.normal(45.0, 1.0, 20)])
COUNTS = RNG.poisson(20.0, (30, 2))


def clipped(x):
    """Locations are what they seem up to twenty, and twenty beyond."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(2, 2.0)))
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 100.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(jnp.clip(loc[t], -20.0, 20.0), 1.0), obs=x)


def twice(x, y):
    """Two counts of one row, of one rate."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("components", 2):
        rate = numpyro.sample("rate", dist.Gamma(1.0, 0.1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rate[t]), obs=x)
        numpyro.sample("y", dist.Poisson(rate[t]), obs=y)


def vague(x):
    """A hierarchy whose top is a distribution of which a draw may be zero to the computer."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    spread = numpyro.sample("spread", dist.Gamma(0.001, 0.001))
    with numpyro.plate("components", 2):
        rate = numpyro.sample("rate", dist.Gamma(1.0, spread))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rate[t]), obs=x)
