"""Exact evidence and DP-means against quadrature, Bayes' rule and the urn: what the claims are held to, held itself."""

import itertools

import numpy as np
import pytest
import scipy.stats as stats
from scipy.integrate import dblquad, quad

from probem.experiments.oracles import evidence
from probem.experiments.oracles.dp_means import dp_means
from probem.experiments.oracles.evidence import (
    BetaBernoulli,
    DirichletCategorical,
    GammaExponential,
    GammaGamma,
    GammaPoisson,
    NormalKnownVariance,
    per_component,
)
from tests.experiments.oracles.evidence_cases import DIAGONAL, FULL, MEAN, SPHERICAL, rows_of

EXACT = 1e-9
QUADRATURE = 1e-7  # what quad and dblquad say they reach


# --- marginals of components ---

# prior of one parameter, likelihood of one value given it, domain
SCALAR = {
    "Poisson": (GammaPoisson(1.3, 0.6), stats.gamma(1.3, scale=1 / 0.6), stats.poisson.logpmf, np.inf, [3, 0, 2]),
    "exponential": (
        GammaExponential(1.3, 0.6),
        stats.gamma(1.3, scale=1 / 0.6),
        lambda x, r: stats.expon.logpdf(x, scale=1 / r),
        np.inf,
        [0.4, 1.1, 0.2],
    ),
    "gamma": (
        GammaGamma(1.3, 0.6, 2.5),
        stats.gamma(1.3, scale=1 / 0.6),
        lambda x, r: stats.gamma.logpdf(x, 2.5, scale=1 / r),
        np.inf,
        [0.4, 1.1, 0.2],
    ),
    "Bernoulli": (BetaBernoulli(1.3, 0.6), stats.beta(1.3, 0.6), stats.bernoulli.logpmf, 1.0, [1, 0, 1]),
    "two categories": (
        DirichletCategorical(np.array([0.6, 1.3])),
        stats.beta(1.3, 0.6),
        stats.bernoulli.logpmf,
        1.0,
        [1, 0, 1],
    ),
}


@pytest.mark.parametrize("name", SCALAR)
def test_one_parameter_against_quadrature(name):
    prior, of_parameter, log_likelihood, end, values = SCALAR[name]
    rows = np.array(values)[:, None]
    first = quad(lambda r: of_parameter.pdf(r) * np.exp(log_likelihood(rows, r).sum()), 0, end)[0]
    second = quad(lambda r: of_parameter.pdf(r) * np.exp(log_likelihood(rows[1:], r).sum()), 0, end)[0]
    assert prior.log_marginal(rows) == pytest.approx(np.log(first), abs=QUADRATURE)
    # Features are independent.
    both = np.hstack([rows, rows[::-1]])
    assert prior.log_marginal(both) == pytest.approx(2 * np.log(first), abs=QUADRATURE)
    assert prior.log_marginal(rows[1:]) == pytest.approx(np.log(second), abs=QUADRATURE)


def test_categories_against_bayes_rule():
    prior, rows = DirichletCategorical(np.array([0.6, 1.3, 2.0])), np.array([[2, 0], [0, 0], [2, 1], [1, 0]])
    expected = 0.0
    for column in rows.T:
        p, counts = np.array([0.2, 0.5, 0.3]), np.bincount(column, minlength=3)
        expected += np.log(p[column]).sum() + stats.dirichlet.logpdf(p, prior.concentration)
        expected -= stats.dirichlet.logpdf(p, prior.concentration + counts)
    assert prior.log_marginal(rows) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("scale", [1.7, np.array([0.8, 2.1])])
def test_a_known_variance_against_the_joint_normal(scale):
    rows, noise = rows_of(4), 0.6
    expected = 0.0
    for d, s in enumerate(np.broadcast_to(scale, 2)):
        covariance = noise**2 * np.eye(4) + s**2
        expected += stats.multivariate_normal.logpdf(rows[:, d], np.full(4, MEAN[d]), covariance)
    assert NormalKnownVariance(MEAN, scale, noise).log_marginal(rows) == pytest.approx(expected, abs=EXACT)


def log_locations(locations, means, strengths, precision):
    each = zip(locations, means, strengths, strict=True)
    return sum(stats.multivariate_normal.logpdf(mu, m, np.linalg.inv(k * precision)) for mu, m, k in each)


def bayes_rule(rows, labels, precision, locations, log_prior, log_posterior):
    """log p(X | t) = log p(X | theta, t) + log p(theta) - log p(theta | X, t), whatever theta is."""
    count = len(locations)
    sizes = np.bincount(labels, minlength=count)
    sums = np.stack([rows[labels == k].sum(axis=0) for k in range(count)])
    means = (0.7 * MEAN + sums) / (0.7 + sizes)[:, None]
    covariance = np.linalg.inv(precision)
    likelihood = sum(
        stats.multivariate_normal.logpdf(x, locations[k], covariance) for x, k in zip(rows, labels, strict=True)
    )
    # sum xxᵀ + k0 mmᵀ - (k0 + n) m_n m_nᵀ for each component: another form than the code's.
    growth = sum(
        rows[labels == k].T @ rows[labels == k]
        + 0.7 * np.outer(MEAN, MEAN)
        - (0.7 + sizes[k]) * np.outer(means[k], means[k])
        for k in range(count)
    )
    before = log_prior + log_locations(locations, [MEAN] * count, [0.7] * count, precision)
    return likelihood + before - log_posterior(growth) - log_locations(locations, means, 0.7 + sizes, precision)


THETAS = [
    (np.array([[1.1, -0.2], [-0.2, 0.7]]), np.array([[0.1, 0.4], [-0.6, 0.9]])),
    (np.array([[0.3, 0.1], [0.1, 2.0]]), np.array([[-1.0, 0.0], [0.5, 0.2]])),
]


@pytest.mark.parametrize("theta", THETAS)
@pytest.mark.parametrize("count", [1, 2])
def test_wishart_against_bayes_rule(theta, count):
    rows, (precision, locations) = rows_of(5), theta
    labels = np.array([0, 1, 1, 0, 1]) % count
    log_wishart = lambda dof, scatter: stats.wishart.logpdf(precision, dof, np.linalg.inv(scatter))  # noqa: E731
    expected = bayes_rule(
        rows,
        labels,
        precision,
        locations[:count],
        log_wishart(FULL.dof, FULL.scatter),
        lambda growth: log_wishart(FULL.dof + 5, FULL.scatter + growth),
    )
    assert evidence.tied_log_marginal(FULL, rows, labels, count) == pytest.approx(expected, abs=EXACT)
    if count == 1:
        assert FULL.log_marginal(rows) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("precision", [0.4, 1.9])
@pytest.mark.parametrize("count", [1, 2])
def test_one_precision_against_bayes_rule(precision, count):
    rows, locations = rows_of(5), THETAS[0][1][:count]
    labels = np.array([0, 1, 1, 0, 1]) % count
    log_gamma = lambda shape, rate: stats.gamma.logpdf(precision, shape, scale=1 / rate)  # noqa: E731
    expected = bayes_rule(
        rows,
        labels,
        precision * np.eye(2),
        locations,
        log_gamma(1.6, 0.9),
        lambda growth: log_gamma(1.6 + 5, 0.9 + np.trace(growth) / 2),
    )
    assert evidence.tied_spherical_log_marginal(SPHERICAL, rows, labels, count) == pytest.approx(expected, abs=EXACT)
    if count == 1:
        assert SPHERICAL.log_marginal(rows) == pytest.approx(expected, abs=EXACT)


def test_a_precision_per_feature_against_predictive_densities():
    rows = rows_of(5)
    expected = 0.0
    for d in range(2):
        mean, strength, shape, rate = MEAN[d], 0.7, 1.6, DIAGONAL.rate[d]
        for x in rows[:, d]:  # x_n given those before it is Student's, with 2a degrees of freedom
            scale = np.sqrt(rate * (strength + 1) / (shape * strength))
            expected += stats.t.logpdf(x, 2 * shape, mean, scale)
            rate += strength * (x - mean) ** 2 / (2 * (strength + 1))
            mean, strength, shape = (strength * mean + x) / (strength + 1), strength + 1, shape + 0.5
    assert DIAGONAL.log_marginal(rows) == pytest.approx(expected, abs=EXACT)


def test_no_rows_have_probability_one():
    counts = [GammaPoisson(1.3, 0.6), GammaExponential(1.3, 0.6), GammaGamma(1.3, 0.6, 2.5), BetaBernoulli(1.3, 0.6)]
    for prior in (FULL, DIAGONAL, SPHERICAL, NormalKnownVariance(MEAN, 1.7, 0.6), *counts):
        assert prior.log_marginal(np.zeros((0, 2))) == pytest.approx(0.0, abs=EXACT)
    assert DirichletCategorical(np.ones(3)).log_marginal(np.zeros((0, 2), dtype=int)) == pytest.approx(0.0, abs=EXACT)


# --- assignments and evidence ---


def labellings(num_rows, num_components):
    return [np.array(labels) for labels in itertools.product(range(num_components), repeat=num_rows)]


def test_dirichlet_weights_against_the_urn():
    concentration, labels = np.array([0.4, 1.5, 2.2]), np.array([2, 0, 2, 2, 1])
    expected, counts = 0.0, concentration.copy()
    for label in labels:
        expected += np.log(counts[label] / counts.sum())
        counts[label] += 1
    assert evidence.dirichlet_log_prob(labels, concentration) == pytest.approx(expected, abs=EXACT)


def test_sticks_against_quadrature():
    alpha, labels = 1.8, np.array([2, 0, 2, 1])

    def joint(second, first):
        weights = np.array([first, second * (1 - first), (1 - second) * (1 - first)])
        density = alpha**2 * ((1 - first) * (1 - second)) ** (alpha - 1)
        return density * weights[labels].prod()

    expected = np.log(dblquad(joint, 0, 1, 0, 1)[0])
    assert evidence.stick_breaking_log_prob(labels, alpha, 3) == pytest.approx(expected, abs=QUADRATURE)
    every = [np.exp(evidence.stick_breaking_log_prob(t, alpha, 3)) for t in labellings(4, 3)]
    assert sum(every) == pytest.approx(1.0, abs=EXACT)


def test_evidence_against_quadrature():
    prior, rows, weights = GammaPoisson(1.3, 0.6), np.array([[4], [0], [1]]), np.array([0.3, 0.7])
    nodes, masses = np.polynomial.legendre.leggauss(200)
    nodes = (nodes + 1) / 2
    rates = 60 * nodes**5  # smooth at 0, where the density of a rate is not
    masses = masses / 2 * 300 * nodes**4 * stats.gamma.pdf(rates, 1.3, scale=1 / 0.6)
    each = stats.poisson.pmf(rows, rates)  # [N, nodes]; a rate for either component
    mixed = (weights[0] * each[:, :, None] + weights[1] * each[:, None, :]).prod(axis=0)
    expected = np.log(masses @ mixed @ masses)
    found = evidence.log_evidence(rows, 2, lambda t: evidence.fixed_log_prob(t, weights), per_component(prior))
    assert found == pytest.approx(expected, abs=EXACT)
    with pytest.raises(ValueError, match="at most 8"):
        evidence.log_evidence(rows_of(9), 2, lambda t: 0.0, per_component(FULL))


# --- DP-means ---


def test_dp_means_finds_clusters_that_are_apart():
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    rows = np.repeat(centres, 20, axis=0) + 0.5 * np.random.default_rng(1).standard_normal((60, 2))
    last = dp_means(rows, 9.0)[-1]
    same = np.repeat(np.arange(3), 20)
    np.testing.assert_array_equal(last.labels[:, None] == last.labels, same[:, None] == same)
    np.testing.assert_allclose(last.centres, [rows[last.labels == k].mean(axis=0) for k in range(3)])


def test_dp_means_between_one_cluster_and_a_cluster_for_each_row():
    rows = rows_of(12)
    (start,) = dp_means(np.array([[0.0], [6.0], [3.0]]), 10.0)  # near the mean of all, where rows are far apart
    np.testing.assert_array_equal(start.labels, [0, 0, 0])
    (only,) = dp_means(rows, 1e6)
    np.testing.assert_allclose(only.centres, rows.mean(axis=0, keepdims=True))
    np.testing.assert_array_equal(dp_means(rows, 0.0)[-1].labels, np.arange(12))


@pytest.mark.parametrize("penalty", [0.3, 1.0, 3.0])
def test_dp_means_never_climbs(penalty):
    passes = dp_means(rows_of(200), penalty)
    assert len(passes) > 2
    assert np.all(np.diff([one.objective for one in passes]) <= EXACT)
    last = passes[-1]
    assert np.all(((rows_of(200) - last.centres[last.labels]) ** 2).sum(axis=1) <= penalty)
