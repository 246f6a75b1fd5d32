"""Starts and options that cannot be used are refused in one sentence, got / expected / remedy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem import InputError
from tests.programs.fits import KMEANS, PROGRAM, X
from tests.sentences import refused


def rows(x):
    return numpyro.plate("data", x.shape[0])


# Starts.

STARTS = {
    "shape": (probem.Parameters({"loc": X[:3]}), r"shape \(3, 2\) for 'loc'; expected shape \(2, 2\)"),
    "off the simplex": (probem.Parameters({"weights": [0.5, 0.6]}), "'weights' that is off its constraint.*simplex"),
    "negative": (probem.Parameters({"scale": -np.ones((2, 2))}), "'scale' that is off its constraint.*positive"),
    "nan": (probem.Parameters({"loc": np.full((2, 2), np.nan)}), "'loc' that is off its constraint.*finite"),
    "unknown": (probem.Parameters({"locs": X[:2]}), "the unknown site 'locs'; expected .*; did you mean 'loc'"),
    "text": (probem.Parameters({"loc": "left"}), "initial value of 'loc' of type <U4; expected numbers"),
    "labels' shape": (probem.Labels(np.zeros(5, int)), r"initial labels of shape \(5,\); expected shape \(90,\)"),
    "labels from one": (probem.Labels(np.arange(90) % 2 + 1), r"from 1 to 2; expected whole numbers in 0\.\.1"),
    "half labels": (probem.Labels(np.full(90, 0.5)), r"from 0.5 to 0.5; expected whole numbers"),
    "responsibilities' shape": (probem.Responsibilities(np.ones((90, 3)) / 3), r"of shape \(90, 3\); .*\(90, 2\)"),
    "responsibilities' sum": (
        probem.Responsibilities(np.r_[np.ones((4, 2)), np.full((86, 2), 0.5)]),
        r"4 rows off the simplex \(the first is row 0\)",
    ),
    "a word": (lambda key, rows: "kmeans", "str with 0 dimensions from the initialiser"),
    "three dimensions": (lambda key, rows: np.zeros((2, 2, 2)), "ndarray with 3 dimensions from the initialiser"),
    "callable with a wrong name": (lambda key, rows: {"mean": X[:2]}, "unknown site 'mean'"),
}


@pytest.mark.parametrize("name", STARTS)
def test_starts(name: str) -> None:
    init, message = STARTS[name]
    with refused(message):
        probem.fit(PROGRAM, X, init=init)


def test_several_restarts_need_several_starts() -> None:
    with refused("restarts=3 from one given start"):
        probem.fit(PROGRAM, X, init=probem.Labels(np.zeros(90, int)), restarts=3)


# Options.

OPTIONS = {
    "row weights' shape": ({"row_weights": np.ones(5)}, r"row_weights of shape \(5,\); expected shape \(90,\)"),
    "negative row weights": ({"row_weights": -np.ones(90)}, "row_weights with a negative"),
    "no row weights": ({"row_weights": np.zeros(90)}, "no positive value; expected weights >= 0"),
    "infinite row weights": ({"row_weights": np.full(90, np.inf)}, "non-finite"),
    "restarts": ({"restarts": 0}, "restarts=0; expected a whole number of at least 1"),
    "max_steps": ({"max_steps": 0}, "max_steps=0; expected a whole number of at least 1"),
    "tolerance": ({"tolerance": -1.0}, r"tolerance=-1.0; expected a number in \[0, 1\)"),
    "nan tolerance": ({"tolerance": float("nan")}, "tolerance=nan; expected"),
    "family": ({"families": {"T": probem.Delta()}}, "a family for the unknown site 'T'"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    options, message = OPTIONS[name]
    with refused(message):
        probem.fit(PROGRAM, X, **options)


def test_more_components_than_distinct_rows() -> None:
    x = np.repeat(X[:2], 20, axis=0)
    with refused("3 components for 2 distinct rows; expected at most as many components as distinct rows"):
        probem.fit(KMEANS, x)
    with refused("3 components for 2 distinct rows"):
        probem.fit(KMEANS, X, row_weights=np.r_[1.0, 2.0, np.zeros(88)])


def test_rows_are_distinct_in_all_data_arguments_together() -> None:
    """Two values in each of two arguments are four rows: enough for three components."""

    def crossed(x, y):
        loc = numpyro.param("loc", jnp.arange(3.0))
        with rows(x):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(3) / 3))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)
            numpyro.sample("y", dist.Normal(loc[t], 1.0), obs=y)

    one, other = np.repeat([0.0, 1.0], 20), np.tile([0.0, 1.0], 20)
    with refused("3 components for 2 distinct rows"):
        probem.fit(crossed, one, one)
    # What is checked next is the start, and this one is no start of any data.
    with refused("initial labels of shape"):
        probem.fit(crossed, one, other, init=probem.Labels(np.zeros(3, int)))


def test_a_sentence_of_two_parts_would_be_seen() -> None:
    """A planted fault: a message without its remedy."""
    pattern = r"^got (?=.*rows)[^\n]*; expected [^\n]*; [^\n]*\.$"
    assert re.search(pattern, str(InputError("no rows", "rows", "add some")))
    assert not re.search(pattern, "got no rows; expected rows.")


def test_nothing_is_refused_under_a_trace_for_its_values() -> None:
    """Values that are not known yet cannot be checked; shapes can."""
    shapes = jax.eval_shape(lambda loc: probem.solve(KMEANS, X, init=probem.Parameters({"loc": loc})), X[:3])
    assert shapes.params["loc"].shape == (3, 2)
    with pytest.raises(InputError, match=r"shape \(2, 2\) for 'loc'; expected shape \(3, 2\)"):
        jax.eval_shape(lambda loc: probem.solve(KMEANS, X, init=probem.Parameters({"loc": loc})), X[:2])
