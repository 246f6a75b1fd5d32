"""The options of a problem in the numbers that a fit begins with: keys, variances, how it starts and stops."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Shaped

from probem.analysis.options import FitOptions
from probem.analysis.problem import Problem, is_zero
from probem.errors import InputError
from probem.solver.accelerations import check_acceleration
from probem.solver.averaging import Averaging
from probem.solver.resolution import resolve
from probem.solver.seedings import Seeding
from probem.solver.start import Keys, Start, restart_keys
from probem.solver.state import Limits
from probem.stopping import Averages, rule_for


class Beginning(NamedTuple):
    """What a fit begins with: how to draw seeds, if that is what the start asks for, where to start, when to stop, and
    the variance of the noise, None for none. Of many data sets all but ``max_steps`` has an axis B R, the restarts of
    a data set together.
    """

    seeding: Seeding | None
    start: Start
    limits: Limits
    added_variance: Float[Array, "*BR"] | Float[Array, "*BR F F"] | None


def beginning(problem: Problem, options: FitOptions) -> Beginning:
    """The options of a problem in the numbers that a fit begins with.

    Raises
    ------
    InputError
        For keys, a start, a variance or an acceleration that cannot be used.
    """
    plan, num_sets = problem.plan, problem.axes.num_sets

    def of_every_fit(number: Any, ndim: int) -> Float[Array, "*BR"] | Float[Array, "*BR F F"]:
        array = _as_array(number, plan.dtype)
        if num_sets is None:
            return array
        each = array if array.ndim > ndim else jnp.broadcast_to(array, (num_sets, *array.shape))
        return each.repeat(options.restarts, 0)

    variance = check_variance(options.added_variance, problem)
    acceleration = check_acceleration(options.acceleration, plan, variance is not None)
    keys = restart_keys(keys_of(options.key, num_sets), options.restarts, num_sets is not None)
    seeding, start = resolve(problem, options.init, keys, options.restarts)
    rule = jax.tree.map(lambda number: of_every_fit(number, 0), rule_for(options.tolerance, plan.is_stochastic))
    acceleration = Averaging() if isinstance(rule, Averages) else acceleration
    limits = Limits.of(rule, _as_array(options.max_steps, np.int32), acceleration)
    return Beginning(seeding, start, limits, None if variance is None else of_every_fit(variance, 2))


def _as_array(number: Any, dtype: Any) -> Shaped[Array, "..."]:
    """A number as JAX has it; one that is not traced is converted on the host, which compiles nothing."""
    return jnp.asarray(number, dtype) if isinstance(number, Tracer) else jnp.asarray(np.asarray(number, dtype))


def check_variance(variance: Any, problem: Problem) -> Any:
    """The variance of the noise, checked; None for none."""
    plan, num_sets = problem.plan, problem.axes.num_sets
    if is_zero(variance):
        return None
    if not any(term.takes_noise for term in plan.form.data_terms):
        raise InputError(
            f"added_variance for {', '.join(plan.program.observed)}",
            "an observed location family with a spread in exponential-family form, such as a normal distribution",
            "leave it out",
        )
    matrix = (plan.num_observed, plan.num_observed)
    value = variance if isinstance(variance, Tracer) else np.asarray(variance)
    if num_sets is not None and value.ndim == 3 and len(value) != num_sets:
        raise InputError(
            f"added_variance of shape {value.shape}", f"{num_sets} matrices, one for each data set", "change it"
        )
    if value.shape not in ((), matrix) and (num_sets is None or value.shape != (num_sets, *matrix)):
        raise InputError(f"added_variance of shape {value.shape}", f"a number, or shape {matrix}", "change it")
    if not isinstance(value, Tracer):
        proper = value.dtype.kind in "iuf" and bool(np.isfinite(value).all())
        if not (proper and _is_covariance(np.atleast_2d(value))):
            shown = f"={variance!r}" if value.ndim == 0 else " that is no covariance matrix"
            raise InputError(f"added_variance{shown}", "a finite number from 0, or a covariance matrix", "change it")
    return value


def _is_covariance(matrices: Shaped[np.ndarray, "... F F"]) -> bool:
    """Whether matrices are symmetric and, but for rounding, have no negative eigenvalue."""
    precision = np.finfo(matrices.dtype if matrices.dtype.kind == "f" else float).eps
    matrices = np.asarray(matrices, float)
    spectra = np.linalg.eigvalsh(matrices)
    rounding = matrices.shape[-1] * precision * abs(spectra).max(-1, keepdims=True)
    transposed = np.swapaxes(matrices, -1, -2)
    symmetric = abs(matrices - transposed) <= 1e-6 * abs(transposed) + rounding[..., None]
    return bool(symmetric.all() and (spectra >= -rounding).all())


def keys_of(key: Any, num_sets: int | None = None) -> Keys:
    """A JAX key, or the key of a seed; one for each of many data sets, split from one or as given."""
    keys = jax.random.key(key) if isinstance(key, int | np.integer) else key
    is_array = isinstance(keys, jax.Array | np.ndarray)
    is_typed = is_array and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    # Keys that are mere numbers have an axis of their own.
    if not is_typed and not (is_array and keys.dtype == np.uint32 and keys.ndim):
        raise InputError(f"key={key!r}", "a JAX key or a whole number", "write key=0, or jax.random.key(0)")
    keys = jnp.asarray(keys)
    shape = keys.shape if is_typed else keys.shape[:-1]
    if num_sets is None and shape:
        raise InputError(f"keys of shape {keys.shape}", "one key, or a seed", "pass one of them")
    if num_sets is not None and not shape:
        return jax.random.split(keys, num_sets)
    if num_sets is not None and shape != (num_sets,):
        raise InputError(
            f"keys of shape {keys.shape}", f"one key, or {num_sets}, one for each data set", "use jax.random.split"
        )
    return keys
