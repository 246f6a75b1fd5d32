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


def flat_priors(x: jax.Array) -> None:
    """Categories of which the last appears in no row: its share is zero at the mode."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.ones((2, 2, 4))).to_event(2))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Categorical(shares[t]).to_event(1), obs=x)


def test_a_flat_prior_is_flat_up_to_its_edges() -> None:
    """log p = log 1! for the weights and log 3! for each of four shares, where NumPyro has 0 log 0."""
    shares = np.broadcast_to([0.5, 0.25, 0.25, 0.0], (2, 2, 4))
    at = probem.log_prior(flat_priors, {"weights": np.array([1.0, 0.0]), "shares": shares}, np.zeros((3, 2), int))
    assert float(at) == pytest.approx(4 * np.log(6), rel=1e-14)


@pytest.mark.slow
def test_the_theory_holds_where_a_share_is_zero_under_a_flat_prior() -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 2, (60, 2)) + random.integers(0, 2, (60, 1))
    report = probem.check(flat_priors, x)
    report.raise_for_failure()
    assert (np.asarray(report.fit.params["shares"])[..., 3] == 0).all()


def test_cholesky_factors_of_a_fit_are_values_of_the_program() -> None:
    """Above the diagonal they are zero."""

    def program(x: jax.Array) -> None:
        factor = numpyro.param("factor", jnp.stack([jnp.eye(2)] * 2), constraint=constraints.lower_cholesky)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.4, 0.6])))
            numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(2), scale_tril=factor[t]), obs=x)

    factors = np.array([[[1.0, 0.0], [0.5, 2.0]], [[3.0, 0.0], [0.0, 1.0]]])
    table = probem.log_joint(program, {"factor": factors}, np.zeros((1, 2)))
    # log |2 pi L L'| = 2 log 2 pi + 2 log det L, of determinants 2 and 3.
    expected = np.log([[0.4, 0.6]]) - np.log(2 * np.pi) - np.log([[2.0, 3.0]])
    np.testing.assert_allclose(table, expected, rtol=1e-12)
    with pytest.raises(probem.InputError, match="off its constraint"):
        probem.log_joint(program, {"factor": factors.swapaxes(1, 2)}, np.zeros((1, 2)))
