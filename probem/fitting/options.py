"""The numbers that a fit is asked for, checked: keys, tolerances, variances, and how it starts and stops."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer

from probem.analysis.problem import FitOptions, Problem, is_zero
from probem.errors import InputError
from probem.plan.plan import Plan
from probem.solver.initialisers import Seeding, check_instance
from probem.solver.resolution import resolve
from probem.solver.start import Start, restart_keys
from probem.solver.state import Limits
from probem.stopping import check_stopping


def check_options(options: FitOptions, traced: bool = False) -> None:
    """Refuse what is wrong with an option whatever the program and the data; ``traced`` allows arrays of JAX.

    Raises
    ------
    InputError
        Naming the option.
    """
    for number in jax.tree.leaves(check_stopping(options.tolerance)):
        if np.ndim(number):
            raise InputError(f"a tolerance of shape {np.shape(number)}", "a number", "fit_many takes one for each fit")
    steps, restarts = options.max_steps, options.restarts
    for name, value in (("restarts", restarts), ("max_steps", steps)):
        if isinstance(value, Tracer) and traced:
            continue
        if not (isinstance(value, int | np.integer) or (traced and _is_whole(value))) or value < 1:
            raise InputError(f"{name}={value!r}", "a whole number of at least 1", "change it")
    check_instance(options.init)


def started(problem: Problem, options: FitOptions) -> tuple[Seeding | None, Start, Limits]:
    """How to draw seeds, if that is what the start asks for, where to start, and when to stop."""
    plan, rule = problem.plan, check_stopping(options.tolerance)
    key, restarts = key_of(options.key), options.restarts
    seeding, start = resolve(plan, problem.rows, options.init, key, restarts, problem.fixed)
    start = start.seeded(plan, restart_keys(key, restarts) if restarts > 1 else key)
    rule = jax.tree.map(lambda number: jnp.asarray(number, plan.dtype), rule)
    return seeding, start, Limits(rule, jnp.asarray(options.max_steps, jnp.int32))


def _is_whole(value: Any) -> bool:
    whole = isinstance(value, jax.Array) and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer)
    return whole or isinstance(value, int | np.integer)


def check_variance(variance: Any, plan: Plan) -> Array | None:
    """The variance of the noise, checked; None for none."""
    if is_zero(variance):
        return None
    if not any(term.view.is_location for term in plan.form.data_terms):
        raise InputError(
            f"added_variance for {', '.join(plan.program.observed)}",
            "an observed location family with a spread in exponential-family form, such as a normal distribution",
            "leave it out",
        )
    matrix = (plan.num_observed, plan.num_observed)
    value = variance if isinstance(variance, Tracer) else np.asarray(variance)
    if value.shape not in ((), matrix):
        raise InputError(f"added_variance of shape {value.shape}", f"a number, or shape {matrix}", "change it")
    if not isinstance(value, Tracer):
        proper = value.dtype.kind in "iuf" and bool(np.isfinite(value).all())
        if not (proper and _is_covariance(np.atleast_2d(value))):
            shown = f"={variance!r}" if value.ndim == 0 else " that is no covariance matrix"
            raise InputError(f"added_variance{shown}", "a finite number from 0, or a covariance matrix", "change it")
    return jnp.asarray(value, plan.dtype)


def _is_covariance(matrix: np.ndarray) -> bool:
    """Whether a matrix is symmetric and, but for rounding, has no negative eigenvalue."""
    precision = np.finfo(matrix.dtype if matrix.dtype.kind == "f" else float).eps
    spectrum = np.linalg.eigvalsh(np.asarray(matrix, float))
    rounding = len(matrix) * precision * abs(spectrum).max()
    return bool(np.allclose(matrix, matrix.T, rtol=1e-6, atol=rounding) and spectrum.min() >= -rounding)


def key_of(key: Any) -> Array:
    """A JAX key, or the key of a seed."""
    found = keys_of(key)
    if found.ndim != axes_of_key(found):
        raise InputError(f"keys of shape {found.shape}", "one key, or a seed", "pass one of them")
    return found


def keys_of(key: Any) -> Array:
    """A JAX key, an array of keys, or the key of a seed."""
    if isinstance(key, int | np.integer):
        return jax.random.key(key)
    is_array = isinstance(key, jax.Array | np.ndarray)
    if is_array and (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.dtype == np.uint32):
        found = jnp.asarray(key)
        if found.ndim >= axes_of_key(found):
            return found
    raise InputError(f"key={key!r}", "a JAX key or a whole number", "write key=0, or jax.random.key(0)")


def axes_of_key(keys: Array) -> int:
    """How many axes one key has: those that are mere numbers have one."""
    return 0 if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else 1
