"""Data and options of many fits that cannot be used are refused in one sentence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.models import poisson_mixture
from tests.many.sets import DATA, KEYS, START, WEIGHTS
from tests.programs.fits import PROGRAM, bayesian


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (DATA[0, 0], r"data of shape \(2,\); expected arrays \[B, N, \.\.\.\]"),
        (DATA[:0], r"data of shape \(0, 90, 2\)"),
        (
            np.where(np.arange(11)[:, None, None] == 3, np.nan, DATA),
            "a column without any value in data set 3; expected at least one",
        ),
        (
            np.full((9, 4, 2), np.inf),
            r"72 values that are infinite in 9 data sets \(0, 1, 2, 3, 4, \.\.\.\) \(columns 0, 1",
        ),
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
            {
                "init": probem.Responsibilities(
                    np.eye(2)[np.arange(990).reshape(11, 90) % 2] * np.arange(11)[:, None, None]
                )
            },
            r"900 rows off the simplex \(the first is row 0 of data set 0\)",
        ),
        (
            {"init": [*[lambda key, rows: np.arange(90) % 2] * 10, lambda key, rows: np.full((90, 2), 0.5)]},
            "different kinds of start",
        ),
        ({"init": lambda key, rows: np.zeros(89)}, r"initial labels of shape \(89,\); expected shape \(90,\)"),
        ({"key": jnp.zeros((3, 2), jnp.uint32)}, r"keys of shape \(3, 2\); expected one key, or 11"),
        ({"labels": np.zeros(90)}, r"labels of shape \(90,\); expected shape \(11, 90\)"),
        ({"added_variance": np.eye(2) * np.r_[-1, np.ones(10)][:, None, None]}, "added_variance that is no covariance"),
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


COUNTS = np.random.default_rng(0).poisson(3.0, (6, 20, 2)).astype(float)


def test_what_is_wrong_in_several_arguments_and_data_sets() -> None:
    """Rows are numbered within their data set, and all data sets are named."""

    def line(x, y):
        slope = numpyro.param("slope", jnp.arange(2.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("y", dist.Normal(slope[t] * x, 1.0), obs=y)

    x, y = np.random.default_rng(1).normal(size=(2, 4, 30))
    for wrong, match in (
        (np.inf, r"3 values that are infinite in data argument 1 of 2 data sets \(1, 3\)"),
        (np.nan, r"NaN in row 7 of 2 data sets \(1, 3\) that is not simply an observed value"),
    ):
        covariate = x.copy()
        covariate[[1, 3, 3], [7, 2, 9]] = wrong
        with pytest.raises(probem.InputError, match=match):
            probem.fit_many(line, covariate, y)
    program = functools.partial(poisson_mixture, num_components=2)
    counts = COUNTS.copy()
    counts[[2, 2, 5], [11, 14, 3]] = 0.5
    with pytest.raises(probem.InputError, match=r"the value 0.5 of 'x' \(row 11 of 2 data sets \(2, 5\), column 0\)"):
        probem.fit_many(program, counts)
    weights = np.ones((6, 20))
    weights[2, [11, 14]] = 0
    with pytest.raises(probem.InputError, match=r"the value 0.5 of 'x' \(row 3 of data set 5, column 0\)"):
        probem.fit_many(program, counts, row_weights=weights)


@pytest.mark.slow
def test_answers_about_values_outside_the_support() -> None:
    """As of one fit: their density is zero, and they have no posterior."""
    many = probem.fit_many(functools.partial(poisson_mixture, num_components=2), COUNTS, throw=False)
    counts = COUNTS.copy()
    counts[2, 11] = 0.5
    found = many.log_density(counts)
    np.testing.assert_allclose(found[2], many[2].log_density(counts[2]), rtol=1e-12)
    assert np.argwhere(np.isinf(found)).tolist() == [[2, 11]]
    with pytest.raises(probem.InputError, match="row 11 of data set 2"):
        many.predict(counts)


@pytest.mark.slow
def test_a_start_for_posteriors_that_is_none() -> None:
    program = functools.partial(bayesian, num_components=2)
    many = probem.fit_many(program, DATA, families=probem.VARIATIONAL_BAYES, max_steps=2, throw=False)
    refit = functools.partial(probem.fit_many, program, DATA, families=probem.VARIATIONAL_BAYES)
    with pytest.raises(probem.InputError, match="a start for 'weights', a site with the family Conjugate"):
        refit(init=probem.Parameters({"weights": many[0].variational["weights"]}))
    negative = jax.tree.map(lambda leaf: -leaf, many.variational["weights"])
    with pytest.raises(probem.InputError, match="a start for the q of 'weights' that is no distribution"):
        refit(init=probem.Parameters({"weights": negative}))
