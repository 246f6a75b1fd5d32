"""Assignments that are known: q is clamped there, and everything else is as ever."""

import functools
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats

import probem
from probem.models import diagonal, full, gmm, kmeans
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.oracles.plain import rises

TRUTH = np.random.default_rng(0).permutation(np.arange(90) % 3)
X = np.array([[-2.5, 0.0], [0.5, 1.0], [2.5, -1.0]])[TRUTH] + np.random.default_rng(1).normal(size=(90, 2))
HALF = np.where(np.random.default_rng(2).random(90) < 0.5, TRUTH, -1)
PROGRAM = functools.partial(gmm, num_components=3, covariance=diagonal)
FULL = functools.partial(gmm, num_components=3, covariance=full)
START = {"weights": np.full(3, 1 / 3), "loc": X[:3], "scale": np.ones((3, 2))}


def table(params: dict, x: np.ndarray = X) -> np.ndarray:
    loc, scale = np.asarray(params["loc"]), np.asarray(params["scale"])
    return np.log(params["weights"]) + scipy.stats.norm.logpdf(x[:, None], loc, scale).sum(2)


def clamped(table: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The posterior, and a point mass where the assignment is known."""
    q = scipy.special.softmax(table, axis=1)
    for n, label in enumerate(labels):
        if label >= 0:
            q[n] = np.eye(3)[label]
    return q


def m_step(q: np.ndarray, x: np.ndarray = X) -> dict:
    counts = q.sum(0)
    loc = q.T @ x / counts[:, None]
    variance = np.einsum("nk,nkd->kd", q, (x[:, None] - loc) ** 2) / counts[:, None]
    return {"weights": counts / counts.sum(), "loc": loc, "scale": np.sqrt(variance)}


def bound(table: np.ndarray, q: np.ndarray) -> float:
    return float((q * table).sum() + scipy.special.entr(q).sum())


@pytest.mark.slow
def test_rows_that_are_all_known_are_described_class_by_class() -> None:
    fit = probem.fit(FULL, X, labels=TRUTH)
    for k in range(3):
        rows = X[TRUTH == k]
        assert float(fit.params["weights"][k]) == pytest.approx(len(rows) / 90, rel=1e-12)
        np.testing.assert_allclose(fit.params["loc"][k], rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(fit.params["covariance"][k], np.cov(rows.T, bias=True), rtol=1e-10)
    own = [
        scipy.stats.multivariate_normal.logpdf(row, fit.params["loc"][k], fit.params["covariance"][k])
        + np.log(fit.params["weights"][k])
        for row, k in zip(X, TRUTH, strict=True)
    ]
    assert fit.elbo == pytest.approx(sum(own), rel=1e-12)
    # The start is the maximum already: the second step sees that the bound stays.
    assert fit.num_steps == 2
    assert fit.elbo_terms["H(t)"] == 0.0


def test_half_known_is_em_with_q_clamped() -> None:
    fit = probem.fit(PROGRAM, X, labels=HALF, init=probem.Parameters(START), max_steps=20, tolerance=0, throw=False)
    params, bounds = START, []
    for _ in range(20):
        last = params
        q = clamped(table(params), HALF)
        bounds.append(bound(table(params), q))
        params = m_step(q)
    np.testing.assert_allclose(fit.history.elbo[::2], bounds, rtol=1e-11)
    for name, value in last.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-10)
    assert rises(fit.history)
    assert sum(fit.elbo_terms.values()) == pytest.approx(fit.elbo, rel=1e-12)


@pytest.mark.slow
def test_the_seed_of_a_component_is_the_mean_of_its_known_rows() -> None:
    """A group that k-means++ has no reason to tell apart, and the number that each component was given."""
    random = np.random.default_rng(3)
    x = np.concatenate(
        [random.normal(size=(50, 2)), random.normal(size=(50, 2)) + 20, random.normal(size=(6, 2)) + 1.5]
    )
    labels = np.full(106, -1)
    labels[100:103], labels[0], labels[50] = 0, 2, 1
    program = functools.partial(kmeans, num_components=3)
    for key in range(4):
        for init in (probem.KMeansPlusPlus(), probem.RandomRows()):
            fit = probem.fit(program, x, labels=labels, init=init, key=key, families=probem.HARD_EM)
            loc = np.asarray(fit.params["loc"])
            np.testing.assert_array_equal(
                np.argmin(((loc[:, None] - [[1.5, 1.5], [20, 20], [0, 0]]) ** 2).sum(2), 1), [0, 1, 2]
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [probem.Delta(), probem.Tempered(0.5), probem.TopC(2), probem.Delta(fill_empty=True)], ids=repr
)
def test_restricted_families_are_clamped_too(family: Any) -> None:
    fit = probem.fit(PROGRAM, X, labels=HALF, families={"t": family}, init=probem.Parameters(START))
    assert rises(fit.history)
    own = table(fit.params)
    if isinstance(family, probem.Tempered):
        q = clamped(family.beta * own, HALF)
    elif isinstance(family, probem.TopC):
        q = clamped(np.where(own >= np.sort(own, 1)[:, [-2]], own, -np.inf), HALF)
    else:
        q = clamped(np.where(own == own.max(1, keepdims=True), 0, -np.inf), HALF)
    assert fit.elbo == pytest.approx(bound(own, q), rel=1e-10)
    np.testing.assert_allclose(fit.counts, q.sum(0), rtol=1e-10)


@pytest.mark.slow
def test_a_known_row_does_not_leave_for_an_empty_component() -> None:
    """The worst row of all is known: the next worst goes."""
    x = np.array([[0.0, 0.0], [0.5, 0.0], [9.0, 0.0], [0.0, 3.0], [0.2, 0.1]])
    start = probem.Parameters({"loc": np.array([[0.0, 0.0], [99.0, 99.0]])})
    options: dict[str, Any] = {"families": {"t": probem.Delta(fill_empty=True)}, "init": start, "max_steps": 2}
    program = functools.partial(kmeans, num_components=2)
    free = probem.fit(program, x, tolerance=0, throw=False, **options)
    np.testing.assert_allclose(free.params["loc"][1], x[2])
    held = probem.fit(program, x, labels=[-1, -1, 0, -1, -1], tolerance=0, throw=False, **options)
    np.testing.assert_allclose(held.params["loc"][1], x[3])


@pytest.mark.slow
@pytest.mark.parametrize(("family", "restarts"), [(probem.Categorical(), 3), (probem.Delta(), 1)], ids=repr)
def test_several_blocks_are_one(family: Any, restarts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"labels": HALF, "families": {"t": family}, "key": 1, "restarts": restarts}
    one = probem.fit(PROGRAM, X, **options)
    several = functools.partial(gmm, num_components=3, covariance=lambda *arguments: diagonal(*arguments))
    monkeypatch.setattr(Plan, "cut", lambda plan, num_rows: Chunking(32, 8))
    blocks = probem.fit(several, X, **options)
    # Other roundings, and a start that draws no seeds: each component has known rows.
    np.testing.assert_allclose(blocks.history.elbo, one.history.elbo, rtol=1e-11)


@pytest.mark.slow
def test_labels_go_where_weights_streams_and_many_data_sets_go() -> None:
    weights = np.random.default_rng(4).integers(0, 3, 90)
    weighted = probem.fit(PROGRAM, X, labels=HALF, row_weights=weights)
    repeated = probem.fit(PROGRAM, np.repeat(X, weights, axis=0), labels=np.repeat(HALF, weights))
    assert weighted.elbo == pytest.approx(repeated.elbo, rel=1e-10)
    many = probem.fit_many(PROGRAM, np.stack([X, X]), labels=np.stack([HALF, TRUTH]))
    assert many[0].elbo == pytest.approx(probem.fit(PROGRAM, X, labels=HALF).elbo, rel=1e-9)
    assert many[1].elbo == pytest.approx(probem.fit(PROGRAM, X, labels=TRUTH).elbo, rel=1e-12)
    fit = probem.fit(PROGRAM, X, labels=TRUTH)
    after = probem.absorb(fit, X, labels=HALF, decay=1)
    own = table(fit.params)
    assert after.history.elbo[-2] == pytest.approx(fit.elbo + bound(own, clamped(own, HALF)), rel=1e-11)


BAD = [
    (np.zeros(3, int), r"labels of shape \(3,\); expected shape \(90,\)"),
    (np.full(90, 3), "the label 3; expected labels in 0..2"),
    (np.full(90, -2), "other than whole numbers from -1"),
    (np.full(90, 0.5), "other than whole numbers from -1"),
    (np.full(90, np.nan), "other than whole numbers from -1"),
    (np.full(90, np.inf), "other than whole numbers from -1"),
    (np.full(90, "a"), "labels of type <U1; expected whole numbers from -1"),
]


@pytest.mark.parametrize(("labels", "message"), BAD)
def test_labels_that_cannot_be_are_one_sentence(labels: Any, message: str) -> None:
    with pytest.raises(probem.InputError, match=message):
        probem.fit(PROGRAM, X, labels=labels)
