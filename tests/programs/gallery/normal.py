"""Mixtures of normal distributions: covariance structures, priors, constraints, gaps, noise."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints

from probem import models
from probem.models import GaussianPrior, bayesian_covariance
from probem.models.covariance import shared_spherical, spherical
from tests.programs.gallery.entry import (
    Entry,
    bayesian,
    fitted,
    free,
    groups,
    no_posterior,
    positive,
    prior_shares,
    shares,
)

_RANDOM, _GROUP = groups(0)
PLANE = np.array([[-2.0, 0.0], [1.5, 1.0]])[_GROUP] + _RANDOM.normal(size=(60, 2)) @ np.array([[1.0, 0.4], [0.0, 0.7]])
LINE = np.array([-2.0, 2.0])[_GROUP] + _RANDOM.normal(size=60)
PRIOR = GaussianPrior(np.zeros(2), 0.5, 4.5, np.eye(2))


def _gmm(covariance: Any) -> Entry:
    return fitted(functools.partial(models.gmm, num_components=2, covariance=covariance), PLANE)


def _bayesian_gmm(covariance: Any) -> Entry:
    program = functools.partial(models.bayesian_gmm, num_components=2, covariance=covariance, prior=PRIOR)
    return bayesian(program, PLANE)


def normal_gamma(x: jax.Array) -> None:
    """Waiting times of a geyser: a location and a precision for each component."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        precision = numpyro.sample("precision", dist.Gamma(2.0, 2.0))
        loc = numpyro.sample("loc", dist.Normal(0.0, 2 / jnp.sqrt(precision)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])), obs=x)


def semi_conjugate(x: jax.Array) -> None:
    """Locations whose prior does not depend on the common precision."""
    weights = prior_shares()
    precision = numpyro.sample("precision", dist.Gamma(2.0, 2.0))
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], precision**-0.5), obs=x)


def half_normal_scales(x: jax.Array) -> None:
    """Weakly informative priors, as in the manuals of samplers."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
        scale = numpyro.sample("scale", dist.HalfNormal(2.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], scale[t]), obs=x)


def hierarchical(x: jax.Array) -> None:
    """The locations have a mean that is learned."""
    weights = prior_shares()
    centre = numpyro.sample("centre", dist.Normal(0.0, 10.0))
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(centre, 2.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def ordered(x: jax.Array) -> None:
    """Labels do not switch: the locations are in order."""
    weights = shares()
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]), constraint=constraints.ordered_vector)
    scale = positive("scale", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], scale), obs=x)


def symmetric(x: jax.Array) -> None:
    """Two locations at one distance from their middle."""
    weights, middle, distance = shares(), free("middle", 0.1), positive("distance", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(middle + (2 * t - 1) * distance, 1.0), obs=x)


def scale_mixture(x: jax.Array) -> None:
    """Contaminated rows: one location, two scales."""
    weights, loc, scale = shares(), free("loc", 0.0), positive("scale", [0.5, 3.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc, scale[t]), obs=x)


def noise(x: jax.Array) -> None:
    """Two groups and background noise, which is wide and known."""
    weights, loc, scale = shares(3), free("loc", [-1.0, 1.0]), positive("scale", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        locations = jnp.concatenate([loc, jnp.zeros(1)])
        scales = jnp.stack([scale, scale, jnp.asarray(20.0)])
        numpyro.sample("x", dist.Normal(locations[t], scales[t]), obs=x)


def truncated(x: jax.Array) -> None:
    """Rows that are seen above zero alone."""
    weights, loc, scale = shares(), free("loc", [1.0, 5.0]), positive("scale", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.TruncatedNormal(loc[t], scale, low=0.0), obs=x)


def of_no_rows(x: jax.Array | None = None, num_rows: int = 10) -> None:
    """A program that is also run without data, to draw some."""
    weights, loc = shares(), free("loc", [-1.0, 1.0])
    with numpyro.plate("data", num_rows if x is None else x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def masked(x: jax.Array, seen: jax.Array) -> None:
    """Two columns, of which entries are missing, by a mask."""
    weights, loc, scale = shares(), free("loc", [[-1.0, 0.0], [1.0, 0.0]]), positive("scale", jnp.ones((2, 2)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        with handlers.mask(mask=seen[:, 0]):
            numpyro.sample("first", dist.Normal(loc[t, 0], scale[t, 0]), obs=x[:, 0])
        with handlers.mask(mask=seen[:, 1]):
            numpyro.sample("second", dist.Normal(loc[t, 1], scale[t, 1]), obs=x[:, 1])


def two_columns(x: jax.Array) -> None:
    """The same with NaN for what is missing."""
    weights, loc, scale = shares(), free("loc", [[-1.0, 0.0], [1.0, 0.0]]), positive("scale", jnp.ones((2, 2)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], scale[t]).to_event(1), obs=x)


def ratings(x: jax.Array, seen: jax.Array) -> None:
    """A masked observation with conjugate priors."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        with handlers.mask(mask=seen):
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


_SEEN = _RANDOM.random((60, 2)) < 0.8
NORMAL = {
    "Gaussian, full covariance": _gmm(models.full),
    "Gaussian, tied covariance": _gmm(models.tied),
    "Gaussian, diagonal": _gmm(models.diagonal),
    "Gaussian, spherical": _gmm(spherical),
    "Gaussian, one variance for all": _gmm(shared_spherical),
    "k-means": fitted(functools.partial(models.kmeans, num_components=2), PLANE),
    "Bayesian Gaussian, full": _bayesian_gmm(bayesian_covariance.full),
    "Bayesian Gaussian, tied": _bayesian_gmm(bayesian_covariance.tied),
    "Bayesian Gaussian, diagonal": _bayesian_gmm(bayesian_covariance.diagonal),
    "Dirichlet process of Gaussians": bayesian(
        functools.partial(models.dirichlet_process_gmm, num_components=3, prior=PRIOR), PLANE
    ),
    "location and precision (normal-gamma)": bayesian(normal_gamma, LINE),
    "locations, and a common precision": bayesian(semi_conjugate, LINE),
    "half-normal scales": no_posterior(
        half_normal_scales, LINE, message="HalfNormal", because="the prior of a scale is half-normal"
    ),
    "hierarchical locations": bayesian(hierarchical, LINE),
    "ordered locations": fitted(ordered, LINE),
    "symmetric locations": fitted(symmetric, LINE),
    "contaminated rows (two scales)": fitted(scale_mixture, 0.2 * LINE * _RANDOM.standard_t(2, size=60)),
    "background noise of known width": fitted(noise, np.concatenate([LINE[:54], _RANDOM.normal(scale=20.0, size=6)])),
    "truncated at zero": fitted(truncated, np.abs(LINE) + 3.0 * _GROUP),
    "data=None draws rows": fitted(of_no_rows, LINE),
    "entries missing, by a mask": fitted(masked, PLANE, _SEEN),
    "entries missing, as NaN": fitted(two_columns, np.where(_SEEN, PLANE, np.nan), meaning=(masked, (PLANE, _SEEN))),
    "rows missing by a mask, with priors": bayesian(ratings, LINE, _SEEN[:, 0]),
}
