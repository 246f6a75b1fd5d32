"""From a program to its exponential form: which sites have one, with the same arguments for every row."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from probem import exponential
from probem.form.form import ExponentialForm
from probem.form.sites import ExponentialSite, batch_of, unwrapped
from probem.program.program import Program


def exponential_form(program: Program, partial: bool = False) -> ExponentialForm:
    """Sort the sites of a program: which have an exponential-family form with the same arguments for every row.

    ``partial``: values may be missing.
    """

    def look(sites: dict[str, dict[str, Any]]) -> list[ExponentialSite | None]:
        return [_term(program, sites[name], name, name in assignments) for name in program.local]

    assignments = {assignment.name for assignment in program.assignments}
    terms = dict(zip(program.local, program.abstract_trace(look, _LOOKING_ROWS), strict=True))
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


def _term(program: Program, site: dict[str, Any], name: str, is_assignment: bool) -> ExponentialSite | None:
    base = unwrapped(site["fn"])
    view = exponential.view(base)
    if view is None or site["scale"] is not None:
        return None
    batch, rows_axis = batch_of(site["fn"], base, program)
    if base.batch_shape and len(base.batch_shape) >= -rows_axis and base.batch_shape[rows_axis] != 1:
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
    event = jax.ShapeDtypeStruct(base.event_shape, jnp.result_type(float))
    statistics = jax.eval_shape(view.statistics, event)
    return ExponentialSite(
        name, view, math.prod(right), tuple(base.event_shape), statistics.shape[-1], is_assignment, base.support
    )
