"""What is kept of an estimator between calls, how much of it, and for how long."""

import gc

import jax.numpy as jnp
import numpy as np
import pytest

from probem.sklearn import GaussianMixture, prepared
from probem.sklearn.base import Frame
from tests.sklearn.prepared_fits import ROWS, copied, plans_made


@pytest.fixture(scope="module")
def em():
    return GaussianMixture(2, random_state=0).fit(ROWS)


@pytest.mark.slow
def test_large_attributes_are_not_copied(em, monkeypatch):
    estimator = copied(em)
    monkeypatch.setattr(prepared, "_MOST_BYTES", 100)
    made = plans_made(monkeypatch)
    estimator.predict(ROWS)
    estimator.predict(ROWS)
    assert len(made) == 2
    assert estimator not in prepared._of_estimators


def test_what_cannot_be_compared_is_made_anew(em, monkeypatch):
    estimator = copied(em)
    expected = estimator.score_samples(ROWS)
    made = plans_made(monkeypatch)
    estimator.means_ = jnp.asarray(estimator.means_)
    for _ in range(2):
        np.testing.assert_allclose(estimator.score_samples(ROWS), expected, rtol=1e-12)
    assert len(made) == 2


def test_what_another_thread_wrote_to_meanwhile_is_not_kept(em, monkeypatch):
    """The means change after they were compared and before they are used, and are the old ones again afterwards."""
    estimator = copied(em)
    expected, means = estimator.predict_proba(ROWS), estimator.means_
    estimator = copied(em)
    model = estimator._model
    monkeypatch.setattr(estimator, "_model", lambda complete: changed() or model(complete))

    def changed():
        estimator.means_ = means + 1.0

    assert not np.allclose(estimator.predict_proba(ROWS), expected)
    monkeypatch.undo()
    estimator.means_ = means
    np.testing.assert_array_equal(estimator.predict_proba(ROWS), expected)


def test_the_same_bits_of_another_type_are_other_numbers(em):
    estimator = copied(em)

    def look():
        return prepared.prepared(estimator, ("means_",), 0, lambda: estimator.means_.copy())

    first = look()
    estimator.means_ = first.view(np.int64)
    assert look().dtype == np.int64


def test_few_kinds_are_kept(em, monkeypatch):
    estimator = copied(em)
    monkeypatch.setattr(prepared, "_MOST_KINDS", 2)
    for kind in range(5):
        assert prepared.prepared(estimator, ("means_",), kind, lambda kind=kind: str(kind)) == str(kind)
        assert len(prepared._of_estimators[estimator].made) <= 2
    assert prepared.prepared(estimator, ("means_",), 4, pytest.fail) == "4"
    assert prepared.Identity([1]) != prepared.Identity([1])


def test_what_is_kept_goes_with_its_estimator(em):
    estimator = copied(em)
    estimator.predict(ROWS)
    gc.collect()
    before = len(prepared._of_estimators)
    del estimator
    gc.collect()
    assert len(prepared._of_estimators) == before - 1


def test_what_a_frame_works_out_is_kept():
    frame = Frame(np.zeros(2), np.array([[2.0, 0.0], [1.0, 3.0]]))
    assert not frame.is_diagonal
    assert Frame(np.zeros(2), np.diag([2.0, 3.0])).is_diagonal
    assert frame.log_volume == pytest.approx(np.log(6.0), rel=1e-15)
    np.testing.assert_allclose(frame.undo(frame.apply(ROWS)), ROWS, rtol=1e-13, atol=1e-13)
