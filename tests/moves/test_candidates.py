"""What a move is expected to bring, by the formulas; how rows are split; which moves are tried at all."""

import functools

import numpy as np
import pytest

import probem
from probem.moves import refine
from probem.moves.candidates import View, candidates
from probem.moves.rearrangement import Rearrangement, by_size
from probem.moves.rows import RowShares, fingerprint, is_nearly, losses
from probem.moves.scores import entropy_change
from probem.moves.splits import two_means
from tests.moves.scenes import PRIOR, TRUTH, X, at_random, fitted, in_one
from tests.oracles import dirichlet_process


def view_of(fit: probem.Fit, **options) -> View:
    """The view of a search that begins at a fit."""
    asked = refine._options(fit, 1000, 1e-10, options.get("row_weights"), options.get("labels"))
    search = refine._Search.of(fit, (X,), asked, 3)
    search.settle()
    return search.view()


@functools.cache
def view() -> View:
    return view_of(at_random())


def value_of(q: np.ndarray) -> float:
    """F after an M half-step at this q of the assignments, by the formulas."""
    return dirichlet_process.bound(X, q, dirichlet_process.maximised(X, q, PRIOR), PRIOR)


@pytest.mark.parametrize("kind", ["relabel", "merge", "birth"])
def test_a_score_is_f_after_the_first_m_step(kind) -> None:
    """Exactly, and so a bound on what the iterations from there come to; F itself is settled to 1e-6 nats a row."""
    made = list(candidates(view(), (kind,), 3))
    assert len(made) == (1 if kind == "relabel" else 3)
    for candidate in made:
        q = candidate.q()
        np.testing.assert_allclose(q.sum(1), 1.0, rtol=1e-12)
        np.testing.assert_allclose(candidate.score, value_of(q), atol=1e-6 * len(X))
    assert [each.score for each in made] == sorted((each.score for each in made), reverse=True)


def test_a_merge_and_a_birth_at_once_are_scored_as_well() -> None:
    """Where no component is empty."""
    labels = np.random.default_rng(0).integers(3, size=600)
    crowded = view_of(fitted(np.where(TRUTH == 0, labels, TRUTH + 3)))
    object.__setattr__(crowded, "empty", [])
    made = [each for each in candidates(crowded, ("merge", "birth"), 3) if each.kind == "merge+birth"]
    assert made
    for candidate in made:
        np.testing.assert_allclose(candidate.score, value_of(candidate.q()), atol=1e-6 * len(X))


def test_a_delete_loses_what_the_table_without_the_component_says() -> None:
    """F at the parameters as they are, once rows may not go there."""
    seen = view()
    lost = losses(seen.shares, seen.weights)
    r = at_random().variational
    c1, c0 = r["sticks"]["concentration1"], r["sticks"]["concentration0"]
    a, b = (np.reshape(r["rate"][name], (6, 8)) for name in ("concentration", "rate"))
    table = dirichlet_process.log_weights(np.asarray(c1), np.asarray(c0))
    table = table + X @ (np.vectorize(_digamma)(a) - np.log(b)).T - (a / b).sum(1)
    whole = np.logaddexp.reduce(table, axis=1).sum()
    for component in range(6):
        others = np.delete(table, component, axis=1)
        expected = whole - np.logaddexp.reduce(others, axis=1).sum()
        # The fit goes on by what it still promised.
        np.testing.assert_allclose(lost[component], expected, rtol=1e-4, atol=1e-3)
    made = list(candidates(seen, ("delete",), 2))
    small = np.argsort(np.where(seen.occupied, lost, np.inf))[:2]
    assert [each.components for each in made] == [(place,) for place in small]
    assert all((each.q()[:, each.components[0]] == 0).all() for each in made)


def test_what_a_delete_loses_counts_rows_by_their_weight() -> None:
    seen, weights = view(), np.arange(600) % 3
    every = np.repeat(np.arange(600), weights)
    repeated = RowShares(*(part[every] for part in seen.shares))
    np.testing.assert_allclose(losses(seen.shares, 1.0 * weights), losses(repeated, np.ones(len(every))), rtol=1e-12)


def _digamma(value: float) -> float:
    from scipy.special import digamma

    return float(digamma(value))


def test_the_entropy_that_a_merge_loses() -> None:
    q, weights = np.random.default_rng(0).dirichlet(np.ones(4), size=50), np.arange(50.0)

    def entropy(q: np.ndarray) -> float:
        return -float(weights @ np.where(q > 0, q * np.log(np.where(q > 0, q, 1.0)), 0.0).sum(1))

    merged = Rearrangement(merge=(1, 3)).of(q.T, None).T
    np.testing.assert_allclose(entropy_change(q, weights, (1, 3)), entropy(merged) - entropy(q), rtol=1e-12)
    assert entropy_change(q, weights, (1, 3)) < 0
    assert entropy_change(np.eye(4)[np.arange(50) % 4], weights, (1, 3)) == 0


def test_two_means_find_two_clusters_and_leave_missing_values_alone() -> None:
    random = np.random.default_rng(0)
    truth = np.arange(200) % 2
    rows = 1e3 * (np.array([[0.0, 0.0], [9.0, 9.0]])[truth] + random.normal(size=(200, 2)))
    rows[random.random((200, 2)) < 0.1] = np.nan
    weights = np.where(np.arange(200) < 180, 1.0, 0.0)
    side, explained = two_means(rows, weights)
    clear = (weights > 0) & ~np.isnan(rows[:, 0])
    assert len({*zip(side[clear].tolist(), truth[clear].tolist(), strict=True)}) == 2
    assert not side[180:].any()
    assert 0.4 < explained < 1
    for nothing in (np.ones((20, 2)), np.full((20, 2), np.nan), np.zeros((1, 2))):
        assert not two_means(nothing, np.ones(len(nothing)))[0].any()


def test_orders_and_rearrangements() -> None:
    assert by_size(np.array([1.0, 5.0, 3.0, 5.0]), np.array([True, True, False, True])) == (1, 3, 2, 0)
    values = np.arange(8.0).reshape(4, 2)
    made = Rearrangement((0, 3), (1, 3), (3, 2, 1, 0)).of(values, np.array([0.5, 1.0]))
    np.testing.assert_array_equal(made, [[0.5, 1.0], [4.0, 5.0], [1.5, 2.0], [6.0, 8.0]])
    np.testing.assert_array_equal(values, np.arange(8.0).reshape(4, 2))


def test_what_was_tried_in_vain_is_known_again_by_its_rows() -> None:
    q = np.eye(3)[np.arange(600) % 3]
    other = q.copy()
    other[:3] = np.roll(other[:3], 1, axis=1)
    far = np.eye(3)[np.arange(600) // 200]
    assert is_nearly(fingerprint(q), fingerprint(other))
    assert not is_nearly(fingerprint(q), fingerprint(far))


def test_components_of_known_rows_stay_and_their_rows_are_not_split_off() -> None:
    labels = np.where(np.arange(600) % 40 == 0, TRUTH, -1)
    fit = probem.fit(
        in_one().program, X, families=probem.VARIATIONAL_BAYES, init=probem.Labels(TRUTH), labels=labels, verbose=0
    )
    seen = view_of(fit, labels=labels)
    assert seen.labelled.tolist() == [True, True, True, False, False, False]
    made = list(candidates(seen, ("relabel", "merge", "delete", "birth"), 5))
    assert {each.kind for each in made} == {"birth"}
    for each in made:
        np.testing.assert_array_equal(each.q()[labels >= 0], np.eye(6)[labels[labels >= 0]])
