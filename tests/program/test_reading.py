"""What cannot be used is refused in one sentence, got / expected / remedy, before anything is traced."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro import handlers

import probem
from probem import InputError
from probem.program.reading import read
from tests.programs.fits import KMEANS, PROGRAM, X


def untouched(*data):
    """A program that must not be run: the data is refused first."""
    raise AssertionError("the program was run")


def refused(message: str):
    """One sentence with its three parts, this among them."""
    return pytest.raises(InputError, match=rf"^got (?=.*{message})[^\n]*; expected [^\n]*; [^\n]*\.$")


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


# Programs, each wrong in one way.

WEIGHTS = jnp.array([0.5, 0.5])


def rows(x):
    return numpyro.plate("data", x.shape[0])


def assigned():
    return numpyro.sample("t", dist.Categorical(probs=WEIGHTS))


def observed(t, x, **options):
    return numpyro.sample("x", dist.Normal(jnp.array([-1.0, 1.0])[t], 1.0), obs=x, **options)


def no_plate(x):
    observed(assigned(), x)


def two_plates(x):
    with rows(x):
        observed(assigned(), x)
    with numpyro.plate("again", x.shape[0]):
        numpyro.sample("z", dist.Bernoulli(0.5))


def fixed_plate(x):
    with numpyro.plate("data", 60):
        assigned()


def fixed_plate_that_fits(x):
    with numpyro.plate("data", 60):
        observed(assigned(), x)


def subsampled(x):
    with numpyro.plate("data", x.shape[0], subsample_size=3):
        assigned()


def empty_plate(x):
    with rows(x):
        pass
    numpyro.sample("y", dist.Normal(0.0, 1.0))


def no_assignment(x):
    with rows(x):
        numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def nothing_observed(x):
    with rows(x):
        assigned()


def continuous(x):
    with rows(x):
        t = assigned()
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(t + z, 1.0), obs=x)


def countless(x):
    with rows(x):
        observed(numpyro.sample("t", dist.Poisson(3.0)) % 2, x)


def several_values(x):
    with rows(x):
        t = numpyro.sample("t", dist.Bernoulli(0.5 * jnp.ones(3)).to_event(1))
        observed(t[..., 0].astype(int), x)


def outside(x):
    with rows(x):
        observed(assigned(), x)
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=x)


def discrete_outside(x):
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    with rows(x):
        observed((assigned() + k) % 2, x)


def one_for_each_row(x):
    shift = numpyro.param("shift", jnp.zeros(x.shape[0]))
    with rows(x):
        t = assigned()
        numpyro.sample("x", dist.Normal(t + shift, 1.0), obs=x)


def prior_of_the_data(x):
    loc = numpyro.sample("loc", dist.Normal(x.mean(), 1.0))
    with rows(x):
        t = assigned()
        numpyro.sample("x", dist.Normal(loc * t, 1.0), obs=x)


def mean_of_the_data(x):
    with rows(x):
        t = assigned()
        numpyro.sample("x", dist.Normal(t * x.mean(), 1.0), obs=x)


def faint_mean_of_the_data(x):
    with rows(x):
        numpyro.sample("x", dist.Normal(assigned() + 1e-6 * x.mean(), 1.0), obs=x)


def centred_by_the_data(x):
    with rows(x):
        observed(assigned(), x - x.mean())


def place_of_the_row(x):
    with rows(x):
        t = assigned()
        numpyro.sample("x", dist.Normal(t * jnp.arange(x.shape[0]), 1.0), obs=x)


def number_of_rows(x):
    with rows(x):
        observed(numpyro.sample("t", dist.Categorical(logits=jnp.array([0.0, x.shape[0] / 60]))), x)


def moving_support(x):
    low = numpyro.sample("low", dist.Normal(0.0, 10.0))
    high = numpyro.sample("high", dist.Uniform(low, low + 1.0))
    with rows(x):
        numpyro.sample("x", dist.Normal(jnp.stack([low, high])[assigned()], 1.0), obs=x)


def support_of_a_parameter(x):
    width = numpyro.param("width", 2.0)
    loc = numpyro.sample("loc", dist.Uniform(0.0, width))
    with rows(x):
        numpyro.sample("x", dist.Normal(loc * assigned(), 1.0), obs=x)


def undeclared_batch(x):
    with rows(x):
        t = assigned()
        numpyro.sample("x", dist.Normal(jnp.zeros((4, 1, 1)) + t, 1.0), obs=jnp.zeros((4, 1, 1)) + x)


def broken(x):
    with rows(x):
        t = assigned()
        numpyro.sample("x", dist.Normal(jnp.zeros(7)[:, None] @ x, 1.0), obs=x + t)


PROGRAMS = {
    no_plate: "no plate over the rows",
    two_plates: r"2 plates over the rows \('data' and 'again'\); expected exactly one",
    fixed_plate: r"the size of 'data' does not follow the number of rows",
    fixed_plate_that_fits: "the size of 'data' does not follow|from the program on data of shape",
    subsampled: "the data plate 'data' with subsample_size=3",
    empty_plate: "nothing inside the data plate 'data'",
    no_assignment: "no discrete latent site in plate 'data'; expected at least one assignment site",
    nothing_observed: "no observed site in plate 'data'",
    continuous: "the continuous latent site 'z' inside the data plate; expected only discrete",
    countless: "the latent site 't' with infinitely many values",
    several_values: "the assignment site 't' with several values per row",
    outside: "the observation 'y' outside the data plate; expected every observed site inside it",
    discrete_outside: "the discrete latent site 'k' outside the data plate",
    one_for_each_row: "the parameter 'shift' with one entry per row",
    prior_of_the_data: "a prior that depends on the rows of the data",
    mean_of_the_data: "the site 'x' whose density of one row depends on other rows",
    faint_mean_of_the_data: "the site 'x' whose density of one row depends on other rows",
    centred_by_the_data: "the site 'x' whose density of one row depends on other rows",
    place_of_the_row: "the site 'x' whose density of one row depends on other rows",
    number_of_rows: "the site 't' whose density of one row depends on other rows",
    moving_support: "the site 'high' with a support that depends on the values of other sites",
    support_of_a_parameter: "the site 'loc' with a support that depends on the values of other sites",
    undeclared_batch: r"the site 'x' with batch shape \(4, 1, \d+\); expected batch dimensions that are plates",
    broken: "TypeError from the program on data of shape",
}


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_programs(program) -> None:
    with refused(PROGRAMS[program]):
        probem.explain(program, X[:60, 0])


def test_a_program_of_unbound_arguments_says_which() -> None:
    with refused("missing .*'num_components'"):
        probem.explain(KMEANS.func, X)


def test_a_density_that_uses_the_whole_data_is_only_refused_for_rows() -> None:
    """The same program with the mean bound beforehand is taken."""

    def centred(x, centre):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with rows(x):
            numpyro.sample("x", dist.Normal(loc[assigned()] + centre, 1.0), obs=x)

    assert read(functools.partial(centred, centre=float(X.mean())), (X[:, 0],)).num_components == 2


def test_what_belongs_to_a_row_may_be_passed_and_what_belongs_to_all_be_bound() -> None:
    """The programs refused above, with the same values as data or bound beforehand, keep their values."""

    def passed(x, place, mean, num_rows):
        logits = jnp.array([0.0, num_rows / 60])
        with rows(x):
            t = numpyro.sample("t", dist.Categorical(logits=logits))
            numpyro.sample("x", dist.Normal(t * place, 1.0), obs=x - mean)

    x = X[:60, 0]
    program = functools.partial(passed, mean=x.mean(), num_rows=60)
    assert {row.site: row.role for row in probem.explain(program, x, np.arange(60)).rows}["x"] == "observed"
    table = probem.log_joint(program, {}, x, np.arange(60))
    for t, weight in enumerate((1 / (1 + np.e), np.e / (1 + np.e))):
        expected = np.log(weight) + scipy.stats.norm.logpdf(x - x.mean(), t * np.arange(60))
        np.testing.assert_allclose(table[:, t], expected, rtol=1e-12)


def test_conditioning_makes_a_latent_site_observed() -> None:
    def latent(x):
        with rows(x):
            numpyro.sample("x", dist.Normal(1.0 * assigned(), 1.0))

    conditioned = lambda x: handlers.condition(latent, data={"x": x})(x)  # noqa: E731
    assert read(conditioned, (X[:, 0],)).observed == ("x",)


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


@pytest.mark.parametrize("peek", [jnp.min, jnp.median, lambda x: x[0], lambda x: x[-1]])
def test_counts_that_depend_on_other_rows_are_refused(peek) -> None:
    """Where every density allows only few values, no single pattern of rows shows every dependence."""

    def program(x):
        with rows(x):
            numpyro.sample("x", dist.Poisson(jnp.array([1.0, 3.0])[assigned()]), obs=x + peek(x))

    with refused("whose density of one row depends on other rows"):
        probem.explain(program, np.arange(20))


INITIAL = jnp.array([-1.0, 1.0])


def test_initial_values_may_be_an_array_outside_the_program() -> None:
    def program(x):
        loc = numpyro.param("loc", INITIAL)
        with rows(x):
            numpyro.sample("x", dist.Normal(loc[assigned()], 1.0), obs=x)

    assert {row.site: row.role for row in probem.explain(program, X[:, 0]).rows}["loc"] == "param"


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
