"""Experiments for the tests, and files that they name."""

import copy

#: Six cells of three seeds, of one structure: a normal mixture on a line, its bound, exact evidence and steps.
SMALL = {
    "program": {
        "name": "bayesian_gmm",
        "num_components": 2,
        "covariance": "spherical",
        "prior": {"mean": 0.0, "strength": 0.1, "dof": 4.0, "scatter": 2.0},
    },
    "data": {"name": "gaussian_clusters", "rows": 6, "dimension": 1, "separation": 2.0},
    "families": "VARIATIONAL_BAYES",
    "grid": {"data.separation": [0.0, 2.0, 8.0], "program.prior.strength": [0.1, 1.0]},
    "seeds": 3,
    "measure": ["elbo", "evidence", "evidence_gap", "steps"],
    "figures": [{"x": "data.separation", "y": ["evidence", "elbo"], "colour": "program.prior.strength"}],
}

TEXT = """\
program:
  name: bayesian_gmm
  num_components: 2
  covariance: spherical
  prior: {mean: 0.0, strength: 0.1, dof: 4.0, scatter: 2.0}
data: {name: gaussian_clusters, rows: 6, dimension: 1, separation: 2.0}
families: VARIATIONAL_BAYES
grid:
  data.separation: [0.0, 2.0, 8.0]
  program.prior.strength: [0.1, 1.0]
seeds: 3
measure: [elbo, evidence, evidence_gap, steps]
figures:
  - {x: data.separation, y: [evidence, elbo], colour: program.prior.strength}
"""

#: Nothing in it takes long: processes of their own run it.
LIGHT = TEXT.replace("evidence, evidence_gap, ", "").replace("[evidence, elbo]", "[elbo]")

OWN = """
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist


def mixture(x, K, spread=1.0):
    loc = numpyro.param("loc", jnp.zeros((K, 1)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(K, 1 / K)))
        numpyro.sample("x", dist.Normal(loc[t], spread).to_event(1), obs=x)


def pairs(seed, width=4.0):
    labels = np.repeat([0, 1], 5)
    return labels[:, None] * width + np.random.default_rng(seed).normal(size=(10, 1)), labels


def fixed():
    return np.arange(8.0)[:, None]


def span(fit, data):
    return {"loc": float(np.ptp(np.asarray(fit.params["loc"]))), "rows": float(np.ptp(data.rows))}


def fails(fit, data):
    raise RuntimeError("no such number")
"""


def changed(**changes):
    """The small experiment with other sections; None leaves one out."""
    experiment = copy.deepcopy(SMALL) | changes
    return {name: value for name, value in experiment.items() if value is not None}
