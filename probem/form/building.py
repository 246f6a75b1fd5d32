"""From a program to its exponential form: which sites have one, with the same arguments for every row."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from probem import exponential
from probem.exponential import Trials
from probem.form.companions import Companion, Covariates, Exposure, Size
from probem.form.form import ExponentialForm
from probem.form.layout import batch_of, untransformed
from probem.form.linearity import find_predictor, is_known
from probem.form.sites import ExponentialSite
from probem.program.program import Program


def exponential_form(program: Program, partial: bool = False, linear: bool = True) -> ExponentialForm:
    """Sort the sites of a program: which have an exponential-family form with the same arguments for every row, but for
    a location that is linear in parameters.

    ``partial``: values may be missing. Unless ``linear`` no location may differ from row to row.
    """

    def look(sites: dict[str, dict[str, Any]]) -> list[_Seen | None]:
        return [_seen(program, sites[name], name, name in assignments) for name in program.local]

    assignments = {assignment.name for assignment in program.assignments}
    seen = dict(zip(program.local, program.abstract_trace(look, _LOOKING_ROWS), strict=True))
    terms = {name: None if each is None else _term(program, each, linear) for name, each in seen.items()}
    return ExponentialForm(
        program,
        tuple(
            dataclasses.replace(term, partial=partial and not term.is_assignment)
            for term in terms.values()
            if term is not None
        ),
        tuple(name for name, term in terms.items() if term is None),
        partial,
    )


# Rows of the trace that arguments are looked at in: one that differs from row to row has an axis of this size.
_LOOKING_ROWS = 2


class _Seen(NamedTuple):
    """A site that may have an exponential-family form: its distribution, and which arguments differ from row to row."""

    term: ExponentialSite
    distribution: Any
    by_row: frozenset[str]


def _seen(program: Program, site: dict[str, Any], name: str, is_assignment: bool) -> _Seen | None:
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
    if by_row and (is_assignment or by_row != {_PREDICTED.get(type(view))}):
        return None  # an argument that differs from row to row
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
    of_trials = isinstance(view, Trials)
    size = 0 if of_trials else _size(view, event)
    # That of a binomial distribution ends at the number of trials, which the data say.
    support = constraints.nonnegative_integer if of_trials else base.support
    term = ExponentialSite(name, view, copies, event, size, is_assignment, support, transforms=transforms)
    return _Seen(term, base, by_row)


# The argument that may follow from data and parameters, linearly.
_PREDICTED = {exponential.Normal: "loc", exponential.Poisson: "rate"}


def _size(view: exponential.ExponentialFamily, event_shape: tuple[int, ...]) -> int:
    """The number of statistics of one event."""
    event = jax.ShapeDtypeStruct(event_shape, jnp.result_type(float))
    return jax.eval_shape(view.statistics, event).shape[-1]


def _term(program: Program, seen: _Seen, linear: bool) -> ExponentialSite | None:
    """The site with its exponential-family form, if it has one."""
    term = seen.term
    if isinstance(term.view, Trials):
        known = is_known(program, term.site, term.copies, "total_count")
        return _beside(term, term.view, Size(), 1) if known and not seen.by_row else None
    if not seen.by_row:
        return term
    found = find_predictor(program, term.site, term.copies, *seen.by_row) if linear else None
    if found is None:
        return None
    predictor, has_intercept = found
    if isinstance(term.view, exponential.Normal):
        view = exponential.LinearNormal(predictor.num_covariates, has_intercept)
        return _beside(term, view, Covariates(predictor), predictor.num_covariates)
    if has_intercept or predictor.num_covariates != 1 or not predictor.starts_at_zero or not predictor.free.all():
        return None
    return _beside(term, exponential.ExposedPoisson(), Exposure(predictor), 1)


def _beside(
    term: ExponentialSite, view: exponential.ExponentialFamily, companion: Companion, count: int
) -> ExponentialSite:
    """The site with so many numbers of the data in its events."""
    event = (1 + count,)
    size = _size(view, event)
    return dataclasses.replace(term, view=view, event_shape=event, num_statistics=size, companion=companion)
