"""The bound and the table at given parameters, from the program itself: the slow path that everything else is held
against.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array

from probem.analysis.problem import read_complete
from probem.data.arrays import numeric
from probem.e_step.bound import Bound, bound_from_table
from probem.errors import InputError
from probem.program.program import Program
from probem.program.values import check_values


def log_joint(program: Callable[..., Any], params: Mapping[str, Any], *data: Any) -> Array:
    """The table log p(x_n, t_n = k | params), ``[N, K]``, nats, by handlers alone.

    Several assignment sites are indexed jointly, in row-major order of their appearance. Every N x K entry is formed:
    this is the meaning of the program, not the way it is fitted.
    """
    known, values, data = _at(program, params, data)
    return known.log_joint(values, data)


def log_prior(program: Callable[..., Any], params: Mapping[str, Any], *data: Any) -> Array:
    """log p(params): the log density of the sites that have a prior, nats; zero without any."""
    known, values, data = _at(program, params, data)
    return known.log_prior(values)


def elbo(program: Callable[..., Any], params: Mapping[str, Any], responsibilities: Any, *data: Any) -> Bound:
    """F(q, params) for any q and any parameters, with its terms and the gap (nats, totals over the data).

    Parameters
    ----------
    params : a value for every global site of the program
    responsibilities : Float[Array, "N K"], q(t_n = k), rows summing to 1; a point mass is a row with a single 1
    """
    known, values, data = _at(program, params, data)
    table = known.log_joint(values, data)
    q = jnp.asarray(numeric(responsibilities, "responsibilities"))
    if q.shape != table.shape:
        raise InputError(
            f"responsibilities of shape {q.shape}", f"shape {table.shape}", "give one row for each row of the data"
        )
    return bound_from_table(table, q, known.log_prior(values))


def _at(
    program: Callable[..., Any], params: Mapping[str, Any], data: tuple[Any, ...]
) -> tuple[Program, dict[str, Array], tuple[Any, ...]]:
    known, data = read_complete(program, data)
    missing = [site.name for site in known.globals if site.name not in params]
    if missing:
        raise InputError(f"no value for the site '{missing[0]}'", "a value for every global site", "add it to params")
    values = check_values(params, known, closed=True)
    return known, {name: jnp.asarray(value) for name, value in values.items()}, data
