"""The sites with a q, what the pass needs of it, and the updates of those with a conjugate prior.

q of a site with a conjugate prior is its full posterior (``Conjugate``), or a point at the mode of what that would be
(``Delta``). A site with a Gaussian q (``Gaussian``) has its mean and covariance by the numeric route of the M
half-step; here the densities that depend on it are averaged over its nodes (``quadrature.py``). q is a product over
sites, but for a normal site whose precision, in its prior and in everything that depends on it, is one multiple of an
uncertain precision: that one keeps q(location | precision), a normal-Wishart or normal-gamma.

There is one function, the expected log joint of the expected statistics of every site, and it is linear in each. The
natural parameters of the best q of a site, given those of the others, are its gradient: what its prior has, and the
gradient of what depends on it. The expected statistics are in turn the gradient of the log normaliser. No update is
written out anywhere.
Source: Winn & Bishop (2005), Variational Message Passing; Hoffman et al. (2013), Stochastic variational inference,
eq. 14.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.exponential import Arguments, Location
from probem.exponential.linalg import inverse
from probem.form.form import ExponentialForm, NaturalParameters
from probem.form.statistics import Statistics, expected, expected_term
from probem.jit.compilation import concrete
from probem.jit.live import live
from probem.jit.structure import Structure, shared, structure_of, with_origin
from probem.mean_field.factors import ConjugateFactor, prior_arguments
from probem.mean_field.gaussians import GaussianSite
from probem.mean_field.locations import LocationSite
from probem.mean_field.moments import (
    Certain,
    Moments,
    Nodes,
    densities,
    expected_arguments,
    expected_density,
    expected_location,
    expected_log_prior,
    prior_natural,
)
from probem.mean_field.naturals import NaturalSite
from probem.mean_field.quadrature import NodeSet
from probem.mean_field.sites import SitePosterior
from probem.program.sites import Params


class PriorTerms(NamedTuple):
    """E_q[log p(site | its parents)] and H(q(site)), nats; of a point there is no entropy."""

    expected_log_prior: Float[Array, ""]
    entropy: Float[Array, ""] | None = None

    @property
    def total(self) -> Float[Array, ""]:
        """What the bound has of them, nats."""
        return self.expected_log_prior if self.entropy is None else self.expected_log_prior + self.entropy


@dataclasses.dataclass(frozen=True, eq=False)
class MeanField:
    """Which ``sites`` have a conjugate prior, and how they reach the densities; and which have a Gaussian q
    (``gaussians``), and over which nodes the densities are averaged that depend on them, and the density of a new row.
    """

    form: ExponentialForm
    sites: tuple[SitePosterior, ...]
    factors: Mapping[str, ConjugateFactor]
    gaussians: tuple[GaussianSite, ...] = ()
    node_sets: tuple[NodeSet, ...] = ()
    predictive_nodes: NodeSet | None = None

    @shared
    def structure(self) -> Structure:
        """What functions of q are compiled for."""
        return structure_of(self.form, self.sites, self.factors, self.gaussians, self.node_sets, self.predictive_nodes)

    @property
    def numbers(self) -> tuple[Any, ...]:
        """Those of the program, of the maps that follow from them, and of the nodes."""
        maps = tuple(factor.numbers for factor in self.factors.values())
        predictive = None if self.predictive_nodes is None else self.predictive_nodes.numbers
        return self.form.numbers, maps, (tuple(nodes.numbers for nodes in self.node_sets), predictive)

    def with_numbers(self, numbers: tuple[Any, ...]) -> "MeanField":
        """The sites of the program with other numbers, in the maps and nodes as well."""
        form, maps, (nodes, predictive) = numbers
        factors = {
            name: factor.with_numbers(new) for (name, factor), new in zip(self.factors.items(), maps, strict=True)
        }
        sets = tuple(each.with_numbers(new) for each, new in zip(self.node_sets, nodes, strict=True))
        copy = dataclasses.replace(
            self,
            form=self.form.with_numbers(form),
            factors=factors,
            node_sets=sets,
            predictive_nodes=self.predictive_nodes and self.predictive_nodes.with_numbers(predictive),
        )
        return with_origin(copy, self)

    @property
    def full(self) -> tuple[str, ...]:
        """The sites with a full posterior."""
        return tuple(site.name for site in (*self.sites, *self.gaussians) if not site.is_point)

    @property
    def is_bayesian(self) -> bool:
        """Whether q of some site is a distribution, over which answers are averaged."""
        return bool(self.full)

    @functools.cached_property
    def by_name(self) -> dict[str, SitePosterior]:
        return {site.name: site for site in (*self.sites, *self.gaussians)}

    @property
    def locations(self) -> tuple[LocationSite, ...]:
        return tuple(site for site in self.sites if isinstance(site, LocationSite))

    @property
    def naturals(self) -> tuple[NaturalSite, ...]:
        return tuple(site for site in self.sites if isinstance(site, NaturalSite))

    @property
    def prior_factors(self) -> dict[str, ConjugateFactor]:
        """The priors in which a site with a q takes part, as value or through an argument."""
        local = self.form.program.local
        return {name: factor for name, factor in self.factors.items() if name not in local}

    def start(self, params: Params) -> Params:
        """q as its prior is at these values, or a Gaussian one about them, in place of the value of every site with a
        full posterior.
        """
        q, points = dict(params), dict(params)
        q |= {site.name: site.about(params[site.name]) for site in self.gaussians}
        arguments = self._arguments_at(points)
        for site in self.sites:
            if site.is_point:
                continue
            if self.factors[site.name].is_uncertain:
                # What it depends on comes before it, and stands at its mean by now: a draw may lie anywhere.
                arguments = self._arguments_at(points)
            prior = jax.tree.map(lambda value: jnp.asarray(value, jnp.result_type(float)), arguments[site.name])
            q[site.name] = site.from_prior(prior)
            points[site.name] = site.value(q[site.name])
        return q

    def points(self, params: Params) -> Params:
        """A value for every site: where q is a distribution, the one that stands for it (its mean)."""
        values = dict(params)
        for name, site in self.by_name.items():
            if isinstance(params[name], dict):
                values[name] = site.value(params[name])
        return values

    def at_node(self, params: Params, node_set: NodeSet, normals: Float[Array, " M"]) -> Params:
        """``points``, but for sites with a Gaussian q at a node."""
        return {
            **self.points(params),
            **{name: value for name, (value, _) in self._values(params, node_set, normals).items()},
        }

    def centre(self, params: Params) -> tuple[Params, dict[str, np.ndarray]]:
        """``points``, and the covariance of every location ``[C, D, D]``, compiled: step by step they take seconds."""
        return _centre(self, params) if self.by_name else (params, {})

    def centre_in_trace(self, params: Params) -> tuple[Params, dict[str, Array]]:
        """``centre``, as part of a larger computation."""
        locations = self.moments(params).locations
        return self.points(params), {name: location.covariance for name, location in locations.items()}

    def moments(self, params: Params) -> Moments:
        """What the densities need to know of q."""
        return self._moments(params, live(self._certain_of_moments)(params))

    def natural(self, params: Params, shifts: Mapping[str, Array]) -> NaturalParameters:
        """E_q[W] and E_q[c] over all columns."""
        return self._natural(self.moments(params), shifts)

    def log_prior(self, params: Params) -> Float[Array, ""]:
        """log p of the sites that are points, and E_q[log p] + H(q) of the others, nats."""
        return _total(self.terms(params))

    def evaluated(self, params: Params, shifts: Mapping[str, Array]) -> tuple[NaturalParameters, Float[Array, ""]]:
        """``natural`` and ``log_prior``, from one trace of the program and the same moments."""
        certain = live(self._certain)(params)
        moments = self._moments(params, certain)
        return self._natural(moments, shifts), _total(self._terms(params, certain, moments))

    def terms(self, params: Params) -> dict[str, PriorTerms]:
        """log p of a point, E_q[log p] and H(q) of a full posterior, nats, for every site (and factor) with a prior."""
        certain = live(self._certain)(params)
        return self._terms(params, certain, self._moments(params, certain))

    def expected_log_joint(self, params: Params, statistics: Statistics) -> dict[str, Float[Array, ""]]:
        """E_q[log p(site | its parents)] summed over the data, base measures left out, nats, for every site in the
        plate that has an exponential-family form.
        """
        naturals = densities(self.form, self.factors, self.moments(params), statistics.shifts)
        zeros = jax.tree.map(jnp.zeros_like, naturals)
        return {name: expected(self.form.assemble({**zeros, name: naturals[name]}), statistics) for name in naturals}

    def maximise(self, statistics: Statistics, params: Params) -> Params:
        """The best q of every site in turn: first locations, then what they may be tied to."""
        if not self.sites:
            return params
        moments = self._untied(params, live(self._certain_of_moments)(params))
        for site in self.locations:
            params = {**params, site.name: self._best_location(site, statistics, params, moments)}
            moments = moments.with_location(site.name, site.untied(params[site.name]))
        for site in self.naturals:
            params = {**params, site.name: self._best_natural(site, statistics, params, moments)}
            moments = moments.with_natural(site.name, site.statistics(params[site.name]))
        return params

    def location_slope(
        self, site: LocationSite, at: Location, statistics: Statistics, params: Params, moments: Moments
    ) -> Location:
        """The gradient of the expected log joint, in the location of one site."""

        def value(at: Location) -> Float[Array, ""]:
            return self._expected_following(site, statistics, params, moments.with_location(site.name, at))

        def pulled(moments: Moments) -> tuple[Float[Array, "C D"], Float[Array, "C D D"]]:
            prior = expected_location(self.factors[site.name], moments)
            assert prior is not None
            precision = self.prior_precision(site, moments)
            away = (prior.mean.reshape(at.mean.shape) - at.mean)[..., None]
            return jnp.matmul(precision, away)[..., 0], precision

        slope, (pull, precision) = jax.grad(value)(at), moments.averaged(site.name, pulled)
        return Location(slope.mean + pull, slope.covariance - 0.5 * precision)

    def _best_location(self, site: LocationSite, statistics: Statistics, params: Params, moments: Moments) -> Any:
        location = moments.locations[site.name]
        slope = self.location_slope(site, location, statistics, params, moments)
        # The expected log joint is a quadratic function of the location: one Newton step from its mean is the maximum.
        precision = -(slope.covariance + jnp.swapaxes(slope.covariance, -1, -2))
        covariance = inverse(precision)
        mean = location.mean + jnp.matmul(covariance, slope.mean[..., None])[..., 0]
        prior_precision = functools.partial(self.prior_precision, site, moments)
        return site.updated(Location(mean, covariance), precision, prior_precision, params[site.name])

    def _best_natural(self, site: NaturalSite, statistics: Statistics, params: Params, moments: Moments) -> Any:
        def value(expectations: Float[Array, "C U"]) -> Float[Array, ""]:
            given = moments.with_natural(site.name, expectations)
            # What is tied to this site has its entropy from it.
            children = [other for other in self.locations if site.name in self.factors[other.name].parents]
            entropies = [self._entropy(child, params, given) for child in children if child.is_tied]
            return self._expected_following(site, statistics, params, given) + sum(entropies, jnp.zeros(()))

        natural = prior_natural(self.factors[site.name], moments)
        return site.updated(natural + jax.grad(value)(moments.naturals[site.name]), params[site.name])

    def _expected_following(
        self, site: SitePosterior, statistics: Statistics, params: Params, moments: Moments
    ) -> Float[Array, ""]:
        """E_q of the log densities whose arguments follow from a site, but for constants, nats.

        Linear in the statistics of every site; of a location, in its mean and in the square of it plus the covariance.
        """
        total = jnp.zeros(())
        for term in self.form.terms:
            factor = self.factors.get(term.site)
            if factor is not None and site.name in factor.parents:
                density = expected_density(term, factor, moments, statistics.shifts)
                total = total + expected_term(self.form, statistics, term, density)
        for factor in self.prior_factors.values():
            if site.name in factor.parents:
                total = total + expected_log_prior(factor, params, moments)
        return total

    def _moments(self, params: Params, certain: Certain) -> Moments:
        moments = self._untied(params, certain)
        for site in self.locations:
            precision = functools.partial(self.prior_precision, site, moments)
            moments = moments.with_location(site.name, site.location(params[site.name], precision))
        return moments

    def _natural(self, moments: Moments, shifts: Mapping[str, Array]) -> NaturalParameters:
        return self.form.assemble(densities(self.form, self.factors, moments, shifts))

    def _terms(self, params: Params, certain: Certain, moments: Moments) -> dict[str, PriorTerms]:
        terms = {name: PriorTerms(value) for name, value in certain.log_priors.items()}
        for name, factor in self.prior_factors.items():
            terms[name] = PriorTerms(expected_log_prior(factor, params, moments))
        for site in self.sites:
            if not site.is_point:
                terms[site.name] = terms[site.name]._replace(entropy=self._entropy(site, params, moments))
        for site in self.gaussians:
            entropy = site.entropy(params[site.name], functools.partial(certain.log_volumes.__getitem__, site.name))
            terms[site.name] = terms[site.name]._replace(entropy=entropy)
        return terms

    def _arguments_at(self, points: Params) -> dict[str, Arguments]:
        program = self.form.program
        return self._arguments(program.enumerated_trace(points, program.spec.zeros(1)))

    def _arguments(self, trace: Mapping[str, dict[str, Any]]) -> dict[str, Arguments]:
        """The arguments of every density."""
        priors = {name: prior_arguments(trace[name], factor.view) for name, factor in self.prior_factors.items()}
        return {**self.form.arguments_in(trace), **priors}

    def _certain(self, params: Params) -> Certain:
        points = self.points(params)
        certain = Certain(*self._at(points), {}, {})
        for node_set in self.node_sets:
            weights = jnp.asarray(node_set.weights)

            def at(normals: Float[Array, " M"], node_set: NodeSet = node_set) -> tuple[Any, ...]:
                pairs = self._values(params, node_set, normals)
                values = {name: value for name, (value, _) in pairs.items()}
                return *self._at({**points, **values}), values, {name: volume for name, (_, volume) in pairs.items()}

            arguments, log_priors, values, volumes = jax.vmap(at)(jnp.asarray(node_set.nodes))
            for name in node_set.densities:
                if name in arguments:
                    certain.arguments[name] = arguments[name]
                    certain.nodes[name] = Nodes(weights, values.get(name))
                if name in log_priors:
                    certain.log_priors[name] = jnp.tensordot(
                        weights.astype(log_priors[name].dtype), log_priors[name], 1
                    )
                if name in volumes:
                    certain.log_volumes[name] = jnp.tensordot(weights.astype(volumes[name].dtype), volumes[name], 1)
        return certain

    def _values(
        self, params: Params, node_set: NodeSet, normals: Float[Array, " M"]
    ) -> dict[str, tuple[Float[Array, "..."], Float[Array, ""]]]:
        """Value and log volume of the sites with a Gaussian q at a node."""
        reaching = [site for site in self.gaussians if site.name in node_set.columns]
        return {site.name: site.at_node(params[site.name], normals[node_set.columns[site.name]]) for site in reaching}

    def _certain_of_moments(self, params: Params) -> Certain:
        return self._certain(params)._replace(log_priors={}, log_volumes={})

    def _at(self, points: Params) -> tuple[dict[str, Arguments], dict[str, Float[Array, ""]]]:
        """At values of the sites: the arguments of every density that do not come from the edges, and the log density
        of every site (and factor) in whose prior no q of a site with a conjugate prior takes part, nats.
        """
        program = self.form.program
        trace = program.enumerated_trace(points, program.spec.zeros(1))
        arguments = self._arguments(trace)
        arguments |= {name: factor.certain(arguments[name]) for name, factor in self.factors.items()}
        return arguments, program.log_priors(trace, besides=self.prior_factors)

    def _untied(self, params: Params, certain: Certain) -> Moments:
        """The moments that updates need: of a location without what follows from other sites."""
        naturals = {site.name: site.statistics(params[site.name]) for site in self.naturals}
        locations = {site.name: site.untied(params[site.name]) for site in self.locations}
        return Moments(certain.arguments, naturals, locations, certain.nodes, {})

    def prior_precision(self, site: LocationSite, moments: Moments) -> Float[Array, "C D D"]:
        """The expected precision in the prior of a location."""
        factor = self.factors[site.name]

        def at(moments: Moments) -> Float[Array, "C D D"]:
            return site.cell_matrices(site.view.precision(expected_arguments(factor, moments)))

        return moments.averaged(site.name, at)

    def _entropy(self, site: SitePosterior, params: Params, moments: Moments) -> Float[Array, ""]:
        """H(q) of all cells of a site; of a tied one that given what it is tied to, on average, nats."""

        def expectations() -> Array:
            if site.is_location:
                return expected_arguments(self.factors[site.name], moments)
            return moments.naturals[site.name]

        return site.entropy(params[site.name], expectations)


def _total(terms: Mapping[str, PriorTerms]) -> Float[Array, ""]:
    return sum((term.total for term in terms.values()), jnp.zeros(()))


@concrete
def _centre(mean_field: MeanField, params: Params) -> tuple[Params, dict[str, Array]]:
    return mean_field.centre_in_trace(params)


def objective(mean_field: "MeanField", statistics: Statistics, params: Params) -> Float[Array, ""]:
    """What an M-step maximises, given the statistics: expected log joint, log prior and entropy of the parameters."""
    natural, log_prior = mean_field.evaluated(params, statistics.shifts)
    return expected(natural, statistics) + log_prior
