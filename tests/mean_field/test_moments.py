"""Values that are missing under full posteriors: bounds against closed forms, and predictive densities."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem.models import GaussianPrior, RatePrior, bayesian_covariance, bayesian_gmm, bayesian_poisson_mixture
from tests.oracles.gaps import conditional, groups, normal_table, with_gaps
from tests.oracles.plain import rises

PRIOR = GaussianPrior(np.array([0.1, -0.2]), 0.7, 4.5, np.array([[1.0, 0.3], [0.3, 0.8]]))
ONE = with_gaps(groups(50, 2, 0, spread=0.0), 0.2, 1)
# Only the second column has gaps: then the exact evidence is known.
MONOTONE = np.stack([groups(50, 2, 2, spread=0.0)[:, 0], ONE[:, 1]], 1)
X = with_gaps(groups(60, 2, 3), 0.2, 4)


@functools.cache
def program(covariance: Any, num_components: int = 2) -> Any:
    return functools.partial(bayesian_gmm, num_components=num_components, prior=PRIOR, covariance=covariance)


@functools.cache
def fitted(structure: str) -> probem.Fit:
    """Variational Bayes for the rows with gaps."""
    return probem.fit(program(getattr(bayesian_covariance, structure)), X, families=probem.VARIATIONAL_BAYES, key=1)


def log_partition(strength: float, dof: float, scatter: np.ndarray) -> float:
    """Of the normal-Wishart density of a location and a precision matrix."""
    dim = len(scatter)
    return (
        0.5 * dim * np.log(2 * np.pi / strength)
        + 0.5 * dof * dim * np.log(2)
        + scipy.special.multigammaln(0.5 * dof, dim)
        - 0.5 * dof * np.linalg.slogdet(scatter)[1]
    )


def updated(x: np.ndarray, spread: np.ndarray, prior: GaussianPrior) -> tuple[np.ndarray, float, float, np.ndarray]:
    count, mean = len(x), x.mean(0)
    strength, dof = prior.strength + count, prior.dof + count
    loc = (prior.strength * prior.mean + count * mean) / strength
    away = mean - prior.mean
    scatter = prior.scatter + (x - mean).T @ (x - mean) + spread
    return loc, strength, dof, scatter + prior.strength * count / strength * np.outer(away, away)


def ascend(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Coordinate ascent on F for one component: F after the update of q(loc, precision), its mean and E[precision]."""
    x = x[~np.isnan(x).all(1)]
    loc, covariance = np.nanmean(x, 0), np.eye(x.shape[1])
    for _ in range(120):
        filled, spread, entropy = x.copy(), np.zeros_like(covariance), 0.0
        for n, row in enumerate(x):
            filled[n], own = conditional(row, loc, covariance)[1:]
            gone = np.isnan(row)
            spread = spread + own
            if gone.any():
                entropy += 0.5 * np.linalg.slogdet(2 * np.pi * np.e * own[np.ix_(gone, gone)])[1]
        loc, strength, dof, scatter = updated(filled, spread, PRIOR)
        covariance = scatter / dof
    evidence = log_partition(strength, dof, scatter) - log_partition(PRIOR.strength, PRIOR.dof, PRIOR.scatter)
    return evidence - 0.5 * x.size * np.log(2 * np.pi) + entropy, loc, np.linalg.inv(covariance)


def log_evidence(x: np.ndarray, prior: GaussianPrior) -> float:
    """log p(X) of complete rows."""
    _, strength, dof, scatter = updated(x, np.zeros_like(prior.scatter), prior)
    ratio = log_partition(strength, dof, scatter) - log_partition(prior.strength, prior.dof, prior.scatter)
    return ratio - 0.5 * x.size * np.log(2 * np.pi)


@pytest.mark.slow
def test_the_bound_of_one_component_is_that_of_coordinate_ascent_by_hand() -> None:
    fit = probem.fit(program(bayesian_covariance.full, 1), ONE, families=probem.VARIATIONAL_BAYES, tolerance=1e-14)
    elbo, loc, precision = ascend(ONE)
    assert fit.elbo == pytest.approx(elbo, rel=1e-10)
    np.testing.assert_allclose(fit.params["loc"][0], loc, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(fit.params["precision"][0], precision, rtol=1e-5)
    assert rises(fit.history)
    assert sum(fit.elbo_terms.values()) == pytest.approx(fit.elbo, rel=1e-10)


@pytest.mark.slow
def test_the_bound_is_below_the_exact_evidence_and_not_far() -> None:
    """Of gaps in the last column alone: that of the first column, and of the second given the first."""
    fit = probem.fit(program(bayesian_covariance.full, 1), MONOTONE, families=probem.VARIATIONAL_BAYES)
    # One column of a Wishart matrix, as a covariance, has one degree of freedom less.
    first = GaussianPrior(PRIOR.mean[:1], PRIOR.strength, PRIOR.dof - 1, PRIOR.scatter[:1, :1])
    whole = MONOTONE[~np.isnan(MONOTONE[:, 1])]
    exact = log_evidence(MONOTONE[:, :1], first) + log_evidence(whole, PRIOR) - log_evidence(whole[:, :1], first)
    # What q leaves out is that the gaps and the parameters depend on each other: nats, for twenty-two gaps.
    assert exact - 3 < fit.elbo < exact


@pytest.mark.slow
def test_features_that_are_independent_have_the_exact_evidence() -> None:
    """With one component q is exact: F is log p of the values that are there, feature by feature."""
    fit = probem.fit(program(bayesian_covariance.diagonal, 1), ONE, families=probem.VARIATIONAL_BAYES)
    exact = 0.0
    for d in range(2):
        own = GaussianPrior(PRIOR.mean[[d]], PRIOR.strength, PRIOR.dof - 1, PRIOR.scatter[d : d + 1, d : d + 1])
        exact += log_evidence(ONE[~np.isnan(ONE[:, d])][:, [d]], own)
    assert fit.elbo == pytest.approx(exact, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "tied", "spherical"])
def test_bounds_rise_and_add_up(structure: str) -> None:
    """With diagonal covariances features are independent, and have the exact evidence above."""
    fit = fitted(structure)
    assert rises(fit.history)
    assert sum(fit.elbo_terms.values()) == pytest.approx(fit.elbo, rel=1e-10)
    assert np.all(np.isfinite(fit.log_density(X)))


@pytest.mark.slow
@pytest.mark.parametrize("families", [probem.EM, probem.MAXIMIZATION_EXPECTATION], ids=["MAP", "hard"])
def test_points_and_point_masses_rise_as_well(families: Any) -> None:
    fit = probem.fit(program(bayesian_covariance.full), X, families=families, key=1)
    assert fit.result is probem.Result.CONVERGED
    assert rises(fit.history)


def student(fit: probem.Fit, row: np.ndarray) -> float:
    """A mixture of the marginals of Student t, Bishop (2006), eq. 10.81."""
    q = {name: {key: np.asarray(own) for key, own in value.items()} for name, value in fit.variational.items()}
    concentration = q["weights"]["concentration"].reshape(-1)
    seen = ~np.isnan(row)
    found = []
    for k, share in enumerate(concentration / concentration.sum()):
        wishart: Any = fit.posterior["precision"].base_dist
        dof = float(np.asarray(wishart.concentration)[k])
        mean = np.asarray(wishart.mean)[k]
        scatter = dof * np.linalg.inv(mean)
        # The location of component k has the precision of a row times this.
        strength = PRIOR.strength * q["loc"]["strength"].reshape(-1)[k]
        freedom = dof - 1
        shape = scatter * (strength + 1) / (strength * freedom)
        own = 0.0
        if seen.any():
            density = scipy.stats.multivariate_t(
                np.asarray(fit.params["loc"])[k][seen], shape[np.ix_(seen, seen)], freedom
            )
            own = density.logpdf(row[seen])
        found.append(np.log(share) + own)
    return float(scipy.special.logsumexp(found))


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [True, False])
def test_the_predictive_density_is_a_mixture_of_marginal_student_ts(gaps: bool) -> None:
    whole = groups(60, 2, 3)
    options = {"families": probem.VARIATIONAL_BAYES, "key": 1}
    fit = fitted("full") if gaps else probem.fit(program(bayesian_covariance.full), whole, **options)
    new = with_gaps(groups(60, 2, 5), 0.4, 6)
    np.testing.assert_allclose(fit.log_density(new), [student(fit, row) for row in new], rtol=1e-8, atol=1e-10)
    at = {name: np.asarray(value) for name, value in fit.params.items()}
    at = at | {"covariance": np.linalg.inv(at["precision"])}
    expected = scipy.special.logsumexp(normal_table(at, new, [slice(0, 2)]), axis=1)
    np.testing.assert_allclose(fit.log_density(new, plug_in=True), expected, rtol=1e-8, atol=1e-10)


def uncertain_weights(x: jax.Array) -> None:
    """A full posterior of the weights alone: the densities are at points."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    eye = jnp.broadcast_to(jnp.eye(2), (2, 2, 2))
    covariance = numpyro.param("covariance", eye, constraint=constraints.positive_definite)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[t], covariance[t]), obs=x)


@pytest.mark.slow
def test_densities_at_points_are_marginal_normals_in_the_predictive() -> None:
    fit = probem.fit(uncertain_weights, X, families=probem.VARIATIONAL_BAYES, key=1)
    at = {name: np.asarray(value) for name, value in fit.params.items()}
    expected = scipy.special.logsumexp(normal_table(at, X, [slice(0, 2)]), axis=1)
    np.testing.assert_allclose(fit.log_density(X), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_counts_have_the_exact_evidence_of_what_is_there() -> None:
    y = with_gaps(np.random.default_rng(7).poisson(3.0, (50, 2)).astype(float), 0.3, 8)
    prior = RatePrior(1.3, np.array([0.6, 0.4]))
    poisson = functools.partial(bayesian_poisson_mixture, num_components=1, prior=prior)
    fit = probem.fit(poisson, y, families=probem.VARIATIONAL_BAYES)
    exact = 0.0
    for d in range(2):
        own = y[~np.isnan(y[:, d]), d]
        shape, rate = 1.3 + own.sum(), prior.rate[d] + len(own)
        exact += 1.3 * np.log(prior.rate[d]) - shape * np.log(rate) + scipy.special.gammaln([shape, 1.3]) @ [1, -1]
        exact -= scipy.special.gammaln(own + 1).sum()
    assert fit.elbo == pytest.approx(exact, rel=1e-10)


def numeric(x: jax.Array) -> None:
    """Scales under a prior that is not conjugate: maximised numerically."""
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    with numpyro.plate("components", 2):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], scale[t][..., None]).to_event(1), obs=x)


@pytest.mark.slow
def test_numeric_updates_weigh_by_what_is_there() -> None:
    fit = probem.fit(numeric, X, key=1)
    assert rises(fit.history)
    loc, scale, q = np.asarray(fit.params["loc"]), np.asarray(fit.params["scale"]), np.asarray(fit.responsibilities(X))
    seen = ~np.isnan(X)
    for k in range(2):
        squares = q[:, k] @ np.where(seen, (X - loc[k]) ** 2, 0.0).sum(1)
        # The derivative in log scale of what is maximised: it is zero there, in units of the rows.
        slope = squares / scale[k] ** 2 - q[:, k] @ seen.sum(1) - np.log(scale[k]) / 0.25 - 1
        assert abs(slope) < 1e-3
