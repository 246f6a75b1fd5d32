"""Numbers of a program, or of a family, that are traced: ``probem.solve`` under ``jit``, ``vmap`` or ``jacfwd`` over a
prior's strength, say.

A plan is made with numbers. It is made here with stand-ins for those that are traced, and with others once more: where
both lead to the same decisions, these are those for the traced numbers, too. What follows from the numbers, the
coefficients of affine maps, is worked out from the traced ones. What depends on where they lie is not looked at: a
concentration below 1, say, with which a point has no mode.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from probem.analysis.factors import arguments_and_sources
from probem.errors import InputError
from probem.families.assignments import AssignmentFamily
from probem.families.corners import Corner
from probem.form.form import ExponentialForm
from probem.mean_field.factors import AffineMap
from probem.mean_field.mean_field import MeanField
from probem.plan.plan import Plan
from probem.program.fingerprint import Lifted, lift, refuse_traced

# The sizes of stand-ins that are tried until one is allowed (degrees of freedom have to be many), none of them a number
# that means something by itself; and how many times as large the others are.
_SIZES = (1.1, 11.0, 110.0, 0.11)
_OTHER = 1.3
# How near two numbers are that are the same but for rounding.
_SAME = 1e-9
# Draws of the parameters at which coefficients are worked out, beside two for each of them.
_NUM_DRAWS = 6


class StandIns(NamedTuple):
    """A program and families with stand-ins for what is traced."""

    function: Callable[..., Any]
    families: Any


def plan_traced(
    function: Callable[..., Any], families: Any, parse: Callable[[StandIns], Any], plan_of: Callable[[Any], Plan]
) -> tuple[Any, Plan]:
    """What ``parse`` makes of a program, and its plan, of which numbers may be traced.

    Raises
    ------
    InputError
        For a traced number on which a decision depends, and what ``parse`` raises.
    """
    lifted = lift(function, traced=True) if callable(function) else None
    numbers = () if lifted is None else lifted.numbers
    traced_families = _traced_families(families)
    if not traced_families and not any(isinstance(number, Tracer) for number in numbers):
        parsed = parse(StandIns(function, families))
        return parsed, plan_of(parsed)
    assert lifted is not None
    parsed, size = _parsed(lifted, families, parse)
    plan = plan_of(parsed)
    traced = {place for place, number in enumerate(numbers) if isinstance(number, Tracer)}
    if traced - set(plan.program.places):
        refuse_traced()
    other = plan_of(parse(_stand_ins(lifted, families, _OTHER * size)))
    if plan.structure != other.structure:
        raise InputError(
            "a traced number on which depends how the program is fitted",
            "numbers that change no decision",
            "bind it outside jit, vmap and grad",
        )
    family = plan.lifted_family
    if traced_families:
        (given,) = traced_families
        if unknown := [name for name, value in vars(given).items() if _is_traced(value) and name not in family.names]:
            raise InputError(
                f"a traced {unknown[0]} of {type(given).__name__}, which asks what it is",
                "a known one",
                "use it outside jit, vmap and grad",
            )
        family_numbers = tuple(getattr(given, name) for name in family.names)
    else:
        family_numbers = family.numbers
    form = plan.form.with_numbers(tuple(numbers[place] for place in plan.program.places))
    maps = _maps(plan.mean_field, other.mean_field, form)
    return parsed, plan.with_numbers(((form.numbers, maps), family_numbers))


def _parsed(lifted: Lifted, families: Any, parse: Callable[[StandIns], Any]) -> tuple[Any, float]:
    """What ``parse`` makes of the first stand-ins that it allows, and their size."""
    first: InputError | None = None
    for size in _SIZES:
        try:
            return parse(_stand_ins(lifted, families, size)), size
        except InputError as error:
            first = first or error
    assert first is not None
    raise first


def _stand_ins(lifted: Lifted, families: Any, size: float) -> StandIns:
    return StandIns(
        lifted.function([_stand_in(number, size) for number in lifted.numbers]), _with_stand_ins(families, size)
    )


def _stand_in(number: Any, size: float) -> Any:
    """A number of the same shape and kind: entries that differ, a positive definite matrix where it is square."""
    if not isinstance(number, Tracer):
        return number
    shape = number.shape
    spaced = size * (1.0 + 0.1 * np.arange(shape[-1] if shape else 1))
    if len(shape) >= 2 and shape[-1] == shape[-2]:
        values = np.broadcast_to(np.diag(spaced), shape)
    else:
        values = spaced * (1.0 + 0.1 * np.arange(number.size // len(spaced)))[:, None]
    # As NumPy has it, and not JAX, which traces what is computed from its arrays here.
    made = values.reshape(shape).astype(number.dtype)
    return float(made) if number.weak_type and not shape else made


def _is_traced(value: Any) -> bool:
    return isinstance(value, Tracer)


def _every_family(families: Any) -> list[Any]:
    if isinstance(families, Corner):
        return [families.assignments, families.parameters, *(family for _, family in families.others)]
    return list(families.values()) if isinstance(families, Mapping) else []


def _traced_families(families: Any) -> list[AssignmentFamily]:
    """The family with traced numbers, in a list; empty if there is none."""
    traced: list[AssignmentFamily] = []
    for family in _every_family(families):
        if _has_traced(family) and not any(_is_same(family, other) for other in traced):
            traced.append(family)
    if len(traced) > 1:
        raise InputError("several families with traced numbers", "one for all assignments", "give each the same")
    return traced


def _has_traced(family: Any) -> bool:
    return any(map(_is_traced, getattr(family, "__dict__", {}).values()))


def _is_same(family: Any, other: Any) -> bool:
    return type(family) is type(other) and all(vars(other)[name] is value for name, value in vars(family).items())


def _with_stand_ins(families: Any, size: float) -> Any:
    def replaced(family: Any) -> Any:
        if not _has_traced(family):
            return family
        # Of one number, as a Python float: its class may ask for that.
        new = object.__new__(type(family))
        for name, value in vars(family).items():
            number = float(_stand_in(value, size)) if _is_traced(value) and value.shape == () else value
            object.__setattr__(new, name, number)
        return new

    if isinstance(families, Corner):
        others = tuple((name, replaced(family)) for name, family in families.others)
        return dataclasses.replace(families, assignments=replaced(families.assignments), others=others)
    return {name: replaced(family) for name, family in families.items()} if isinstance(families, Mapping) else families


def _maps(mean_field: MeanField, other: MeanField, form: ExponentialForm) -> tuple[Any, ...]:
    """The numbers of all affine maps, from a form of which the numbers are traced.

    Those that are the same with the stand-ins of two plans do not depend on what is traced.
    """

    def differ(name: str, group: str) -> bool:
        first, second = (getattr(each.factors[name], group) for each in (mean_field, other))
        if first is None:
            return False
        pairs = ((first.coefficient, second.coefficient), (first.offset, second.offset))
        sizes = [1.0 + np.abs(pair[0]).max(initial=0.0) for pair in pairs]
        return any((np.abs(np.subtract(*pair)) > _SAME * size).any() for pair, size in zip(pairs, sizes, strict=True))

    groups = ("location", "statistics")
    moving = {(name, group) for name in mean_field.factors for group in groups if differ(name, group)}
    numbers = {}
    if moving:
        width = max(getattr(mean_field.factors[name], group).index.shape[1] for name, group in moving)
        draws = [mean_field.form.program.random_params(41 + seed) for seed in range(_NUM_DRAWS + 2 * width)]
        views = {site.name: site.view for site in mean_field.sites}
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *draws)
        arguments, sources = jax.vmap(lambda params: arguments_and_sources(form, views, params))(stacked)
        for name, group in moving:
            edge = getattr(mean_field.factors[name], group)
            numbers[name, group] = _fitted(edge, arguments[name][group], sources)
    return tuple(
        tuple(
            None if edge is None else numbers.get((name, group), edge.numbers)
            for group, edge in (("location", factor.location), ("statistics", factor.statistics))
        )
        for name, factor in mean_field.factors.items()
    )


def _fitted(
    edge: AffineMap, targets: Shaped[Array, "draws ..."], sources: Mapping[str, Float[Array, "draws _"]]
) -> tuple[Float[Array, "E M"], Float[Array, " E"]]:
    """Coefficients and offsets, by least squares, which have no residual."""
    target = targets.reshape(len(targets), -1)
    source = jnp.concatenate([sources[name].reshape(len(target), -1) for name in edge.sites], 1)[:, edge.index]
    source = jnp.where(edge.used, source, 0.0)
    middle, level = source.mean(0), target.mean(0)
    centred = source - middle
    # Ones in the place of what is not used.
    unused = jnp.asarray(~edge.used, source.dtype)[..., None] * jnp.eye(source.shape[-1], dtype=source.dtype)
    products = jnp.einsum("rem,ren->emn", centred, centred) + unused
    slopes = jnp.einsum("rem,re->em", centred, target - level)
    coefficient = jnp.linalg.solve(products, slopes[..., None])[..., 0]
    return coefficient, level - (coefficient * middle).sum(1)
