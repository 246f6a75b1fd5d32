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


@pytest.mark.slow
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


@pytest.mark.slow
def test_probabilities_of_an_observation() -> None:
    x = np.array([0, 1, 1, 0, 1, 0, 0, 0])
    with refused("probabilities that add up to .* as 'probs' of 'x', a Categorical distribution"):
        probem.fit(partial(categories, constraint=constraints.positive), x)
    probem.fit(partial(categories, constraint=constraints.simplex), x)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_weights_without_a_constraint(count: int) -> None:
    """Some of them are negative at most values, where their logarithm is none."""

    def program(x: jax.Array) -> None:
        weights: Any = numpyro.param("weights", jnp.full(count, 1 / count))
        loc: Any = numpyro.param("loc", jnp.linspace(-1.0, 1.0, count))
        with numpyro.plate("data", len(x)):
            t: Any = numpyro.sample("t", _categorical(weights))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    with refused("probabilities that add up to .* as 'probs' of 't'"):
        probem.fit(program, X)
    if count == 2:
        held = probem.fit(program, X, fixed={"weights": [0.4, 0.6]}, throw=False)
        np.testing.assert_array_equal(held.params["weights"], [0.4, 0.6])


def counted(x: jax.Array, inner: Callable[[jax.Array, Any, jax.Array], Any], start: Any = (0.3, 0.6)) -> None:
    theta: Any = numpyro.param("theta", jnp.array(start))
    with numpyro.plate("data", len(x)):
        t: Any = numpyro.sample("t", _categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", inner(theta, t, x), obs=x[:, 0])


# Rows whose second column is a count, a scale, or a log scale that no invented row has.
ROWS = np.stack([np.arange(12) % 4 + 1.0, np.full(12, 5.0)], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "inner",
    [
        lambda theta, t, x: dist.Binomial(x[:, 1], jax.nn.sigmoid(theta[t])),  # type: ignore[arg-type]
        lambda theta, t, x: dist.Normal(theta[t], x[:, 1] - 4.0),
        lambda theta, t, x: dist.Normal(theta[t], jnp.log(x[:, 1])),
        # At every draw the shape is negative, and at the start it is none.
        lambda theta, t, x: dist.Gamma(100 * theta[t] - 20.0, 1.0),
    ],
)
def test_arguments_from_data_are_those_of_the_rows(inner: Any) -> None:
    fit = probem.fit(partial(counted, inner=inner), ROWS, max_steps=2, throw=False)
    assert np.isfinite(fit.elbo)


@pytest.mark.slow
def test_rows_that_do_not_count_may_hold_anything() -> None:
    """Rounded, invented rows are all zero; a row of weight 0, and one that is masked, have no scale."""

    def inner(theta: Any, t: Any, x: jax.Array) -> Any:
        scale = jnp.round(x[:, 1])
        return dist.Normal(theta[t], scale).mask(scale > 0)

    rows = np.concatenate([ROWS, [[1.0, 0.0], [1.0, -1.0]]])
    weights = np.append(np.ones(len(ROWS) + 1), 0.0)
    fit = probem.fit(partial(counted, inner=inner), rows, row_weights=weights, max_steps=2, throw=False)
    assert np.isfinite(fit.elbo)
    with refused("-1 as 'scale' of 'x', a Normal"):
        probem.fit(partial(counted, inner=lambda theta, t, x: dist.Normal(theta[t], x[:, 1] - 6.0)), ROWS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "inner", "got"),
    [
        (jnp.array([1, 1]), lambda: dist.Normal(0.0, 1.0), "add up to 2 as 'probs' of 't'"),
        (jnp.array([0.4995, 0.4996]), lambda: dist.Normal(0.0, 1.0), r"add up to 0\.9991 as 'probs' of 't'"),
        (jnp.full(2, 0.5), lambda: dist.ZeroInflatedPoisson(-0.5, 2.0), "-0.5 as 'gate' of 'x', a ZeroInflated"),
        (jnp.full(2, 0.5), lambda: dist.Normal(0.0, -1), "-1 as 'scale' of 'x', a Normal"),
    ],
)
def test_whole_numbers_and_what_is_wrapped(weights: Any, inner: Any, got: str) -> None:
    def program(x: jax.Array) -> None:
        loc: Any = numpyro.param("loc", jnp.zeros(2))
        with numpyro.plate("data", len(x)):
            t: Any = numpyro.sample("t", _categorical(weights))
            numpyro.sample("y", dist.Normal(loc[t], 1.0), obs=x)
            numpyro.sample("x", inner(), obs=jnp.round(jnp.abs(x)))

    with refused(got):
        probem.fit(program, X)


@pytest.mark.slow
def test_an_argument_that_is_wrong_somewhere_is_none_that_is_wrong() -> None:
    """A scale without a constraint is negative in half of the draws, and positive where the fit goes."""
    free = partial(mixture, scale=lambda: numpyro.param("scale", jnp.array(1.5)))
    bound = partial(mixture, scale=lambda: numpyro.param("scale", jnp.array(1.5), constraint=constraints.positive))
    assert probem.fit(free, X, max_steps=3, throw=False).elbo == pytest.approx(
        probem.fit(bound, X, max_steps=3, throw=False).elbo
    )


def test_thousands_of_weights_in_single_precision() -> None:
    with jax.enable_x64(False):
        rows = (np.zeros((5, 1), np.float32),)
        check_arguments(read(partial(gmm, num_components=5000), rows), rows)
