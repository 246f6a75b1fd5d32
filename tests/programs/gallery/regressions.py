"""Regressions by component, group look-ups, gates, autoregressions, and shapes of programs."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from tests.programs.gallery.entry import bayesian, fitted, free, groups, positive, prior_shares, shares

_RANDOM, _GROUP = groups(4)
DESIGN = np.column_stack([np.ones(60), _RANDOM.normal(size=60)])
_SLOPES = np.array([[0.5, -2.0], [-0.5, 2.0]])
_MEAN = (_SLOPES[_GROUP] * DESIGN).sum(1)
RESPONSE = _MEAN + 0.4 * _RANDOM.normal(size=60)
YES = (_RANDOM.random((60, 6)) < 1 / (1 + np.exp(-_MEAN))[:, None]).sum(1)
NUMBERS = _RANDOM.poisson(np.exp(0.5 * _MEAN + 1.0))
SCHOOL = np.arange(60) % 3
SCORES = np.array([0.0, 3.0, -1.0])[SCHOOL] + np.array([-2.0, 2.0])[_GROUP] + 0.5 * _RANDOM.normal(size=60)
GATED = np.array([-2.0, 2.0])[(_RANDOM.random(60) < 1 / (1 + np.exp(-2 * DESIGN[:, 1]))).astype(int)]
GATED = GATED + _RANDOM.normal(size=60)


def _series() -> np.ndarray:
    values = np.zeros((60, 8))
    for place in range(1, 8):
        values[:, place] = np.array([0.9, -0.6])[_GROUP] * values[:, place - 1] + _RANDOM.normal(size=60)
    return values


SERIES = _series()
COLUMNS = {
    "colour": np.array([_RANDOM.choice(3, p=[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]][g]) for g in _GROUP]),
    "place": np.array([[-2.0, 1.0], [2.0, -1.0]])[_GROUP] + _RANDOM.normal(size=(60, 2)),
}
INNER = np.array([[-6.0, -3.0], [1.0, 4.0]])[_GROUP, _RANDOM.integers(0, 2, 60)] + 0.5 * _RANDOM.normal(size=60)


def linear(y: jax.Array, design: jax.Array) -> None:
    weights, beta, scale = shares(), free("beta", [[0.0, -1.0], [0.0, 1.0]]), positive("scale", [1.0, 1.0])
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal((beta[t] * design).sum(-1), scale[t]), obs=y)


def linear_priors(y: jax.Array, design: jax.Array) -> None:
    weights = prior_shares()
    precision = numpyro.sample("precision", dist.Gamma(2.0, 1.0))
    with numpyro.plate("components", 2):
        beta = numpyro.sample("beta", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal((beta[t] * design).sum(-1), precision**-0.5), obs=y)


def logistic(y: jax.Array, design: jax.Array) -> None:
    weights, beta = shares(), free("beta", [[0.0, -1.0], [0.0, 1.0]])
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("y", dist.Binomial(6, logits=(beta[t] * design).sum(-1)), obs=y)


def log_linear(y: jax.Array, design: jax.Array) -> None:
    weights, beta = shares(), free("beta", [[0.5, -0.5], [0.5, 0.5]])
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("y", dist.Poisson(jnp.exp((beta[t] * design).sum(-1))), obs=y)


def schools(y: jax.Array, school: jax.Array) -> None:
    """Offsets of groups that are known, beside components that are not."""
    weights, offset, loc = shares(), free("offset", [0.0, 0.0]), free("loc", [-1.0, 1.0])
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        offsets = jnp.concatenate([jnp.zeros(1), offset])
        numpyro.sample("y", dist.Normal(loc[t] + offsets[school], 0.5), obs=y)


def schools_priors(y: jax.Array, school: jax.Array) -> None:
    """A location for every pair of a group and a component."""
    weights = prior_shares()
    loc = numpyro.sample("loc", dist.Normal(0.0, jnp.full((3, 2), 5.0)).to_event(2))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal(loc[school, t], 1.0), obs=y)


def experts(x: jax.Array, covariate: jax.Array) -> None:
    """Shares that depend on a covariate."""
    gate, loc = free("gate", [0.0, 0.1]), free("loc", [-1.0, 1.0])
    with numpyro.plate("data", x.shape[0]):
        logit = gate[0] + gate[1] * covariate
        t = numpyro.sample("t", dist.Categorical(logits=jnp.stack([jnp.zeros_like(logit), logit], -1)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def autoregressions(x: jax.Array) -> None:
    weights, factor, scale = shares(), free("factor", [0.5, -0.5]), positive("scale", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        steps = dist.Normal(factor[t][..., None] * x[:, :-1], scale)
        numpyro.sample("x", steps.to_event(1), obs=x[:, 1:])


def autoregressions_priors(x: jax.Array) -> None:
    weights = prior_shares()
    with numpyro.plate("components", 2):
        factor = numpyro.sample("factor", dist.Normal(jnp.array([0.5, -0.5]), 1.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(factor[t][..., None] * x[:, :-1], 1.0).to_event(1), obs=x[:, 1:])


def two_levels(x: jax.Array) -> None:
    """Two assignments of a row, the second of which depends on the first."""
    weights, loc = shares(), free("loc", [[-5.0, -2.0], [2.0, 5.0]])
    inner = numpyro.param("inner", jnp.full((2, 2), 0.5), constraint=constraints.simplex)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        z = numpyro.sample("z", dist.Categorical(inner[t]))
        numpyro.sample("x", dist.Normal(loc[t, z], 0.5), obs=x)


def columns(data: dict[str, jax.Array]) -> None:
    """Columns by name, of unlike kinds."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        colours = numpyro.sample("colours", dist.Dirichlet(jnp.full(3, 2.0)))
        loc = numpyro.sample("loc", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
    with numpyro.plate("data", data["colour"].shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("colour", dist.Categorical(colours[t]), obs=data["colour"])
        numpyro.sample("place", dist.Normal(loc[t], 1.0).to_event(1), obs=data["place"])


def shared(x: jax.Array, y: jax.Array) -> None:
    """Two observations of one location."""
    weights, loc, scale = shares(), free("loc", [-1.0, 1.0]), positive("scale", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], scale), obs=x)
        numpyro.sample("y", dist.Normal(loc[t], 1.0), obs=y)


def penalised(x: jax.Array) -> None:
    """A factor that no distribution stands for."""
    loc = free("loc", [-1.0, 1.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.factor("penalty", -0.5 * t)
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


REGRESSIONS = {
    "linear regressions": fitted(linear, RESPONSE, DESIGN),
    "linear regressions, with priors": bayesian(linear_priors, RESPONSE, DESIGN),
    "logistic regressions (binomial)": fitted(logistic, YES, DESIGN),
    "Poisson regressions": fitted(log_linear, NUMBERS, DESIGN),
    "offsets of known groups": fitted(schools, SCORES, SCHOOL),
    "locations by group, with priors": bayesian(schools_priors, SCORES, SCHOOL),
    "experts (shares by a covariate)": fitted(experts, GATED, DESIGN[:, 1]),
    "autoregressions in rows": fitted(autoregressions, SERIES),
    "autoregressions in rows, with priors": bayesian(autoregressions_priors, SERIES),
    "two assignments": fitted(two_levels, INNER),
    "columns by name, two kinds": bayesian(columns, COLUMNS),
    "one location, observed twice": fitted(shared, RESPONSE, RESPONSE + _RANDOM.normal(size=60)),
    "a factor in the plate": fitted(penalised, SCORES),
}
