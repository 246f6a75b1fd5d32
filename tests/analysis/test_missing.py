"""What may be missing where a density has no exponential-family form, and what may not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from tests.oracles.gaps import groups, with_gaps
from tests.oracles.plain import rises
from tests.programs.gaps import run, weights_param


def heavy_tails(x: jax.Array) -> None:
    """An observation without an exponential-family form."""
    weights = weights_param()
    loc = numpyro.param("loc", jnp.array([[-1.0, -1.0], [1.0, 1.0]]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Laplace(loc[t], 1.5).to_event(1), obs=x)


@pytest.mark.slow
def test_densities_known_by_their_log_prob_alone_leave_out_what_is_missing() -> None:
    x = with_gaps(groups(60, 2, 10), 0.25, 11)
    fit = probem.fit(heavy_tails, x, throw=False, max_steps=60)
    assert rises(fit.history)
    table = np.tile(np.log(np.asarray(fit.params["weights"])), (60, 1))
    for n, d in np.argwhere(~np.isnan(x)):
        table[n] += scipy.stats.laplace.logpdf(x[n, d], np.asarray(fit.params["loc"])[:, d], 1.5)
    np.testing.assert_allclose(fit.elbo, np.logaddexp.reduce(table, 1).sum(), rtol=1e-11)
    np.testing.assert_allclose(fit.log_density(x), np.logaddexp.reduce(table, 1), rtol=1e-10)
    np.testing.assert_allclose(sum(fit.elbo_terms.values()), fit.elbo, rtol=1e-11)


def joint_heavy_tails(x: jax.Array) -> None:
    """Events of two entries in a density without an exponential-family form."""
    loc = numpyro.param("loc", jnp.array([[-1.0, -1.0], [1.0, 1.0]]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
        numpyro.sample("x", dist.MultivariateStudentT(4.0, loc[t], jnp.eye(2)), obs=x)


@pytest.mark.slow
def test_such_an_event_may_be_missing_as_a_whole_but_not_in_part() -> None:
    x = groups(60, 2, 12)
    whole = x.copy()
    whole[[4, 9]] = np.nan
    fit = probem.fit(joint_heavy_tails, whole, throw=False, max_steps=5)
    without = probem.fit(
        joint_heavy_tails, np.delete(x, [4, 9], 0), throw=False, max_steps=5, init=lambda *_: fit.params
    )
    alone = run(joint_heavy_tails, whole, init=dict(fit.params), steps=1)
    np.testing.assert_allclose(alone.elbo, without.history.elbo[0], rtol=1e-12)
    whole[4, 0] = 1.0
    with pytest.raises(probem.InputError, match="of 'x' of which only a part is missing"):
        probem.fit(joint_heavy_tails, whole)


def regression(y: jax.Array, z: jax.Array) -> None:
    weights = weights_param()
    slope = numpyro.param("slope", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", dist.Normal(slope[t] * z, 0.5), obs=y)


def chain(x: jax.Array) -> None:
    """The first column is observed, and a covariate of the second."""
    loc, slope = numpyro.param("loc", jnp.array([-1.0, 1.0])), numpyro.param("slope", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
        numpyro.sample("first", dist.Normal(loc[t], 1.0), obs=x[:, 0])
        numpyro.sample("second", dist.Normal(slope[t] * x[:, 0], 1.0), obs=x[:, 1])


@pytest.mark.slow
def test_a_covariate_may_not_be_missing_even_if_it_is_observed_too() -> None:
    z, y = groups(60, 2, 13).T
    gone = y.copy()
    gone[7] = np.nan
    fit = probem.fit(regression, gone, z, throw=False, max_steps=5)
    assert np.isfinite(fit.elbo)
    with pytest.raises(probem.InputError, match="NaN in row 7 that is not simply an observed value"):
        probem.fit(regression, y, gone)
    both = np.stack([z, gone], 1)
    assert np.isfinite(probem.fit(chain, both, throw=False, max_steps=5).elbo)
    with pytest.raises(probem.InputError, match="NaN in row 7 that is not simply an observed value"):
        probem.fit(chain, both[:, ::-1])
