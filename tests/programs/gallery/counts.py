"""Counts: of events, of successes, of kinds, with exposure, with too many zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

import probem
from tests.programs.gallery.entry import bayesian, fitted, groups, positive, prior_shares, shares

_RANDOM, _GROUP = groups(2)
EVENTS = _RANDOM.poisson(np.array([1.5, 8.0])[_GROUP])
EXPOSURE = _RANDOM.gamma(4.0, 0.5, size=60)
EXPOSED = _RANDOM.poisson(np.array([0.8, 5.0])[_GROUP] * EXPOSURE)
SPREAD = _RANDOM.poisson(_RANDOM.gamma(3.0, np.array([0.5, 15.0])[_GROUP]))
SIZES = _RANDOM.integers(5, 20, size=60)
SUCCESSES = _RANDOM.binomial(SIZES, np.array([0.2, 0.7])[_GROUP])
WAITS = _RANDOM.geometric(np.array([0.8, 0.04])[_GROUP]) - 1
KINDS = np.array([_RANDOM.multinomial(12, [[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]][group]) for group in _GROUP])
BURSTS = np.array([_RANDOM.multinomial(12, _RANDOM.dirichlet([[6, 3, 1], [1, 3, 6]][group])) for group in _GROUP])
UNEVEN = _RANDOM.binomial(SIZES, _RANDOM.beta(np.array([2.0, 8.0])[_GROUP], np.array([8.0, 2.0])[_GROUP]))
TABLE = _RANDOM.poisson(np.array([[1.0, 6.0, 3.0], [5.0, 2.0, 3.0]])[_GROUP])


def poisson(x: jax.Array) -> None:
    weights = prior_shares()
    with numpyro.plate("components", 2):
        rate = numpyro.sample("rate", dist.Gamma(2.0, jnp.array([1.0, 0.4])))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rate[t]), obs=x)


def exposed(x: jax.Array, exposure: jax.Array) -> None:
    weights, rate = shares(), positive("rate", [1.0, 4.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rate[t] * exposure), obs=x)


def exposed_priors(x: jax.Array, exposure: jax.Array) -> None:
    weights = prior_shares()
    with numpyro.plate("components", 2):
        rate = numpyro.sample("rate", dist.Gamma(2.0, jnp.array([2.0, 0.5])))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Poisson(rate[t] * exposure), obs=x)


def negative_binomial(x: jax.Array) -> None:
    weights, mean = shares(), positive("mean", [1.0, 15.0])
    concentration = positive("concentration", 3.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.NegativeBinomial2(mean[t], concentration), obs=x)


def zero_inflated(x: jax.Array) -> None:
    gate = numpyro.param("gate", 0.3, constraint=constraints.unit_interval)
    rate = positive("rate", 4.0)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", dist.ZeroInflatedPoisson(gate, rate), obs=x)


def hurdle(x: jax.Array) -> None:
    """Zeros by hand: a component of rate nil."""
    occupied = numpyro.param("occupied", 0.5, constraint=constraints.unit_interval)
    rate = positive("rate", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(probs=occupied))
        numpyro.sample("x", dist.Poisson(jnp.where(t == 1, rate, 0.0)), obs=x)


def geometric(x: jax.Array) -> None:
    weights = shares()
    probs = numpyro.param("probs", jnp.array([0.5, 0.1]), constraint=constraints.unit_interval)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Geometric(probs=probs[t]), obs=x)


def binomial(x: jax.Array, sizes: jax.Array) -> None:
    weights = shares()
    probs = numpyro.param("probs", jnp.array([0.3, 0.6]), constraint=constraints.unit_interval)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Binomial(sizes, probs=probs[t]), obs=x)


def binomial_priors(x: jax.Array, sizes: jax.Array) -> None:
    weights = prior_shares()
    with numpyro.plate("components", 2):
        probs = numpyro.sample("probs", dist.Beta(jnp.array([1.5, 3.0]), jnp.array([3.0, 1.5])))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Binomial(sizes, probs=probs[t]), obs=x)


def beta_binomial(x: jax.Array, sizes: jax.Array) -> None:
    weights, first, second = shares(), positive("first", [1.0, 4.0]), positive("second", [4.0, 1.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.BetaBinomial(first[t], second[t], sizes), obs=x)


def multinomial(x: jax.Array) -> None:
    weights = shares()
    kinds = numpyro.param("kinds", jnp.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]), constraint=constraints.simplex)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Multinomial(12, probs=kinds[t]), obs=x)


def multinomial_priors(x: jax.Array) -> None:
    """Documents of as many words, one topic each."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        kinds = numpyro.sample("kinds", dist.Dirichlet(jnp.array([[3.0, 2.0, 1.5], [1.5, 2.0, 3.0]])))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Multinomial(12, probs=kinds[t]), obs=x)


def dirichlet_multinomial(x: jax.Array) -> None:
    weights, concentration = shares(), positive("concentration", [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.DirichletMultinomial(concentration[t], 12), obs=x)


def two_plates(x: jax.Array) -> None:
    """The rows on the second axis from the right, the columns in a plate of their own."""
    weights, rate = shares(), positive("rate", [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    columns = numpyro.plate("columns", 3, dim=-1)
    with numpyro.plate("data", x.shape[0], dim=-2):
        t = numpyro.sample("t", dist.Categorical(weights))
        with columns:
            numpyro.sample("x", dist.Poisson(rate[t, jnp.arange(3)]), obs=x)


COUNTS = {
    "Poisson with priors": bayesian(poisson, EVENTS),
    "Poisson with exposure": fitted(exposed, EXPOSED, EXPOSURE),
    "Poisson with exposure and priors": bayesian(exposed_priors, EXPOSED, EXPOSURE),
    "negative binomial": fitted(negative_binomial, SPREAD, start={}),
    "zero-inflated Poisson (with_assignments)": fitted(probem.with_assignments(zero_inflated), EVENTS * _GROUP),
    "zeros by a component of rate nil": fitted(hurdle, EVENTS * _GROUP, start={"occupied": 0.5, "rate": 4.0}),
    "geometric": fitted(geometric, WAITS),
    "binomial, sizes from the data": fitted(binomial, SUCCESSES, SIZES),
    "binomial with priors": bayesian(binomial_priors, SUCCESSES, SIZES),
    "beta-binomial": fitted(beta_binomial, UNEVEN, SIZES),
    "multinomial": fitted(multinomial, KINDS),
    "multinomial with priors": bayesian(multinomial_priors, KINDS),
    "Dirichlet-multinomial": fitted(dirichlet_multinomial, BURSTS),
    "Poisson columns in a second plate": fitted(two_plates, TABLE),
}
