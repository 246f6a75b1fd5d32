"""Whether every observed value lies in the support of its distribution: found out before anything is fitted.

Outside its support a density is zero, and so is the likelihood, whatever the parameters; the formula of the density
gives some number there all the same, and a fit of it would look like any other. Supports are those of NumPyro, but for
the edge of an interval or a simplex, which belongs to the support where the density is finite there: 0 under an
exponential distribution is a value, under a gamma distribution it is none.

A bound that depends on a parameter is not compared, since it may still move; one that depends on the row (a total
count, say) is. A value is outside where no component allows it. What is missing (NaN) or masked is no value, nor is
what a row of weight 0 holds.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Bool, Float, Int, Shaped
from numpyro.distributions import constraints

from probem.data.compressed import CompressedRows
from probem.data.row_axes import RowAxes
from probem.errors import InputError
from probem.program.program import Program
from probem.program.support_rules import (
    RULE_SEEDS,
    SupportRule,
    distribution_name,
    finite_on_edge,
    observing,
    support_in_words,
    support_rules,
    value_in_words,
)

# Numbers compared at once: what stays in the caches of a core.
_CHUNK_NUMBERS = 2**16
# Numbers, and at most rows, of which the program is asked at once what it observes, where that is no data argument as
# it stands.
_BLOCK_NUMBERS, _BLOCK_ROWS = 2**20, 2**14


class _Chunk(NamedTuple):
    """Some rows, from ``start`` on: values and bounds in the layout of the program, and which of them count."""

    start: int
    num_rows: int
    value: Shaped[np.ndarray, "..."]
    constraint: constraints.Constraint
    masks: list[Bool[np.ndarray, "..."]]


class _Outside(NamedTuple):
    """What is outside in a chunk: events ``[n, ...]``, their values ``[n, ..., *event]``, the bounds there."""

    rule: SupportRule
    start: int
    events: Bool[np.ndarray, "n ..."]
    value: Shaped[np.ndarray, "n ..."]
    constraint: constraints.Constraint

    @property
    def rows(self) -> Int[np.ndarray, " _"]:
        """Which rows they are of."""
        return self.start + np.flatnonzero(self.events.reshape(len(self.events), -1).any(1))


def check_support(
    program: Program, data: tuple[Any, ...], row_weights: Any = None, axes: RowAxes | None = None
) -> None:
    """Refuse values outside the support of their distribution.

    Parameters
    ----------
    data : arrays as ``check_data`` returns them, NaN where a value is missing; nothing is said while they, or the
            weights, are traced
    row_weights : ``[N]``, or None
    axes : of which data sets the rows are; None of one

    Raises
    ------
    InputError
        Naming the first value in the first of the sites, its row and column, and the support.
    """
    every = _look(program, data, row_weights)
    first = next(every, None)
    if first is None:
        return
    rule, _, events, value, constraint = first
    place = tuple(int(number) for number in np.argwhere(events)[0])
    # An entry of a value that is broadcast stands for many.
    at = tuple(min(number, size - 1) for number, size in zip(place, value.shape, strict=False))
    columns = ", ".join(str(number) for number in place[1:])
    axes = axes or RowAxes(jax.tree.leaves(data)[0].shape[0])
    # Of one data set no others are named.
    others = [outside for outside in every if outside.rule is rule] if axes.num_sets is not None else []
    rows = axes.rows_in_words(np.concatenate([outside.rows for outside in (first, *others)]))
    expected, remedy = support_in_words(program, rule, constraint)
    raise InputError(
        f"the value {value_in_words(value[at])} of '{rule.site}' ({rows}{f', column {columns}' if columns else ''}),"
        f" outside the support of its {distribution_name(rule.cls)} distribution",
        expected,
        remedy,
    )


def rows_outside(program: Program, data: tuple[Any, ...]) -> Bool[np.ndarray, " N"] | None:
    """Which rows ``[N]`` hold a value outside the support of its distribution, None if none does.

    Their density is zero. Nothing is said of traced data.
    """
    mask: Bool[np.ndarray, " N"] | None = None
    for outside in _look(program, data, None):
        mask = np.zeros(jax.tree.leaves(data)[0].shape[0], bool) if mask is None else mask
        mask[outside.rows] = True
    return mask


def _look(program: Program, data: tuple[Any, ...], row_weights: Any) -> Iterator[_Outside]:
    leaves = jax.tree.leaves(data)
    rules = support_rules(program)
    # Which rows count is not known of weights that are traced.
    if not rules or any(isinstance(leaf, Tracer) for leaf in (*leaves, row_weights)):
        return
    counted = None if row_weights is None else np.asarray(row_weights) > 0
    for rule in rules:
        for chunk in _chunks_of(leaves[rule.leaf], rule) if rule.leaf is not None else _computed(program, rule, data):
            if _is_within(chunk.constraint, chunk.value):
                continue
            events = _outside(program, rule, chunk)
            if not events.any():
                continue
            # Where every component has bounds of its own, none of them allows it; then the rows come first.
            event_ndim = chunk.constraint.event_dim
            events = events.all(tuple(range(events.ndim - (chunk.value.ndim - event_ndim))))
            events = np.moveaxis(np.asarray(events), events.ndim + rule.axis, 0)[: chunk.num_rows]
            value = np.moveaxis(chunk.value, chunk.value.ndim + rule.axis - event_ndim, 0)
            if counted is not None:
                here = counted[chunk.start : chunk.start + chunk.num_rows]
                events = events & here[: len(events)].reshape(-1, *(1,) * (events.ndim - 1))
            if events.any():
                yield _Outside(rule, chunk.start, events, value, chunk.constraint)


def _chunks_of(leaf: Any, rule: SupportRule) -> Iterator[_Chunk]:
    if isinstance(leaf, CompressedRows):
        yield from _sparse_chunks_of(leaf, rule)
        return
    values = np.asarray(leaf)
    rows = max(1, _CHUNK_NUMBERS // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):
        value = values[start : start + rows]
        yield _Chunk(start, len(value), value, rule.constraint, [])


def _sparse_chunks_of(rows: CompressedRows, rule: SupportRule) -> Iterator[_Chunk]:
    """The rows that may hold a value outside, one by one, each with all of its entries."""
    matrix = rows.matrix
    zero = np.zeros(1, matrix.dtype)
    allows_zero = not _may_be_outside(rule.constraint, zero).any()
    if allows_zero and _is_within(rule.constraint, matrix.data):
        return
    lengths = np.diff(matrix.indptr)
    wrong = _may_be_outside(rule.constraint, matrix.data)
    suspected = np.zeros(len(rows), bool) if allows_zero else lengths < rows.shape[1]
    suspected[np.repeat(np.arange(len(rows)), lengths)[wrong]] = True
    for row in np.flatnonzero(suspected):
        yield _Chunk(int(row), 1, rows[row : row + 1].dense(), rule.constraint, [])


def _may_be_outside(constraint: constraints.Constraint, values: Shaped[np.ndarray, " v"]) -> Bool[np.ndarray, " v"]:
    """Which numbers are not surely inside the same bounds; an edge that belongs to the support may be among them."""
    within = np.array([_is_within(constraint, part) for part in np.unique(values)[:, None]], bool)
    return ~within[np.unique(values, return_inverse=True)[1]]


def _computed(program: Program, rule: SupportRule, data: tuple[Any, ...]) -> Iterator[_Chunk]:
    """What the program observes, in blocks of one size, so that another number of rows compiles nothing."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    params = [program.random_params(seed) for seed in RULE_SEEDS]
    names = tuple(other.site for other in support_rules(program) if other.leaf is None)
    look = functools.partial(observing, program, names=names)
    moves: list[bool] | None = None
    width = sum(math.prod(shape) for shape, _ in program.spec.rows)
    block_rows = max(1, min(_BLOCK_ROWS, _BLOCK_NUMBERS // max(1, width)))
    for start in range(0, num_rows, block_rows):
        index = np.minimum(start + np.arange(block_rows), num_rows - 1)
        block = jax.tree.map(lambda leaf, index=index: np.asarray(leaf)[index], data)
        value, bounds, masks = look(params[0], block)[rule.site]
        if moves is None:
            others = look(params[1], block)[rule.site][1]
            moves = [not np.array_equal(a, b, equal_nan=True) for a, b in zip(bounds, others, strict=True)]
        constraint = _without_moving(rule.constraint, bounds, moves)
        if constraint is None:
            return
        yield _Chunk(start, min(block_rows, num_rows - start), value, constraint, masks)


def _without_moving(
    constraint: constraints.Constraint, bounds: list[Shaped[np.ndarray, "..."]], moves: list[bool]
) -> constraints.Constraint | None:
    """The constraint with these bounds, infinite where they move with a parameter; None where nothing is left."""
    if not any(moves):
        return jax.tree.unflatten(jax.tree.structure(constraint), bounds)
    ends = {"lower_bound": -np.inf, "upper_bound": np.inf}
    names = [name for name in ends if hasattr(constraint, name)]
    if len(names) != len(bounds) or constraint.event_dim:
        return None
    kept = [np.asarray(ends[name]) if moved else bound for name, bound, moved in zip(names, bounds, moves, strict=True)]
    if all(moves) and not constraint.is_discrete:
        return None
    return jax.tree.unflatten(jax.tree.structure(constraint), kept)


def _is_within(constraint: constraints.Constraint, value: Shaped[np.ndarray, "..."]) -> bool:
    """Whether all of the numbers are surely inside the same bounds: in reductions, as fast as they can be read."""
    if constraint.event_dim or not value.size or value.dtype == bool:
        return False
    if isinstance(constraint, type(constraints.boolean)):
        return bool((value * value == value).all())
    bounds = [getattr(constraint, name, None) for name in ("lower_bound", "upper_bound")]
    if any(bound is not None and np.ndim(bound) for bound in bounds) or bounds == [None, None]:
        return False
    low, high = bounds
    if constraint.is_discrete:
        # False for NaN.
        within = (low is None or value.min() >= low) and (high is None or value.max() <= high)
        return bool(within and (value.dtype.kind != "f" or (np.rint(value) == value).all()))
    return bool((low is None or value.min() > low) and (high is None or value.max() < high))


def _outside(program: Program, rule: SupportRule, chunk: _Chunk) -> Bool[np.ndarray, "..."]:
    """Which events are outside, components and all, ``[..., rows, ...]``."""
    value, constraint = chunk.value, chunk.constraint
    floating = np.issubdtype(value.dtype, np.floating)
    on_edge: list[Any] = []
    with np.errstate(invalid="ignore"):
        if isinstance(constraint, type(constraints.boolean)):
            outside = (value != 0) & (value != 1)
        elif isinstance(constraint, constraints.multinomial):
            outside = ((value < 0) | (np.rint(value) != value)).any(-1) | (value.sum(-1) != constraint.upper_bound)
        elif hasattr(constraint, "lower_bound") or hasattr(constraint, "upper_bound"):
            low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
            if constraint.is_discrete:
                outside = np.rint(value) != value if floating else np.zeros(value.shape, bool)
                outside = outside if low is None else outside | (value < low)
                outside = outside if high is None else outside | (value > high)
            else:
                inside = np.asarray(True) if low is None else value > low
                inside = inside if high is None else inside & (value < high)
                outside = ~inside
                if outside.any():
                    on_edge = [None if edge is None else value == edge for edge in (low, high)]
        else:
            outside = ~np.asarray(constraint(_filled(constraint, value) if floating else value))
            if isinstance(constraint, type(constraints.simplex)):
                zero = (value == 0).any(-1)
                outside, on_edge = outside | zero, [zero & ~outside, None]
    if not outside.any():
        return outside
    if any(edge is not None and edge.any() for edge in on_edge):
        for edge, allowed in zip(on_edge, finite_on_edge(program, rule.site), strict=True):
            outside = outside & ~edge if edge is not None and allowed else outside
    if floating:
        missing = np.isnan(value).any(tuple(range(value.ndim - constraint.event_dim, value.ndim)))
        outside = outside & ~missing
    for mask in chunk.masks:
        outside = outside & mask
    return outside


def _filled(constraint: constraints.Constraint, value: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The value with one that is allowed where an event has NaN, of which no eigenvalues can be computed."""
    missing = np.isnan(value).any(tuple(range(value.ndim - constraint.event_dim, value.ndim)), keepdims=True)
    return np.where(missing, np.asarray(constraint.feasible_like(value)), value) if missing.any() else value
