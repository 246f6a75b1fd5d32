"""How the axes of a distribution lie: those of the assignments, of the rows, and of the copies in a row."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, LogNormal, TransformedDistribution
from numpyro.distributions.transforms import ExpTransform, SigmoidTransform, Transform

from probem.program.program import Program
from probem.program.support_rules import unmasked


def unwrapped(distribution: Distribution) -> Distribution:
    """The distribution under to_event and expand (a mask stays)."""
    while isinstance(distribution, Independent | ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution


# Maps of single numbers that have nothing to set.
_TRANSFORMS = (ExpTransform, SigmoidTransform)


def untransformed(distribution: Distribution) -> tuple[Distribution, tuple[type[Transform], ...]]:
    """The distribution under masks, to_event, expand and maps of single numbers, and these maps, the first to apply
    first.
    """
    base: Any = unmasked(distribution)[0]
    # A subclass may have changed the density.
    if type(base) not in (LogNormal, TransformedDistribution):
        return base, ()
    transforms = tuple(type(transform) for transform in base.transforms)
    inner = unwrapped(base.base_dist)
    if inner.event_shape or not set(transforms) <= set(_TRANSFORMS):
        return base, ()
    return inner, transforms


def batch_of(distribution: Distribution, base: Distribution, program: Program) -> tuple[tuple[int, ...], int]:
    """The full batch shape of the base distribution, enumerated axes first, and the (negative) axis of the rows."""
    shape = (*distribution.batch_shape, *distribution.event_shape)
    batch = shape[: len(shape) - len(base.event_shape)]
    reinterpreted = len(distribution.event_shape) - len(base.event_shape)
    ndim = max(-assignment.dim for assignment in program.assignments) + reinterpreted
    return (1,) * (ndim - len(batch)) + tuple(batch), program.plate_dim - reinterpreted


def located(
    program: Program, site: dict[str, Any], copies: int, enumeration: tuple[int, ...], argument: str = "loc"
) -> Float[Array, "K n C"]:
    """An argument of a site in every row and copy, for each of the values of the assignments in a trace."""
    base: Any = untransformed(site["fn"])[0]
    value = jnp.asarray(getattr(base, argument), jnp.result_type(float))
    return _in_rows(program, site, value, copies, enumeration)


def mask_of(program: Program, site: dict[str, Any], copies: int, enumeration: tuple[int, ...]) -> Bool[Array, "K n C"]:
    """Where the masks around a site have all of its events count."""
    event_ndim = len(untransformed(site["fn"])[0].event_shape)
    every = jnp.ones((), bool)
    for mask, ndim in unmasked(site["fn"])[1]:
        # One outside to_event is for all entries of an event.
        every = every & jnp.reshape(mask, (*jnp.shape(mask), *(1,) * (ndim - event_ndim)))
    return _in_rows(program, site, every, copies, enumeration)


def _in_rows(
    program: Program, site: dict[str, Any], value: Shaped[Array, "..."], copies: int, enumeration: tuple[int, ...]
) -> Shaped[Array, "K n C"]:
    base: Any = untransformed(site["fn"])[0]
    batch, rows_axis = batch_of(site["fn"], base, program)
    enumerated = len(enumeration)
    value = jnp.broadcast_to(value, (*enumeration[::-1], *batch[enumerated:]))
    # Enumerated axes stand last assignment first; the joint index is in row-major order of the first.
    value = value.transpose(*range(enumerated)[::-1], *range(enumerated, value.ndim))
    value = jnp.moveaxis(value, rows_axis, enumerated)
    return value.reshape(-1, value.shape[enumerated], copies)
