"""Starts that lead to a maximum: no probability of zero, seeds in an order that the program allows, seeds as drawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.analysis.exchangeable import is_exchangeable
from probem.data.checks import check_data
from probem.data.observations import split_gaps
from probem.e_step.initial_q import soften_labels
from probem.program.reading import read
from tests.programs.fits import PROGRAM, X

# The first component has no category 2, only zeros among the counts, and only ones among the answers.
LABELS = np.repeat([0, 1], [4, 6])
CATEGORY = np.array([0, 1, 0, 1, 0, 1, 2, 2, 0, 1])
ANSWER = np.array([1, 1, 1, 1, 0, 1, 0, 0, 1, 0])
COUNT = np.array([0, 0, 0, 0, 3, 1, 0, 2, 5, 1])
AMOUNT = np.array([0.1, -0.4, 0.3, 0.2, 1.5, 2.5, 1.0, 2.0, 0.5, 1.7])


def discrete(category, answer, count, amount):
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    p = numpyro.param("p", jnp.full((2, 3), 1 / 3), constraint=dist.constraints.simplex)
    b = numpyro.param("b", jnp.full(2, 0.5), constraint=dist.constraints.unit_interval)
    rate = numpyro.param("rate", jnp.ones(2), constraint=dist.constraints.positive)
    loc = numpyro.param("loc", jnp.zeros(2))
    with numpyro.plate("data", category.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("category", dist.Categorical(p[t]), obs=category)
        numpyro.sample("answer", dist.Bernoulli(b[t]), obs=answer)
        numpyro.sample("count", dist.Poisson(rate[t]), obs=count)
        numpyro.sample("amount", dist.Normal(loc[t], 1.0), obs=amount)


def test_an_estimate_of_zero_is_mixed_with_all_rows_and_nothing_else_is() -> None:
    fit = probem.fit(discrete, CATEGORY, ANSWER, COUNT, AMOUNT, init=probem.Labels(LABELS), max_steps=1, throw=False)
    p = np.stack([np.bincount(CATEGORY[LABELS == k], minlength=3) / (LABELS == k).sum() for k in (0, 1)])
    p[0] = 0.9 * p[0] + 0.1 * np.bincount(CATEGORY) / len(CATEGORY)
    expected = {
        "weights": [0.4, 0.6],
        "p": p,
        "b": [0.9 + 0.1 * ANSWER.mean(), ANSWER[4:].mean()],
        "rate": [0.1 * COUNT.mean(), COUNT[4:].mean()],
        "loc": [AMOUNT[:4].mean(), AMOUNT[4:].mean()],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-12, err_msg=name)


def test_labels_are_softened_where_the_table_allows_it() -> None:
    table = jnp.array([[0.0, -1.0, -2.0], [0.0, -jnp.inf, 0.0], [-jnp.inf, -jnp.inf, -jnp.inf]])
    q = np.asarray(soften_labels(jnp.array([1, 2, 0]), table))
    left = 0.1 / 3
    np.testing.assert_allclose(q[0], [left, 0.9 + left, left], rtol=1e-14)
    np.testing.assert_allclose(q[1], np.array([left, 0.0, 0.9 + left]) / (1 - left), rtol=1e-14)
    np.testing.assert_allclose(q[2], [1.0, 0.0, 0.0])


def noise_and_signals(x):
    """Four normals, and one whose mean is known: the last one, which no seed knows."""
    weights = numpyro.param("weights", jnp.full(5, 0.2), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros(4))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(jnp.append(loc, 3.0)[t], 0.5), obs=x)


def _em(x: np.ndarray, loc: np.ndarray, weights: np.ndarray, free: int, scale: float) -> tuple[float, np.ndarray]:
    """log p(x) at the end of EM over the weights and the first ``free`` means, in NumPy, and the means."""
    for _ in range(2000):
        table = np.log(weights) - (x[:, None] - loc) ** 2 / (2 * scale**2) - 0.5 * np.log(2 * np.pi * scale**2)
        density = np.logaddexp.reduce(table, axis=1)
        r = np.exp(table - density[:, None])
        weights = r.mean(0)
        loc = np.append((r.T @ x / r.sum(0))[:free], loc[free:])
    return density.sum(), loc


@dataclasses.dataclass(frozen=True)
class Scrambled(probem.RandomRows):
    """Seeds in the middle of five clusters, in an order that fits no component to its own."""

    def seeds(self, key, rows, row_weights, num_seeds, known=None):
        return jnp.array([[3.0], [12.0], [-8.0], [8.0], [-4.0]], rows.dtype)


@pytest.mark.slow
def test_a_component_of_a_fixed_density_gets_the_seed_that_is_its_own() -> None:
    random = np.random.default_rng(0)
    centres = np.array([-8.0, -4.0, 8.0, 12.0, 3.0])
    x = np.concatenate([centre + 0.5 * random.normal(size=12) for centre in centres])
    best, _ = _em(x, centres, np.full(5, 0.2), 4, 0.5)
    fit = probem.fit(noise_and_signals, x, init=Scrambled(), tolerance=1e-12)
    np.testing.assert_allclose(fit.elbo, best, rtol=1e-10)


def gap(x):
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    low = numpyro.param("low", jnp.array(0.0))
    d = numpyro.param("d", jnp.array(1.0), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(jnp.stack([low, low + d])[t], 0.5), obs=x)


@pytest.mark.slow
def test_means_of_which_one_is_the_higher_get_their_seeds_in_this_order() -> None:
    x = np.random.default_rng(0).normal(size=40) * 0.5 + np.repeat([0.0, 3.0], 20)
    best, loc = _em(x, np.array([0.0, 3.0]), np.full(2, 0.5), 2, 0.5)
    for key in range(4):
        fit = probem.fit(gap, x, key=key, tolerance=1e-12, throw=False)
        np.testing.assert_allclose(fit.elbo, best, rtol=1e-6)
        np.testing.assert_allclose(fit.params["d"], loc[1] - loc[0], rtol=1e-3)


def topics(words, docs):
    phi = numpyro.param("phi", jnp.ones((2, 4)) / 4, constraint=dist.constraints.simplex)
    theta = numpyro.param("theta", jnp.ones((5, 2)) / 2, constraint=dist.constraints.simplex)
    with numpyro.plate("tokens", words.shape[0]):
        z = numpyro.sample("z", dist.Categorical(theta[docs]))
        numpyro.sample("words", dist.Categorical(phi[z]), obs=words)


@pytest.mark.slow
def test_weights_looked_up_by_a_covariate_do_not_start_at_zero() -> None:
    random = np.random.default_rng(0)
    docs = np.repeat(np.arange(5), 12)
    words = np.where(random.random(60) < docs / 4, random.integers(0, 2, 60), random.integers(1, 4, 60))
    fit = probem.fit(topics, words, docs, max_steps=1, throw=False)
    # Labels alone would push them there; a twentieth of every row is of the other topic.
    assert np.asarray(fit.params["theta"]).min() > 0.02
    assert np.asarray(fit.params["phi"]).min() > 0.0


def test_components_are_exchangeable_where_a_permutation_of_parameters_is_one_of_components() -> None:
    plain = read(PROGRAM, split_gaps(check_data((X,))).data)
    assert is_exchangeable(plain)
    mask = np.array([[True, True], [False, False]])
    assert not is_exchangeable(plain, (("loc", mask.tobytes()),))
    assert not is_exchangeable(read(noise_and_signals, (np.zeros(3),)))
    # Weights with the components last, beside probabilities with the components first.
    assert is_exchangeable(read(topics, (np.zeros(3, int), np.zeros(3, int))))


@dataclasses.dataclass(frozen=True)
class Extremes(probem.RandomRows):
    """The lowest and the highest of the rows that it is shown."""

    def seeds(self, key, rows, row_weights, num_seeds, known=None):
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
