"""Sites with an exponential-family form: where their columns are, and the arguments of their distributions."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, constraints

from probem import exponential
from probem.program.program import Program


@dataclasses.dataclass(frozen=True)
class ExponentialSite:
    """One site in exponential-family form: ``copies`` independent events of ``num_statistics`` each for every row.

    ``partial``: values may be missing. Each event then has one more column, which is 1 where it was observed and
    carries minus its log normaliser, so that an event that was not drops out of every sum.
    """

    site: str
    view: exponential.ExponentialFamily
    copies: int
    event_shape: tuple[int, ...]
    num_statistics: int
    is_assignment: bool
    support: constraints.Constraint | None
    partial: bool = False

    @property
    def num_columns(self) -> int:
        return self.copies * (self.num_statistics + self.partial)

    @property
    def completes(self) -> bool:
        """Whether an event may be observed in part, and has the rest filled in by its conditional moments."""
        return self.partial and math.prod(self.event_shape) > 1


def unwrapped(distribution: Distribution) -> Distribution:
    """The distribution under to_event and expand (a mask stays, and has no view)."""
    while isinstance(distribution, Independent | ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution


def event_observed(observed: Bool[Array, "n C ..."], term: ExponentialSite) -> Bool[Array, "n C"]:
    """Whether anything of an event was observed."""
    return observed.reshape(observed.shape[0], term.copies, -1).any(-1)


def batch_of(distribution: Distribution, base: Distribution, program: Program) -> tuple[tuple[int, ...], int]:
    """The full batch shape of the base distribution, enumerated axes first, and the (negative) axis of the rows."""
    shape = (*distribution.batch_shape, *distribution.event_shape)
    batch = shape[: len(shape) - len(base.event_shape)]
    reinterpreted = len(distribution.event_shape) - len(base.event_shape)
    ndim = max(-assignment.dim for assignment in program.assignments) + reinterpreted
    return (1,) * (ndim - len(batch)) + tuple(batch), program.plate_dim - reinterpreted


def site_arguments(program: Program, site: dict[str, Any], term: ExponentialSite) -> exponential.Arguments:
    """The arguments of a site in an enumerated trace of one row, each ``[K, C, *argument event]``."""
    base = unwrapped(site["fn"])
    batch, rows_axis = batch_of(site["fn"], base, program)
    shape = list(batch)
    shape[rows_axis] = 1
    shape[: len(program.assignments)] = program.enumeration_shape[::-1]
    arguments = {}
    for name in term.view.argument_names:
        value = jnp.asarray(getattr(base, name))
        event = value.shape[value.ndim - term.view.argument_event_ndims(name) :]
        value = jnp.broadcast_to(value, (*shape, *event))
        # Enumerated axes stand last assignment first; the joint index is in row-major order of the first.
        enumerated = len(program.assignments)
        value = value.transpose(*range(enumerated)[::-1], *range(enumerated, value.ndim))
        arguments[name] = value.reshape(program.num_components, term.copies, *event)
    return arguments
