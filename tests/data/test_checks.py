"""Data that cannot be used is refused in one sentence, before anything is traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem import models
from tests.sentences import refused


def untouched(*data):
    """A program that must not be run: the data is refused first."""
    raise AssertionError("the program was run")


INFINITE = np.array([[0.0, 1.0, 2.0], [-np.inf, 1.0, np.inf], [0.0, 1.0, np.nan]])
EMPTY = np.array([[0.0, np.nan, 2.0], [1.0, np.nan, 2.0], [0.0, np.nan, np.nan]])

DATA = {
    "none": ((), "no data; expected at least one array"),
    "text": ((np.array([["a", "b"]]),), "data of type <U1"),
    "objects": ((np.array([None, 1]),), "data of type object"),
    "complex": ((np.ones(3) * 1j,), "data of type complex128"),
    "dates": ((np.array(["2020-01-01"], "datetime64[D]"),), "data of type datetime64"),
    "zero rows": ((np.zeros((0, 2)),), r"zero rows \(shape \(0, 2\)\)"),
    "a number": ((3.0,), "the data as a single number"),
    "different rows": ((np.zeros((5, 2)), np.zeros(4)), r"different numbers of rows \(5, 4\)"),
    "different rows in a tree": (({"a": np.zeros(5), "b": np.zeros(4)},), r"different numbers of rows \(5, 4\)"),
    "infinite": ((INFINITE,), r"2 values that are infinite in the data \(columns 0, 2\)"),
    "one infinite": ((INFINITE[:2, :2],), r"1 value that is infinite in the data \(column 0\)"),
    "infinite in the second": ((np.zeros(3), INFINITE), r"in data argument 2 \(columns 0, 2\)"),
    "infinite in an array of JAX": ((jnp.asarray(INFINITE),), "2 values that are infinite"),
    "no value in a column": ((EMPTY,), "no value at all in column 1 of the data"),
    "no value in a column of the second": ((np.zeros(3), EMPTY), "no value at all in column 1 of data argument 2"),
    "empty tree": (({},), "no data"),
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("function", [probem.fit, probem.explain], ids=["fit", "explain"])
def test_data(name: str, function) -> None:
    data, message = DATA[name]
    with refused(message):
        function(untouched, *data)


def test_the_warning_about_float32_points_at_the_caller():
    """Of a warning that points into a library, Python shows the first of all calls alone."""
    with jax.enable_x64(False), pytest.warns(UserWarning, match="float64 data is fitted in float32") as caught:
        probem.explain(functools.partial(models.kmeans, num_components=2), np.arange(6.0).reshape(3, 2))
    assert [warning.filename for warning in caught] == [__file__]
