"""q of the sites with a full posterior as NumPyro distributions: of one site by itself, and of all together."""

from collections.abc import Mapping
from typing import Any

import numpyro
import numpyro.distributions as dist
from jaxtyping import Array

from probem.exponential.linalg import inverse
from probem.mean_field.factors import source
from probem.mean_field.locations import TiedLocation
from probem.mean_field.mean_field import MeanField
from probem.mean_field.sites import Parent, SitePosterior
from probem.program.sites import Params


def marginals(mean_field: MeanField, params: Params) -> dict[str, dist.Distribution]:
    """The q of every site with a full posterior, by name; a location with an uncertain precision is a Student t."""
    return {site.name: _marginal(mean_field, site, params) for site in mean_field.by_name.values() if not site.is_point}


def draw(mean_field: MeanField, params: Params) -> dict[str, Any]:
    """Sample every site with a full posterior, precisions before the locations given them; returns the values."""
    values: dict[str, Any] = {}
    for site in (*mean_field.gaussians, *mean_field.naturals, *mean_field.locations):
        if site.is_point:
            values[site.name] = params[site.name]
            continue
        q = _marginal(mean_field, site, params)
        if isinstance(site, TiedLocation):
            q = _given_precision(mean_field, site, params, values)
        values[site.name] = _sample(mean_field, site, q)
    return values


def _sample(mean_field: MeanField, site: SitePosterior, whole: dist.Distribution) -> Any:
    """One draw, in the plates and of the event dimensions of the program: NumPyro insists on both."""
    (parameter,) = (other for other in mean_field.form.program.globals if other.name == site.name)
    cells = whole.base_dist if isinstance(whole, dist.Independent) else whole
    if parameter.event_ndim >= len(cells.event_shape):
        with parameter.in_plates():
            return numpyro.sample(site.name, cells.to_event(parameter.event_ndim - len(cells.event_shape)))
    # Entries that are independent in the program and not under q: drawn together, and handed on.
    value: Any = numpyro.sample(f"{site.name}_together", whole, infer={"is_auxiliary": True})
    with parameter.in_plates():
        return numpyro.sample(site.name, dist.Delta(value, event_dim=parameter.event_ndim))


def learnable(mean_field: MeanField, params: Params) -> Params:
    """The arguments of every q as ``numpyro.param`` sites ``"<site>_<argument>"`` that start where they are."""
    values = dict(params)
    for site in mean_field.by_name.values():
        if not site.is_point:
            values[site.name] = {
                argument: numpyro.param(f"{site.name}_{argument}", value, constraint=site.constraint(argument))
                for argument, value in params[site.name].items()
            }
    return values


def _marginal(mean_field: MeanField, site: SitePosterior, params: Params) -> dist.Distribution:
    parent = None
    if isinstance(site, TiedLocation):
        (precision,) = (other for other in mean_field.naturals if other.name == site.parent)
        student = precision.student(params[site.parent])
        parent = Parent(mean_field.moments(params).locations[site.name].covariance, student)
    return site.distribution(params[site.name], parent)


def _given_precision(
    mean_field: MeanField, site: TiedLocation, params: Params, values: Mapping[str, Array]
) -> dist.Distribution:
    """q of a tied location, given the value of what its precision follows from."""
    factor = mean_field.factors[site.name]
    assert factor.statistics is not None
    views = {other.name: other.view for other in mean_field.naturals}
    statistics = factor.statistics.apply({name: source(views[name], values[name]) for name in factor.statistics.sites})
    q = params[site.name]
    precision = site.cell_matrices(factor.view.precision(statistics)) * q["strength"][:, None, None]
    return site.normal(q["loc"], inverse(precision))
