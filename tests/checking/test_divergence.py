"""Closed forms of the Kullback-Leibler divergence, against sums and integrals of the densities."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import integrate, special

from probem.checking.divergence import divergence

FIRST, SECOND = np.array([[1.3, 0.2], [0.2, 0.8]]), np.array([[0.9, -0.1], [-0.1, 1.5]])
LOGITS, OTHERS = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 2.0, 1.0])

COUNTED = {
    "Bernoulli": (dist.Bernoulli(0.3), dist.Bernoulli(0.6), range(2)),
    "Bernoulli, logits": (dist.Bernoulli(logits=0.3), dist.Bernoulli(logits=-0.6), range(2)),
    "binomial": (dist.Binomial(7, 0.3), dist.Binomial(7, 0.5), range(8)),
    "categorical": (dist.Categorical(logits=LOGITS), dist.Categorical(logits=OTHERS), range(3)),
    "geometric": (dist.Geometric(0.3), dist.Geometric(0.5), range(120)),
    "Poisson": (dist.Poisson(3.0), dist.Poisson(2.0), range(60)),
}
MEASURED = {
    "exponential": (dist.Exponential(2.0), dist.Exponential(0.4)),
    "gamma": (dist.Gamma(3.0, 2.0), dist.Gamma(2.0, 1.0)),
    "inverse gamma": (dist.InverseGamma(3.0, 2.0), dist.InverseGamma(2.0, 1.0)),
    # Of one dimension, where they are gamma distributions in other letters.
    "Wishart": (dist.Wishart(5.0, scale_matrix=FIRST[:1, :1]), dist.Wishart(4.2, scale_matrix=SECOND[:1, :1])),
    "inverse Wishart": (
        dist.InverseWishart(5.0, scale_matrix=FIRST[:1, :1]),
        dist.InverseWishart(4.2, scale_matrix=SECOND[:1, :1]),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_of_counts_by_a_sum(name):
    p, q, values = COUNTED[name]
    x = jnp.array(values)
    expected = float((jnp.exp(p.log_prob(x)) * (p.log_prob(x) - q.log_prob(x))).sum())
    assert float(divergence(p, q)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_of_densities_by_quadrature(name):
    p, q = MEASURED[name]
    shape = p.event_shape

    def integrand(x):
        value = jnp.full(shape, x)
        return float(jnp.exp(p.log_prob(value)) * (p.log_prob(value) - q.log_prob(value)))

    expected, _ = integrate.quad(integrand, 0, np.inf, epsabs=1e-11)
    assert float(divergence(p, q)) == pytest.approx(expected, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [dist.Wishart, dist.InverseWishart])
def test_of_matrices_by_draws(kind):
    import jax

    p, q = kind(5.0, scale_matrix=FIRST), kind(4.2, scale_matrix=SECOND)
    x = p.sample(jax.random.key(0), (100_000,))
    drawn = np.asarray(p.log_prob(x) - q.log_prob(x))
    assert abs(float(divergence(p, q)) - drawn.mean()) < 4 * drawn.std() / np.sqrt(len(drawn))


def test_of_beta_distributions_to_all_digits():
    """By SciPy's special functions."""
    (a, b), (c, d) = (27.5, 14.5), (26.1, 17.0)
    expected = special.betaln(c, d) - special.betaln(a, b) + (a - c) * special.digamma(a)
    expected += (b - d) * special.digamma(b) + (c - a + d - b) * special.digamma(a + b)
    assert float(divergence(dist.Beta(a, b), dist.Beta(c, d))) == pytest.approx(expected, rel=1e-11)


def test_of_products_and_plates():
    p, q = dist.Normal(jnp.array([0.0, 1.0]), 2.0), dist.Normal(jnp.array([0.5, 0.0]), 1.0)
    entries = divergence(p, q)
    assert float(divergence(p.to_event(1), q.to_event(1))) == pytest.approx(float(entries.sum()), rel=1e-14)
    plated = divergence(p.to_event(1).expand([3]), q.to_event(1))
    np.testing.assert_allclose(plated, np.full(3, float(entries.sum())), rtol=1e-14)


def test_what_is_not_known_says_so():
    with pytest.raises(NotImplementedError):
        divergence(dist.StudentT(3.0), dist.StudentT(4.0))
    with pytest.raises(NotImplementedError):
        divergence(dist.Normal(0.0, 1.0), dist.Gamma(1.0, 1.0))
