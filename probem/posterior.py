"""q of the sites with a full posterior as NumPyro distributions: of one site by itself, and of all together."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array

from .edges import source
from .mean_field import MeanField
from .moments import Site, cell_matrices
from .program import Params


def marginals(mean_field: MeanField, params: Params) -> dict[str, dist.Distribution]:
    """The q of every site with a full posterior, by name; a location with an uncertain precision is a Student t."""
    return {site.name: _marginal(mean_field, site, params) for site in mean_field.sites if not site.point}


def draw(mean_field: MeanField, params: Params) -> dict[str, Any]:
    """Sample every site with a full posterior, precisions before the locations given them; returns the values."""
    values: dict[str, Any] = {}
    for site in (*mean_field.naturals, *mean_field.locations):
        if site.point:
            values[site.name] = params[site.name]
        elif site.tied is None:
            values[site.name] = numpyro.sample(site.name, _marginal(mean_field, site, params))
        else:
            values[site.name] = numpyro.sample(site.name, _given_precision(mean_field, site, params, values))
    return values


def _marginal(mean_field: MeanField, site: Site, params: Params) -> dist.Distribution:
    own = params[site.name]
    if not site.is_location:
        batch = site.shape[: len(site.shape) - site.prior.event_ndim]
        arguments = {name: value.reshape(*batch, *value.shape[1:]) for name, value in own.items()}
        return site.prior.distribution(arguments).to_event(len(batch))
    if site.tied is None:
        return _normal(site, own["loc"], own["covariance"])
    parent, cells = site.tied
    view = next(other.prior for other in mean_field.naturals if other.name == parent)
    freedom, factor = (value[cells] for value in view.student(params[parent]))
    covariance = mean_field.moments(params).locations[site.name].covariance * factor[:, None, None]
    batch = site.shape if site.dim == 1 else site.shape[:-1]
    loc, freedom = own["loc"].reshape(site.shape), freedom.reshape(batch)
    if site.dim == 1:
        return dist.StudentT(freedom, loc, jnp.sqrt(covariance.reshape(batch))).to_event(len(batch))
    factor = jnp.linalg.cholesky(covariance).reshape(*batch, site.dim, site.dim)
    return dist.MultivariateStudentT(freedom, loc, factor).to_event(len(batch))


def _given_precision(
    mean_field: MeanField, site: Site, params: Params, values: Mapping[str, Array]
) -> dist.Distribution:
    """q of a tied location, given the value of what its precision follows from."""
    factor = mean_field.factors[site.name]
    assert site.tied is not None
    assert factor.statistics is not None
    views = {other.name: other.view for other in mean_field.naturals}
    found = factor.statistics.apply({name: source(views[name], values[name]) for name in factor.statistics.sites})
    own = params[site.name]
    precision = cell_matrices(site, factor.view.precision(found)) * own["strength"][:, None, None]
    return _normal(site, own["loc"], jnp.linalg.inv(precision))


def _normal(site: Site, loc: Array, covariance: Array) -> dist.Distribution:
    """The normal distribution of the cells of a location, as one event of the shape of the site."""
    if site.dim == 1:
        scale = jnp.sqrt(covariance).reshape(site.shape)
        return dist.Normal(loc.reshape(site.shape), scale).to_event(len(site.shape))
    if site.shape[-1] == site.dim:
        batch = site.shape[:-1]
        matrices = covariance.reshape(*batch, site.dim, site.dim)
        return dist.MultivariateNormal(loc.reshape(site.shape), matrices).to_event(len(batch))
    flat = dist.MultivariateNormal(loc[0], covariance[0])
    return dist.TransformedDistribution(flat, dist.transforms.ReshapeTransform(site.shape, flat.event_shape))
