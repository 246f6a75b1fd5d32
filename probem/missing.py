"""Whether values that are missing can be left out exactly: one sentence if not."""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from .compiled import by_plan
from .data import Rows
from .errors import InputError
from .linear import poisoned, unwrapped

if TYPE_CHECKING:
    from .plan import Plan


def check(plan: "Plan", rows: Rows) -> None:
    """Refuse what is missing and not an observed value, and a part of an event that only the program can weigh.

    Raises
    ------
    InputError
        Naming the row, or the site.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(rows.missing)]
    absent = np.sum([leaf.reshape(len(leaf), -1).sum(1) for leaf in leaves], axis=0)
    holed = np.flatnonzero(absent)
    data, missing = jax.tree.map(lambda leaf: leaf[holed], (rows.data, rows.missing))
    found = np.zeros(len(holed), int)
    for name, value in _observations(plan, data, missing).items():
        holes = np.isnan(np.moveaxis(np.asarray(value), value.ndim + plan.form.rows_axis(name), 0))
        found += holes.reshape(len(holed), -1).sum(1)
        if name not in plan.form.generic:
            continue
        events = holes.reshape(*holes.shape[: holes.ndim - _event_ndim(plan, name)], -1)
        if (events.any(-1) != events.all(-1)).any():
            raise InputError(
                f"a value of '{name}' of which only a part is missing, in a distribution known by its log_prob alone",
                "normal distributions, or values that are missing as a whole",
                "drop those rows or impute them",
            )
    if (found != absent[holed]).any():
        row = int(holed[(found != absent[holed]).argmax()])
        raise InputError(
            f"NaN in row {row} that is not simply an observed value (a covariate, say)",
            "NaN in observed values alone",
            "drop or impute those rows",
        )


def check_columns(rows: Rows) -> None:
    """Refuse a column without any value: nothing could be learned of it.

    Raises
    ------
    InputError
        Naming the column.
    """
    leaves = jax.tree.leaves(rows.missing)
    for position, leaf in enumerate(leaves):
        empty = np.flatnonzero(np.asarray(leaf).reshape(len(leaf), -1).all(0))
        if len(empty):
            where = f"data argument {position + 1}" if len(leaves) > 1 else "the data"
            named = ", ".join(map(str, empty[:10]))
            raise InputError(
                f"no value at all in column {named} of {where}", "at least one value in each", "leave it out"
            )


def _event_ndim(plan: "Plan", name: str) -> int:
    """Trailing dimensions of one event of the distribution under to_event."""
    return plan.program.abstract_trace(lambda sites: len(unwrapped(sites[name]["fn"]).event_shape), 2)


@by_plan
def _observations(plan: "Plan", data: tuple[Any, ...], missing: Any) -> dict[str, Array]:
    return plan.program.observations(poisoned(data, missing))
