"""What stands for a missing category: it has no mean, so the most probable one; and no NaN is left in silence."""

import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probem
from probem.models import poisson_mixture
from tests.oracles.gaps import groups, with_gaps

P = np.array([[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [[0.1, 0.2, 0.7], [0.3, 0.4, 0.3]]])
YES = np.array([0.9, 0.2])
NAN = np.nan


def answers(items, yes):
    p = numpyro.param("p", jnp.asarray(P), constraint=dist.constraints.simplex)
    b = numpyro.param("b", jnp.asarray(YES), constraint=dist.constraints.unit_interval)
    with numpyro.plate("data", items.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("items", dist.Categorical(p[t]).to_event(1), obs=items)
        numpyro.sample("yes", dist.Bernoulli(b[t]), obs=yes)


@pytest.mark.slow
def test_a_missing_category_is_the_most_probable_and_a_missing_answer_its_probability() -> None:
    items = np.array([[0.0, NAN], [2.0, NAN], [NAN, 0.0], [NAN, 1.0], [1.0, 2.0]])
    yes = np.array([1.0, 0.0, NAN, NAN, 0.0])
    init = probem.Parameters({"p": P, "b": YES})
    fit = probem.fit(answers, items, yes, init=init, max_steps=1, throw=False)
    found_items, found_yes = fit.impute(items, yes)
    for row in range(5):
        joint = np.full(2, 0.5)
        for item in range(2):
            if not np.isnan(items[row, item]):
                joint = joint * P[:, item, int(items[row, item])]
        if not np.isnan(yes[row]):
            joint = joint * np.where(yes[row] == 1, YES, 1 - YES)
        r = joint / joint.sum()
        for item in range(2):
            expected = (r @ P[:, item]).argmax() if np.isnan(items[row, item]) else items[row, item]
            assert found_items[row, item] == expected
        np.testing.assert_allclose(found_yes[row], r @ YES if np.isnan(yes[row]) else yes[row], rtol=1e-12)


@pytest.mark.slow
def test_a_mean_that_is_no_number_is_refused() -> None:
    def heavy(x, y):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)
            numpyro.sample("y", dist.Cauchy(loc[t], 1.0), obs=y)

    x = np.array([-1.0, 1.2, -0.8, 0.9])
    y = np.array([-2.0, 1.0, NAN, 1.5])
    init = probem.Parameters({"loc": np.array([-1.0, 1.0])})
    fit = probem.fit(heavy, x, y, init=init, max_steps=1, throw=False)
    with pytest.raises(probem.InputError, match="a conditional mean of 'y' in row 2 that is not finite"):
        fit.impute(x, y)


def mixed(data: dict, counts: jax.Array) -> None:
    """A permuted view of the data, and counts in a narrow type."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([[-1.0, -1.0], [1.0, 1.0]]))
    rate = numpyro.param("rate", jnp.array([[1.0] * 300, [2.0] * 300]), constraint=constraints.positive)
    with numpyro.plate("data", counts.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=data["x"][:, ::-1])
        numpyro.sample("y", dist.Poisson(rate[t]).to_event(1), obs=counts)


def doubled(x: jax.Array) -> None:
    """What is observed is not what is given."""
    loc = numpyro.param("loc", jnp.array([[-1.0, -1.0], [1.0, 1.0]]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=2 * x)


@pytest.mark.slow
def test_values_are_filled_in_where_they_came_from() -> None:
    x = with_gaps(groups(60, 2, 6), 0.3, 7)
    counts = np.random.default_rng(8).poisson(1.0, (60, 300)).astype(np.uint8)
    fit = probem.fit(mixed, {"x": x}, counts, throw=False, max_steps=5)
    filled, same = fit.impute({"x": x}, counts)
    expected = fit.responsibilities({"x": x}, counts) @ np.asarray(fit.params["loc"])[:, ::-1]
    np.testing.assert_allclose(filled["x"], np.where(np.isnan(x), expected, x), rtol=1e-10)
    np.testing.assert_array_equal(same, counts)
    away = probem.fit(doubled, x, throw=False, max_steps=5)
    for gaps in (x, np.where(np.arange(2) == 1, x, 1.0)):
        with pytest.raises(probem.InputError, match="from which an observed value is computed"):
            away.impute(gaps)


@pytest.mark.slow
def test_counts_are_filled_in_with_their_rates() -> None:
    y = with_gaps(np.random.default_rng(9).poisson(3.0, (60, 2)).astype(float), 0.3, 10)
    fit = probem.fit(functools.partial(poisson_mixture, num_components=2), y, throw=False, max_steps=5)
    expected = fit.responsibilities(y) @ np.asarray(fit.params["rate"])
    np.testing.assert_allclose(fit.impute(y), np.where(np.isnan(y), expected, y), rtol=1e-10)
