"""How sites with a q reach the densities of a program: affine maps from their statistics to arguments."""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped
from numpyro.distributions import Distribution

from probem import exponential
from probem.exponential import Arguments, Density, Prior, as_floating
from probem.form.layout import unwrapped
from probem.jit.structure import structural


def take(flat: Float[Array, " _"], index: Int[np.ndarray, "*shape"]) -> Float[Array, "*shape"]:
    """Static entries of a vector; in place where they are a run of it, since a gather is slow to compile and to turn
    around.
    """
    run = index.reshape(-1)
    if len(run) and (run == np.arange(run[0], run[0] + len(run))).all():
        return flat[run[0] : run[0] + len(run)].reshape(index.shape)
    return flat[index]


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMap:
    """E entries ``offset + sum_m coefficient[:, m] * source[index[:, m]]`` of shape ``shape``.

    ``source`` are the flat statistics (for a location, the flat values) of ``sites``, one after another. Coefficients
    and offsets follow from numbers of the program, and may be traced; ``used`` are the coefficients that are not zero.
    Where the program has no numbers, all coefficients may be one (``is_gather``), and all offsets zero (``is_linear``),
    for good.
    """

    sites: tuple[str, ...]
    shape: tuple[int, ...]
    index: Int[np.ndarray, "E M"]
    coefficient: Float[Array, "E M"] | Float[np.ndarray, "E M"]
    offset: Float[Array, " E"] | Float[np.ndarray, " E"]
    used: Bool[np.ndarray, "E M"]
    is_gather: bool
    is_linear: bool

    @classmethod
    def of(
        cls,
        sites: tuple[str, ...],
        shape: tuple[int, ...],
        entries: tuple[Int[np.ndarray, "E M"], Float[np.ndarray, "E M"], Float[np.ndarray, " E"]],
        for_good: bool,
    ) -> "AffineMap":
        """The map with these indices, coefficients and offsets, ``for_good`` if there are no others."""
        index, coefficient, offset = entries
        is_gather, is_linear = for_good and bool((coefficient == 1).all()), for_good and not offset.any()
        return cls(sites, shape, index, coefficient, offset, coefficient != 0, is_gather, is_linear)

    @property
    def structure(self) -> Hashable:
        """All but the coefficients and offsets."""
        return structural((self.sites, self.shape, self.index, self.used, self.is_gather, self.is_linear))

    @property
    def numbers(self) -> tuple[Any, ...]:
        """Coefficients and offsets, which stand for themselves where they are known for good."""
        return None if self.is_gather else self.coefficient, None if self.is_linear else self.offset

    def with_numbers(self, numbers: tuple[Any, ...]) -> "AffineMap":
        """The map with other coefficients and offsets."""
        coefficient, offset = numbers
        return dataclasses.replace(
            self,
            coefficient=self.coefficient if self.is_gather else coefficient,
            offset=self.offset if self.is_linear else offset,
        )

    def apply(self, source: Mapping[str, Array]) -> Float[Array, "..."]:
        """The entries, given the flat source of every site."""
        flat = jnp.concatenate([source[name].reshape(-1) for name in self.sites])
        entries = take(flat, self.index)
        if not self.is_gather:
            entries = jnp.asarray(self.coefficient, flat.dtype) * entries
        entries = entries.sum(1) if self.index.shape[1] > 1 else entries[:, 0]
        if not self.is_linear:
            entries = entries + jnp.asarray(self.offset, flat.dtype)
        return entries.reshape(self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ConjugateFactor:
    """A density of the program, and how its arguments follow from sites with a full posterior (None: they do not)."""

    site: str
    view: Density
    location: AffineMap | None = None
    statistics: AffineMap | None = None

    @property
    def is_uncertain(self) -> bool:
        return self.location is not None or self.statistics is not None

    @property
    def parents(self) -> tuple[str, ...]:
        """The sites from which its arguments follow."""
        return tuple(name for edge in (self.location, self.statistics) if edge is not None for name in edge.sites)

    def certain(self, arguments: Arguments) -> Arguments:
        """The arguments that do not come from the edges, which start at a q or at a point."""
        location = self.view.location_argument
        covered = {name for name in arguments if name != location and name not in self.view.certain}
        followed = ({location} if self.location is not None else set()) | (
            covered if self.statistics is not None else set()
        )
        return {name: value for name, value in arguments.items() if name not in followed}

    @property
    def structure(self) -> Hashable:
        """All but the numbers of its maps."""
        return structural((self.site, self.view, self.location, self.statistics))

    @property
    def numbers(self) -> tuple[Any, ...]:
        """Those of its maps."""
        return tuple(None if edge is None else edge.numbers for edge in (self.location, self.statistics))

    def with_numbers(self, numbers: tuple[Any, ...]) -> "ConjugateFactor":
        """The density with other numbers in its maps."""
        location, statistics = (
            None if edge is None else edge.with_numbers(new)
            for edge, new in zip((self.location, self.statistics), numbers, strict=True)
        )
        return dataclasses.replace(self, location=location, statistics=statistics)


def prior_view(site: Mapping[str, Any]) -> Density | None:
    """The view of a prior, or None for one that is neither a conjugate prior nor an exponential family."""
    distribution = unwrapped(site["fn"])
    return None if site["scale"] is not None else exponential.prior(distribution) or exponential.view(distribution)


def prior_arguments(site: Mapping[str, Any], view: Density) -> Arguments:
    """The arguments of a prior, one for every event in it: ``[C, *event of the argument]``."""
    distribution: Distribution = unwrapped(site["fn"])
    shape = (*site["fn"].batch_shape, *site["fn"].event_shape)
    batch = shape[: len(shape) - len(distribution.event_shape)]
    named = (
        view.read(distribution)
        if isinstance(view, Prior)
        else {name: getattr(distribution, name) for name in view.argument_names}
    )
    arguments = {}
    for name, value in named.items():
        value = as_floating(value)
        event = value.shape[value.ndim - view.argument_event_ndims(name) :]
        arguments[name] = jnp.broadcast_to(value, (*batch, *event)).reshape(-1, *event)
    return arguments


def source(view: Density, value: Shaped[Array, "..."]) -> Float[Array, " _"]:
    """What edges start from: the statistics of a prior's value, or the value itself of a location."""
    if not isinstance(view, Prior):
        return value.reshape(-1)
    event = value.shape[value.ndim - view.event_ndim :]
    return view.statistics(value.reshape(-1, *event)).reshape(-1)
