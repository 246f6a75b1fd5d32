"""Linear algebra of batches: NumPy's values, finite differences, and no call that jaxlib would cut into tasks."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probem.exponential.linalg import (
    cholesky,
    inverse,
    inverse_and_log_det,
    inverse_triangular,
    log_det,
    pseudo_inverse,
)


def inverse_of_two(matrices: jax.Array) -> jax.Array:
    return inverse_and_log_det(matrices)[0]


def log_det_of_two(matrices: jax.Array) -> jax.Array:
    return inverse_and_log_det(matrices)[1]


FUNCTIONS = {
    cholesky: np.linalg.cholesky,
    inverse: np.linalg.inv,
    pseudo_inverse: np.linalg.pinv,
    log_det: lambda matrices: np.linalg.slogdet(matrices)[1],
    inverse_of_two: np.linalg.inv,
    log_det_of_two: lambda matrices: np.linalg.slogdet(matrices)[1],
    inverse_triangular: lambda matrices: np.linalg.inv(np.tril(matrices)),
}
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


def matrices(*shape: int) -> np.ndarray:
    random = np.random.default_rng(0).normal(size=(*shape, shape[-1]))
    return random @ np.swapaxes(random, -1, -2) + np.eye(shape[-1])


@each_function
@pytest.mark.parametrize("shape", [(2,), (3, 1), (2, 3, 4), (60, 16), (2, 59)], ids=str)
def test_values_are_those_of_numpy(function, shape: tuple[int, ...]) -> None:
    """Of one matrix, of few, and of more than are handed over at once."""
    given = matrices(*shape)
    np.testing.assert_allclose(jax.jit(function)(given), FUNCTIONS[function](given), rtol=1e-9, atol=1e-9)


@each_function
def test_mapped_over_more_axes(function) -> None:
    given = matrices(4, 3, 20, 8)
    mapped = jax.jit(jax.vmap(jax.vmap(function, in_axes=1, out_axes=1)))(given)
    np.testing.assert_allclose(mapped, np.asarray(FUNCTIONS[function](given)), rtol=1e-9, atol=1e-9)


@each_function
@jax.numpy_rank_promotion("raise")
def test_slopes_are_finite_differences(function) -> None:
    """Along symmetric directions, forwards and backwards, and mapped."""
    given, random = jnp.asarray(matrices(3, 4)), np.random.default_rng(1)
    direction = random.normal(size=given.shape)
    direction = jnp.asarray(direction + np.swapaxes(direction, -1, -2))
    weights = jnp.asarray(random.normal(size=function(given).shape))

    def value(step: jax.Array) -> jax.Array:
        return (weights * function(given + step * direction)).sum()

    step = 1e-5
    expected = (value(jnp.asarray(step)) - value(jnp.asarray(-step))) / (2 * step)
    slope = jax.grad(lambda at: (weights * function(at)).sum())(given)
    # The second difference is of the order of the step squared.
    np.testing.assert_allclose((slope * direction).sum(), expected, rtol=1e-7)
    np.testing.assert_allclose(jax.jvp(value, (jnp.zeros(()),), (jnp.ones(()),))[1], expected, rtol=1e-7)
    one_by_one = jax.vmap(jax.grad(lambda at, weights: (weights * function(at)).sum()))(given, weights)
    np.testing.assert_allclose(one_by_one, slope, rtol=1e-12, atol=1e-12)


def test_what_is_not_positive_definite_has_no_factor() -> None:
    given = np.stack([np.eye(2), np.diag([1.0, -1.0])])
    found = np.asarray(cholesky(jnp.asarray(given)))
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1]).any()


@each_function
def test_no_call_is_cut_into_tasks(function) -> None:
    """What is compiled for many matrices, mapped over, calls LAPACK for at most 199999 operations at once."""
    slope = jax.grad(lambda given: function(given).sum())
    compiled = jax.jit(jax.vmap(slope)).lower(matrices(30, 5, 16)).compile().as_text()
    calls = re.findall(r"f64\[([\d,]+)\][^=]*custom-call\([^)]*\), custom_call_target=\"lapack", compiled)
    calls = calls or re.findall(r"f64\[([\d,]+)\][^\n]*lapack", compiled)
    assert calls
    for shape in calls:
        sizes = [int(size) for size in shape.split(",")]
        assert np.prod(sizes) * sizes[-1] < 200_000


SCRIPT = """
import functools, sys
import jax.numpy as jnp
import numpy as np
import probem
from probem import models
x = np.random.default_rng(0).normal(size=(150, 32))
prior = models.GaussianPrior.from_data(jnp.asarray(x), num_components=100)
program = functools.partial(models.bayesian_gmm, num_components=100, prior=prior)
probem.fit(program, x, families=getattr(probem, sys.argv[1]), max_steps=2, throw=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("corner", ["VARIATIONAL_BAYES", "EM"])
def test_many_large_matrices_do_not_wait_for_each_other(corner: str) -> None:
    """They did on two cores: the fit never came back; ours in the first corner, NumPyro's priors in the second.

    Compiled as by a user, without the flags of the tests.
    """
    environment = os.environ | {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    subprocess.run([sys.executable, "-c", SCRIPT, corner], check=True, timeout=120, env=environment)


def test_the_pseudo_inverse_of_matrices_of_any_rank() -> None:
    roots = np.random.default_rng(0).normal(size=(3, 5, 5))
    roots[1, 2], roots[2, 3:] = roots[1, 0] + roots[1, 1], 0.0
    singular = roots @ np.swapaxes(roots, -1, -2)
    expected = np.linalg.pinv(singular, rcond=1e-12, hermitian=True)
    # The largest condition number here is some 1e4.
    np.testing.assert_allclose(pseudo_inverse(jnp.asarray(singular)), expected, atol=1e-10 * np.abs(expected).max())
