"""The axes of what is given for each row, of one data set or of many; and rows and data sets in words."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np


class RowAxes(NamedTuple):
    """N rows of one data set; or of each of B data sets of one shape, whose rows lie one after another, ``[B N]``.

    Checks look at rows, whichever data set they are of, and say by ``place`` and ``rows_in_words`` which are meant.
    ``num_sets`` is B, None of one data set.
    """

    num_rows: int
    num_sets: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of a number for each row, as a caller gives it: ``(N,)`` or ``(B, N)``."""
        return (self.num_rows,) if self.num_sets is None else (self.num_sets, self.num_rows)

    def by_set(self, leaf: Any) -> Any:
        """Rows ``[B N, ...]`` as ``[B, N, ...]``; B is 1 of one data set."""
        return leaf.reshape(self.num_sets or 1, self.num_rows, *leaf.shape[1:])

    def place(self, where: str, sets: Any) -> str:
        """Where something is: ``where`` in one data set; among many, in those of these numbers."""
        if self.num_sets is None:
            return where
        return listed(np.unique(sets)) if where == "the data" else f"{where} of {listed(np.unique(sets))}"

    def in_sets(self, sets: Any) -> str:
        """Nothing of one data set; among many, that it is in those of these numbers."""
        return "" if self.num_sets is None else f" in {listed(np.unique(sets))}"

    def rows_in_words(self, rows: Any) -> str:
        """The first of some rows, and the data sets that all of them are of."""
        sets = "" if self.num_sets is None else f" of {listed(np.unique(np.asarray(rows) // self.num_rows))}"
        return f"row {int(rows[0]) % self.num_rows}{sets}"


def listed(numbers: Iterable[Any]) -> str:
    """Data sets by their numbers: the first few, and how many."""
    every = [int(number) for number in numbers]
    named = ", ".join(map(str, every[:5])) + (", ..." if len(every) > 5 else "")
    return f"data set {named}" if len(every) == 1 else f"{len(every)} data sets ({named})"
