"""Whether values that are missing can be left out exactly: one sentence if not."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool

from probem.data.blocks import Block
from probem.data.observations import Observations, restore_gaps
from probem.data.row_axes import RowAxes
from probem.e_step.passes import about_rows
from probem.errors import InputError
from probem.form.layout import unwrapped
from probem.jit.compilation import by_plan
from probem.plan.plan import Plan
from probem.program.sites import Params


def check_gaps(plan: Plan, rows: Observations, axes: RowAxes) -> None:
    """Refuse what is missing and not an observed value, and a part of an event that only the program can weigh.

    Raises
    ------
    InputError
        Naming the row, or the site.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(rows.missing)]
    holed = np.flatnonzero(np.sum([leaf.reshape(len(leaf), -1).any(1) for leaf in leaves], axis=0))
    # Of what a caller traces, which has no gaps, only that it is there matters.
    data = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype) if isinstance(leaf, Tracer) else leaf, rows.data)
    data, missing = jax.tree.map(lambda leaf: leaf[holed], (data, rows.missing))
    params = plan.form.samples[0].params
    # Known values are looked at also while a caller traces.
    with jax.ensure_compile_time_eval():
        # No chunks are formed here: small blocks, of one size.
        look = about_rows(plan, Observations(data, missing=missing), _look, params, block_rows=plan.small.block_rows)
    for name, parts in look.parts.items():
        if parts.any():
            raise InputError(
                f"a value of '{name}' of which only a part is missing, in a distribution that is not normal",
                "normal distributions, or values that are missing as a whole",
                "drop those rows or impute them",
            )
    if look.used.any():
        raise InputError(
            f"NaN in {axes.rows_in_words(holed[look.used])} that is not simply an observed value (a covariate, say)",
            "NaN in observed values alone",
            "drop or impute those rows",
        )


def _event_ndim(plan: Plan, name: str) -> int:
    """Trailing dimensions of one event of the distribution under to_event."""
    return plan.program.abstract_trace(lambda sites: len(unwrapped(sites[name]["fn"]).event_shape), 2)


class _Look(NamedTuple):
    """For every row, whether something missing is more than an observed value, and by site whether an event of it that
    is not filled in is there in part.
    """

    used: Bool[Array, " n"]
    parts: dict[str, Bool[Array, " n"]]


@functools.partial(by_plan, foreign=True)
def _look(plan: Plan, params: Params, block: Block) -> _Look:
    form, program = plan.form, plan.program
    holed = restore_gaps(block.data, block.missing)
    absent = sum(leaf.reshape(block.size, -1).sum(1) for leaf in jax.tree.leaves(block.missing))
    observed_gaps, parts = jnp.zeros(block.size, int), {}
    in_whole = {*form.generic, *(term.site for term in form.data_terms if not term.completes)}
    for name, value in program.observations(holed).items():
        holes = jnp.isnan(jnp.moveaxis(value, value.ndim + form.rows_axis(name), 0))
        observed_gaps = observed_gaps + holes.reshape(block.size, -1).sum(1)
        if name in in_whole:
            events = holes.reshape(*holes.shape[: holes.ndim - _event_ndim(plan, name)], -1)
            parts[name] = (events.any(-1) != events.all(-1)).reshape(block.size, -1).any(1)
    used = observed_gaps != absent
    for name, events in form.events(holed, form.accompanied).items():
        # A value that was observed, of which an offset or a covariate is missing.
        there = form.observed(block.data, block.missing)[name].any(-1)
        used = used | (there & jnp.isnan(events).any(-1)).any(1)
    if form.generic:
        # The density of a value that was observed, of which an argument is missing.
        sites, holed_sites = program.enumerated_trace(params, block.data), program.enumerated_trace(params, holed)
        observed = form.generic_observed(block.data, block.missing)
        given = {name: {**site, "value": sites[name]["value"]} for name, site in holed_sites.items()}
        tables = [program.table(trace, form.generic, observed) for trace in (sites, given)]
        used = used | (jnp.isnan(tables[1]) & ~jnp.isnan(tables[0])).any(1)
    return _Look(used, parts)
