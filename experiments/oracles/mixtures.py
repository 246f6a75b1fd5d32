"""The programs of ``models/``, and the same models by hand as NumPyro distributions: the oracle of the claims A.

Nothing here comes from the engine: log p(x_n) and log p(x_n, t_n = k) are those of ``MixtureSameFamily``.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from probem import models
from probem.experiments.claims.claim import Dataset

Params = Mapping[str, Any]
Generator = np.random.Generator
# Draws the value of one site: (generator, rows [N, D], K) -> array.
Draw = Callable[[Generator, np.ndarray, int], np.ndarray]

#: Where the values of every site lie.
CONSTRAINTS = {
    "weights": constraints.simplex,
    "loc": constraints.real,
    "covariance": constraints.positive_definite,
    "scale": constraints.positive,
    "rate": constraints.positive,
    "probs": constraints.unit_interval,
}


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A program, its components [K] as one NumPyro distribution, and random values for its sites."""

    name: str
    program: Callable[..., None]
    components: Callable[[Params], dist.Distribution]
    draws: tuple[tuple[str, Draw], ...]
    transform: Callable[[np.ndarray], np.ndarray] = np.asarray

    def distribution(self, params: Params, num_components: int) -> dist.MixtureSameFamily:
        """p(x), the components weighted by ``weights``, or equally where there is no such site."""
        weights = params.get("weights", jnp.full(num_components, 1 / num_components))
        return dist.MixtureSameFamily(dist.Categorical(probs=weights), self.components(params))


@dataclasses.dataclass(frozen=True)
class Problem:
    """A mixture on a data set, with parameters drawn at random."""

    mixture: Mixture
    program: Callable[..., None]
    rows: np.ndarray
    num_components: int
    params: dict[str, np.ndarray]

    def log_joint(self, params: Params) -> np.ndarray:
        """log p(x_n, t_n = k), ``[N, K]``, nats."""
        return np.asarray(_log_joint(self.mixture, self.num_components, dict(params), self.rows))

    def log_likelihood(self, params: Params) -> float:
        """log p(X), nats, total over the rows."""
        return float(_log_likelihood(self.mixture, self.num_components, dict(params), self.rows))


def pose(dataset: Dataset, seed: int, mixture: Mixture | None = None) -> Problem:
    """Ten components for the ten digits, three for everything else."""
    # A covariance matrix for every component asks for more rows than thirteen columns, or sixty-four, leave it.
    mixture = mixture or (FULL if dataset.rows.shape[1] <= 4 else SPHERICAL)
    num_components = 10 if dataset.name == "digits" else 3
    rows = mixture.transform(dataset.rows)
    generator = np.random.default_rng(seed)
    params = {name: draw(generator, rows, num_components) for name, draw in mixture.draws}
    program = functools.partial(mixture.program, num_components=num_components)
    return Problem(mixture, program, rows, num_components, params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_joint(mixture: Mixture, num_components: int, params: Params, rows: jax.Array) -> jax.Array:
    return mixture.distribution(params, num_components).component_log_probs(rows)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_likelihood(mixture: Mixture, num_components: int, params: Params, rows: jax.Array) -> jax.Array:
    return mixture.distribution(params, num_components).log_prob(rows).sum()


def counts(rows: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to 16 in every column, as in the digits: sixteenths of the column's range."""
    low, high = rows.min(0), rows.max(0)
    return np.rint(16 * (rows - low) / np.where(high > low, high - low, 1.0)).astype(np.int64)


def halves(rows: np.ndarray) -> np.ndarray:
    """Zeros and ones: whether a value exceeds the median of its column."""
    return (rows > np.median(rows, 0)).astype(np.int64)


def _spread(rows: np.ndarray) -> np.ndarray:
    """The standard deviation of every column, one for a constant column, ``[D]``."""
    spread = rows.std(0)
    return np.where(spread > 0, spread, 1.0)


def _weights(generator: Generator, rows: np.ndarray, num_components: int) -> np.ndarray:
    return generator.dirichlet(np.full(num_components, 5.0))


def _loc(generator: Generator, rows: np.ndarray, num_components: int) -> np.ndarray:
    chosen = rows[generator.choice(len(rows), num_components, replace=False)]
    return chosen + 0.3 * _spread(rows) * generator.standard_normal(chosen.shape)


def _matrices(generator: Generator, rows: np.ndarray, *batch: int) -> np.ndarray:
    dim = rows.shape[1]
    factor = _spread(rows)[:, None] * generator.standard_normal((*batch, dim, dim)) / np.sqrt(dim)
    # The variances of all rows, or nearly: far from singular.
    return 0.3 * factor @ np.swapaxes(factor, -1, -2) + 0.5 * np.diag(_spread(rows) ** 2)


def _scales(generator: Generator, rows: np.ndarray, *batch: int) -> np.ndarray:
    return np.asarray(_spread(rows).mean() * np.exp(0.3 * generator.standard_normal(batch)))


def _gaussian(name: str, structure: Any, components: Any, draw: Draw | None) -> Mixture:
    site = "covariance" if structure in (models.full, models.tied) else "scale"
    draws = (("weights", _weights), ("loc", _loc), *(((site, draw),) if draw else ()))
    return Mixture(f"Gaussian, {name}", functools.partial(models.gmm, covariance=structure), components, draws)


FULL = _gaussian(
    "full covariance",
    models.full,
    lambda params: dist.MultivariateNormal(params["loc"], covariance_matrix=params["covariance"]),
    lambda generator, rows, num_components: _matrices(generator, rows, num_components),
)
SPHERICAL = _gaussian(
    "spherical covariance",
    models.spherical,
    lambda params: dist.Normal(params["loc"], params["scale"][:, None]).to_event(1),
    lambda generator, rows, num_components: _scales(generator, rows, num_components),
)
KMEANS = Mixture(
    "k-means",
    models.kmeans,
    lambda params: dist.Normal(params["loc"], 1.0).to_event(1),
    (("loc", _loc),),
)
POISSON = Mixture(
    "Poisson counts",
    models.poisson_mixture,
    lambda params: dist.Poisson(params["rate"]).to_event(1),
    (
        ("weights", _weights),
        ("rate", lambda generator, rows, num_components: generator.gamma(4.0, 2.0, (num_components, rows.shape[1]))),
    ),
    counts,
)

#: Every program of ``models/``, the Gaussian one with every covariance structure.
MIXTURES = (
    FULL,
    _gaussian(
        "tied covariance",
        models.tied,
        lambda params: dist.MultivariateNormal(params["loc"], covariance_matrix=params["covariance"]),
        lambda generator, rows, num_components: _matrices(generator, rows),
    ),
    _gaussian(
        "diagonal covariance",
        models.diagonal,
        lambda params: dist.Normal(params["loc"], params["scale"]).to_event(1),
        lambda generator, rows, num_components: _scales(generator, rows, num_components, rows.shape[1]),
    ),
    SPHERICAL,
    _gaussian(
        "shared spherical covariance",
        models.shared_spherical,
        lambda params: dist.Normal(params["loc"], params["scale"]).to_event(1),
        lambda generator, rows, num_components: _scales(generator, rows),
    ),
    _gaussian("identity covariance", models.identity, lambda params: dist.Normal(params["loc"], 1.0).to_event(1), None),
    KMEANS,
    POISSON,
    Mixture(
        "Bernoulli",
        models.bernoulli_mixture,
        lambda params: dist.Bernoulli(probs=params["probs"]).to_event(1),
        (
            ("weights", _weights),
            (
                "probs",
                lambda generator, rows, num_components: generator.uniform(0.1, 0.9, (num_components, rows.shape[1])),
            ),
        ),
        halves,
    ),
)
