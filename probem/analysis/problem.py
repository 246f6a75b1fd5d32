"""A program and data, parsed and checked once: what every verb begins with."""

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probem.analysis.routes import make_plan, plan_for
from probem.data.checks import check_columns, check_data, check_labels, check_row_weights
from probem.data.observations import Observations, distinct_rows, split_gaps
from probem.errors import InputError
from probem.families.choice import choose_families
from probem.plan.plan import Plan
from probem.program.as_fitted import as_fitted
from probem.program.fixed import check_fixed
from probem.program.program import Program
from probem.program.reading import read
from probem.program.sites import Params
from probem.program.support import check_support, rows_outside


class FitOptions(NamedTuple):
    """What a fit is asked for beside its program and data; see ``probem.fit``.

    ``modes`` allows a point under a conjugate prior its closed form, the mode of what its full posterior would be.
    """

    families: Any = None
    init: Any = None
    key: Any = 0
    max_steps: Any = 1000
    tolerance: Any = 1e-10
    row_weights: Any = None
    labels: Any = None
    fixed: Any = None
    added_variance: Any = 0.0
    restarts: int = 1
    record_gap: bool = False
    modes: bool = True


class Problem(NamedTuple):
    """A program and rows of data, parsed and checked.

    ``plan`` is what is compiled for: structure, shapes and dtypes. ``rows`` (the data with its gaps split off, row
    weights and known assignments) and ``fixed``, the values of entries that stay, are numbers: others compile nothing.
    ``function`` is the program as it was given.
    """

    function: Callable[..., Any]
    plan: Plan
    rows: Observations
    fixed: Params


def parse(function: Callable[..., Any], data: tuple[Any, ...], options: FitOptions, distinct: bool = False) -> Problem:
    """The problem of fitting a program to data, of which values may be missing (NaN).

    ``distinct``: the rows have to be as many, and different ones, as there are components.

    Raises
    ------
    InputError
        For a program, data or options that cannot be used, before anything of the fit is traced.
    """
    arrays = check_data(data, missing=True)
    weights = check_row_weights(options.row_weights, Observations(arrays).num_rows)
    rows = split_gaps(arrays, weights)._replace(weights=weights)
    check_columns(rows)
    program = read(function, rows.data)
    check_support(program, arrays, weights)
    families = choose_families(program, options.families)
    if distinct and is_zero(options.added_variance) and not families.assignments.fills_empty:
        check_distinct(program, rows)
    masks, fixed = check_fixed(options.fixed, program, families.conjugate)
    families = families._replace(modes=options.modes, fixed=masks)
    plan, rows = plan_for(make_plan(program, families, options.record_gap), rows)
    labels = check_labels(options.labels, rows.num_rows, plan.num_components)
    return Problem(function, plan, rows._replace(labels=labels), fixed)


def is_zero(variance: Any) -> bool:
    """Whether no noise is asked for."""
    return isinstance(variance, numbers.Real) and variance == 0


def check_distinct(program: Program, rows: Observations) -> None:
    """Refuse more components than distinct rows, where no prior says where the others are."""
    if program.has_priors:
        return  # more components than rows are none too many for a prior
    wanted = program.num_components
    real = slice(None) if rows.weights is None else rows.weights > 0
    found = distinct_rows([np.asarray(leaf)[real] for leaf in jax.tree.leaves(rows.data)], wanted)
    if found < wanted:
        raise InputError(
            f"{wanted} components for {found} distinct rows",
            "at most as many components as distinct rows",
            "ask for fewer",
        )


class Observed(NamedTuple):
    """Rows for a program that was planned before: the ``plan`` for their gaps, and the ``rows``.

    ``outside`` [N] marks the rows with a value outside the support of its distribution; None if there are none.
    """

    plan: Plan
    rows: Observations
    outside: np.ndarray | None


def observe(
    plan: Plan, data: tuple[Any, ...], row_weights: Any = None, labels: Any = None, outside: bool = False
) -> Observed:
    """Rows of the kind that was fitted, of which values may be missing (NaN).

    ``outside`` allows values outside the support of their distribution, whose density is zero.

    Raises
    ------
    InputError
        For rows of another kind, and for such values unless they are allowed.
    """
    arrays = as_fitted(check_data(data, missing=True), plan.program.spec)
    weights = check_row_weights(row_weights, Observations(arrays).num_rows)
    mask = rows_outside(plan.program, arrays) if outside else None
    if not outside:
        check_support(plan.program, arrays, weights)
    plan, rows = plan_for(plan, split_gaps(arrays, weights)._replace(weights=weights))
    return Observed(plan, rows._replace(labels=check_labels(labels, rows.num_rows, plan.num_components)), mask)


def read_complete(function: Callable[..., Any], data: tuple[Any, ...]) -> tuple[Program, tuple[Any, ...]]:
    """The program as read, and data without gaps in it.

    Raises
    ------
    InputError
        For a program or data that cannot be used.
    """
    arrays = jax.tree.map(jnp.asarray, check_data(data))
    program = read(function, arrays)
    check_support(program, arrays)
    return program, arrays
