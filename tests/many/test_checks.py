"""Data and options of many fits that cannot be used are refused in one sentence."""

import numpy as np
import pytest

import probem
from tests.many.sets import DATA, KEYS, START, WEIGHTS
from tests.programs.fits import PROGRAM


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (DATA[0, 0], r"data of shape \(2,\); expected arrays \[B, N, \.\.\.\]"),
        (DATA[:0], r"data of shape \(0, 90, 2\)"),
        (
            np.where(np.arange(11)[:, None, None] == 3, np.nan, DATA),
            "a column without any value in data set 3; expected at least one",
        ),
        (np.full((9, 4, 2), np.inf), r"infinite in 9 data sets \(0, 1, 2, 3, 4, \.\.\.\)"),
        (np.full((2, 3, 1), "a"), "data of type <U1"),
        (np.repeat(DATA[:2, :1], 90, axis=1), r"2 components for 1 distinct rows in 2 data sets \(0, 1\)"),
    ],
)
def test_data_that_cannot_be_used(data, match) -> None:
    with pytest.raises(probem.InputError, match=match):
        probem.fit_many(PROGRAM, data)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_steps": 0}, "max_steps=0; expected a whole number of at least 1"),
        ({"tolerance": 1}, r"tolerance=1; expected a number in \[0, 1\)"),
        ({"row_weights": WEIGHTS[0]}, r"row_weights of shape \(90,\); expected shape \(11, 90\)"),
        ({"row_weights": -WEIGHTS}, r"no positive value in 11 data sets \(0, "),
        ({"init": probem.Labels(np.zeros(90))}, r"initial labels of shape \(90,\); expected shape \(11, 90\)"),
        (
            {"init": probem.Labels(np.full((11, 90), 2))},
            r"initial labels from 2 to 2; expected whole numbers in 0\.\.1",
        ),
        ({"init": probem.Responsibilities(np.ones((11, 90, 2)))}, "990 rows off the simplex"),
        ({"init": probem.Parameters({"loc": DATA[0, :2]})}, r"shape \(2, 2\) for 'loc'; expected shape \(11, 2, 2\)"),
        ({"init": probem.Parameters({"scale": -START["scale"]})}, "'scale' that is off its constraint"),
        ({"init": probem.Parameters({"lok": DATA})}, "unknown site 'lok'; .* did you mean 'loc'"),
        ({"families": {"z": probem.Delta()}}, "unknown site 'z'"),
        ({"restarts": 0}, "restarts=0; expected a whole number of at least 1"),
        ({"restarts": 2, "init": probem.Parameters(START)}, "restarts=2 from one given start"),
        ({"key": KEYS[:3]}, r"keys of shape \(3,\); expected one key, or 11"),
        ({"init": [len]}, "a list of 1 initialisers; expected 11, one for each data set"),
        ({"init": ["k-means"] * 11}, "init of type str; expected an initialiser, or a list of functions"),
        (
            {"tolerance": probem.stopping.ParameterShift(np.ones(3))},
            r"tolerance of shape \(3,\); expected a number, or 11",
        ),
        ({"added_variance": np.ones((3, 2, 2))}, r"shape \(3, 2, 2\); expected 11 matrices"),
    ],
)
def test_what_is_no_option(options, match) -> None:
    with pytest.raises(probem.InputError, match=match):
        probem.fit_many(PROGRAM, DATA, **options)


def test_no_data() -> None:
    with pytest.raises(probem.InputError, match="no data"):
        probem.fit_many(PROGRAM)
