"""Covariance structures of a Bayesian Gaussian mixture, each with its conjugate prior.

A structure samples its precisions, and the locations ``loc`` [K, D] given them, and returns the component's
distribution as a function of the assignment. Every variance has the same prior in all of them: that of a diagonal entry
of an inverse Wishart matrix, an inverse gamma distribution of shape (dof - D + 1) / 2.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from .priors import GaussianPrior

Component = Callable[[jax.Array], dist.Distribution]


def full(num_components: int, prior: GaussianPrior) -> Component:
    """A precision matrix of its own for every component: ``precision`` [K, D, D]."""
    with numpyro.plate("components", num_components):
        precision = numpyro.sample("precision", dist.Wishart(prior.dof, rate_matrix=prior.scatter))
        loc = numpyro.sample("loc", dist.MultivariateNormal(prior.mean, precision_matrix=prior.strength * precision))
    return lambda t: dist.MultivariateNormal(loc[t], precision_matrix=precision[t])


def tied(num_components: int, prior: GaussianPrior) -> Component:
    """One precision matrix for all components: ``precision`` [D, D]."""
    precision = numpyro.sample("precision", dist.Wishart(prior.dof, rate_matrix=prior.scatter))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.MultivariateNormal(prior.mean, precision_matrix=prior.strength * precision))
    return lambda t: dist.MultivariateNormal(loc[t], precision_matrix=precision)


def diagonal(num_components: int, prior: GaussianPrior) -> Component:
    """A precision for every component and feature: ``precision`` [K, D]."""
    shape, rate = _variance(prior)
    with numpyro.plate("components", num_components):
        precision = numpyro.sample("precision", dist.Gamma(shape, rate).to_event(1))
        loc = numpyro.sample("loc", dist.Normal(prior.mean, 1 / jnp.sqrt(prior.strength * precision)).to_event(1))
    return lambda t: dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])).to_event(1)


def spherical(num_components: int, prior: GaussianPrior) -> Component:
    """One precision for every component: ``precision`` [K]."""
    shape, rate = _variance(prior)
    with numpyro.plate("components", num_components):
        precision = numpyro.sample("precision", dist.Gamma(shape, rate.mean()))
        scale = 1 / jnp.sqrt(prior.strength * precision)
        loc = numpyro.sample("loc", dist.Normal(prior.mean, scale[:, None]).to_event(1))
    return lambda t: dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])[..., None]).to_event(1)


def _variance(prior: GaussianPrior) -> tuple[float, jax.Array]:
    """Shape and rate [D] of the gamma prior of a precision."""
    return (prior.dof - jnp.shape(prior.mean)[-1] + 1) / 2, jnp.diagonal(prior.scatter) / 2
