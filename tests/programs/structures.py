"""Programs whose sites and plates stand in unusual ways: masks, priors, two assignments, other axes, trees of data."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.stats as stats
from numpyro import handlers
from numpyro.distributions import constraints

from tests.programs.example import Example, Params, two_groups, weights_param

Row = Any


# A mask and a scale on one observed site, a deterministic site, and the scale bound by a closure.


def make_masked(temperature: float) -> Callable[..., None]:
    def masked(x: jax.Array, seen: jax.Array) -> None:
        weights = weights_param(2)
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=weights))
            mean = numpyro.deterministic("mean", loc[t])
            with handlers.mask(mask=seen), handlers.scale(scale=temperature):
                numpyro.sample("x", dist.Normal(mean, 0.7), obs=x)

    return masked


def masked_example() -> Example:
    random, group = two_groups(1)
    x = np.where(group, 2.0, -1.5) + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        own = 0.5 * stats.norm.logpdf(row[0], params["loc"][t], 0.7) if row[1] else 0.0
        return np.log(params["weights"][t]) + own

    params = {"weights": np.array([0.3, 0.7]), "loc": np.array([-1.2, 1.9])}
    return Example(make_masked(0.5), (x, random.random(60) < 0.8), params, ((0, 1),), log_joint)


# Priors in a plate over the components.


def with_priors(x: jax.Array, *, num_components: int) -> None:
    weights = numpyro.sample("weights", dist.Dirichlet(2.0 * jnp.ones(num_components)))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Normal(loc[t], scale[t]), obs=x)


def _normal_by_parameters(params: Params, row: Row, t: int) -> float:
    return np.log(params["weights"][t]) + stats.norm.logpdf(row[0], params["loc"][t], params["scale"][t])


def prior_example() -> Example:
    random, group = two_groups(2)
    x = np.where(group, 3.0, -2.0) + random.normal(size=60)

    def log_prior(params: Params) -> float:
        return (
            # float32 rounds a simplex to a sum off one by more than SciPy allows.
            stats.dirichlet.logpdf(params["weights"] / params["weights"].sum(), [2.0, 2.0])
            + stats.norm.logpdf(params["loc"], 0, 5).sum()
            + stats.lognorm.logpdf(params["scale"], 0.5).sum()
        )

    params = {"weights": np.array([0.3, 0.7]), "loc": np.array([-1.2, 1.9]), "scale": np.array([0.8, 1.4])}
    program = functools.partial(with_priors, num_components=2)
    return Example(program, (x,), params, ((0, 1),), _normal_by_parameters, log_prior)


# Two assignment sites, the second of which depends on the first; the joint index is t * 3 + z.


def nested(x: jax.Array) -> None:
    weights = weights_param(2)
    inner = numpyro.param("inner", jnp.full((2, 3), 1 / 3), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.arange(6.0).reshape(2, 3))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        z = numpyro.sample("z", dist.Categorical(probs=inner[t]))
        numpyro.sample("x", dist.Normal(loc[t, z], 0.4), obs=x)


def nested_example() -> Example:
    random, group = two_groups(4)
    inner = random.integers(0, 3, 60)
    x = np.array([[-6.0, -4.0, -2.0], [1.0, 3.0, 5.0]])[group, inner] + 0.4 * random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int, z: int) -> float:
        own = np.log(params["weights"][t]) + np.log(params["inner"][t, z])
        return own + stats.norm.logpdf(row[0], params["loc"][t, z], 0.4)

    params = {
        "weights": np.array([0.35, 0.65]),
        "inner": np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]),
        "loc": np.array([[-5.5, -4.2, -1.0], [0.5, 3.3, 4.4]]),
    }
    return Example(nested, (x,), params, ((0, 1), (0, 1, 2)), log_joint)


# The rows on the second axis from the right, the features in a plate of their own.


def feature_plate(x: jax.Array) -> None:
    num_features = x.shape[1]
    weights = weights_param(2)
    rate = numpyro.param(
        "rate", jnp.ones((2, num_features)) * jnp.array([[1.0], [2.0]]), constraint=constraints.positive
    )
    features = numpyro.plate("features", num_features, dim=-1)
    with numpyro.plate("data", x.shape[0], dim=-2):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        with features:
            numpyro.sample("x", dist.Poisson(rate[t, jnp.arange(num_features)]), obs=x)


def feature_example() -> Example:
    random, group = two_groups(5)
    x = random.poisson(np.array([[1.0, 6.0, 3.0], [5.0, 2.0, 3.0]])[group])

    def log_joint(params: Params, row: Row, t: int) -> float:
        return np.log(params["weights"][t]) + stats.poisson.logpmf(row[0], params["rate"][t]).sum()

    params = {"weights": np.array([0.45, 0.55]), "rate": np.array([[1.5, 5.0, 2.0], [4.0, 2.5, 3.5]])}
    return Example(feature_plate, (x,), params, ((0, 1),), log_joint)


# A pytree of data, and two observed sites of different distributions: categories beside a Gaussian vector.


def mixed(data: dict[str, jax.Array]) -> None:
    weights = weights_param(2)
    probs = numpyro.param("probs", jnp.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    tril = numpyro.param("tril", jnp.stack([jnp.eye(2)] * 2), constraint=constraints.lower_cholesky)
    with numpyro.plate("data", data["colour"].shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("colour", dist.Categorical(probs=probs[t]), obs=data["colour"])
        numpyro.sample("place", dist.MultivariateNormal(loc[t], scale_tril=tril[t]), obs=data["place"])


def mixed_example() -> Example:
    random, group = two_groups(6)
    colour = np.array([random.choice(3, p=[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]][g]) for g in group])
    place = np.array([[-2.0, 1.0], [2.0, -1.0]])[group] + random.normal(size=(60, 2)) @ np.array(
        [[1.0, 0.5], [0.0, 0.6]]
    )

    def log_joint(params: Params, row: Row, t: int) -> float:
        covariance = params["tril"][t] @ params["tril"][t].T
        own = np.log(params["weights"][t]) + np.log(params["probs"][t, row[0]["colour"]])
        return own + stats.multivariate_normal.logpdf(row[0]["place"], params["loc"][t], covariance)

    params = {
        "weights": np.array([0.45, 0.55]),
        "probs": np.array([[0.6, 0.3, 0.1], [0.3, 0.3, 0.4]]),
        "loc": np.array([[-1.0, 0.5], [1.2, -0.3]]),
        "tril": np.array([[[1.0, 0.0], [0.4, 0.8]], [[0.7, 0.0], [-0.2, 1.1]]]),
    }
    return Example(mixed, ({"colour": colour, "place": place},), params, ((0, 1),), log_joint)


# Values that do not start at zero, and locations in a box.


def boxed(x: jax.Array) -> None:
    with numpyro.plate("components", 3):
        loc = numpyro.sample("loc", dist.Uniform(-4.0, 8.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.DiscreteUniform(2, 4))
        numpyro.sample("x", dist.Normal(loc[t - 2], 1.0), obs=x)


def boxed_example() -> Example:
    random = np.random.default_rng(7)
    x = np.repeat([-2.0, 2.0, 6.0], 20) + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        return np.log(1 / 3) + stats.norm.logpdf(row[0], params["loc"][t - 2], 1.0)

    params = {"loc": np.array([-3.0, 1.0, 7.0])}
    return Example(boxed, (x,), params, ((2, 3, 4),), log_joint, lambda params: 3 * np.log(1 / 12))


# A factor inside the plate, which no distribution stands for: component 1 costs half a nat.


def penalised(x: jax.Array) -> None:
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    rows = numpyro.plate("data", x.shape[0])
    with rows:
        t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
    with rows:
        numpyro.factor("penalty", -0.5 * t)
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def penalised_example() -> Example:
    random, group = two_groups(13)
    x = np.where(group, 2.0, -2.0) + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        return np.log(0.5) - 0.5 * t + stats.norm.logpdf(row[0], params["loc"][t], 1.0)

    return Example(penalised, (x,), {"loc": np.array([-1.5, 1.5])}, ((0, 1),), log_joint)
