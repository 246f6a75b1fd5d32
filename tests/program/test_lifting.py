"""A program taken apart and put together again: other numbers in every place where it holds them."""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpyro import handlers

from probem import InputError
from probem.program.fingerprint import lift

FACTOR = 2.0
WHOLE = 3


class Pair(NamedTuple):
    first: float
    second: Any


@dataclasses.dataclass(frozen=True)
class Setting:
    """Its check has seen its numbers, and is not asked again."""

    size: float
    name: str = "size"

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise ValueError("not positive")

    @functools.cached_property
    def double(self) -> float:
        return 2 * self.size

    def __call__(self, x: float) -> float:
        return self.size * x


def bound(x, shift, *, scale=1.0):
    return FACTOR * x * scale + shift


def outer(x):
    def inner(y):
        return bound(y, 0.5) + WHOLE

    return inner(x)


def closing():
    count, weight = 1, 4.0

    def first(x):
        return x * weight if count else x

    def second(x):
        return first(x) + weight

    return second


def even(x, depth=4, step=1.0):
    return x if depth == 0 else odd(x + step, depth - 1)


def odd(x, depth):
    return even(x, depth - 1)


SETTING = Setting(3.0)
ARRAY = np.array([1.0, 2.0])

CASES = {
    "number of a partial": (functools.partial(bound, shift=1.0), 3),
    "nested partials": (functools.partial(functools.partial(bound, scale=3.0), shift=1.0), 4),
    "globals of functions inside": (outer, 2),
    "closures": (closing(), 2),
    "recursion": (even, 1),
    "a method": (SETTING.__call__, 1),
    "a dataclass": (functools.partial(lambda x, s: s(x) + s.double, s=SETTING), 1),
    "a named tuple": (functools.partial(lambda x, p: p.first * x + p.second[0], p=Pair(1.5, [2.5, 1])), 2),
    "a dictionary": (functools.partial(lambda x, p: p["a"] * x, p={"a": 1.5, "b": "c"}), 1),
    "an array": (functools.partial(lambda x, p: (p * x).sum(), p=ARRAY), 1),
    "one array twice": (functools.partial(lambda x, p, q: (p * x + q).sum(), p=ARRAY, q=ARRAY), 1),
    "equal arrays": (functools.partial(lambda x, p, q: (p * x + q).sum(), p=ARRAY, q=ARRAY.copy()), 2),
    "no number": (functools.partial(lambda x, p: p * x, p=2), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_put_together_it_is_the_program(name: str) -> None:
    function, count = CASES[name]
    lifted = lift(function)
    assert len(lifted.numbers) == count
    assert lifted.function(lifted.numbers)(1.7) == function(1.7)
    assert lift(lifted.function(lifted.numbers)).structure == lifted.structure


def doubled(numbers):
    return [2 * number for number in numbers]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (functools.partial(bound, shift=1.0), lambda x: 4.0 * x * 2.0 + 2.0),
        (functools.partial(functools.partial(bound, scale=3.0), shift=1.0), lambda x: 4.0 * x * 6.0 + 2.0),
        (outer, lambda x: 4.0 * x * 2.0 + 0.5 + 3),
        (closing(), lambda x: 8.0 * x + 8.0),
        (even, lambda x: x + 2.0 + 2.0),
        (SETTING.__call__, lambda x: 6.0 * x),
        (functools.partial(lambda x, s: s(x) + s.double, s=SETTING), lambda x: 6.0 * x + 12.0),
        (functools.partial(lambda x, p: p.first * x + p.second[0], p=Pair(1.5, [2.5, 1])), lambda x: 3.0 * x + 5.0),
        (functools.partial(lambda x, p: p["a"] * x, p={"a": 1.5, "b": "c"}), lambda x: 3.0 * x),
        (functools.partial(lambda x, p, q: (p * x + q).sum(), p=ARRAY, q=ARRAY), lambda x: 6.0 * x + 6.0),
    ],
    ids=lambda value: "",
)
def test_other_numbers_stand_in_every_place(function, expected) -> None:
    """All of them twice as large; the program itself keeps its own, and so do its module and its settings."""
    before = function(1.7)
    lifted = lift(function)
    np.testing.assert_allclose(lifted.function(doubled(lifted.numbers))(1.7), expected(1.7), rtol=1e-15)
    assert function(1.7) == before
    assert (FACTOR, SETTING.size, SETTING.double) == (2.0, 3.0, 6.0)


def test_the_structure_is_all_but_the_numbers() -> None:
    def of(**values):
        return lift(functools.partial(lambda x, **values: x, **values))

    first = of(a=1.0, b=ARRAY, c=2, d="d")
    assert first.numbers[0] == 1.0
    assert of(a=1.5, b=ARRAY + 1, c=2, d="d").structure == first.structure
    for other in (
        {"a": 1, "b": ARRAY, "c": 2, "d": "d"},
        {"a": 1.0, "b": ARRAY, "c": 3, "d": "d"},
        {"a": 1.0, "b": ARRAY, "c": 2, "d": "e"},
        {"a": 1.0, "b": np.ones(3), "c": 2, "d": "d"},
        {"a": 1.0, "b": ARRAY.astype(np.float32), "c": 2, "d": "d"},
        {"a": np.asarray(1.0), "b": ARRAY, "c": 2, "d": "d"},
        {"a": True, "b": ARRAY, "c": 2, "d": "d"},
    ):
        assert of(**other).structure != first.structure
    # One array in two places is another program than two that are equal: they need not stay so.
    assert of(a=ARRAY, b=ARRAY).structure != of(a=ARRAY, b=ARRAY.copy()).structure


def test_numbers_are_those_of_the_moment() -> None:
    array = np.array([1.0, 2.0])
    lifted = lift(functools.partial(lambda x, p: (p * x).sum(), p=array))
    array[0] = 5.0
    assert lifted.function(lifted.numbers)(1.0) == 3.0


def test_what_jax_does_not_take_is_structure() -> None:
    """Masked arrays, other orders of bytes, and what is read of an object that is none of these."""

    class Thing:
        size = 1.0

        def __init__(self, size):
            self.size = size

    for first, second in (
        (np.ma.masked_array([1.0, 2.0]), np.ma.masked_array([1.0, 3.0])),
        (ARRAY.astype(">f8"), (ARRAY + 1).astype(">f8")),
        (Thing(1.0), Thing(2.0)),
    ):
        lifted = [lift(functools.partial(lambda x, p: x, p=value)) for value in (first, second)]
        assert not lifted[0].numbers
        assert lifted[0].structure != lifted[1].structure


def test_of_a_long_table_the_rest_is_structure() -> None:
    table = [float(number) for number in range(1000)]
    lifted = lift(functools.partial(lambda x, p: sum(p) * x, p=table))
    assert 0 < len(lifted.numbers) < 1000
    assert lifted.function(lifted.numbers)(1.0) == sum(table)
    other = lift(functools.partial(lambda x, p: sum(p) * x, p=[*table[:-1], 7.0]))
    assert other.structure != lifted.structure


def test_handlers_hold_numbers() -> None:
    def program(x):
        return x

    def of(value, scale):
        return lift(handlers.scale(handlers.condition(program, {"loc": value}), scale))

    first, second = of(ARRAY, 2.0), of(ARRAY + 1, 3.0)
    assert first.structure == second.structure
    assert len(first.numbers) == 2
    again = second.function(first.numbers)
    np.testing.assert_array_equal(again.fn.data["loc"], ARRAY)
    assert again.scale == 2.0


def test_functions_that_share_a_variable_go_on_sharing_it() -> None:
    def make():
        level = 1.0

        def raised(by):
            nonlocal level
            level = level + by
            return level

        def read():
            return level

        return lambda x: (raised(x), read())

    function = make()
    lifted = lift(function)
    assert lifted.function([10.0] * len(lifted.numbers))(1.0) == (11.0, 11.0)
    assert function(1.0) == (2.0, 2.0)


def test_a_traced_value_is_refused_where_it_has_to_be_known() -> None:
    import jax

    with pytest.raises(InputError, match="a traced value bound to the program"):
        jax.jit(lambda value: lift(functools.partial(bound, shift=value)) and value)(1.0)
