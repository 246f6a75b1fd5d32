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
        return _shaped(site, _normal(own["loc"], own["covariance"]))
    parent, cells = site.tied
    view = next(other.prior for other in mean_field.naturals if other.name == parent)
    freedom, factor = (value[cells] for value in view.student(params[parent]))
    covariance = mean_field.moments(params).locations[site.name].covariance * factor[:, None, None]
    if site.dim == 1:
        return _shaped(site, dist.StudentT(freedom, own["loc"][:, 0], jnp.sqrt(covariance[:, 0, 0])))
    return _shaped(site, dist.MultivariateStudentT(freedom, own["loc"], jnp.linalg.cholesky(covariance)))


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
    if site.dim == 1:
        return _shaped(site, dist.Normal(own["loc"][:, 0], 1.0 / jnp.sqrt(precision[:, 0, 0])))
    return _shaped(site, dist.MultivariateNormal(own["loc"], precision_matrix=precision))


def _normal(loc: Array, covariance: Array) -> dist.Distribution:
    if loc.shape[1] == 1:
        return dist.Normal(loc[:, 0], jnp.sqrt(covariance[:, 0, 0]))
    return dist.MultivariateNormal(loc, covariance_matrix=covariance)


def _shaped(site: Site, cells: dist.Distribution) -> dist.Distribution:
    """A distribution of cells ``[C]`` of ``dim`` entries as one event of the shape of the site."""
    flat: Any = cells.to_event(1)
    if flat.event_shape == site.shape:
        return flat
    return dist.TransformedDistribution(flat, dist.transforms.ReshapeTransform(site.shape, flat.event_shape))
