"""Computations without what has no use: fewer operations, and the same values and slopes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probem.jit.live import live


def names(function: Any, *arguments: Any) -> list[str]:
    return [operation.primitive.name for operation in jax.make_jaxpr(function)(*arguments).eqns]


def wasteful(matrix: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """A factor that nobody asks for, an argument as it is, and a constant."""
    jnp.linalg.cholesky(matrix)
    return matrix, {"sum": jnp.sin(matrix).sum(), "three": jnp.asarray(3.0)}


def test_what_has_no_use_is_dropped() -> None:
    matrix = jnp.eye(3) + 0.1
    assert "cholesky" in str(jax.make_jaxpr(wasteful)(matrix))
    assert "cholesky" not in str(jax.make_jaxpr(live(wasteful))(matrix))
    assert names(live(wasteful), matrix) == ["sin", "reduce_sum"]
    kept, results = live(wasteful)(matrix)
    np.testing.assert_array_equal(kept, matrix)
    assert results["sum"] == wasteful(matrix)[1]["sum"]
    assert results["three"] == 3.0


def test_what_a_caller_traces_is_a_part_of_it() -> None:
    """Slopes through the arguments and through what the function closes over, under a map and in a loop."""

    def value(scale: jax.Array, at: jax.Array, drop: bool) -> jax.Array:
        def inner(at: jax.Array) -> jax.Array:
            jnp.exp(at * scale)
            return scale * at**3

        made = live(inner) if drop else inner
        return jax.lax.fori_loop(0, 3, lambda _, now: now + made(at), jnp.zeros(()))

    scales, places = jnp.arange(1.0, 4.0), jnp.linspace(-1, 1, 3)
    for drop in (True, False):
        slopes = jax.vmap(jax.grad(value, (0, 1)), (0, 0, None))(scales, places, drop)
        np.testing.assert_allclose(slopes[0], 3 * places**3, rtol=1e-14)
        np.testing.assert_allclose(slopes[1], 9 * scales * places**2, rtol=1e-14)


def test_a_call_of_the_host_stays() -> None:
    seen: list[float] = []

    def watched(at: jax.Array) -> jax.Array:
        jax.debug.callback(lambda value: seen.append(float(value)), jnp.sin(at))
        return 2.0 * at

    assert live(watched)(jnp.asarray(0.5)) == 1.0
    jax.effects_barrier()
    np.testing.assert_allclose(seen, [np.sin(0.5)])


def test_arrays_of_numpy_become_those_of_jax() -> None:
    results = live(lambda given: given)(np.arange(3.0))
    assert isinstance(results, jax.Array)
