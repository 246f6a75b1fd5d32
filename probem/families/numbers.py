"""A family of the assignments with its numbers apart: a sweep over a temperature compiles once."""

import dataclasses
import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.families.assignments import AssignmentFamily, HalfStep
from probem.jit.structure import Structure, agree, nearby, structure_of


@dataclasses.dataclass(frozen=True, eq=False)
class LiftedFamily:
    """A family, and the fields of it that are numbers, of which functions may be asked while they are traced."""

    family: AssignmentFamily
    names: tuple[str, ...]

    @functools.cached_property
    def structure(self) -> Structure:
        if not self.names:
            return structure_of(type(self.family), self.family)
        fields = {field.name: getattr(self.family, field.name) for field in dataclasses.fields(self.family)}  # type: ignore[arg-type]
        others = {name: value for name, value in fields.items() if name not in self.names}
        # With its type: JAX treats a number of Python's otherwise than one of NumPy's.
        kinds = tuple(type(fields[name]) for name in self.names)
        return structure_of(type(self.family), self.names, kinds, tuple(others.items()))

    @property
    def numbers(self) -> tuple[Any, ...]:
        return tuple(getattr(self.family, name) for name in self.names)

    def with_numbers(self, numbers: tuple[Any, ...]) -> "LiftedFamily":
        """With others, known or traced, which its class is not asked to check again."""
        if not self.names:
            return self
        family = object.__new__(type(self.family))
        fields = dataclasses.fields(self.family)  # type: ignore[arg-type]
        values = {field.name: getattr(self.family, field.name) for field in fields}
        for name, value in {**values, **dict(zip(self.names, numbers, strict=True))}.items():
            object.__setattr__(family, name, value)
        return LiftedFamily(family, self.names)


@functools.lru_cache(maxsize=256)
def lifted_family(family: AssignmentFamily, num_values: int) -> LiftedFamily:
    """A family with its fields that are floats as numbers, unless it asks what they are (``if self.beta > 3``)."""
    whole = LiftedFamily(family, ())
    cls = type(family)
    if not dataclasses.is_dataclass(family) or "__dataclass_fields__" not in vars(cls):
        return whole
    values = {field.name: getattr(family, field.name) for field in dataclasses.fields(family)}
    names = tuple(name for name, value in values.items() if type(value) is float or isinstance(value, np.floating))
    trial = LiftedFamily(family, names)
    try:
        return trial if names and _look(trial, num_values) == _look(whole, num_values) and _agrees(trial) else whole
    except Exception:
        # What is wrong with the family is said where it is held against what it says of itself.
        return whole


def _asked(lifted: LiftedFamily, numbers: tuple[Any, ...], table: Float[Array, "2 K"]) -> Any:
    """All that a fit asks of a family, with these numbers."""
    family, num_values = lifted.with_numbers(numbers).family, table.shape[1]
    zero = jnp.zeros((), jnp.uint32)
    assigned = family.assign(table, family.begin(2, num_values), HalfStep(zero, zero, zero))
    weights = jnp.asarray(family.entropy_weight), jnp.asarray(family.is_final(jnp.zeros((), jnp.int32)))
    return family.project(table), assigned, family.mode(table), weights


# Whether families of a structure give the same with traced numbers.
_agreed: dict[Structure, bool] = {}
# Values of an assignment in the table with which that is found out.
_TRIED_VALUES = 5


def _agrees(lifted: LiftedFamily) -> bool:
    """Whether traced numbers give what the numbers themselves do, here and nearby; asked once for a structure."""
    if lifted.structure not in _agreed:
        _agreed[lifted.structure] = _gives_the_same(lifted, _TRIED_VALUES)
    return _agreed[lifted.structure]


def _gives_the_same(lifted: LiftedFamily, num_values: int) -> bool:
    table = np.random.default_rng(0).normal(size=(2, num_values)).astype(jnp.result_type(float))
    traced = jax.jit(functools.partial(_asked, lifted))
    with jax.ensure_compile_time_eval():
        return all(
            agree(jax.jit(functools.partial(_asked, lifted, numbers))(table), traced(numbers, table))
            for numbers in (lifted.numbers, nearby(lifted.numbers))
        )


def _look(lifted: LiftedFamily, num_values: int) -> Hashable:
    """The shapes of all that a fit asks of it."""
    table = jax.ShapeDtypeStruct((2, num_values), jnp.result_type(float))
    leaves, treedef = jax.tree.flatten(jax.eval_shape(functools.partial(_asked, lifted), lifted.numbers, table))
    return treedef, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
