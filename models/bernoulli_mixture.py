"""A mixture of binary features (latent class analysis)."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from .weights import free


def bernoulli_mixture(x: jax.Array, *, num_components: int) -> None:
    """Mixture of independent Bernoulli features: x_nd | t_n ~ Bernoulli(probs[t_n, d]).

    Parameters
    ----------
    x : Bool[Array, "N D"] or zeros and ones
    num_components : K

    Source: Bishop (2006), eqs. 9.47-9.60.
    """
    weights = free(num_components)
    initial = jnp.linspace(0.25, 0.75, num_components)[:, None] * jnp.ones(x.shape[-1])
    probs = numpyro.param("probs", initial, constraint=dist.constraints.unit_interval)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Bernoulli(probs=probs[t]).to_event(1), obs=x)
