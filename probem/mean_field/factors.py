"""How sites with a q reach the densities of a program: affine maps from their statistics to arguments."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped
from numpyro.distributions import Distribution

from probem import exponential
from probem.exponential import Arguments, Density, Prior, as_floating
from probem.form.sites import unwrapped
from probem.program.sites import Params


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

    ``source`` are the flat statistics (for a location, the flat values) of ``sites``, one after another.
    """

    sites: tuple[str, ...]
    shape: tuple[int, ...]
    index: Int[np.ndarray, "E M"]
    coefficient: Float[np.ndarray, "E M"]
    offset: Float[np.ndarray, " E"]

    def apply(self, source: Mapping[str, Array]) -> Float[Array, "..."]:
        """The entries, given the flat source of every site."""
        flat = jnp.concatenate([source[name].reshape(-1) for name in self.sites])
        entries = take(flat, self.index)
        if (self.coefficient != 1).any():
            entries = jnp.asarray(self.coefficient, flat.dtype) * entries
        entries = entries.sum(1) if self.index.shape[1] > 1 else entries[:, 0]
        if self.offset.any():
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


#: ``arguments_and_sources`` of a program, in numbers.
Evaluate = Callable[[Params], tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]]


def source(view: Density, value: Shaped[Array, "..."]) -> Float[Array, " _"]:
    """What edges start from: the statistics of a prior's value, or the value itself of a location."""
    if not isinstance(view, Prior):
        return value.reshape(-1)
    event = value.shape[value.ndim - view.event_ndim :]
    return view.statistics(value.reshape(-1, *event)).reshape(-1)
