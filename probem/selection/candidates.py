"""The programs that ``select`` fits: a grid of keyword arguments, or a mapping from name to program, checked."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from probem.errors import InputError, nearest
from probem.program.fingerprint import program_key

#: What one candidate is: the values that were tried, by name.
Choice = dict[str, Any]
_Program = Callable[..., Any]


def programs_of(program: _Program | Mapping[str, Any], over: Any, num_data: int) -> list[tuple[Choice, _Program]]:
    """Every candidate: its settings, and the program with them bound; the last name of ``over`` varies fastest.

    Raises
    ------
    InputError
        For a name that the program does not take, and for no values or the same twice.
    """
    if isinstance(program, Mapping):
        return _ready(program, over)
    if not callable(program):
        raise InputError(f"a program of type {type(program).__name__}", "a NumPyro program (a function)", "pass it")
    if not isinstance(over, Mapping) or not over:
        raise InputError(
            "nothing to choose over" if over is None or over == {} else f"over of type {type(over).__name__}",
            "keyword arguments of the program with the values to try",
            "write over={'num_components': range(1, 7)}, or pass a mapping from name to program",
        )
    _check_names(program, over, num_data)
    grid = {name: _values(program, name, values) for name, values in over.items()}
    every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return [(settings, functools.partial(program, **settings)) for settings in every]


def _ready(programs: Mapping[str, Any], over: Any) -> list[tuple[Choice, _Program]]:
    if over is not None:
        raise InputError(
            "over= beside a mapping of programs", "one of them", "bind the values beforehand, with functools.partial"
        )
    if not programs:
        raise InputError("an empty mapping of programs", "at least one program", "name one")
    for name, program in programs.items():
        if not callable(program):
            raise InputError(
                f"a program of type {type(program).__name__} under '{name}'", "a NumPyro program", "pass a function"
            )
    _refuse_equal([str(name) for name in programs], list(programs.values()), "the programs")
    return [({"program": name}, program) for name, program in programs.items()]


def _check_names(program: _Program, over: Mapping[str, Any], num_data: int) -> None:
    parameters = inspect.signature(program).parameters
    positional = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    data = positional[:num_data]
    by_keyword = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        and name not in data
    ]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in over:
        if name in data:
            raise InputError(
                f"over['{name}'], a data argument of the program", "arguments bound beforehand", "take it out"
            )
        if name not in by_keyword and not takes_any:
            raise InputError(f"over['{name}']", "a keyword argument of the program", nearest(str(name), by_keyword))


def _values(program: _Program, name: str, values: Any) -> list[Any]:
    is_list = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)
    if not is_list or (isinstance(values, np.ndarray) and values.ndim == 0):
        raise InputError(f"over['{name}']={shown(values)}", "a list of the values to try", f"write [{shown(values)}]")
    # A number of an array is no Python number, and ``range`` takes no other.
    choices = values.tolist() if isinstance(values, np.ndarray) and values.ndim == 1 else list(values)
    if not choices:
        raise InputError(f"over['{name}'] without a value", "at least one value", "give it one, or leave it out")
    programs = [functools.partial(program, **{name: value}) for value in choices]
    _refuse_equal([shown(value) for value in choices], programs, f"over['{name}']")
    return choices


def _refuse_equal(names: list[str], programs: list[_Program], where: str) -> None:
    seen: dict[Any, str] = {}
    for name, program in zip(names, programs, strict=True):
        key = program_key(program)
        if key in seen:
            what = f"{name} twice" if seen[key] == name else f"the same under {seen[key]} and {name}"
            raise InputError(f"{what} in {where}", "every candidate once", "leave one out")
        seen[key] = name


def shown(value: Any) -> str:
    """A value in a table: a function by its name, an array by its shape, the rest as Python writes it."""
    if isinstance(value, functools.partial):
        bound = [*map(shown, value.args), *(f"{name}={shown(argument)}" for name, argument in value.keywords.items())]
        return f"{shown(value.func)}({', '.join(bound)})"
    if isinstance(value, str):
        return value
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
        return f"array{list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
