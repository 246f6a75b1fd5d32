"""The objective of the numeric route as a function of unconstrained values."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from probem.form.statistics import Statistics, expected
from probem.plan.plan import Plan
from probem.program.fixed import hold
from probem.program.sites import Params

# The most unconstrained values whose Hessian is formed and decomposed; of more, only the lengths of its rows are known.
MOST_DENSE = 256
# How far, in units of the precision, two values of the objective may differ by rounding.
ROUNDING = 8


class Promise(NamedTuple):
    """What a further maximisation over the numeric parameters would gain: ``nats``, and whether ``is_saddle``."""

    nats: Float[Array, ""]
    is_saddle: Bool[Array, ""]


class NumericProblem(NamedTuple):
    """The objective of the numeric parameters: ``loss`` of a vector of unconstrained values is minus the objective and
    the sum of the absolute values of its terms, both in nats; ``start``; ``at`` gives parameters at a vector;
    ``precision`` is that of the parameters.
    """

    loss: Callable[[Float[Array, " P"]], tuple[Float[Array, ""], Float[Array, ""]]]
    start: Float[Array, " P"]
    at: Callable[[Float[Array, " P"]], Params]
    precision: float


def numeric_problem(plan: Plan, statistics: Statistics, params: Params) -> NumericProblem:
    """The objective at these statistics as a function of the numeric parameters, which start at ``params``."""
    program, mean_field = plan.program, plan.mean_field
    points = [name for name in plan.numeric if name not in mean_field.full]
    posteriors = {name: mean_field.by_name[name] for name in plan.numeric if name in mean_field.full}
    bijections = {name: program.bijection(name) for name in points}
    coordinates = {name: site.coordinates(params[name]) for name, site in posteriors.items()}
    start, unravel = ravel_pytree({name: bijections[name].inv(params[name]) for name in points} | coordinates)
    dtype, precision = start.dtype, float(jnp.finfo(start.dtype).eps)
    if start.shape[0] > MOST_DENSE:
        # What optimistix remembers of the last steps has the default dtype.
        start = start.astype(jnp.result_type(float))

    def at(flat: Float[Array, " P"]) -> Params:
        coordinates = unravel(flat.astype(dtype))
        values = {name: bijections[name](coordinates[name]) for name in points}
        values = {name: hold(program, plan.fixed, name, value, params[name]) for name, value in values.items()}
        moved = {name: site.from_coordinates(coordinates[name], params[name]) for name, site in posteriors.items()}
        return {**params, **values, **moved}

    def loss(flat: Float[Array, " P"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        values = at(flat)
        natural, log_prior = mean_field.evaluated(values, statistics.shifts)
        absolute = jax.tree.map(lambda part: jax.lax.stop_gradient(jnp.abs(part)), (natural, statistics))
        size = expected(*absolute) + jax.lax.stop_gradient(jnp.abs(log_prior))
        # A program may hold constants in float64 beside data in float32.
        return (-expected(natural, statistics) - log_prior).astype(start.dtype), size.astype(start.dtype)

    return NumericProblem(loss, start, at, precision)
