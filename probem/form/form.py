"""The exponential-family form of a program: log p(x_n, t_n = k) = Phi(x_n) W + c, one matrix product.

Each site with a view contributes its statistics as columns of Phi, its natural parameters as rows of W, and minus its
log normaliser to c. An assignment site is the same thing with its own value as the observation: its statistics do not
depend on the row, so it lands in c. A covariate in the location of a normal distribution is a part of the observation
(``predictor.py``). An argument that data look up has a copy of the event for each of its values, of which a row has one
(``presence.py``); an event under a mask is not there. What a program does beyond that (a covariate in another argument,
a distribution without a view) stays on the generic path and is added to the table row by row.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from probem import exponential
from probem.data.observations import restore_gaps
from probem.form.centring import centred_arguments, centred_events
from probem.form.companions import Covariates
from probem.form.sites import ExponentialSite, event_observed, presence_of, site_arguments, unmasked_events
from probem.jit.compilation import concrete
from probem.jit.live import live
from probem.jit.structure import Structure, shared, structure_of, with_origin
from probem.program.program import Program
from probem.program.sites import Params


class NaturalParameters(NamedTuple):
    """``weight`` over all columns, ``offset``, ``level``: the table is Phi weight' + offset + level.

    ``level`` holds the constants that all components share. Beside them, the differences between components of rows
    that are small in their unit would be lost to rounding, and with them the assignments.
    """

    weight: Float[Array, "K S"]
    offset: Float[Array, " K"]
    level: Float[Array, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class ExponentialForm:
    """The program with its sites sorted: those in exponential-family form, and the others.

    ``varying`` marks the columns whose natural parameter differs between components. The others (a tied covariance, a
    fixed one) multiply statistics that need only their total over the data, so the pass never forms them.
    ``gaps``: values may be missing. ``sparse_rows``: statistics are zero where the data is, and sums over what is not;
    their origin is zero.
    """

    program: Program
    terms: tuple[ExponentialSite, ...]
    generic: tuple[str, ...]
    gaps: bool = False
    sparse_rows: bool = False

    @shared
    def structure(self) -> Structure:
        """What functions of the form are compiled for."""
        return structure_of(self.program, self.terms, self.generic, self.gaps, self.sparse_rows, self.varying)

    @property
    def partial(self) -> bool:
        """Whether some events may not be there."""
        return any(term.partial for term in self.terms)

    @property
    def numbers(self) -> tuple[Any, ...]:
        """Those of the program."""
        return self.program.numbers

    def with_numbers(self, numbers: tuple[Any, ...]) -> "ExponentialForm":
        """The form of the program with other numbers; which columns vary stays."""
        return self.of(self.program.with_numbers(numbers)) if numbers else self

    def of(self, program: Program) -> "ExponentialForm":
        """The form of a copy of the program."""
        return with_origin(dataclasses.replace(self, program=program), self)

    @property
    def completing(self) -> tuple[ExponentialSite, ...]:
        """The terms of which an event may be observed in part."""
        return tuple(term for term in self.data_terms if term.completes)

    @property
    def predicted(self) -> tuple[ExponentialSite, ...]:
        """The terms around a linear predictor."""
        return tuple(term for term in self.accompanied if isinstance(term.companion, Covariates))

    @property
    def accompanied(self) -> tuple[ExponentialSite, ...]:
        """The terms whose events are more than a value."""
        return tuple(term for term in self.data_terms if term.companion is not None)

    def columns(self, term: ExponentialSite) -> slice:
        """Where the columns of a term are."""
        start = 0
        for other in self.column_terms:
            if other.site == term.site:
                break
            start += other.num_columns
        return slice(start, start + term.num_columns)

    def natural_columns(self, term: ExponentialSite) -> slice:
        """Where the natural parameters of a term are among all columns."""
        first = self.columns(term).start
        return slice(first, first + term.copies * term.column_statistics)

    @shared
    def indicators(self) -> Int[np.ndarray, " S"] | None:
        """The column that says whether its event is there, for each column, -1 where it always is; None if all are."""
        if not self.partial:
            return None
        indicators = np.full(self.num_columns, -1)
        for term in self.column_terms:
            if term.partial:
                columns = self.columns(term)
                first = columns.stop - term.copies
                copies = np.arange(term.copies)
                indicators[columns] = first + np.concatenate([np.repeat(copies, term.column_statistics), copies])
        return indicators

    def observed(self, data: tuple[Any, ...], missing: Any) -> dict[str, Bool[Array, "n _ ..."]]:
        """Which entries are there of every event that may not be, ``[n, C, *event]``; of an assignment ``[n, C]``."""
        values = self.program.observations(data if missing is None else restore_gaps(data, missing))
        num_rows = jax.tree.leaves(data)[0].shape[0]
        observed = {}
        for term in self.column_terms:
            here = jnp.ones((num_rows, 1, *(1,) * len(term.event_shape)), bool)
            if term.gaps:
                here = ~jnp.isnan(self._values(term, values[term.site]))
                here = here.reshape(*here.shape, *(1,) * (2 + len(term.event_shape) - here.ndim))
                here = jnp.repeat(here, term.num_cells, axis=1)
            if term.presence is not None:
                present = presence_of(self.program, term, data)
                here = here & present.reshape(*present.shape, *(1,) * len(term.event_shape))
            observed[term.site] = jnp.broadcast_to(here, (num_rows, term.copies, *term.event_shape))
        return observed

    def generic_observed(self, data: tuple[Any, ...], missing: Any) -> dict[str, Bool[Array, "..."]]:
        """Which entries of the value of every other observed site were observed, as the program has it."""
        values = self.program.observations(restore_gaps(data, missing))
        return {name: ~jnp.isnan(value) for name, value in values.items() if name in self.generic}

    @property
    def data_terms(self) -> tuple[ExponentialSite, ...]:
        """The terms of observed sites."""
        return tuple(term for term in self.terms if not term.is_assignment)

    @property
    def column_terms(self) -> tuple[ExponentialSite, ...]:
        """The terms that differ from row to row: beside those of observed sites, assignments whose probabilities are
        looked up.
        """
        return tuple(term for term in self.terms if not term.is_assignment or term.partial)

    @property
    def num_columns(self) -> int:
        return sum(term.num_columns for term in self.column_terms)

    def shifts(self, means: Mapping[str, Array]) -> dict[str, Array]:
        """The origin of every observed site: the mean of the data for location families, zero for the others."""
        return {
            term.site: means[term.site] if term.view.is_location else jnp.zeros_like(means[term.site])
            for term in self.data_terms
        }

    def features(
        self,
        data: tuple[Any, ...],
        shifts: Mapping[str, Array],
        missing: Any = None,
        known: Mapping[str, Array] | None = None,
    ) -> Float[Array, "n S"]:
        """Phi: the statistics of every observed site side by side; ``known`` are events of some.

        Those of a term that completes are left to ``completion``.
        """
        events = self.events(data, known=known)
        observed = self.observed(data, missing) if self.partial else {}
        num_rows = jax.tree.leaves(data)[0].shape[0]
        columns = []
        for term in self.column_terms:
            if term.is_assignment:
                columns.append(observed[term.site].astype(jnp.result_type(float)))
                continue
            statistics = term.view.statistics(centred_events(term, events[term.site], shifts))
            if term.partial:
                here = event_observed(observed[term.site], term)
                statistics = jnp.where(here[:, :, None] & (not term.completes), statistics, 0.0)
                columns += [statistics.reshape(num_rows, -1), here.astype(statistics.dtype)]
            else:
                columns.append(statistics.reshape(num_rows, -1))
        return jnp.concatenate(columns, 1) if columns else jnp.zeros((num_rows, 0))

    def log_base_measure(
        self, data: tuple[Any, ...], missing: Any = None, known: Mapping[str, Array] | None = None
    ) -> Float[Array, "n T"]:
        """h(x_n) of every observed site in exponential-family form, nats; ``known`` are events of some."""
        events = self.events(data, known=known)
        observed = self.observed(data, missing) if self.partial else {}
        num_rows = jax.tree.leaves(data)[0].shape[0]
        columns = []
        for term in self.data_terms:
            measures = term.view.log_base_measure(events[term.site]) + term.log_jacobian(events[term.site])
            if term.partial:
                measures = jnp.where(event_observed(observed[term.site], term), measures, 0.0)
            columns.append(measures.sum(1))
        return jnp.stack(columns, 1) if columns else jnp.zeros((num_rows, 0))

    def events(
        self,
        data: tuple[Any, ...],
        terms: tuple[ExponentialSite, ...] | None = None,
        known: Mapping[str, Array] | None = None,
    ) -> dict[str, Float[Array, "n _ ..."]]:
        """The events of every observed site, or of some ``terms``, ``[n, C, *event]`` in C copies: its value, and the
        what data say beside it. Those that are ``known`` already stay.
        """
        terms = self.data_terms if terms is None else terms
        events = {} if known is None else dict(known)
        observations = self.program.observations(data) if any(term.site not in events for term in terms) else {}
        for term in terms:
            if term.site in events:
                continue
            values = self._values(term, observations[term.site])
            if term.companion is not None:
                values = term.companion.events(self.program, term.site, values, data)
            events[term.site] = jnp.repeat(values, term.num_cells, axis=1)
        return events

    def _values(self, term: ExponentialSite, value: Shaped[Array, "..."]) -> Float[Array, "n C ..."]:
        """The value of a site as ``[n, C, *event]``, in one cell."""
        value = jnp.moveaxis(value, value.ndim + self.rows_axis(term.site), 0)
        value = value.reshape(value.shape[0], term.copies // term.num_cells, *term.value_shape)
        return term.untransformed(
            value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(jnp.result_type(float))
        )

    def rows_axis(self, site: str) -> int:
        """The axis of the rows in the value of a site, counted from the last."""
        return self.program.plate_dim - self.program.event_ndims[site]

    def rows(self, data: tuple[Any, ...]) -> Float[Array, "n F"]:
        """Every observed site flattened, side by side; NaN where the data has it, and under a mask."""
        num_rows = jax.tree.leaves(data)[0].shape[0]
        masked = {term.site: term for term in self.data_terms if term.is_masked}
        columns = []
        for name, value in self.program.observations(data).items():
            flat = self.flat(name, value, num_rows).astype(jnp.result_type(float))
            if name in masked:
                here = unmasked_events(self.program, masked[name], data)
                flat = jnp.where(here[:, :, None], flat.reshape(*here.shape, -1), jnp.nan).reshape(flat.shape)
            columns.append(flat)
        return jnp.concatenate(columns, 1)

    @property
    def has_holes(self) -> bool:
        """Whether ``rows`` may be NaN."""
        return self.gaps or any(term.is_masked for term in self.data_terms)

    def flat(self, site: str, value: Shaped[Array, "..."], num_rows: int) -> Shaped[Array, "n F"]:
        """The value of a site, one row after the other."""
        return jnp.moveaxis(value, value.ndim + self.rows_axis(site), 0).reshape(num_rows, -1)

    def arguments(self, params: Mapping[str, Array]) -> dict[str, exponential.Arguments]:
        """For every term, the arguments of its distribution, each ``[K, C, *argument event]``."""

        def look(params: Mapping[str, Array]) -> dict[str, exponential.Arguments]:
            return self.arguments_in(self.program.enumerated_trace(params, self.program.spec.zeros(1)))

        return live(look)(params)

    def arguments_in(self, sites: Mapping[str, dict[str, Any]]) -> dict[str, exponential.Arguments]:
        """``arguments`` from an enumerated trace of one row."""
        return {term.site: site_arguments(self.program, sites, term) for term in self.terms}

    def natural(self, params: Mapping[str, Array], shifts: Mapping[str, Array]) -> NaturalParameters:
        """W and c at these parameters."""
        arguments = self.arguments(params)
        naturals = {}
        for term in self.terms:
            centred = centred_arguments(term, arguments[term.site], shifts)
            naturals[term.site] = term.view.natural_and_log_normaliser(centred)
        return self.assemble(naturals)

    def assemble(self, naturals: Mapping[str, tuple[Float[Array, "K _ _"], Float[Array, "K _"]]]) -> NaturalParameters:
        """W and c from eta ``[K, C, S]`` and A ``[K, C]`` of every term."""
        offset, level = jnp.zeros(self.program.num_components), jnp.zeros(())
        weights = []
        for term in self.terms:
            natural, log_normaliser = naturals[term.site]
            if not term.partial:
                rest, shared = _apart(-log_normaliser.sum(1))
                offset, level = offset + rest, level + shared
            if term.is_assignment:
                # 0 * -inf: a component of weight zero is impossible, not undefined.
                statistics = self.assignment_statistics(term)
                inner = jnp.where(statistics > 0, natural * statistics, 0.0).sum(2)
                if term.partial:
                    weights.append(inner - log_normaliser)
                    continue
                rest, shared = _apart(inner.sum(1))
                offset, level = offset + rest, level + shared
            else:
                weights.append(natural.reshape(self.program.num_components, -1))
                if term.partial:
                    weights.append(jnp.broadcast_to(-log_normaliser, (self.program.num_components, term.copies)))
        empty = jnp.zeros((self.program.num_components, 0))
        return NaturalParameters(jnp.concatenate(weights, 1) if weights else empty, offset, level)

    def assignment_statistics(self, term: ExponentialSite) -> Float[Array, "K 1 S"]:
        """T(t) of an assignment site at each joint component."""
        axis = [site.name for site in self.program.assignments].index(term.site)
        index = np.indices(self.program.enumeration_shape)[axis].reshape(-1)
        values = np.asarray(self.program.assignments[axis].support)[index]
        return term.view.statistics(jnp.asarray(values)[:, None])

    @shared
    def varying(self) -> Bool[np.ndarray, " S"]:
        """Static mask of the columns whose natural parameter depends on the component."""
        varying = np.zeros(self.num_columns, bool)
        for sample in self.samples:
            # A large draw may overflow under both, which says nothing; what is impossible under one differs.
            first, others = sample.weight[:1], sample.weight
            varying |= ((others != first) & (np.isfinite(others) | np.isfinite(first))).any(0)
        if self.indicators is not None:
            varying[self.indicators] = True
        for term in self.completing:
            # What is filled in depends on the component, and on the parameters.
            varying[self.columns(term)] = True
        return varying

    @shared
    def samples(self) -> tuple["FormSample", ...]:
        """The form at random parameter values, the last of them large: what its structure is read off."""
        draws = [self.program.random_params(seed, scale) for seed, scale in ((11, 1.0), (12, 1.0), (13, 3.0))]
        sorted_sites = (self.terms, self.generic, self.gaps)
        return tuple(FormSample(params, *_sample(self.program, params, sorted_sites=sorted_sites)) for params in draws)


@concrete
def _sample(
    program: Program, params: Params, *, sorted_sites: tuple[tuple[ExponentialSite, ...], tuple[str, ...], bool]
) -> tuple[dict[str, exponential.Arguments], Float[Array, "K S"]]:
    """Arguments and natural parameters of a form of which it is not known yet which columns vary."""
    form = ExponentialForm(program, *sorted_sites)
    shifts = {term.site: jnp.full(term.event_shape, 0.3) for term in form.data_terms}
    return form.arguments(params), form.natural(params, shifts).weight


class FormSample(NamedTuple):
    """Random parameters, and the arguments and natural parameters of the program there."""

    params: dict[str, np.ndarray]
    arguments: dict[str, dict[str, np.ndarray]]
    weight: Float[np.ndarray, "K S"]


def _apart(values: Float[Array, " K"]) -> tuple[Float[Array, " K"], Float[Array, ""]]:
    """Values less the number that all of them are, and that number; zero if they differ.

    Derivatives are those of the differences.
    """
    same = (values == values[:1]).all() & jnp.isfinite(values[0])
    shared = jax.lax.stop_gradient(jnp.where(same, values[0], 0.0))
    return values - shared, shared
