"""Programs, data and fits that several test files share, so that each is compiled once."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import probem
from probem.models import diagonal, gmm, kmeans
from tests.oracles import plain

PROGRAM = functools.partial(gmm, num_components=2, covariance=diagonal)
KMEANS = functools.partial(kmeans, num_components=3)
LABELS = np.random.default_rng(0).permutation(np.arange(90) % 3)
X = np.array([[-3.0, 0.0], [0.5, 1.0], [3.0, -1.0]])[LABELS] + np.random.default_rng(1).normal(size=(90, 2))
START = probem.Parameters({"loc": X[:2], "weights": [0.4, 0.6], "scale": [[1.0, 2.0], [2.0, 1.5]]})
CENTRES = probem.Parameters({"loc": X[:3]})


@functools.cache
def soft() -> probem.Fit:
    """EM for a diagonal Gaussian mixture."""
    return probem.fit(PROGRAM, X, init=START, tolerance=1e-12)


@functools.cache
def hard() -> probem.Fit:
    """k-means."""
    return probem.fit(KMEANS, X, families=probem.HARD_EM, init=CENTRES)


def normal_table(params: dict, x: np.ndarray) -> np.ndarray:
    """log pi_k + log N(x | loc_k, scale_k^2), [N, K], by the formula."""
    loc, scale = np.asarray(params["loc"]), np.broadcast_to(params.get("scale", 1.0), np.shape(params["loc"]))
    weights = np.asarray(params.get("weights", np.full(len(loc), 1 / len(loc))))
    squares = ((x[:, None, :] - loc) / scale) ** 2
    return np.log(weights) - 0.5 * squares.sum(-1) - np.log(scale).sum(-1) - 0.5 * x.shape[1] * np.log(2 * np.pi)


def hard_gap() -> float:
    """The gap of k-means at its parameters."""
    q = plain.posterior(normal_table(hard().params, X))
    return -np.log(q.max(1)).sum()


def em_step(params: dict, x: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, dict]:
    """F at these parameters, and one step of EM for the diagonal mixture, in NumPy."""
    rows = np.ones(len(x)) if weights is None else weights
    table = normal_table(params, x)
    log_density = np.logaddexp.reduce(table, axis=1)
    r = rows[:, None] * np.exp(table - log_density[:, None])
    counts = r.sum(0)
    loc = r.T @ x / counts[:, None]
    variance = (r[:, :, None] * (x[:, None, :] - loc) ** 2).sum(0) / counts[:, None]
    return rows @ log_density, {"weights": counts / counts.sum(), "loc": loc, "scale": np.sqrt(variance)}


def lloyd_step(loc: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every row, and the means of the rows of each centre."""
    labels = ((x[:, None, :] - loc) ** 2).sum(-1).argmin(1)
    means = [x[labels == k].mean(0) if (labels == k).any() else loc[k] for k in range(len(loc))]
    return labels, np.array(means)


def bayesian(x, num_components, centre=True):
    """Conjugate priors on all but, perhaps, a common scale."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(num_components, 2.0)))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
    scale = 1.0 if centre else numpyro.param("scale", jnp.ones(()), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], scale).to_event(1), obs=x)
