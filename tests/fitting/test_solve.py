"""The pure part under jit and vmap, initialisation included, against ``fit``."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.solver.result import RESULTS
from tests.programs.fits import CENTRES, KMEANS, PROGRAM, START, X, em_step


@pytest.mark.slow
def test_mapped_over_keys_it_is_fit_with_each_key() -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    found = jax.jit(jax.vmap(lambda key: probem.solve(KMEANS, X, families=probem.HARD_EM, key=key)))(keys)
    assert found.params["loc"].shape == (4, 3, 2)
    for number, key in enumerate(keys):
        one = probem.fit(KMEANS, X, families=probem.HARD_EM, key=key)
        np.testing.assert_allclose(found.params["loc"][number], one.params["loc"], rtol=1e-12)
        np.testing.assert_allclose(found.elbo[number], one.elbo, rtol=1e-12)
        assert found.num_steps[number] == one.num_steps
        assert RESULTS[int(found.result[number])] is one.result


@pytest.mark.slow
def test_mapped_over_data_weights_and_limits() -> None:
    """Three data sets, weightings and step limits in one call, each against the plain loop."""
    random = np.random.default_rng(0)
    data = np.stack([X, X[::-1] + 1.0, X * 2.0])
    weights = random.random((3, len(X)))
    limits = np.array([3, 6, 2])

    @jax.jit
    @jax.vmap
    def solve(x, row_weights, max_steps):
        return probem.solve(PROGRAM, x, init=START, row_weights=row_weights, max_steps=max_steps, tolerance=0.0)

    found = solve(data, weights, limits)
    for number in range(3):
        params = {name: np.asarray(value, float) for name, value in START.values.items()}
        for _ in range(limits[number] - 1):
            params = em_step(params, data[number], weights[number])[1]
        np.testing.assert_allclose(found.elbo[number], em_step(params, data[number], weights[number])[0], rtol=1e-11)
        np.testing.assert_allclose(found.params["scale"][number], params["scale"], rtol=1e-9)
    assert (found.num_steps == limits).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "init",
    [
        None,
        probem.RandomRows(),
        probem.Labels((X[:, 0] > 0).astype(int)),
        probem.Responsibilities(np.random.default_rng(0).dirichlet(np.ones(2), size=len(X))),
        lambda key, rows: {"loc": rows[jax.random.choice(key, rows.shape[0], (2,), replace=False)]},
        lambda key, rows: (rows[:, 0] > jax.random.normal(key)).astype(jnp.int32),
    ],
    ids=["k-means++", "random rows", "labels", "responsibilities", "parameters by key", "labels by key"],
)
def test_every_start_is_that_of_fit(init) -> None:
    keys = jax.random.split(jax.random.key(1), 2)
    found = jax.jit(jax.vmap(lambda key: probem.solve(PROGRAM, X, init=init, key=key, max_steps=8)))(keys)
    for number, key in enumerate(keys):
        one = probem.fit(PROGRAM, X, init=init, key=key, max_steps=8, throw=False)
        np.testing.assert_allclose(found.elbo[number], one.elbo, rtol=1e-12)
        for name, value in one.params.items():
            np.testing.assert_allclose(found.params[name][number], value, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_inside_other_transformations() -> None:
    """In a scan over prior strengths of the data's weights, jitted, with the start mapped."""

    @jax.jit
    def path(x, scales):
        def one(loc, scale):
            found = probem.solve(
                KMEANS, x * scale, families=probem.HARD_EM, init=probem.Parameters({"loc": loc * scale})
            )
            return found.params["loc"] / scale, found.elbo

        return jax.lax.scan(one, jnp.asarray(CENTRES.values["loc"]), scales)

    locs, elbos = path(X, jnp.array([1.0, 2.0]))
    one = probem.fit(KMEANS, X, families=probem.HARD_EM, init=CENTRES)
    np.testing.assert_allclose(locs, one.params["loc"], rtol=1e-12)
    np.testing.assert_allclose(elbos[0], one.elbo, rtol=1e-12)


@pytest.mark.slow
def test_large_data_under_a_trace_is_one_block() -> None:
    random = np.random.default_rng(1)
    x = np.array([[-3.0, 0.0], [0.5, 1.0], [3.0, -1.0]])[random.integers(0, 3, 20_000)] + random.normal(
        size=(20_000, 2)
    )
    options = {"families": probem.HARD_EM, "init": CENTRES, "max_steps": 5}
    found = jax.jit(lambda x: probem.solve(KMEANS, x, **options))(x)
    one = probem.fit(KMEANS, x, throw=False, **options)
    np.testing.assert_allclose(found.elbo, one.elbo, rtol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize(
    "traced", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("weights", "keys")), "another argument"]
)
def test_gaps_that_are_known_beside_what_is_traced(traced: str) -> None:
    """Only what is traced itself cannot have any."""
    x = np.where(np.random.default_rng(1).random(X.shape) < 0.1, np.nan, X)
    options = {"init": START, "max_steps": 4}
    if traced == "weights":
        weights = np.random.default_rng(2).random((2, len(X)))
        found = jax.jit(jax.vmap(lambda own: probem.solve(PROGRAM, x, row_weights=own, **options).elbo))(weights)
        expected = [probem.fit(PROGRAM, x, row_weights=own, throw=False, **options).elbo for own in weights]
    elif traced == "keys":
        keys = jax.random.split(jax.random.key(0), 2)
        found = jax.jit(jax.vmap(lambda key: probem.solve(PROGRAM, x, key=key, max_steps=4).elbo))(keys)
        expected = [probem.fit(PROGRAM, x, key=key, max_steps=4, throw=False).elbo for key in keys]
    else:
        options = {"init": probem.Parameters({"slope": np.array([-1.0, 1.0])}), "max_steps": 4}
        found = jax.jit(lambda own: probem.solve(slopes, x[:, 0], own, **options).elbo)(X[:, 1])
        expected = probem.fit(slopes, x[:, 0], X[:, 1], throw=False, **options).elbo
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def slopes(y: jax.Array, z: jax.Array) -> None:
    slope = numpyro.param("slope", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("y", dist.Normal(slope[t] * z, 1.0), obs=y)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("row_weights", np.ones(1), r"row_weights of shape \(1,\); expected shape \(90,\); give one weight"),
        ("row_weights", np.ones(100), r"row_weights of shape \(100,\); expected shape \(90,\)"),
        ("row_weights", np.ones((90, 1)), r"row_weights of shape \(90, 1\)"),
        ("row_weights", np.ones(90, complex), "row_weights of type complex128; expected real numbers"),
        ("labels", np.full(80, -1), r"labels of shape \(80,\); expected shape \(90,\); give one label"),
        ("labels", np.full(90, 0.7), r"traced labels of type float64; expected whole numbers in 0\.\.1"),
    ],
)
def test_traced_weights_and_labels_are_checked_for_what_is_known_of_them(
    name: str, value: np.ndarray, message: str
) -> None:
    with pytest.raises(probem.InputError, match=message):
        jax.jit(lambda own: probem.solve(PROGRAM, X, init=START, **{name: own}).elbo)(value)


def test_a_solution_is_a_pytree_of_arrays() -> None:
    shapes = jax.eval_shape(lambda x: probem.solve(KMEANS, x, families=probem.HARD_EM, init=CENTRES), X)
    assert shapes.params["loc"].shape == (3, 2)
    assert shapes.elbo.shape == shapes.result.shape == shapes.num_steps.shape == ()
