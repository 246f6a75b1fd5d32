"""Sites with an exponential-family form: where their columns are, and the arguments of their distributions."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform

from probem import exponential
from probem.form.companions import Companion
from probem.form.layout import batch_of, untransformed
from probem.form.lookups import Lookup, find_lookup
from probem.form.presence import Presence
from probem.program.program import Program


@dataclasses.dataclass(frozen=True)
class ExponentialSite:
    """One site in exponential-family form: ``copies`` independent events of ``num_statistics`` each for every row.

    Values may be missing (``gaps``), and the program may say which events there are (``presence``). Each event then has
    one more column, which is 1 where it is there and carries minus its log normaliser, so that an event that is not
    drops out of every sum. With a ``companion`` an event is a value and what data say beside it. What was observed is
    an event after ``transforms`` of each number, the first to apply first: the logarithm of a log-normal value is
    normal.
    """

    site: str
    view: exponential.ExponentialFamily
    copies: int
    event_shape: tuple[int, ...]
    num_statistics: int
    is_assignment: bool
    support: constraints.Constraint | None
    gaps: bool = False
    companion: Companion | None = None
    transforms: tuple[type[Transform], ...] = ()
    presence: Presence | None = None

    @property
    def partial(self) -> bool:
        """Whether some events may not be there."""
        return self.gaps or self.presence is not None

    @property
    def num_cells(self) -> int:
        """How many copies stand for each event, of which a row has one at most."""
        return 1 if self.presence is None else self.presence.num_cells

    @property
    def is_masked(self) -> bool:
        """Whether the program has a mask that some rows are under."""
        return self.presence is not None and self.presence.is_masked

    @property
    def takes_noise(self) -> bool:
        """Whether noise that is added to values is added to the events of a location family."""
        return self.view.is_location and not self.transforms

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of one event as it is observed: what a companion adds to it is known."""
        return self.event_shape if self.companion is None else ()

    def untransformed(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The events of values, each by itself."""
        for transform in reversed(self.transforms):
            value = jnp.asarray(transform()._inverse(value))
        return value

    def log_jacobian(self, events: Float[Array, "n C *event"]) -> Float[Array, "n C"] | float:
        """log |d event / d value|, nats: what a density of events lacks of that of values."""
        if not self.transforms:
            return 0.0
        at = events if self.companion is None else events[..., 0]
        total = jnp.zeros(at.shape, at.dtype)
        for transform in self.transforms:
            after = jnp.asarray(transform()(at))
            total, at = total - jnp.asarray(transform().log_abs_det_jacobian(at, after)), after
        return total

    @property
    def num_columns(self) -> int:
        return self.copies * (self.column_statistics + self.partial)

    @property
    def column_statistics(self) -> int:
        """The statistics of an event that differ from row to row; an assignment has the same in all."""
        return 0 if self.is_assignment else self.num_statistics

    @property
    def completes(self) -> bool:
        """Whether an event may be observed in part, and has the rest filled in by its conditional moments."""
        return self.gaps and self.view.is_location and math.prod(self.value_shape) > 1


def event_observed(observed: Bool[Array, "n C ..."], term: ExponentialSite) -> Bool[Array, "n C"]:
    """Whether anything of an event was observed."""
    return observed.reshape(observed.shape[0], term.copies, -1).any(-1)


def site_arguments(
    program: Program, sites: Mapping[str, dict[str, Any]], term: ExponentialSite
) -> exponential.Arguments:
    """The arguments of a site in an enumerated trace of one row, each ``[K, C, *argument event]``."""
    if term.presence is None or term.presence.lookup is None:
        return _of_row(term, program, sites)
    params = {each.name: sites[each.name]["value"] for each in program.globals}
    return term.presence.arguments(functools.partial(_of_row, term), program, params)


def presence_of(program: Program, term: ExponentialSite, data: tuple[Any, ...]) -> Bool[Array, "n C"]:
    """Which events of every row there are, as the program says."""
    assert term.presence is not None
    copies = term.copies // term.num_cells
    return term.presence.here(functools.partial(_of_row, term), program, term.site, copies, data)


def unmasked_events(program: Program, term: ExponentialSite, data: tuple[Any, ...]) -> Bool[Array, "n C"]:
    """Which events of every row are under no mask, in one cell."""
    assert term.presence is not None
    copies = term.copies // term.num_cells
    mask = dataclasses.replace(term.presence, lookup=None)
    return mask.here(functools.partial(_of_row, term), program, term.site, copies, data)


def in_cells(program: Program, term: ExponentialSite, data: tuple[Any, ...]) -> Bool[Array, "n C"]:
    """Which copies are in the cell of their row, under a mask or not."""
    assert term.presence is not None
    cells = dataclasses.replace(term.presence, is_masked=False)
    copies = term.copies // term.num_cells
    return cells.here(functools.partial(_of_row, term), program, term.site, copies, data)


def lookup_of(program: Program, term: ExponentialSite) -> Lookup | None:
    """How data look up the arguments of a site."""
    return find_lookup(functools.partial(_of_row, term), program)


def _of_row(term: ExponentialSite, program: Program, sites: Mapping[str, dict[str, Any]]) -> exponential.Arguments:
    """The arguments of one row, of every copy in its cell."""
    site = sites[term.site]
    base, _ = untransformed(site["fn"])
    batch, rows_axis = batch_of(site["fn"], base, program)
    shape = list(batch)
    shape[rows_axis] = 1
    shape[: len(program.assignments)] = program.enumeration_shape[::-1]
    arguments = {} if term.companion is None else term.companion.arguments(sites)
    for name in term.view.argument_names:
        if name in arguments:
            continue
        value = jnp.asarray(getattr(base, name))
        event = value.shape[value.ndim - term.view.argument_event_ndims(name) :]
        value = jnp.broadcast_to(value, (*shape, *event))
        # Enumerated axes stand last assignment first; the joint index is in row-major order of the first.
        enumerated = len(program.assignments)
        value = value.transpose(*range(enumerated)[::-1], *range(enumerated, value.ndim))
        arguments[name] = value.reshape(program.num_components, term.copies // term.num_cells, *event)
    return arguments
