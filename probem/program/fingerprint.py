"""When two programs are the same: the key of everything that is found out, or compiled, once for a program."""

import functools
import hashlib
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from probem.errors import InputError


def program_key(function: Callable[..., Any]) -> Hashable:
    """What makes two programs the same: the same function, bound to, closing over and naming equal values.

    A notebook changes a global and fits again: the program is then another one, though the function is the same object.
    """
    return _fingerprint(function, {})


# Libraries do not change under a program; what they define stands for itself.
_LIBRARIES = ("jax", "jaxlib", "numpy", "numpyro", "builtins", "functools", "math", "scipy", "pandas", "polars")


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES


def _fingerprint(value: Any, seen: dict[int, tuple[int, Any]]) -> Hashable:
    """``seen`` numbers what was met before, and holds it, so that no other object takes its place in memory."""
    if isinstance(value, Tracer):
        raise InputError(
            "a traced value bound to the program",
            "values that are known when the program is read",
            "pass it as data or in init=, or bind it outside jit, vmap and grad",
        )
    if isinstance(value, str | bytes | int | float | complex | None):
        # With its type: True is 1 is 1.0 to a dictionary, but not to a program.
        return type(value), value
    if id(value) in seen:
        return "again", seen[id(value)][0]
    seen[id(value)] = (len(seen), value)
    if isinstance(value, functools.partial):
        keywords = tuple((name, _fingerprint(part, seen)) for name, part in sorted(value.keywords.items()))
        arguments = tuple(_fingerprint(part, seen) for part in value.args)
        return "partial", _fingerprint(value.func, seen), arguments, keywords
    if isinstance(value, types.MethodType):
        return "method", value.__func__, _fingerprint(value.__self__, seen)
    if isinstance(value, types.FunctionType):
        return _fingerprint_function(value, seen)
    if isinstance(value, dict):
        return "dict", tuple((str(name), _fingerprint(part, seen)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_fingerprint(part, seen) for part in value)
    if isinstance(value, np.ndarray | jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        array = np.asarray(value)
        return "array", array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()
    itself = value if _is_hashable(value) else id(value)
    inside: Any = None
    if not isinstance(value, type | types.ModuleType):
        if callable(value) or not _is_library(type(value).__module__):
            # jax.jit(program), a handler around one, an object that is called or whose attributes are read.
            inside = [getattr(value, "__wrapped__", None), getattr(value, "__dict__", None)]
    return type(value), itself, _fingerprint(inside, seen)


def _fingerprint_function(value: types.FunctionType, seen: dict[int, tuple[int, Any]]) -> Hashable:
    # A check of annotations around a function changes nothing that it says, and names half of its own library.
    while value.__globals__.get("__name__", "").startswith(("jaxtyping.", "beartype.")) and hasattr(
        value, "__wrapped__"
    ):
        value = value.__wrapped__
    if _is_library(value.__module__):
        return value
    names = _names(value.__code__)
    outside: dict[str, Any] = {name: value.__globals__[name] for name in names if name in value.__globals__}
    for name, module in list(outside.items()):
        if isinstance(module, types.ModuleType) and not _is_library(module.__name__):
            # What is named of a module of the user's own.
            outside |= {f"{name}.{part}": vars(module)[part] for part in names if part in vars(module)}
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            outside[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    defaults = (value.__defaults__, value.__kwdefaults__)
    return value, _fingerprint(outside, seen), _fingerprint(defaults, seen)


def _names(code: types.CodeType) -> list[str]:
    """The names of globals and attributes in a function, and in the functions inside it."""
    inner = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in _names(constant)]
    return sorted({*code.co_names, *inner})


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
