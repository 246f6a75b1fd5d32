"""Programs whose priors or links are not conjugate, and rows for them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import expit

RANDOM = np.random.default_rng(5)
ROWS = RANDOM.normal(1.0, 1.7, size=14)
TWO = np.r_[RANDOM.normal(-2.0, 0.6, 25), RANDOM.normal(2.0, 1.4, 15)]
WAITS = RANDOM.gamma(3.0, 0.5, size=14)
PLANE = np.r_[RANDOM.normal(size=(25, 2)), RANDOM.normal(size=(20, 2)) @ [[1.0, 0.6], [0.0, 0.5]] + 4.0]

SCALES = {
    "half normal": dist.HalfNormal(2.0),
    "half Cauchy": dist.HalfCauchy(1.0),
    "log normal": dist.LogNormal(0.0, 1.0),
}


def scaled(x: jax.Array, prior: dist.Distribution) -> None:
    """One normal component of known mean 1, with this prior of its scale."""
    scale = numpyro.sample("scale", prior)
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("t", dist.Categorical(jnp.ones(1)))
        numpyro.sample("x", dist.Normal(1.0, scale), obs=x)


def shaped(x: jax.Array) -> None:
    """One gamma component of known rate."""
    shape = numpyro.sample("shape", dist.LogNormal(0.0, 1.5))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("t", dist.Categorical(jnp.ones(1)))
        numpyro.sample("x", dist.Gamma(shape, 2.0), obs=x)


def weighed(x: jax.Array) -> None:
    """Two known components, with a logit-normal weight."""
    logit = numpyro.sample("logit", dist.Normal(0.0, 1.5))
    weights = jnp.stack([expit(logit), expit(-logit)])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(jnp.array([-2.0, 2.0])[t], 1.0), obs=x)


def located(x: jax.Array) -> None:
    """Two components of unit variance and, for each, one normal location: conjugate."""
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.5, 3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([0.6, 0.4])))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def placed(x: jax.Array) -> None:
    """Locations in three dimensions, of one known covariance matrix: conjugate."""
    covariance = jnp.array([[1.0, 0.5, 0.2], [0.5, 1.5, 0.1], [0.2, 0.1, 0.7]])
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.MultivariateNormal(jnp.zeros(3), 4.0 * jnp.eye(3)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([0.6, 0.4])))
        numpyro.sample("x", dist.MultivariateNormal(loc[t], covariance), obs=x)


def spread(x: jax.Array, scale: float = 2.0) -> None:
    """Locations with conjugate priors, and scales without."""
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
        spreads = numpyro.sample("spread", dist.HalfNormal(scale))
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], spreads[t]), obs=x)


def robust(x: jax.Array) -> None:
    """Nothing is conjugate: locations with a Student prior, half-Cauchy scales, and logits of three weights."""
    logits = numpyro.sample("logits", dist.Normal(0.0, 1.5).expand([3]).to_event(1))
    with numpyro.plate("components", 3):
        loc = numpyro.sample("loc", dist.StudentT(4.0, 0.0, 5.0))
        scale = numpyro.sample("scale", dist.HalfCauchy(1.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(logits=logits))
        numpyro.sample("x", dist.Normal(loc[t], scale[t]), obs=x)


def levelled(x: jax.Array) -> None:
    """Locations about an uncertain mean with an uncertain spread."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfNormal(3.0))
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(mean, spread))
        precision = numpyro.sample("precision", dist.Gamma(2.0, 2.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([0.6, 0.4])))
        numpyro.sample("x", dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])), obs=x)


def correlated(x: jax.Array) -> None:
    """One component in the plane, its covariance by scales and a correlation."""
    loc = numpyro.sample("loc", dist.StudentT(4.0, 0.0, 5.0).expand([2]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(2.0).expand([2]).to_event(1))
    factor = numpyro.sample("factor", dist.LKJCholesky(2, 2.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("t", dist.Categorical(jnp.ones(1)))
        numpyro.sample("x", dist.MultivariateNormal(loc, scale_tril=scale[:, None] * factor), obs=x)


def regressed(x: jax.Array, y: jax.Array) -> None:
    """Two lines with a slope that is positive, and the spread around them."""
    with numpyro.plate("components", 2):
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
        slope = numpyro.sample("slope", dist.HalfNormal(2.0))
        spread = numpyro.sample("spread", dist.HalfCauchy(1.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([0.6, 0.4])))
        numpyro.sample("y", dist.Normal(intercept[t] + slope[t] * x, spread[t]), obs=y)


def counted(x: jax.Array, y: jax.Array) -> None:
    """A covariate of counts: their density has no exponential-family form with one argument for all rows."""
    slope = numpyro.sample("slope", dist.HalfNormal(2.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.array([0.6, 0.4])))
        numpyro.sample("y", dist.Poisson(jnp.exp(slope * x) * (1.0 + t)), obs=y)
