"""Claims D3, D4, G2, G3, G13, G14: each holds, and a planted fault makes the same check fail."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem.experiments.claims.datasets import load
from probem.experiments.convergence import acceleration, incremental, limits, mixture, plain, rates, steps
from probem.experiments.convergence.claims import CLAIMS
from probem.experiments.report.report import formula, prose
from probem.results import standard_errors
from probem.solver.accelerations import SQUAREM

SEED = 0
BY_ID = {claim.id: claim for claim in CLAIMS}


@functools.cache
def dataset():
    return load("overlapping")


def failing(claim):
    return [check.compared for check in BY_ID[claim].check(dataset(), SEED) if not check.holds]


@pytest.fixture
def afresh():
    """What a planted fault makes of a run is not kept, nor is what was kept before."""
    kept = (rates._followed, acceleration._runs, incremental._run, limits._bounded, limits._collapse)
    compiled = (limits._along, rates._steps, rates._engine_step)

    def clear():
        for each in kept:
            each.cache_clear()
        for each in compiled:
            each.clear_cache()

    clear()
    yield
    clear()


def test_words_and_formulas_can_be_shown():
    for claim in CLAIMS:
        assert "merror" not in formula(claim.formula)
        assert "$" not in prose(claim.statement)


# --- the plain side ---


def params(rows):
    generator = np.random.default_rng(SEED)
    covariance = np.stack([np.cov(rows, rowvar=False), 0.5 * np.eye(2)])
    return {"weights": np.array([0.3, 0.7]), "loc": generator.normal(size=(2, 2)), "covariance": covariance}


def test_free_coordinates_lead_back():
    given = params(dataset().rows)
    back = mixture.back_from(given)(mixture.free(given))
    for name, value in given.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_the_plain_iteration_climbs_and_its_gradient_is_fishers():
    rows = jnp.asarray(dataset().rows)
    given = params(dataset().rows)
    q = mixture.responsibilities(given, rows)
    assert float(mixture.log_density(mixture.iteration(given, rows), rows)) > float(mixture.log_density(given, rows))
    # The gradient of log p(X) is that of E_q[log p(X, T)] at the posterior.
    slope = jax.grad(mixture.log_density)(given, rows)
    expected = jax.grad(mixture.expected_log_joint)(given, q, rows)
    # NumPyro divides the weights by their sum.
    expected["weights"] = expected["weights"] - given["weights"] @ expected["weights"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), slope, expected)


def test_statistics_about_the_origin_give_the_plain_m_step():
    rows = dataset().rows
    q = np.asarray(mixture.responsibilities(params(rows), rows))
    whole = plain.Sums.of(q, rows).maximised()
    np.testing.assert_allclose(plain.posterior(params(rows), rows), q, rtol=1e-9, atol=1e-14)
    for name, value in mixture.as_numbers(mixture.m_step(q, rows)).items():
        np.testing.assert_allclose(whole[name], value, rtol=1e-10, atol=1e-12)


# --- the claims hold ---


@pytest.mark.slow
@pytest.mark.parametrize("claim", BY_ID)
def test_holds(claim):
    assert failing(claim) == []


# --- planted faults ---


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_d3_and_g3_see_an_e_step_that_is_not_the_posterior(monkeypatch):
    real = probem.solve
    tempered = {"families": {"t": probem.Tempered(0.9)}}
    monkeypatch.setattr(probem, "solve", lambda *data, **options: real(*data, **options | tempered))
    assert len(failing("D3")) == 1
    assert len(failing("G3")) == 3


@pytest.mark.slow
def test_g2_sees_steps_that_are_not_those_of_em(monkeypatch):
    real = probem.iterate
    fast = {"acceleration": probem.SQUAREM()}
    monkeypatch.setattr(probem, "iterate", lambda *data, **options: real(*data, **options | fast))
    assert len(failing("G2")) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_g2_sees_covariances_about_the_new_means(monkeypatch):
    def about_new(before, after):
        return {name: after[name] - before[name] for name in before}

    monkeypatch.setattr(steps, "moved", about_new)
    (words,) = failing("G2")
    assert words.startswith("covariances")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unguarded(SQUAREM):
    """SQUAREM that takes nothing back."""

    def between(self, plan, steps, past, totals, limits):
        low = past.back._replace(last=jnp.full_like(past.back.last, -jnp.inf))
        return super().between(plan, steps, past._replace(back=low), totals, limits)


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_d4_sees_an_acceleration_without_a_guard(monkeypatch):
    monkeypatch.setattr(acceleration, "ACCELERATIONS", {"EM": None, "SQUAREM": Unguarded(farthest=1e4)})
    assert any("SQUAREM: by how much F falls" in words for words in failing("D4"))


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_d4_sees_a_rule_that_stops_early(monkeypatch):
    monkeypatch.setattr(acceleration, "RULE", probem.stopping.ParameterShift(1e-8))
    assert any("EM: where it ends" in words for words in failing("D4"))


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_g3_sees_standard_errors_as_if_the_other_parameters_were_known(monkeypatch):
    monkeypatch.setattr(
        standard_errors, "_inverse", lambda plan, information, *others: np.diag(1 / np.diag(information))
    )
    (words,) = failing("G3")
    assert words.startswith("standard errors")


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_g13_sees_an_m_step_that_forgets_the_other_blocks(monkeypatch):
    monkeypatch.setattr(plain.Sums, "replaced", lambda self, old, new: new)
    assert any("by how much F falls" in words for words in failing("G13"))


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_g14_sees_runs_that_end_too_early(monkeypatch):
    real = probem.solve
    early = lambda *data, **options: real(*data, **options | {"max_steps": 3})  # noqa: E731
    monkeypatch.setattr(probem, "solve", early)
    (words,) = failing("G14")
    assert "the gradient of log p(X)" in words


@pytest.mark.slow
@pytest.mark.usefixtures("afresh")
def test_g14_sees_a_collapse_that_is_none(monkeypatch):
    monkeypatch.setattr(limits, "SLOPE", 1e6)
    (words,) = failing("G14")
    assert "from a component on one row" in words
