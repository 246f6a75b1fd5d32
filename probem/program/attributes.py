"""What a function reads of modules and classes of the user's own, whose attributes may change."""

import functools
import opcode
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

# Libraries do not change under a program; what they define stands for itself.
_LIBRARIES = ("jax", "jaxlib", "numpy", "numpyro", "builtins", "functools", "math", "scipy", "pandas", "polars")
# What Python writes into a class.
_PYTHONS = {"_abc_impl"}


def is_library(module: str | None) -> bool:
    """Whether a module belongs to one of the libraries that programs are written with."""
    return (module or "").partition(".")[0] in _LIBRARIES


@functools.lru_cache(maxsize=1024)
def _is_installed(module: str | None) -> bool:
    """Whether a module is Python's, probem's or from a package, and so not the user's own."""
    package = (module or "").partition(".")[0]
    if package in ("probem", *sys.stdlib_module_names) or is_library(module):
        return True
    return "site-packages" in (getattr(sys.modules.get(module or ""), "__file__", None) or "")


def names_in(code: types.CodeType) -> list[str]:
    """The names of globals and attributes in a function, and in the functions inside it."""
    inner = [name for constant in code.co_consts if isinstance(constant, types.CodeType) for name in names_in(constant)]
    # pytest writes a module of its own, under a name that no program can have, into functions that assert.
    return sorted({name for name in (*code.co_names, *inner) if not name.startswith("@")})


def named_inside(name: str, owner: Any, names: Sequence[str]) -> dict[str, Any]:
    """What a function names of a module, and of modules in it, or of a class."""
    if isinstance(owner, types.ModuleType):
        if is_library(owner.__name__):
            return {}
        found = _attributes(name, [vars(owner)], names)
        for place, each in tuple(found.items()):
            # A module of a package, not one that a module has imported for itself.
            if isinstance(each, types.ModuleType) and each.__name__.startswith(f"{owner.__name__}."):
                found |= named_inside(place, each, names)
        return found
    if isinstance(owner, type) and not is_library(owner.__module__):
        return _attributes(name, [vars(base) for base in reversed(owner.__mro__)], names)
    return {}


def _attributes(name: str, owners: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    return {f"{name}.{each}": owner[each] for owner in owners for each in names if each in owner}


def imported(function: types.FunctionType) -> dict[str, types.ModuleType]:
    """The modules of the user's own that a function imports when it is called."""
    package = function.__globals__.get("__package__") or ""
    found = {}
    for name in _imports(function.__code__):
        for full in (name, f"{package}.{name}"):
            if full in sys.modules and not _is_installed(full):
                found[full] = sys.modules[full]
    return found


@functools.lru_cache(maxsize=1024)
def _imports(code: types.CodeType) -> frozenset[str]:
    """The names of the modules that a function, or one inside it, imports."""
    found, wide = set[str](), 0
    for place in range(0, len(code.co_code), 2):
        operation, argument = code.co_code[place : place + 2]
        argument |= wide << 8
        wide = argument if operation == opcode.opmap["EXTENDED_ARG"] else 0
        if operation == opcode.opmap["IMPORT_NAME"]:
            found.add(code.co_names[argument])
    inner = (_imports(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(found.union(*inner))


def body(cls: type) -> Iterator[tuple[str, Any]]:
    """What a class of the user's own, and the classes it inherits from, say: values, and the functions of methods and
    properties.
    """
    for base in reversed(cls.__mro__):
        if _is_installed(base.__module__):
            continue
        for name, value in tuple(vars(base).items()):
            function = _function_of(value)
            if name in _PYTHONS or (name.startswith("__") and not isinstance(function, types.FunctionType)):
                continue
            yield f"{base.__qualname__}.{name}", function


def _function_of(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    if isinstance(value, property):
        return value.fget
    return value.func if isinstance(value, functools.cached_property) else value


def slots(cls: type) -> tuple[str, ...]:
    """The names of attributes that stand in no dictionary."""
    names = vars(cls).get("__slots__", ())
    return (names,) if isinstance(names, str) else tuple(names)
