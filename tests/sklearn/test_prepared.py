"""What answers is kept between calls, and says what the attributes say at each of them."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from sklearn.base import clone

from probem.errors import InputError
from probem.sklearn import BayesianGaussianMixture, GaussianMixture, KMeans, Mixture
from tests.programs.counted import COMPILATIONS
from tests.sklearn.prepared_fits import ROWS, Fits, agree, answers, copied, plans_made

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

GAPS = ROWS[:50].copy()
GAPS[::3, 0] = np.nan
WIDTH = 1.0


def bounded(x):
    """Two components of one width, which the program looks up."""
    loc = numpyro.param("loc", jnp.array([0.0, 3.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.Normal(loc[t], WIDTH), obs=x[:, 0])


MADE = {
    "EM": GaussianMixture(2, random_state=0),
    "VB": BayesianGaussianMixture(n_components=2, random_state=0),
    "Dirichlet": BayesianGaussianMixture(
        n_components=2, random_state=0, weight_concentration_prior_type="dirichlet_distribution"
    ),
    "program": Mixture(bounded, random_state=0),
}
# Variational Bayes by the other kind of weights: programs of its own.
EACH = ["EM", "VB", pytest.param("Dirichlet", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def fits():
    return Fits(MADE)


@pytest.mark.parametrize("name", EACH)
def test_nothing_is_made_twice_of_the_same_attributes(name, fits, monkeypatch):
    estimator = copied(fits[name])
    made = plans_made(monkeypatch)
    before = dict(vars(estimator))
    first = answers(estimator)
    for _ in range(3):
        for again, then in zip(answers(estimator), first, strict=True):
            np.testing.assert_array_equal(again, then)
    assert len(made) == 1
    # What is there for rows without gaps is not what there is for others, and stays.
    answers(estimator, GAPS)
    answers(estimator)
    assert len(made) == 2
    # Equal numbers in other arrays are the same ones.
    estimator.means_ = estimator.means_.copy()
    answers(estimator)
    assert len(made) == 2
    estimator.means_ = estimator.means_ + 1e-9
    answers(estimator)
    assert len(made) == 3
    assert vars(estimator).keys() == before.keys()


@pytest.mark.parametrize("name", EACH)
def test_answers_follow_what_is_written_into_attributes(name, fits):
    """In place, and set; each by itself, and back again."""
    estimator = copied(fits[name])
    original = answers(estimator)
    attributes = [each for each in estimator._told_by if isinstance(getattr(estimator, each, None), np.ndarray)]
    assert "means_" in attributes
    for attribute in attributes:
        value = getattr(estimator, attribute)
        kept = value.copy()
        # A change that leaves it consistent with the others to the three digits that are compared.
        value *= 1 + 1e-4
        if attribute == "weights_":
            value /= value.sum()
        changed = answers(estimator)
        agree(estimator)
        if attribute in ("means_", "covariances_"):
            assert not np.array_equal(changed[2], original[2])
        value[...] = kept
        for again, then in zip(answers(estimator), original, strict=True):
            np.testing.assert_array_equal(again, then)
    means = estimator.means_
    estimator.means_ = (means[::-1] + 0.5).tolist()  # a list, as one types it
    agree(estimator)
    estimator.means_[0][0] += 0.25
    agree(estimator)
    estimator.means_ = means
    for again, then in zip(answers(estimator), original, strict=True):
        np.testing.assert_array_equal(again, then)


@pytest.mark.parametrize("name", [*EACH, "program"])
@pytest.mark.parametrize("complete", [True, False])
def test_a_model_looks_at_no_attribute_that_is_not_compared(name, complete, fits):
    """Every attribute of the object itself that it reads is one of those, or belongs to the constructor alone."""
    estimator = copied(fits[name])
    kind, read = type(estimator), set()

    class Watched(kind):
        def __getattribute__(self, attribute):
            if attribute in object.__getattribute__(self, "__dict__"):
                read.add(attribute)
            return super().__getattribute__(attribute)

    estimator.__class__ = Watched
    estimator._model(complete)
    estimator._program_key()
    compared = set(kind._told_by) | ({"_of_fit"} if name == "program" else set())
    assert read
    assert read <= compared


@pytest.mark.parametrize("name", ["EM", "VB"])
def test_precisions_and_gaps_take_turns(name, fits):
    estimator = copied(fits[name])
    kinds = [ROWS, ROWS.astype(np.float32), GAPS, GAPS.astype(np.float32), ROWS[:3], np.asfortranarray(ROWS), ROWS[::2]]
    expected = [answers(copied(estimator), rows) for rows in kinds]
    for order in (range(len(kinds)), reversed(range(len(kinds)))):
        for number in order:
            for ours, fresh in zip(answers(estimator, kinds[number]), expected[number], strict=True):
                np.testing.assert_array_equal(ours, fresh)
    single = clone(estimator).fit(ROWS.astype(np.float32))
    with jax.enable_x64(False):
        without = answers(single, ROWS.astype(np.float32))
        assert single.score_samples(ROWS).dtype == np.float64
    with jax.enable_x64(True):
        beside = answers(single, ROWS.astype(np.float32))
        agree(single, ROWS.astype(np.float32))
    for ours, other in zip(without, beside, strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("estimator", [GaussianMixture(2, random_state=0), KMeans(2, random_state=0, n_init=1)])
def test_another_fit_and_other_arguments_are_followed(estimator):
    estimator = clone(estimator).fit(ROWS)
    estimator.predict(ROWS)
    estimator.fit(ROWS[::-1] * 2.0 + 5.0)
    np.testing.assert_array_equal(estimator.predict(ROWS), copied(estimator).predict(ROWS))
    if isinstance(estimator, GaussianMixture):
        before = answers(estimator)
        estimator.set_params(covariance_type="diag", n_components=7)
        for ours, then in zip(answers(estimator), before, strict=True):
            np.testing.assert_array_equal(ours, then)
        estimator.set_params(covariance_type="diag", n_components=2).fit(ROWS)
        agree(estimator)
    assert not hasattr(clone(estimator), "means_")


def test_k_means_follows_its_centres(fits):
    estimator = KMeans(2, random_state=0, n_init=1).fit(ROWS)
    labels, score, near = estimator.predict(ROWS), estimator.score(ROWS), estimator.transform(ROWS)
    estimator.cluster_centers_[...] = estimator.cluster_centers_[::-1].copy()
    np.testing.assert_array_equal(estimator.predict(ROWS), 1 - labels)
    np.testing.assert_array_equal(estimator.transform(ROWS), near[:, ::-1])
    assert estimator.score(ROWS) == pytest.approx(score, rel=1e-14)
    estimator.cluster_centers_ += 1.0
    assert estimator.score(ROWS) < score


def test_a_program_that_looks_something_up_is_another_when_that_changes(fits, monkeypatch):
    estimator = fits["program"]
    density = estimator.score_samples(ROWS)
    monkeypatch.setitem(globals(), "WIDTH", 2.0)
    assert not np.allclose(estimator.score_samples(ROWS), density)
    monkeypatch.setitem(globals(), "WIDTH", 1.0)
    np.testing.assert_array_equal(estimator.score_samples(ROWS), density)


def test_values_outside_a_support_are_seen_whatever_was_prepared():
    def counts(x):
        rate = numpyro.param("rate", jnp.array([1.0, 8.0]), constraint=constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Exponential(rate[t]), obs=x[:, 0])

    rows = np.abs(ROWS[:, :1]) + 0.1
    fitted = Mixture(counts, random_state=0).fit(rows)
    fitted.predict(rows)
    with pytest.raises(InputError, match="outside the support"):
        fitted.predict(-rows)
    assert (fitted.score_samples(-rows) == -np.inf).all()


def test_other_numbers_of_rows_compile_nothing(fits):
    centres, many = KMeans(2, random_state=0, n_init=1).fit(ROWS), np.tile(ROWS, (300, 1))
    for name in ("EM", "VB"):
        for rows in (ROWS[:1], ROWS[:100]):
            answers(fits[name], rows)
        answers(copied(fits[name]), ROWS[:1])
    for rows in (ROWS, many[:3000], many[:20_000]):
        centres.predict(rows)
        centres.score(rows)
    COMPILATIONS.clear()
    for count in (7, 119, 2100, 2999, 5000, 16_384, 17_000, 33_001, len(many)):
        centres.predict(many[:count])
        centres.score(many[:count])
    for name in ("EM", "VB"):
        for count in (2, 3, 50, 119):
            answers(fits[name], ROWS[:count])
        answers(copied(fits[name]), ROWS[:7])
    assert COMPILATIONS == []
    # It is counted at all.
    jax.jit(lambda x: x + 1.5)(np.zeros(3))
    assert COMPILATIONS


@pytest.mark.parametrize("number", [127, 128, 129])
def test_a_row_has_one_answer_among_few_and_among_many(number, fits):
    many = np.tile(ROWS, (2, 1))[:number]
    for whole, part in zip(answers(fits["EM"], many), answers(fits["EM"], many[:30]), strict=True):
        np.testing.assert_allclose(whole[:30], part, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["EM", "VB"])
def test_threads_that_ask_at_once_have_the_same_answers(name, fits):
    """Also of kinds of rows that no thread has asked about."""
    estimator, kinds = copied(fits[name]), [ROWS, GAPS, ROWS.astype(np.float32)]
    expected = [answers(copied(estimator), rows) for rows in kinds]
    wrong, ready = [], threading.Barrier(4)

    def ask(first):
        ready.wait()
        for turn in range(6):
            number = (first + turn) % len(kinds)
            for ours, right in zip(answers(estimator, kinds[number]), expected[number], strict=True):
                if not np.array_equal(ours, right):
                    wrong.append((first, turn))

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
        assert not thread.is_alive()
    assert wrong == []


@pytest.mark.parametrize("name", ["EM", "VB", "k-means"])
@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (ROWS[:0], "0 sample"),
        (ROWS[:, :1], "1 features"),
        (ROWS[0], "Expected 2D array"),
        (ROWS[None], "dim 3"),
        (np.where(ROWS == ROWS[5, 1], np.inf, ROWS), "infinity"),
        (np.where(ROWS == ROWS[5, 1], -np.inf, ROWS), "infinity"),
        (np.where(ROWS == ROWS[5, 1], -1e200, ROWS), "value of size 1e"),
        (np.where(ROWS == ROWS[5, 1], 1e30, ROWS).astype(np.float32), "value of size 1e"),
        (ROWS.astype(complex), "omplex"),
    ],
)
def test_rows_are_refused_as_scikit_learn_refuses_them(name, rows, match, fits):
    estimator = KMeans(2, random_state=0, n_init=1).fit(ROWS) if name == "k-means" else fits[name]
    estimator.predict(ROWS)
    for method in ("predict", "score"):
        with pytest.raises(ValueError, match=match):
            getattr(estimator, method)(rows)


def test_names_of_columns_are_still_compared():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=["first", "second"])
    fitted = KMeans(2, random_state=0, n_init=1).fit(frame)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        fitted.predict(ROWS)
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(frame[["second", "first"]])


def test_rows_of_other_kinds_are_those_of_scikit_learn(fits):
    expected = answers(fits["EM"])
    for rows in (ROWS.tolist(), np.asfortranarray(ROWS), ROWS.astype(">f8"), np.ma.masked_array(ROWS)):
        for ours, plain in zip(answers(fits["EM"], rows), expected, strict=True):
            np.testing.assert_allclose(ours, plain, rtol=1e-12)
    np.testing.assert_array_equal(fits["EM"].predict(ROWS.astype(int)), fits["EM"].predict(ROWS.astype(int) * 1.0))


def test_an_answer_inside_a_trace_spoils_none_outside() -> None:
    """What does not depend on the rows is kept, and made outside of the trace."""
    estimator = GaussianMixture(2, random_state=0).fit(ROWS)
    fresh = clone(estimator).fit(ROWS)
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda scale: scale * estimator.score_samples(ROWS).sum())(1.0)
    np.testing.assert_array_equal(estimator.score_samples(ROWS), fresh.score_samples(ROWS))
