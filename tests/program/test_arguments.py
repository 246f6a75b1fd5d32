"""Arguments that a distribution does not allow are refused before anything is fitted."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probem
from probem.models import gmm
from probem.program.arguments import check_arguments
from probem.program.reading import read
from tests.sentences import refused

X = np.concatenate([np.linspace(-3, -1, 10), np.linspace(1, 3, 10)])


# NumPyro declares that it may return None.
_categorical: Callable[..., Any] = dist.Categorical


def mixture(
    x: jax.Array, weights: Callable[[], Any] = lambda: jnp.full(2, 0.5), scale: Callable[[], Any] = lambda: 1.0
) -> None:
    loc: Any = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    probs, spread = weights(), scale()
    with numpyro.plate("data", len(x)):
        t: Any = numpyro.sample("t", _categorical(probs))
        numpyro.sample("x", dist.Normal(loc[t], spread), obs=x)


def positive() -> Any:
    return numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.positive)


def improper() -> Any:
    return numpyro.sample("weights", dist.Dirichlet(jnp.array([-1.0, 2.0])))


def categories(x: jax.Array, constraint: Any) -> None:
    probs: Any = numpyro.param("probs", jnp.array([[0.2, 0.8], [0.7, 0.3]]), constraint=constraint)
    with numpyro.plate("data", len(x)):
        t: Any = numpyro.sample("t", _categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", _categorical(probs[t]), obs=x)


@pytest.mark.parametrize(
    ("program", "got"),
    [
        (
            partial(mixture, weights=lambda: jnp.ones(2)),
            "probabilities that add up to 2 as 'probs' of 't', a Categorical",
        ),
        (
            partial(mixture, weights=lambda: jnp.array([0.7, 0.7])),
            r"probabilities that add up to 1\.4 as 'probs' of 't'",
        ),
        # They add up to 1 at their start.
        (partial(mixture, weights=positive), r"probabilities that add up to \S+ as 'probs' of 't'"),
        (partial(mixture, weights=improper), "-1 as 'concentration' of 'weights', a Dirichlet distribution"),
        (partial(mixture, scale=lambda: -1.0), "-1 as 'scale' of 'x', a Normal distribution"),
    ],
)
def test_what_is_no_distribution_is_refused(program: Any, got: str) -> None:
    for verb in (probem.fit, probem.explain, probem.check):
        with refused(got):
            verb(program, X)


def test_probabilities_of_an_observation() -> None:
    x = np.array([0, 1, 1, 0, 1, 0, 0, 0])
    with refused("probabilities that add up to .* as 'probs' of 'x', a Categorical distribution"):
        probem.fit(partial(categories, constraint=constraints.positive), x)
    probem.fit(partial(categories, constraint=constraints.simplex), x)


def test_an_argument_that_is_wrong_somewhere_is_none_that_is_wrong() -> None:
    """A scale without a constraint is negative in half of the draws, and positive where the fit goes."""
    free = partial(mixture, scale=lambda: numpyro.param("scale", jnp.array(1.5)))
    bound = partial(mixture, scale=lambda: numpyro.param("scale", jnp.array(1.5), constraint=constraints.positive))
    assert probem.fit(free, X, max_steps=3, throw=False).elbo == pytest.approx(
        probem.fit(bound, X, max_steps=3, throw=False).elbo
    )


def test_thousands_of_weights_in_single_precision() -> None:
    with jax.enable_x64(False):
        check_arguments(read(partial(gmm, num_components=5000), (np.zeros((5, 1), np.float32),)))
