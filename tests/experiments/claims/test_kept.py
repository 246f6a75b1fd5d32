"""What a check computed, kept for its figure: a check computes anew, a figure does not."""

import numpy as np

from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.kept import Kept


def dataset(rows=(1.0, 2.0)):
    return Dataset("some", np.array([rows]), "two numbers", ("x", "y"))


def counted():
    calls = []

    @Kept
    def sides(data, seed):
        calls.append(seed)
        return float(data.rows.sum()) + seed

    return sides, calls


def test_a_figure_takes_what_the_check_computed():
    sides, calls = counted()
    assert sides(dataset(), 3) == sides.last(dataset(), 3) == 6.0
    assert calls == [3]


def test_a_check_always_computes():
    """Otherwise a fault planted after a first run would not be seen."""
    sides, calls = counted()
    sides(dataset(), 3)
    sides(dataset(), 3)
    assert calls == [3, 3]


def test_other_arguments_are_computed():
    sides, calls = counted()
    sides(dataset(), 3)
    assert sides.last(dataset(), 4) == 7.0
    assert sides.last(dataset((1.0, 5.0)), 4) == 10.0
    assert calls == [3, 4, 4]


def test_a_figure_alone_computes_once():
    sides, calls = counted()
    assert sides.last(dataset(), 3) == sides.last(dataset(), 3)
    assert calls == [3]
