"""What single views promise: where they collapse, what they do at the edge of their support, how they are found."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special

from probem.exponential import view

MATRICES = ("covariance_matrix", "precision_matrix", "scale_tril")


def estimate(found, x):
    """The arguments of one component from all rows, and whether they are degenerate."""
    x = jnp.asarray(x)
    mean_statistics = jnp.mean(found.statistics(x), axis=0)
    arguments = {"loc": jnp.zeros_like(x[0])}
    for name in found.argument_names:
        moment = found.moment(name, mean_statistics, arguments)
        arguments[name] = found.from_moment(name, moment, arguments)
    return arguments, bool(found.degenerate(mean_statistics, arguments))


# Made where they are used: a distribution computes, and what a file computes on import is paid for by every process.
OTHERS = {
    "StudentT": lambda: dist.StudentT(3.0),
    "Chi2": lambda: dist.Chi2(3.0),
    "Independent": lambda: dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    "Dirichlet": lambda: dist.Dirichlet(jnp.ones(3)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_view_of_other_distributions(name):
    """Not of subclasses (Chi2 is a Gamma whose arguments are functions of its own) nor of wrappers."""
    assert view(OTHERS[name]()) is None


def test_factories_are_seen_through():
    assert view(dist.Categorical(probs=jnp.ones(2) / 2)) == view(dist.CategoricalProbs(jnp.ones(2) / 2))
    assert view(dist.Bernoulli(logits=0.3)) == view(dist.BernoulliLogits(0.3))
    assert view(dist.Bernoulli(logits=0.3)) != view(dist.Bernoulli(probs=0.3))


@pytest.mark.parametrize("given", MATRICES)
def test_given_matrix_is_recognised_after_the_others_were_cached(given):
    distribution = dist.MultivariateNormal(jnp.zeros(2), **{given: jnp.eye(2)})
    for name in MATRICES:
        getattr(distribution, name)
    assert view(distribution).argument_names == ("loc", given)


DISCRETE = {
    "BernoulliProbs": lambda: dist.BernoulliProbs(0.3),
    "CategoricalProbs": lambda: dist.CategoricalProbs(jnp.ones(2) / 2),
    "Poisson": lambda: dist.Poisson(2.0),
}


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool])
@pytest.mark.parametrize("name", DISCRETE)
def test_integers_and_booleans_become_the_default_float(name, dtype):
    found, x = view(DISCRETE[name]()), jnp.asarray([0, 1, 1, 0], dtype)
    assert found.statistics(x).dtype == jnp.result_type(float)
    assert found.log_base_measure(x).dtype == jnp.result_type(float)


@pytest.mark.parametrize("given", MATRICES)
def test_scatter_is_symmetric_to_the_bit(given):
    rng = np.random.default_rng(0)
    found = view(dist.MultivariateNormal(jnp.zeros(5), **{given: jnp.eye(5)}))
    mean_statistics = jnp.mean(found.statistics(jnp.asarray(rng.normal(size=(100, 5)))), axis=0)
    arguments = {"loc": jnp.asarray(rng.normal(size=5))}
    moment = found.moment(given, mean_statistics, arguments)
    assert jnp.array_equal(moment, moment.T)
    if given != "scale_tril":
        estimated = found.from_moment(given, moment, arguments)
        assert jnp.array_equal(estimated, estimated.T)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("spread", [0.0, 1e-12, 1.0])
def test_normal_is_degenerate_where_its_variance_is_rounding(dtype, spread):
    rng = np.random.default_rng(0)
    x = jnp.asarray(3.0 + spread * rng.normal(size=200), dtype)
    arguments, degenerate = estimate(view(dist.Normal()), x)
    assert degenerate == (spread < 1.0)
    assert jnp.isfinite(arguments["scale"])


@pytest.mark.parametrize("given", MATRICES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    ("direction", "expected"),
    [([1.0, 0.0, 0.0], True), ([0.3, -2.0, 0.5], True), (None, False)],
    ids=["constant column", "linear relation", "full rank"],
)
def test_multivariate_normal_is_degenerate_where_a_conditional_variance_is_rounding(given, dtype, direction, expected):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    if direction is not None:
        # Onto the plane orthogonal to the direction, then off the origin.
        direction = np.asarray(direction)
        x = x - np.outer(x @ direction, direction) / (direction @ direction)
    x = jnp.asarray(x + np.array([1.0, 2.0, 3.0]), dtype)
    found = view(dist.MultivariateNormal(jnp.zeros(3), **{given: jnp.eye(3)}))
    assert estimate(found, x)[1] == expected


@pytest.mark.parametrize("given", MATRICES)
def test_degenerate_knows_scales(given):
    """Coordinates in very different units, correlated, are no degeneracy: each is held against its own size."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3))) * [1e-9, 1.0, 1e9]
    found = view(dist.MultivariateNormal(jnp.zeros(3), **{given: jnp.eye(3)}))
    assert not estimate(found, x)[1]


@pytest.mark.parametrize(("x", "expected"), [([7.1, 7.1, 7.1], True), ([7.1, 7.1, 7.2], False)])
def test_gamma_is_degenerate_where_rows_are_equal(x, expected):
    assert estimate(view(dist.Gamma(1.0, 1.0)), jnp.asarray(x))[1] == expected


@pytest.mark.parametrize(("x", "expected"), [([0.0, 0.0], True), ([0.0, 1e-3], False)])
def test_exponential_is_degenerate_where_all_rows_are_zero(x, expected):
    assert estimate(view(dist.Exponential(1.0)), jnp.asarray(x))[1] == expected


def test_poisson_of_zeros_is_not_degenerate():
    arguments, degenerate = estimate(view(dist.Poisson(1.0)), jnp.zeros(3))
    assert arguments["rate"] == 0.0
    assert not degenerate


@pytest.mark.parametrize("concentration", [1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3, 1e6])
def test_concentration_against_scipy(concentration):
    """Over twelve orders of magnitude, against SciPy's bracketing root finder on the same equation."""
    log_ratio = np.log(concentration) - scipy.special.digamma(concentration)
    expected = scipy.optimize.brentq(
        lambda c: np.log(c) - scipy.special.digamma(c) - log_ratio,
        concentration / 3,
        concentration * 3,
        xtol=1e-15 * concentration,
        rtol=1e-14,
    )
    found = view(dist.Gamma(1.0, 1.0)).from_moment("concentration", jnp.asarray(log_ratio), {})
    # The difference log c - psi(c), about 1 / (2 c), carries the rounding of log c on both sides.
    condition = 1.0 + (1.0 + abs(np.log(concentration))) / log_ratio
    np.testing.assert_allclose(found, expected, rtol=20 * np.finfo(float).eps * condition)


ZERO_PROBABILITY = {
    "categorical": (dist.CategoricalProbs, "probs", jnp.array([0.5, 0.0, 0.5]), jnp.array([0, 1, 2])),
    "categorical logits": (dist.CategoricalLogits, "logits", jnp.array([0.5, -jnp.inf, 0.5]), jnp.array([0, 1, 2])),
    "bernoulli of zero": (dist.BernoulliProbs, "probs", jnp.array(0.0), jnp.array([0, 1])),
    "bernoulli of one": (dist.BernoulliProbs, "probs", jnp.array(1.0), jnp.array([0, 1])),
    "poisson": (dist.Poisson, "rate", jnp.array(0.0), jnp.array([0, 2])),
}


@pytest.mark.parametrize(("cls", "name", "value", "x"), ZERO_PROBABILITY.values(), ids=ZERO_PROBABILITY.keys())
def test_zero_probability_is_numpyros(cls, name, value, x):
    """With 0 log 0 = 0 the table is NumPyro's, minus infinity included, and derivatives along the rest are finite."""
    found = view(cls(value, validate_args=False))
    statistics = found.statistics(x)

    def table(value):
        natural = jnp.broadcast_to(found.natural({name: value}), statistics.shape)
        products = jnp.where(statistics == 0, 0.0, statistics * natural)
        return jnp.sum(products, axis=-1) - found.log_normaliser({name: value}) + found.log_base_measure(x)

    # The same few operations in a different order, on terms of up to log tiny = -708.
    np.testing.assert_allclose(table(value), cls(value, validate_args=False).log_prob(x), rtol=1e-13, atol=1e-13)
    assert jnp.all(jnp.isfinite(jax.grad(lambda v: table(v)[0])(value)))


@pytest.mark.parametrize("x", [-1, 3])
def test_category_off_the_support_has_no_density(x):
    assert view(dist.CategoricalProbs(jnp.ones(3) / 3)).log_base_measure(jnp.asarray(x)) == -jnp.inf


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_logits_of_certain_outcomes_are_finite(mean):
    bernoulli, categorical = view(dist.BernoulliLogits(0.0)), view(dist.CategoricalLogits(jnp.zeros(2)))
    logit = bernoulli.from_moment("logits", jnp.asarray(mean), {})
    logits = categorical.from_moment("logits", jnp.array([mean, 1.0 - mean]), {})
    assert jnp.isfinite(logit)
    assert jnp.all(jnp.isfinite(logits))
    # The clamp of NumPyro's probabilities at one minus eps; the smallest normal number.
    np.testing.assert_allclose(jax.nn.sigmoid(logit), mean, atol=2 * np.finfo(float).eps)
    np.testing.assert_allclose(jax.nn.softmax(logits), [mean, 1.0 - mean], atol=2 * np.finfo(float).tiny)
