"""What a fit says about rows with gaps, and every other way in which such rows go in and out."""

import functools
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem.models import full, gmm
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.oracles.gaps import conditional, conditional_em_step, groups, normal_table, with_gaps
from tests.oracles.plain import rises

FULL = functools.partial(gmm, num_components=2, covariance=full)
WHOLE = groups(80, 3, 0)
X = with_gaps(WHOLE, 0.25, 1)
NEW = with_gaps(groups(60, 3, 2), 0.4, 3)
VIEW = [slice(0, 3)]
COMPILATIONS = []


def _count(event: str, duration: float, **attributes: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILATIONS.append(attributes)


jax.monitoring.register_event_duration_secs_listener(_count)


@functools.cache
def fitted(gaps: bool) -> probem.Fit:
    return probem.fit(FULL, X if gaps else WHOLE, key=1, tolerance=1e-12)


def params_of(fit: probem.Fit) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in fit.params.items()}


def imputed(params: dict, x: np.ndarray) -> np.ndarray:
    q = np.exp(table := normal_table(params, x, VIEW)) / np.exp(table).sum(1, keepdims=True)
    found = np.zeros_like(x)
    for n, row in enumerate(x):
        for k in range(2):
            mean = params["loc"][k]
            if not np.isnan(row).all():
                mean = conditional(row, params["loc"][k], params["covariance"][k])[1]
            found[n] += q[n, k] * mean
    return np.where(np.isnan(x), found, x)


@pytest.mark.slow
def test_other_gaps_elsewhere_compile_nothing() -> None:
    """First in this file, before functions are given up for want of maps."""

    def everything(x: np.ndarray) -> int:
        COMPILATIONS.clear()
        fit = probem.fit(FULL, x, key=2, throw=False, max_steps=5)
        fit.predict(x)
        fit.impute(x)
        probem.absorb(fit, x)
        return len(COMPILATIONS)

    assert everything(X) > 0
    assert everything(with_gaps(groups(71, 3, 4), 0.1, 5)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [True, False])
def test_new_rows_with_gaps_are_answered_by_what_is_there(gaps: bool) -> None:
    """Also by a fit whose rows had none."""
    fit = fitted(gaps)
    table = normal_table(params_of(fit), NEW, VIEW)
    log_density = scipy.special.logsumexp(table, axis=1)
    # Conditioned covariances lose a few digits of sixteen.
    np.testing.assert_allclose(fit.log_density(NEW), log_density, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(fit.responsibilities(NEW), np.exp(table - log_density[:, None]), atol=1e-9)
    np.testing.assert_array_equal(fit.predict(NEW), table.argmax(1))
    np.testing.assert_allclose(fit.impute(NEW), imputed(params_of(fit), NEW), rtol=1e-9)
    np.testing.assert_array_equal(fit.impute(WHOLE), WHOLE)
    whole = normal_table(params_of(fit), WHOLE, VIEW)
    np.testing.assert_allclose(fit.log_density(WHOLE), scipy.special.logsumexp(whole, axis=1), rtol=1e-9, atol=1e-10)
    assert fit.gap(NEW) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_fits_with_gaps_are_kept_and_pickled(tmp_path: Path) -> None:
    fit = fitted(True)
    fit.save(tmp_path / "fit.npz")
    for other in (probem.load(tmp_path / "fit.npz", FULL), pickle.loads(pickle.dumps(fit))):
        assert other.elbo_terms == pytest.approx(fit.elbo_terms, rel=1e-12)
        np.testing.assert_array_equal(other.log_density(NEW), fit.log_density(NEW))
        np.testing.assert_array_equal(other.log_density(WHOLE), fit.log_density(WHOLE))
        np.testing.assert_array_equal(other.impute(NEW), fit.impute(NEW))


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_a_stream_takes_batches_with_and_without_gaps(first: bool) -> None:
    """With decay 1 the sums of both batches: F is that of each batch at the parameters it was seen with."""
    one, two = (X, WHOLE[::-1] + 0.3) if first else (WHOLE, NEW)
    begin = {"weights": np.array([0.4, 0.6]), "loc": np.stack([np.ones(3), -np.ones(3)])}
    begin["covariance"] = np.stack([np.eye(3), 2 * np.eye(3)])
    fit = probem.fit(FULL, one, init=probem.Parameters(begin), max_steps=3, tolerance=0, throw=False)
    both = probem.absorb(fit, two, decay=1)
    held = fit.elbo + float(fit.log_density(two).sum())
    assert both.history.elbo[-2] == pytest.approx(held, rel=1e-10)
    assert both.history.elbo[-1] > held
    assert both.batch_elbo == pytest.approx(float(fit.log_density(two).mean()), rel=1e-10)
    assert sum(both.elbo_terms.values()) == pytest.approx(both.elbo, rel=1e-10)
    # As one fit of all rows makes them, from the same parameters in one M-step.
    joined = np.concatenate([one, two])
    _, params = conditional_em_step(params_of(fit), joined)
    for name, value in params.items():
        np.testing.assert_allclose(both.params[name], value, rtol=1e-8, atol=1e-9, err_msg=name)
    third = probem.absorb(both, NEW, decay=1)
    assert third.history.elbo[-2] == pytest.approx(both.elbo + float(both.log_density(NEW).sum()), rel=1e-10)


@pytest.mark.slow
def test_the_same_fit_an_iteration_at_a_time_and_as_a_pure_function() -> None:
    fit = fitted(True)
    steps = list(probem.iterate(FULL, X, key=1, tolerance=1e-12))
    # Compiled by itself or in a loop: the same sums, rounded elsewhere.
    assert steps[-1].elbo == pytest.approx(fit.elbo, rel=1e-12)
    assert steps[-1].num_steps == fit.num_steps
    solved = probem.solve(FULL, X, key=1, tolerance=1e-12)
    assert float(solved.elbo) == pytest.approx(fit.elbo, rel=1e-12)
    np.testing.assert_allclose(solved.params["loc"], fit.params["loc"], rtol=1e-9)


@pytest.mark.slow
def test_many_data_sets_with_gaps_are_fitted_as_each_alone() -> None:
    x = np.stack([X, with_gaps(groups(80, 3, 4), 0.2, 5)])
    # After as many steps: where rounding ends a fit it need not end in both at once.
    many = probem.fit_many(FULL, x, key=5, max_steps=40, throw=False)
    for own, rows, key in zip(many, x, jax.random.split(jax.random.key(5), 2), strict=True):
        alone = probem.fit(FULL, rows, key=key, max_steps=40, throw=False)
        assert own.num_steps == alone.num_steps
        assert own.elbo == pytest.approx(alone.elbo, rel=1e-12)
        np.testing.assert_allclose(own.impute(NEW), alone.impute(NEW), rtol=1e-8)
    empty = x.copy()
    empty[1, 1:, 2] = np.nan
    weights = np.ones((2, 80))
    weights[1, 0] = 0.0
    with pytest.raises(probem.InputError, match="a column without any value in data set 1"):
        probem.fit_many(FULL, empty, row_weights=weights)


@pytest.mark.slow
def test_components_are_chosen_by_rows_with_gaps() -> None:
    chosen = probem.select(gmm, X, over={"num_components": [1, 2]}, key=1)
    assert chosen.best.elbo == pytest.approx(fitted(True).elbo, rel=1e-6)


@pytest.mark.slow
def test_single_precision_stays_single() -> None:
    single, new = X.astype(np.float32), NEW.astype(np.float32)
    fit = probem.fit(FULL, single, key=1)
    assert fit.params["covariance"].dtype == np.float32
    assert fit.impute(new).dtype == np.float32
    # It ends where the bound rises by no more than its rounding, 1e-5 of it.
    assert fit.elbo == pytest.approx(fitted(True).elbo, rel=1e-4)
    exact = scipy.special.logsumexp(normal_table(params_of(fit), new.astype(float), VIEW), axis=1)
    # Quadratic forms of size up to a hundred in seven digits, times the condition of the covariances.
    np.testing.assert_allclose(fit.log_density(new), exact, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", [probem.Categorical(), probem.Delta(fill_empty=True)])
def test_several_blocks_of_rows_are_one(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    init = probem.Parameters({"loc": np.stack([np.ones(3), -np.ones(3)])})
    options = {"families": {"t": family}, "init": init, "tolerance": 0, "max_steps": 6, "throw": False}
    one = probem.fit(FULL, X, **options)
    # A plan of its own, since the blocks belong to it.
    several = functools.partial(gmm, num_components=2, covariance=lambda *arguments: full(*arguments))
    monkeypatch.setattr(Plan, "cut", lambda plan, num_rows: Chunking(32, 8))
    blocks = probem.fit(several, X, **options)
    np.testing.assert_allclose(blocks.history.elbo, one.history.elbo, rtol=1e-12)
    np.testing.assert_allclose(blocks.impute(X), one.impute(X), rtol=1e-10)


@pytest.mark.slow
def test_restarts_find_the_best_of_starts_with_gaps() -> None:
    fit = probem.fit(FULL, X, key=0, restarts=4)
    singles = [probem.fit(FULL, X, key=key).elbo for key in jax.random.split(jax.random.key(0), 4)]
    np.testing.assert_allclose(np.sort(fit.restart_elbos), np.sort(singles), rtol=1e-9)
    assert rises(fit.history)


@pytest.mark.slow
def test_the_worst_row_takes_along_what_it_was_filled_in_with() -> None:
    """An empty component is given the row of the lowest log density, with its conditional moments where it was."""
    program = functools.partial(gmm, num_components=3, covariance=full)
    x = X[~np.isnan(X).all(1)]
    begin = {"weights": np.full(3, 1 / 3), "loc": np.array([[3.0] * 3, [-3.0] * 3, [1e3] * 3])}
    begin["covariance"] = np.stack([np.eye(3)] * 3)
    options = {"max_steps": 2, "tolerance": 0, "throw": False, "added_variance": 0.5}
    fit = probem.fit(
        program, x, families={"t": probem.Delta(fill_empty=True)}, init=probem.Parameters(begin), **options
    )
    table = normal_table(begin, x, VIEW)
    labels, own = table.argmax(1), table.max(1)
    q = np.eye(3)[labels]
    worst = own.argmin()
    q[worst] = [0, 0, 1]
    source = labels[worst]
    for k in range(3):
        mean = second = 0.0
        for n in np.flatnonzero(q[:, k]):
            at = source if n == worst else k
            centre, spread = conditional(x[n], begin["loc"][at], begin["covariance"][at])[1:]
            mean, second = mean + centre, second + np.outer(centre, centre) + spread
        count = q[:, k].sum()
        loc = mean / count
        np.testing.assert_allclose(fit.params["loc"][k], loc, rtol=1e-9)
        expected = second / count - np.outer(loc, loc) + 0.5 * np.eye(3)
        np.testing.assert_allclose(fit.params["covariance"][k], expected, rtol=1e-9, atol=1e-9)


# Rows beyond the range of the numbers.


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "gaps"])
@pytest.mark.parametrize("far", [1e100, 1.2e154, 1e160, 1e300])
def test_a_row_far_away_is_impossible_and_of_one_component(gaps: bool, far: float) -> None:
    fit = fitted(False)
    rows = WHOLE.copy()
    rows[:4] = far * np.array([[1, 1, 1], [1, -1, 0], [0, -1, 0], [1e-3, 0, 1]])
    if gaps:
        rows[::2, 1] = np.nan
    density, q = np.asarray(fit.log_density(rows)), np.asarray(fit.responsibilities(rows))
    # Squares of 1e100 are numbers, and so are log densities.
    assert (density[[0, 1, 3]] < -1e180).all()
    assert (np.isfinite(density[[0, 1, 3]]) == (far < 1e150)).all()
    assert not np.isnan(density).any()
    np.testing.assert_array_equal(np.sort(q[[0, 1, 3]], 1), [[0, 1]] * 3)
    np.testing.assert_array_equal(q.argmax(1), fit.predict(rows))
    # The other rows are as they were.
    np.testing.assert_array_equal(density[4:], fit.log_density(rows[4:]))
    if far == 1.2e154 and not gaps:
        # The squares overflow in sums alone: the component is that of the same row nearer by.
        nearer = rows[:4] / 1e100
        np.testing.assert_array_equal(fit.predict(rows[:4]), fit.predict(nearer))


# Categories.


def categories(x: jax.Array) -> None:
    """Two columns, one of three categories each."""
    weights = numpyro.param("weights", jnp.array([0.6, 0.4]), constraint=constraints.simplex)
    begin = jnp.array([[[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], [[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]])
    probs = numpyro.param("probs", begin, constraint=constraints.simplex)
    with numpyro.plate("rows", len(x)):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Categorical(probs[t]).to_event(1), obs=x)


@pytest.mark.slow
def test_a_category_may_be_missing() -> None:
    """Of float columns: as whole rows the integers, and with gaps a plain loop over what is there."""
    whole = np.random.default_rng(0).integers(0, 3, (80, 2))
    start: dict[str, Any] = {"init": probem.Parameters({}), "max_steps": 4, "tolerance": 0, "throw": False}
    fits = [probem.fit(categories, rows, **start) for rows in (whole, whole.astype(float))]
    assert fits[0].elbo == fits[1].elbo
    np.testing.assert_array_equal(fits[0].params["probs"], fits[1].params["probs"])
    np.testing.assert_array_equal(fits[0].log_density(whole), fits[1].log_density(whole))
    gaps = np.where(np.random.default_rng(1).random(whole.shape) < 0.2, np.nan, whole)
    fit = probem.fit(categories, gaps, **start)
    weights, probs = np.array([0.6, 0.4]), np.array([[[5, 3, 2], [2, 2, 6]], [[2, 3, 5], [7, 2, 1]]]) / 10
    for step in range(4):
        q, density = np.zeros((80, 2)), np.zeros(80)
        for n, row in enumerate(gaps):
            there = [(d, int(value)) for d, value in enumerate(row) if not np.isnan(value)]
            joint = [weights[k] * np.prod([probs[k, d, c] for d, c in there]) for k in range(2)]
            density[n], q[n] = np.log(np.sum(joint)), joint / np.sum(joint)
        if step == 3:
            break
        weights = q.mean(0)
        for k, d, c in np.ndindex(2, 2, 3):
            probs[k, d, c] = q[gaps[:, d] == c, k].sum() / q[~np.isnan(gaps[:, d]), k].sum()
    np.testing.assert_allclose(fit.elbo, density.sum(), rtol=1e-12)
    np.testing.assert_allclose(fit.params["probs"], probs, rtol=1e-11)
    np.testing.assert_allclose(fit.log_density(gaps), density, rtol=1e-11, atol=1e-14)
    between = gaps + 0.5
    for say in (
        lambda: probem.fit(categories, between),
        lambda: fit.predict(between),
        lambda: probem.absorb(fit, between),
    ):
        with pytest.raises(probem.InputError, match=r"got the value 2.5 of 'x' .* of its Categorical"):
            say()
    with pytest.raises(probem.InputError, match="as fitted; fit float rows, which can hold whole numbers and NaN"):
        fits[0].predict(gaps)
