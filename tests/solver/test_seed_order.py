"""Seeds in an order that the program allows."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from tests.programs.unequal import noise_and_signals


def _em(x: np.ndarray, loc: np.ndarray, weights: np.ndarray, free: int, scale: float) -> tuple[float, np.ndarray]:
    """log p(x) at the end of EM over the weights and the first ``free`` means, in NumPy, and the means."""
    for _ in range(2000):
        table = np.log(weights) - (x[:, None] - loc) ** 2 / (2 * scale**2) - 0.5 * np.log(2 * np.pi * scale**2)
        density = np.logaddexp.reduce(table, axis=1)
        r = np.exp(table - density[:, None])
        weights = r.mean(0)
        loc = np.append((r.T @ x / r.sum(0))[:free], loc[free:])
    return density.sum(), loc


@dataclasses.dataclass(frozen=True)
class Scrambled(probem.Seeding):
    """Seeds in the middle of five clusters, in an order that fits no component to its own."""

    def seeds(self, key, rows, row_weights, num_seeds, fixed_seeds=None):
        return jnp.array([[3.0], [12.0], [-8.0], [8.0], [-4.0]], rows.dtype)


@pytest.mark.slow
def test_a_component_of_a_fixed_density_gets_the_seed_that_is_its_own() -> None:
    random = np.random.default_rng(0)
    centres = np.array([-8.0, -4.0, 8.0, 12.0, 3.0])
    x = np.concatenate([centre + 0.5 * random.normal(size=12) for centre in centres])
    best, _ = _em(x, centres, np.full(5, 0.2), 4, 0.5)
    fit = probem.fit(noise_and_signals, x, init=Scrambled(), tolerance=1e-12)
    np.testing.assert_allclose(fit.elbo, best, rtol=1e-10)


def gap(x):
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    low = numpyro.param("low", jnp.array(0.0))
    d = numpyro.param("d", jnp.array(1.0), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(jnp.stack([low, low + d])[t], 0.5), obs=x)


@pytest.mark.slow
def test_means_of_which_one_is_the_higher_get_their_seeds_in_this_order() -> None:
    x = np.random.default_rng(0).normal(size=40) * 0.5 + np.repeat([0.0, 3.0], 20)
    best, loc = _em(x, np.array([0.0, 3.0]), np.full(2, 0.5), 2, 0.5)
    for key in range(4):
        fit = probem.fit(gap, x, key=key, tolerance=1e-12, throw=False)
        np.testing.assert_allclose(fit.elbo, best, rtol=1e-6)
        np.testing.assert_allclose(fit.params["d"], loc[1] - loc[0], rtol=1e-3)
