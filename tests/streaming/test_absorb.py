"""Stepwise EM: every stream against a plain NumPy loop or a batch computation, and what is refused."""

import dataclasses
import functools
import json

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem import InputError
from probem.analysis.routes import make_plan
from probem.families import Families
from probem.models import diagonal, gmm
from probem.program.reading import read
from tests.programs.fits import KMEANS, PROGRAM, START, X, em_step, normal_table
from tests.streaming.batches import BATCHES, assert_equal, draw, numpy_of

COMPILATIONS = []


def _count(event: str, duration: float, **attributes: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILATIONS.append(attributes)


jax.monitoring.register_event_duration_secs_listener(_count)


@functools.cache
def first() -> probem.Fit:
    """A fit of 90 rows; what follows it comes in batches of unequal size."""
    return probem.fit(PROGRAM, X, init=START, max_steps=3, throw=False)


def moments(params: dict, x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Sums over rows of r, r x and r x^2, [K], [K, D], [K, D]; plain second moments, about zero."""
    table = normal_table(params, x)
    r = rows[:, None] * np.exp(table - np.logaddexp.reduce(table, axis=1, keepdims=True))
    return r.sum(0), r.T @ x, r.T @ x**2


def diagonal_parameters(average: tuple[np.ndarray, ...]) -> dict:
    counts, sums, squares = average
    loc = sums / counts[:, None]
    scale = np.sqrt(squares / counts[:, None] - loc**2)
    return {"weights": counts / counts.sum(), "loc": loc, "scale": scale}


@pytest.mark.parametrize("decay", [0.6, 0.8, 1])
def test_a_stream_is_the_plain_recursion(decay) -> None:
    """Averages per row, (1 - rho) s + rho s_batch, with rho = min(1, n / N t^(1 - decay)), in NumPy."""
    random = np.random.default_rng(3)
    fit = first()
    # The statistics that a fit holds are those at its own parameters, which its last M half-step has not used yet.
    average = [total / 90 for total in moments(numpy_of(fit), X, np.ones(90))]
    params, seen = numpy_of(fit), 90.0
    for t, x in enumerate(BATCHES, start=2):
        rows = random.integers(0, 3, len(x)) * 1.0
        seen += rows.sum()
        rho = min(1.0, rows.sum() / seen * t ** (1 - decay))
        batch = moments(params, x, rows)
        average = [(1 - rho) * old + rho * new / rows.sum() for old, new in zip(average, batch, strict=True)]
        params = diagonal_parameters(tuple(average))
        fit = probem.absorb(fit, x, row_weights=rows, decay=decay)
        assert_equal(fit, params)
        np.testing.assert_allclose(fit.counts, seen * average[0], rtol=1e-10)
        assert (fit.total_weight, fit.num_batches, fit.result) == (seen, t, None)


def test_batches_of_one_size_follow_the_schedule_of_cappe_and_moulines() -> None:
    fit = first()
    for t in range(2, 8):
        before = fit
        fit = probem.absorb(fit, X, decay=0.7)
        rho = t**-0.7
        batch = moments(numpy_of(before), X, np.ones(90))[0]
        expected = (1 - rho) * before.counts / before.total_weight + rho * batch / 90
        np.testing.assert_allclose(fit.counts / fit.total_weight, expected, rtol=1e-12)


def test_with_the_parameters_held_all_rows_count_alike() -> None:
    """decay = 1: after the last batch the statistics, F and the M half-step are those of all rows in one pass."""
    held = fit = first()
    for x in BATCHES:
        fit = probem.absorb(dataclasses.replace(fit, variational=held.variational), x, decay=1)
    rows = np.concatenate([X, *BATCHES])
    log_likelihood, expected = em_step(numpy_of(held), rows)
    assert_equal(fit, expected, 1e-12)
    np.testing.assert_allclose(fit.history.elbo[-2], log_likelihood, rtol=1e-12)
    origin = np.asarray(fit.totals.shifts["x"])
    np.testing.assert_allclose(origin, rows.mean(0), rtol=1e-12)
    table = normal_table(numpy_of(held), rows)
    r = np.exp(table - np.logaddexp.reduce(table, axis=1, keepdims=True))
    sums = np.stack([r.T @ (rows - origin), r.T @ (rows - origin) ** 2], -1).reshape(2, -1)
    np.testing.assert_allclose(fit.counts, r.sum(0), rtol=1e-12)
    np.testing.assert_allclose(fit.sums, sums, rtol=1e-11, atol=1e-10)


def test_all_rows_at_rate_one_are_one_step_of_em() -> None:
    fit = first()
    expected = numpy_of(fit)
    for _ in range(3):
        fit = probem.absorb(fit, X, rate=1)
        log_likelihood, expected = em_step(expected, X)
        assert_equal(fit, expected, 1e-11)
        np.testing.assert_allclose(fit.batch_elbo, log_likelihood / 90, rtol=1e-12)


def test_row_weights_are_repetition() -> None:
    rows = np.random.default_rng(5).integers(0, 4, len(X))
    weighted = probem.absorb(first(), X, row_weights=rows)
    repeated = probem.absorb(first(), np.repeat(X, rows, axis=0))
    assert_equal(weighted, numpy_of(repeated), 1e-12)
    np.testing.assert_allclose(weighted.elbo, repeated.elbo, rtol=1e-12)
    np.testing.assert_allclose(weighted.batch_elbo, repeated.batch_elbo, rtol=1e-12)
    assert weighted.total_weight == repeated.total_weight


def test_k_means_is_mini_batch_k_means() -> None:
    """Sculley (2010), algorithm 1: all rows of the batch assigned, then row by row c += (x - c) / v."""
    fit = probem.fit(KMEANS, X, families=probem.HARD_EM, init=probem.Parameters({"loc": X[:3]}))
    centres = np.array(fit.params["loc"])
    seen = np.bincount(((X[:, None] - centres) ** 2).sum(-1).argmin(1), minlength=3)
    for number in range(5):
        x = draw(60, number)
        for row, label in zip(x, ((x[:, None] - centres) ** 2).sum(-1).argmin(1), strict=True):
            seen[label] += 1
            centres[label] += (row - centres[label]) / seen[label]
        fit = probem.absorb(fit, x, decay=1)
        np.testing.assert_allclose(fit.params["loc"], centres, rtol=1e-11)
        np.testing.assert_allclose(fit.counts, seen, rtol=1e-12)
        np.testing.assert_allclose(sum(fit.elbo_terms.values()), fit.elbo, rtol=1e-12)


def test_what_elbo_means() -> None:
    """decay = 1: a bound on log p of all rows seen; F of a batch is what it adds before the M half-step."""
    fit, rows = first(), [X]
    for x in BATCHES:
        before, fit = fit, probem.absorb(fit, x, decay=1)
        rows.append(x)
        start = before.history.elbo[-1] if before.num_batches > 1 else before.elbo
        np.testing.assert_allclose(fit.history.elbo[-2] - start, fit.batch_elbo * len(x), rtol=1e-9)
        density = np.logaddexp.reduce(normal_table(numpy_of(before), x), axis=1)
        np.testing.assert_allclose(fit.batch_elbo, density.mean(), rtol=1e-11)
        assert fit.history.elbo[-1] == fit.elbo > fit.history.elbo[-2]
        seen = np.concatenate(rows)
        assert fit.elbo < np.logaddexp.reduce(normal_table(numpy_of(fit), seen), axis=1).sum()
        np.testing.assert_allclose(sum(fit.elbo_terms.values()), fit.elbo, rtol=1e-11)
    assert fit.num_steps == 3 + len(BATCHES)
    np.testing.assert_array_equal(fit.history.step, np.repeat(np.arange(3 + len(BATCHES)), 2))


def test_origins_follow_the_data() -> None:
    """About the origin of the first batch, 1e6 away, a variance would keep four digits."""
    far = first()
    expected = {**numpy_of(far), "loc": np.asarray(far.params["loc"]) + 1e6}
    moved = jnp.asarray(expected["loc"])
    far = dataclasses.replace(far, variational={**far.variational, "loc": moved}, params={**far.params, "loc": moved})
    for rate in (1.0, 0.5, 0.5):
        far = probem.absorb(far, X + 1e6, rate=rate)
    near = first()
    for rate in (1.0, 0.5, 0.5):
        near = probem.absorb(near, X, rate=rate)
    np.testing.assert_allclose(far.params["scale"], near.params["scale"], rtol=1e-8)
    np.testing.assert_allclose(far.params["loc"] - 1e6, near.params["loc"], atol=1e-8)


def test_a_column_without_values_leaves_its_origin_where_it_is() -> None:
    """Dragged to zero, 1e6 away, the origin would cost the variances of the column most of their digits."""
    far = probem.fit(
        PROGRAM, X + 1e6, init=probem.Parameters({**START.values, "loc": X[:2] + 1e6}), max_steps=3, throw=False
    )
    near = first()
    gaps = np.where(np.arange(2) == 1, np.nan, X)
    for rate in (0.9, 0.9, 0.9):
        near, far = probem.absorb(near, gaps, rate=rate), probem.absorb(far, gaps + 1e6, rate=rate)
    assert near.totals is not None
    np.testing.assert_allclose(near.totals.shifts["x"].reshape(-1)[1], X[:, 1].mean(), rtol=1e-12)
    np.testing.assert_allclose(far.params["scale"], near.params["scale"], rtol=1e-7)
    np.testing.assert_allclose(far.params["loc"] - 1e6, near.params["loc"], atol=1e-7)


def test_another_batch_compiles_nothing() -> None:
    program = functools.partial(gmm, num_components=2, covariance=diagonal)
    fit = probem.absorb(first(), X[:50])
    COMPILATIONS.clear()
    fit = probem.absorb(fit, X[:50])
    fit = probem.absorb(fit, draw(71, 0), decay=0.9)
    fit = probem.absorb(fit, draw(1000, 1), rate=0.1)
    assert COMPILATIONS == []
    # What is counted does happen: weights are one more argument.
    probem.absorb(fit, draw(33, 2), row_weights=np.full(33, 2.0))
    assert probem.fit(program, X, init=START, max_steps=3, throw=False).num_batches == 1


def test_a_saved_stream_goes_on(tmp_path) -> None:
    fit = probem.absorb(first(), BATCHES[0])
    fit.save(tmp_path / "fit.npz")
    loaded = probem.load(tmp_path / "fit.npz", PROGRAM)
    assert (loaded.num_batches, loaded.batch_elbo, loaded.result) == (2, fit.batch_elbo, None)
    assert_equal(probem.absorb(loaded, BATCHES[1]), numpy_of(probem.absorb(fit, BATCHES[1])), 1e-13)
    # A file from before there were streams.
    with np.load(tmp_path / "fit.npz") as archive:
        arrays = dict(archive)
    meta = json.loads(str(arrays["meta"]))
    del meta["num_batches"], arrays["batch_elbo"]
    np.savez(tmp_path / "old.npz", **arrays | {"meta": np.array(json.dumps(meta))})
    old = probem.load(tmp_path / "old.npz", PROGRAM)
    assert old.num_batches == 1
    assert np.isnan(old.batch_elbo)
    assert probem.absorb(old, BATCHES[1]).num_batches == 2


class Online:
    """scikit-learn's way of saying it."""

    fit_: probem.Fit | None = None

    def partial_fit(self, x: np.ndarray) -> "Online":
        self.fit_ = probem.absorb(self.fit_, x) if self.fit_ else probem.fit(PROGRAM, x, throw=False)
        return self


def test_partial_fit_is_three_lines() -> None:
    online = Online().partial_fit(X).partial_fit(X[:50])
    assert online.fit_ is not None
    assert online.fit_.num_batches == 2


NOT_FINITE = r"^got 1 value that is infinite in the data \(column 1\); expected finite numbers, or NaN [^\n]*\.$"
BAD_BATCHES = {
    "inf": (np.where(np.arange(180).reshape(90, 2) == 7, np.inf, X), {}, NOT_FINITE),
    "columns": (
        X[:, :1],
        {},
        r"^got data of row shapes \(1,\) float64; expected \(2,\) float64 as fitted; match them\.$",
    ),
    "complex": (X * 1j, {}, r"^got data of type complex128 \(ndarray\); expected real numbers; [^\n]*\.$"),
    "text": (X.astype(str), {}, r"^got data of type <U\d+ \(ndarray\); expected real numbers; [^\n]*\.$"),
    "empty": (X[:0], {}, r"^got the data with zero rows \(shape \(0, 2\)\); expected at least one row; [^\n]*\.$"),
    "weights": (X, {"row_weights": np.ones(3)}, r"^got row_weights of shape \(3,\); expected shape \(90,\); [^\n]*\.$"),
    "no weight": (X, {"row_weights": np.zeros(90)}, r"^got row_weights with .* no positive value; expected [^\n]*\.$"),
    "decay": (X, {"decay": 0.5}, r"^got decay=0.5; expected a number in \(0.5, 1\]; change it\.$"),
    "rate": (X, {"rate": 1.2}, r"^got rate=1.2; expected a number in \(0, 1\]; change it\.$"),
}


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_a_bad_batch_is_one_sentence_before_anything_is_traced(kind: str) -> None:
    batch, options, message = BAD_BATCHES[kind]
    fit = first()
    before = jax.tree.map(np.array, (dict(fit.params), fit.counts, fit.sums))
    COMPILATIONS.clear()
    with pytest.raises(InputError, match=message):
        probem.absorb(fit, batch, **options)
    assert COMPILATIONS == []
    jax.tree.map(np.testing.assert_array_equal, before, (dict(fit.params), fit.counts, fit.sums))


def test_no_batch() -> None:
    with pytest.raises(InputError, match=r"^got no data; expected at least one array with a row per observation; "):
        probem.absorb(first())


def student_t(x) -> None:
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.StudentT(3.0, loc[t], 1.0), obs=x)


def test_a_program_without_additive_statistics_is_refused() -> None:
    plan = make_plan(read(student_t, (X[:, 0],)), Families(probem.Categorical()))
    fit = dataclasses.replace(first(), plan=plan)
    message = r"^got a stream of a program in which 'x' reaches the parameters by its gradient over the data; "
    with pytest.raises(InputError, match=message + r"expected additive statistics of every site; [^\n]*\.$"):
        probem.absorb(fit, X[:, 0])


def test_a_fit_that_cannot_go_on_is_refused(tmp_path) -> None:
    labels = np.zeros(len(X), int)
    labels[7] = 1
    never = probem.fit(PROGRAM, X, init=probem.Labels(labels), throw=False)
    with pytest.raises(InputError, match=r"^got a fit that ended before its first step and has no statistics; "):
        probem.absorb(never, X)
    first().save(tmp_path / "fit.npz")
    with pytest.raises(InputError, match=r"^got a fit that was loaded without its program; "):
        probem.absorb(probem.load(tmp_path / "fit.npz"), X)


def test_a_batch_that_collapses_a_component_leaves_the_fit_as_it_was() -> None:
    fit = probem.absorb(first(), X)
    same = np.repeat(X[:1], 30, axis=0)
    with pytest.raises(probem.FitError, match=r"^the spread of a component collapsed, .* of site 'x'\) after 4 steps"):
        probem.absorb(fit, same, rate=1)
    kept = probem.absorb(fit, same, rate=1, throw=False)
    assert kept.result is probem.Result.SINGULAR
    assert_equal(kept, numpy_of(fit), 0)
    after = probem.absorb(kept, BATCHES[1])
    assert after.result is None
    assert np.isnan(after.promised)
    assert not after.settled
    assert not after.twins
    assert_equal(after, numpy_of(probem.absorb(fit, BATCHES[1])), 0)


def test_a_batch_past_what_numbers_hold_is_no_step() -> None:
    with pytest.raises(probem.FitError, match=r"^the bound or a parameter is not finite after 3 steps, [^\n]*\.$"):
        probem.absorb(first(), X * 1e200)
