"""When two programs are the same: the key of everything that is found out, or compiled, once for a program."""

import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def program_key(function: Callable[..., Any]) -> Hashable:
    """What makes two programs the same: the same function, bound to, closing over and naming equal values.

    A notebook changes a global and fits again: the program is then another one, though the function is the same object.
    """
    return _fingerprint(function, frozenset())


# Libraries do not change under a program; what they define stands for itself.
_LIBRARIES = ("jax", "jaxlib", "numpy", "numpyro", "builtins", "functools", "math")


def _fingerprint(value: Any, seen: frozenset[int]) -> Hashable:
    if id(value) in seen or isinstance(value, Tracer):
        return id(value)
    seen = seen | {id(value)}
    if isinstance(value, functools.partial):
        keywords = tuple((name, _fingerprint(own, seen)) for name, own in sorted(value.keywords.items()))
        return "partial", _fingerprint(value.func, seen), tuple(_fingerprint(own, seen) for own in value.args), keywords
    if isinstance(value, types.MethodType):
        return "method", value.__func__, _fingerprint(vars(value.__self__), seen)
    if isinstance(value, types.FunctionType):
        # A check of annotations around a function changes nothing that it says, and names half of its own library.
        while value.__globals__.get("__name__", "").startswith(("jaxtyping.", "beartype.")) and hasattr(
            value, "__wrapped__"
        ):
            value = value.__wrapped__
        if (value.__module__ or "").partition(".")[0] in _LIBRARIES:
            return value
        named = inspect.getclosurevars(value)
        outside = {**named.globals, **named.nonlocals}
        defaults = (value.__defaults__, value.__kwdefaults__)
        return value, _fingerprint(outside, seen), _fingerprint(defaults, seen)
    if isinstance(value, dict):
        return "dict", tuple((str(name), _fingerprint(own, seen)) for name, own in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_fingerprint(own, seen) for own in value)
    if isinstance(value, np.ndarray | jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        array = np.asarray(value)
        return "array", array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    # With its type: True is 1 is 1.0 to a dictionary, but not to a program.
    return type(value), value
