"""Programs of unusual components: regressions, experts, angles, heavy tails, factors, zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.stats as stats
from numpyro.distributions import constraints

from tests.programs.example import Example, Params, two_groups, weights_param
from tests.programs.structures import Row

# A mixture of linear regressions: covariates are a second data argument.


def regressions(y: jax.Array, covariates: jax.Array) -> None:
    weights = weights_param(2)
    slope = numpyro.param("slope", jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    intercept = numpyro.param("intercept", jnp.zeros(2))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", dist.Normal((slope[t] * covariates).sum(-1) + intercept[t], scale[t]), obs=y)


def regression_example() -> Example:
    random, group = two_groups(3)
    covariates = random.normal(size=(60, 2))
    slopes = np.array([[-2.0, 0.5], [2.0, 1.0]])
    y = (slopes[group] * covariates).sum(1) + np.array([0.5, -0.5])[group] + 0.4 * random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        mean = params["slope"][t] @ row[1] + params["intercept"][t]
        return np.log(params["weights"][t]) + stats.norm.logpdf(row[0], mean, params["scale"][t])

    params = {
        "weights": np.array([0.4, 0.6]),
        "slope": np.array([[-1.5, 0.2], [1.0, 0.3]]),
        "intercept": np.array([0.1, -0.2]),
        "scale": np.array([0.7, 1.1]),
    }
    return Example(regressions, (y, covariates), params, ((0, 1),), log_joint)


# Zero-inflated counts: the first component is a point mass at zero.


def zero_inflated(x: jax.Array) -> None:
    occupied = numpyro.param("occupied", 0.5, constraint=constraints.unit_interval)
    rate = numpyro.param("rate", 1.0, constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(probs=occupied))
        numpyro.sample("x", dist.Poisson(jnp.where(t == 1, rate, 0.0)), obs=x)


def zero_inflated_example() -> Example:
    random, group = two_groups(8)
    x = random.poisson(4.0, 60) * group

    def log_joint(params: Params, row: Row, t: int) -> float:
        occupied = params["occupied"]
        own = stats.poisson.logpmf(row[0], params["rate"]) if t else (0.0 if row[0] == 0 else -np.inf)
        return np.log(occupied if t else 1 - occupied) + own

    params = {"occupied": np.array(0.6), "rate": np.array(2.5)}
    return Example(zero_inflated, (x,), params, ((0, 1),), log_joint)


# An angle and a length for every row: von Mises has no exponential-family view.


def directions(angle: jax.Array, length: jax.Array) -> None:
    weights = weights_param(2)
    mean_angle = numpyro.param("mean_angle", jnp.array([-1.0, 1.0]), constraint=constraints.circular)
    concentration = numpyro.param("concentration", jnp.ones(2), constraint=constraints.positive)
    mean_length = numpyro.param("mean_length", jnp.zeros(2))
    scale = numpyro.param("scale", jnp.ones(()), constraint=constraints.positive)
    with numpyro.plate("data", angle.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("angle", dist.VonMises(mean_angle[t], concentration[t]), obs=angle)
        numpyro.sample("length", dist.Normal(mean_length[t], scale), obs=length)


def direction_example() -> Example:
    random, group = two_groups(9)
    angle = random.vonmises(np.array([-1.8, 0.9])[group], np.array([3.0, 6.0])[group])
    length = np.array([1.0, 3.0])[group] + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        own = stats.vonmises.logpdf(row[0], params["concentration"][t], loc=params["mean_angle"][t])
        return np.log(params["weights"][t]) + own + stats.norm.logpdf(row[1], params["mean_length"][t], params["scale"])

    params = {
        "weights": np.array([0.4, 0.6]),
        "mean_angle": np.array([-1.5, 1.2]),
        "concentration": np.array([2.0, 4.0]),
        "mean_length": np.array([0.5, 2.5]),
        "scale": np.array(1.3),
    }
    return Example(directions, (angle, length), params, ((0, 1),), log_joint)


# A mixture of factor analysers: every covariance is low-rank plus diagonal.


def factor_analysers(x: jax.Array) -> None:
    dim = x.shape[1]
    weights = weights_param(2)
    loc = numpyro.param("loc", jnp.zeros((2, dim)))
    loading = numpyro.param("loading", 0.1 * jnp.ones((2, dim, 1)))
    noise = numpyro.param("noise", jnp.ones((2, dim)), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        diagonal = noise[t][..., None] * jnp.eye(dim)
        covariance = loading[t] @ jnp.swapaxes(loading[t], -1, -2) + diagonal
        numpyro.sample("x", dist.MultivariateNormal(loc[t], covariance_matrix=covariance), obs=x)


def factor_example() -> Example:
    random, group = two_groups(10)
    loading = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
    x = np.array([[-2.0, 0.0, 1.0], [2.0, 1.0, -1.0]])[group] + loading[group] * random.normal(size=(60, 1))
    x = x + 0.5 * random.normal(size=(60, 3))

    def log_joint(params: Params, row: Row, t: int) -> float:
        covariance = params["loading"][t] @ params["loading"][t].T + np.diag(params["noise"][t])
        return np.log(params["weights"][t]) + stats.multivariate_normal.logpdf(row[0], params["loc"][t], covariance)

    params = {
        "weights": np.array([0.4, 0.6]),
        "loc": np.array([[-1.0, 0.0, 0.5], [1.0, 0.5, -0.5]]),
        "loading": np.array([[[0.5], [0.4], [0.1]], [[0.0], [0.7], [-0.6]]]),
        "noise": np.array([[0.5, 0.6, 0.7], [0.8, 0.7, 0.4]]),
    }
    return Example(factor_analysers, (x,), params, ((0, 1),), log_joint)


# Heavy tails, with the degrees of freedom learned; one scale for both, which could hold the tails otherwise.


def student_t(x: jax.Array) -> None:
    weights = weights_param(2)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    scale = numpyro.param("scale", jnp.ones(()), constraint=constraints.positive)
    df = numpyro.param("df", jnp.array(5.0), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.StudentT(df, loc[t], scale), obs=x)


def student_example() -> Example:
    random, group = two_groups(11)
    x = np.where(group, 8.0, -8.0) + random.standard_t(1.5, size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        own = stats.t.logpdf(row[0], params["df"], params["loc"][t], params["scale"])
        return np.log(params["weights"][t]) + own

    params = {
        "weights": np.array([0.4, 0.6]),
        "loc": np.array([-2.0, 3.0]),
        "scale": np.array(0.8),
        "df": np.array(4.0),
    }
    return Example(student_t, (x,), params, ((0, 1),), log_joint)


# Weights that depend on a covariate: a mixture of experts.


def experts(x: jax.Array, covariate: jax.Array) -> None:
    gate = numpyro.param("gate", jnp.array([0.0, 0.1]))
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        logit = gate[0] + gate[1] * covariate
        t = numpyro.sample("t", dist.Categorical(logits=jnp.stack([jnp.zeros_like(logit), logit], -1)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def expert_example() -> Example:
    random = np.random.default_rng(12)
    covariate = random.normal(size=60)
    group = (random.random(60) < 1 / (1 + np.exp(-0.5 - 2 * covariate))).astype(int)
    x = np.array([-2.0, 2.0])[group] + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        logit = params["gate"][0] + params["gate"][1] * row[1]
        return -np.logaddexp(0, -logit if t else logit) + stats.norm.logpdf(row[0], params["loc"][t], 1.0)

    params = {"gate": np.array([0.3, 1.5]), "loc": np.array([-1.5, 2.5])}
    return Example(experts, (x, covariate), params, ((0, 1),), log_joint)
