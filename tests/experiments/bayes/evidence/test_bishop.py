"""G17: a planted fault makes each of its checks fail."""

import numpy as np
import pytest

from probem.experiments.bayes.evidence import bishop
from probem.experiments.claims.datasets import load
from probem.experiments.claims.drawing import draw
from probem.experiments.report.report import formula, prose

(CLAIM,) = bishop.CLAIMS


@pytest.fixture
def forget():
    for function in (bishop.bayes, bishop.cycles):
        function.cache_clear()
    yield
    for function in (bishop.bayes, bishop.cycles):
        function.cache_clear()


def failing(checks):
    return [check.compared for check in checks if not check.holds]


def test_rows_are_standardised():
    np.testing.assert_allclose(bishop.rows().mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(bishop.rows().var(axis=0), 1, rtol=1e-14)


def test_components_are_counted_as_they_are_said_to_be():
    """Two of three starts end with two components, the highest F with one."""
    counts = np.array([[5.0, 4.0, 0.5], [6.0, 3.0, 0.5], [9.0, 0.2, 0.3]])
    each = bishop.Bayes(np.array([-3.0, -2.0, -1.0]), counts, np.zeros(9, int), 1)
    assert (each.usual, each.highest) == (2, 1)


def test_words_and_formulas_can_be_shown():
    assert "merror" not in formula(CLAIM.formula)
    assert "$" not in prose(CLAIM.statement) + prose(CLAIM.figure_caption)


@pytest.mark.slow
def test_holds():
    assert failing(CLAIM.by_itself(0)) == []
    assert len(draw(lambda: CLAIM.figure(load("old_faithful"), 0), prefix="G17").png) > 10_000


@pytest.mark.slow
def test_a_concentration_that_does_not_arrive_is_seen(monkeypatch, forget):
    real = bishop.dirichlet
    monkeypatch.setattr(bishop, "dirichlet", lambda size, concentration: real(size, 1.0 + 0.0 * concentration))
    (number, bound) = bishop.components(0, (bishop.BROAD,), 3)
    assert not number.holds
    assert bound.holds


@pytest.mark.slow
def test_another_prior_is_seen(monkeypatch, forget):
    """Half a degree of freedom more, in the program alone."""
    other = bishop.GaussianPrior(np.zeros(2), bishop.BROAD.strength, bishop.BROAD.dof + 0.5, np.eye(2))
    monkeypatch.setattr(bishop.Prior, "of_program", property(lambda self: other))
    (_, bound) = bishop.components(0, (bishop.BROAD,), 2)
    assert not bound.holds


@pytest.mark.slow
def test_a_highest_bound_elsewhere_is_seen(monkeypatch):
    monkeypatch.setattr(bishop, "HIGHEST", 3)
    assert failing(bishop.bound_by_components(0, (2, 3), 2))


@pytest.mark.slow
def test_another_start_of_em_is_seen(monkeypatch, forget):
    """Weights that are not equal, in the plain loop."""
    real = bishop.plain_em.em
    monkeypatch.setattr(
        bishop.plain_em,
        "em",
        lambda rows, params, steps: real(
            rows, bishop.plain_em.Params(np.array([0.4, 0.6]), params.loc, params.covariance), steps
        ),
    )
    assert [compared for compared in failing(bishop.em_and_k_means(0, 2)) if "by plain loops" in compared]


@pytest.mark.slow
def test_em_that_is_no_slower_than_k_means_is_seen(monkeypatch, forget):
    real = bishop.lloyd.lloyd
    monkeypatch.setattr(bishop.lloyd, "lloyd", lambda rows, start: 10 * real(rows, start))
    assert [compared for compared in failing(bishop.em_and_k_means(0, 2)) if "those of k-means" in compared]
