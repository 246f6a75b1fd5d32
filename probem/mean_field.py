"""The sites with a conjugate prior: q, what the pass needs of it, and its updates.

q of a site is its full posterior (``Conjugate``), or a point at the mode of what that would be (``Delta``). It is a
product over sites, but for a normal site whose precision, in its prior and in everything that depends on it, is one
multiple of an uncertain precision: that one keeps q(location | precision), a normal-Wishart or normal-gamma.

There is one function, the expected log joint of the expected statistics of every site (``energy``), and it is linear in
each. The natural parameters of the best q of a site, with the others held, are its gradient; the expected statistics
are in turn the gradient of the log normaliser. No update is written out anywhere.
Source: Winn & Bishop (2005), Variational Message Passing; Hoffman et al. (2013), Stochastic variational inference,
eq. 14.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .edges import Factor, prior_arguments
from .exponential import Arguments, Density, Location, Prior
from .linear import Form, Linear
from .maximization import Statistics, expected
from .program import Params

#: The statistics of every site that is not a location, ``[C, U]``.
Naturals = dict[str, Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """A site with a conjugate prior, and q a full posterior or a ``point``.

    A location is cut into ``cells`` of ``dim`` entries that are independent under q. It is ``tied`` if the precision of
    each is a multiple of that in its prior, where it follows from one cell of one other site: the name of that site,
    and the cell there for every cell ``[C]``. Other sites have one cell for each event of their prior.
    """

    name: str
    view: Density
    shape: tuple[int, ...]
    cells: int
    dim: int = 0
    tied: tuple[str, np.ndarray] | None = None
    point: bool = False

    @property
    def is_location(self) -> bool:
        return not isinstance(self.view, Prior)

    @property
    def prior(self) -> Prior:
        """The view of a site that is no location."""
        assert isinstance(self.view, Prior)
        return self.view

    @property
    def num_statistics(self) -> int:
        """Of one cell, where it is no location."""
        event = self.shape[len(self.shape) - self.prior.event_ndim :]
        value = jax.ShapeDtypeStruct(event, jnp.result_type(float))
        return jax.eval_shape(self.prior.statistics, value, value).shape[-1]


class Terms(NamedTuple):
    """E_q[log p(site | its parents)] and H(q(site)), nats; the entropy of a point is left out."""

    expected_log_prior: Array
    entropy: Array


@dataclasses.dataclass(frozen=True, eq=False)
class MeanField:
    """Which sites have a conjugate prior, and how they reach the densities."""

    form: Form
    sites: tuple[Site, ...]
    factors: Mapping[str, Factor]

    @property
    def full(self) -> tuple[str, ...]:
        """The sites with a full posterior."""
        return tuple(site.name for site in self.sites if not site.point)

    @property
    def points_at_modes(self) -> tuple[str, ...]:
        """The sites whose q is a point at the mode of what their full posterior would be."""
        return tuple(site.name for site in self.sites if site.point)

    @property
    def locations(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if site.is_location)

    @property
    def naturals(self) -> tuple[Site, ...]:
        return tuple(site for site in self.sites if not site.is_location)

    # What the loop, the pass and the bound ask for.

    def points(self, params: Params) -> Params:
        """A value for every site: where q is a distribution, the one that stands for it (its mean)."""
        found = dict(params)
        for site in self.sites:
            own = params[site.name]
            if not isinstance(own, dict):
                continue
            found[site.name] = (own["loc"] if site.is_location else site.prior.point(own)).reshape(site.shape)
        return found

    def linear(self, params: Params, shifts: Mapping[str, Array]) -> Linear:
        """E_q[W] and E_q[c] over all columns."""
        return self.form.assemble(self._densities_at(params, shifts))

    def expected_log_joint(self, params: Params, statistics: Statistics) -> dict[str, Array]:
        """E_q[log p(site | its parents)] summed over the data, base measures left out, for every site in the plate that
        has an exponential-family form, nats.
        """
        found = self._densities_at(params, statistics.shifts)
        nothing = {
            name: (jnp.zeros_like(natural), jnp.zeros_like(log_normaliser))
            for name, (natural, log_normaliser) in found.items()
        }
        return {name: expected(self.form.assemble({**nothing, name: own}), statistics) for name, own in found.items()}

    def _densities_at(self, params: Params, shifts: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        arguments = self.arguments(params)
        naturals = self._naturals(params)
        return self._densities(arguments, naturals, self.expected_locations(params, arguments, naturals), shifts)

    def log_prior(self, params: Params) -> Array:
        """log p of the sites that are points, and E_q[log p] + H(q) of the others, nats."""
        return sum((one.expected_log_prior + one.entropy for one in self.terms(params).values()), jnp.zeros(()))

    def terms(self, params: Params) -> dict[str, Terms]:
        """The same for every site (and factor) with a prior."""
        trace = self._trace(params)
        arguments = self._arguments_in(trace)
        naturals = self._naturals(params)
        locations = self.expected_locations(params, arguments, naturals)
        found = {
            name: Terms(value, jnp.zeros(()))
            for name, value in self.form.program.log_priors(trace, besides=self._prior_factors).items()
        }
        for name, factor in self._prior_factors.items():
            value = self._expected_log_prior(factor, arguments[name], params, naturals, locations)
            found[name] = Terms(value, jnp.zeros(()))
        for site in self.sites:
            if site.point:
                continue
            if site.is_location:
                entropy = self._location_entropy(site, params, arguments, naturals)
            else:
                entropy = site.prior.entropy(params[site.name]).sum()
            found[site.name] = found[site.name]._replace(entropy=entropy)
        return found

    def start(self, params: Params) -> Params:
        """q as its prior is at these values, in place of the value of every site with a full posterior."""
        arguments = self._arguments_in(self._trace_at(params))
        found = dict(params)
        for site in self.sites:
            own = arguments[site.name]
            if site.point:
                continue
            if not site.is_location:
                found[site.name] = dict(own)
                continue
            factor = self.factors[site.name]
            loc = own["loc"].reshape(site.cells, site.dim)
            if site.tied:
                found[site.name] = {"loc": loc, "strength": jnp.ones(site.cells, loc.dtype)}
                continue
            precision = factor.view.precision(_point_arguments(factor.view, own))
            found[site.name] = {"loc": loc, "covariance": _inverse(_blocks(precision, site))}
        return found

    def maximise(self, statistics: Statistics, params: Params) -> Params:
        """The best q of every site in turn: first locations, then what they may be tied to."""
        if not self.sites:
            return params
        params = dict(params)
        arguments = self.arguments(params)

        def energy(naturals: Naturals, locations: Mapping[str, Location]) -> Array:
            return self.energy(statistics, params, arguments, naturals, locations)

        for site in self.locations:
            naturals = self._naturals(params)
            locations = self.expected_locations(params, arguments, naturals)
            own = locations[site.name]

            def at(
                value: Location,
                name: str = site.name,
                naturals: Naturals = naturals,
                locations: Mapping[str, Location] = locations,
            ) -> Array:
                return energy(naturals, {**locations, name: value})

            slope = jax.grad(at)(own)
            # The energy is a quadratic function of the location: one Newton step from its mean is the maximum.
            precision = -(slope.covariance + jnp.swapaxes(slope.covariance, -1, -2))
            covariance = _inverse(precision)
            loc = own.mean + jnp.matmul(covariance, slope.mean[..., None])[..., 0]
            if site.point:
                params[site.name] = loc.reshape(site.shape).astype(params[site.name].dtype)
                continue
            if site.tied:
                ratio = jnp.trace(jnp.matmul(precision, own.covariance), axis1=-2, axis2=-1) / site.dim
                updated = {"loc": loc, "strength": ratio * params[site.name]["strength"]}
            else:
                updated = {"loc": loc, "covariance": covariance}
            params[site.name] = _as(updated, params[site.name])
        for site in self.naturals:
            naturals = self._naturals(params)

            def value(own: Array, name: str = site.name, naturals: Naturals = naturals) -> Array:
                found = {**naturals, name: own}
                total = energy(found, self.expected_locations(params, arguments, found))
                # A tied location has its precision, and so its entropy, from this site.
                for child in self.locations:
                    if child.tied:
                        total = total + self._location_entropy(child, params, arguments, found)
                return total

            best = site.prior.from_natural(jax.grad(value)(naturals[site.name]))
            old = params[site.name]
            if site.point:
                params[site.name] = site.prior.mode(best).reshape(site.shape).astype(old.dtype)
            else:
                params[site.name] = _as(best, old)
        return params

    def location(self, name: str, params: Params) -> Location:
        """Mean ``[C, D]`` and covariance ``[C, D, D]`` of a location; of a tied one at the expected precision."""
        return self.expected_locations(params, self.arguments(params), self._naturals(params))[name]

    def location_of(self, name: str, params: Params) -> tuple[Location, Array]:
        """Location and expected precision of the normal density of a site in the plate, ``[K, copies, ...]``."""
        arguments, naturals = self.arguments(params), self._naturals(params)
        factor = self.factors[name]
        found = self._location(factor, arguments[name], self.expected_locations(params, arguments, naturals))
        assert found is not None
        return found, factor.view.precision(_statistics(factor, arguments[name], naturals))

    def cell_matrices(self, site: Site, matrices: Array) -> Array:
        """Matrices of the events of a location's prior, ``[C']`` or ``[C', D', D']``, as those of its cells."""
        return _blocks(matrices, site)

    def energy(
        self,
        statistics: Statistics,
        params: Params,
        arguments: Mapping[str, Arguments],
        naturals: Naturals,
        locations: Mapping[str, Location],
    ) -> Array:
        """E_q of the exponential-family part of log p(X, T, theta), but for what no uncertain site touches, nats.

        Linear in the statistics ``naturals[site]`` and, for locations, in the mean, its square plus the covariance.
        """
        densities = self._densities(arguments, naturals, locations, statistics.shifts)
        total = expected(self.form.assemble(densities), statistics)
        for name, factor in self._prior_factors.items():
            total = total + self._expected_log_prior(factor, arguments[name], params, naturals, locations)
        return total

    # How.

    @property
    def _prior_factors(self) -> dict[str, Factor]:
        local = self.form.program.local
        return {name: factor for name, factor in self.factors.items() if name not in local}

    def _trace(self, params: Params) -> dict[str, dict[str, Any]]:
        return self._trace_at(self.points(params))

    def _trace_at(self, points: Params) -> dict[str, dict[str, Any]]:
        program = self.form.program
        return program.enumerated_trace(points, program.spec.zeros(1))

    def arguments(self, params: Params) -> dict[str, Arguments]:
        """The arguments of every density at the points; those that are uncertain come from the edges instead."""
        return self._arguments_in(self._trace(params))

    def _arguments_in(self, trace: Mapping[str, dict[str, Any]]) -> dict[str, Arguments]:
        priors = {name: prior_arguments(trace[name], factor.view) for name, factor in self._prior_factors.items()}
        return {**self.form.arguments_in(trace), **priors}

    def _naturals(self, params: Params) -> Naturals:
        return {
            site.name: _point_statistics(site.view, params[site.name])
            if site.point
            else site.prior.expected_statistics(params[site.name])
            for site in self.naturals
        }

    def expected_locations(
        self, params: Params, arguments: Mapping[str, Arguments], naturals: Naturals
    ) -> dict[str, Location]:
        """Mean ``[C, D]`` and covariance ``[C, D, D]`` of every location."""
        found = {}
        for site in self.locations:
            own = params[site.name]
            if site.point:
                nothing = jnp.zeros((site.cells, site.dim, site.dim), own.dtype)
                found[site.name] = Location(own.reshape(site.cells, site.dim), nothing)
                continue
            covariance = (
                own["covariance"]
                if not site.tied
                else _inverse(own["strength"][:, None, None] * self.prior_precision(site, arguments, naturals))
            )
            found[site.name] = Location(own["loc"], covariance)
        return found

    def prior_precision(self, site: Site, arguments: Mapping[str, Arguments], naturals: Naturals) -> Array:
        """The expected precision in the prior of a location, ``[C, D, D]``."""
        factor = self.factors[site.name]
        return _blocks(factor.view.precision(_statistics(factor, arguments[site.name], naturals)), site)

    def _location_entropy(
        self, site: Site, params: Params, arguments: Mapping[str, Arguments], naturals: Naturals
    ) -> Array:
        own = params[site.name]
        constant = 0.5 * site.cells * site.dim * (1.0 + math.log(2.0 * math.pi))
        if not site.tied:
            return constant + 0.5 * jnp.linalg.slogdet(own["covariance"])[1].sum()
        log_det = _statistics(self.factors[site.name], arguments[site.name], naturals)[..., -1].sum()
        return constant - 0.5 * (site.dim * jnp.log(own["strength"]).sum() + log_det)

    def _densities(
        self,
        arguments: Mapping[str, Arguments],
        naturals: Naturals,
        locations: Mapping[str, Location],
        shifts: Mapping[str, Array],
    ) -> dict[str, tuple[Array, Array]]:
        """E[eta] ``[K, copies, S]`` and E[A] ``[K, copies]`` of every density inside the data plate."""
        found = {}
        for term in self.form.terms:
            own, shift = arguments[term.site], self.form.shift(term, shifts)
            factor = self.factors.get(term.site)
            if factor is None:
                found[term.site] = term.view.natural(own, shift), term.view.log_normaliser(own, shift)
                continue
            location = self._location(factor, own, locations)
            found[term.site] = term.view.expected(_statistics(factor, own, naturals), location, own, shift)
        return found

    def _expected_log_prior(
        self,
        factor: Factor,
        arguments: Arguments,
        params: Params,
        naturals: Naturals,
        locations: Mapping[str, Location],
    ) -> Array:
        """E_q[log p(value | arguments)] of one prior, nats."""
        view, name = factor.view, factor.site
        if isinstance(view, Prior) and not factor.is_uncertain:
            natural, log_normaliser = (
                function(arguments, jnp.zeros(())) for function in (view.natural, view.log_normaliser)
            )
            return (natural * self._value(factor, params, naturals)).sum() - log_normaliser.sum()
        statistics = _statistics(factor, arguments, naturals)
        if not view.is_location:
            natural, log_normaliser = view.expected(statistics, None, arguments, jnp.zeros(()))
            return (natural * self._value(factor, params, naturals)).sum() - log_normaliser.sum()
        # Around the location itself, so that no digits are lost where both lie far from the origin.
        location = self._location(factor, arguments, locations)
        own = locations.get(name)
        value = (params[name] if own is None else own.mean).reshape(location.mean.shape)
        found = view.statistics(value, location.mean)
        if own is not None:
            entries = np.arange(value.size).reshape(value.shape)
            found = found + view.spread(_between(own.covariance, *_pairs(entries, view)))
        natural, log_normaliser = view.expected(statistics, location, arguments, location.mean)
        return (natural * found).sum() - log_normaliser.sum() + view.log_base_measure(value).sum()

    def _value(self, factor: Factor, params: Params, naturals: Naturals) -> Array:
        """The expected statistics of a prior's own value, ``[C, U]``."""
        if factor.site in naturals:
            return naturals[factor.site]
        return _point_statistics(factor.view, params[factor.site])

    def _location(self, factor: Factor, arguments: Arguments, locations: Mapping[str, Location]) -> Location | None:
        """Mean and covariance of the location argument of a density."""
        if not factor.view.is_location:
            return None
        edge = factor.location
        if edge is None:
            loc = arguments["loc"]
            event = loc.shape[loc.ndim - factor.view.argument_event_ndims("loc") :]
            return Location(loc, jnp.zeros((*loc.shape, *event), loc.dtype))
        first, second = _pairs(edge.index[:, 0].reshape(edge.shape), factor.view)
        times, other = _pairs(edge.coefficient[:, 0].reshape(edge.shape), factor.view)
        covariance, start = jnp.zeros(()), 0
        for name in edge.sites:
            # The entries of this site among those of all sites, one after another.
            own, size = locations[name].covariance, locations[name].mean.size
            inside = (first >= start) & (first < start + size) & (second >= start) & (second < start + size)
            part = _between(own, *(np.where(inside, index - start, 0) for index in (first, second)))
            covariance = covariance + jnp.where(inside, times * other * part, 0.0)
            start += size
        return Location(edge.apply({name: own.mean for name, own in locations.items()}), covariance)


def _point_statistics(view: Density, value: Array) -> Array:
    """T of a value, event by event, ``[C, U]``."""
    ndim = view.event_ndim if isinstance(view, Prior) else 0
    return view.statistics(value.reshape(-1, *value.shape[value.ndim - ndim :]), jnp.zeros(()))


def _statistics(factor: Factor, arguments: Arguments, naturals: Naturals) -> Array:
    """The expected statistics of the arguments of a density."""
    if factor.statistics is not None:
        return factor.statistics.apply(naturals)
    return _point_arguments(factor.view, arguments)


def _point_arguments(view: Density, arguments: Arguments) -> Array:
    found = view.argument_statistics(arguments)
    assert found is not None
    return found


def _pairs(entries: np.ndarray, view: Density) -> tuple[np.ndarray, np.ndarray]:
    """The two entries of which a covariance has to do with each place: ``[..., D, D]`` for events of D entries."""
    if not view.argument_event_ndims("loc"):
        return entries, entries
    first, second = np.broadcast_arrays(entries[..., :, None], entries[..., None, :])
    return first, second


def _between(blocks: Array, first: np.ndarray, second: np.ndarray) -> Array:
    """The covariance of two flat entries, given that of the entries of every cell ``[C, D, D]``; zero between cells."""
    dim = blocks.shape[-1]
    found = blocks[first // dim, first % dim, second % dim]
    return jnp.where(first // dim == second // dim, found, 0.0)


def _blocks(matrices: Array, site: Site) -> Array:
    """The matrices of the events of a prior, ``[C']`` or ``[C', D', D']``, as those of the cells of a site."""
    matrices = matrices.reshape(-1, 1, 1) if matrices.ndim == 1 else matrices
    entries = np.arange(site.cells * site.dim).reshape(site.cells, site.dim)
    return _between(matrices, entries[:, :, None], entries[:, None, :])


def _as(updated: Arguments, old: Arguments) -> Arguments:
    """In the shapes and dtypes of what it replaces, as a loop asks."""
    return {name: updated[name].reshape(value.shape).astype(value.dtype) for name, value in old.items()}


def _inverse(matrices: Array) -> Array:
    """The inverse of positive definite matrices ``[C, D, D]``."""
    if matrices.shape[-1] == 1:
        return 1.0 / matrices
    whitening = jnp.linalg.cholesky(matrices)
    identity = jnp.broadcast_to(jnp.eye(matrices.shape[-1], dtype=matrices.dtype), matrices.shape)
    whitening = jax.lax.linalg.triangular_solve(whitening, identity, left_side=True, lower=True)
    return jnp.matmul(jnp.swapaxes(whitening, -1, -2), whitening)
