"""A mixture of normal distributions by hand, for the claims about convergence: densities of NumPyro, an iteration of EM
in a few lines, and coordinates without constraints.

Nothing here knows of probem's engine.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints

Params = Mapping[str, Any]

BIJECTIONS = {
    "weights": biject_to(constraints.simplex),
    "loc": biject_to(constraints.real),
    "covariance": biject_to(constraints.positive_definite),
}


def free(params: Params) -> jax.Array:
    """The parameters as one vector without constraints."""
    return ravel_pytree({name: BIJECTIONS[name].inv(jnp.asarray(params[name])) for name in sorted(BIJECTIONS)})[0]


def back_from(like: Params) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """The way back to parameters of these shapes."""
    values = {name: BIJECTIONS[name].inv(jnp.asarray(like[name])) for name in sorted(BIJECTIONS)}
    by_name = ravel_pytree(values)[1]
    return lambda vector: {name: BIJECTIONS[name](value) for name, value in by_name(vector).items()}


def log_joint(params: Params, rows: Any) -> jax.Array:
    """log p(x_n, t_n = k), ``[N, K]``, nats."""
    components = dist.MultivariateNormal(params["loc"], params["covariance"])
    return components.log_prob(rows[:, None, :]) + jnp.log(params["weights"])


def log_density(params: Params, rows: Any) -> jax.Array:
    """log p(X), nats, total over the rows; by NumPyro's mixture."""
    weights = dist.Categorical(probs=params["weights"])
    components = dist.MultivariateNormal(params["loc"], covariance_matrix=params["covariance"])
    return dist.MixtureSameFamily(weights, components).log_prob(rows).sum()


def expected_log_joint(params: Params, q: jax.Array, rows: Any) -> jax.Array:
    """E_q[log p(X, T)], nats, total over the rows."""
    return (q * log_joint(params, rows)).sum()


def responsibilities(params: Params, rows: Any) -> jax.Array:
    """The posteriors of the assignments, ``[N, K]``."""
    return jax.nn.softmax(log_joint(params, rows), axis=1)


def m_step(q: Any, rows: Any) -> dict[str, jax.Array]:
    """Shares, means and covariances; Bishop (2006), eqs. 9.24 to 9.26."""
    q, rows = jnp.asarray(q), jnp.asarray(rows)
    counts = q.sum(0)
    loc = q.T @ rows / counts[:, None]
    apart = rows[:, None, :] - loc
    covariance = jnp.einsum("nk,nki,nkj->kij", q, apart, apart) / counts[:, None, None]
    return {"weights": counts / counts.sum(), "loc": loc, "covariance": covariance}


def iteration(params: Params, rows: Any) -> dict[str, jax.Array]:
    """The map of which EM seeks a fixed point."""
    return m_step(responsibilities(params, rows), rows)


# Computed once: to optimise it takes longer.
quickly_compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@jax.jit
def gradient(params: Params, rows: Any) -> dict[str, jax.Array]:
    """The gradient of log p(X) in the parameters as they are; NumPyro divides weights by their sum, so that theirs has
    no part along it.
    """
    return jax.grad(log_density)(dict(params), rows)


@jax.jit
def derivatives(params: Params) -> dict[str, jax.Array]:
    """Those of the parameters in the free coordinates."""
    return jax.jacfwd(back_from(params))(free(params))


@quickly_compiled
def curvatures(params: Params, rows: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The Jacobian of an iteration, and the information that is observed and that of complete data, by autodiff in free
    coordinates.
    """
    back, q, at = back_from(params), responsibilities(params, rows), free(params)
    step = jax.jacfwd(lambda vector: free(iteration(back(vector), rows)))(at)
    observed = -jax.hessian(lambda vector: log_density(back(vector), rows))(at)
    complete = -jax.hessian(lambda vector: expected_log_joint(back(vector), q, rows))(at)
    return step, observed, complete


def as_numbers(params: Params) -> dict[str, np.ndarray]:
    """Arrays of NumPy."""
    return {name: np.asarray(params[name]) for name in sorted(BIJECTIONS)}
