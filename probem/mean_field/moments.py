"""What is expected of a density whose value or arguments have a q: functions of the moments of the sites.

A location site enters through its mean and covariance, a site with a Gaussian q by its values at nodes, every other
through the mean of its sufficient statistics.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.exponential import Arguments, Density, Location
from probem.form.centring import centred_arguments, centred_location
from probem.form.form import ExponentialForm
from probem.form.sites import ExponentialSite
from probem.mean_field.factors import ConjugateFactor
from probem.mean_field.locations import between
from probem.mean_field.naturals import point_statistics
from probem.program.sites import Params

T = TypeVar("T")


class Nodes(NamedTuple):
    """The ``weights`` ``[J]`` of the nodes over which a density is averaged, and the ``value`` ``[J, ...]`` of the site
    itself there, where it has a Gaussian q.
    """

    weights: Float[Array, " J"]
    value: Float[Array, "J ..."] | None


class Certain(NamedTuple):
    """What follows from the program without the sites with a conjugate prior: the ``arguments`` of every density that
    do not come from their edges; the log density of every other site (and factor) with a prior, nats; ``nodes`` of the
    densities that are averaged, whose arguments are those at all of them; the log volume of every Gaussian q, nats.
    """

    arguments: dict[str, Arguments]
    log_priors: dict[str, Float[Array, ""]]
    nodes: dict[str, Nodes]
    log_volumes: dict[str, Float[Array, ""]]


class Moments(NamedTuple):
    """The arguments of every density at the points, by site; the statistics of every site that is no location; mean
    ``[C, D]`` and covariance ``[C, D, D]`` of every location.

    A density with ``nodes`` has its arguments at all of them, ``[J, ...]``; ``values`` are those of sites at one node.
    """

    arguments: Mapping[str, Arguments]
    naturals: Mapping[str, Float[Array, "_ _"]]
    locations: Mapping[str, Location]
    nodes: Mapping[str, Nodes]
    values: Mapping[str, Array]

    def with_natural(self, name: str, statistics: Float[Array, "C U"]) -> "Moments":
        """The moments with other statistics of the site ``name``."""
        return self._replace(naturals={**self.naturals, name: statistics})

    def with_location(self, name: str, location: Location) -> "Moments":
        """The moments with another mean and covariance of the location ``name``."""
        return self._replace(locations={**self.locations, name: location})

    def averaged(self, name: str, function: "Callable[[Moments], T]") -> T:
        """A function of the moments that looks at the density ``name``, on average over the nodes of this if it has
        any. At each of them it has arguments, and values, without nodes.
        """
        nodes = self.nodes.get(name)
        if nodes is None:
            return function(self)
        others = {other: each for other, each in self.nodes.items() if other != name}

        def at(arguments: Arguments, value: Float[Array, "..."] | None) -> T:
            values = self.values if value is None else {**self.values, name: value}
            return function(self._replace(arguments={**self.arguments, name: arguments}, nodes=others, values=values))

        every = jax.vmap(at)(self.arguments[name], nodes.value)
        return jax.tree.map(lambda leaf: jnp.tensordot(nodes.weights.astype(leaf.dtype), leaf, 1), every)


def densities(
    form: ExponentialForm, factors: Mapping[str, ConjugateFactor], moments: Moments, shifts: Mapping[str, Array]
) -> dict[str, tuple[Float[Array, "K _ _"], Float[Array, "K _"]]]:
    """E[eta] ``[K, C, S]`` and E[A] ``[K, C]`` of every density inside the data plate."""
    return {term.site: density(term, factors.get(term.site), moments, shifts) for term in form.terms}


def density(
    term: ExponentialSite, factor: ConjugateFactor | None, moments: Moments, shifts: Mapping[str, Array]
) -> tuple[Float[Array, "K _ _"], Float[Array, "K _"]]:
    """E[eta] ``[K, C, S]`` and E[A] ``[K, C]`` of a density."""
    if factor is not None:
        return expected_density(term, factor, moments, shifts)

    def natural(moments: Moments) -> tuple[Float[Array, "K _ _"], Float[Array, "K _"]]:
        return term.view.natural_and_log_normaliser(centred_arguments(term, moments.arguments[term.site], shifts))

    return moments.averaged(term.site, natural)


def expected_density(
    term: ExponentialSite, factor: ConjugateFactor, moments: Moments, shifts: Mapping[str, Array]
) -> tuple[Float[Array, "K _ _"], Float[Array, "K _"]]:
    """E[eta] ``[K, C, S]`` and E[A] ``[K, C]`` of a density whose arguments follow from sites with a q."""

    def at(moments: Moments) -> tuple[Float[Array, "K _ _"], Float[Array, "K _"]]:
        location = centred_location(term, expected_location(factor, moments), shifts)
        arguments = centred_arguments(term, moments.arguments[term.site], shifts)
        return term.view.expected(expected_arguments(factor, moments), location, arguments)

    return moments.averaged(term.site, at)


def prior_natural(factor: ConjugateFactor, moments: Moments) -> Float[Array, "C U"]:
    """E[eta] of the prior of a site that is no location: the slope of E_q[log p] in its expected statistics."""

    def at(moments: Moments) -> Float[Array, "C U"]:
        arguments = moments.arguments[factor.site]
        if factor.is_uncertain:
            return factor.view.expected(expected_arguments(factor, moments), None, arguments)[0]
        return factor.view.natural(arguments)

    return moments.averaged(factor.site, at)


def expected_log_prior(factor: ConjugateFactor, params: Params, moments: Moments) -> Float[Array, ""]:
    """E_q[log p(value | arguments)] of one prior, nats."""
    return moments.averaged(factor.site, lambda moments: _log_prior(factor, params, moments))


def _log_prior(factor: ConjugateFactor, params: Params, moments: Moments) -> Float[Array, ""]:
    view, name = factor.view, factor.site
    certain = moments.values[name] if name in moments.values else params[name]
    arguments = moments.arguments[name]
    if not view.is_location:
        if factor.is_uncertain:
            natural, log_normaliser = view.expected(expected_arguments(factor, moments), None, arguments)
        else:
            natural, log_normaliser = view.natural(arguments), view.log_normaliser(arguments)
        value = moments.naturals[name] if name in moments.naturals else point_statistics(view, certain)
        # A weight of zero under a flat prior: 0 log 0 = 0.
        value = jnp.where((natural == 0) & jnp.isinf(value), 0.0, value)
        return (natural * value).sum() - log_normaliser.sum()
    # About the mean of the location, so that no digits are lost where both lie far from the origin.
    location = expected_location(factor, moments)
    assert location is not None
    q = moments.locations.get(name)
    value = (certain if q is None else q.mean).reshape(location.mean.shape)
    statistics = view.statistics(value - location.mean)
    centred = location._replace(mean=jnp.zeros_like(location.mean))
    if q is not None:
        entries = np.arange(value.size).reshape(value.shape)
        statistics = statistics + view.spread(between(q.covariance, *_pairs(entries, view)))
    natural, log_normaliser = view.expected(expected_arguments(factor, moments), centred, arguments)
    return (natural * statistics).sum() - log_normaliser.sum() + view.log_base_measure(value).sum()


def expected_arguments(factor: ConjugateFactor, moments: Moments) -> Float[Array, "... A"]:
    """The expected ``argument_statistics`` of a density."""
    if factor.statistics is not None:
        return factor.statistics.apply(moments.naturals)
    return argument_statistics(factor.view, moments.arguments[factor.site])


def argument_statistics(view: Density, arguments: Arguments) -> Float[Array, "... A"]:
    """The statistics of certain arguments."""
    statistics = view.argument_statistics(arguments)
    assert statistics is not None
    return statistics


def expected_location(factor: ConjugateFactor, moments: Moments) -> Location | None:
    """Mean and covariance of the location argument of a density; None where it has none."""
    if not factor.view.is_location:
        return None
    edge = factor.location
    if edge is None:
        mean = moments.arguments[factor.site][factor.view.location_argument]
        event = mean.shape[mean.ndim - factor.view.argument_event_ndims(factor.view.location_argument) :]
        return Location(mean, jnp.zeros((*mean.shape, *event), mean.dtype))
    first, second = _pairs(edge.index[:, 0].reshape(edge.shape), factor.view)
    times, other = _pairs(edge.coefficient[:, 0].reshape(edge.shape), factor.view)
    product = times * other
    covariance, start = jnp.zeros(()), 0
    for name in edge.sites:
        # The entries of this site among those of all sites, one after another.
        location = moments.locations[name]
        stop = start + location.mean.size
        inside = (first >= start) & (first < stop) & (second >= start) & (second < stop)
        part = between(location.covariance, *(np.where(inside, index - start, 0) for index in (first, second)))
        if not (edge.is_gather and inside.all()):
            part = jnp.where(inside, jnp.asarray(product, part.dtype) * part, 0.0)
        covariance = covariance + part
        start = stop
    return Location(edge.apply({name: location.mean for name, location in moments.locations.items()}), covariance)


def _pairs(entries: Any, view: Density) -> tuple[Any, Any]:
    """The two entries of which a covariance has to do with each place: ``[..., D, D]`` for events of D entries."""
    if not view.argument_event_ndims(view.location_argument):
        return entries, entries
    first, second = entries[..., :, None], entries[..., None, :]
    shape = np.broadcast_shapes(first.shape, second.shape)
    broadcast = np.broadcast_to if isinstance(entries, np.ndarray) else jnp.broadcast_to
    return broadcast(first, shape), broadcast(second, shape)
