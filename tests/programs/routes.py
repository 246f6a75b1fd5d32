"""Programs whose parameters take every route, and the route of each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from probem import models
from probem.analysis.routes import make_plan
from probem.families import Categorical, Families
from probem.plan.plan import Plan
from probem.program.reading import read
from tests.programs.example import weights_param
from tests.programs.examples import EXAMPLES

X = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)))
COUNTS = jnp.asarray(np.random.default_rng(1).poisson(3.0, size=(20, 2)))
BITS = jnp.asarray(np.random.default_rng(2).integers(0, 2, size=(20, 2)))


def plan_of(program, *data) -> Plan:
    return make_plan(read(program, data), Families(Categorical()))


def mixture(component):
    """A program with two components whose parameters and distribution ``component(t)`` declares."""

    def program(x):
        make = component(x.shape[-1])
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.4, 0.6])))
            numpyro.sample("x", make(t), obs=x)

    return program


def _locs(dim):
    return numpyro.param("loc", jnp.arange(2.0)[:, None] * jnp.ones(dim))


def _positive(name, shape):
    return numpyro.param(name, jnp.ones(shape), constraint=constraints.positive)


@mixture
def by_variance(dim):
    """The square root hides the parameter from the index map."""
    loc, variance = _locs(dim), _positive("variance", (2, dim))
    return lambda t: dist.Normal(loc[t], jnp.sqrt(variance[t])).to_event(1)


@mixture
def shared_mean(dim):
    """One mean for components of different covariance: its best value depends on both."""
    loc = numpyro.param("loc", jnp.zeros(dim))
    covariance = numpyro.param(
        "covariance", jnp.stack([jnp.eye(dim), 2 * jnp.eye(dim)]), constraint=constraints.positive_definite
    )
    return lambda t: dist.MultivariateNormal(loc, covariance_matrix=covariance[t])


@mixture
def tied_precision(dim):
    loc = _locs(dim)
    precision = numpyro.param("precision", jnp.eye(dim), constraint=constraints.positive_definite)
    return lambda t: dist.MultivariateNormal(loc[t], precision_matrix=precision)


@mixture
def factor(dim):
    loc = _locs(dim)
    tril = numpyro.param("tril", jnp.stack([jnp.eye(dim)] * 2), constraint=constraints.lower_cholesky)
    return lambda t: dist.MultivariateNormal(loc[t], scale_tril=tril[t])


@mixture
def unused(dim):
    """A parameter that nothing depends on, and one that stands in a component by itself."""
    loc = numpyro.param("loc", jnp.ones(dim))
    numpyro.param("forgotten", jnp.ones(3))
    return lambda t: dist.Normal(jnp.stack([jnp.zeros(dim), loc])[t], 1.0).to_event(1)


@mixture
def fixed_entries(dim):
    """The second feature has a standard deviation of its own in each component, the first is fixed at one."""
    loc, scale = _locs(dim), _positive("scale", 2)
    return lambda t: dist.Normal(loc[t], jnp.stack([jnp.ones(2), scale], -1)[t]).to_event(1)


def partly_shared(x):
    """Components 0 and 1 share a covariance; component 2 has its own."""
    dim = x.shape[1]
    loc = numpyro.param("loc", jnp.arange(3.0)[:, None] * jnp.ones(dim))
    first = numpyro.param("first", jnp.eye(dim), constraint=constraints.positive_definite)
    second = numpyro.param("second", jnp.eye(dim), constraint=constraints.positive_definite)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(3) / 3))
        numpyro.sample(
            "x", dist.MultivariateNormal(loc[t], covariance_matrix=jnp.stack([first, first, second])[t]), obs=x
        )


def softmax_weights(x):
    logits = numpyro.param("logits", jnp.array([0.0, 0.5]))
    loc = _locs(x.shape[1])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jax.nn.softmax(logits)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=x)


def all_logits(x):
    weights = numpyro.param("weights", jnp.array([0.0, 0.5]))
    logits = numpyro.param("logits", jnp.array([[-1.0, 0.0], [0.5, 1.0]]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(logits=weights))
        numpyro.sample("x", dist.Bernoulli(logits=logits[t]).to_event(1), obs=x)


def tied_over_sites(x, y):
    """One rate in two sites: each alone would be a closed form, together they are not."""
    weights = weights_param(2)
    rate = _positive("rate", 2)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Poisson(rate[t]), obs=x)
        numpyro.sample("y", dist.Poisson(rate[t]), obs=y)


def _model(structure):
    return functools.partial(models.gmm, num_components=2, covariance=structure)


ROUTES = {
    "full": (_model(models.full), (X,), {"weights": "closed", "loc": "closed", "covariance": "closed"}),
    "tied": (_model(models.tied), (X,), {"weights": "closed", "loc": "closed", "covariance": "closed"}),
    "spherical": (_model(models.spherical), (X,), {"weights": "closed", "loc": "closed", "scale": "closed"}),
    "shared spherical": (_model(models.shared_spherical), (X,), dict.fromkeys(("weights", "loc", "scale"), "closed")),
    "kmeans": (functools.partial(models.kmeans, num_components=2), (X,), {"loc": "closed"}),
    "poisson": (
        functools.partial(models.poisson_mixture, num_components=2),
        (COUNTS,),
        dict.fromkeys(("weights", "rate"), "closed"),
    ),
    "variance": (by_variance, (X,), {"loc": "closed", "variance": "numeric"}),
    "shared mean": (shared_mean, (X,), {"loc": "numeric", "covariance": "closed"}),
    "tied precision": (tied_precision, (X,), {"loc": "closed", "precision": "closed"}),
    "tril": (factor, (X,), {"loc": "closed", "tril": "numeric"}),
    "unused": (unused, (X,), {"loc": "closed", "forgotten": "unused"}),
    "fixed entries": (fixed_entries, (X,), {"loc": "closed", "scale": "closed"}),
    "partly shared": (partly_shared, (X,), dict.fromkeys(("loc", "first", "second"), "closed")),
    "softmax": (softmax_weights, (X,), {"logits": "numeric", "loc": "closed"}),
    "logits": (all_logits, (BITS,), {"weights": "closed", "logits": "closed"}),
    "tied over sites": (tied_over_sites, (COUNTS[:, 0], COUNTS[:, 1]), {"weights": "closed", "rate": "numeric"}),
    "priors": (
        EXAMPLES["priors"].program,
        EXAMPLES["priors"].data,
        {"weights": "mode", "loc": "mode", "scale": "numeric"},
    ),
    # A mean may fall outside the box.
    "boxed": (EXAMPLES["boxed"].program, EXAMPLES["boxed"].data, {"loc": "numeric"}),
    "nested": (
        EXAMPLES["nested"].program,
        EXAMPLES["nested"].data,
        dict.fromkeys(("weights", "inner", "loc"), "closed"),
    ),
    "factor analysers": (
        EXAMPLES["factor analysers"].program,
        EXAMPLES["factor analysers"].data,
        {"weights": "closed", "loc": "closed", "loading": "numeric", "noise": "numeric"},
    ),
    "directions": (
        EXAMPLES["directions"].program,
        EXAMPLES["directions"].data,
        {"weights": "closed", "mean_length": "closed", "scale": "closed"}
        | {"mean_angle": "gradient", "concentration": "gradient"},
    ),
    "experts": (EXAMPLES["experts"].program, EXAMPLES["experts"].data, {"gate": "gradient", "loc": "closed"}),
    "zero-inflated": (
        EXAMPLES["zero-inflated"].program,
        EXAMPLES["zero-inflated"].data,
        {"occupied": "closed", "rate": "closed"},
    ),
}


def in_short(*names):
    """The names given run by default; the others take their turn with the slow tests."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in ROUTES]


def within(constraint):
    """Two means of unit scale, which have to meet a constraint."""

    def program(x):
        initial = jnp.array([-0.4, -0.2]) if constraint is constraints.ordered_vector else jnp.array([0.2, 0.8])
        loc = numpyro.param("loc", initial, constraint=constraint)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    return program
