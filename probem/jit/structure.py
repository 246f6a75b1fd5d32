"""What functions are compiled for, and the numbers that they take as arguments.

Of an object that functions are compiled for (a plan, a program), the numbers that its user chose and those that follow
from them are arguments of the functions. All else is its structure: equal structures share what is compiled. Inside a
trace stands a copy of the object with traced numbers. It asks the object that it was made from (its ``origin``) for
what follows from the structure alone, so a decision that looks at a traced number fails, and does not go wrong.

This is a pytree in all but name. It is none, since JAX would take a plan apart and put it together in every call.
"""

import dataclasses
import weakref
from collections.abc import Hashable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from probem.jit.tracing import kept

T = TypeVar("T")


@runtime_checkable
class Numbered(Protocol):
    """What functions are compiled for: by its structure, and with its numbers as arguments."""

    @property
    def structure(self) -> Hashable:
        """Equal for all that differ in their numbers alone."""
        ...

    @property
    def numbers(self) -> Any:
        """A pytree of Python floats and arrays."""
        ...

    def with_numbers(self, numbers: Any) -> Any:
        """A copy with other numbers, known or traced."""
        ...


def origin(value: T) -> T:
    """The object that a copy inside a trace was made from; any other is its own."""
    return getattr(value, "__dict__", {}).get("_origin", value)


def with_origin(copy: T, original: Any) -> T:
    """The copy, which asks the original for what follows from the structure alone."""
    vars(copy)["_origin"] = origin(original)
    return copy


class shared(kept):
    """A property that follows from the structure alone: it is worked out for the original, and not for its copies."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return super().__get__(None if instance is None else origin(instance), owner)


class Structure:
    """The structure of something as one object: equal where the contents are, and hashed once."""

    __slots__ = ("__weakref__", "_hash", "content")

    def __init__(self, content: Hashable) -> None:
        self.content = content
        self._hash = hash(content)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Structure) and self._hash == other._hash and self.content == other.content
        )

    def __repr__(self) -> str:
        return f"Structure({self._hash:#x})"


# One object for equal structures, so that a dictionary knows it at once.
_every: "weakref.WeakValueDictionary[Structure, Structure]" = weakref.WeakValueDictionary()


def structure_of(*content: Any) -> Structure:
    """The structure with this content, whatever ``structural`` takes."""
    return interned(structural(content))


def interned(key: Hashable) -> Structure:
    """The structure with this key for its content."""
    made = Structure(key)
    return _every.setdefault(made, made)


def structural(value: Any) -> Hashable:
    """A key that is equal where values have equal contents, arrays and dataclasses entry by entry; of what is
    ``Numbered``, its structure.
    """
    if isinstance(value, Structure):
        return value
    if isinstance(value, constraints.Constraint):
        leaves, treedef = jax.tree.flatten(value)
        if len(leaves) == 1 and leaves[0] is value:  # of a user's own, which JAX does not know
            return type(value), value
        return type(value), treedef, tuple(structural(leaf) for leaf in leaves)
    if isinstance(value, type):
        return value
    if hasattr(type(value), "with_numbers"):
        return value.structure
    if isinstance(value, np.ndarray | jax.Array):
        array = np.asarray(value)
        return array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, Mapping):
        return tuple((name, structural(part)) for name, part in value.items())
    if isinstance(value, tuple | list):
        return type(value), tuple(structural(part) for part in value)
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return type(value), tuple((field.name, structural(getattr(value, field.name))) for field in fields)
    # True is 1 is 1.0 to a dictionary.
    return type(value), value


# A power of two more than 1, which leaves the dtype of an array as it is.
_NEARBY = 1 + 2.0**-10


def nearby(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers of the same kinds, a thousandth larger: what agrees by chance at some numbers does not at these."""
    return tuple(_nearby(number) for number in numbers)


def _nearby(number: Any) -> Any:
    if isinstance(number, np.ndarray | jax.Array):
        array = np.asarray(np.asarray(number) * _NEARBY, number.dtype)
        return array if isinstance(number, np.ndarray) else jax.device_put(array)
    return type(number)(number * _NEARBY)


def agree(first: Any, second: Any) -> bool:
    """Whether two trees of results are the same, but for rounding in the precision in use."""
    tolerance = 1e3 * float(jnp.finfo(jnp.result_type(float)).eps)
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return all(_is_close(np.asarray(one), np.asarray(other), tolerance) for one, other in pairs)


def _is_close(first: np.ndarray, second: np.ndarray, tolerance: float) -> bool:
    largest = float(np.abs(np.where(np.isfinite(first), first, 0.0)).max(initial=0.0))
    return np.allclose(first, second, rtol=tolerance, atol=tolerance * largest, equal_nan=True)
