"""A program and data, parsed and checked once: what every verb begins with."""

import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from probem.analysis.options import FitOptions
from probem.analysis.routes import make_plan, plan_for
from probem.analysis.sparse_rows import check_sparse_rows
from probem.data.checks import check_columns, check_data, check_labels, check_row_weights
from probem.data.observations import Observations, distinct_compressed_rows, distinct_rows, split_gaps
from probem.data.row_axes import RowAxes
from probem.errors import InputError
from probem.families.choice import choose_families
from probem.plan.plan import Plan
from probem.program.arguments import check_arguments
from probem.program.as_fitted import as_fitted
from probem.program.fixed import check_fixed
from probem.program.program import Program
from probem.program.reading import read
from probem.program.sites import Params
from probem.program.support import check_support, rows_outside


class Problem(NamedTuple):
    """A program and rows of data, of one data set or of many (``axes``), parsed and checked.

    ``plan`` is what is compiled for: structure, shapes and dtypes. ``rows`` (the data with its gaps split off, row
    weights and known assignments) and ``fixed``, the values of entries that stay, are numbers: others compile nothing.
    ``function`` is the program as it was given.
    """

    function: Callable[..., Any]
    plan: Plan
    rows: Observations
    fixed: Params
    axes: RowAxes


def parse(
    function: Callable[..., Any],
    data: tuple[Any, ...],
    options: FitOptions,
    distinct: bool = False,
    num_sets: int | None = None,
) -> Problem:
    """The problem of fitting a program to data, of which values may be missing (NaN).

    ``distinct``: the rows have to be as many, and different ones, as there are components. Of ``num_sets`` data sets
    of one shape, ``data`` holds the rows of all, one after another.

    Raises
    ------
    InputError
        For a program, data or options that cannot be used, before anything of the fit is traced.
    """
    arrays, axes = _rows(data, num_sets)
    weights = check_row_weights(options.row_weights, axes)
    rows = split_gaps(arrays, weights)._replace(weights=weights)
    check_columns(rows, axes)
    program = read(function, rows.data)
    if rows.are_sparse:
        check_sparse_rows(program)
    check_support(program, arrays, weights, axes)
    families = choose_families(program, options.families)
    if distinct and is_zero(options.added_variance) and not families.assignments.fills_empty:
        check_distinct(program, rows, axes)
    masks, fixed = check_fixed(options.fixed, program, families.full)
    families = families._replace(modes=options.modes, fixed=masks, predictors=options.predictors)
    plan, rows = plan_for(make_plan(program, families, options.record_gap), rows, axes)
    # What is said of priors as such says more.
    check_arguments(program, rows.data, weights, options.fixed, _values_at_start(options.init))
    labels = check_labels(options.labels, axes, plan.num_components)
    return Problem(function, plan, rows._replace(labels=labels), fixed, axes)


def _values_at_start(init: Any) -> dict[str, Any]:
    """The values that a fit is told to start at, by site."""
    return dict(init.values) if hasattr(init, "values") and isinstance(init.values, Mapping) else {}


def _rows(data: tuple[Any, ...], num_sets: int | None) -> tuple[tuple[Any, ...], RowAxes]:
    """Data of which values may be missing, checked, and how its rows lie."""
    arrays = check_data(data, missing=True, num_sets=num_sets, sparse=num_sets is None)
    return arrays, RowAxes(Observations(arrays).num_rows // (num_sets or 1), num_sets)


def is_zero(variance: Any) -> bool:
    """Whether no noise is asked for."""
    return isinstance(variance, numbers.Real) and variance == 0


def check_distinct(program: Program, rows: Observations, axes: RowAxes) -> None:
    """Refuse more components than distinct rows, where no prior says where the others are."""
    if program.has_priors:
        return  # more components than rows are none too many for a prior
    wanted = program.num_components
    counted = None if rows.weights is None else axes.by_set(rows.weights) > 0
    if rows.are_sparse:
        (sparse,) = rows.data
        numbers = [distinct_compressed_rows(sparse if counted is None else sparse[counted[0]], wanted)]
    else:
        leaves = [axes.by_set(np.asarray(leaf)) for leaf in jax.tree.leaves(rows.data)]
        numbers = []
        for each in range(len(leaves[0])):
            real = slice(None) if counted is None else counted[each]
            numbers.append(distinct_rows([leaf[each][real] for leaf in leaves], wanted))
    few = np.flatnonzero(np.array(numbers) < wanted)
    if few.size:
        raise InputError(
            f"{wanted} components for {numbers[few[0]]} distinct rows{axes.in_sets(few)}",
            "at most as many components as distinct rows",
            "ask for fewer" + ("" if axes.num_sets is None else ", or leave those out"),
        )


class Observed(NamedTuple):
    """Rows for a program that was planned before: the ``plan`` for their gaps, and the ``rows``.

    ``outside`` [N] marks the rows with a value outside the support of its distribution; None if there are none.
    """

    plan: Plan
    rows: Observations
    outside: Bool[np.ndarray, " N"] | None


def observe(
    plan: Plan,
    data: tuple[Any, ...],
    row_weights: Any = None,
    labels: Any = None,
    outside: bool = False,
    num_sets: int | None = None,
) -> Observed:
    """Rows of the kind that was fitted, of which values may be missing (NaN), one after another if of ``num_sets``.

    ``outside`` allows values outside the support of their distribution, whose density is zero.

    Raises
    ------
    InputError
        For rows of another kind, and for such values unless they are allowed.
    """
    arrays, axes = _rows(data, num_sets)
    arrays = as_fitted(arrays, plan.program.spec)
    if Observations(arrays).are_sparse:
        check_sparse_rows(plan.program)
    weights = check_row_weights(row_weights, axes)
    mask = rows_outside(plan.program, arrays) if outside else None
    if not outside:
        check_support(plan.program, arrays, weights, axes)
    plan, rows = plan_for(plan, split_gaps(arrays, weights)._replace(weights=weights), axes)
    return Observed(plan, rows._replace(labels=check_labels(labels, axes, plan.num_components)), mask)


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
    check_arguments(program, arrays)
    return program, arrays
