"""probem.check: it holds on programs of every kind, and finds the faults that probem once had."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.checking.check import CLAIMS
from probem.experiments.claims.datasets import load
from probem.jit import compilation
from probem.models import bernoulli_mixture, dirichlet_process_gmm, gmm, kmeans, poisson_mixture
from probem.models import diagonal as diagonal_covariance
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
    probem.check(EXAMPLES[name].program, *EXAMPLES[name].data).raise_for_failure()


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


# --- faults that probem had: found ---


@pytest.fixture
def planted(monkeypatch):
    """A monkeypatch of the engine, for which what was compiled before counts nothing."""
    compilation._of_plans.clear()
    yield monkeypatch
    compilation._of_plans.clear()


def failing(report):
    return {row.claim for row in report.failed}


def opposite(x, unit):
    """One number is two means."""
    m = numpyro.param("m", jnp.array(1.0 * unit))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(jnp.stack([m, -m])[t], unit), obs=x)


LINE = np.random.default_rng(0).normal(size=200) + np.random.default_rng(1).choice([-1.0, 1.0], 200)


@pytest.mark.slow
def test_a_numerical_step_that_stops_short_and_is_called_a_maximum(planted):
    """In large units."""
    from probem.m_step.numeric import updates
    from probem.solver import certificate

    program, rows = functools.partial(opposite, unit=1e6), 1e6 * LINE
    probem.check(program, rows).raise_for_failure()
    compilation._of_plans.clear()
    nothing = updates.Promise(jnp.zeros(()), jnp.zeros((), bool))
    planted.setattr(updates, "numeric_updates", lambda plan, statistics, params: params)
    planted.setattr(certificate, "numeric_promise", lambda *_: (nothing, {}))
    report = probem.check(program, rows)
    assert report.fit.result is probem.Result.CONVERGED
    assert "G14" in failing(report)
