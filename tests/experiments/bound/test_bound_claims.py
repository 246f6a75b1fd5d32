"""Claims A1 to A6: each holds on small data, and a planted fault makes the same check fail."""

import dataclasses
import functools
import sys

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.checking import evaluate
from probem.experiments.bound import steps as bound_steps
from probem.experiments.bound import values as bound_values
from probem.experiments.bound.claims import CLAIMS
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.datasets import load
from probem.experiments.oracles import mixtures
from probem.experiments.report.report import formula, prose
from probem.families import Categorical, Dense
from probem.solver import judgement

# The claims on small data and their planted faults compile many programs: `probem verify` itself is the quick way to
# see that the claims hold.
pytestmark = pytest.mark.slow

# Compiling takes nearly all of the time: what needs programs of its own is slow, the rest shares three fits.
SEED = 5
BY_ID = {claim.id: claim for claim in CLAIMS}
ALL_MIXTURES, ALL_FAMILIES = mixtures.MIXTURES, bound_steps.FAMILIES


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Every structure and every family compiles another program."""
    monkeypatch.setattr(bound_values, "MIXTURES", (mixtures.FULL, mixtures.POISSON))
    monkeypatch.setattr(bound_steps, "FAMILIES", ALL_FAMILIES[:2])


@functools.cache
def small(num_rows=60, dimension=2):
    generator = np.random.default_rng(11)
    centres = 2.5 * generator.standard_normal((3, dimension))
    rows = np.repeat(centres, num_rows // 3, axis=0) + generator.standard_normal((num_rows, dimension))
    return Dataset("small", rows, "three clusters that overlap", tuple(map(str, range(dimension))))


def failing(claim, dataset=None):
    return [check.compared for check in BY_ID[claim].check(dataset or small(), SEED) if not check.holds]


# --- the claims hold ---


@pytest.mark.parametrize("claim", BY_ID)
def test_holds_on_small_data(claim):
    assert failing(claim) == []


@pytest.mark.slow
def test_the_likelihood_falls_under_kmeans():
    checks = {check.compared: check for check in bound_steps.likelihood_follows(load("one_dimensional"), SEED)}
    fall = checks["k-means: what is missing from a fall of log p(X) by 0.01 nats, and 0"]
    assert all(check.holds for check in checks.values())
    assert fall.numbers["iteration"] == 1
    # A plain k-means loop in NumPy finds the same fall.
    assert fall.numbers["log p(X) falls by (nats)"] == pytest.approx(3.8532705, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("claim", BY_ID)
def test_holds_on_digits(claim, monkeypatch):
    """With every structure and family, on many columns, some of them constant.

    `probem verify` has all data sets, and tests/checking/test_check.py programs of one column.
    """
    monkeypatch.undo()
    assert failing(claim, load("digits")) == []


@pytest.mark.parametrize("claim", CLAIMS, ids=BY_ID)
def test_words_and_formulas_can_be_shown(claim):
    assert "merror" not in formula(claim.formula)
    assert "$" not in prose(claim.statement) + prose(claim.figure_caption)


@pytest.mark.slow
@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.figure], ids=lambda claim: claim.id)
def test_figures_can_be_drawn(claim, monkeypatch):
    monkeypatch.undo()
    assert claim.figure(load(claim.figure_dataset), SEED).axes


# --- planted faults: on row shapes of their own, since what is compiled is kept ---


def test_a1_sees_a_dropped_entropy(monkeypatch):
    def without(*given, real=evaluate.bound_from_table):
        found = real(*given)
        return found._replace(elbo=found.expected_log_joint)

    monkeypatch.setattr(evaluate, "bound_from_table", without)
    assert len(failing("A1")) == 2


def test_a1_sees_a_divergence_the_wrong_way_round(monkeypatch):
    def reversed_divergence(q, log_p):
        return float((np.exp(log_p) * (log_p - np.log(np.maximum(q, 1e-9)))).sum())

    monkeypatch.setattr(bound_values, "divergence", reversed_divergence)
    assert len(failing("A1")) == 2


@pytest.mark.slow
def test_a2_sees_an_e_step_that_is_not_bayes_rule(monkeypatch):
    real = Categorical.project
    monkeypatch.setattr(Categorical, "project", lambda self, table: real(self, 2.0 * table))
    found = failing("A2", small(dimension=3))
    assert {"q of the E-step, and Bayes’ rule", "the most by which another q raises F, and 0"} <= set(found)


def test_a2_sees_another_q_that_wins(monkeypatch):
    real = bound_values.bounds
    monkeypatch.setattr(bound_values, "bounds", lambda *given: real(*given) + 1e-3)
    assert failing("A2") == ["the most by which another q raises F, and 0"]


def wrong_step(plan, statistics, params, real=judgement.maximise):
    """An M-step that overshoots the means."""
    found = real(plan, statistics, params)
    return {**found, "loc": found["loc"] + 1.5 * (found["loc"] - params["loc"])}


def test_a3_sees_an_iteration_that_forgets(monkeypatch):
    def forgetful(*given, real=bound_steps.trajectory):
        first, *rest = real(*given)
        return [first, *rest[:-1], dataclasses.replace(rest[-1], params=first.params)]

    monkeypatch.setattr(bound_steps, "trajectory", forgetful)
    assert len(failing("A3")) == 4


@pytest.mark.slow
def test_a3_sees_a_wrong_m_step(monkeypatch):
    monkeypatch.setattr(bound_steps, "FAMILIES", ALL_FAMILIES[:1])
    monkeypatch.setattr(judgement, "maximise", wrong_step)
    assert "any q: the largest fall of F in a half-step, and 0" in failing("A3", small(dimension=3))


@pytest.mark.slow
def test_a3_and_a4_see_a_dropped_entropy(monkeypatch):
    monkeypatch.setattr(bound_steps, "FAMILIES", ALL_FAMILIES[:1])
    monkeypatch.setattr(Dense, "entropy", lambda self: jnp.zeros(self.q.shape[0]))
    # As many columns as no data set has: what is compiled with the entropy must not be found again.
    dataset = small(dimension=7)
    assert "any q: F of every half-step as recorded, and from NumPyro’s densities" in failing("A3", dataset)
    assert "soft EM: F after every E-step, and log p(X) by NumPyro" in failing("A4", dataset)


def test_a4_sees_a_likelihood_that_does_not_fall(monkeypatch):
    # Rows of the three clusters: from here log p(X) rises with F.
    monkeypatch.setattr(bound_steps, "FALLS", {"small": (0, 20, 40)})
    assert failing("A4") == ["k-means: what is missing from a fall of log p(X) by 0.01 nats, and 0"]


def test_a5_sees_a_wrong_posterior(monkeypatch):
    monkeypatch.setattr(bound_values, "softmax", lambda table, axis: np.full(table.shape, 1 / table.shape[axis]))
    assert failing("A5") == ["gradient of log p(X), and E[gradient of log p(X, T)]"]


def test_a5_sees_em_stopped_early(monkeypatch):
    real = probem.fit
    monkeypatch.setattr(probem, "fit", lambda *data, **options: real(*data, **options | {"max_steps": 3}))
    assert failing("A5") == ["gradient of log p(X) where EM stops, relative to the start, and 0"]


def biased_guide(fit):
    def guide(rows):
        responsibilities = fit.responsibilities(rows)
        with numpyro.plate("data", len(rows)):
            biased = 0.5 * responsibilities + 0.5 / responsibilities.shape[1]
            numpyro.sample("t", dist.Categorical(probs=jnp.asarray(biased)), infer={"enumerate": "parallel"})

    return guide


def test_a6_sees_a_biased_guide(monkeypatch):
    monkeypatch.setattr(probem.Fit, "guide", biased_guide)
    assert failing("A6") == [
        "the guide of hard EM: NumPyro’s F, and ours",
        "the guide of soft EM: NumPyro’s F, and ours",
        "a guide that is not the posterior: NumPyro’s F, and ours",
        "the same by 100 draws of T: distance from F in standard errors",
    ]


def test_a6_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro.contrib.funsor", None)
    with pytest.raises(ImportError, match="funsor"):
        failing("A6")
