"""The programs of models/: their tables by formula, their restrictions, and that they know nothing of the engine."""

import ast
import functools
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem import models
from probem.program.reading import read
from tests.oracles import plain
from tests.programs.fits import X, normal_table

RANDOM = np.random.default_rng(0)
FACTOR = np.tril(RANDOM.normal(size=(3, 2, 2))) + 2 * np.eye(2)
PARAMS = {
    "weights": RANDOM.dirichlet(np.ones(3)),
    "loc": RANDOM.normal(size=(3, 2)),
    "covariance": FACTOR @ FACTOR.swapaxes(1, 2),
    "scale": RANDOM.gamma(3.0, size=(3, 2)),
}


def test_weakly_informative_priors_take_the_values_that_are_there():
    x = np.where(RANDOM.random(X.shape) < 0.2, np.nan, X)
    prior = models.GaussianPrior.from_data(jax.numpy.asarray(x), 1)
    np.testing.assert_allclose(prior.mean, np.nanmean(x, 0), rtol=1e-12)
    np.testing.assert_allclose(np.diag(prior.scatter), np.nanvar(x, 0), rtol=1e-12)
    assert (np.linalg.eigvalsh(np.asarray(prior.scatter)) > 0).all()
    complete = models.GaussianPrior.from_data(jax.numpy.asarray(X), 1)
    np.testing.assert_allclose(complete.scatter, np.cov(X, rowvar=False, bias=True), rtol=1e-12)
    rates = models.RatePrior.from_data(jax.numpy.asarray(abs(x)))
    np.testing.assert_allclose(rates.rate, 1 / np.nanmean(abs(x), 0), rtol=1e-12)


def _by_covariance(params: dict, covariances: np.ndarray) -> np.ndarray:
    own = [scipy.stats.multivariate_normal.logpdf(X, params["loc"][k], covariances[k]) for k in range(3)]
    return np.log(params["weights"]) + np.stack(own, 1)


# The shape of each structure's parameter, and what covariance it stands for.
STRUCTURES = {
    models.full: ("covariance", lambda p: p, lambda value: value),
    models.tied: ("covariance", lambda p: p[0], lambda value: [value] * 3),
    models.diagonal: ("scale", lambda p: p, lambda value: [np.diag(own**2) for own in value]),
    models.spherical: ("scale", lambda p: p[:, 0], lambda value: [np.eye(2) * own**2 for own in value]),
    models.shared_spherical: ("scale", lambda p: p[0, 0], lambda value: [np.eye(2) * value**2] * 3),
    models.identity: (None, None, lambda value: [np.eye(2)] * 3),
}


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.__name__)
def test_covariance_structures(structure) -> None:
    name, chosen, covariances = STRUCTURES[structure]
    params = {key: PARAMS[key] for key in ("weights", "loc")}
    value = None if name is None else chosen(PARAMS[name])
    if name:
        params[name] = value
    program = functools.partial(models.gmm, num_components=3, covariance=structure)
    sites = {site.name: site for site in read(program, (X,)).globals}
    assert {key: site.shape for key, site in sites.items()} == {key: np.shape(own) for key, own in params.items()}
    assert sites["weights"].constraint is constraints.simplex
    table = jax.jit(functools.partial(probem.log_joint, program))(params, X)
    np.testing.assert_allclose(table, _by_covariance(params, covariances(value)), rtol=1e-11)


def test_kmeans_is_gmm_with_two_restrictions() -> None:
    program = functools.partial(models.kmeans, num_components=3)
    assert [site.name for site in read(program, (X,)).globals] == ["loc"]
    table = jax.jit(functools.partial(probem.log_joint, program))({"loc": PARAMS["loc"]}, X)
    np.testing.assert_allclose(table, normal_table({"loc": PARAMS["loc"]}, X), rtol=1e-12)
    squares = ((X[:, None] - PARAMS["loc"]) ** 2).sum(-1)
    np.testing.assert_array_equal(table.argmax(1), squares.argmin(1))


def test_poisson_and_bernoulli_mixtures() -> None:
    counts, bits = RANDOM.poisson(3.0, size=(30, 4)), RANDOM.integers(0, 2, size=(30, 4))
    weights, rate, probs = PARAMS["weights"], RANDOM.gamma(3.0, size=(3, 4)), RANDOM.random((3, 4))
    for program, own, x, log_prob in (
        (models.poisson_mixture, {"rate": rate}, counts, scipy.stats.poisson(rate).logpmf),
        (models.bernoulli_mixture, {"probs": probs}, bits, scipy.stats.bernoulli(probs).logpmf),
    ):
        program = functools.partial(program, num_components=3)
        table = jax.jit(functools.partial(probem.log_joint, program))({"weights": weights, **own}, x)
        expected = np.log(weights) + log_prob(x[:, None, :]).sum(-1)
        np.testing.assert_allclose(table, expected, rtol=plain.ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("model", [models.poisson_mixture, models.bernoulli_mixture])
def test_mixtures_of_counts_and_bits_are_the_plain_loop(model) -> None:
    is_poisson = model is models.poisson_mixture
    x = RANDOM.poisson(3.0, size=(60, 4)) if is_poisson else RANDOM.integers(0, 2, size=(60, 4)).astype(bool)
    labels = RANDOM.integers(0, 2, 60)
    name = "rate" if is_poisson else "probs"
    distribution = scipy.stats.poisson if is_poisson else scipy.stats.bernoulli
    fit = probem.fit(
        functools.partial(model, num_components=2),
        x,
        init=probem.Labels(labels),
        max_steps=10,
        tolerance=0,
        throw=False,
    )
    q = np.eye(2)[labels]
    for step in range(10):
        weights, mean = q.mean(0), q.T @ x / q.sum(0)[:, None]
        table = np.log(weights) + getattr(distribution(mean), "logpmf")(x[:, None, :].astype(int)).sum(-1)  # noqa: B009
        np.testing.assert_allclose(fit.history.elbo[2 * step], plain.log_likelihood(table), rtol=1e-11)
        q = plain.posterior(table)
    np.testing.assert_allclose(fit.params[name], mean, rtol=1e-10)


def test_the_models_import_nothing_of_the_engine() -> None:
    folder = Path(models.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1
                names = [] if node.level else [node.module]
            assert all(name.split(".")[0] in ("jax", "numpyro", "collections", "functools", "typing") for name in names)
