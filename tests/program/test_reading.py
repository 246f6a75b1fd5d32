"""Programs that are no mixtures are refused in one sentence, and what the others say of themselves."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro import handlers
from numpyro.contrib.control_flow import scan

import probem
from probem.program.reading import read
from tests.programs.fits import KMEANS, X
from tests.sentences import refused

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


def a_chain(x):
    def step(last, value):
        t = numpyro.sample("t", dist.Categorical(jnp.array([[0.9, 0.1], [0.2, 0.8]])[last]))
        numpyro.sample("x", dist.Normal(1.0 * t, 1.0), obs=value)
        return t, None

    scan(step, 0, x)


def named_columns(x):
    with rows(x):
        observed(assigned(), x["length"])


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
    a_chain: "around the discrete latent site 't'; expected exactly one, rows being independent .* hidden Markov model",
    named_columns: r"string indexing.*; expected data that has names.*; pass a mapping of its columns: dict\(df\)",
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


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_programs(program) -> None:
    with refused(PROGRAMS[program]):
        probem.explain(program, X[:60, 0])


def test_a_program_of_unbound_arguments_says_which() -> None:
    with refused("missing .*'num_components'"):
        probem.explain(KMEANS.func, X)


def test_a_density_that_uses_the_whole_data_is_only_refused_for_rows() -> None:
    """With the mean bound beforehand the program is taken."""

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


@pytest.mark.parametrize("peek", [jnp.min, jnp.median, lambda x: x[0], lambda x: x[-1]])
def test_counts_that_depend_on_other_rows_are_refused(peek) -> None:
    """Where every density allows only few values, no single pattern of rows shows every dependence."""

    def program(x):
        with rows(x):
            numpyro.sample("x", dist.Poisson(jnp.array([1.0, 3.0])[assigned()]), obs=x + peek(x))

    with refused("whose density of one row depends on other rows"):
        probem.explain(program, np.arange(20))


@pytest.mark.parametrize(
    "peek",
    [
        lambda x: x[::-1],
        lambda x: jnp.nanmin(x),
        lambda x: jnp.nanmax(x),
        lambda x: 0.1 * (x[:, None] > x).sum(1),
        lambda x: 0.1 * (x[:, None] < x).sum(1),
        lambda x: jnp.isfinite(x).sum(),
        lambda x: 1e-4 * jnp.arange(x.shape[0]),
    ],
    ids=["reversed", "smallest", "largest", "rank", "rank from above", "number", "slow drift"],
)
def test_what_compares_or_counts_rows_is_refused(peek) -> None:
    """Not every dependence moves a row where NaN stands in another, nor in the middle of three."""

    def program(x):
        with rows(x):
            numpyro.sample("x", dist.Normal(assigned() + peek(x), 1.0), obs=x)

    with refused("whose density of one row depends on other rows"):
        probem.explain(program, X[:60, 0])


INITIAL = jnp.array([-1.0, 1.0])


def test_initial_values_may_be_an_array_outside_the_program() -> None:
    def program(x):
        loc = numpyro.param("loc", INITIAL)
        with rows(x):
            numpyro.sample("x", dist.Normal(loc[assigned()], 1.0), obs=x)

    assert {row.site: row.role for row in probem.explain(program, X[:, 0]).rows}["loc"] == "param"
