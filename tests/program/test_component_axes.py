"""Which axes of parameters belong to components: those along which a change of an entry moves one component alone."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from probem.models import gmm, kmeans
from probem.program.component_axes import component_axes
from probem.program.reading import read

ROWS = np.random.default_rng(0).normal(size=(20, 2))


def axes(program, *data):
    return {name: [tuple(axis) for axis in found] for name, found in component_axes(read(program, data)).items()}


def test_sites_of_a_gaussian_mixture_with_as_many_columns_as_components():
    first = [(0, 0)]
    assert axes(functools.partial(gmm, num_components=2), ROWS) == {
        "weights": first,
        "loc": first,
        "covariance": first,
    }
    assert axes(functools.partial(kmeans, num_components=2), ROWS) == {"loc": first}
    assert axes(functools.partial(kmeans, num_components=1), ROWS) == {"loc": []}


def test_sites_that_are_shared_transposed_or_normalised():
    def program(x):
        by_column = numpyro.param("by_column", jnp.ones((2, 2)))
        shift = numpyro.param("shift", jnp.ones(2))
        scale = numpyro.param("scale", 1.0, constraint=dist.constraints.positive)
        logits = numpyro.param("logits", jnp.zeros(2))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(logits=logits))
            numpyro.sample("x", dist.Normal(by_column.T[t] + shift, scale).to_event(1), obs=x)

    assert axes(program, ROWS) == {"by_column": [(0, 1)], "shift": [], "scale": [], "logits": [(0, 0)]}


def test_two_assignments():
    def program(x):
        loc = numpyro.param("loc", jnp.ones(2))
        given = numpyro.param("given", jnp.full((2, 2), 0.5), constraint=dist.constraints.simplex)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            u = numpyro.sample("u", dist.Categorical(given[t]))
            numpyro.sample("x", dist.Normal(loc[u], 1.0), obs=x)

    assert axes(program, ROWS[:, 0]) == {"loc": [(1, 0)], "given": [(0, 0), (1, 1)]}


@pytest.mark.parametrize("count", [2, 3, 5, 15, 30])
def test_one_column_and_any_number_of_components(count):
    found = axes(functools.partial(gmm, num_components=count), ROWS[:, :1])
    assert found == {"weights": [(0, 0)], "loc": [(0, 0)], "covariance": [(0, 0)]}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_regressions_behind_a_gate(count):
    def program(x, y):
        gate = numpyro.param("gate", jnp.zeros((count, 2)))
        slope = numpyro.param("slope", jnp.ones(count))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(logits=gate[:, 0] + gate[:, 1] * x[:, None]))
            numpyro.sample("y", dist.Normal(slope[t] * x, 1.0), obs=y)

    assert axes(program, ROWS[:, 0], ROWS[:, 1]) == {"gate": [(0, 0)], "slope": [(0, 0)]}


def test_components_behind_sticks_have_axes_and_sticks_none():
    def program(x):
        sticks = numpyro.param("sticks", jnp.full(2, 0.5), constraint=dist.constraints.unit_interval)
        loc = numpyro.param("loc", jnp.arange(3.0))
        left = jnp.append(jnp.ones(1), jnp.cumprod(1 - sticks))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.append(sticks, 1.0) * left))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    assert axes(program, ROWS[:, 0]) == {"sticks": [], "loc": [(0, 0)]}
