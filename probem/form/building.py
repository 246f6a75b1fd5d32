"""From a program to its exponential form: which sites have one, with the same arguments for every row."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped
from numpyro.distributions import constraints

from probem import exponential
from probem.exponential import Trials
from probem.form.companions import Companion, Covariates, Exposure, Size
from probem.form.form import ExponentialForm
from probem.form.layout import batch_of, located, mask_of, untransformed
from probem.form.linearity import find_predictor, is_known, is_one
from probem.form.lookups import Lookup
from probem.form.presence import Presence
from probem.form.sites import ExponentialSite, lookup_of
from probem.program.program import Program
from probem.program.support_rules import unmasked


def exponential_form(program: Program, gaps: bool = False, linear: bool = True, points: bool = True) -> ExponentialForm:
    """Sort the sites of a program: which have an exponential-family form with the same arguments for every row, but for
    a location that is linear in parameters, and for arguments that data look up among parameters.

    ``gaps``: values may be missing. Unless ``linear`` no location is a linear predictor. ``points``: no parameter has a
    full posterior, so that shares that are looked up have steps of their own over the rows where cells are many.
    """

    def look(sites: dict[str, dict[str, Any]]) -> list[_Seen | None]:
        return [_seen(program, sites[name], name in assignments) for name in program.local]

    assignments = {assignment.name for assignment in program.assignments}
    seen = dict(zip(program.local, program.abstract_trace(look, _LOOKING_ROWS), strict=True))
    terms = {name: None if each is None else _term(program, each, linear, points) for name, each in seen.items()}
    return ExponentialForm(
        program,
        tuple(
            dataclasses.replace(term, gaps=gaps and not term.is_assignment)
            for term in terms.values()
            if term is not None
        ),
        tuple(name for name, term in terms.items() if term is None),
        gaps,
    )


# Rows of the trace that arguments are looked at in: one that differs from row to row has an axis of this size.
_LOOKING_ROWS = 2


class _Seen(NamedTuple):
    """A site that may have an exponential-family form, which arguments differ from row to row, and whether there is a
    mask around it.
    """

    term: ExponentialSite
    by_row: frozenset[str]
    is_masked: bool


def _seen(program: Program, site: dict[str, Any], is_assignment: bool) -> _Seen | None:
    base: Any
    base, transforms = untransformed(site["fn"])
    view = Trials.of(base) if type(base) in Trials.distributions else exponential.view(base)
    if view is None or site["scale"] is not None or (transforms and not view.is_location):
        return None
    batch, rows_axis = batch_of(site["fn"], base, program)

    def differs(argument: str) -> bool:
        shape = jnp.shape(getattr(base, argument))
        batch = shape[: len(shape) - view.argument_event_ndims(argument)]
        return len(batch) >= -rows_axis and batch[rows_axis] != 1

    by_row = frozenset(argument for argument in view.argument_names if differs(argument))
    is_masked = bool(unmasked(site["fn"])[1])
    if is_masked and is_assignment:
        return None
    enumerated = len(program.assignments)
    left = batch[enumerated : len(batch) + rows_axis]
    if any(size != 1 for size in left):
        return None  # a plate to the left of the rows
    right = batch[len(batch) + rows_axis + 1 :]
    value_shape = jnp.shape(site["value"])
    expected = (_LOOKING_ROWS, *right, *base.event_shape)
    if not is_assignment and value_shape[len(value_shape) - len(expected) :] != expected:
        return None  # an observation that is broadcast
    copies, event = math.prod(right), tuple(base.event_shape)
    size = 0 if isinstance(view, Trials) else _size(view, event)
    # Those of counts of trials end at the number of trials, which data may say.
    support = constraints.nonnegative_integer if isinstance(view, _OF_TRIALS) else base.support
    term = ExponentialSite(site["name"], view, copies, event, size, is_assignment, support, transforms=transforms)
    return _Seen(term, by_row, is_masked)


# The most statistics of a site whose arguments are looked up, in all cells together; and of shares which, as points,
# are at their maximum after one pass over the rows without them (``m_step/gradient``), at a cost that knows no cells.
_MOST_COLUMNS, _MOST_OF_SHARES = 4096, 256
# Views of counts of a number of trials, which has to be known.
_OF_TRIALS = (Trials, exponential.Multinomial)
# The argument that may follow from data and parameters, linearly.
_PREDICTED = {exponential.Normal: "loc", exponential.Poisson: "rate"}


def _size(view: exponential.ExponentialFamily, event_shape: tuple[int, ...]) -> int:
    """The number of statistics of one event."""
    event = jax.ShapeDtypeStruct(event_shape, jnp.result_type(float))
    return jax.eval_shape(view.statistics, event).shape[-1]


def _term(program: Program, seen: _Seen, linear: bool, points: bool) -> ExponentialSite | None:
    """The site with its exponential-family form, if it has one."""
    term = seen.term
    if isinstance(term.view, _OF_TRIALS) and not is_known(program, functools.partial(_size_of, program, term)):
        return None
    if isinstance(term.view, Trials):
        term = _beside(term, term.view, Size(), 1)
    mask = functools.partial(_mask_of, program, term)
    is_masked = seen.is_masked and not is_one(program, mask)
    if is_masked and not is_known(program, mask):
        return None
    by_data = _by_data(program, term, seen.by_row, linear) if seen.by_row else (term, None)
    if by_data is None:
        return None
    term, lookup = by_data
    if lookup is not None:
        of_shares = term.is_assignment or isinstance(term.view, exponential.Categorical)
        most = _MOST_OF_SHARES if points and of_shares else _MOST_COLUMNS
        if term.copies * lookup.num_cells * (term.column_statistics + 1) > most:
            return None
        term = dataclasses.replace(term, copies=term.copies * lookup.num_cells)
    if is_masked or lookup is not None:
        term = dataclasses.replace(term, presence=Presence(is_masked, lookup))
    return term


def _by_data(
    program: Program, term: ExponentialSite, by_row: frozenset[str], linear: bool
) -> tuple[ExponentialSite, Lookup | None] | None:
    """The site, and how data look up the arguments that differ from row to row, but for a linear predictor that the
    site may be around. None if data decide them otherwise.
    """
    by_location = by_row == {_PREDICTED.get(type(term.view))}
    if not by_location and (lookup := lookup_of(program, term)) is not None:
        return term, lookup
    rest = by_row
    if linear and (predicted := _predicted(program, term, by_row)) is not None:
        term, rest = predicted
        if not rest:
            return term, None
    # What is left beside a predictor, or a location that is no predictor.
    lookup = lookup_of(program, term) if by_location or rest != by_row else None
    return None if lookup is None else (term, lookup)


def _size_of(program: Program, term: ExponentialSite, sites: Mapping[str, dict[str, Any]]) -> Float[Array, "K 1 C"]:
    return located(program, sites[term.site], term.copies, program.enumeration_shape, Size.argument)


def _mask_of(program: Program, term: ExponentialSite, sites: Mapping[str, dict[str, Any]]) -> Shaped[Array, "K 1 C"]:
    return mask_of(program, sites[term.site], term.copies, program.enumeration_shape)


def _predicted(
    program: Program, term: ExponentialSite, by_row: frozenset[str]
) -> tuple[ExponentialSite, frozenset[str]] | None:
    """The site around its linear predictor, if it has one, and which arguments differ from row to row beside that."""
    argument = _PREDICTED.get(type(term.view))
    found = find_predictor(program, term.site, term.copies, argument) if argument in by_row else None
    if found is None:
        return None
    predictor, has_intercept = found
    if isinstance(term.view, exponential.Normal):
        view = exponential.LinearNormal(predictor.num_covariates, has_intercept)
        term = _beside(term, view, Covariates(predictor), predictor.num_covariates)
    elif has_intercept or predictor.num_covariates != 1 or not predictor.starts_at_zero or not predictor.free.all():
        return None
    else:
        term = _beside(term, exponential.ExposedPoisson(), Exposure(predictor), 1)
    return term, by_row - {argument}


def _beside(
    term: ExponentialSite, view: exponential.ExponentialFamily, companion: Companion, count: int
) -> ExponentialSite:
    """The site with so many numbers of the data in its events."""
    event = (1 + count,)
    size = _size(view, event)
    return dataclasses.replace(term, view=view, event_shape=event, num_statistics=size, companion=companion)
