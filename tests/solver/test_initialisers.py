"""Where a fit starts: draws against their definitions, and what each kind of start makes of the first step."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import probem
from probem import models
from probem.solver.seedings import nearest_seed
from tests.oracles import plain
from tests.programs import groups
from tests.programs.fits import PROGRAM, START, X, normal_table

# Rows on a line, in a block of eight of which the last two are padding.
ROWS = np.array([[0.0], [1.0], [3.0], [7.0], [7.5], [20.0], [0.0], [0.0]])
WEIGHTS = np.array([1.0, 2.0, 0.5, 0.0, 1.0, 1.5, 0.0, 0.0])
NUM_DRAWS = 20_000


def _draw(initializer, num_seeds: int) -> np.ndarray:
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    rows, weights = jnp.asarray(ROWS), jnp.asarray(WEIGHTS)
    draw = jax.jit(jax.vmap(lambda key: initializer.seeds(key, rows, weights, num_seeds)))
    return np.asarray(draw(keys))[:, :, 0]


def _expected(num_seeds: int, weight_given) -> dict[tuple[float, ...], float]:
    """The probability of every ordered draw, by the chain rule over ``weight_given(seeds so far)``."""
    found = {}
    for drawn in itertools.product(range(6), repeat=num_seeds):
        probability = 1.0
        for position, index in enumerate(drawn):
            weight = weight_given(list(drawn[:position]))
            probability *= weight[index] / weight.sum()
        if probability > 0:
            found[tuple(ROWS[list(drawn), 0])] = probability
    return found


def _chance(expected: dict[tuple[float, ...], float], drawn: np.ndarray) -> float:
    """The p-value of the draws, chi-square; draws that the definition leaves out make it zero."""
    names = list(expected)
    counts = np.array([(drawn == name).all(1).sum() for name in names])
    if counts.sum() < NUM_DRAWS:
        return 0.0
    chances = np.array(list(expected.values())) * NUM_DRAWS
    rare = chances < 5
    counts, chances = np.r_[counts[~rare], counts[rare].sum()], np.r_[chances[~rare], chances[rare].sum()]
    keep = chances > 0
    return scipy.stats.chisquare(counts[keep], chances[keep]).pvalue


# One in a thousand correct samplers would fall below, for a given key; the key is fixed.
_LEAST = 1e-3


def _plus_plus_weight(power: int):
    def weight(seeds: list[int]) -> np.ndarray:
        if not seeds:
            return WEIGHTS[:6]
        return WEIGHTS[:6] * (np.abs(ROWS[:6, 0, None] - ROWS[seeds, 0]) ** power).min(1)

    return weight


def test_kmeans_plus_plus_draws_by_squared_distance() -> None:
    drawn = _draw(probem.KMeansPlusPlus(), 3)
    assert _chance(_expected(3, _plus_plus_weight(2)), drawn) > _LEAST
    # A planted fault: by distance, not squared.
    assert _chance(_expected(3, _plus_plus_weight(1)), drawn) < _LEAST


def test_random_rows_are_drawn_without_replacement() -> None:
    drawn = _draw(probem.RandomRows(), 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()

    def weight(seeds: list[int]) -> np.ndarray:
        return np.where(np.isin(np.arange(6), seeds), 0.0, WEIGHTS[:6])

    assert _chance(_expected(2, weight), drawn) > _LEAST


@given(st.integers(0, 2**32 - 1))
def test_every_row_belongs_to_its_nearest_seed(seed: int) -> None:
    random = np.random.default_rng(seed)
    # Whole numbers, far from the origin: distances are exact, and ties are common.
    rows = random.integers(-3, 4, size=(9, 2)) + 1000.0
    seeds = random.integers(-3, 4, size=(4, 2)) + 1000.0
    distances = ((rows[:, None] - seeds) ** 2).sum(-1)
    found = np.asarray(_nearest(rows, seeds))
    np.testing.assert_allclose(np.take_along_axis(distances, found[:, None], 1)[:, 0], distances.min(1), atol=1e-9)


_nearest = jax.jit(nearest_seed)


def _started(init, **options) -> probem.Fit:
    """The fit that holds the initial parameters and their bound: one step."""
    return probem.fit(PROGRAM, X, init=init, max_steps=1, throw=False, **options)


def _class_estimates(q: np.ndarray, x: np.ndarray = X) -> dict[str, np.ndarray]:
    counts = q.sum(0)
    loc = q.T @ x / counts[:, None]
    variance = (q[:, :, None] * (x[:, None] - loc) ** 2).sum(0) / counts[:, None]
    return {"weights": counts / counts.sum(), "loc": loc, "scale": np.sqrt(variance)}


def _assert_params(fit: probem.Fit, expected: dict[str, np.ndarray], x: np.ndarray = X) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(fit.elbo, plain.log_likelihood(normal_table(fit.params, x)), rtol=1e-12)


LABELS = (X[:, 0] > 0).astype(int)
Q = np.random.default_rng(0).dirichlet(np.ones(2), size=len(X))


def test_parameters_left_out_start_where_the_program_does() -> None:
    defaults = {"weights": [0.5, 0.5], "loc": np.zeros((2, 2)), "scale": np.ones((2, 2))}
    _assert_params(_started(probem.Parameters({"loc": X[:2]})), defaults | {"loc": X[:2]})
    _assert_params(_started(probem.Parameters({})), defaults)


def test_labels_and_responsibilities_start_with_their_m_step() -> None:
    _assert_params(_started(probem.Labels(LABELS)), _class_estimates(np.eye(2)[LABELS]))
    _assert_params(_started(probem.Responsibilities(Q)), _class_estimates(Q))


def test_a_callable_may_return_any_kind_of_start() -> None:
    seen = []

    def init(key, rows):
        seen.append(np.asarray(rows))
        return LABELS

    _assert_params(_started(init), _class_estimates(np.eye(2)[LABELS]))
    np.testing.assert_array_equal(seen[0], X)
    _assert_params(_started(lambda key, rows: Q), _class_estimates(Q))
    _assert_params(_started(lambda key, rows: START.values), START.values)
    _assert_params(_started(lambda key, rows: probem.Labels(LABELS)), _class_estimates(np.eye(2)[LABELS]))


def _seeds(seeding, rows: np.ndarray, key: jax.Array, num_seeds: int) -> np.ndarray:
    """The seeds drawn from rows as a fit has them, padded to one chunk."""
    padded = jnp.concatenate([jnp.asarray(rows), jnp.zeros((512 - len(rows), 2))])
    weights = 1.0 * (jnp.arange(512) < len(rows))
    return np.asarray(jax.jit(lambda: seeding.seeds(key, padded, weights, num_seeds))())


@pytest.mark.parametrize("init", [None, pytest.param(probem.RandomRows(), marks=pytest.mark.slow)], ids=repr)
def test_seeded_starts_are_the_m_step_of_the_nearest_seed(init) -> None:
    key = jax.random.key(4)
    seeding = probem.KMeansPlusPlus() if init is None else init
    seeds = _seeds(seeding, X, key, 2)
    fit = _started(init, key=key)
    nearest = ((X[:, None] - seeds) ** 2).sum(-1).argmin(1)
    _assert_params(fit, _class_estimates(np.eye(2)[nearest]))


def test_a_seed_of_one_row_gets_its_part_of_the_others() -> None:
    """It has no spread: every component then gets its part of a tenth of all rows, and the fit begins."""
    x = np.concatenate([[[40.0, -30.0]], X[:20]])
    key = jax.random.key(0)
    nearest = ((x[:, None] - _seeds(probem.KMeansPlusPlus(), x, key, 2)) ** 2).sum(-1).argmin(1)
    assert np.bincount(nearest).min() == 1
    fit = probem.fit(PROGRAM, x, key=key, max_steps=1, throw=False)
    assert (fit.result, fit.num_steps) == (probem.Result.STEP_LIMIT, 1)
    _assert_params(fit, _class_estimates(0.9 * np.eye(2)[nearest] + 0.1 / 2, x), x)


@pytest.mark.slow
def test_a_seed_of_two_rows_has_no_full_covariance() -> None:
    x, key = X[:9], jax.random.key(0)
    nearest = ((x[:, None] - _seeds(probem.KMeansPlusPlus(), x, key, 3)) ** 2).sum(-1).argmin(1)
    assert np.bincount(nearest).min() == 2
    program = functools.partial(models.gmm, num_components=3)
    fit = probem.fit(program, x, key=key, max_steps=1, throw=False)
    assert (fit.result, fit.num_steps) == (probem.Result.STEP_LIMIT, 1)
    q = 0.9 * np.eye(3)[nearest] + 0.1 / 3
    loc = q.T @ x / q.sum(0)[:, None]
    covariance = np.stack([np.cov(x.T, aweights=q[:, k], ddof=0) for k in range(3)])
    np.testing.assert_allclose(fit.params["loc"], loc, rtol=1e-10)
    np.testing.assert_allclose(fit.params["covariance"], covariance, rtol=1e-10, atol=1e-12)
    densities = [scipy.stats.multivariate_normal.logpdf(x, loc[k], covariance[k]) for k in range(3)]
    table = np.log(q.mean(0)) + np.stack(densities, 1)
    np.testing.assert_allclose(fit.elbo, plain.log_likelihood(table), rtol=1e-10)
    # Labels that say the same are taken at their word.
    given = probem.fit(program, x, init=probem.Labels(nearest), max_steps=1, throw=False)
    assert given.result is probem.Result.SINGULAR


@dataclasses.dataclass(frozen=True)
class Extremes(probem.Seeding):
    """The lowest and the highest of the rows that it is shown."""

    def seeds(self, key, rows, row_weights, num_seeds, fixed_seeds=None):
        counted = row_weights[:, None] > 0
        lowest = jnp.where(counted, rows, jnp.inf).min(0)
        return jnp.stack([lowest, jnp.where(counted, rows, -jnp.inf).max(0)])


def line(x):
    loc = numpyro.param("loc", jnp.zeros(2))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


@pytest.mark.slow
def test_seeds_of_data_in_several_blocks_are_drawn_as_the_seeding_says() -> None:
    x = np.repeat([0.0, 1.0, 10.0], [9000, 9000, 2])
    x = np.random.default_rng(0).permutation(np.append(x, np.full(2000, 7.0)))
    fit = probem.fit(line, x, init=Extremes(), key=jax.random.key(1), max_steps=1, throw=False)
    np.testing.assert_allclose(fit.params["loc"], [0.5, x[x > 5].mean()], rtol=1e-10)


@dataclasses.dataclass(frozen=True)
class FarthestFirst(probem.Seeding):
    """A row at random, then always the one that is farthest from the seeds before it. Source: Gonzalez (1985)."""

    num_columns: int | None = None

    def seeds(self, key, rows, row_weights, num_seeds, fixed_seeds=None):
        seeds = [rows[jax.random.categorical(key, jnp.log(row_weights))]]
        for _ in range(1, num_seeds):
            distances = jnp.stack([((rows - seed) ** 2).sum(1) for seed in seeds]).min(0)
            seeds.append(rows[jnp.where(row_weights > 0, distances, -1.0).argmax()])
        return jnp.stack(seeds)[:, : self.num_columns]


def _farthest_first(x: np.ndarray) -> np.ndarray:
    """F after the first M-step from every row as the first seed, ``[N]``."""
    bounds = []
    for first in x:
        seeds = np.stack([first, x[((x - first) ** 2).sum(1).argmax()]])
        nearest = ((x[:, None] - seeds) ** 2).sum(-1).argmin(1)
        bounds.append(plain.log_likelihood(normal_table(_class_estimates(np.eye(2)[nearest], x), x)))
    return np.array(bounds)


@pytest.mark.slow
def test_a_seeding_of_your_own_starts_one_fit_restarts_and_many_data_sets() -> None:
    """It draws for each of them: F is that of some first row, and not always of the same."""
    sets, options = np.stack([X[:30], X[30:60]]), {"init": FarthestFirst(), "max_steps": 1, "throw": False}
    bounds = [_farthest_first(x) for x in sets]
    restarted = probem.fit(PROGRAM, sets[0], restarts=8, **options)
    many = probem.fit_many(PROGRAM, sets, restarts=8, **options)
    drawn = [restarted.restart_elbos, many[0].restart_elbos, many[1].restart_elbos]
    assert all(np.ptp(elbos) > 1.0 for elbos in drawn)
    drawn.append(np.array([probem.fit(PROGRAM, sets[1], **options).elbo]))
    for elbos, place in zip(drawn, (0, 0, 1, 1), strict=True):
        np.testing.assert_allclose(np.abs(elbos[:, None] - bounds[place]).min(1), 0.0, atol=1e-7)
    assert restarted.elbo == restarted.restart_elbos.max()


def test_a_seeding_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(probem.InputError, match=r"seeds of shape \(2, 1\) from FarthestFirst; expected shape \(2, 2\)"):
        probem.fit(PROGRAM, X, init=FarthestFirst(num_columns=1))

    @dataclasses.dataclass
    class Mutable(probem.Seeding):
        seeds = FarthestFirst.seeds

    with pytest.raises(probem.InputError, match="Mutable as init, which cannot be hashed; expected an immutable init"):
        probem.fit(PROGRAM, X, init=Mutable())


# Row weights, and the order of the rows.


@pytest.mark.slow
@pytest.mark.parametrize("init", [probem.KMeansPlusPlus(), probem.RandomRows()], ids=repr)
def test_random_starts_depend_on_the_rows_as_a_multiset(init: Any) -> None:
    """Repeated, in another order, beside rows of no weight however far away: the same seeds."""
    random = np.random.default_rng(3)
    weights = random.integers(0, 4, 40)
    order = random.permutation(weights.sum())
    repeated = np.repeat(groups.ROWS, weights, axis=0)[order]
    far = np.concatenate([groups.ROWS, np.full((2, 3), 1e6)])
    for key in range(4):
        options: dict[str, Any] = {"init": init, "key": key, "throw": False, "max_steps": 30, "tolerance": 0}
        program = groups.STRUCTURES["tied"]
        weighted = probem.fit(program, groups.ROWS, row_weights=weights, **options)
        for other in (
            probem.fit(program, repeated, **options),
            probem.fit(program, far, row_weights=np.append(weights, [0, 0]), **options),
        ):
            # Sums in another order, thirty times over.
            np.testing.assert_allclose(other.history.elbo, weighted.history.elbo, rtol=1e-10)
            np.testing.assert_allclose(other.params["loc"], weighted.params["loc"], rtol=1e-8)


def test_a_program_of_factors_alone_starts_at_its_own_values() -> None:
    """There is nothing to draw seeds by: all rows would belong to the first component, and stay there."""
    random = np.random.default_rng(0)
    time = random.exponential(np.where(random.random(60) < 0.5, 0.3, 5.0))

    def survival(time: Any) -> None:
        weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
        rate = numpyro.param("rate", jnp.array([2.0, 0.2]), constraint=dist.constraints.positive)
        with numpyro.plate("data", len(time)):
            t = numpyro.sample("t", dist.Categorical(weights))
            numpyro.factor("time", jnp.log(rate[t]) - rate[t] * time)

    start = probem.fit(survival, time, max_steps=1, throw=False)
    np.testing.assert_allclose(start.params["rate"], [2.0, 0.2], rtol=1e-12)
    fit = probem.fit(survival, time)
    direct = probem.fit(survival, time, init=probem.Parameters({"rate": [2.0, 0.2], "weights": [0.5, 0.5]}))
    np.testing.assert_allclose(fit.elbo, direct.elbo, rtol=1e-12)
    assert np.min(fit.params["weights"]) > 0.1
