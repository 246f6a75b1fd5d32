"""From a program to its exponential form: which sites have one, with the same arguments for every row."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from probem import exponential
from probem.form.form import ExponentialForm
from probem.form.layout import batch_of, untransformed
from probem.form.linearity import find_predictor
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
    """A site that may have an exponential-family form, ``by_row`` if its location differs from row to row."""

    term: ExponentialSite
    by_row: bool


def _seen(program: Program, site: dict[str, Any], name: str, is_assignment: bool) -> _Seen | None:
    base: Any
    base, transforms = untransformed(site["fn"])
    view = exponential.view(base)
    if view is None or site["scale"] is not None or (transforms and not view.is_location):
        return None
    batch, rows_axis = batch_of(site["fn"], base, program)

    def differs(shape: tuple[int, ...]) -> bool:
        return len(shape) >= -rows_axis and shape[rows_axis] != 1

    by_row = differs(base.batch_shape)
    if by_row and (is_assignment or not isinstance(view, exponential.Normal) or differs(jnp.shape(base.scale))):
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
    term = ExponentialSite(
        name, view, copies, event, _size(view, event), is_assignment, base.support, transforms=transforms
    )
    return _Seen(term, by_row)


def _size(view: exponential.ExponentialFamily, event_shape: tuple[int, ...]) -> int:
    """The number of statistics of one event."""
    event = jax.ShapeDtypeStruct(event_shape, jnp.result_type(float))
    return jax.eval_shape(view.statistics, event).shape[-1]


def _term(program: Program, seen: _Seen, linear: bool) -> ExponentialSite | None:
    """The site with its exponential-family form, if it has one."""
    term, by_row = seen
    found = find_predictor(program, term.site, term.copies) if by_row and linear else None
    if found is None:
        return None if by_row else term
    predictor, has_intercept = found
    view, event = exponential.LinearNormal(predictor.num_covariates, has_intercept), (1 + predictor.num_covariates,)
    size = _size(view, event)
    return dataclasses.replace(term, view=view, event_shape=event, num_statistics=size, predictor=predictor)
