"""When two programs are the same, and the numbers that one of them holds.

A program is a function together with what it is bound to, closes over, and names. Of these, floats and arrays of floats
are numbers, which functions compiled for the program take as arguments; all else is its structure. ``Lifted`` is a
program taken apart so: programs of one structure share what is found out, and compiled, once.
"""

import dataclasses
import functools
import hashlib
import struct
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro import handlers

from probem.errors import InputError
from probem.jit.compilation import is_cached
from probem.jit.structure import interned
from probem.program.attributes import body, imported, is_library, named_inside, names_in, slots
from probem.program.mixtures import WithAssignments

#: A Python float, whose dtype is weak, or an array of floats.
Number = Any


def program_key(function: Callable[..., Any]) -> Hashable:
    """What makes two programs the same: the same function, bound to, closing over and naming equal values.

    A notebook changes a global and fits again: the program is then another one, though the function is the same object.
    """
    lifted = lift(function)
    return lifted.structure, tuple(number_key(number) for number in lifted.numbers)


def number_key(number: Number) -> Hashable:
    """Equal for numbers of the same type, shape and bits."""
    if type(number) is float:
        return struct.pack("<d", number)
    array = np.asarray(number)
    return array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()


@dataclasses.dataclass(eq=False)
class _Node:
    """A value of the program: what is in it by place, which number it is, or the node at which it was met before."""

    value: Any
    parts: dict[Any, "_Node"] = dataclasses.field(default_factory=dict)
    number: int | None = None
    again: "_Node | None" = None
    key: Hashable = None


class Lifted:
    """A program without its numbers.

    Attributes
    ----------
    structure : what makes two programs the same but for their numbers
    numbers : floats and arrays of floats, as they were when the program was taken apart
    """

    def __init__(self, root: _Node, numbers: Sequence[Number]) -> None:
        self._root = root
        self.structure = interned(root.key)
        self.numbers = tuple(numbers)

    def function(self, numbers: Sequence[Number]) -> Callable[..., Any]:
        """The program with these numbers in the place of its own."""
        if not self.numbers:
            return self._root.value
        return _restored(self._root, numbers, self._lifting, {})

    @functools.cached_property
    def _lifting(self) -> set[int]:
        """The nodes with a number in them or behind them, by id."""
        parents: dict[int, list[_Node]] = {}
        seen: dict[int, _Node] = {}
        stack = [self._root]
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen[id(node)] = node
            for part in (*node.parts.values(), *([node.again] if node.again else [])):
                parents.setdefault(id(part), []).append(node)
                stack.append(part)
        lifting: set[int] = set()
        stack = [node for node in seen.values() if node.number is not None]
        while stack:
            node = stack.pop()
            if id(node) not in lifting:
                lifting.add(id(node))
                stack += parents.get(id(node), [])
        return lifting


def lift(function: Callable[..., Any]) -> Lifted:
    """Take a program apart.

    Raises
    ------
    InputError
        For a traced value where only known ones can be.
    """
    walk = _Walk()
    return Lifted(walk.node(function), walk.numbers)


def _restored(node: _Node, numbers: Sequence[Number], lifting: set[int], made: dict[int, Any]) -> Any:
    """The value of a node with other numbers: whatever holds none of them is used as it is."""
    if node.number is not None:
        return numbers[node.number]
    if id(node) not in lifting:
        return node.value
    if node.again is not None:
        return _restored(node.again, numbers, lifting, made)
    if id(node) in made:
        return made[id(node)]

    def part(place: Any) -> Any:
        return _restored(node.parts[place], numbers, lifting, made)

    value = node.value
    new: Any
    if isinstance(value, types.FunctionType):
        return _restored_function(node, part, lifting, made)
    if isinstance(value, functools.partial):
        arguments = [part(("argument", place)) for place in range(len(value.args))]
        new = functools.partial(part("func"), *arguments, **{name: part(("keyword", name)) for name in value.keywords})
        return made.setdefault(id(node), new)
    if isinstance(value, types.MethodType):
        return made.setdefault(id(node), types.MethodType(value.__func__, part("self")))
    if isinstance(value, dict):
        new = made[id(node)] = {}
        new.update({name: part(name) for name in value})
        return new
    if isinstance(value, list):
        new = made[id(node)] = []
        new.extend(part(place) for place in range(len(value)))
        return new
    if isinstance(value, tuple):
        return made.setdefault(id(node), tuple.__new__(type(value), [part(place) for place in range(len(value))]))
    # A handler or a dataclass, whose checks have seen its numbers before.
    new = made[id(node)] = object.__new__(type(value))
    for name in node.parts:
        object.__setattr__(new, name, part(name))
    return new


def _restored_function(
    node: _Node, part: Callable[[Any], Any], lifting: set[int], made: dict[int, Any]
) -> Callable[..., Any]:
    value: types.FunctionType = node.value
    replaced = {place[1] for place, inside in node.parts.items() if place[0] == "outside" and id(inside) in lifting}
    free = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
    cells = {
        # Functions that share a variable go on sharing it.
        name: made.setdefault(id(cell), types.CellType()) if name in replaced else cell
        for name, cell in free.items()
    }
    outside = dict(value.__globals__)
    new = made[id(node)] = types.FunctionType(value.__code__, outside, value.__name__, None, tuple(cells.values()))
    vars(new).update(vars(value))
    new.__qualname__, new.__module__, new.__doc__ = value.__qualname__, value.__module__, value.__doc__
    new.__defaults__, new.__kwdefaults__ = part(("defaults",)), part(("kwdefaults",))
    for name in replaced:
        if name in free:
            cells[name].cell_contents = part(("outside", name))
        else:
            outside[name] = part(("outside", name))
    return new


# Of a list of more numbers, which is a table rather than a setting, the others are structure.
_MOST_NUMBERS = 256
# Handlers that are no more than what they were given.
_HANDLERS = (handlers.condition, handlers.substitute, handlers.scale, handlers.mask, WithAssignments)


class _Walk:
    """Through all that a program holds, each object once, in an order that depends on its structure alone."""

    def __init__(self) -> None:
        self.numbers: list[Number] = []
        # By id, and with the object, so that no other takes its place in memory: what was met, and in which order.
        self._seen: dict[tuple[int, bool], tuple[int, _Node, Any]] = {}

    def node(self, value: Any, lifts: bool = True) -> _Node:
        """``lifts`` says whether another value could be put into the place of this one."""
        if isinstance(value, Tracer):
            raise InputError(
                "a traced value bound to the program",
                "values that are known when the program is read",
                "pass it as data or in init=, or bind it outside jit, vmap and grad",
            )
        lifts = lifts and len(self.numbers) < _MOST_NUMBERS
        if lifts and type(value) is float:
            return self._number(value, ("number",))
        if lifts and isinstance(value, np.floating) and value.itemsize <= 8:
            return self._number(value, ("number", type(value)))
        if lifts and _has_numbers(value) and value.ndim == 0:
            # A number like those: wherever it stands, it stands for itself.
            return self._number(_snapshot(value), _array_kind(value))
        if isinstance(value, str | bytes | int | float | complex | None):
            # With its type: True is 1 is 1.0 to a dictionary, but not to a program.
            return _Node(value, key=(type(value), value))
        if (id(value), lifts) in self._seen:
            place, node, _ = self._seen[id(value), lifts]
            return _Node(value, again=node, number=node.number, key=("again", place))
        node = _Node(value)
        self._seen[id(value), lifts] = len(self._seen), node, value
        if isinstance(value, np.ndarray | jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            if lifts and _has_numbers(value):
                node.number, node.key = len(self.numbers), _array_kind(value)
                self.numbers.append(_snapshot(value))
            else:
                node.key = ("array", number_key(value))
            return node
        node.key = self._container(node, lifts)
        return node

    def _number(self, value: Number, kind: Hashable) -> _Node:
        self.numbers.append(value)
        return _Node(value, number=len(self.numbers) - 1, key=kind)

    def _part(self, node: _Node, place: Any, value: Any, lifts: bool) -> Hashable:
        node.parts[place] = part = self.node(value, lifts)
        return part.key

    def _container(self, node: _Node, lifts: bool) -> Hashable:
        value, part = node.value, functools.partial(self._part, node)
        if isinstance(value, functools.partial):
            lifts = lifts and type(value) is functools.partial
            func = part("func", value.func, lifts)
            arguments = tuple(part(("argument", place), each, lifts) for place, each in enumerate(value.args))
            keywords = tuple(
                (name, part(("keyword", name), each, lifts)) for name, each in sorted(value.keywords.items())
            )
            return "partial", func, arguments, keywords
        if isinstance(value, types.MethodType):
            return "method", part("func", value.__func__, False), part("self", value.__self__, lifts)
        if isinstance(value, types.FunctionType):
            return self._function(node, lifts)
        if isinstance(value, dict):
            inside = lifts and type(value) is dict
            # A memory of somebody's own may grow while what it holds is looked at.
            return "dict", tuple((str(name), part(name, each, inside)) for name, each in tuple(value.items()))
        if isinstance(value, list | tuple):
            inside = lifts and (type(value) in (list, tuple) or hasattr(type(value), "_fields"))
            return type(value), tuple(part(place, each, inside) for place, each in enumerate(value))
        if lifts and (type(value) in _HANDLERS or _is_plain_dataclass(value)):
            cached = {name for base in type(value).__mro__ for name, each in vars(base).items() if is_cached(each)}
            inside = {name: each for name, each in vars(value).items() if name not in cached}
            fields = tuple((name, part(name, each, True)) for name, each in inside.items())
            return type(value), fields, self.node(type(value), False).key
        if isinstance(value, set | frozenset):
            return type(value), tuple(sorted(map(repr, value)))
        itself = value if _is_hashable(value) else id(value)
        inside: Any = None
        if isinstance(value, type):
            inside = dict(body(value))
        elif not isinstance(value, types.ModuleType):
            if callable(value) or not is_library(type(value).__module__):
                # jax.jit(program), a handler around one, an object that is called or whose attributes are read.
                named = [name for base in type(value).__mro__ for name in slots(base)]
                inside = [getattr(value, "__wrapped__", None), getattr(value, "__dict__", None)]
                inside += [getattr(value, name, None) for name in named]
                inside.append(type(value))
        return type(value), itself, self.node(inside, False).key

    def _function(self, node: _Node, lifts: bool) -> Hashable:
        value, part = node.value, functools.partial(self._part, node)
        # A check of annotations around a function changes nothing that it says, and names half of its own library.
        while value.__globals__.get("__name__", "").startswith(("jaxtyping.", "beartype.")) and hasattr(
            value, "__wrapped__"
        ):
            value = value.__wrapped__
        if is_library(value.__module__):
            return value
        if value is not node.value:
            if not isinstance(value, types.FunctionType):
                return part(("wrapped",), value, False)
            node.value = value
        names = names_in(value.__code__)
        outside: dict[str, Any] = {name: value.__globals__[name] for name in names if name in value.__globals__}
        modules: dict[str, Any] = {}
        for name, module in outside.items():
            modules |= named_inside(name, module, names)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                outside[name] = cell.cell_contents
            except ValueError:  # not bound yet
                outside.pop(name, None)
            else:
                modules |= named_inside(name, cell.cell_contents, names)
        for name, module in imported(value).items():
            modules |= named_inside(name, module, names)
        attributes = {name: each for name, each in vars(value).items() if name != "__wrapped__"}
        return (
            value.__code__,
            tuple((name, part(("outside", name), each, lifts)) for name, each in outside.items()),
            tuple((name, part(("module", name), each, False)) for name, each in modules.items()),
            part(("defaults",), value.__defaults__, lifts),
            part(("kwdefaults",), value.__kwdefaults__, lifts),
            part(("attributes",), attributes, False) if attributes else None,
        )


def _has_numbers(value: Any) -> bool:
    """Whether an array has floats that JAX takes as they are: no mask around it, nor another order of bytes."""
    plain = isinstance(value, jax.Array) or (type(value) is np.ndarray and value.dtype.isnative)
    return plain and jnp.issubdtype(value.dtype, jnp.floating) and value.dtype.itemsize <= 8


def _array_kind(value: Any) -> Hashable:
    return "number", value.shape, str(value.dtype), bool(getattr(value, "weak_type", False))


def _snapshot(value: Any) -> Any:
    """The array as it is now."""
    return value if isinstance(value, jax.Array) else value.copy()


def _is_plain_dataclass(value: Any) -> bool:
    """Whether an object is a dataclass whose numbers stand in its ``__dict__``, and nowhere else."""
    cls = type(value)
    plain = dataclasses.is_dataclass(value) and not isinstance(value, type) and not is_library(cls.__module__)
    return plain and hasattr(value, "__dict__") and not any(vars(base).get("__slots__") for base in cls.__mro__)


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
