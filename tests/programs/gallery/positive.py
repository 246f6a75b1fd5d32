"""Durations, heavy and skewed tails, values in an interval, and distributions of a user's own."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from tests.programs.gallery.entry import bayesian, fitted, free, groups, positive, prior_shares, shares

_RANDOM, _GROUP = groups(1)
LINE = np.array([-3.0, 3.0])[_GROUP] + _RANDOM.normal(size=60)
TIMES = _RANDOM.gamma(np.array([2.0, 6.0])[_GROUP], np.array([0.3, 1.2])[_GROUP])
RATIOS = _RANDOM.beta(np.array([2.0, 8.0])[_GROUP], np.array([8.0, 2.0])[_GROUP])
LIMITS = _RANDOM.exponential(6.0, size=60)


def log_normal(x: jax.Array) -> None:
    weights, loc, scale = shares(), free("loc", [-1.0, 1.0]), positive("scale", [1.0, 1.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.LogNormal(loc[t], scale[t]), obs=x)


def log_normal_priors(x: jax.Array) -> None:
    weights = prior_shares()
    with numpyro.plate("components", 2):
        precision = numpyro.sample("precision", dist.Gamma(2.0, 1.0))
        loc = numpyro.sample("loc", dist.Normal(0.0, 2 / jnp.sqrt(precision)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.LogNormal(loc[t], 1 / jnp.sqrt(precision[t])), obs=x)


def logit_normal(x: jax.Array) -> None:
    weights, loc, scale = shares(), free("loc", [-1.0, 1.0]), positive("scale", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        logits = dist.Normal(loc[t], scale)
        numpyro.sample("x", dist.TransformedDistribution(logits, dist.transforms.SigmoidTransform()), obs=x)


def gamma(x: jax.Array) -> None:
    weights, shape, rate = shares(), positive("shape", [1.0, 4.0]), positive("rate", [2.0, 1.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Gamma(shape[t], rate[t]), obs=x)


def gamma_rates(x: jax.Array) -> None:
    """Shapes are known, rates have a prior."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        rate = numpyro.sample("rate", dist.Gamma(2.0, jnp.array([1.0, 2.0])))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Gamma(2.5, rate[t]), obs=x)


def weibull(x: jax.Array) -> None:
    weights, scale, shape = shares(), positive("scale", [0.5, 5.0]), positive("shape", [1.0, 2.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Weibull(scale[t], shape[t]), obs=x)


def exponential(x: jax.Array) -> None:
    weights = prior_shares()
    with numpyro.plate("components", 2):
        rate = numpyro.sample("rate", dist.Gamma(2.0, jnp.array([1.0, 6.0])))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Exponential(rate[t]), obs=x)


def censored(time: jax.Array, is_seen: jax.Array) -> None:
    """Survival times, some of which are known to be longer than a limit."""
    weights, rate = shares(), positive("rate", [2.0, 0.2])
    with numpyro.plate("data", time.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.factor("time", jnp.where(is_seen, jnp.log(rate[t]), 0.0) - rate[t] * time)


def beta(x: jax.Array) -> None:
    weights, first, second = shares(), positive("first", [1.0, 4.0]), positive("second", [4.0, 1.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Beta(first[t], second[t]), obs=x)


def student(x: jax.Array) -> None:
    weights, loc, scale, df = shares(), free("loc", [-1.0, 1.0]), positive("scale", 1.0), positive("df", 5.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.StudentT(df, loc[t], scale), obs=x)


def laplace(x: jax.Array) -> None:
    weights, loc, scale = shares(), free("loc", [-1.0, 1.0]), positive("scale", [1.0, 1.0])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Laplace(loc[t], scale[t]), obs=x)


def asymmetric(x: jax.Array) -> None:
    weights, loc, scale = shares(), free("loc", [-1.0, 1.0]), positive("scale", 1.0)
    left = positive("left", 1.0)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.SoftLaplace(loc[t], scale * jnp.where(t == 0, left, 1.0)), obs=x)


class SkewNormal(dist.Distribution):
    """A distribution of a user's own, by its log density alone."""

    support = constraints.real
    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "skew": constraints.real,
    }

    def __init__(self, loc: Any, scale: Any, skew: Any):
        self.loc, self.scale, self.skew = loc, scale, skew
        shape = jnp.broadcast_shapes(jnp.shape(loc), jnp.shape(scale), jnp.shape(skew))
        super().__init__(batch_shape=shape)

    def log_prob(self, value: Any) -> Any:
        place = (value - self.loc) / self.scale
        normal = -0.5 * place**2 - 0.5 * jnp.log(2 * jnp.pi)
        return jnp.log(2.0) + normal + jax.scipy.stats.norm.logcdf(self.skew * place) - jnp.log(self.scale)


def skew_normal(x: jax.Array) -> None:
    weights, loc, scale = shares(), free("loc", [-1.0, 1.0]), positive("scale", 1.0)
    skew = free("skew", 0.5)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", SkewNormal(loc[t], scale, skew), obs=x)


POSITIVE = {
    "log-normal": fitted(log_normal, TIMES),
    "log-normal with priors": bayesian(log_normal_priors, TIMES),
    "logit-normal, by a transform": fitted(logit_normal, RATIOS),
    "gamma": fitted(gamma, TIMES),
    "gamma of known shape, rates with a prior": bayesian(gamma_rates, TIMES),
    "Weibull": fitted(weibull, TIMES),
    "exponential with priors": bayesian(exponential, TIMES),
    "exponential, censored (a factor)": fitted(censored, np.minimum(TIMES, LIMITS), (TIMES <= LIMITS).astype(float)),
    "beta": fitted(beta, RATIOS),
    "Student t, degrees learned": fitted(student, np.array([-8.0, 8.0])[_GROUP] + _RANDOM.standard_t(1.5, size=60)),
    "Laplace": fitted(laplace, LINE),
    "soft Laplace, one side wider": fitted(asymmetric, LINE),
    "skew normal (a user's log_prob)": fitted(skew_normal, LINE + np.abs(_RANDOM.normal(size=60))),
}
