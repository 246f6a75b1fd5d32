"""Which sites may have a full posterior, and in which parts: proved on the program before anything is fitted, and
held against it afterwards.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem import exponential
from probem.analysis.factors import find_factors, refuse
from probem.analysis.random_statistics import Draws, draw_rows, random_statistics
from probem.errors import InputError
from probem.exponential import Arguments, Density, Location, Prior
from probem.families.corners import Families
from probem.form.form import ExponentialForm
from probem.form.layout import unwrapped
from probem.jit.compilation import concrete
from probem.mean_field.factors import prior_arguments, prior_view
from probem.mean_field.locations import LocationSite
from probem.mean_field.mean_field import MeanField
from probem.mean_field.moments import argument_statistics
from probem.mean_field.naturals import point_statistics
from probem.mean_field.sites import SitePosterior, class_of
from probem.program.program import Program
from probem.program.sites import Params

# The most entries of a location that are not independent of each other: their covariance is one matrix.
_MOST_TOGETHER = 1024


def find_mean_field(
    form: ExponentialForm, families: Families, points: tuple[str, ...], depends: Mapping[str, frozenset[str]]
) -> MeanField:
    """The sites whose family needs a conjugate prior, and those of ``points`` (sites with a prior, fitted by MAP) that
    have one: their mode has a closed form. ``depends`` says which densities depend on a site
    (``program/dependence.py``).

    Raises
    ------
    InputError
        For a prior that has to be conjugate, and is improper or not conjugate to what depends on it.
    """
    possible = tuple(name for name in points if _could_be(form, name))
    tries = [possible, *([name] for name in possible)] if len(possible) > 1 else [possible]
    kept: tuple[str, ...] = ()
    mean_field = None
    for more in tries:
        try:
            mean_field = _mean_field(form, families, (*families.conjugate, *kept, *more), depends)
        except InputError:
            continue
        kept = (*kept, *more)
        if more == possible:
            break
    return _mean_field(form, families, families.conjugate, depends) if mean_field is None else mean_field


def _could_be(form: ExponentialForm, name: str) -> bool:
    """Whether the prior of a site is of a class that may be conjugate, and bounded."""

    def look(sites: dict[str, dict[str, Any]]) -> Density | None:
        return prior_view(sites[name])

    view = form.program.abstract_trace(look, 1)
    if not isinstance(view, Prior):
        return view is not None and view.is_location

    return bool(_has_mode(form.program, form.program.random_params(51), name=name, view=view))


@concrete
def _has_mode(program: Program, params: Params, *, name: str, view: Prior) -> Bool[Array, ""]:
    sites = program.enumerated_trace(params, program.spec.zeros(1))
    return view.has_mode(prior_arguments(sites[name], view)).all()


def _mean_field(
    form: ExponentialForm, families: Families, names: tuple[str, ...], depends: Mapping[str, frozenset[str]]
) -> MeanField:
    if not names:
        return MeanField(form, (), {})
    for name in names:
        generic = sorted(depends[name] & set(form.generic))
        if generic:
            refuse(name, f"on which '{generic[0]}' depends, a density without an exponential-family form", False)
    views = _views(form, names)
    shapes = {site.name: site.shape for site in form.program.globals}
    sites = []
    for name in (site.name for site in form.program.globals if site.name in names):
        family, view = families.of(name), views[name]
        posterior = class_of(family, view.is_location)
        if posterior is None:
            raise InputError(
                f"the family {family!r} on '{name}', {'a' if view.is_location else 'no'} location of densities",
                "a family that has a SitePosterior there",
                "use Delta() (MAP), Conjugate() or Gaussian()",
            )
        sites.append(posterior.in_events(name, family, view, shapes[name]))
    _check_proper(form, sites)
    mean_field = MeanField(form, tuple(sites), find_factors(form, views))
    for site in mean_field.locations:
        mean_field = _with(mean_field, _cut(mean_field, site))
    return mean_field


def _views(form: ExponentialForm, conjugate: tuple[str, ...]) -> dict[str, Density]:
    """The view of every prior, or one sentence about why there is none."""

    def look(sites: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool, Density | None]]:
        return {
            name: (type(unwrapped(sites[name]["fn"])).__name__, sites[name]["scale"] is None, prior_view(sites[name]))
            for name in conjugate
        }

    views = {}
    shapes = {site.name: site.shape for site in form.program.globals}
    for name, (cls, unscaled, view) in form.program.abstract_trace(look, 1).items():
        if not unscaled:
            refuse(name, "whose prior is scaled by a handler")
        if view is None or not (isinstance(view, Prior) or view.is_location):
            names = sorted(density.__name__ for prior in exponential.PRIORS for density in prior.distributions)
            refuse(name, f"with a prior of class {cls} (known: {', '.join([*names, 'Normal', 'MultivariateNormal'])})")
        if 0 in shapes[name]:
            raise InputError(
                f"the site '{name}' of shape {shapes[name]} with no entries",
                "at least one (a stick-breaking prior is truncated at two components or more)",
                "ask for more components",
            )
        assert view is not None
        views[name] = view
    return views


def _check_proper(form: ExponentialForm, given: list[SitePosterior]) -> None:
    """Every prior has to be a distribution, at whatever values of other sites it depends on."""
    views = {site.name: site.view for site in given}
    checks = _proper(form.program, form.program.random_params(51), views=views)
    for name, (good, arguments) in checks.items():
        if not good:
            view = views[name]
            wanted = view.requirement if isinstance(view, Prior) else "a finite location and a positive, finite spread"
            lowest = ", ".join(f"{argument} from {value.min():.4g}" for argument, value in arguments.items())
            raise InputError(
                f"an improper prior on '{name}' ({lowest})",
                wanted,
                "change its arguments, or use numpyro.param for no prior",
            )


@concrete
def _proper(
    program: Program, params: Params, *, views: Mapping[str, Density]
) -> dict[str, tuple[Bool[Array, ""], Arguments]]:
    """Whether the prior of each site is proper, and its arguments."""
    sites = program.enumerated_trace(params, program.spec.zeros(1))
    checks = {}
    for name, view in views.items():
        arguments = prior_arguments(sites[name], view)
        if isinstance(view, Prior):
            good = view.proper(arguments).all()
        else:
            # The logarithm of the precision is finite where that is positive.
            statistics = argument_statistics(view, arguments)
            good = jnp.isfinite(statistics).all() & jnp.isfinite(arguments["loc"]).all()
        checks[name] = good, arguments
    return checks


def _with(mean_field: MeanField, site: SitePosterior) -> MeanField:
    sites = tuple(site if site.name == other.name else other for other in mean_field.sites)
    return dataclasses.replace(mean_field, sites=sites)


def _cut(mean_field: MeanField, site: LocationSite) -> LocationSite:
    """The finest cut of a location into cells that do not interact, and whether it is tied to the precision there."""
    size = math.prod(site.shape)
    cuts = [site.dim, *(cut for cut in (site.shape[-1] if site.shape else 1, size) if cut > site.dim)]
    for dim in dict.fromkeys(cuts):
        if dim > _MOST_TOGETHER:
            break
        trial = dataclasses.replace(site, cells=size // dim, dim=dim)
        independent, tied = _try(_with(mean_field, trial), trial)
        if independent:
            parent = _parent(mean_field, trial) if tied and dim == site.dim else None
            return trial if parent is None else trial.tied_to(*parent)
    refuse(site.name, f"whose {size} entries all depend on each other", False)
    raise AssertionError


def _parent(mean_field: MeanField, site: LocationSite) -> tuple[str, Int[np.ndarray, " C"]] | None:
    """The one site, and the cell of it for every cell of a location, from which the precision in its prior follows."""
    edge = mean_field.factors[site.name].statistics
    assert edge is not None
    # Every statistic of the sites of the edge, numbered by its cell; which of them an entry is made of.
    naturals = {natural.name: natural for natural in mean_field.naturals}
    sizes = {name: naturals[name].cells * naturals[name].num_statistics for name in edge.sites}
    names = np.repeat(np.arange(len(edge.sites)), [sizes[name] for name in edge.sites])
    cells = np.concatenate([np.arange(sizes[name]) // naturals[name].num_statistics for name in edge.sites])
    used = np.where(edge.used, edge.index, -1).reshape(site.cells, -1)
    pairs = []
    for entries in used:
        origins = {(int(names[index]), int(cells[index])) for index in entries if index >= 0}
        if len(origins) != 1:
            return None
        pairs.append(origins.pop())
    sites, chosen = zip(*pairs, strict=True)
    return (edge.sites[sites[0]], np.array(chosen)) if len(set(sites)) == 1 else None


def _try(mean_field: MeanField, site: LocationSite) -> tuple[bool, bool]:
    """Whether the cells of a location are independent of each other, and their precisions multiples of the prior's.

    The expected log joint is a quadratic function of the location, whose curvature has to be that of the cells alone.
    """
    form = mean_field.form
    ratios = []
    independent = True
    with jax.enable_x64(True):
        for seed in (61, 62):
            params = form.program.random_params(seed)
            others = form.program.random_params(seed + 10)
            direction = np.random.default_rng(seed).normal(size=(site.cells, site.dim))
            precision, turned, expected, prior = _curvature(
                mean_field, params, others, draw_rows(form, 61), direction, name=site.name
            )
            size = np.abs(expected).max() + np.abs(turned).max()
            independent &= bool(np.abs(turned - expected).max() <= 1e-5 * size)
            ratio = np.trace(np.linalg.solve(prior, precision), axis1=-2, axis2=-1) / site.dim
            off = np.abs(precision - ratio[:, None, None] * prior).max((-1, -2))
            ratios.append(np.where(off <= 1e-5 * np.abs(precision).max((-1, -2)), ratio, np.nan))
    uncertain = mean_field.factors[site.name].statistics is not None
    tied = bool(np.allclose(ratios[0], ratios[1], rtol=1e-5)) and uncertain
    return independent, tied


@concrete
def _curvature(
    mean_field: MeanField, params: Params, others: Params, draws: Draws, direction: Float[Array, "C D"], *, name: str
) -> tuple[Float[Array, "C D ..."], ...]:
    """The precision of the cells of a location in the expected log joint, by how much the slope of that turns along a
    direction and would turn if the cells were independent, and the precision in the prior.
    """
    site = mean_field.by_name[name]
    assert isinstance(site, LocationSite)
    statistics = random_statistics(mean_field.form, draws)
    params = mean_field.start(params)
    moments = mean_field.moments(params)
    # The statistics of a point mass are as good as those of any q here.
    naturals = {other.name: point_statistics(other.view, others[other.name]) for other in mean_field.naturals}
    moments = moments._replace(naturals=naturals)
    location = moments.locations[site.name]

    @jax.jit  # traced once for both
    def slope(mean: Float[Array, "C D"]) -> Location:
        at = Location(mean, location.covariance)
        return mean_field.location_slope(site, at, statistics, params, moments)

    first = slope(location.mean)
    precision = -(first.covariance + jnp.swapaxes(first.covariance, -1, -2))
    # As long as the way to the maximum: beside a prior mean of 1e30, a step of one is lost to rounding.
    reach = jnp.maximum(jnp.abs(location.mean).max(), jnp.abs(first.mean).max() / jnp.abs(precision).max())
    direction = direction * jnp.maximum(1.0, reach)
    second = slope(location.mean + direction)
    turned = first.mean - second.mean
    prior = mean_field.prior_precision(site, moments)
    return precision, turned, jnp.matmul(precision, direction[..., None])[..., 0], prior
