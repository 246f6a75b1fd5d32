"""``fit_many``: every data set as alone, whatever happens to the others, and one answer for all of them."""

import copy
import dataclasses
import functools
import importlib
import pickle

import jax
import numpy as np
import pytest
from sklearn.mixture import GaussianMixture

import probem
from probem import Result
from tests.many.sets import DATA, KEYS, NUM_SETS, START, WEIGHTS
from tests.programs import fits
from tests.programs.contradictions import LINE, clipped
from tests.programs.fits import KMEANS, PROGRAM, bayesian, em_step, lloyd_step, normal_table

MANY = importlib.import_module("probem.many.fit_many")


def assert_same(fit: probem.Fit, other: probem.Fit, relative: float = 1e-10) -> None:
    assert fit.result is other.result
    assert fit.num_steps == other.num_steps
    np.testing.assert_allclose(fit.elbo, other.elbo, rtol=relative)
    for name, value in other.params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=relative, atol=relative)
    np.testing.assert_allclose(fit.counts, other.counts, rtol=relative, atol=relative)
    np.testing.assert_allclose(fit.sums, other.sums, rtol=relative, atol=relative * np.abs(other.sums).max())
    np.testing.assert_allclose(list(fit.bound)[:4], list(other.bound)[:4], rtol=relative, atol=relative)
    assert fit.total_weight == other.total_weight


def test_em_is_the_plain_loop_of_every_data_set() -> None:
    many = probem.fit_many(
        PROGRAM, DATA, init=probem.Parameters(START), row_weights=WEIGHTS, max_steps=6, tolerance=0, throw=False
    )
    assert set(many.results) == {Result.STEP_LIMIT}
    for number in range(NUM_SETS):
        params = {name: value[number] for name, value in START.items()}
        for _ in range(5):
            params = em_step(params, DATA[number], WEIGHTS[number])[1]
        elbo = em_step(params, DATA[number], WEIGHTS[number])[0]
        np.testing.assert_allclose(many.elbo[number], elbo, rtol=1e-11)
        for name, value in params.items():
            np.testing.assert_allclose(many.params[name][number], value, rtol=1e-10)


@pytest.mark.slow
def test_k_means_is_the_plain_loop_of_every_data_set() -> None:
    """They end after different numbers of steps, and give way to others."""
    many = probem.fit_many(KMEANS, DATA, families=probem.HARD_EM, init=probem.Parameters({"loc": DATA[:, :3]}))
    for number in range(NUM_SETS):
        loc, labels, steps = DATA[number, :3], None, 0
        while True:
            steps += 1
            before = labels
            labels, following = lloyd_step(loc, DATA[number])
            if before is not None and (labels == before).all():
                break
            loc = following
        assert many.num_steps[number] == steps
        np.testing.assert_allclose(many.params["loc"][number], loc, rtol=1e-12)
        np.testing.assert_array_equal(many.predict(DATA)[number], labels)
    assert len(set(many.num_steps)) > 2


def soft() -> probem.ManyFits:
    """EM from k-means++ with a key for each."""
    return probem.fit_many(PROGRAM, DATA, key=4, row_weights=WEIGHTS)


@pytest.mark.slow
def test_every_fit_is_that_of_fit() -> None:
    many = soft()
    assert len(many) == NUM_SETS
    for number, one in enumerate(many):
        if number % 3:
            continue
        alone = probem.fit(PROGRAM, DATA[number], key=KEYS[number], row_weights=WEIGHTS[number])
        assert_same(one, alone)
        assert one.elbo == many.elbo[number]
    assert len(one.history) == 0
    assert repr(many) == f"ManyFits({NUM_SETS}: {NUM_SETS} CONVERGED; sites=['loc', 'scale', 'weights'])"
    assert_same(many[-1], many[NUM_SETS - 1], 0)
    with pytest.raises(IndexError, match="got data set 11; expected one of 11"):
        many[NUM_SETS]


@pytest.mark.slow
def test_answers_about_rows(tmp_path) -> None:
    many = soft()
    new = DATA[:, ::-3] + 0.1
    for number, one in enumerate(many):
        table = normal_table(one.params, new[number])
        log_density = np.logaddexp.reduce(table, axis=1)
        np.testing.assert_allclose(many.log_density(new)[number], log_density, rtol=1e-12)
        np.testing.assert_allclose(one.log_density(new[number]), log_density, rtol=1e-12)
        q = np.exp(table - log_density[:, None])
        np.testing.assert_allclose(many.responsibilities(new)[number], q, atol=1e-12)
        np.testing.assert_array_equal(many.predict(new)[number], q.argmax(1))
        np.testing.assert_array_equal(one.predict(new[number]), q.argmax(1))
        np.testing.assert_allclose(sum(one.elbo_terms.values()), one.elbo, rtol=1e-12)
    one.save(tmp_path / "one.npz")
    loaded = probem.load(tmp_path / "one.npz", PROGRAM)
    np.testing.assert_allclose(loaded.log_density(new[-1]), one.log_density(new[-1]), rtol=1e-14)
    with pytest.raises(probem.InputError, match="got 3 data sets; expected 11, as fitted"):
        many.predict(DATA[:3])
    with pytest.raises(probem.InputError, match=r"row shapes \(1,\) float64; expected \(2,\) float64 as fitted"):
        many.predict(DATA[:, :, :1])


@pytest.mark.slow
def test_pickled_and_copied_fits_answer_the_same() -> None:
    many = soft()
    for other in (pickle.loads(pickle.dumps(many)), copy.deepcopy(many)):
        assert repr(other) == repr(many)
        assert_same(other[-1], many[-1], 0)
        assert other[1].params["loc"].dtype == many[1].params["loc"].dtype
        np.testing.assert_array_equal(other.log_density(DATA), many.log_density(DATA))
        np.testing.assert_array_equal(other.predict(DATA), many.predict(DATA))


def test_fits_are_taken_one_by_one() -> None:
    many = soft()
    assert many[np.int64(1)].elbo == many[1].elbo == many.elbo[1]
    for index in (slice(0, 1), "a", 0.5, None, (0, 1)):
        with pytest.raises(probem.InputError, match=r"got the index .*; expected a whole number from 0 to 10"):
            many[index]
    with pytest.raises(IndexError, match="got data set 11"):
        many[11]


@pytest.mark.slow
def test_calls_that_memory_cuts_up_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = soft()
    calls = []
    right = MANY.solve_batches
    monkeypatch.setattr(MANY, "_CALL_BYTES", 1)
    monkeypatch.setattr(MANY, "solve_batches", lambda *arguments: calls.append(None) or right(*arguments))
    parts = soft()
    assert len(calls) > 1
    for one, other in zip(parts, whole, strict=True):
        assert_same(one, other, 1e-13)


def test_one_that_fails_spoils_no_other() -> None:
    """The spread of one component of data sets 2 and 9 starts at next to nothing, on a row."""
    scale = START["scale"].copy()
    scale[[2, 9], 1] = 1e-6
    start = probem.Parameters(START | {"scale": scale})
    with pytest.raises(
        probem.FitError,
        match=r"2 of 11 fits ended badly: SINGULAR in 2 data sets \(2, 9\) \(the spread .*\); use fewer .*\.fit",
    ) as caught:
        probem.fit_many(PROGRAM, DATA, init=start, row_weights=WEIGHTS)
    many = caught.value.fit
    assert [number for number, result in enumerate(many.results) if result is Result.SINGULAR] == [2, 9]
    for number in (0, 2, 10):
        own = probem.Parameters({name: value[number] for name, value in start.values.items()})
        alone = probem.fit(PROGRAM, DATA[number], init=own, row_weights=WEIGHTS[number], throw=False)
        assert_same(many[number], alone)


@pytest.mark.slow
def test_every_start() -> None:
    """Labels, responsibilities and functions of key and rows are those of ``fit``."""
    labels = (DATA[:, :, 0] > 0).astype(int)
    starts = {
        "labels": (probem.Labels(labels), lambda b: probem.Labels(labels[b])),
        "responsibilities": (probem.Responsibilities(np.eye(2)[labels]), lambda b: probem.Labels(labels[b])),
        "random rows": (probem.RandomRows(), lambda b: probem.RandomRows()),
        "function": (lambda key, rows: (rows[:, 1] > rows[0, 1]).astype(int),) * 2,
    }
    for name, (init, own) in starts.items():
        many = probem.fit_many(PROGRAM, DATA, init=init, key=4, max_steps=4, throw=False)
        for number in (0, 10):
            one = own if name == "function" else own(number)
            alone = probem.fit(PROGRAM, DATA[number], init=one, key=KEYS[number], max_steps=4, throw=False)
            assert_same(many[number], alone)


@pytest.mark.slow
def test_the_best_of_several_restarts() -> None:
    """Each data set has the restarts that ``fit`` makes from its key, and the best of them."""
    for init in (None, lambda key, rows: jax.random.randint(key, (len(rows),), 0, 2)):
        many = probem.fit_many(PROGRAM, DATA, key=4, restarts=3, init=init, row_weights=WEIGHTS, throw=False)
        assert many.restart_elbos.shape == (NUM_SETS, 3)
        for number in (0, 4, 10):
            own = {"key": KEYS[number], "restarts": 3, "init": init, "row_weights": WEIGHTS[number]}
            alone = probem.fit(PROGRAM, DATA[number], throw=False, **own)
            assert_same(many[number], alone)
            np.testing.assert_allclose(many.restart_elbos[number], alone.restart_elbos, rtol=1e-10)
    assert (np.ptp(many.restart_elbos, axis=1) > 1).any()  # they differ


@pytest.mark.slow
def test_the_history_of_every_fit_is_that_of_fit() -> None:
    """More steps than are made before others get their turn."""
    many = probem.fit_many(PROGRAM, DATA, key=KEYS, record_history=True, tolerance=1e-11)
    assert max(many.num_steps) > 8
    for number, one in enumerate(many):
        alone = probem.fit(PROGRAM, DATA[number], key=KEYS[number], tolerance=1e-11)
        assert len(one.history) == 2 * one.num_steps
        for field in dataclasses.fields(probem.History):
            ours, theirs = (getattr(fit.history, field.name) for fit in (one, alone))
            if theirs.dtype.kind == "U":
                np.testing.assert_array_equal(ours, theirs)
            else:
                np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=field.name)


@pytest.mark.slow
def test_numbers_of_their_own() -> None:
    """Rules, noise and starts may differ from one data set to the next."""
    shifts = np.geomspace(1e-1, 1e-8, NUM_SETS)
    noise = np.eye(2) * np.linspace(0.1, 2.0, NUM_SETS)[:, None, None]
    start = [functools.partial(lambda number, key, rows: (rows[:, 0] > number / 10).astype(int), b) for b in range(11)]
    many = probem.fit_many(
        PROGRAM, DATA, init=start, tolerance=probem.stopping.ParameterShift(shifts), added_variance=noise
    )
    assert len(set(many.num_steps)) > 2
    for number in (0, 3, 10):
        rule = probem.stopping.ParameterShift(shifts[number])
        own = {"init": start[number], "tolerance": rule, "added_variance": noise[number]}
        assert_same(many[number], probem.fit(PROGRAM, DATA[number], **own))
        assert many[number].settled


@pytest.mark.slow
def test_parameters_beside_another_start_and_fixed_ones() -> None:
    labels = (DATA[:, :, 0] > 0).astype(int)
    start = probem.Parameters({"weights": np.full((NUM_SETS, 2), [0.9, 0.1])}, probem.Labels(labels))
    fixed = {"weights": np.full(2, np.nan), "loc": np.array([[0.5, np.nan], [np.nan, np.nan]])}
    many = probem.fit_many(PROGRAM, DATA, init=start, fixed=fixed, max_steps=3, throw=False)
    for number in (0, 10):
        own = probem.Parameters({"weights": np.array([0.9, 0.1])}, probem.Labels(labels[number]))
        alone = probem.fit(PROGRAM, DATA[number], init=own, fixed=fixed, max_steps=3, throw=False)
        assert_same(many[number], alone)
        assert many[number].params["loc"][0, 0] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corner", "num_rows"),
    [
        (probem.EM, 40),
        (probem.VARIATIONAL_BAYES, 700),
        (probem.MAXIMIZATION_EXPECTATION, 1500),
    ],
)
def test_programs_with_priors(corner, num_rows) -> None:
    """One chunk smaller than those of ``fit``, several, and one block of each."""
    random = np.random.default_rng(3)
    data = fits.X[random.integers(0, 90, (5, num_rows))] + 0.1 * random.normal(size=(5, num_rows, 2))
    program = functools.partial(bayesian, num_components=3)
    many = probem.fit_many(program, data, families=corner, key=1)
    keys = jax.random.split(jax.random.key(1), 5)
    for number, one in enumerate(many):
        alone = probem.fit(program, data[number], families=corner, key=keys[number])
        assert_same(one, alone)
        np.testing.assert_allclose(many.log_density(data)[number], alone.log_density(data[number]), rtol=1e-9)
        if corner.parameters == probem.Conjugate():
            np.testing.assert_allclose(one.posterior["loc"].mean, alone.posterior["loc"].mean, rtol=1e-9)
    if corner.parameters == probem.Conjugate():
        again = probem.fit_many(program, data, families=corner, init=probem.Parameters(many.variational), max_steps=3)
        np.testing.assert_allclose(again.elbo, many.elbo, rtol=1e-8)


@pytest.mark.slow
def test_more_rows_than_one_block_of_fit() -> None:
    """There k-means++ draws from a part of the rows in ``fit``, and from all of them here: the start is given."""
    random = np.random.default_rng(5)
    data = fits.X[random.integers(0, 90, (2, 9000))] + 0.1 * random.normal(size=(2, 9000, 2))
    labels = (data[:, :, 0] > 0).astype(int)
    many = probem.fit_many(PROGRAM, data, init=probem.Labels(labels))
    for number, one in enumerate(many):
        assert_same(one, probem.fit(PROGRAM, data[number], init=probem.Labels(labels[number])))


@pytest.mark.slow
def test_scikit_learn_from_the_same_starts() -> None:
    many = probem.fit_many(PROGRAM, DATA, init=probem.Parameters(START), tolerance=1e-13, max_steps=5000)
    for number, one in enumerate(many):
        theirs = GaussianMixture(
            2,
            covariance_type="diag",
            reg_covar=0,
            tol=1e-13,
            max_iter=5000,
            weights_init=START["weights"][number],
            means_init=START["loc"][number],
            precisions_init=START["scale"][number] ** -2,
        ).fit(DATA[number])
        np.testing.assert_allclose(one.elbo, theirs.score_samples(DATA[number]).sum(), rtol=1e-9)
        np.testing.assert_allclose(one.params["loc"], theirs.means_, rtol=1e-4)


@pytest.mark.slow
def test_points_that_are_not_conjugate_after_all() -> None:
    """As ``fit`` does: the numeric way, where the closed form turns out to be none."""
    data = np.stack([LINE, LINE + 1.0])
    many = probem.fit_many(clipped, data, key=1)
    for number, key in enumerate(jax.random.split(jax.random.key(1), 2)):
        # Where F is flat to 1e-12 nats, parameters of curvature one are known to 1e-6.
        assert_same(many[number], probem.fit(clipped, data[number], key=key), relative=1e-6)
    with pytest.raises(probem.FitError, match=r"2 of 2 fits ended badly: NOT_CONJUGATE in 2 data sets \(0, 1\)"):
        probem.fit_many(clipped, data, key=1, families=probem.VARIATIONAL_BAYES)
