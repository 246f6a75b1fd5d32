"""Parameters, and entries of them, that stay where they are while the others are fitted."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem.models import GaussianPrior, bayesian_gmm, diagonal, equal, full, gmm, shared_spherical, tied
from tests.oracles.plain import rises

X = np.random.default_rng(0).normal(size=(80, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
X[::2] += [2.5, 1.5]
X[::3] -= [1.0, 3.0]
NAN = np.nan
COVARIANCE = np.array([[1.0, 0.4], [0.4, 0.9]])
DIAGONAL = functools.partial(gmm, num_components=3, covariance=diagonal)
FULL = functools.partial(gmm, num_components=3, covariance=full)
TIED = functools.partial(gmm, num_components=3, covariance=tied)


def held(fit: probem.Fit, fixed: dict[str, Any]) -> None:
    """To the last bit, and F never falls."""
    for name, value in fixed.items():
        mask = ~np.isnan(value)
        np.testing.assert_array_equal(np.asarray(fit.params[name])[mask], np.asarray(value)[mask], err_msg=name)
    assert rises(fit.history)


def table(params: dict, x: np.ndarray = X) -> np.ndarray:
    """By SciPy, for whatever of scale and covariance there is."""
    rows = []
    for k, loc in enumerate(np.asarray(params["loc"])):
        if "scale" in params:
            spread = np.diag(np.asarray(params["scale"])[k] ** 2)
        else:
            covariance = np.asarray(params["covariance"])
            spread = covariance if covariance.ndim == 2 else covariance[k]
        rows.append(np.log(params["weights"][k]) + scipy.stats.multivariate_normal.logpdf(x, loc, spread))
    return np.stack(rows, 1)


START = {
    "weights": np.array([0.3, 0.3, 0.4]),
    "loc": np.array([[2.0, 1.0], [0.0, -2.0], [-1.0, 0.0]]),
    "scale": np.ones((3, 2)),
}
FIXED = {
    "weights": np.array([0.25, NAN, NAN]),
    "loc": np.array([[2.0, NAN], [0.5, -2.0], [NAN, NAN]]),
    "scale": np.array([[NAN, NAN], [NAN, 1.5], [0.7, 0.7]]),
}


@pytest.mark.slow
def test_entries_of_every_parameter_against_a_loop() -> None:
    """A simplex shares what is left in the proportions of the rows; a spread is that around a location that stays."""
    fit = probem.fit(DIAGONAL, X, init=probem.Parameters(START), fixed=FIXED, max_steps=15, tolerance=0, throw=False)
    params = {name: np.where(np.isnan(FIXED[name]), START[name], FIXED[name]) for name in START}
    params["weights"] = np.array([0.25, 0.75 * 3 / 7, 0.75 * 4 / 7])
    bounds = []
    for _ in range(15):
        last, own = params, table(params)
        bounds.append(scipy.special.logsumexp(own, axis=1).sum())
        q = scipy.special.softmax(own, axis=1)
        counts = q.sum(0)
        weights = np.array([0.25, *(0.75 * counts[1:] / counts[1:].sum())])
        loc = np.where(np.isnan(FIXED["loc"]), q.T @ X / counts[:, None], FIXED["loc"])
        variance = np.einsum("nk,nkd->kd", q, (X[:, None] - loc) ** 2) / counts[:, None]
        scale = np.where(np.isnan(FIXED["scale"]), np.sqrt(variance), FIXED["scale"])
        params = {"weights": weights, "loc": loc, "scale": scale}
    np.testing.assert_allclose(fit.history.elbo[::2], bounds, rtol=1e-11)
    for name, value in last.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-9, atol=1e-12)
    held(fit, FIXED)


@pytest.mark.slow
def test_whole_components_stay_while_others_move() -> None:
    fixed = {"loc": np.array([[2.0, 1.0], [NAN, NAN], [NAN, NAN]]), "covariance": np.full((3, 2, 2), NAN)}
    fixed["covariance"][0] = COVARIANCE
    fit = probem.fit(FULL, X, key=1, fixed=fixed, tolerance=1e-13, max_steps=5000)
    held(fit, fixed)
    q = scipy.special.softmax(table(fit.params), axis=1)
    for k in (1, 2):
        loc = q[:, k] @ X / q[:, k].sum()
        np.testing.assert_allclose(fit.params["loc"][k], loc, rtol=1e-4)
        scatter = np.einsum("n,ni,nj->ij", q[:, k], X - loc, X - loc) / q[:, k].sum()
        np.testing.assert_allclose(fit.params["covariance"][k], scatter, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_site_that_is_fixed_as_a_whole_is_a_constant_of_the_program() -> None:
    fixed = {"weights": np.array([0.2, 0.3, 0.5]), "covariance": COVARIANCE}

    def constant(x: jax.Array) -> None:
        loc = numpyro.param("loc", jnp.zeros((3, 2)))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.2, 0.3, 0.5])))
            numpyro.sample("x", dist.MultivariateNormal(loc[t], jnp.asarray(COVARIANCE)), obs=x)

    start = probem.Parameters({"loc": START["loc"]})
    fit = probem.fit(TIED, X, init=start, fixed=fixed)
    held(fit, fixed)
    np.testing.assert_allclose(fit.elbo, probem.fit(constant, X, init=start).elbo, rtol=1e-12)
    explained = {row.site: row.update for row in probem.explain(TIED, X, fixed=fixed).rows}
    assert (explained["weights"], explained["covariance"]) == ("fixed", "fixed")


NARROW = np.repeat([0.0, 5.0, 10.0], 20)[:, None] * [1.0, 1.0] + 1e-9 * np.random.default_rng(5).normal(size=(60, 2))


@pytest.mark.slow
def test_a_spread_that_is_given_does_not_collapse() -> None:
    """It says nothing of the data, however small: as a constant of the program would."""
    fixed = {"scale": np.full((3, 2), 1e-8)}
    start = probem.Parameters({"loc": NARROW[[0, 20, 40]]})
    fit = probem.fit(DIAGONAL, NARROW, init=start, fixed=fixed)
    held(fit, fixed)
    means = NARROW.reshape(3, 20, 2).mean(1)
    np.testing.assert_allclose(fit.params["loc"], means, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(fit.predict(NARROW), np.repeat(np.arange(3), 20))


@pytest.mark.slow
def test_beside_it_one_that_is_free_does() -> None:
    fixed = {"scale": np.array([[1e-8, 1e-8], [1e-8, 1e-8], [NAN, 1e-8]])}
    fit = probem.fit(DIAGONAL, NARROW, init=probem.Parameters({"loc": NARROW[[0, 20, 40]]}), fixed=fixed, throw=False)
    assert (fit.result, fit.component) == (probem.Result.SINGULAR, 2)
    # Of a matrix that all components share nothing is left to judge.
    shared = {"covariance": 1e-16 * np.eye(2)}
    fit = probem.fit(TIED, NARROW, fixed=shared, init=probem.Parameters({"loc": NARROW[[0, 20, 40]]}))
    np.testing.assert_allclose(fit.params["loc"], NARROW.reshape(3, 20, 2).mean(1), rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "tied"])
def test_one_coordinate_under_a_covariance_that_couples_it(structure: str) -> None:
    """The mean of the free coordinate is not its best place: SciPy climbs over the free entries, and ends there too."""
    fixed = {"loc": np.array([[2.0, NAN], [NAN, NAN], [NAN, -1.0]])}
    program = FULL if structure == "full" else TIED
    fit = probem.fit(program, X, key=2, fixed=fixed, tolerance=1e-13, max_steps=3000)
    held(fit, fixed)
    explained = {row.site: row.update for row in probem.explain(program, X, fixed=fixed).rows}
    assert explained["loc"] == "maximised numerically over K-sized statistics, some entries fixed"
    free = np.isnan(fixed["loc"])
    count = 3 if structure == "full" else 1
    lower = np.tril_indices(2)

    def params(flat: np.ndarray) -> dict:
        loc = fixed["loc"].copy()
        loc[free] = flat[:4]
        factors = np.zeros((count, 2, 2))
        factors[:, lower[0], lower[1]] = flat[4 : 4 + 3 * count].reshape(count, 3)
        covariance = factors @ factors.transpose(0, 2, 1)
        weights = scipy.special.softmax(np.array([0.0, *flat[-2:]]))
        return {"weights": weights, "loc": loc, "covariance": covariance[0] if count == 1 else covariance}

    def loss(flat: np.ndarray) -> float:
        return -scipy.special.logsumexp(table(params(flat)), axis=1).sum() / len(X)

    found = fit.params
    factors = np.linalg.cholesky(np.asarray(found["covariance"]).reshape(count, 2, 2))[:, lower[0], lower[1]]
    logits = np.log(np.asarray(found["weights"]))
    at = np.concatenate([np.asarray(found["loc"])[free], factors.ravel(), logits[1:] - logits[0]])
    best = scipy.optimize.minimize(loss, at, method="BFGS", options={"gtol": 1e-9}).x
    # Per row; the maximum is flat, so that the parameters agree to the root of that.
    assert loss(at) - loss(best) < 1e-7


@pytest.mark.slow
def test_points_under_a_prior_may_be_fixed_in_part() -> None:
    prior = GaussianPrior(np.zeros(2), 0.5, 5.0, np.eye(2))
    program = functools.partial(bayesian_gmm, num_components=3, prior=prior)
    fixed = {
        "weights": np.array([0.2, NAN, NAN]),
        "loc": np.array([[2.0, 1.0], [NAN, NAN], [NAN, NAN]]),
    }
    fit = probem.fit(program, X, key=1, fixed=fixed, tolerance=1e-12)
    held(fit, fixed)
    # The free weights: counts and pseudo-counts of a symmetric Dirichlet with concentration 1 / K or 1.
    free = np.asarray(fit.params["weights"])[1:]
    concentration = _concentration(program)
    pulled = np.asarray(fit.counts)[1:] + concentration - 1
    np.testing.assert_allclose(free / free.sum(), pulled / pulled.sum(), rtol=1e-4)


def _concentration(program: Any) -> np.ndarray:
    trace = numpyro.handlers.trace(numpyro.handlers.seed(program, 0)).get_trace(jnp.asarray(X))
    return np.asarray(trace["weights"]["fn"].concentration)[1:]


@pytest.mark.slow
def test_fixed_points_beside_full_posteriors() -> None:
    prior = GaussianPrior(np.zeros(2), 0.5, 5.0, np.eye(2))
    program = functools.partial(bayesian_gmm, num_components=3, prior=prior)
    fixed = {"weights": np.array([0.2, 0.3, 0.5])}
    families = probem.VARIATIONAL_BAYES | {"weights": probem.Delta()}
    fit = probem.fit(program, X, families=families, fixed=fixed)
    held(fit, fixed)
    with pytest.raises(probem.InputError, match="fixed values of 'loc', a site with a full posterior"):
        probem.fit(program, X, families=families, fixed={"loc": np.zeros((3, 2))})


def laplace(x: jax.Array) -> None:
    """On the gradient route."""
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Laplace(loc[t], scale[t]), obs=x)


@pytest.mark.slow
def test_the_gradient_route_climbs_over_what_is_free() -> None:
    fixed = {"loc": np.array([-1.0, NAN]), "scale": np.array([NAN, 0.8])}
    x = X[:, 0]
    fit = probem.fit(laplace, x, fixed=fixed, tolerance=1e-12, max_steps=3000)
    held(fit, fixed)

    def loss(flat: np.ndarray) -> float:
        loc, scale = np.array([-1.0, flat[0]]), np.array([np.exp(flat[1]), 0.8])
        share = scipy.special.expit([-flat[2], flat[2]])
        return -scipy.special.logsumexp(
            np.log(share) + scipy.stats.laplace.logpdf(x[:, None], loc, scale), axis=1
        ).sum()

    weights = np.asarray(fit.params["weights"])
    at = np.array([fit.params["loc"][1], np.log(fit.params["scale"][0]), np.log(weights[1] / weights[0])])
    # The density has corners at the rows.
    best = scipy.optimize.minimize(loss, at, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11})
    assert loss(at) - best.fun < 1e-5


@pytest.mark.slow
def test_a_weight_of_zero_closes_a_component() -> None:
    fixed = {"weights": np.array([0.0, NAN, NAN])}
    fit = probem.fit(DIAGONAL, X, key=1, fixed=fixed, throw=False)
    held(fit, fixed)
    assert float(fit.counts[0]) == 0.0
    two = probem.fit(
        functools.partial(gmm, num_components=2, covariance=diagonal),
        X,
        init=probem.Parameters({name: np.asarray(value)[1:] for name, value in fit.params.items()}),
    )
    assert fit.elbo == pytest.approx(two.elbo, rel=1e-6)


@pytest.mark.slow
def test_restarts_streams_and_many_data_sets_hold_it_fast(tmp_path: Any) -> None:
    fixed = {"loc": np.array([[2.0, NAN], [0.5, -2.0], [NAN, NAN]])}
    fit = probem.fit(DIAGONAL, X, restarts=3, fixed=fixed)
    held(fit, fixed)
    fit.save(tmp_path / "fit.npz")
    for one in (probem.absorb(fit, X + 1), probem.absorb(probem.load(tmp_path / "fit.npz", DIAGONAL), X + 1)):
        np.testing.assert_array_equal(np.asarray(one.params["loc"])[[0, 1, 1], [0, 0, 1]], [2.0, 0.5, -2.0])
    for one in probem.fit_many(DIAGONAL, np.stack([X, X + 1]), fixed=fixed, throw=False):
        np.testing.assert_array_equal(np.asarray(one.params["loc"])[[0, 1, 1], [0, 0, 1]], [2.0, 0.5, -2.0])


REFUSED: list[tuple[Any, str]] = [
    ({"lok": np.zeros((3, 2))}, "fixed values of the unknown site 'lok'"),
    ({"loc": np.zeros(3)}, r"fixed values of shape \(3,\) for 'loc'"),
    ({"weights": np.array([0.7, 0.7, NAN])}, "fixed entries of 'weights' that sum to 1.4"),
    ({"weights": np.array([0.5, 0.5, NAN])}, "fixed entries of 'weights' that sum to 1;"),
    ({"weights": np.array([0.2, 0.2, 0.2])}, "a fixed value for 'weights' that is off its constraint"),
    ({"weights": np.array([-0.2, NAN, NAN])}, "'weights' that is off its constraint"),
    ({"loc": np.array([[np.inf, 0.0], [0.0, 0.0], [0.0, 0.0]])}, "'loc' that is off its constraint"),
    ({"covariance": np.array([[[1.0, NAN], [NAN, NAN]]] * 3)}, "fixed values of a part of one value of 'covariance'"),
    ({"covariance": np.array([-np.eye(2)] * 3)}, "'covariance' that is off its constraint"),
]


@pytest.mark.parametrize(("fixed", "message"), REFUSED)
def test_what_cannot_be_held_is_refused_in_one_sentence(fixed: Any, message: str) -> None:
    with pytest.raises(probem.InputError, match=message):
        probem.fit(FULL, X, fixed=fixed)


def test_a_single_number_stays() -> None:
    """EM with one standard deviation for all that is given: its centres are those of a loop that never learns it."""
    program = functools.partial(gmm, num_components=3, covariance=shared_spherical, weights=equal)
    start = {"loc": START["loc"], "scale": np.float64(0.8)}
    fit = probem.fit(
        program, X, init=probem.Parameters(start), fixed={"scale": 0.8}, max_steps=4, tolerance=0, throw=False
    )
    loc = START["loc"]
    for _ in range(3):
        q = scipy.special.softmax(-((X[:, None] - loc) ** 2).sum(2) / (2 * 0.8**2), axis=1)
        loc = q.T @ X / q.sum(0)[:, None]
    assert float(fit.params["scale"]) == 0.8
    np.testing.assert_allclose(fit.params["loc"], loc, rtol=1e-10)
