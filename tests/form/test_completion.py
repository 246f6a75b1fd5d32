"""Values that are missing: EM against loops that condition row by row, and entry by entry."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probem
from probem.models import bernoulli_mixture, diagonal, full, gmm, identity, kmeans, poisson_mixture
from probem.models.covariance import shared_spherical, spherical
from probem.models.weights import equal
from tests.oracles.gaps import conditional_em_step, entry_em_step, entry_table, groups, with_gaps
from tests.oracles.plain import rises
from tests.programs.gaps import FULL, STEPS, TIED, X, by_precision, in_views, run, start, weights_param


def in_plates(x: jax.Array) -> None:
    """Two views, in a plate to the right of the rows."""
    loc = numpyro.param("loc", jnp.zeros((2, 2, 2)))
    eye = jnp.broadcast_to(jnp.eye(2), (2, 2, 2, 2))
    covariance = numpyro.param("covariance", eye, constraint=constraints.positive_definite)
    weights = weights_param()
    with numpyro.plate("data", x.shape[0], dim=-2):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        with numpyro.plate("views", 2, dim=-1):
            numpyro.sample("x", dist.MultivariateNormal(loc[t[..., 0]], covariance[t[..., 0]]), obs=x)


def follow(step: Any, params: dict, steps: int = STEPS) -> tuple[np.ndarray, dict]:
    """F of every E half-step, and the parameters of the last."""
    bounds = []
    for _ in range(steps):
        before = params
        elbo, params = step(params)
        bounds.append(elbo)
    return np.array(bounds), before


def assert_equal(fit: probem.Fit, bounds: np.ndarray, params: dict, shape: dict[str, Any] | None = None) -> None:
    # Sums of some hundred terms of size one to a hundred in float64; twenty steps carry their rounding along.
    np.testing.assert_allclose(fit.history.elbo[::2], bounds, rtol=1e-9)
    for name, value in params.items():
        found = np.asarray(fit.params[name])
        np.testing.assert_allclose(found.reshape(value.shape), value, rtol=1e-9, atol=1e-10, err_msg=name)
    assert rises(fit.history)
    terms = sum(fit.elbo_terms.values())
    np.testing.assert_allclose(terms, fit.elbo, rtol=1e-11)


@pytest.mark.slow
def test_full_covariances_are_those_of_em_that_conditions_row_by_row() -> None:
    fit = run(FULL, X, init=start(3))
    assert_equal(fit, *follow(lambda params: conditional_em_step(params, X), start(3)))


@pytest.mark.slow
def test_tied_covariances_pool_what_is_filled_in() -> None:
    begin = start(3) | {"covariance": np.stack([np.eye(3)] * 2)}
    bounds, params = follow(lambda params: conditional_em_step(params, X, tied=True), begin)
    fit = run(TIED, X, init=begin | {"covariance": np.eye(3)})
    assert_equal(fit, bounds, params | {"covariance": params["covariance"][0]})


@pytest.mark.slow
def test_covariances_given_by_their_inverse_are_completed_alike() -> None:
    begin = start(3)
    precision = np.linalg.inv(begin["covariance"])
    fit = run(by_precision, X, init={"weights": begin["weights"], "loc": begin["loc"], "precision": precision})
    bounds, params = follow(lambda params: conditional_em_step(params, X), begin)
    precision = np.linalg.inv(params.pop("covariance"))
    assert_equal(fit, bounds, params | {"precision": precision})


@pytest.mark.slow
@pytest.mark.parametrize("program", [in_views, in_plates])
def test_events_beside_each_other_are_completed_each_by_itself(program: Any) -> None:
    views = [slice(0, 2), slice(2, 4)]
    x = with_gaps(groups(60, 4, 2), 0.25, 3)
    begin = start(4)
    begin["covariance"] *= np.kron(np.eye(2), np.ones((2, 2)))
    bounds, params = follow(lambda params: conditional_em_step(params, x, views=views), begin)

    def shaped(params: dict) -> dict:
        blocks = np.stack([params["covariance"][:, own, own] for own in views], 1)
        return {"weights": params["weights"], "loc": params["loc"].reshape(2, 2, 2), "covariance": blocks}

    fit = run(program, x.reshape(60, 2, 2), init=shaped(begin))
    assert_equal(fit, bounds, shaped(params))


@pytest.mark.slow
def test_weights_of_rows_with_gaps_count_as_repetition() -> None:
    weights = np.random.default_rng(4).integers(0, 4, 60).astype(float)
    bounds, params = follow(lambda params: conditional_em_step(params, X, weights=weights), start(3))
    weighted = run(FULL, X, init=start(3), row_weights=weights)
    assert_equal(weighted, bounds, params)
    repeated = run(FULL, np.repeat(X, weights.astype(int), axis=0), init=start(3))
    np.testing.assert_allclose(repeated.history.elbo, weighted.history.elbo, rtol=1e-11)


STRUCTURES = {"diagonal": diagonal, "spherical": spherical, "shared": shared_spherical, "identity": identity}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["diagonal", *(pytest.param(kind, marks=pytest.mark.slow) for kind in STRUCTURES if kind != "diagonal")]
)
def test_independent_normal_features_count_what_is_there(kind: str) -> None:
    program = functools.partial(gmm, num_components=2, covariance=STRUCTURES[kind])
    begin = start(3)
    del begin["covariance"]
    shapes = {"diagonal": (2, 3), "spherical": (2,), "shared": ()}
    if kind in shapes:
        begin["scale"] = np.full(shapes[kind], 1.5)
    bounds, params = follow(lambda params: entry_em_step(params, X, kind), begin)
    fit = run(program, X, init=begin)
    assert_equal(fit, bounds, params)


@pytest.mark.slow
def test_kmeans_moves_rows_to_the_centre_nearest_in_what_is_there() -> None:
    fit = probem.fit(functools.partial(kmeans, num_components=2), X, families=probem.HARD_EM, key=3)
    seen = ~np.isnan(X)
    distance = np.where(seen[:, None], (np.where(seen, X, 0)[:, None] - np.asarray(fit.params["loc"])) ** 2, 0).sum(2)
    labels = distance.argmin(1)
    np.testing.assert_array_equal(fit.predict(X), labels)
    means = [np.nanmean(X[labels == k], 0) for k in range(2)]
    np.testing.assert_allclose(fit.params["loc"], means, rtol=1e-12)
    expected = -0.5 * distance.min(1).sum() - 0.5 * np.log(2 * np.pi) * seen.sum() - 60 * np.log(2)
    np.testing.assert_allclose(fit.elbo, expected, rtol=1e-12)
    assert rises(fit.history)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["poisson", "bernoulli"])
def test_counts_and_bits_leave_out_what_is_missing(kind: str) -> None:
    random = np.random.default_rng(5)
    group = random.integers(0, 2, 60)
    if kind == "poisson":
        x = random.poisson(np.array([[2.0, 5.0, 1.0], [6.0, 1.0, 2.0]])[group]).astype(float)
        program, begin = poisson_mixture, {"rate": np.array([[1.0, 4.0, 1.0], [5.0, 2.0, 3.0]])}
    else:
        x = (random.random((60, 3)) < np.array([[0.2, 0.7, 0.5], [0.8, 0.1, 0.4]])[group]).astype(float)
        program, begin = bernoulli_mixture, {"probs": np.array([[0.3, 0.6, 0.5], [0.7, 0.3, 0.4]])}
    x = with_gaps(x, 0.2, 6)
    begin["weights"] = np.array([0.4, 0.6])
    fit = run(functools.partial(program, num_components=2), x, init=begin)
    assert_equal(fit, *follow(lambda params: entry_em_step(params, x, kind), begin))


def several(data: dict, counts: jax.Array) -> None:
    """Two observed sites in two data arguments, and a second assignment."""
    weights = weights_param()
    other = numpyro.param("other", jnp.full((2, 3), 1 / 3), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    rate = numpyro.param("rate", jnp.ones((3, 2)), constraint=constraints.positive)
    with numpyro.plate("data", counts.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        z = numpyro.sample("z", dist.Categorical(probs=other[t]))
        numpyro.sample("x", dist.Normal(loc[t], 1.0).to_event(1), obs=data["x"])
        numpyro.sample("y", dist.Poisson(rate[z]).to_event(1), obs=counts)


@pytest.mark.slow
def test_one_of_several_observed_sites_may_have_gaps_beside_two_assignments() -> None:
    random = np.random.default_rng(7)
    x, y = with_gaps(groups(60, 2, 8), 0.3, 9), random.poisson(3.0, (60, 2)).astype(float)
    y_gaps = np.where(random.random((60, 2)) < 0.2, np.nan, y)
    begin = {
        "weights": np.array([0.4, 0.6]),
        "other": np.array([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]]),
        "loc": np.array([[1.0, 1.0], [-1.0, -1.0]]),
        "rate": np.array([[1.0, 2.0], [3.0, 1.0], [4.0, 5.0]]),
    }

    def step(counts: np.ndarray, params: dict) -> tuple[float, dict]:
        none = np.full(2, 1 / 2), np.full(3, 1 / 3)
        first = entry_table({"loc": params["loc"], "weights": none[0]}, x, "identity") + np.log(2)
        second = entry_table({"rate": params["rate"], "weights": none[1]}, counts, "poisson") + np.log(3)
        prior = np.log(params["weights"])[:, None] + np.log(params["other"])
        table = prior[None] + first[:, :, None] + second[:, None, :]
        log_density = np.logaddexp.reduce(table.reshape(60, -1), axis=1)
        r = np.exp(table - log_density[:, None, None])
        loc = entry_em_step({"loc": params["loc"]}, x, "identity", q=r.sum(2))[1]["loc"]
        rate = entry_em_step({"rate": params["rate"]}, counts, "poisson", q=r.sum(1))[1]["rate"]
        joint = r.sum(0)
        return log_density.sum(), {
            "weights": joint.sum(1) / 60,
            "other": joint / joint.sum(1, keepdims=True),
            "loc": loc,
            "rate": rate,
        }

    for counts in (y, y_gaps):
        fit = run(several, {"x": x}, counts, init=begin)
        assert_equal(fit, *follow(functools.partial(step, counts), begin))
    integers = run(several, {"x": x}, y.astype(int), init=begin)
    assert_equal(integers, *follow(functools.partial(step, y), begin))


def test_columns_and_rows_without_a_value() -> None:
    empty = X.copy()
    empty[:, 1] = np.nan
    with pytest.raises(probem.InputError, match="no value at all in column 1 of the data"):
        probem.fit(FULL, empty)
    empty[0, 1] = 1.0
    weights = np.ones(60)
    weights[0] = 0.0
    with pytest.raises(probem.InputError, match="no value at all in column 1 of the data"):
        probem.fit(FULL, empty, row_weights=weights)
    with pytest.raises(probem.InputError, match="infinite in the data"):
        probem.fit(FULL, np.where(np.isnan(X), np.inf, X))


@pytest.mark.slow
def test_rows_of_weight_zero_may_have_any_gaps() -> None:
    weights = np.ones(60)
    weights[[3, 5, 6, 30]] = 0.0
    fit = run(FULL, X, init=start(3), steps=5, row_weights=weights)
    without = run(FULL, np.delete(X, [3, 5, 6, 30], 0), init=start(3), steps=5)
    np.testing.assert_allclose(fit.history.elbo, without.history.elbo, rtol=1e-12)


equal_weights = functools.partial(gmm, num_components=2, covariance=full, weights=equal)


@pytest.mark.slow
@pytest.mark.parametrize("family", [probem.Delta(), probem.Tempered(0.5), probem.TopC(1)])
def test_restricted_families_raise_what_they_climb(family: Any) -> None:
    begin = start(3)
    del begin["weights"]
    fit = probem.fit(equal_weights, X, families={"t": family}, init=probem.Parameters(begin))
    assert fit.result is probem.Result.CONVERGED
    assert rises(fit.history)
    np.testing.assert_allclose(sum(fit.elbo_terms.values()), fit.elbo, rtol=1e-11)
