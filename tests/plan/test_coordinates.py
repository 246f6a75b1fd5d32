"""Steps in the coordinates of the gradient route."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from probem.analysis.routes import make_plan
from probem.families import Categorical, Families
from probem.plan.coordinates import coordinates, growth
from probem.program.reading import read


def looked_up(words: jax.Array, docs: jax.Array) -> None:
    """Weights of two known topics, looked up by the document of a word."""
    theta = numpyro.param("theta", jnp.full((3, 2), 0.5), constraint=dist.constraints.simplex)
    topics = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    with numpyro.plate("tokens", words.shape[0]):
        z = numpyro.sample("z", dist.Categorical(theta[docs] * jnp.exp(0.0 * docs)[:, None]))
        numpyro.sample("words", dist.Categorical(topics[z]), obs=words)


def test_the_growth_transform_ends_at_the_shares_of_the_counts() -> None:
    """The maximum of sum_k n_k log theta_k, however theta is looked up, is n_k / sum_j n_j. A product with a number of
    the row, which is one, is no look-up that is read.
    """
    plan = make_plan(read(looked_up, (np.arange(3), np.arange(3))), Families(Categorical()))
    assert plan.gradient == ("theta",)
    params = {"theta": jnp.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])}
    counts = jnp.array([[3.0, 9.0], [5.0, 1.0], [2.0, 2.0]])
    place = coordinates(plan, params)
    step = growth(plan, params, place.by_name, counts.reshape(-1))
    np.testing.assert_allclose(
        place.to_params(place.point + step)["theta"], [[0.25, 0.75], [5 / 6, 1 / 6], [0.5, 0.5]], rtol=1e-12
    )
