"""Counts with an exposure or a number of trials beside them: NumPyro's densities, and averages by hand."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from probem.exponential import ExposedPoisson, Trials

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.integers(1, 20, 40).astype(float)
PROBS = np.array([0.2, 0.7, 1e-3])
LOGITS = np.log(PROBS / (1 - PROBS))

CASES = {
    "poisson": (ExposedPoisson(), {"rate": np.array([0.3, 2.0, 5.0])}, lambda a, n: dist.Poisson(a["rate"] * n)),
    "binomial": (Trials("probs", False), {"probs": PROBS}, lambda a, n: dist.BinomialProbs(a["probs"], n)),
    "binomial logits": (Trials("logits", False), {"logits": LOGITS}, lambda a, n: dist.BinomialLogits(a["logits"], n)),
    "negative": (Trials("probs", True), {"probs": PROBS}, lambda a, n: dist.NegativeBinomialProbs(n, a["probs"])),
    "negative logits": (
        Trials("logits", True),
        {"logits": LOGITS},
        lambda a, n: dist.NegativeBinomialLogits(n, a["logits"]),
    ),
}


def draw(name: str) -> tuple:
    view, arguments, built = CASES[name]
    y = RANDOM.integers(0, NUMBERS + 1).astype(float)
    return view, {key: jnp.asarray(value) for key, value in arguments.items()}, built, jnp.stack([y, NUMBERS], 1)


@pytest.mark.parametrize("name", CASES)
def test_the_density_is_that_of_numpyro(name: str) -> None:
    view, arguments, built, events = draw(name)
    table = view.statistics(events) @ view.natural(arguments).T - view.log_normaliser(arguments)
    table = table + view.log_base_measure(events)[:, None]
    expected = built(arguments, events[:, 1:]).log_prob(events[:, :1])
    # Logarithms of factorials near 40 cancel.
    np.testing.assert_allclose(table, expected, rtol=1e-9, atol=1e-9)
    if isinstance(view, Trials):
        assert Trials.of(built(arguments, events[:, 1:])) == view


@pytest.mark.parametrize("name", CASES)
def test_the_moment_is_the_maximum_of_the_likelihood(name: str) -> None:
    """Beside a fine grid of NumPyro's log likelihood with row weights."""
    view, _, built, events = draw(name)
    weights = RANDOM.random(len(events))
    mean = jnp.asarray(weights @ events / weights.sum())
    (argument,) = view.argument_names
    got = view.from_moment(argument, view.moment(argument, mean, {}), {})
    grid = got + np.linspace(-0.05, 0.05, 101)
    likelihood = weights @ np.asarray(built({argument: jnp.asarray(grid)}, events[:, 1:]).log_prob(events[:, :1]))
    assert np.argmax(likelihood) == 50


@pytest.mark.parametrize("name", CASES)
def test_expected_is_natural_where_nothing_is_uncertain(name: str) -> None:
    view, arguments, _, _ = draw(name)
    natural, log_normaliser = view.expected(view.argument_statistics(arguments), None, arguments)
    np.testing.assert_allclose(natural, view.natural(arguments), rtol=1e-12)
    np.testing.assert_array_equal(log_normaliser, view.log_normaliser(arguments))


def test_absorbing_fractions() -> None:
    view = Trials("probs", False)
    means = jnp.array([[0.0, 4.0], [4.0, 4.0], [2.0, 4.0]])
    assert view.absorbing(means, jnp.array([2.0, 4.0])).tolist() == [True, True, False]
    assert not view.absorbing(means[:1], means[0]).any()
    assert ExposedPoisson().absorbing(means, jnp.array([2.0, 4.0])).tolist() == [True, False, False]
