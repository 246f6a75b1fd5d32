"""The parameters of the gradient route as one vector without constraints, and the way back.

A simplex has the logarithms of its entries for coordinates, and the way back divides by their sum. NumPyro's
stick-breaking transform has one coordinate fewer, but its inverse takes each entry from one minus the others: small
last entries are lost to rounding, and an entry that became zero stays zero.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from probem.plan.plan import Plan
from probem.program.fixed import hold
from probem.program.sites import Params

# The farthest that one step moves a constrained parameter in its coordinates: a factor of twenty where positive.
_FARTHEST = 3.0
# The least entry of a simplex, as a power of the smallest number of the dtype: one over it, times a number of rows, is
# still a number, and an entry that has come down to it can rise again.
_LEAST_SHARE = 7 / 8
# The least share of itself that one step leaves of an entry of a simplex.
LEAST_RATIO = 1e-3


class Coordinates(NamedTuple):
    """``point`` is where the parameters are; the others lead back from such a vector.

    ``to_params`` gives parameters on their constraints. ``to_weights`` is the same but for a simplex, whose entries it
    leaves as they are, not divided by their sum: there the derivative of Q = sum_k n_k log theta_k is n_k itself.
    """

    point: Float[Array, " P"]
    to_params: Callable[[Float[Array, " P"]], Params]
    to_weights: Callable[[Float[Array, " P"]], Params]
    by_name: Callable[[Float[Array, " P"]], Mapping[str, Array]]


def coordinates(plan: Plan, params: Params) -> Coordinates:
    """The coordinates of the parameters on the gradient route, at ``params``; the other parameters stay."""
    program, dtype = plan.program, plan.dtype
    simplexes = simplex_names(plan)
    bijections = {name: program.bijection(name) for name in plan.gradient if name not in simplexes}
    least = least_share(dtype)
    values = {
        name: jnp.log(jnp.maximum(params[name], least)) if name in simplexes else bijections[name].inv(params[name])
        for name in plan.gradient
    }
    flat, by_name = ravel_pytree(values)

    def back(vector: Float[Array, " P"], normalised: bool) -> Params:
        new = dict(params)
        for name, value in by_name(vector).items():
            if name not in simplexes:
                new[name] = hold(program, plan.fixed, name, bijections[name](value).astype(dtype), params[name])
                continue
            # Without their maximum they may be as large as they like; at the point itself nothing changes.
            shift = jax.lax.stop_gradient(value.max(-1, keepdims=True)) if normalised else 0.0
            weights = jnp.exp(value - shift)
            if normalised:
                weights = jnp.maximum(weights / weights.sum(-1, keepdims=True), least)
                new[name] = hold(program, plan.fixed, name, weights.astype(dtype), params[name])
            else:
                new[name] = jnp.where(fixed_entries(plan, name), params[name], weights.astype(dtype))
        return new

    return Coordinates(
        flat.astype(dtype), lambda vector: back(vector, True), lambda vector: back(vector, False), by_name
    )


def least_share(dtype: Any) -> float:
    """The least entry of a simplex whose logarithm is a coordinate."""
    return float(jnp.finfo(dtype).tiny) ** _LEAST_SHARE


def simplex_names(plan: Plan) -> tuple[str, ...]:
    """The parameters of the gradient route that lie on a simplex."""
    return tuple(name for name in plan.gradient if plan.program.constraints[name] is constraints.simplex)


def fixed_entries(plan: Plan, name: str) -> Bool[np.ndarray, "..."]:
    """Which entries of a site stay where they are, in its shape."""
    (shape,) = (site.shape for site in plan.program.globals if site.name == name)
    packed = dict(plan.fixed).get(name)
    return np.zeros(shape, bool) if packed is None else np.frombuffer(packed, bool).reshape(shape)


def farthest(plan: Plan, params: Params) -> Float[Array, " P"]:
    """How far one step may move each coordinate; those that have the unit of the data go without limit."""
    # The others are on the scale of a logarithm or a logit. Nothing leads back from a step to where a density has lost
    # its digits (a Student t with 1e200 degrees of freedom) or its slope (a concentration of 1e-200).
    return jnp.where(_by_coordinate(plan, params, _has_unit), jnp.inf, _FARTHEST).astype(plan.dtype)


def is_logarithm(plan: Plan, params: Params) -> Bool[Array, " P"]:
    """Which coordinates are logarithms of a positive parameter."""

    def positive(constraint: constraints.Constraint, size: int) -> Bool[np.ndarray, " size"]:
        return np.full(size, isinstance(constraint, type(constraints.positive) | constraints.greater_than))

    return _by_coordinate(plan, params, positive)


def _by_coordinate(
    plan: Plan, params: Params, look: Callable[[constraints.Constraint, int], Bool[np.ndarray, " size"]]
) -> Bool[Array, " P"]:
    """What ``look`` says of the last axis of the coordinates of a constraint, for every coordinate."""
    marks = {}
    for name in plan.gradient:
        shape = _shape(plan, name, params)
        constraint: Any = plan.program.constraints[name]
        while hasattr(constraint, "base_constraint"):
            constraint = constraint.base_constraint
        marks[name] = jnp.broadcast_to(look(constraint, shape[-1] if shape else 1), shape or (1,)).reshape(shape) * 1.0
    return ravel_pytree(marks)[0] > 0


def _has_unit(constraint: constraints.Constraint, size: int) -> Bool[np.ndarray, " size"]:
    """Real numbers, the first of an ordered vector, and what is below the diagonal of a Cholesky factor."""
    count = 0
    if constraint in (constraints.real, constraints.real_vector):
        count = size
    elif constraint is constraints.ordered_vector:
        count = 1
    elif constraint in (
        constraints.lower_cholesky,
        constraints.softplus_lower_cholesky,
        constraints.positive_definite,
    ):
        # n (n - 1) / 2 of them come before the n of the diagonal.
        count = size - (math.isqrt(8 * size + 1) - 1) // 2
    return np.arange(size) < count


def on_simplex(plan: Plan, params: Params) -> Bool[Array, " P"]:
    """Which coordinates are entries of a simplex."""
    simplexes = simplex_names(plan)
    names = {name: jnp.full(_shape(plan, name, params), float(name in simplexes)) for name in plan.gradient}
    return ravel_pytree(names)[0] > 0


def _shape(plan: Plan, name: str, params: Params) -> tuple[int, ...]:
    shape = jnp.shape(params[name])
    return shape if name in simplex_names(plan) else plan.program.bijection(name).inverse_shape(shape)


def projected(
    plan: Plan, params: Params, by_name: Callable[[Array], Mapping[str, Array]], gradient: Float[Array, " P"]
) -> Float[Array, " P"]:
    """The gradient in the coordinates, from that of ``to_weights``: n_k - theta_k sum_j n_j on a simplex."""
    gradients = dict(by_name(gradient))
    for name in simplex_names(plan):
        counts, share = _on_simplex(plan, name, gradients[name], params[name])
        gradients[name] = counts - share * counts.sum(-1, keepdims=True)
    return ravel_pytree(gradients)[0]


def growth(
    plan: Plan, params: Params, by_name: Callable[[Array], Mapping[str, Array]], gradient: Float[Array, " P"]
) -> Float[Array, " P"]:
    """The step of every simplex to n_k / sum_j n_j, where n_k = theta_k dQ/dtheta_k is from ``to_weights``.

    That is the maximum where Q = sum_k n_k log theta_k, however theta is looked up. The step is zero off the simplexes
    and where an n_k is negative, and takes no entry further down than to a thousandth, so that one that fell by mistake
    can rise again. Source: Baum & Eagon (1967), An inequality with applications to statistical estimation, theorem 1.
    """
    given = by_name(gradient)
    steps = {name: jnp.zeros_like(value) for name, value in given.items()}
    for name in simplex_names(plan):
        counts, share = _on_simplex(plan, name, given[name], params[name])
        total = counts.sum(-1, keepdims=True)
        possible = (counts >= 0).all(-1, keepdims=True) & (total > 0) & (share > 0)
        ratio = jnp.where(possible, counts, 1.0) / jnp.where(possible, total * share, 1.0)
        steps[name] = jnp.where(possible, jnp.log(jnp.maximum(ratio, LEAST_RATIO)), 0.0)
    return ravel_pytree(steps)[0]


def _on_simplex(
    plan: Plan, name: str, gradient: Float[Array, "*shape"], value: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The n_k of the free entries, and the share that each has in what is left to them."""
    free = ~fixed_entries(plan, name)
    left = jnp.where(free, value, 0.0).sum(-1, keepdims=True)
    return jnp.where(free, gradient, 0.0), jnp.where(free, value, 0.0) / jnp.where(left > 0, left, 1.0)
