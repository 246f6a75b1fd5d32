"""Expressions of data by their number, and what is affine in parameters with such slopes."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Affine(NamedTuple):
    """offset + sum_e slopes[e] theta_e, with expressions of the data by their number; entries not there have none."""

    offset: int
    slopes: Mapping[int, int]


class NotAffine(Exception):
    """Some entry of the result depends on the parameters in another way, or there are too many to go through."""


#: The numbers of two expressions.
ZERO, ONE = 0, 1

# Entries that are gone through at most: of a program with more nothing is said.
_MOST_ENTRIES = 2**19
#: What stands for an entry that is not affine.
BENT = None
#: An array of ``Affine`` or ``BENT``, of dtype object.
Entries = np.ndarray


class Expressions:
    """Expressions that were made, by number, and the algebra of what is affine with such slopes."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        #: The values of expressions that are the same in every row.
        self.constants: dict[int, Any] = {}
        self._left = _MOST_ENTRIES
        self._fresh = itertools.count()
        assert self.constant(0.0) == ZERO
        assert self.constant(1.0) == ONE

    def number(self, *key: Any) -> int:
        """The number of an expression, by what it is made of."""
        return self._numbers.setdefault(key, len(self._numbers))

    def constant(self, value: float | int) -> int:
        """The number of a value that is the same in every row."""
        number = self.number("constant", value)
        self.constants[number] = value
        return number

    def sum(self, *numbers: int) -> int:
        """The number of the sum of expressions, in any order."""
        terms = sorted(number for number in numbers if number != ZERO)
        if not terms:
            return ZERO
        if all(number in self.constants for number in terms):
            return self.constant(math.fsum(self.constants[number] for number in terms))
        return terms[0] if len(terms) == 1 else self.number("sum", *terms)

    def product(self, first: int, second: int) -> int:
        """The number of the product of two expressions, in any order."""
        if ZERO in (first, second):
            return ZERO
        if ONE in (first, second):
            return second if first == ONE else first
        if first in self.constants and second in self.constants:
            return self.constant(self.constants[first] * self.constants[second])
        return self.number("product", *sorted((first, second)))

    def count(self, size: int) -> None:
        """So many entries more are gone through."""
        self._left -= size
        if self._left < 0:
            raise NotAffine

    def chosen(self, choices: list[tuple[Any, int]]) -> Affine | None:
        """sum_j indicator_j entry_j, where one indicator is 1."""
        if any(entry is BENT for entry, _ in choices):
            return BENT
        first = choices[0][0]
        if all(entry == first for entry, _ in choices):
            return first
        return self.added(*(self.scaled(entry, indicator) for entry, indicator in choices))

    def added(self, *entries: Affine | None) -> Affine | None:
        """The sum of entries."""
        if any(entry is BENT for entry in entries):
            return BENT
        slopes: dict[int, list[int]] = {}
        for entry in entries:
            for name, slope in entry.slopes.items():  # type: ignore[union-attr]
                slopes.setdefault(name, []).append(slope)
        sums = {name: self.sum(*parts) for name, parts in slopes.items()}
        offset = self.sum(*(entry.offset for entry in entries))  # type: ignore[union-attr]
        return Affine(offset, {name: slope for name, slope in sums.items() if slope != ZERO})

    def scaled(self, entry: Affine | None, factor: int) -> Affine | None:
        """An entry times an expression."""
        if entry is BENT:
            return BENT
        if factor == ZERO:
            return Affine(ZERO, {})
        slopes = {name: self.product(slope, factor) for name, slope in entry.slopes.items()}
        return Affine(self.product(entry.offset, factor), slopes)

    def times(self, first: Affine | None, second: Affine | None) -> Affine | None:
        """The product of two entries, which is not affine where both have slopes."""
        if first is BENT or second is BENT:
            return BENT
        if first.slopes and second.slopes:
            return BENT
        return self.scaled(first, second.offset) if first.slopes else self.scaled(second, first.offset)


def filled(shape: tuple[int, ...], entries: Any) -> Entries:
    """Entries in an array of this shape."""
    array = np.empty(math.prod(shape), object)
    for number, entry in enumerate(entries):
        array[number] = entry
    return array.reshape(shape)
