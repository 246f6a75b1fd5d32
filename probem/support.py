"""Whether every observed value lies in the support of its distribution: found out before anything is fitted.

Outside its support a density is zero, and so is the likelihood, whatever the parameters; the formula of the density
gives some number there all the same, and a fit of it would look like any other. Supports are those of NumPyro, but for
the edge of an interval or a simplex, which belongs to the support where the density is finite there: 0 under an
exponential distribution is a value, under a gamma distribution it is none.

A bound that depends on a parameter is not compared, since it may still move; one that depends on the row (a total
count, say) is. A value is outside where no component allows it. What is missing (NaN) or masked is no value, nor is
what a row of weight 0 holds.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from numpyro.distributions import (
    CategoricalLogits,
    CategoricalProbs,
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    constraints,
)

from .compiled import concrete
from .errors import InputError
from .program import Params, Program

# Numbers compared at once: what stays in the caches of a core.
_CHUNK_NUMBERS = 2**16
# Numbers, and at most rows, of which the program is asked at once what it observes, where that is no data argument as
# it stands.
_BLOCK_NUMBERS, _BLOCK_ROWS = 2**20, 2**14
# Draws of the parameters at which bounds, and densities on the edge, are looked at.
_SEEDS = (91, 92)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rule:
    """The support of one observed site, event by event under to_event.

    ``leaf``: which data array the site observes as it stands, None where the program computes the value, the bounds or
    a mask. ``axis``: that of the rows among the batch dimensions, from the last.
    """

    site: str
    cls: type[Distribution]
    constraint: constraints.Constraint
    axis: int
    leaf: int | None


class _Chunk(NamedTuple):
    """Some rows, from ``start`` on: values and bounds in the layout of the program, and which of them count."""

    start: int
    num_rows: int
    value: np.ndarray
    constraint: constraints.Constraint
    masks: list[np.ndarray]


class _Outside(NamedTuple):
    """What is outside in a chunk: events ``[n, ...]``, their values ``[n, ..., *event]``, the bounds there."""

    rule: _Rule
    start: int
    events: np.ndarray
    value: np.ndarray
    constraint: constraints.Constraint


def check_support(program: Program, data: tuple[Any, ...], row_weights: Any = None, where: str = "") -> None:
    """Refuse values outside the support of their distribution.

    Parameters
    ----------
    data : arrays as ``check_data`` returns them, NaN where a value is missing; nothing is said while they, or the
            weights, are traced
    row_weights : ``[N]``, or None
    where : of what the rows are, for the message

    Raises
    ------
    InputError
        Naming the first value in the first of the sites, its row and column, and the support.
    """
    for rule, start, events, value, constraint in _look(program, data, row_weights):
        place = tuple(int(number) for number in np.argwhere(events)[0])
        # An entry of a value that is broadcast stands for many.
        at = tuple(min(number, size - 1) for number, size in zip(place, value.shape, strict=False))
        columns = ", ".join(str(number) for number in place[1:])
        place_in_words = f"row {start + place[0]}{where}" + (f", column {columns}" if columns else "")
        expected, remedy = _in_words(program, rule, constraint)
        raise InputError(
            f"the value {_shown(value[at])} of '{rule.site}' ({place_in_words}), outside the support of its"
            f" {_name(rule.cls)} distribution",
            expected,
            remedy,
        )


def rows_outside(program: Program, data: tuple[Any, ...]) -> np.ndarray | None:
    """Which rows ``[N]`` hold a value outside the support of its distribution, None if none does.

    Their density is zero. Nothing is said of traced data.
    """
    found: np.ndarray | None = None
    for _, start, events, _, _ in _look(program, data, None):
        outside = np.zeros(jax.tree.leaves(data)[0].shape[0], bool) if found is None else found
        outside[start : start + len(events)] |= events.reshape(len(events), -1).any(1)
        found = outside
    return found


def _look(program: Program, data: tuple[Any, ...], row_weights: Any) -> Iterator[_Outside]:
    leaves = jax.tree.leaves(data)
    rules = _rules(program)
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


def _chunks_of(leaf: Any, rule: _Rule) -> Iterator[_Chunk]:
    values = np.asarray(leaf)
    rows = max(1, _CHUNK_NUMBERS // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):
        value = values[start : start + rows]
        yield _Chunk(start, len(value), value, rule.constraint, [])


def _computed(program: Program, rule: _Rule, data: tuple[Any, ...]) -> Iterator[_Chunk]:
    """What the program observes, in blocks of one size, so that another number of rows compiles nothing."""
    num_rows = jax.tree.leaves(data)[0].shape[0]
    params = [program.random_params(seed) for seed in _SEEDS]
    moves: list[bool] | None = None
    width = sum(math.prod(shape) for shape, _ in program.spec.rows)
    block_rows = max(1, min(_BLOCK_ROWS, _BLOCK_NUMBERS // max(1, width)))
    for start in range(0, num_rows, block_rows):
        index = np.minimum(start + np.arange(block_rows), num_rows - 1)
        block = jax.tree.map(lambda leaf, index=index: np.asarray(leaf)[index], data)
        value, bounds, masks = _observing(program)(params[0], block)[rule.site]
        if moves is None:
            others = _observing(program)(params[1], block)[rule.site][1]
            moves = [not np.array_equal(a, b, equal_nan=True) for a, b in zip(bounds, others, strict=True)]
        constraint = _without_moving(rule.constraint, bounds, moves)
        if constraint is None:
            return
        yield _Chunk(start, min(block_rows, num_rows - start), value, constraint, masks)


def _without_moving(
    constraint: constraints.Constraint, bounds: list[np.ndarray], moves: list[bool]
) -> constraints.Constraint | None:
    """The constraint with these bounds, infinite where they move with a parameter; None where nothing is left."""
    if not any(moves):
        return jax.tree.unflatten(jax.tree.structure(constraint), bounds)
    ends = {"lower_bound": -np.inf, "upper_bound": np.inf}
    names = [name for name in ends if hasattr(constraint, name)]
    if len(names) != len(bounds) or constraint.event_dim:
        return None
    kept = [np.asarray(ends[name]) if moved else own for name, own, moved in zip(names, bounds, moves, strict=True)]
    if all(moves) and not constraint.is_discrete:
        return None
    return jax.tree.unflatten(jax.tree.structure(constraint), kept)


def _is_within(constraint: constraints.Constraint, value: np.ndarray) -> bool:
    """Whether all of the numbers are surely inside the same bounds: in reductions, as fast as they can be read."""
    if constraint.event_dim or not value.size or value.dtype == bool:
        return False
    if isinstance(constraint, type(constraints.boolean)):
        return bool((value * value == value).all())
    bounds = [getattr(constraint, name, None) for name in ("lower_bound", "upper_bound")]
    if any(own is not None and np.ndim(own) for own in bounds) or bounds == [None, None]:
        return False
    low, high = bounds
    if constraint.is_discrete:
        # False for NaN.
        within = (low is None or value.min() >= low) and (high is None or value.max() <= high)
        return bool(within and (value.dtype.kind != "f" or (np.rint(value) == value).all()))
    return bool((low is None or value.min() > low) and (high is None or value.max() < high))


def _outside(program: Program, rule: _Rule, chunk: _Chunk) -> np.ndarray:
    """Which events are outside, components and all, ``[..., rows, ...]``."""
    value, constraint = chunk.value, chunk.constraint
    floating = np.issubdtype(value.dtype, np.floating)
    on_edge = None
    with np.errstate(invalid="ignore"):
        if isinstance(constraint, type(constraints.boolean)):
            found = (value != 0) & (value != 1)
        elif isinstance(constraint, constraints.multinomial):
            found = ((value < 0) | (np.rint(value) != value)).any(-1) | (value.sum(-1) != constraint.upper_bound)
        elif hasattr(constraint, "lower_bound") or hasattr(constraint, "upper_bound"):
            low, high = getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)
            if constraint.is_discrete:
                found = np.rint(value) != value if floating else np.zeros(value.shape, bool)
                found = found if low is None else found | (value < low)
                found = found if high is None else found | (value > high)
            else:
                inside = np.asarray(True) if low is None else value > low
                inside = inside if high is None else inside & (value < high)
                found = ~inside
                if found.any():
                    on_edge = [None if own is None else value == own for own in (low, high)]
        else:
            found = ~np.asarray(constraint(_filled(constraint, value) if floating else value))
            if isinstance(constraint, type(constraints.simplex)):
                zero = (value == 0).any(-1)
                found, on_edge = found | zero, [zero & ~found, None]
    if not found.any():
        return found
    if on_edge is not None and any(own is not None and own.any() for own in on_edge):
        for own, allowed in zip(on_edge, _finite_on_edge(program, rule.site), strict=True):
            found = found & ~own if own is not None and allowed else found
    if floating:
        missing = np.isnan(value).any(tuple(range(value.ndim - constraint.event_dim, value.ndim)))
        found = found & ~missing
    for mask in chunk.masks:
        found = found & mask
    return found


def _filled(constraint: constraints.Constraint, value: np.ndarray) -> np.ndarray:
    """The value with one that is allowed where an event has NaN, of which no eigenvalues can be computed."""
    missing = np.isnan(value).any(tuple(range(value.ndim - constraint.event_dim, value.ndim)), keepdims=True)
    return np.where(missing, np.asarray(constraint.feasible_like(value)), value) if missing.any() else value


@functools.lru_cache(maxsize=256)
def _rules(program: Program) -> tuple[_Rule, ...]:
    """The observed sites whose support is not the whole of the real numbers.

    Raises
    ------
    InputError
        For a program that does not run with an assignment set to all its values at once.
    """

    def look(params: Params, data: tuple[Any, ...]) -> None:
        leaves = jax.tree.leaves(data)
        sites = program.enumerated_trace(params, data)
        # Only to see that it can be formed.
        program.table(sites, program.local)
        for name, site in sites.items():
            if site["type"] == "sample" and name not in program.local and not isinstance(site["value"], Tracer):
                _check_given(name, site)
        for name in program.observed:
            site, fn = sites[name], sites[name]["fn"]
            base, masks = unwrapped(fn)
            constraint = one_event(base.support)
            if constraint is None:
                continue
            axis = program.plate_dim - (len(fn.event_shape) - constraint.event_dim)
            leaf = next((number for number, own in enumerate(leaves) if own is site["value"]), None)
            computed = bool(masks) or any(isinstance(own, Tracer) for own in jax.tree.leaves(constraint))
            if leaf is not None and (computed or leaves[leaf].ndim + axis - constraint.event_dim != 0):
                leaf = None
            found.append(_Rule(name, type(base), _forgotten(constraint), axis, leaf))

    found: list[_Rule] = []
    params = {site.name: jax.ShapeDtypeStruct(site.shape, jnp.result_type(float)) for site in program.globals}
    try:
        jax.eval_shape(look, params, program.spec.abstract(_LOOKING_ROWS))
    except InputError:
        raise
    except Exception as error:
        names = " and ".join(f"'{site.name}'" for site in program.assignments)
        text = " ".join(str(error).split())
        raise InputError(
            f"{type(error).__name__} from the program with all values of {names} at once, on an axis to the left of"
            f" the rows: {text[:300]}",
            "a program in which an assignment may have such axes, and nothing is indexed by them but its values",
            "write loc[t], without squeeze, reshape or take_along_axis, and broadcast what has an axis of rows",
        ) from error
    return tuple(found)


def _check_given(name: str, site: Mapping[str, Any]) -> None:
    """Refuse a value that a parameter is observed at, or that a handler gives it, outside the support of its prior."""
    base, _ = unwrapped(site["fn"])
    constraint, value = one_event(base.support), np.asarray(site["value"])
    if constraint is None or any(isinstance(own, Tracer) for own in jax.tree.leaves(constraint)):
        return
    rule = _Rule(name, type(base), _forgotten(constraint), 0, None)
    outside = ~np.asarray(rule.constraint(value))
    if outside.any():
        raise InputError(
            f"the value {_shown(value[outside][0])} of '{name}', outside the support of its {_name(rule.cls)} prior",
            f"values in {rule.constraint!r}",
            "change it",
        )


# Rows of the trace in which supports are looked at: more than an assignment has values, so that a program that takes
# the one for the other does not run.
_LOOKING_ROWS = 4099


def _forgotten(constraint: constraints.Constraint) -> constraints.Constraint:
    """The constraint without bounds that are traced, which must not outlive their trace."""
    return jax.tree.map(lambda own: np.nan if isinstance(own, Tracer) else np.asarray(own), constraint)


def unwrapped(distribution: Distribution) -> tuple[Distribution, list[tuple[Any, int]]]:
    """The distribution of one event, and the masks around it, each with the dimensions of events it is for."""
    masks = []
    while isinstance(distribution, Independent | ExpandedDistribution | MaskedDistribution):
        if isinstance(distribution, MaskedDistribution):
            masks.append((distribution._mask, len(distribution.event_shape)))
        distribution = distribution.base_dist
    return distribution, masks


def log_density(distribution: Distribution, value: Array) -> Array:
    """Its ``log_prob`` without NumPyro's check of the value, by which it is minus infinity on the edge of a support."""
    inner: Any = distribution
    while inner is not None:
        inner._validate_args = False
        inner = getattr(inner, "base_dist", None)
    return jnp.asarray(distribution.log_prob(value))


def one_event(constraint: Any) -> constraints.Constraint | None:
    """The support entry by entry where it is one of entries; None where it is no restriction, or not known."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    free = (constraints.real, constraints.complex)
    if not isinstance(constraint, constraints.Constraint) or constraints.is_dependent(constraint):
        return None
    return None if any(constraint is one for one in free) else constraint


@functools.lru_cache(maxsize=256)
def _observing(program: Program) -> Any:
    """Compiled: by site the value, the bounds and the masks, in the layout of the program."""

    def run(params: Params, data: tuple[Any, ...]) -> dict[str, tuple[Array, list[Array], list[Array]]]:
        sites = program.enumerated_trace(params, data)
        found = {}
        for rule in _rules(program):
            if rule.leaf is not None:
                continue
            base, masks = unwrapped(sites[rule.site]["fn"])
            constraint = one_event(base.support)
            assert constraint is not None
            bounds = [jnp.asarray(own) for own in jax.tree.leaves(constraint)]
            shaped = [
                jnp.reshape(mask, (*jnp.shape(mask), *(1,) * (ndim - constraint.event_dim))) for mask, ndim in masks
            ]
            found[rule.site] = jnp.asarray(sites[rule.site]["value"]), bounds, shaped
        return found

    return concrete(run)


@functools.lru_cache(maxsize=256)
def _finite_on_edge(program: Program, site: str) -> tuple[bool, bool]:
    """Whether the density of an observed site is finite at its lower and at its upper bound, under some component.

    Of a simplex, where one entry is zero.
    """

    def run(params: Params, data: tuple[Any, ...]) -> list[Array]:
        base, _ = unwrapped(program.enumerated_trace(params, data)[site]["fn"])
        constraint = one_event(base.support)
        shape = (*base.batch_shape, *base.event_shape)
        if isinstance(constraint, type(constraints.simplex)):
            first = jnp.arange(shape[-1]) == 0
            edges = [jnp.where(first, 0.0, 1.0 / max(1, shape[-1] - 1)), None]
        else:
            edges = [getattr(constraint, name, None) for name in ("lower_bound", "upper_bound")]
        return [
            jnp.zeros(())
            if edge is None
            else jnp.isfinite(log_density(base, jnp.broadcast_to(edge, shape) * 1.0)).any()
            for edge in edges
        ]

    compiled = concrete(run)
    looks = [compiled(program.random_params(seed), program.spec.examples()[0]) for seed in _SEEDS]
    low, high = (all(bool(look[number]) for look in looks) for number in range(2))
    return low, high


def _in_words(program: Program, rule: _Rule, constraint: Any) -> tuple[str, str]:
    """The support, and the remedy."""
    missing = ", or NaN where a value is missing"
    remedy = "correct or drop those rows, or observe them under a distribution that allows them"
    low, high = (_bound(getattr(constraint, name, None)) for name in ("lower_bound", "upper_bound"))
    if issubclass(rule.cls, CategoricalProbs | CategoricalLogits):
        return f"categories, whole numbers from 0 to {high}{missing}", "number the categories from zero"
    if isinstance(constraint, type(constraints.boolean)):
        return f"0 or 1{missing}", remedy
    if isinstance(constraint, type(constraints.circular)):
        return f"angles from -pi to pi{missing}", "write them as (x + pi) % (2 * pi) - pi"
    if isinstance(constraint, constraints.multinomial):
        return f"counts, whole numbers from 0, that add up to the total of their row{missing}", remedy
    for known, said in (
        (constraints.simplex, "probabilities from 0 that add up to 1"),
        (constraints.positive_definite, "symmetric, positive definite matrices"),
        (constraints.corr_matrix, "positive definite matrices with ones on the diagonal"),
        (constraints.sphere, "vectors of length 1"),
        (constraints.ordered_vector, "vectors whose entries increase"),
    ):
        if constraint is known:
            open_edge = known is constraints.simplex and not _finite_on_edge(program, rule.site)[0]
            return (said.replace("from 0", "above 0") if open_edge else said) + missing, remedy
    if low is None and high is None:
        return f"values in {constraint!r}{missing}", remedy
    if constraint.is_discrete:
        return "whole numbers" + (f" from {low}" if low else "") + (f" to {high}" if high else "") + missing, remedy
    closed = _finite_on_edge(program, rule.site)
    said = [
        f"{ends[not allowed]} {own}"
        for own, allowed, ends in ((low, closed[0], ("from", "above")), (high, closed[1], ("up to", "below")))
        if own is not None
    ]
    return f"numbers {' and '.join(said)}{missing}", remedy


def _bound(value: Any) -> str | None:
    """A bound in words; None where there is none."""
    if value is None:
        return None
    numbers = np.unique(np.asarray(value, float))
    if not np.isfinite(numbers).any():
        return None
    return f"{numbers[0]:.6g}" if len(numbers) == 1 else "a bound of its row or component"


def _name(cls: type[Distribution]) -> str:
    return cls.__name__.removesuffix("Probs").removesuffix("Logits").removesuffix("Distribution")


def _shown(value: Any) -> str:
    """A value in a message: a number, or the first few of an event."""
    numbers = np.asarray(value).reshape(-1)
    if np.ndim(value) == 0:
        return f"{numbers[0]:.6g}" if numbers.dtype.kind == "f" else str(numbers[0])
    return "[" + ", ".join(f"{number:.6g}" for number in numbers[:6]) + (", ..." if len(numbers) > 6 else "") + "]"
