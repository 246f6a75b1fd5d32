"""Mixtures fitted to rows with gaps, and so many steps of EM from given parameters."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import probem
from probem.models import full, gmm, tied
from tests.oracles.gaps import groups, with_gaps

X = with_gaps(groups(60, 3, 0), 0.25, 1)
STEPS = 20
FULL = functools.partial(gmm, num_components=2, covariance=full)
TIED = functools.partial(gmm, num_components=2, covariance=tied)


def weights_param() -> jax.Array:
    return numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)


def by_precision(x: jax.Array) -> None:
    """The full mixture, given by precision matrices."""
    loc = numpyro.param("loc", jnp.zeros((2, 3)))
    eye = jnp.broadcast_to(jnp.eye(3), (2, 3, 3))
    precision = numpyro.param("precision", eye, constraint=constraints.positive_definite)
    weights = weights_param()
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[t], precision_matrix=precision[t]), obs=x)


def in_views(x: jax.Array) -> None:
    """Two independent views of two features each: copies of one event."""
    loc = numpyro.param("loc", jnp.zeros((2, 2, 2)))
    eye = jnp.broadcast_to(jnp.eye(2), (2, 2, 2, 2))
    covariance = numpyro.param("covariance", eye, constraint=constraints.positive_definite)
    weights = weights_param()
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[t], covariance[t]).to_event(1), obs=x)


def start(dim: int) -> dict[str, np.ndarray]:
    eye = np.stack([np.eye(dim), 2 * np.eye(dim) + 0.3])
    return {"weights": np.array([0.4, 0.6]), "loc": np.stack([np.ones(dim), -np.ones(dim)]), "covariance": eye}


def run(program: Any, *data: Any, init: dict, steps: int = STEPS, **options: Any) -> probem.Fit:
    """So many steps of EM from given parameters."""
    options = {"max_steps": steps, "tolerance": 0, "throw": False} | options
    return probem.fit(program, *data, init=probem.Parameters(init), **options)
