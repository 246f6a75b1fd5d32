"""Claims C1 to C6 and G9: each holds, and a planted fault makes the same check fail."""

import dataclasses
import functools

import numpy as np
import pytest
from scipy.special import logsumexp

import probem
from probem.experiments import hard_and_soft as subject
from probem.experiments.claims.claim import Dataset
from probem.experiments.claims.datasets import load
from probem.experiments.hard_and_soft import annealing, bias, checks, plain, schedules
from probem.experiments.hard_and_soft.plain import Spheres
from probem.experiments.oracles.lloyd import lloyd
from probem.experiments.outcomes.all_claims import claims_of
from probem.experiments.report.report import formula, prose
from probem.families import Delta, Tempered

SEED = 5
CLAIMS = tuple(claims_of(subject))
BY_ID = {claim.id: claim for claim in CLAIMS}


@pytest.fixture(autouse=True)
def few_fits(monkeypatch):
    """Enough of them for the claims to be true of, and for the faults to be seen."""
    monkeypatch.setattr(bias, "SETS", 6)
    shorter = dataclasses.replace(BY_ID["C4"], by_itself=lambda seed: bias.biased(seed, (400, 1600)))
    monkeypatch.setitem(BY_ID, "C4", shorter)
    for name, number in (("RESTARTS", 16), ("ANNEALED", 6), ("REPEATED", 2)):
        monkeypatch.setattr(schedules, name, number)
    monkeypatch.setattr(annealing, "ITERATIONS", 12)
    # A planted fault must neither find what was made without it nor leave its own behind.
    for remembered in (bias.estimates, schedules.compared):
        remembered.cache_clear()
    yield
    for remembered in (bias.estimates, schedules.compared):
        remembered.cache_clear()


@functools.cache
def dataset():
    every = load("old_faithful")
    return Dataset(every.name, every.rows[::4], every.description, every.columns)


def failing(claim):
    checked = [*BY_ID[claim].check(dataset(), SEED)] if BY_ID[claim].check else []
    checked += [*BY_ID[claim].by_itself(SEED)] if BY_ID[claim].by_itself else []
    return [check.compared for check in checked if not check.holds]


# --- the plain side ---


def test_words_and_formulas_can_be_shown():
    for claim in CLAIMS:
        assert "merror" not in formula(claim.formula)
        assert "$" not in prose(claim.statement) + prose(claim.figure_caption)


def test_the_plain_density_is_that_of_scipy():
    from scipy.stats import multivariate_normal

    generator = np.random.default_rng(SEED)
    rows, loc = generator.standard_normal((20, 3)), generator.standard_normal((4, 3))
    densities = [multivariate_normal(centre, 0.49 * np.eye(3)).logpdf(rows) - np.log(4) for centre in loc]
    spheres = Spheres(loc, 0.7)
    np.testing.assert_allclose(spheres.log_joint(rows), np.stack(densities, axis=1), rtol=1e-12)
    np.testing.assert_allclose(spheres.log_likelihood(rows), logsumexp(densities, axis=0).sum(), rtol=1e-12)


def test_a_path_of_infinite_beta_is_lloyds():
    rows = dataset().rows
    start = Spheres(rows[[0, 10, 20]], 1.0)
    expected = [iteration.centres for iteration in lloyd(rows, start.loc, 5)]
    for ours, theirs in zip(plain.path(rows, start, np.inf, 4), expected, strict=False):
        np.testing.assert_array_equal(ours, theirs)


def test_a_folded_mean_is_that_of_draws():
    x = np.random.default_rng(SEED).standard_normal(400_000)
    for a in (0.0, 0.7):
        assert bias.folded_mean(a) == pytest.approx(np.abs(x + a).mean(), abs=5e-3)
    assert bias.folded_mean(0.0) == pytest.approx(np.sqrt(2 / np.pi), rel=1e-14)


def test_the_information_of_two_means_far_apart_is_that_of_half_the_rows_each():
    spread = bias.spread_of_soft(7.0)
    assert (spread.middle, spread.half) == pytest.approx((1.0, 1.0), rel=1e-6)
    hard = bias.spread_of_hard(7.0)
    assert (hard.middle, hard.half) == pytest.approx((1.0, 1.0), rel=1e-6)


# --- the claims hold ---


@pytest.mark.slow
@pytest.mark.parametrize("claim", BY_ID)
def test_holds(claim):
    assert failing(claim) == []


# --- planted faults ---


def engine(monkeypatch, change):
    """The engine is asked for something else than the claim is about."""
    real = checks.follow
    monkeypatch.setattr(checks, "follow", lambda *asked: real(*change(*asked)))


@pytest.mark.slow
def test_c1_sees_another_variance(monkeypatch):
    """The standard deviation where the variance belongs."""
    engine(monkeypatch, lambda rows, start, *rest: (rows, Spheres(start.loc, start.scale**0.5), *rest))
    assert len(failing("C1")) == 7


@pytest.mark.slow
def test_c1_sees_a_q_that_is_too_soft(monkeypatch):
    engine(monkeypatch, lambda rows, start, family, *rest: (rows, start, {"t": Tempered(0.9)}, *rest))
    assert [words.partition(":")[0] for words in failing("C1")][:2] == [
        "log(1 − max q) of every row, by the engine and by a plain loop (nats)",
        "log(1 − max q)",
    ]


@pytest.mark.slow
def test_c2_sees_a_power_that_is_forgotten(monkeypatch):
    engine(monkeypatch, lambda rows, start, family, *rest: (rows, start, probem.EM, *rest))
    assert len(failing("C2")) >= 5


@pytest.mark.slow
def test_c2_sees_the_bound_itself_recorded(monkeypatch):
    """F falls under a power, and is not what a tempered fit climbs."""
    monkeypatch.setattr(Tempered, "entropy_weight", property(lambda self: 1.0))
    assert any("as recorded by the engine" in words for words in failing("C2"))


@pytest.mark.slow
def test_c3_sees_two_terms_where_there_is_one(monkeypatch):
    def softer(rows, start, family, *rest):
        return rows, start, {"t": probem.TopC(2)} if family is probem.HARD_EM else family, *rest

    engine(monkeypatch, softer)
    assert len(failing("C3")) == 2


@pytest.mark.slow
def test_c4_sees_a_q_that_is_no_point_mass(monkeypatch):
    monkeypatch.setattr(probem, "HARD_EM", probem.EM)
    assert len(failing("C4")) == 4


@pytest.mark.slow
def test_c5_sees_centres_that_never_part(monkeypatch):
    """All centres at the mean, to the last digit: a fixed point of every step."""
    at_the_mean = lambda rows, seed: [np.tile(rows.mean(axis=0), (schedules.CLUSTERS, 1))] * schedules.ANNEALED  # noqa: E731
    monkeypatch.setattr(schedules, "starts_at_the_mean", at_the_mean)
    assert any("median F of annealed EM is below" in words for words in failing("C5"))


@pytest.mark.slow
def test_c6_sees_other_terms(monkeypatch):
    def fewer(rows, start, family, *rest):
        if isinstance(family, dict):
            family = {"t": probem.TopC(family["t"].num_kept - 1) if family["t"].num_kept > 1 else Delta()}
        return rows, start, family, *rest

    engine(monkeypatch, fewer)
    assert len(failing("C6")) == 4


@pytest.mark.slow
def test_g9_sees_a_power_that_is_forgotten(monkeypatch):
    real = annealing.follow
    monkeypatch.setattr(annealing, "follow", lambda rows, start, family, steps: real(rows, start, probem.EM, steps))
    assert len(failing("G9")) == 2
