"""The supports of the observed sites, as rules that values can be compared with, and in words."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Shaped
from numpyro.distributions import (
    CategoricalLogits,
    CategoricalProbs,
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    constraints,
)

from probem.errors import InputError
from probem.jit.compilation import concrete
from probem.program.program import Program
from probem.program.sites import Params

# Draws of the parameters at which bounds, and densities on the edge, are looked at.
RULE_SEEDS = (91, 92)


@dataclasses.dataclass(frozen=True, eq=False)
class SupportRule:
    """The support of one observed site, event by event under to_event.

    ``leaf``: which data array the site observes as it stands, None where the program computes the value, the bounds or
    a mask. ``axis``: that of the rows among the batch dimensions, from the last.
    """

    site: str
    cls: type[Distribution]
    constraint: constraints.Constraint
    axis: int
    leaf: int | None


@functools.lru_cache(maxsize=256)
def support_rules(program: Program) -> tuple[SupportRule, ...]:
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
            base, masks = unmasked(fn)
            constraint = one_event(base.support)
            if constraint is None:
                continue
            axis = program.plate_dim - (len(fn.event_shape) - constraint.event_dim)
            leaf = next((number for number, array in enumerate(leaves) if array is site["value"]), None)
            computed = bool(masks) or any(isinstance(bound, Tracer) for bound in jax.tree.leaves(constraint))
            if leaf is not None and (computed or leaves[leaf].ndim + axis - constraint.event_dim != 0):
                leaf = None
            rules.append(SupportRule(name, type(base), _forgotten(constraint), axis, leaf))

    rules: list[SupportRule] = []
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
    return tuple(rules)


def _check_given(name: str, site: Mapping[str, Any]) -> None:
    """Refuse a value that a parameter is observed at, or that a handler gives it, outside the support of its prior."""
    base, _ = unmasked(site["fn"])
    constraint, value = one_event(base.support), np.asarray(site["value"])
    if constraint is None or any(isinstance(bound, Tracer) for bound in jax.tree.leaves(constraint)):
        return
    rule = SupportRule(name, type(base), _forgotten(constraint), 0, None)
    outside = ~np.asarray(rule.constraint(value))
    if outside.any():
        raise InputError(
            f"the value {value_in_words(value[outside][0])} of '{name}', outside the support of its"
            f" {distribution_name(rule.cls)} prior",
            f"values in {rule.constraint!r}",
            "change it",
        )


# Rows of the trace in which supports are looked at: more than an assignment has values, so that a program that takes
# the one for the other does not run.
_LOOKING_ROWS = 4099


def _forgotten(constraint: constraints.Constraint) -> constraints.Constraint:
    """The constraint without bounds that are traced, which must not outlive their trace."""
    return jax.tree.map(lambda bound: np.nan if isinstance(bound, Tracer) else np.asarray(bound), constraint)


def unmasked(distribution: Distribution) -> tuple[Distribution, list[tuple[Any, int]]]:
    """The distribution of one event, and the masks around it, each with the dimensions of events it is for."""
    masks = []
    while isinstance(distribution, Independent | ExpandedDistribution | MaskedDistribution):
        if isinstance(distribution, MaskedDistribution):
            masks.append((distribution._mask, len(distribution.event_shape)))
        distribution = distribution.base_dist
    return distribution, masks


def log_density(distribution: Distribution, value: Shaped[Array, "..."]) -> Float[Array, "..."]:
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
    if not isinstance(constraint, constraints.Constraint) or constraints.is_dependent(constraint):
        return None
    return None if constraint is constraints.real or constraint is constraints.complex else constraint


@concrete
def observing(
    program: Program, params: Params, data: tuple[Any, ...], *, names: tuple[str, ...]
) -> dict[str, tuple[Shaped[Array, "..."], list[Array], list[Array]]]:
    """By site the value, the bounds and the masks, in the layout of the program."""
    sites = program.enumerated_trace(params, data)
    values = {}
    for name in names:
        base, masks = unmasked(sites[name]["fn"])
        constraint = one_event(base.support)
        assert constraint is not None
        bounds = [jnp.asarray(bound) for bound in jax.tree.leaves(constraint)]
        shaped = [jnp.reshape(mask, (*jnp.shape(mask), *(1,) * (ndim - constraint.event_dim))) for mask, ndim in masks]
        values[name] = jnp.asarray(sites[name]["value"]), bounds, shaped
    return values


@functools.lru_cache(maxsize=256)
def finite_on_edge(program: Program, site: str) -> tuple[bool, bool]:
    """Whether the density of an observed site is finite at its lower and at its upper bound, under some component.

    Of a simplex, where one entry is zero.
    """
    data = program.spec.examples()[0]
    looks = [_is_finite_on_edge(program, program.random_params(seed), data, site=site) for seed in RULE_SEEDS]
    low, high = (all(bool(look[number]) for look in looks) for number in range(2))
    return low, high


@concrete
def _is_finite_on_edge(
    program: Program, params: Params, data: tuple[Any, ...], *, site: str
) -> list[Bool[Array, ""] | Float[Array, ""]]:
    base, _ = unmasked(program.enumerated_trace(params, data)[site]["fn"])
    constraint = one_event(base.support)
    shape = (*base.batch_shape, *base.event_shape)
    if isinstance(constraint, type(constraints.simplex)):
        first = jnp.arange(shape[-1]) == 0
        edges = [jnp.where(first, 0.0, 1.0 / max(1, shape[-1] - 1)), None]
    else:
        edges = [getattr(constraint, name, None) for name in ("lower_bound", "upper_bound")]
    return [
        jnp.zeros(()) if edge is None else jnp.isfinite(log_density(base, jnp.broadcast_to(edge, shape) * 1.0)).any()
        for edge in edges
    ]


def support_in_words(program: Program, rule: SupportRule, constraint: Any) -> tuple[str, str]:
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
    for support, said in (
        (constraints.simplex, "probabilities from 0 that add up to 1"),
        (constraints.positive_definite, "symmetric, positive definite matrices"),
        (constraints.corr_matrix, "positive definite matrices with ones on the diagonal"),
        (constraints.sphere, "vectors of length 1"),
        (constraints.ordered_vector, "vectors whose entries increase"),
    ):
        if constraint is support:
            open_edge = support is constraints.simplex and not finite_on_edge(program, rule.site)[0]
            return (said.replace("from 0", "above 0") if open_edge else said) + missing, remedy
    if low is None and high is None:
        return f"values in {constraint!r}{missing}", remedy
    if constraint.is_discrete:
        return "whole numbers" + (f" from {low}" if low else "") + (f" to {high}" if high else "") + missing, remedy
    closed = finite_on_edge(program, rule.site)
    said = [
        f"{ends[not allowed]} {bound}"
        for bound, allowed, ends in ((low, closed[0], ("from", "above")), (high, closed[1], ("up to", "below")))
        if bound is not None
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


def distribution_name(cls: type[Distribution]) -> str:
    """The name of a distribution as users write it."""
    return cls.__name__.removesuffix("Probs").removesuffix("Logits").removesuffix("Distribution")


def value_in_words(value: Any) -> str:
    """A value in a message: a number, or the first few of an event."""
    numbers = np.asarray(value).reshape(-1)
    if np.ndim(value) == 0:
        return f"{numbers[0]:.6g}" if numbers.dtype.kind == "f" else str(numbers[0])
    return "[" + ", ".join(f"{number:.6g}" for number in numbers[:6]) + (", ..." if len(numbers) > 6 else "") + "]"
