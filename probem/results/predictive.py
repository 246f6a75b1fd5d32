"""The posterior predictive density: p(x | t) averaged over q of its parameters, in closed form where there is one.

Two integrals do it. Of a site that is no location, log p(x | t) is linear in the statistics u, and with q in the family
of its prior E_q[exp <d, u>] = exp(A(eta + d) - A(eta)). A location is integrated out first: a normal of a normal mean
is normal, and of an uncertain precision a Student t. Where the density depends on sites with a Gaussian q, what these
integrals leave is averaged over nodes of theirs.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.errors import InputError
from probem.exponential import Arguments
from probem.exponential.linalg import inverse
from probem.form.centring import centred_arguments, centred_events
from probem.form.companions import Covariates
from probem.form.completion import complete_term
from probem.form.sites import ExponentialSite, event_observed
from probem.mean_field.factors import AffineMap, ConjugateFactor
from probem.mean_field.locations import TiedLocation
from probem.mean_field.mean_field import MeanField
from probem.mean_field.moments import Moments, expected_arguments, expected_location
from probem.mean_field.naturals import NaturalSite
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.students import Factor, Locations, Predictors, around_location, around_predictor


class _Parents(NamedTuple):
    """The one site and cell that the spread, rate or probabilities of every component and copy follow from, and the
    statistic there for each of theirs.
    """

    site: NaturalSite
    cell: Int[np.ndarray, "K C"]
    position: Int[np.ndarray, "K C A"]

    @property
    def is_shared(self) -> bool:
        """Whether all copies follow from one cell."""
        return bool((self.cell == self.cell[:, :1]).all())


def check_closed_form(mean_field: MeanField) -> None:
    """Raise an ``InputError`` for a density whose average over q has no closed form."""
    _check_assignments(mean_field)
    used: set[tuple[int, str, int]] = set()
    for term in mean_field.form.data_terms:
        factor = _uncertain(mean_field, term.site)
        if factor is None:
            continue
        reason, cells = None, _location_cells(mean_field, factor.location)
        if any(_repeats(cell, term) for cell in cells.values()):
            reason = "features that share, or are correlated by, an uncertain location"
        if factor.statistics is not None:
            parents = _parents(mean_field, factor.statistics)
            locations = [site for site in mean_field.locations if site.name in cells]
            if parents is None:
                reason = "arguments that do not each follow from one uncertain value"
            elif not parents.is_shared and _repeats(parents.cell, term):
                reason = "features of which some, but not all, share an uncertain value"
            elif any(not isinstance(site, TiedLocation) or site.parent != parents.site.name for site in locations):
                reason = "a location and a precision that are independent under q"
            else:
                cells[parents.site.name] = parents.cell
        sources = {(k, name, cell) for name, rows in cells.items() for k, row in enumerate(rows) for cell in set(row)}
        if reason is None and sources & used:
            reason = "an uncertain value that another observed site shares"
        used |= sources
        if reason:
            raise InputError(
                f"the posterior predictive density of '{term.site}', with {reason}",
                "one with a closed form",
                "pass plug_in=True for the density at fit.params, or average over draws from fit.guide()",
            )


def _check_assignments(mean_field: MeanField) -> None:
    """Raise an ``InputError`` for shares that are looked up and that another assignment has as well."""
    behind: dict[str, set[str]] = {}
    for term in mean_field.form.terms:
        factor = _uncertain(mean_field, term.site)
        if term.is_assignment and factor is not None and factor.statistics is not None:
            behind[term.site] = set(factor.statistics.sites)
    for term in mean_field.form.column_terms:
        shared = [name for name, sites in behind.items() if name != term.site and sites & behind.get(term.site, set())]
        if term.is_assignment and shared:
            raise InputError(
                f"the posterior predictive density of rows whose '{term.site}' and '{shared[0]}' may share an uncertain"
                " probability",
                "one with a closed form",
                "pass plug_in=True for the density at fit.params, or average over draws from fit.guide()",
            )


class Predictive(NamedTuple):
    """What a predictive density takes from q, whatever the rows.

    Attributes
    ----------
    assignments : log E_q[p(t = k)], ``[K]``, nats, of the assignments that have the same probabilities in every row
    looked_up : of the others, by site, that in every cell, ``[K, G]``
    sites : by observed site, what its density is made from
    log_weights : of the nodes of the Gaussian q, ``[J]``: all of the above has an axis of them in front; None without
    """

    assignments: Float[Array, " K"] | Float[Array, "J K"]
    looked_up: dict[str, Float[Array, "K G"] | Float[Array, "J K G"]]
    sites: dict[str, "_Plain | _Moments | Locations | Predictors"]
    log_weights: Float[Array, " J"] | None = None


class _Plain(NamedTuple):
    """A density of which nothing is uncertain."""

    natural: Float[Array, "..."]
    log_normaliser: Float[Array, "..."]


class _Moments(NamedTuple):
    """A density whose log is linear in uncertain statistics: its other arguments, and q of these statistics."""

    arguments: Arguments
    natural: Float[Array, "..."]


def posterior_predictive(plan: Plan, params: Params, shifts: Mapping[str, Array]) -> Predictive:
    """What ``log_predictive`` takes from q."""
    mean_field, form = plan.mean_field, plan.form
    # What follows from points is as certain as what follows from nothing.
    moments = mean_field.moments(params)._replace(nodes={})
    nodes = mean_field.predictive_nodes
    if nodes is None:
        return _at(plan, params, moments._replace(arguments=form.arguments(mean_field.points(params))), shifts)

    def at(normals: Float[Array, " M"]) -> Predictive:
        arguments = form.arguments(mean_field.at_node(params, nodes, normals))
        return _at(plan, params, moments._replace(arguments=arguments), shifts)

    every = jax.vmap(at)(jnp.asarray(nodes.nodes))
    return every._replace(log_weights=jnp.log(jnp.asarray(nodes.weights)))


def _at(plan: Plan, params: Params, moments: Moments, shifts: Mapping[str, Array]) -> Predictive:
    """What it takes from q where all that a Gaussian q says is certain."""
    mean_field, form, arguments = plan.mean_field, plan.form, moments.arguments
    sites: dict[str, _Plain | _Moments | Locations | Predictors] = {}
    for term in form.data_terms:
        factor, term_arguments = _uncertain(mean_field, term.site), arguments[term.site]
        if factor is None:
            centred = centred_arguments(term, term_arguments, shifts)
            sites[term.site] = _Plain(term.view.natural(centred), term.view.log_normaliser(centred))
        elif isinstance(term.companion, Covariates):
            sites[term.site] = _predictors(mean_field, factor, term, params, moments)
        elif term.view.is_location:
            sites[term.site] = _locations(mean_field, factor, term, params, moments)
        else:
            sites[term.site] = _Moments(term_arguments, _natural_of_parents(mean_field, factor, params))
    same = tuple(term for term in form.terms if term.is_assignment and not term.partial)
    looked_up = {
        term.site: _assignments(mean_field, params, arguments, (term,))
        for term in form.column_terms
        if term.is_assignment
    }
    return Predictive(_assignments(mean_field, params, arguments, same)[:, 0], looked_up, sites)


def log_predictive(
    plan: Plan, made: Predictive, shifts: Mapping[str, Array], data: tuple[Array, ...], missing: Any = None
) -> Float[Array, "n K"]:
    """log E_q[p(x_n, t_n = k)] of everything in exponential-family form, nats.

    What is missing is integrated out: the marginal of a Student t is one with as many degrees of freedom.
    """
    if made.log_weights is None:
        return _log_table(plan, made, shifts, data, missing)
    at_nodes = made._replace(log_weights=None)

    def more(table: Float[Array, "n K"], node: tuple[Predictive, Float[Array, ""]]) -> tuple[Float[Array, "n K"], None]:
        here, log_weight = node
        return jnp.logaddexp(table, _log_table(plan, here, shifts, data, missing) + log_weight), None

    num_rows = jax.tree.leaves(data)[0].shape[0]
    nothing = jnp.full((num_rows, plan.num_components), -jnp.inf)
    return jax.lax.scan(more, nothing, (at_nodes, made.log_weights))[0]


def _log_table(
    plan: Plan, made: Predictive, shifts: Mapping[str, Array], data: tuple[Array, ...], missing: Any
) -> Float[Array, "n K"]:
    mean_field, form = plan.mean_field, plan.form
    seen = form.observed(data, missing) if form.partial else {}
    events = form.events(data)
    num_rows = jax.tree.leaves(data)[0].shape[0]
    table = jnp.zeros((num_rows, plan.num_components)) + made.assignments
    for name, cells in made.looked_up.items():
        # A cell may be impossible under some component.
        table = table + jnp.where(seen[name][:, None], cells, 0.0).sum(2)
    for term in form.data_terms:
        site = made.sites[term.site]
        x = events[term.site][:, None]
        observed = seen[term.site][:, None] if term.partial else jnp.ones(x.shape, bool)
        if isinstance(site, _Plain):
            x, whole = centred_events(term, x, shifts), _whole(observed)
            inner = term.view.log_base_measure(x) - site.log_normaliser
            if term.completes:
                completed = complete_term(term, site.natural, x[:, 0], observed[:, 0])
                table, whole = table + completed.table, completed.here[:, None]
            else:
                inner = inner + (term.view.statistics(x) * site.natural).sum(-1)
            table = table + jnp.where(whole, inner, 0.0).sum(2)
        elif isinstance(site, Predictors):
            table = table + around_predictor(site, x[:, 0], observed[:, 0])
        elif isinstance(site, Locations):
            table = table + around_location(site, (x, observed))
        else:
            table = table + _moment(mean_field, term, site, (x, observed))
        if term.transforms:
            here = event_observed(observed[:, 0], term)
            table = table + jnp.where(here, term.log_jacobian(events[term.site]), 0.0).sum(1)[:, None]
    return table


def _assignments(
    mean_field: MeanField, params: Params, arguments: Mapping[str, Arguments], terms: tuple[ExponentialSite, ...]
) -> Float[Array, "K G"]:
    """log E_q[p(t = k)] in every cell; the assignments may share uncertain probabilities."""
    form = mean_field.form
    total = jnp.zeros((form.program.num_components, max((term.copies for term in terms), default=1)))
    shifts: dict[str, Array] = {}
    for term in terms:
        statistics = jnp.broadcast_to(form.assignment_statistics(term), (*total.shape, term.num_statistics))
        factor = _uncertain(mean_field, term.site)
        if factor is None or factor.statistics is None:
            natural = term.view.natural(arguments[term.site])
            total = total + jnp.where(statistics > 0, statistics * natural, 0.0).sum(2)
            continue
        edge = factor.statistics
        # log p(t = k) is the one of these statistics that t = k picks.
        picked = statistics.reshape(-1)[:, None] * edge.coefficient
        total = total + (statistics.reshape(-1) * edge.offset).reshape(statistics.shape).sum(2)
        start = 0
        for site in (_natural(mean_field, name) for name in edge.sites):
            size = site.cells * site.num_statistics
            inside = (edge.index >= start) & (edge.index < start + size)
            rows = np.repeat(np.arange(total.size), term.num_statistics)[:, None]
            empty = shifts.get(site.name, jnp.zeros((total.size, size)))
            index = np.where(inside, edge.index - start, 0)
            shifts[site.name] = empty.at[np.broadcast_to(rows, index.shape), index].add(jnp.where(inside, picked, 0.0))
            start += size
    for name, shift in shifts.items():
        site = _natural(mean_field, name)
        shift = shift.reshape(-1, site.cells, site.num_statistics)
        natural = site.prior.natural(params[site.name])
        total = total + _log_moment(site, natural, np.arange(site.cells), shift).sum(1).reshape(total.shape)
    return total


def _whole(observed: Bool[Array, "n 1 C ..."]) -> Bool[Array, "n 1 C"]:
    """Which events were observed."""
    return observed.reshape(*observed.shape[:3], -1).all(-1)


def _natural_of_parents(mean_field: MeanField, factor: ConjugateFactor, params: Params) -> Float[Array, "..."]:
    """Natural parameters of q of the site that a density follows from."""
    assert factor.statistics is not None
    parents = _parents(mean_field, factor.statistics)
    assert parents is not None
    return parents.site.prior.natural(params[parents.site.name])


def _moment(
    mean_field: MeanField,
    term: ExponentialSite,
    made: _Moments,
    events: tuple[Float[Array, "n 1 C ..."], Bool[Array, "n 1 C ..."]],
) -> Float[Array, "n K"]:
    """A density whose log is linear in the statistics of one cell; ``events`` are values, and which of them
    were observed.
    """
    x, observed = events
    factor = _uncertain(mean_field, term.site)
    assert factor is not None
    edge = factor.statistics
    assert edge is not None
    parents = _parents(mean_field, edge)
    assert parents is not None
    features = term.view.statistics(x)

    def log_density(statistics: Float[Array, "K C A"]) -> Float[Array, "n K C"]:
        natural, log_normaliser = term.view.expected(statistics, None, made.arguments)
        return (features * natural).sum(-1) - log_normaliser

    # Affine in the statistics of the arguments: its coefficients, one by one.
    unit = jnp.eye(edge.shape[-1], dtype=features.dtype)
    zero = jnp.zeros(edge.shape, features.dtype)
    constant = log_density(zero)
    slopes = jnp.stack([log_density(zero + direction) - constant for direction in unit], -1)
    constant = constant + (slopes * edge.offset.reshape(edge.shape)).sum(-1) + term.view.log_base_measure(x)
    onto = np.eye(parents.site.num_statistics)[parents.position] * edge.coefficient.reshape(*edge.shape, 1)
    here = _whole(observed)
    constant = jnp.where(here, constant, 0.0)
    shift = jnp.einsum("nkcp,kcpu->nkcu", jnp.where(here[..., None], slopes, 0.0), jnp.asarray(onto, slopes.dtype))
    if parents.is_shared:
        shift, cells = shift.sum(2, keepdims=True), parents.cell[:, :1]
    else:
        cells = parents.cell
    return constant.sum(2) + _log_moment(parents.site, made.natural, cells, shift).sum(2)


def _log_moment(
    site: NaturalSite, natural: Float[Array, "..."], cells: Int[np.ndarray, "..."], shift: Float[Array, "*batch U"]
) -> Float[Array, "*batch"]:
    """log E_q[exp <shift, u(cell)>] = A(eta + shift) - A(eta), for shifts ``[..., *cells.shape, U]``, of q with these
    natural parameters.
    """
    prior, natural = site.prior, natural[cells]

    def log_normaliser(natural: Float[Array, "... U"]) -> Float[Array, "..."]:
        return prior.log_normaliser(prior.from_natural(natural))

    return log_normaliser(natural + shift) - log_normaliser(natural)


def _locations(
    mean_field: MeanField, factor: ConjugateFactor, term: ExponentialSite, params: Params, moments: Moments
) -> Locations:
    """A normal or a Student t over all copies, or over each by itself."""
    location = expected_location(factor, moments)
    assert location is not None
    precision = term.view.precision(expected_arguments(factor, moments))
    count, copies = location.mean.shape[0], term.copies
    dim = math.prod(term.event_shape)
    mean, freedom = location.mean.reshape(count, copies, dim), None
    scale = inverse(precision.reshape(count, copies, dim, dim))
    scale = scale + location.covariance.reshape(count, copies, dim, dim)
    if factor.statistics is not None:
        parents = _parents(mean_field, factor.statistics)
        assert parents is not None
        freedom, times = parents.site.prior.student(params[parents.site.name])
        freedom, scale = freedom[parents.cell], scale * times[parents.cell][:, :, None, None]
        if parents.is_shared and copies > term.num_cells:
            # One precision for all copies: together they are one Student t.
            blocks = jnp.einsum("kcij,cd->kcidj", scale, jnp.eye(copies, dtype=scale.dtype))
            mean, scale = mean.reshape(count, 1, -1), blocks.reshape(count, 1, copies * dim, copies * dim)
            freedom = freedom[:, :1]
    return Locations(mean, scale, freedom, None if mean_field.form.partial else Factor.of(scale))


def _predictors(
    mean_field: MeanField, factor: ConjugateFactor, term: ExponentialSite, params: Params, moments: Moments
) -> Predictors:
    """What is known of a value given its covariates."""
    location = expected_location(factor, moments)
    assert location is not None
    shape = location.mean.shape[:2]
    variance = jnp.broadcast_to(1.0 / term.view.precision(expected_arguments(factor, moments)), shape)
    width = location.mean.shape[2]
    covariance, freedom = jnp.broadcast_to(location.covariance, (*shape, width, width)), None
    if factor.statistics is not None:
        parents = _parents(mean_field, factor.statistics)
        assert parents is not None
        freedom, times = parents.site.prior.student(params[parents.site.name])
        freedom, times = freedom[parents.cell], times[parents.cell]
        variance, covariance = variance * times, covariance * times[:, :, None, None]
        freedom = freedom[:, :1] if parents.is_shared else freedom
    return Predictors(location.mean, covariance, variance, freedom)


def _natural(mean_field: MeanField, name: str) -> NaturalSite:
    return next(site for site in mean_field.naturals if site.name == name)


def _uncertain(mean_field: MeanField, name: str) -> ConjugateFactor | None:
    """The density of a site without the edges that start at points; None where nothing is uncertain."""
    factor = mean_field.factors.get(name)
    if factor is None:
        return None

    def kept(edge: AffineMap | None) -> AffineMap | None:
        points = edge is None or all(mean_field.by_name[site].is_point for site in edge.sites)
        return None if points else edge

    factor = dataclasses.replace(factor, location=kept(factor.location), statistics=kept(factor.statistics))
    return factor if factor.is_uncertain else None


def _location_cells(mean_field: MeanField, edge: AffineMap | None) -> dict[str, Int[np.ndarray, "K C"]]:
    """For every uncertain location behind an edge, its cells (-1: none)."""
    cells: dict[str, np.ndarray] = {}
    if edge is None:
        return cells
    used = np.where(edge.used[:, 0], edge.index[:, 0], -1).reshape(*edge.shape[:2], -1)
    start = 0
    for name in edge.sites:
        site = next(site for site in mean_field.locations if site.name == name)
        inside = (used >= start) & (used < start + site.cells * site.dim)
        if not site.is_point:
            cells[name] = np.where(inside, (used - start) // site.dim, -1).max(2)
        start += site.cells * site.dim
    return cells


def _parents(mean_field: MeanField, edge: AffineMap) -> _Parents | None:
    """Where every argument follows from one cell of one site, which; None otherwise."""
    if edge.index.shape[1] != 1 or len(edge.sites) != 1 or len(edge.shape) != 3:
        return None
    site = _natural(mean_field, edge.sites[0])
    index = edge.index[:, 0].reshape(edge.shape)
    # A constant follows from nothing, and so from whatever the others follow from.
    used = edge.used[:, 0].reshape(edge.shape)
    cell, position = index // site.num_statistics, index % site.num_statistics
    parent_cell = np.where(used, cell, -1).max(2)
    if (parent_cell < 0).any() or (used & (cell != parent_cell[:, :, None])).any():
        return None
    return _Parents(site, parent_cell, np.where(used, position, 0))


def _repeats(cells: Int[np.ndarray, "K C"], term: ExponentialSite) -> bool:
    """Whether two copies that one row may have together have the same cell of q under one component."""
    lookup = None if term.presence is None else term.presence.lookup
    for row in cells.reshape(len(cells), -1, term.num_cells):
        if lookup is None or lookup.is_common:
            if any(len(np.unique(each)) < len(each) for each in (copies[copies >= 0] for copies in row.T)):
                return True
            continue
        # Each copy may be in any of its cells, whatever those of the others are.
        used = [np.unique(copy[copy >= 0]) for copy in row]
        if sum(map(len, used)) > len(np.unique(np.concatenate(used))):
            return True
    return False
