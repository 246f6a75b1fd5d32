"""All that a fit estimates as one vector, in which a step is a step: points without their constraints, and the natural
parameters of full posteriors.

A simplex has the logarithms of its entries, as in ``coordinates.py``; a positive definite matrix its Cholesky factor
with the logarithms of its diagonal, made by factorisations that cannot wait for themselves (``exponential/linalg.py``).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from probem.exponential.linalg import cholesky
from probem.plan.coordinates import least_share
from probem.plan.plan import Plan
from probem.program.fixed import hold
from probem.program.sites import Params


def position(plan: Plan, params: Params) -> Float[Array, " P"]:
    """Where the parameters are; not finite where a value is on an edge of its constraint."""
    return ravel_pytree(_coordinates(plan, params))[0].astype(plan.dtype)


def at_position(plan: Plan, vector: Float[Array, " P"], near: Params) -> tuple[Params, Bool[Array, ""]]:
    """The parameters at a position, and whether they lie in their domain.

    Entries that are fixed stay as they are in ``near``, and so does a site whose coordinates are not all finite.
    """
    _, by_name = ravel_pytree(_coordinates(plan, near))
    coordinates: Mapping[str, Array] = by_name(vector)
    params, inside = dict(near), jnp.asarray(True)
    for name, coordinate in coordinates.items():
        if name in plan.mean_field.full:
            site = plan.mean_field.by_name[name]
            new: Any = site.from_coordinates(coordinate, near[name])
            inside = inside & site.is_inside(new)
        else:
            value = _constrained(plan, name, coordinate).astype(plan.dtype)
            new = hold(plan.program, plan.fixed, name, value, near[name])
        finite = jnp.isfinite(coordinate).all()
        params[name] = jax.tree.map(lambda new, old, finite=finite: jnp.where(finite, new, old), new, near[name])
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
    return params, inside & jnp.stack(finite).all()


def _coordinates(plan: Plan, params: Params) -> dict[str, Array]:
    return {site.name: _coordinate(plan, site.name, params[site.name]) for site in plan.program.globals}


def _coordinate(plan: Plan, name: str, value: Any) -> Float[Array, "..."]:
    if name in plan.mean_field.full:
        return plan.mean_field.by_name[name].coordinates(value)
    constraint = plan.program.constraints[name]
    if constraint is constraints.simplex:
        return jnp.log(jnp.maximum(value, least_share(plan.dtype)))
    if constraint is constraints.positive_definite:
        factor = cholesky(value)
        return jnp.where(jnp.eye(value.shape[-1], dtype=bool), jnp.log(factor), factor)
    return plan.program.bijection(name).inv(value)


def _constrained(plan: Plan, name: str, coordinate: Float[Array, "..."]) -> Float[Array, "..."]:
    constraint = plan.program.constraints[name]
    if constraint is constraints.simplex:
        return jnp.maximum(jax.nn.softmax(coordinate, axis=-1), least_share(plan.dtype))
    if constraint is constraints.positive_definite:
        factor = jnp.where(jnp.eye(coordinate.shape[-1], dtype=bool), jnp.exp(coordinate), coordinate)
        return factor @ jnp.swapaxes(factor, -1, -2)
    return plan.program.bijection(name)(coordinate)
