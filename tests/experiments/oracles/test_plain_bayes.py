"""Plain variational Bayes against the exact evidence, SciPy's entropies and scikit-learn."""

import functools
import warnings

import numpy as np
import pytest
import scipy.stats as stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import BayesianGaussianMixture

from probem.experiments.oracles import evidence, plain_bayes
from probem.experiments.oracles.plain_bayes import DirichletWeights, StickWeights, variational_bayes
from tests.experiments.oracles.evidence_cases import FULL, STRUCTURES, rows_of

EXACT = 1e-9


def weights_prior(kind, num_components):
    if kind == "Dirichlet":
        concentration = np.array([0.8, 1.7, 1.1])[:num_components]
        return DirichletWeights(concentration), lambda t: evidence.dirichlet_log_prob(t, concentration)
    return StickWeights(1.4), lambda t: evidence.stick_breaking_log_prob(t, 1.4, num_components)


def case(structure, kind, num_components):
    prior, tied, marginal = STRUCTURES[structure]
    weights, log_prob = weights_prior(kind, num_components)
    of_labels = (lambda x, t: marginal(x, t, num_components)) if tied else marginal
    start = np.random.default_rng(8).dirichlet(np.ones(num_components), 7)
    return functools.partial(variational_bayes, rows_of(7), start, prior, weights, tied=tied), log_prob, of_labels


every_case = pytest.mark.parametrize(
    ("structure", "kind"), [(s, k) for s in STRUCTURES for k in ("Dirichlet", "sticks")]
)


@every_case
@pytest.mark.parametrize("hard", [False, True])
def test_the_bound_rises_and_stays_below_the_evidence(structure, kind, hard):
    run, log_prob, of_labels = case(structure, kind, 2)
    bounds = np.array([iteration.bound for iteration in run(hard=hard, num_steps=12)])
    top = evidence.log_evidence(rows_of(7), 2, log_prob, of_labels)
    assert np.all(np.diff(bounds) >= -EXACT)
    assert bounds[-1] - bounds[0] > 0.01
    assert np.all(bounds < top)


@every_case
@pytest.mark.parametrize("hard", [False, True])
def test_the_bound_of_one_component_is_the_evidence(structure, kind, hard):
    run, _, of_labels = case(structure, kind, 1)
    expected = of_labels(rows_of(7), np.zeros(7, dtype=int))
    assert run(hard=hard, num_steps=1)[0].bound == pytest.approx(expected, abs=EXACT)


@every_case
def test_the_bound_of_point_masses_is_the_joint_of_rows_and_labels(structure, kind):
    run, log_prob, of_labels = case(structure, kind, 3)
    before, last = run(hard=True, num_steps=10)[-2:]
    labels = last.responsibilities.argmax(axis=1)
    # Only where labels repeat do the parameters' posteriors belong to these labels.
    np.testing.assert_array_equal(before.responsibilities, last.responsibilities)
    assert last.bound == pytest.approx(log_prob(labels) + of_labels(rows_of(7), labels), abs=EXACT)


@every_case
def test_the_m_step_is_a_maximum(structure, kind):
    """F with the posterior of these responsibilities is above F with that of others, at K = 3 and soft."""
    prior, tied, _ = STRUCTURES[structure]
    weights, rows = weights_prior(kind, 3)[0], rows_of(7)
    generator = np.random.default_rng(12)
    q = generator.dirichlet(np.ones(3), 7)
    value = lambda r: sum(  # noqa: E731
        plain_bayes.bound_terms(rows, q, plain_bayes.m_step(rows, r, prior, weights, tied), prior, weights).values()
    )
    others = [0.99 * q + 0.01 * generator.dirichlet(np.ones(3), 7) for _ in range(5)]
    assert all(value(other) < value(q) for other in others)


@every_case
def test_the_e_step_is_a_maximum(structure, kind):
    prior, tied, _ = STRUCTURES[structure]
    weights, rows = weights_prior(kind, 3)[0], rows_of(7)
    generator = np.random.default_rng(12)
    posterior = plain_bayes.m_step(rows, generator.dirichlet(np.ones(3), 7), prior, weights, tied)
    q = plain_bayes.e_step(rows, posterior, weights)
    value = lambda r: sum(plain_bayes.bound_terms(rows, r, posterior, prior, weights).values())  # noqa: E731
    others = [0.99 * q + 0.01 * generator.dirichlet(np.ones(3), 7) for _ in range(5)]
    assert all(value(other) < value(q) for other in others)
    at_maximum = value(q) - sum(plain_bayes.bound_terms(rows, 0 * q, posterior, prior, weights).values())
    scores = weights.expected_log(posterior.weights) + plain_bayes._expected_log_likelihood(rows, posterior)
    assert at_maximum == pytest.approx(np.logaddexp.reduce(scores, axis=1).sum(), abs=EXACT)


@pytest.mark.parametrize("structure", ["full", "tied", "diagonal", "spherical", "tied spherical"])
@pytest.mark.parametrize("kind", ["Dirichlet", "sticks"])
def test_entropies_against_scipy(structure, kind):
    iteration = case(structure, kind, 3)[0](num_steps=3)[-1]
    q, found = iteration.posterior, iteration.terms
    if structure in ("full", "tied"):
        each = zip(q.dof, q.scatter, strict=True)
        precision = sum(stats.wishart(dof, np.linalg.inv(scatter)).entropy() for dof, scatter in each)
    else:
        shape = q.dof if q.scatter.ndim == 1 else q.dof[:, None]
        precision = stats.gamma.entropy(shape, scale=1 / q.scatter).sum()
    weights = stats.dirichlet.entropy(q.weights) if kind == "Dirichlet" else stats.beta.entropy(*q.weights.T).sum()
    assert found["H(Lambda)"] == pytest.approx(precision, abs=EXACT)
    assert found["H(w)"] == pytest.approx(weights, abs=EXACT)
    assert found["H(t)"] == pytest.approx(stats.entropy(iteration.responsibilities, axis=1).sum(), abs=EXACT)


def test_a_tie_goes_to_the_lowest_index():
    equal = variational_bayes(rows_of(5), np.full((5, 2), 0.5), FULL, DirichletWeights(np.ones(2)), hard=True)
    np.testing.assert_array_equal(equal[0].responsibilities, np.eye(2)[[0] * 5])


def test_full_against_scikit_learn():
    rows, steps, seed = rows_of(60), 15, 4
    start = np.random.RandomState(seed).uniform(size=(60, 3))  # what init_params="random" draws
    start /= start.sum(axis=1, keepdims=True)
    found = variational_bayes(rows, start, FULL, DirichletWeights(np.full(3, 0.4)), num_steps=steps + 1)
    estimator = BayesianGaussianMixture(
        n_components=3,
        covariance_type="full",
        tol=0.0,
        reg_covar=0.0,
        max_iter=1,
        init_params="random",
        random_state=seed,
        warm_start=True,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=0.4,
        mean_precision_prior=FULL.strength,
        mean_prior=FULL.mean,
        degrees_of_freedom_prior=FULL.dof,
        covariance_prior=FULL.scatter,
    )
    for step in range(1, steps + 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(rows)
        own = found[step].posterior
        covariances = own.scatter / own.dof[:, None, None]
        np.testing.assert_allclose(own.mean, estimator.means_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(own.strength, estimator.mean_precision_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(own.dof, estimator.degrees_of_freedom_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(covariances, estimator.covariances_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(own.weights, estimator.weight_concentration_, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found[step].responsibilities, estimator.predict_proba(rows), rtol=0, atol=1e-8)
