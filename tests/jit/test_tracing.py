"""Several threads at once: every program is traced by itself, and everything is as in one thread."""

import contextlib
import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import jax.numpy as jnp
import joblib
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from sklearn.model_selection import cross_val_score

import probem
from probem.sklearn import GaussianMixture

X = np.random.default_rng(0).normal([[0.0], [4.0]], 1.0, (2, 12)).reshape(-1, 1)


class Alone:
    """Raises where two threads are inside programs at once. A class, whose attributes are no part of a program."""

    inside: ClassVar[list[int]] = []

    @classmethod
    @contextlib.contextmanager
    def here(cls):
        own = threading.get_ident()
        cls.inside.append(own)
        time.sleep(0.002)
        yield
        time.sleep(0.002)
        others = {*cls.inside} - {own}
        cls.inside.remove(own)
        assert not others


def mixture(x, name, num_components):
    """Of normals: the sites of each program have names of their own."""
    with Alone.here():
        loc = numpyro.sample(f"{name}_loc", dist.Normal(0, 5).expand([num_components]).to_event(1))
        with numpyro.plate(f"{name}_rows", x.shape[0]):
            t = numpyro.sample(f"{name}_t", dist.Categorical(jnp.ones(num_components) / num_components))
            numpyro.sample(f"{name}_x", dist.Normal(loc[t][:, None], 1.0).to_event(1), obs=x)


def side_by_side(job, count):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(job, range(count)))


def program(number):
    return functools.partial(mixture, name=f"site{number}", num_components=2 + number % 2)


def test_programs_are_traced_one_at_a_time():
    def job(number):
        values = np.linspace(-1.0, 4.0, 2 + number % 2)
        return np.asarray(probem.log_joint(program(number), {f"site{number}_loc": values}, X))

    for number, table in enumerate(side_by_side(job, 4)):
        count = 2 + number % 2
        expected = -0.5 * (X - np.linspace(-1.0, 4.0, count)) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(count)
        np.testing.assert_allclose(table, expected, rtol=1e-12)
    assert numpyro.primitives._PYRO_STACK == []
    with pytest.raises(ValueError, match="invalid scale parameter"):  # NumPyro's checks are as they were
        dist.Normal(0.0, -1.0)


def test_handlers_around_the_caller_have_no_part_in_a_program():
    values = {"site0_loc": np.array([0.0, 4.0])}
    expected = probem.log_joint(program(0), values, X)
    with numpyro.handlers.substitute(data={"site0_loc": jnp.zeros(2)}), numpyro.handlers.scale(scale=2.0):
        np.testing.assert_array_equal(probem.log_joint(program(0), values, X), expected)


@pytest.mark.slow
def test_fits_and_their_answers_are_those_of_one_thread():
    def job(number):
        kind = number % 3
        fit = probem.fit(
            program(kind), X, families={f"site{kind}_loc": probem.Conjugate()} if kind else None, key=number
        )
        drawn = fit.sample(number, 5)[f"site{kind}_x"]
        return fit.elbo, np.asarray(drawn), fit.predict(X)

    for found, expected in zip(side_by_side(job, 6), map(job, range(6)), strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def dense(x, scale):
    """Its density of the rows works on a matrix for each of them."""
    loc = numpyro.param("loc", jnp.array([0.0, 4.0]))
    with numpyro.plate("rows", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.ones(2) / 2))
        covariance = (scale + 0 * x[:, :1, None]) * jnp.eye(x.shape[1])
        numpyro.sample("x", dist.MultivariateNormal(loc[t][..., None] * jnp.ones(x.shape[1]), covariance), obs=x)


@pytest.mark.slow
def test_densities_of_many_rows_do_not_wait_for_each_other():
    """Two of them at once, on the two threads of XLA that two cores have, each wait for a third (jaxlib 0.10)."""
    rows = np.random.default_rng(0).normal(size=(600, 10))

    def job(number):
        return probem.fit(functools.partial(dense, scale=1.0 + number), rows, max_steps=3, throw=False).elbo

    expected = [job(number) for number in range(2)]
    found = [[], []]
    threads = [
        threading.Thread(target=lambda number=number: found[number].extend(job(number) for _ in range(4)), daemon=True)
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found == [[value] * 4 for value in expected]


@pytest.mark.slow
def test_estimators_in_threads():
    rows = np.random.default_rng(1).normal([[0.0, 0.0], [5.0, 5.0]], 1.0, (30, 2, 2)).reshape(-1, 2)
    expected = cross_val_score(GaussianMixture(2, random_state=0), rows, cv=2)
    with joblib.parallel_backend("threading"):
        found = cross_val_score(GaussianMixture(2, random_state=0), rows, cv=2, n_jobs=2)
    np.testing.assert_array_equal(found, expected)
    # A thread in float32 beside one in float64: each has the precision of its data.
    single = GaussianMixture(2, random_state=0).fit(rows.astype(np.float32)).means_

    def job(number):
        return GaussianMixture(2, random_state=0).fit(rows.astype(np.float32) if number % 2 else rows).means_

    for number, means in enumerate(side_by_side(job, 4)):
        assert means.dtype == (np.float32 if number % 2 else np.float64)
        if number % 2:
            np.testing.assert_array_equal(means, single)
