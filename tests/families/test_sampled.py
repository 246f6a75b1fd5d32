"""Stochastic EM beside plain loops: the draws of a key, the law of other draws, and the average that is the answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats

import probem
from probem import InputError
from probem.families import HalfStep
from probem.families.sampled import _frequencies
from probem.solver.averaging import _LEFT_OUT, Batches, _flat, _folded
from probem.stopping import Averages
from tests.oracles import plain
from tests.programs import counted
from tests.programs.fits import PROGRAM, START, X, normal_table

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

NAMES = ("weights", "loc", "scale")
_RANDOM = np.random.default_rng(4)
LINE = np.array([0.0, 3.5])[(_RANDOM.random(200) < 0.4).astype(int)] + _RANDOM.normal(size=200)


def mixture(x: jax.Array) -> None:
    """Two normal distributions of all their parameters on a line."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.array([-0.5, 3.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], scale[t]), obs=x)


BEGINNING = {"weights": np.full(2, 0.5), "loc": np.array([-0.5, 3.0]), "scale": np.ones(2)}


def maximised(x: np.ndarray, q: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters under responsibilities, by hand."""
    counts = q.sum(0)
    loc = (q.T @ x) / counts.reshape(-1, *[1] * (x.ndim - 1))
    squares = np.stack([(q[:, k, None] * (x.reshape(len(x), -1) - loc[k]) ** 2).sum(0) for k in range(q.shape[1])])
    scale = np.sqrt(squares / counts[:, None]).reshape(loc.shape)
    return {"weights": counts / counts.sum(), "loc": loc, "scale": scale}


def table(params: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    if x.ndim > 1:
        return normal_table(params, x)
    return np.log(params["weights"]) + scipy.stats.norm.logpdf(x[:, None], params["loc"], params["scale"])


def drawn(table: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """One-hot values whose distribution function is the first above the uniform numbers."""
    labels = (scipy.special.softmax(table, axis=1).cumsum(1) <= uniform[:, None]).sum(1)
    return np.eye(table.shape[1])[labels]


def uniforms(key: jax.Array, number: int, draw: int, num_rows: int) -> np.ndarray:
    """Those of an E half-step of rows in one chunk."""
    seed = jax.random.bits(key, dtype=jnp.uint32)
    half_step = HalfStep(jnp.asarray(number), seed, jnp.asarray(0))
    return np.asarray(jax.random.uniform(jax.random.fold_in(half_step.key, draw), (num_rows,), jnp.float64))


@pytest.mark.parametrize("draws", [1, 3])
def test_a_fit_is_the_plain_loop_with_the_draws_of_its_key(draws: int) -> None:
    key, num_steps, params = jax.random.key(7), 5, dict(START.values)
    fit = probem.fit(
        PROGRAM, X, families={"t": probem.Sampled(draws)}, init=START, key=key, max_steps=num_steps, throw=False
    )
    size = fit.plan.chunk_rows(fit.plan.pass_block_rows(len(X)))
    params = {name: np.asarray(value, float) for name, value in params.items()}
    bounds = []
    for number in range(num_steps):
        there = table(params, X)
        each = [drawn(there, uniforms(key, number, draw, size)[: len(X)]) for draw in range(draws)]
        # The last E half-step takes the posterior.
        q = np.mean(each, axis=0) if number < num_steps - 1 else plain.posterior(there)
        bounds.append(plain.bound(there, q))
        last, params = params, maximised(X, q)
    assert fit.result is probem.Result.STEP_LIMIT
    for name in NAMES:
        np.testing.assert_allclose(fit.params[name], last[name], rtol=1e-10)
    np.testing.assert_allclose(fit.history.elbo[::2], bounds, rtol=1e-11)
    np.testing.assert_allclose(fit.elbo, plain.log_likelihood(table(last, X)), rtol=1e-11)
    # F of a draw and its gap are log p(X).
    np.testing.assert_allclose(fit.history.gap[-2], 0.0, atol=1e-9)
    assert fit.history.gap[0] > 1.0


def _chain(seed: int, num_steps: int) -> np.ndarray:
    """Stochastic EM with NumPy's draws: the parameters of every iteration after a tenth of them, ``[num_steps, 6]``."""
    random, params, visited = np.random.default_rng(seed), BEGINNING, []
    for _ in range(num_steps):
        params = maximised(LINE, drawn(table(params, LINE), random.random(len(LINE))))
        visited.append(np.concatenate([params[name] for name in NAMES]))
    return np.array(visited)[num_steps // 10 :]


@functools.cache
def averaged() -> probem.Fit:
    return probem.fit(
        mixture,
        LINE,
        families={"t": probem.Sampled()},
        init=probem.Parameters(BEGINNING),
        tolerance=Averages(0.03),
        max_steps=50_000,
    )


def test_the_answer_is_the_mean_of_the_stationary_distribution() -> None:
    """Beside the means of 24 chains, whose spread says how exact they are; that of the fit is as one of its length."""
    fit = averaged()
    assert fit.result is probem.Result.CONVERGED
    means = np.array([_chain(seed, 1500).mean(0) for seed in range(24)])
    length = 1350
    own = np.concatenate([np.asarray(fit.params[name]) for name in NAMES])
    # The fit averages between a half and three quarters of its iterations.
    error = means.std(0, ddof=1) * np.sqrt(1 / 24 + length / (fit.num_steps / 2))
    assert (np.abs(own - means.mean(0)) <= 4 * error).all()
    # Modes in the place of draws would be seen.
    hard = probem.fit(mixture, LINE, families=probem.HARD_EM, init=probem.Parameters(BEGINNING))
    biased = np.concatenate([np.asarray(hard.params[name]) for name in NAMES])
    assert (np.abs(biased - means.mean(0)) > 4 * error).any()


def test_many_draws_are_em() -> None:
    """After five iterations, within 25 standard deviations of a share among 4096 draws of 90 rows."""
    options = {"init": START, "max_steps": 5, "tolerance": 0.0, "throw": False}
    fit = probem.fit(PROGRAM, X, families={"t": probem.Sampled(4096)}, **options)
    em = probem.fit(PROGRAM, X, **options)
    for name in NAMES:
        np.testing.assert_allclose(fit.params[name], em.params[name], atol=5 * 5 / np.sqrt(4096 * 90), rtol=0)
        assert np.abs(np.asarray(fit.params[name]) - np.asarray(em.params[name])).max() > 1e-8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("draws", [1, 5])
def test_draws_follow_the_probabilities(dtype: type, draws: int) -> None:
    """A chi-squared test of 40,000 rows; values that are never drawn stand at the first place, inside, and last."""
    p = np.array([0.0, 0.3, 0.0, 0.05, 0.65, 0.0], dtype)
    shares = np.asarray(_frequencies(jax.random.key(3), jnp.tile(jnp.asarray(p), (40_000, 1)), draws))
    assert shares.dtype == dtype
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    counts = np.rint(draws * shares.astype(float)).sum(0)
    assert (counts[p == 0] == 0).all()
    drawn = p > 0
    statistic = scipy.stats.chisquare(counts[drawn], counts.sum() * p[drawn] / p[drawn].astype(float).sum())
    assert statistic.pvalue > 1e-4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_uniform_number_draws_a_possible_value(dtype: type) -> None:
    """Sums of probabilities round to somewhat more or less than 1; JAX's uniform numbers end at 1 - eps."""
    eps = np.finfo(dtype).eps
    totals = (1 + eps * np.arange(-64, 65) / 2).astype(dtype)
    assert ((dtype(1) - eps) * totals < totals).all()
    assert float(jax.random.uniform(jax.random.key(0), (2**24,), dtype).max()) <= 1 - eps


def test_rows_that_lie_in_other_chunks_are_drawn_alike_and_by_themselves() -> None:
    """One E half-step at fixed parameters of rows that repeat: shares of chunks have the variance of coins."""
    x = np.tile([[0.0], [1.0]], (30_000, 1))[:, 0]
    start = {"weights": np.full(2, 0.5), "loc": np.array([0.0, 1.0]), "scale": np.ones(2)}
    options = {"init": probem.Parameters(start), "max_steps": 2, "tolerance": 0.0, "throw": False}
    p = plain.posterior(table(start, x[:2]))[:, 0]
    found = [
        probem.fit(mixture, rows, families={"t": probem.Sampled()}, key=3, **options).params["weights"][0].item()
        for rows in (x, x[::-1], np.sort(x), x[:40_000])
    ]
    error = np.sqrt((p * (1 - p)).mean() / 40_000)
    assert (np.abs(np.array(found) - p.mean()) <= 4 * error).all()
    assert len(set(found)) == 4
    fit = probem.fit(mixture, x, families={"t": probem.Sampled()}, key=3, **options)
    assert fit.plan.chunk_rows(fit.plan.pass_block_rows(len(x))) < len(x) / 4


def test_known_rows_weights_and_float32() -> None:
    labels = np.arange(len(X)) % 2
    families = {"t": probem.Sampled()}
    known = probem.fit(PROGRAM, X, families=families, labels=labels, init=START, max_steps=20, throw=False)
    direct = probem.fit(PROGRAM, X, labels=labels, init=START, max_steps=20, throw=False)
    np.testing.assert_allclose(known.elbo, direct.elbo, rtol=1e-12)
    weights = np.arange(len(X)) % 4
    options = {"row_weights": weights, "init": START, "max_steps": 60, "throw": False}
    weighted = probem.fit(PROGRAM, X, families=families, **options)
    np.testing.assert_allclose(weighted.counts.sum(), weights.sum(), rtol=1e-12)
    anything = np.where(weights[:, None] > 0, X, 1e3)
    np.testing.assert_array_equal(
        weighted.params["loc"], probem.fit(PROGRAM, anything, families=families, **options).params["loc"]
    )
    single = probem.fit(PROGRAM, X.astype(np.float32), families=families, init=START, max_steps=60, throw=False)
    assert single.params["loc"].dtype == np.float32
    em = probem.fit(PROGRAM, X, init=START)
    assert em.elbo - 1.0 < single.elbo < em.elbo + 1e-3


def test_the_same_key_is_the_same_fit_and_another_number_of_rows_compiles_nothing() -> None:
    options = {"families": {"t": probem.Sampled()}, "init": START, "max_steps": 40, "throw": False}
    first, again, other = (probem.fit(PROGRAM, X, key=key, **options) for key in (1, 1, 2))
    np.testing.assert_array_equal(first.params["loc"], again.params["loc"])
    assert np.abs(np.asarray(first.params["loc"]) - np.asarray(other.params["loc"])).max() > 1e-4
    cost = counted.cost(lambda: probem.fit(PROGRAM, X[:80], **options, tolerance=Averages(0.2)))
    assert cost[1] == 0


def _mean_of_steps(values: np.ndarray) -> np.ndarray:
    """Over the iterations that are not left out: from the 16th batch on, of the 32 to 63 there are."""
    length = 1
    while len(values) > 64 * length:
        length *= 2
    return values[16 * length :].mean(0)


@pytest.mark.parametrize("max_steps", [17, 18, 40, 66, pytest.param(150, marks=pytest.mark.slow)])
def test_where_no_iteration_is_left_the_answer_is_the_average(max_steps: int) -> None:
    """Beside the parameters of each iteration; of fewer than 18 iterations it is the last."""
    options = {"families": {"t": probem.Sampled()}, "init": START, "throw": False, "tolerance": Averages(0.0)}
    steps = list(probem.iterate(PROGRAM, X, max_steps=max_steps, **options))
    assert [step.result for step in steps[-2:]] == [None, probem.Result.STEP_LIMIT]
    for name in NAMES:
        values = np.array([np.asarray(step.params[name]) for step in steps[:-1]])
        expected = _mean_of_steps(values) if max_steps > 17 else np.asarray(steps[-1].params[name])
        np.testing.assert_allclose(steps[-1].params[name], expected, rtol=1e-12)
    fit = probem.fit(PROGRAM, X, max_steps=max_steps, **options)
    np.testing.assert_allclose(fit.params["loc"], steps[-1].params["loc"], rtol=1e-12)
    np.testing.assert_allclose(fit.elbo, plain.log_likelihood(table(dict(fit.params), X)), rtol=1e-11)
    assert fit.history.accelerated[-1] == (max_steps > 17)


def test_batches_are_those_of_the_definition() -> None:
    """An autoregression of order one after a slope: the rule holds at its first chance after the slope is left out."""
    random, value, values = np.random.default_rng(1), 0.0, []
    for number in range(1300):
        value = 0.5 * value + random.normal()
        values.append(value - 1000.0 - 0.2 * max(300 - number, 0))
    add, tolerance = jax.jit(lambda batches, value: batches.merged().with_value(value)), 0.2
    batches, ended = Batches.none(jnp.float64), []
    for number, value in enumerate(values, 1):
        batches = add(batches, jnp.asarray(value))
        length = int(batches.length)
        ended.append(bool(batches.are_stationary(jnp.asarray(tolerance))))
        if number % length or length < 8:
            assert not ended[-1]
            continue
        means = np.reshape(values[:number], (-1, length)).mean(1)[_LEFT_OUT:]
        error = means.std(ddof=1) / np.sqrt(len(means))
        drift = means[len(means) // 2 :].mean() - means[: len(means) // 2].mean()
        assert ended[-1] == (error <= tolerance and abs(drift) <= max(tolerance / 10, 4 * error))
    assert np.argmax(ended) > 300
    assert any(ended)


def test_cholesky_factors_of_correlations_are_averaged_in_coordinates_that_are_free() -> None:
    def program(x: jax.Array) -> None:
        factor = numpyro.param("factor", jnp.eye(2), constraint=dist.constraints.corr_cholesky)
        with numpyro.plate("data", len(x)):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(t + factor[1, 0], 1.0), obs=x)

    plan = probem.fit(program, LINE, max_steps=1, throw=False).plan
    factors = np.array([np.linalg.cholesky([[1.0, r], [r, 1.0]]) for r in (-0.2, 0.9)])
    each = [{"factor": jnp.asarray(factor)} for factor in factors]
    mean = jax.tree.map(lambda one, other: (one + other) / 2, *(_flat(plan, params) for params in each))
    factor = np.asarray(_folded(plan, mean, each[0])["factor"])
    correlations = factor @ factor.T
    expected = np.tanh(np.arctanh([-0.2, 0.9]).mean())
    np.testing.assert_allclose(correlations, [[1.0, expected], [expected, 1.0]], rtol=1e-9)


def test_restarts_many_data_sets_and_solve_end_by_averages() -> None:
    options = {"families": {"t": probem.Sampled()}, "tolerance": Averages(0.3)}
    start = probem.Parameters(BEGINNING)
    keys = jax.random.split(jax.random.key(3), 2)
    alone = [probem.fit(mixture, LINE, init=start, key=key, **options) for key in keys]
    assert {fit.result for fit in alone} == {probem.Result.CONVERGED}
    both = {name: np.stack([value, value]) for name, value in BEGINNING.items()}
    many = probem.fit_many(mixture, np.stack([LINE, LINE]), init=probem.Parameters(both), key=keys, **options)
    solution = probem.solve(mixture, LINE, init=start, key=keys[0], **options)
    for fit, loc, elbo in zip(alone, many.params["loc"], many.elbo, strict=True):
        np.testing.assert_allclose(loc, fit.params["loc"], rtol=1e-9)
        np.testing.assert_allclose(elbo, fit.elbo, rtol=1e-11)
    np.testing.assert_allclose(solution.params["loc"], alone[0].params["loc"], rtol=1e-9)
    several = probem.fit(mixture, LINE, restarts=3, key=2, **options)
    expected = plain.log_likelihood(table(dict(several.params), LINE))
    np.testing.assert_allclose([several.elbo, several.restart_elbos.max()], expected, rtol=1e-11)


def test_full_posteriors_are_averaged_and_check_compares_the_end() -> None:
    def bayesian(x: jax.Array) -> None:
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(2, 2.0)))
        with numpyro.plate("components", 2):
            loc = numpyro.sample("loc", dist.Normal(1.0, 3.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(weights))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    families = probem.VARIATIONAL_BAYES | {"t": probem.Sampled()}
    fit, vb = (probem.fit(bayesian, LINE, families=each) for each in (families, probem.VARIATIONAL_BAYES))
    assert fit.result is probem.Result.CONVERGED
    assert vb.elbo - 0.5 < fit.elbo < vb.elbo
    report = probem.check(mixture, LINE, families={"t": probem.Sampled()}, init=probem.Parameters(BEGINNING))
    assert report.holds
    compared = " ".join(check.compared for check in report.rows)
    assert "F of the fit + gap, and log p(X, θ), end" in compared
    assert "NumPyro’s ELBO of the guide" in compared


def test_a_fit_that_ends_by_averages_promises_nothing() -> None:
    fit = probem.fit(mixture, LINE, families={"t": probem.Sampled()}, init=probem.Parameters(BEGINNING))
    assert (fit.result, fit.twins) == (probem.Result.CONVERGED, ())
    assert np.isinf(fit.promised)
    assert fit.num_steps >= 257
    # Another number is no rule for draws.
    number = probem.fit(mixture, LINE, families={"t": probem.Sampled()}, tolerance=1e-3, max_steps=30, throw=False)
    assert number.result is probem.Result.STEP_LIMIT
    assert not number.history.accelerated.any()


def test_what_cannot_be_is_refused() -> None:
    for draws in (0, -1, True):
        with pytest.raises(InputError, match=r"got Sampled\(draws=.*\); expected a whole number of at least 1; use"):
            probem.Sampled(draws)
    with pytest.raises(InputError, match=r"tolerance=Averages\(.*\) for assignments that are not drawn; expected a"):
        probem.fit(mixture, LINE, tolerance=Averages())
    with pytest.raises(InputError, match="in Averages; expected a finite number from 0"):
        probem.fit(mixture, LINE, families={"t": probem.Sampled()}, tolerance=Averages(-1.0))
    with pytest.raises(InputError, match="SQUAREM for the family Sampled, which draws"):
        probem.fit(mixture, LINE, families={"t": probem.Sampled()}, acceleration=probem.SQUAREM())
