"""F and the table of a program at given parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probem
from tests.oracles import plain
from tests.oracles.plain import ROUNDING
from tests.programs.examples import EXAMPLES


def test_the_bound_of_a_program_includes_its_prior_and_the_gap_vanishes_at_the_posterior() -> None:
    example = EXAMPLES["priors"]
    table = example.table()
    q = plain.posterior(table)
    elbo = jax.jit(functools.partial(probem.elbo, example.program))
    found = elbo(example.params, q, *example.data)
    expected = plain.log_likelihood(table) + example.log_prior(example.params)
    np.testing.assert_allclose(found.elbo, expected, rtol=ROUNDING)
    np.testing.assert_allclose(found.log_prior, example.log_prior(example.params), rtol=ROUNDING)
    np.testing.assert_allclose(found.gap, 0, atol=1e-10 * len(table))
    flat = elbo(example.params, np.full_like(q, 0.5), *example.data)
    np.testing.assert_allclose(flat.elbo, plain.bound(table, np.full_like(q, 0.5)) + found.log_prior, rtol=ROUNDING)
    assert flat.elbo < found.elbo


def test_elbo_refuses_responsibilities_of_another_shape() -> None:
    example = EXAMPLES["penalised"]
    with pytest.raises(probem.InputError, match=r"got responsibilities of shape \(60, 3\); expected shape \(60, 2\);"):
        probem.elbo(example.program, example.params, np.ones((60, 3)) / 3, *example.data)
    with pytest.raises(probem.InputError, match="no value for the site 'loc'"):
        probem.log_joint(example.program, {}, *example.data)


def test_a_rate_of_zero_is_a_parameter_like_any_other() -> None:
    """The estimate from zeros alone lies on the edge of its constraint, and the table takes it."""

    def program(x):
        rate = numpyro.param("rate", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Poisson(rate[t]), obs=x)

    table = functools.partial(probem.log_joint, program)({"rate": np.array([0.0, 1.0])}, np.array([0, 1]))
    np.testing.assert_allclose(table, np.log(0.5) + np.array([[0.0, -1.0], [-np.inf, -1.0]]), rtol=1e-14)
    with pytest.raises(probem.InputError, match="off its constraint; expected a finite value that is positive"):
        probem.log_joint(program, {"rate": np.array([-1.0, 1.0])}, np.array([0, 1]))
