"""Standard errors against Hessians of NumPyro's own mixture, closed forms, and a parametric bootstrap."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.sparse

import probem
from probem.models import GaussianPrior, bayesian_gmm, diagonal, gmm, poisson_mixture
from tests.sentences import refused

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

PROGRAM = functools.partial(gmm, num_components=2, covariance=diagonal)
# Second derivatives at two points that agree to the root of what F can still rise by.
CLOSE = 1e-4


@functools.cache
def rows(num_rows: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.where(rng.random((num_rows, 1)) < 0.4, 2.5, 0.0) + rng.normal(size=(num_rows, 2)) * np.array([1.0, 0.5])


@functools.cache
def fitted() -> Any:
    return probem.fit(PROGRAM, rows(), key=1, tolerance=1e-14, max_steps=20_000, acceleration=probem.Anderson())


def by_autodiff(log_density: Any, free: np.ndarray, back: Any) -> dict[str, np.ndarray]:
    """Roots of the diagonal of J I^-1 J' for log_density(free), where ``back`` leads to parameters by name."""
    information = -np.asarray(jax.hessian(log_density)(jnp.asarray(free)))
    covariance = np.linalg.inv(information)
    derivatives = jax.jacobian(back)(jnp.asarray(free))
    return {name: np.sqrt(np.einsum("...i,ij,...j->...", each, covariance, each)) for name, each in derivatives.items()}


def back(free: Any) -> dict[str, Any]:
    """A logit, locations and logarithms of scales of two diagonal normal distributions in the plane."""
    weights = jax.nn.softmax(jnp.stack([free[0], 0.0]))
    return {"weights": weights, "loc": free[1:5].reshape(2, 2), "scale": jnp.exp(free[5:]).reshape(2, 2)}


def free_of(params: Any) -> np.ndarray:
    weights, loc, scale = (np.asarray(params[name]) for name in ("weights", "loc", "scale"))
    return np.concatenate([[np.log(weights[0] / weights[1])], loc.ravel(), np.log(scale).ravel()])


def numpyro_density(x: np.ndarray, times: Any = 1.0) -> Any:
    """log p(X) of NumPyro's mixture; entries that are NaN are left out."""

    def log_density(free: Any) -> Any:
        params = back(free)
        each = dist.Normal(params["loc"], params["scale"]).log_prob(jnp.nan_to_num(x)[:, None, :])
        each = jnp.where(jnp.isnan(x)[:, None, :], 0.0, each).sum(-1)
        return (times * jax.nn.logsumexp(jnp.log(params["weights"]) + each, axis=1)).sum()

    return log_density


def check(errors: dict[str, np.ndarray], expected: dict[str, np.ndarray], rtol: float = CLOSE) -> None:
    assert set(errors) == set(expected)
    for name, value in expected.items():
        assert errors[name].shape == value.shape
        np.testing.assert_allclose(errors[name], value, rtol=rtol)


def test_they_are_those_of_numpyros_mixture() -> None:
    fit, x = fitted(), rows()
    mixture = dist.MixtureSameFamily(
        dist.Categorical(fit.params["weights"]), dist.Normal(fit.params["loc"], fit.params["scale"]).to_event(1)
    )
    np.testing.assert_allclose(mixture.log_prob(x).sum(), numpyro_density(x)(free_of(fit.params)), rtol=1e-12)
    check(fit.standard_errors(x), by_autodiff(numpyro_density(x), free_of(fit.params), back))


def test_with_weights_and_missing_values() -> None:
    rng = np.random.default_rng(1)
    times = rng.integers(0, 4, 300)
    gaps = np.where(rng.random((300, 2)) < 0.2, np.nan, rows())
    options = {"key": 1, "tolerance": 1e-14, "max_steps": 20_000}
    fit = probem.fit(PROGRAM, gaps, row_weights=times, **options)
    expected = by_autodiff(numpyro_density(gaps, times), free_of(fit.params), back)
    check(fit.standard_errors(gaps, row_weights=times), expected)
    # Without the weights these are no maximum.
    with refused("nats are left to gain"):
        fit.standard_errors(gaps)


def test_map_counts_the_prior() -> None:
    def program(x: jax.Array) -> None:
        loc = numpyro.sample("loc", dist.Normal(0.0, 0.5).expand([2]).to_event(1))
        scale = numpyro.param("scale", jnp.ones(()), constraint=dist.constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.array([0.3, 0.7])))
            numpyro.sample("x", dist.Normal(loc[t], scale), obs=x)

    x = rows()[:60, 0]
    fit = probem.fit(program, x, key=1, tolerance=1e-14, max_steps=20_000)

    def to_params(free: Any) -> dict[str, Any]:
        return {"loc": free[:2], "scale": jnp.exp(free[2])}

    def log_density(free: Any, strength: float = 1.0) -> Any:
        params = to_params(free)
        table = jnp.log(jnp.array([0.3, 0.7])) + dist.Normal(params["loc"], params["scale"]).log_prob(x[:, None])
        prior = dist.Normal(0.0, 0.5).log_prob(params["loc"]).sum()
        return jax.nn.logsumexp(table, axis=1).sum() + strength * prior

    at = np.array([*fit.params["loc"], np.log(fit.params["scale"])])
    expected = by_autodiff(log_density, at, to_params)
    check(fit.standard_errors(x), expected)
    # The prior is worth some rows.
    without = by_autodiff(functools.partial(log_density, strength=0.0), at, to_params)
    assert (without["loc"] > 1.1 * expected["loc"]).all()


def test_cholesky_factors_that_are_fitted_numerically() -> None:
    """Of parameters without a closed form, beside the Hessian in the entries below the diagonal and its logarithm."""

    def program(x: jax.Array) -> None:
        loc = numpyro.param("loc", jnp.array([[0.0, 0.0], [2.0, 0.0]]))
        tril = numpyro.param("tril", jnp.stack([jnp.eye(2)] * 2), constraint=dist.constraints.lower_cholesky)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.array([0.6, 0.4])))
            numpyro.sample("x", dist.MultivariateNormal(loc[t], scale_tril=tril[t]), obs=x)

    x = rows()
    fit = probem.fit(program, x, tolerance=1e-14, max_steps=20_000)
    assert "tril" in fit.plan.numeric
    below, above = np.tril_indices(2), np.triu_indices(2, 1)

    def to_params(free: Any) -> dict[str, Any]:
        factors = jnp.zeros((2, 2, 2)).at[:, *below].set(free[4:].reshape(2, 3))
        return {"loc": free[:4].reshape(2, 2), "tril": factors}

    def log_density(free: Any) -> Any:
        params = to_params(free)
        each = dist.MultivariateNormal(params["loc"], scale_tril=params["tril"]).log_prob(x[:, None, :])
        return jax.nn.logsumexp(jnp.log(jnp.array([0.6, 0.4])) + each, axis=1).sum()

    at = np.concatenate([np.ravel(fit.params["loc"]), np.asarray(fit.params["tril"])[:, *below].ravel()])
    errors = fit.standard_errors(x)
    check(errors, by_autodiff(log_density, at, to_params))
    assert (errors["tril"][:, *above] == 0).all()


def test_one_component_and_known_labels_have_closed_forms() -> None:
    x = rows()
    alone = probem.fit(functools.partial(gmm, num_components=1, covariance=diagonal), x)
    errors, scale = alone.standard_errors(x), x.std(0)
    np.testing.assert_allclose(errors["loc"][0], scale / np.sqrt(300), rtol=1e-9)
    np.testing.assert_allclose(errors["scale"][0], scale / np.sqrt(600), rtol=1e-9)
    np.testing.assert_allclose(errors["weights"], 0.0, atol=1e-12)
    labels = np.repeat([0, 1], [100, 200])
    known = probem.fit(PROGRAM, x, labels=labels)
    errors = known.standard_errors(x, labels=labels)
    np.testing.assert_allclose(errors["weights"], np.sqrt(2 / 9 / 300), rtol=1e-9)
    np.testing.assert_allclose(errors["loc"][0], x[:100].std(0) / 10, rtol=1e-9)
    full = probem.fit(functools.partial(gmm, num_components=1), x)
    covariance = np.cov(x, rowvar=False, bias=True)
    # Var(s_ij) = (s_ii s_jj + s_ij²) / N.
    expected = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / 300)
    np.testing.assert_allclose(full.standard_errors(x)["covariance"][0], expected, rtol=1e-9)


def test_what_is_fixed_is_known() -> None:
    fixed = {"weights": np.array([0.4, np.nan]), "loc": np.array([[np.nan, 0.0], [np.nan, np.nan]])}
    fit = probem.fit(PROGRAM, rows(), key=1, fixed=fixed, tolerance=1e-14, max_steps=20_000)
    errors = fit.standard_errors(rows())
    weight = float(fit.params["weights"][0])

    def to_params(free: Any) -> dict[str, Any]:
        loc = jnp.stack([free[0], 0.0, free[1], free[2]]).reshape(2, 2)
        weights = jnp.array([weight, 1 - weight])
        return {"weights": weights, "loc": loc, "scale": jnp.exp(free[3:]).reshape(2, 2)}

    def log_density(free: Any) -> Any:
        params = to_params(free)
        whole = jnp.concatenate(
            [jnp.log(params["weights"][:1] / params["weights"][1:]), params["loc"].ravel(), free[3:]]
        )
        return numpyro_density(rows())(whole)

    at = np.delete(free_of(fit.params), [0, 2])
    expected = by_autodiff(log_density, at, to_params)
    np.testing.assert_allclose(errors["weights"], 0.0, atol=1e-12)
    assert errors["loc"][0, 1] == 0.0
    np.testing.assert_allclose(errors["loc"], expected["loc"], rtol=CLOSE, atol=1e-12)
    np.testing.assert_allclose(errors["scale"], expected["scale"], rtol=CLOSE)


def test_a_density_without_statistics() -> None:
    def student(x: jax.Array) -> None:
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.StudentT(5.0, loc[t], 1.0), obs=x)

    x = rows()[:, 0]
    fit = probem.fit(student, x, key=0, tolerance=1e-13)

    def log_density(loc: Any) -> Any:
        return (jax.nn.logsumexp(dist.StudentT(5.0, loc, 1.0).log_prob(x[:, None]), axis=1)).sum()

    check(fit.standard_errors(x), by_autodiff(log_density, np.asarray(fit.params["loc"]), lambda loc: {"loc": loc}))


def test_of_sparse_rows() -> None:
    x = np.random.default_rng(0).poisson(np.repeat([[0.3, 8.0], [9.0, 0.5]], 100, axis=0)).astype(float)
    program = functools.partial(poisson_mixture, num_components=2)
    fit = probem.fit(program, scipy.sparse.csr_matrix(x), key=0, tolerance=1e-13)
    with refused("sparse rows"):
        fit.standard_errors(scipy.sparse.csr_matrix(x))
    counts = np.asarray(fit.responsibilities(x)).sum(0)
    errors, rate = fit.standard_errors(x)["rate"], np.asarray(fit.params["rate"])
    # At least what they were if the labels were known, and not much more, where clusters hardly overlap.
    known = np.sqrt(rate / counts[:, None])
    assert ((errors >= known) & (errors < 1.05 * known)).all()


def test_a_bootstrap_scatters_as_they_say() -> None:
    fit, num_sets = fitted(), 200
    drawn = np.asarray(fit.sample(0, 300 * num_sets)["x"]).reshape(num_sets, 300, 2)
    start = probem.Parameters({name: np.stack([value] * num_sets) for name, value in fit.params.items()})
    many = probem.fit_many(PROGRAM, drawn, init=start, tolerance=1e-9, max_steps=5000, acceleration=probem.Anderson())
    errors = fit.standard_errors(rows())
    # A standard deviation of 200 draws is off by a twentieth; 15 of them, and the likelihood is not quite Gaussian.
    for name in ("weights", "loc", "scale"):
        np.testing.assert_allclose(np.asarray(many.params[name]).std(0), errors[name], rtol=0.25)


def test_what_is_refused() -> None:
    x = rows()
    prior = GaussianPrior(np.zeros(2), 0.1, 4.0, np.eye(2))
    bayesian = functools.partial(bayesian_gmm, num_components=2, prior=prior)
    posterior = probem.fit(bayesian, x, families=probem.VARIATIONAL_BAYES, key=1)
    with refused("full posteriors of 'loc', 'precision', 'weights'"):
        posterior.standard_errors(x)
    with refused("assignments in Delta"):
        probem.fit(PROGRAM, x, families=probem.HARD_EM, key=1).standard_errors(x)
    with refused("added_variance"):
        probem.fit(PROGRAM, x, added_variance=0.1, key=1).standard_errors(x)
    with refused("nats are left to gain"):
        fitted().standard_errors(x[:150])

    def redundant(x: jax.Array) -> None:
        left = numpyro.param("left", jnp.zeros(2))
        right = numpyro.param("right", jnp.zeros(2))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(left[t] + right[t], 1.0), obs=x)

    with refused("information that is singular, above all along"):
        probem.fit(redundant, x[:, 0], key=1, throw=False).standard_errors(x[:, 0])
    counts = np.repeat([[0.0, 3.0], [4.0, 0.0]], 20, axis=0)
    edge = probem.fit(functools.partial(poisson_mixture, num_components=2), counts, key=1)
    with refused("entries of 'rate' on an edge"):
        edge.standard_errors(counts)
