"""q of the sites with a full posterior as NumPyro distributions: of one site by itself, and of all together."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from numpyro.distributions import constraints

from probem.exponential.linalg import cholesky, inverse
from probem.mean_field.factors import source
from probem.mean_field.mean_field import MeanField
from probem.mean_field.moments import cell_matrices
from probem.mean_field.sites import SitePosterior
from probem.program.sites import Params


def marginals(mean_field: MeanField, params: Params) -> dict[str, dist.Distribution]:
    """The q of every site with a full posterior, by name; a location with an uncertain precision is a Student t."""
    return {site.name: _marginal(mean_field, site, params) for site in mean_field.sites if not site.point}


def draw(mean_field: MeanField, params: Params) -> dict[str, Any]:
    """Sample every site with a full posterior, precisions before the locations given them; returns the values."""
    values: dict[str, Any] = {}
    for site in (*mean_field.naturals, *mean_field.locations):
        if site.point:
            values[site.name] = params[site.name]
            continue
        tied = site.tied is not None
        own = _given_precision(mean_field, site, params, values) if tied else _marginal(mean_field, site, params)
        values[site.name] = _sample(mean_field, site, own)
    return values


def _sample(mean_field: MeanField, site: SitePosterior, whole: dist.Distribution) -> Any:
    """One draw, in the plates and of the event dimensions of the program: NumPyro insists on both."""
    (known,) = (one for one in mean_field.form.program.globals if one.name == site.name)
    cells = whole.base_dist if isinstance(whole, dist.Independent) else whole
    if known.event_ndim >= len(cells.event_shape):
        with known.in_plates():
            return numpyro.sample(site.name, cells.to_event(known.event_ndim - len(cells.event_shape)))
    # Entries that are independent in the program and not under q: drawn together, and handed on.
    value: Any = numpyro.sample(f"{site.name}_together", whole, infer={"is_auxiliary": True})
    with known.in_plates():
        return numpyro.sample(site.name, dist.Delta(value, event_dim=known.event_ndim))


def learnable(mean_field: MeanField, params: Params) -> Params:
    """The arguments of every q as ``numpyro.param`` sites ``"<site>_<argument>"`` that start where they are."""
    found = dict(params)
    for site in mean_field.sites:
        if not site.point:
            found[site.name] = {
                argument: numpyro.param(f"{site.name}_{argument}", value, constraint=_constraint(site, argument))
                for argument, value in params[site.name].items()
            }
    return found


def _constraint(site: SitePosterior, argument: str) -> Any:
    if argument == "loc":
        return constraints.real
    if argument in ("rate_matrix", "covariance"):
        return constraints.positive_definite
    if not site.is_location and site.prior.event_ndim == 2:
        return constraints.greater_than(site.shape[-1] - 1.0)
    return constraints.positive


def _marginal(mean_field: MeanField, site: SitePosterior, params: Params) -> dist.Distribution:
    own = params[site.name]
    if not site.is_location:
        batch = site.shape[: len(site.shape) - site.prior.event_ndim]
        arguments = {name: value.reshape(*batch, *value.shape[1:]) for name, value in own.items()}
        return site.prior.distribution(arguments).to_event(len(batch))
    if site.tied is None:
        return _normal(site, own["loc"], own["covariance"])
    covariance = mean_field.moments(params).locations[site.name].covariance
    if site.tied[0] not in mean_field.full:
        return _normal(site, own["loc"], covariance)
    parent, cells = site.tied
    view = next(other.prior for other in mean_field.naturals if other.name == parent)
    freedom, factor = (value[cells] for value in view.student(params[parent]))
    covariance = covariance * factor[:, None, None]
    batch = site.shape if site.dim == 1 else site.shape[:-1]
    loc, freedom = own["loc"].reshape(site.shape), freedom.reshape(batch)
    if site.dim == 1:
        return dist.StudentT(freedom, loc, jnp.sqrt(covariance.reshape(batch))).to_event(len(batch))
    factor = cholesky(covariance).reshape(*batch, site.dim, site.dim)
    return dist.MultivariateStudentT(freedom, loc, factor).to_event(len(batch))


def _given_precision(
    mean_field: MeanField, site: SitePosterior, params: Params, values: Mapping[str, Array]
) -> dist.Distribution:
    """q of a tied location, given the value of what its precision follows from."""
    factor = mean_field.factors[site.name]
    assert site.tied is not None
    assert factor.statistics is not None
    views = {other.name: other.view for other in mean_field.naturals}
    found = factor.statistics.apply({name: source(views[name], values[name]) for name in factor.statistics.sites})
    own = params[site.name]
    precision = cell_matrices(site, factor.view.precision(found)) * own["strength"][:, None, None]
    return _normal(site, own["loc"], inverse(precision))


def _normal(site: SitePosterior, loc: Array, covariance: Array) -> dist.Distribution:
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
