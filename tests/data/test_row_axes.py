"""Rows and data sets in words."""

import numpy as np
import pytest

from probem.data.row_axes import RowAxes, listed


def test_rows_of_one_data_set_and_of_many() -> None:
    one, many = RowAxes(12), RowAxes(4, 3)
    assert (one.shape, many.shape) == ((12,), (3, 4))
    rows = np.arange(24).reshape(12, 2)
    np.testing.assert_array_equal(one.by_set(rows), rows[None])
    np.testing.assert_array_equal(many.by_set(rows)[1], rows[4:8])
    assert one.rows_in_words([7, 9]) == "row 7"
    assert many.rows_in_words([7, 9]) == "row 3 of 2 data sets (1, 2)"
    assert many.rows_in_words([7, 6]) == "row 3 of data set 1"
    assert one.place("the data", [0]) == "the data"
    assert many.place("the data", [2, 2]) == "data set 2"
    assert many.place("data argument 2", [2]) == "data argument 2 of data set 2"
    assert (one.in_sets([0]), many.in_sets([0])) == ("", " in data set 0")


@pytest.mark.parametrize(("numbers", "words"), [([3], "data set 3"), (range(7), "7 data sets (0, 1, 2, 3, 4, ...)")])
def test_few_data_sets_are_named(numbers, words: str) -> None:
    assert listed(numbers) == words
