"""probem.check: it holds on programs of every kind, and reports what it compared."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import probem
from probem.checking import oracle
from probem.checking.check import CLAIMS
from probem.checking.report import worst
from probem.experiments.claims.datasets import load
from probem.models import bernoulli_mixture, dirichlet_process_gmm, gmm, kmeans, poisson_mixture
from probem.models import diagonal as diagonal_covariance
from tests.programs.bayesian import MIXED, NORMAL, PRIOR, mixture
from tests.programs.counted import cost
from tests.programs.examples import EXAMPLES

GEYSER = load("old_faithful").rows
COUNTS = np.random.default_rng(0).poisson(np.repeat([[1.0, 6.0], [5.0, 2.0]], 30, axis=0))
COIN = (COUNTS > 2).astype(int)


def compared(report):
    return {row.claim for row in report.rows}


# --- programs of every kind: all hold ---


@functools.cache
def geyser():
    return probem.check(functools.partial(gmm, num_components=2, covariance=diagonal_covariance), GEYSER)


@pytest.mark.slow
def test_a_gaussian_mixture_and_what_is_compared():
    report = geyser()
    report.raise_for_failure()
    assert compared(report) == set(CLAIMS) - {"E1"}
    assert report.remarks == ("E1: the exact evidence, an integral over θ, which F at one θ does not bound.",)
    assert report.size == (272, 2)


@pytest.mark.slow
def test_other_rows_compile_a_function_for_each_claim_that_runs_the_program():
    """The oracle's densities, those of probem, the slopes, NumPyro's ELBO, the divergences, the Newton step; and what
    copies the data to the device.
    """
    geyser()
    program = functools.partial(gmm, num_components=2, covariance=diagonal_covariance)
    _, compilations = cost(lambda: probem.check(program, GEYSER[:260]).raise_for_failure())
    assert compilations <= 7


POINTS = {
    "k-means": (functools.partial(kmeans, num_components=2), GEYSER, probem.HARD_EM),
    "top two": (functools.partial(gmm, num_components=3), GEYSER, {"t": probem.TopC(2)}),
    "Poisson": (functools.partial(poisson_mixture, num_components=2), COUNTS, None),
    "Bernoulli": (functools.partial(bernoulli_mixture, num_components=2), COIN, None),
    "MAP": (mixture("diagonal"), NORMAL, probem.EM),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_programs_of_models(name):
    program, rows, families = POINTS[name]
    report = probem.check(program, rows, families=families)
    report.raise_for_failure()
    assert {"table", "A1", "A3", "A5", "A6", "G1", "G14"} <= compared(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nested", "feature plate", "zero-inflated", "regressions", "penalised"])
def test_programs_unlike_those_of_models(name):
    report = probem.check(EXAMPLES[name].program, *EXAMPLES[name].data)
    report.raise_for_failure()
    assert "A6" in compared(report)


FULL = {
    "diagonal": mixture("diagonal"),
    "a Dirichlet process": functools.partial(dirichlet_process_gmm, num_components=3, prior=PRIOR),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_full_posteriors(name):
    report = probem.check(FULL[name], NORMAL, families=probem.VARIATIONAL_BAYES)
    report.raise_for_failure()
    assert compared(report) == {"table", "A1", "A3", "A6", "G1", "E1"}
    gains = [row for row in report.rows if row.claim == "G1"]
    assert {row.half_step[0] for row in gains} == {"E", "M"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hierarchical"])
def test_full_posteriors_beside_others(name):
    program, families = MIXED[name]
    probem.check(program, NORMAL, families=families).raise_for_failure()


# --- what is small, or as large as something else ---


def means(x, num_components=2):
    """Two means, one for each component of a plate, and a standard deviation of 1."""
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(num_components, 1 / num_components)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize("num_components", [1, 2])
@pytest.mark.parametrize("families", [probem.EM, probem.VARIATIONAL_BAYES], ids=lambda corner: corner.name)
def test_as_many_rows_as_components_and_a_single_component(num_components, families):
    rows = np.array([-1.0, 1.5])
    report = probem.check(functools.partial(means, num_components=num_components), rows, families=families)
    report.raise_for_failure()
    assert {"table", "A1", "A6"} | ({"E1"} if families is probem.VARIATIONAL_BAYES else {"A5"}) <= compared(report)


@pytest.mark.slow
def test_a_program_without_parameters_in_lists():
    def certain(x):
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(jnp.array([-1.0, 1.0])[t], 1.0), obs=x)

    report = probem.check(certain, [-1.0, 0.5, 2.0])
    report.raise_for_failure()
    assert {"table", "A1", "A6"} <= compared(report)
    assert "A5: a program without parameters has no slope." in report.remarks
    with pytest.raises(probem.InputError, match="no array"):
        probem.check(certain, [[1.0], [2.0, 3.0]])


def up_to(x, limit):
    """A uniform distribution from 0 to a limit for each component, and their shares."""
    shares = numpyro.param("shares", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(shares))
        numpyro.sample("x", dist.Uniform(0.0, limit[t]), obs=x)


@pytest.mark.slow
def test_rows_outside_the_support_of_a_component():
    """NumPyro's own density is that inside its bounds, everywhere: five claims failed that are true. The table by hand,
    and the density of the oracle.
    """
    x, limit = np.r_[np.linspace(0.05, 0.95, 20), np.linspace(1.1, 2.9, 20)], jnp.array([1.0, 3.0])
    program = functools.partial(up_to, limit=limit)
    report = probem.check(program, x)
    report.raise_for_failure()
    assert {"table", "A1", "A2", "A3", "A5", "A6", "G1", "G14"} == compared(report)
    shares = np.asarray(report.fit.params["shares"])
    density = shares[0] * (x <= 1) + shares[1] / 3
    assert float(np.log(density).sum()) == pytest.approx(report.fit.elbo, rel=1e-12)
    asked = oracle.NumPyroOracle(program, (x,))
    assert float(asked.log_likelihood(report.fit.params)) == pytest.approx(report.fit.elbo, rel=1e-12)


def test_a_mask_covers_what_lies_outside():
    """Of the second half of the rows nothing is said, be they inside or not."""

    def half(x):
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            with handlers.mask(mask=jnp.arange(x.shape[0]) < x.shape[0] // 2):
                numpyro.sample("x", dist.Uniform(0.0, jnp.array([1.0, 3.0])[t]), obs=x)

    table = oracle.NumPyroOracle(half, (np.array([0.5, 2.0, 0.5, 2.0]),)).log_joint({})
    np.testing.assert_allclose(np.exp(table), [[0.5, 0.5 / 3], [0.0, 0.5 / 3], [0.5, 0.5], [0.5, 0.5]])
    # NumPyro's own enumeration does not run here: its mask takes bounds of more axes than the values have for an error.
    asked = oracle.NumPyroOracle(half, (np.array([0.5, 2.0, 0.5, 2.0]),))
    assert float(asked.log_likelihood({})) == pytest.approx(np.log(np.exp(table).sum(1)).sum(), rel=1e-12)


@jax.custom_vjp
def squared(x):
    return x * x


squared.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))


@pytest.mark.slow
def test_a_rule_of_derivatives_for_reverse_mode_alone():
    """Forward mode is asked for the second derivatives of the Newton step, and refuses jax.custom_vjp."""

    def program(x, square):
        root = numpyro.param("root", jnp.array([0.5, 1.5]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(square(root)[t], 1.0), obs=x)

    x = np.r_[np.linspace(-1, 1, 20), np.linspace(3, 5, 20)]
    reports = [probem.check(functools.partial(program, square=square), x) for square in (squared, jnp.square)]
    for report in reports:
        report.raise_for_failure()
    promises = [[row.left for row in report.rows if row.claim == "G14"] for report in reports]
    assert len(promises[0]) == 1
    np.testing.assert_allclose(*promises, rtol=1e-5, atol=1e-13)


@pytest.mark.slow
def test_categories_in_floats():
    def answers(y):
        p = numpyro.param("p", jnp.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]]), constraint=dist.constraints.simplex)
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("y", dist.Categorical(p[t]), obs=y)

    report = probem.check(answers, np.array([0.0, 1.0, 2.0, 2.0, 0.0, 1.0]))
    report.raise_for_failure()
    assert "A6" in compared(report)


@pytest.mark.slow
def test_where_nothing_was_compared_nothing_holds():
    report = probem.claim("units", means, np.linspace(-2.0, 2.0, 20))
    assert not report.rows
    assert not report.holds
    assert report.summary.endswith("nothing was compared.")
    with pytest.raises(AssertionError, match="other units of a program that knows its own"):
        report.raise_for_failure()


# --- the report ---


def test_the_report_in_a_table_and_as_a_page():
    report = geyser()
    text = str(report)
    assert "G14" in text
    assert "comparisons, all hold." in text
    assert len(text.splitlines()) < 30
    page = report.to_html()
    assert page.startswith("<!doctype html>")
    # Two tables, each with its heading.
    assert page.count("<tr") == len(worst(report.rows)) + len(report.rows) + 2
    assert "http" not in page
    assert "<table>" in report._repr_html_()


def test_a_residual_that_is_not_a_number_fails():
    row = probem.Check("A1", "", "two sides", float("nan"), 1.0)
    assert not row.holds
    report = dataclasses.replace(geyser(), rows=(row, *geyser().rows))
    assert report.failed == (row,)
    with pytest.raises(AssertionError, match="1 do not hold"):
        report.raise_for_failure()


# --- claims, with an oracle of one's own ---


def by_hand(params, x):
    """The table of k-means in NumPy."""
    squares = ((x[:, None] - np.asarray(params["loc"])) ** 2).sum(-1)
    return np.log(0.5) - 0.5 * squares - np.log(2 * np.pi)


@pytest.mark.slow
def test_a_claim_beside_a_density_of_ones_own():
    program = functools.partial(kmeans, num_components=2)
    probem.claim("A1", program, GEYSER, oracle=by_hand).raise_for_failure()
    wrong = probem.claim("A1", program, GEYSER, oracle=lambda params, x: by_hand(params, x) + 1e-6)
    assert not wrong.holds
    slopes = probem.claim("A5", program, GEYSER, oracle=by_hand)
    assert slopes.remarks == ("A5: slopes of an oracle that is no function of JAX.",)


def unmoved(x):
    """A parameter of which no density depends."""
    numpyro.param("nowhere", jnp.array(0.3))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(jnp.array([-1.0, 1.0])[t], 1.0), obs=x)


@pytest.mark.slow
def test_an_oracle_that_is_constant_has_no_slope():
    """As a program may have none: then both slopes are zero. Beside one that has a slope it is another density."""
    rows = np.linspace(-2.0, 2.0, 20)

    def constant(params, x):
        return np.log(0.5) - 0.5 * (x[:, None] - np.array([-1.0, 1.0])) ** 2 - 0.5 * np.log(2 * np.pi)

    for claim in ("table", "A1", "A5"):
        probem.claim(claim, unmoved, rows, oracle=constant).raise_for_failure()
    report = probem.check(unmoved, rows)
    report.raise_for_failure()
    assert {"A5"} <= compared(report)
    assert "G14: a Newton step where log p(X, θ) is flat: no density depends on a parameter." in report.remarks
    program = functools.partial(kmeans, num_components=2)
    for claim in ("table", "A1", "A5"):
        report = probem.claim(claim, program, GEYSER, oracle=lambda params, x: np.zeros((len(x), 2)))
        assert report.failed
        assert not report.remarks


@pytest.mark.slow
def test_an_oracle_that_is_not_asked_proves_nothing():
    """NumPyro's ELBO is of the program itself: an oracle that is wrong cannot be seen there."""
    report = probem.claim(
        "A6", functools.partial(kmeans, num_components=2), GEYSER, oracle=lambda params, x: by_hand(params, x) + 1.0
    )
    assert not report.holds
    assert not report.rows
    assert report.remarks == ("A6: nothing in it is compared with a table that is given.",)


@pytest.mark.slow
def test_a_rate_of_zero_has_no_derivative_and_no_crash():
    """The derivative of 0 log 0 in what the zero is made of is no number, in NumPyro's densities as in all others."""

    def zero_or_more(y):
        rate = numpyro.param("rate", jnp.array([0.5, 4.0]), constraint=dist.constraints.positive)
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("y", dist.Poisson((rate * jnp.array([0.0, 1.0]))[t]), obs=y)

    report = probem.check(zero_or_more, np.r_[np.zeros(10), np.arange(1.0, 9.0)])
    report.raise_for_failure()
    assert sum("derivatives of log p" in remark for remark in report.remarks) == 3


def test_what_cannot_be_claimed_is_refused():
    program = functools.partial(kmeans, num_components=2)
    with pytest.raises(probem.InputError, match=r"the claim 'G11'; expected one of table, A1, .*; did you mean 'G1"):
        probem.claim("G11", program, GEYSER)
    with pytest.raises(probem.InputError, match=r"the claim 'a1'; .*; did you mean 'A1'"):
        probem.claim("a1", program, GEYSER)
    with pytest.raises(probem.InputError, match=r"an oracle that asks for 'locs', which is no parameter; .*'loc'"):
        probem.claim("A1", program, GEYSER, oracle=lambda params, x: params["locs"])
    with pytest.raises(probem.InputError, match=r"an oracle that returns shape \(272,\); expected .* shape \(272, 2\)"):
        probem.claim("A1", program, GEYSER, oracle=lambda params, x: by_hand(params, x)[:, 0])
    with pytest.raises(probem.InputError, match=r"an oracle that cannot be called with the parameters and 1 array"):
        probem.claim("A1", program, GEYSER, oracle=lambda t: np.zeros(len(GEYSER)))
    with pytest.raises(probem.InputError, match=r"NaN"):
        probem.check(program, np.where(GEYSER > 90, np.nan, GEYSER))


def test_the_oracle_is_another_way_to_the_table():
    example = EXAMPLES["nested"]
    table = oracle.NumPyroOracle(example.program, example.data).log_joint(example.params)
    np.testing.assert_allclose(table, example.table(), rtol=1e-10)


test_as_a_test_of_pytest = probem.as_test(functools.partial(kmeans, num_components=2), GEYSER, families=probem.HARD_EM)
