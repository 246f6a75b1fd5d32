"""Entries of parameters that a fit leaves where they are."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from probem.data.arrays import numeric
from probem.errors import InputError, nearest
from probem.program.program import Program
from probem.program.sites import Params
from probem.program.values import check_values

#: By site name, which entries stay, as bytes of bools: part of the key of a plan.
Masks = tuple[tuple[str, bytes], ...]


def check_fixed(fixed: Mapping[str, Any] | None, program: Program, full: tuple[str, ...]) -> tuple[Masks, Params]:
    """Which entries stay, and their values: NaN marks an entry that is free; sites with a ``full`` posterior have none.

    Raises
    ------
    InputError
        For an unknown site or shape, a value off its constraint, an event that is fixed in part (a row of a covariance
        matrix), or a site with a full posterior.
    """
    if fixed is not None and not isinstance(fixed, Mapping):
        raise InputError(
            f"fixed of type {type(fixed).__name__}", "values by site name, NaN where free", "write fixed={'loc': ...}"
        )
    sites = {site.name: site for site in program.globals}
    masks, values = [], {}
    for name, given in (fixed or {}).items():
        if name not in sites:
            raise InputError(
                f"fixed values of the unknown site '{name}'", "a parameter of the program", nearest(name, sites)
            )
        if name in full:
            raise InputError(
                f"fixed values of '{name}', a site with a full posterior",
                "fixed values of points",
                f"give it the family probem.Delta(), or bind it with handlers.condition(program, {{'{name}': ...}})",
            )
        if isinstance(given := numeric(given, f"fixed values of '{name}'"), Tracer):
            raise InputError(f"traced fixed values of '{name}'", "values that are known", "bind them outside of jit")
        value = np.asarray(given, float)
        if value.shape != sites[name].shape:
            raise InputError(
                f"fixed values of shape {value.shape} for '{name}'",
                f"shape {sites[name].shape}, NaN where free",
                "give every entry",
            )
        mask = np.asarray(~np.isnan(value))
        if not mask.any():
            continue
        _check_events(name, mask, sites[name].constraint)
        filled = _filled(name, value, mask, program)
        check_values({name: filled}, program, closed=True, role="fixed value")
        masks.append((name, mask.tobytes()))
        values[name] = np.where(mask, value, filled)
    return tuple(masks), values


def _check_events(name: str, mask: Bool[np.ndarray, "..."], constraint: Any) -> None:
    ndim = constraint.event_dim
    if not ndim or _is_simplex(constraint):
        return
    events = mask.reshape(*mask.shape[: mask.ndim - ndim], -1)
    if (events.any(-1) != events.all(-1)).any():
        raise InputError(
            f"fixed values of a part of one value of '{name}'",
            f"all of its last {ndim} axes fixed, or none of them",
            "fix the whole, or write the program with what is fixed as a constant",
        )


def _filled(
    name: str, value: Float[np.ndarray, "*shape"], mask: Bool[np.ndarray, "*shape"], program: Program
) -> Float[np.ndarray, "*shape"]:
    """The value with its free entries somewhere on the constraint."""
    with jax.ensure_compile_time_eval():
        bijection = program.bijection(name)
        middle = np.asarray(bijection(jnp.zeros(bijection.inverse_shape(value.shape))))
    if not _is_simplex(program.constraints[name]):
        return np.where(mask, value, middle)
    kept = np.where(mask, value, 0.0).sum(-1, keepdims=True)
    free = (~mask).sum(-1, keepdims=True)
    if ((free > 0) & (kept >= 1)).any():
        raise InputError(
            f"fixed entries of '{name}' that sum to {float(kept.max()):.6g}",
            "less than 1, so that something is left for the free entries",
            "lower them, or fix all entries",
        )
    return np.where(mask, value, (1 - kept) / np.maximum(free, 1))


def _is_simplex(constraint: Any) -> bool:
    return constraint is constraints.simplex


def hold(
    program: Program, masks: Masks, name: str, new: Float[Array, "*shape"], old: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """The new value, but for the entries that stay.

    What is left of a simplex is shared out in the new proportions, which is where the maximum over the free entries
    lies: sum_k n_k log pi_k is largest at pi_k proportional to n_k.
    """
    packed = dict(masks).get(name)
    if packed is None:
        return new
    mask = np.frombuffer(packed, bool).reshape(old.shape)
    if _is_simplex(program.constraints[name]):
        free = jnp.where(mask, 0.0, new)
        left = 1.0 - jnp.where(mask, old, 0.0).sum(-1, keepdims=True)
        total = free.sum(-1, keepdims=True)
        new = jnp.where(total > 0, left * free / jnp.where(total > 0, total, 1.0), old)
    return jnp.where(mask, old, new)


def impose(program: Program, masks: Masks, params: Params, values: Params) -> Params:
    """Parameters with the fixed entries at their values."""
    imposed = {
        name: hold(program, masks, name, params[name], jnp.asarray(values[name], params[name].dtype))
        for name, _ in masks
    }
    return {**params, **imposed}


def num_free(program: Program, masks: Masks, name: str) -> int:
    """The number of unconstrained coordinates of a site that are free."""
    (site,) = (site for site in program.globals if site.name == name)
    total = math.prod(program.bijection(name).inverse_shape(site.shape))
    packed = dict(masks).get(name)
    if packed is None:
        return total
    mask = np.frombuffer(packed, bool).reshape(site.shape)
    if _is_simplex(program.constraints[name]):
        return int(np.maximum((~mask).sum(-1) - 1, 0).sum())
    # Other events are fixed as a whole: each entry of one has its share of their coordinates.
    return round(total * (~mask).mean())


def is_whole(masks: Masks, name: str) -> bool:
    """Whether every entry of the site stays."""
    packed = dict(masks).get(name)
    return packed is not None and all(packed)
