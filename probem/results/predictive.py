"""The posterior predictive density: p(x | t) averaged over q of its parameters, in closed form where there is one.

Two integrals do it. Of a site that is no location, log p(x | t) is linear in the statistics u, and with q in the family
of its prior E_q[exp <d, u>] = exp(A(eta + d) - A(eta)). A location is integrated out first: a normal of a normal mean
is normal, and of an uncertain precision a Student t. Where the density depends on sites with a Gaussian q, what these
integrals leave is averaged over nodes of theirs.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.exponential import Arguments
from probem.exponential.linalg import inverse
from probem.form.centring import centred_arguments, centred_events
from probem.form.companions import Covariates
from probem.form.completion import complete_term
from probem.form.sites import ExponentialSite, event_observed
from probem.mean_field.factors import ConjugateFactor
from probem.mean_field.mean_field import MeanField
from probem.mean_field.moments import Moments, expected_arguments, expected_location
from probem.mean_field.naturals import NaturalSite
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.closed_form import natural_of, parents_of, uncertain
from probem.results.students import Factor, Locations, Predictors, around_location, around_predictor


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
        factor, term_arguments = uncertain(mean_field, term.site), arguments[term.site]
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
        factor = uncertain(mean_field, term.site)
        if factor is None or factor.statistics is None:
            natural = term.view.natural(arguments[term.site])
            total = total + jnp.where(statistics > 0, statistics * natural, 0.0).sum(2)
            continue
        edge = factor.statistics
        # log p(t = k) is the one of these statistics that t = k picks.
        picked = statistics.reshape(-1)[:, None] * edge.coefficient
        total = total + (statistics.reshape(-1) * edge.offset).reshape(statistics.shape).sum(2)
        start = 0
        for site in (natural_of(mean_field, name) for name in edge.sites):
            size = site.cells * site.num_statistics
            inside = (edge.index >= start) & (edge.index < start + size)
            rows = np.repeat(np.arange(total.size), term.num_statistics)[:, None]
            empty = shifts.get(site.name, jnp.zeros((total.size, size)))
            index = np.where(inside, edge.index - start, 0)
            shifts[site.name] = empty.at[np.broadcast_to(rows, index.shape), index].add(jnp.where(inside, picked, 0.0))
            start += size
    for name, shift in shifts.items():
        site = natural_of(mean_field, name)
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
    parents = parents_of(mean_field, factor.statistics)
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
    factor = uncertain(mean_field, term.site)
    assert factor is not None
    edge = factor.statistics
    assert edge is not None
    parents = parents_of(mean_field, edge)
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
        parents = parents_of(mean_field, factor.statistics)
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
        parents = parents_of(mean_field, factor.statistics)
        assert parents is not None
        freedom, times = parents.site.prior.student(params[parents.site.name])
        freedom, times = freedom[parents.cell], times[parents.cell]
        variance, covariance = variance * times, covariance * times[:, :, None, None]
        freedom = freedom[:, :1] if parents.is_shared else freedom
    return Predictors(location.mean, covariance, variance, freedom)
