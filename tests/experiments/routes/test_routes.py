"""Claims H1 to H7: each holds, and a planted fault makes the same check fail."""

import functools

import numpy as np
import pytest

import probem
from probem.experiments.claims.datasets import load
from probem.experiments.oracles import plain_em
from probem.experiments.report.report import formula, prose
from probem.experiments.routes import checks as routes
from probem.experiments.routes.claims import CLAIMS

SEED = 5
BY_ID = {claim.id: claim for claim in CLAIMS}


@functools.cache
def dataset():
    return load("old_faithful")


def failing(claim):
    checks = BY_ID[claim].check(dataset(), SEED) if BY_ID[claim].check else BY_ID[claim].by_itself(SEED)
    return [check.compared for check in checks if not check.holds]


# --- the plain loop ---


def test_conditioning_is_that_of_the_whole_normal_distribution():
    """A value filled in is where the joint density is highest, and its variance is the inverse of the curvature."""
    generator = np.random.default_rng(SEED)
    factor = generator.standard_normal((3, 3))
    loc, covariance = generator.standard_normal(3), factor @ factor.T
    mean, spread = plain_em.filled_in(np.array([0.3, np.nan, -1.0]), loc, covariance)
    precision = np.linalg.inv(covariance)
    assert (precision @ (mean - loc))[1] == pytest.approx(0.0, abs=1e-10)
    assert spread[1, 1] == pytest.approx(1 / precision[1, 1])
    assert np.count_nonzero(spread) == 1


def test_the_plain_loop_climbs_with_everything_at_once():
    rows, start, generator = routes._posed(dataset(), SEED)
    gaps = np.where(generator.random(rows.shape) < 0.3, np.nan, rows)
    labels = np.where(generator.random(len(rows)) < 0.2, 1, -1)
    values = [own.log_likelihood for own in plain_em.em(gaps, start, 5, labels)]
    assert np.all(np.diff(values) > 0)


def test_words_and_formulas_can_be_shown():
    for claim in CLAIMS:
        assert "merror" not in formula(claim.formula)
        assert "$" not in prose(claim.statement)


# --- the claims hold ---


@pytest.mark.slow
@pytest.mark.parametrize("claim", BY_ID)
def test_holds(claim):
    assert failing(claim) == []


# --- planted faults: an engine that forgets what it was asked for ---


def forgetting(monkeypatch, **instead):
    real = probem.iterate
    monkeypatch.setattr(probem, "iterate", lambda *data, **options: real(*data, **options | instead))


@pytest.mark.slow
def test_h1_sees_a_fit_that_stopped_early(monkeypatch):
    real = probem.fit
    early = lambda *data, **options: real(*data, **options | {"max_steps": 2})  # noqa: E731
    monkeypatch.setattr(probem, "fit", early)
    assert len([words for words in failing("H1") if "SciPy finds above" in words]) == 3


@pytest.mark.slow
def test_h3_sees_gaps_filled_in_beforehand(monkeypatch):
    real = probem.iterate

    def filled(program, rows, **options):
        return real(program, np.where(np.isnan(rows), np.nanmean(rows, axis=0), rows), **options)

    monkeypatch.setattr(probem, "iterate", filled)
    assert len(failing("H3")) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("claim", "option"), [("H4", "row_weights"), ("H5", "labels")])
def test_h4_and_h5_see_what_is_forgotten(monkeypatch, claim, option):
    forgetting(monkeypatch, **{option: None})
    assert len(failing(claim)) == 2


@pytest.mark.slow
def test_h6_sees_another_share(monkeypatch):
    real = probem.absorb
    monkeypatch.setattr(probem, "absorb", lambda fit, batch, decay: real(fit, batch, decay=0.8))
    assert len(failing("H6")) == 2


@pytest.mark.slow
def test_h7_sees_the_first_start_returned(monkeypatch):
    real = routes.plain_em.em
    monkeypatch.setattr(plain_em, "em", lambda rows, start, steps: real(rows, start, steps - 1))
    assert len(failing("H7")) == 2
