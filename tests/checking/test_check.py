"""probem.check: it holds on programs of every kind, and finds the faults that probem once had."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.stats import norm

import probem
from probem.checking.check import CLAIMS
from probem.experiments.claims.datasets import load
from probem.jit import compilation
from probem.models import bernoulli_mixture, dirichlet_process_gmm, gmm, kmeans, poisson_mixture
from probem.models import diagonal as diagonal_covariance
from tests.programs.bayesian import EXAMPLES as BAYESIAN
from tests.programs.bayesian import MIXED, NORMAL, PRIOR, mixture
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


def test_a_gaussian_mixture_and_what_is_compared():
    report = geyser()
    report.raise_for_failure()
    assert compared(report) == set(CLAIMS) - {"E1"}
    assert not report.remarks
    assert report.size == (272, 2)


POINTS = {
    "k-means": (functools.partial(kmeans, num_components=2), GEYSER, probem.HARD_EM),
    "top two": (functools.partial(gmm, num_components=3), GEYSER, {"t": probem.TopC(2)}),
    "Poisson": (functools.partial(poisson_mixture, num_components=2), COUNTS, None),
    "Bernoulli": (functools.partial(bernoulli_mixture, num_components=2), COIN, None),
    "MAP": (mixture("full"), NORMAL, probem.EM),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_programs_of_models(name):
    program, rows, families = POINTS[name]
    report = probem.check(program, rows, families=families)
    report.raise_for_failure()
    assert {"table", "A1", "A3", "A5", "A6", "G1", "G14"} <= compared(report)


@pytest.mark.slow
def test_a_dirichlet_process():
    program = functools.partial(dirichlet_process_gmm, num_components=3, prior=PRIOR)
    probem.check(program, NORMAL, families=probem.VARIATIONAL_BAYES).raise_for_failure()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nested", "feature plate", "zero-inflated", "regressions", "penalised"])
def test_programs_unlike_those_of_models(name):
    probem.check(EXAMPLES[name].program, *EXAMPLES[name].data).raise_for_failure()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full covariance", "diagonal"])
def test_full_posteriors(name):
    report = probem.check(mixture(name), BAYESIAN[name].rows[:40], families=probem.VARIATIONAL_BAYES)
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


# --- faults that probem had: found ---


@pytest.fixture
def planted(monkeypatch):
    """A monkeypatch of the engine, for which what was compiled before counts nothing."""
    compilation._of_plans.clear()
    yield monkeypatch
    compilation._of_plans.clear()


def failing(report):
    return {row.claim for row in report.failed}


def student(x, unit):
    """A Student-t prior of the locations, which no closed form knows."""
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.StudentT(3.0, 70.0 * unit, 20.0 * unit))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], 6.0 * unit), obs=x)


def opposite(x, unit):
    """One number is two means."""
    m = numpyro.param("m", jnp.array(1.0 * unit))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(jnp.stack([m, -m])[t], unit), obs=x)


def ordered(x):
    """Means ``low`` and ``low + d``."""
    low = numpyro.param("low", jnp.array(50.0))
    d = numpyro.param("d", jnp.array(20.0), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(jnp.stack([low, low + d])[t], 6.0), obs=x)


WAITING = GEYSER[:, 1]
LINE = np.random.default_rng(0).normal(size=200) + np.random.default_rng(1).choice([-1.0, 1.0], 200)
#: The numerical route stopped short of the maximum: under a prior, in large units, and from a difference of means.
STOPPED = {
    "a prior without a closed form": (functools.partial(student, unit=1.0), WAITING),
    "another unit": (functools.partial(opposite, unit=1e6), 1e6 * LINE),
    "a difference of means": (ordered, WAITING),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STOPPED)
def test_a_numerical_step_that_stops_short_and_is_called_a_maximum(name, planted):
    from probem.m_step.numeric import updates
    from probem.solver import certificate

    program, rows = STOPPED[name]
    probem.check(program, rows).raise_for_failure()
    compilation._of_plans.clear()
    nothing = updates.Promise(jnp.zeros(()), jnp.zeros((), bool))
    planted.setattr(updates, "numeric_updates", lambda plan, statistics, params: params)
    planted.setattr(certificate, "numeric_promise", lambda *_: (nothing, {}))
    report = probem.check(program, rows)
    assert report.fit.result is probem.Result.CONVERGED
    assert "G14" in failing(report)


def gated(x, y):
    """A probit gate."""
    a, b = numpyro.param("a", 0.0), numpyro.param("b", 0.4)
    mu = numpyro.param("mu", jnp.array([-1.0, 1.0]))
    p = norm.cdf(a + b * x)
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Categorical(probs=jnp.stack([1 - p, p], -1)))
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def topics(words, docs):
    """Weights that are looked up by a covariate."""
    phi = numpyro.param(
        "phi", jnp.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]), constraint=dist.constraints.simplex
    )
    theta = numpyro.param(
        "theta", jnp.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5], [0.3, 0.7]]), constraint=dist.constraints.simplex
    )
    with numpyro.plate("tokens", words.shape[0]):
        z = numpyro.sample("z", dist.Categorical(theta[docs]))
        numpyro.sample("words", dist.Categorical(phi[z]), obs=words)


SLOPE = np.linspace(-3, 3, 60)
STEP = np.where(SLOPE < 0.5, 0.0, 4.0) + np.random.default_rng(0).normal(size=60)
DOCS = np.repeat(np.arange(4), 40)
WORDS = np.concatenate([np.random.default_rng(1).choice(4, 40, p=p) for p in np.eye(4) * 0.4 + 0.15])


def halves(x):
    """Two normal distributions of known width."""
    mu = numpyro.param("mu", jnp.array([40.0, 90.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(mu[t], 12.0), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize("family", [probem.Tempered(0.5), probem.TopC(1)], ids=["tempered", "truncated"])
def test_the_best_q_of_a_family_in_between(family, planted):
    """Both were compared with nothing: an entropy with another weight is recorded as it is maximised."""
    report = probem.check(halves, WAITING, families={"t": family})
    report.raise_for_failure()
    assert len(report.of("A2").rows) == 2
    compilation._of_plans.clear()
    if isinstance(family, probem.Tempered):
        planted.setattr(probem.Tempered, "entropy_weight", 1.0)
    else:
        planted.setattr(probem.TopC, "project", lambda self, table: probem.Categorical().project(table))
    report = probem.check(halves, WAITING, families={"t": family})
    assert {"A2"} <= failing(report)


@pytest.mark.slow
def test_what_the_guide_draws_is_drawn(monkeypatch):
    """NumPyro puts parameters that are named in the place of draws, which were all at the mean of q."""
    from probem.checking import values

    draw, spreads = values._drawn, []

    def drawn(*arguments):
        estimates = draw(*arguments)
        spreads.append(estimates.std())
        return estimates

    monkeypatch.setattr(values, "_drawn", drawn)
    report = probem.claim("A6", means, LINE, families=probem.VARIATIONAL_BAYES)
    report.raise_for_failure()
    assert spreads[0] > 1e-2
    exact = report.rows[1]
    assert abs(exact.left - exact.right) < 1e-4
    assert len(report.rows) == 2


def test_where_nothing_was_compared_nothing_holds():
    report = probem.claim("units", means, LINE[:20])
    assert not report.rows
    assert not report.holds
    assert report.summary.endswith("nothing was compared.")
    with pytest.raises(AssertionError, match="other units of a program that knows its own"):
        report.raise_for_failure()
