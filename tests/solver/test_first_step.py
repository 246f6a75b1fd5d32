"""The first M half-step, in which no probability of zero is absorbing."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem

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


@pytest.mark.slow
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
