"""q of a site that reaches densities by its sufficient statistics: precisions, rates, probabilities."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Distribution, constraints

from probem.exponential import Arguments, Density, Prior
from probem.families.assignments import Delta
from probem.families.parameters import Conjugate, ParameterFamily
from probem.mean_field.sites import Parent, PointMass, SitePosterior, as_before


@dataclasses.dataclass(frozen=True, eq=False)
class NaturalSite(SitePosterior):
    """A site whose prior is the conjugate prior of what depends on it; a cell is an event of the prior."""

    view: Density

    @classmethod
    def in_events(cls, name: str, family: ParameterFamily, view: Density, shape: tuple[int, ...]) -> "NaturalSite":
        assert isinstance(view, Prior)
        size = math.prod(shape[len(shape) - view.event_ndim :])
        return cls(name, family, view, shape, math.prod(shape) // max(1, size))

    @property
    def prior(self) -> Prior:
        """The view of the prior, in whose family q is."""
        assert isinstance(self.view, Prior)
        return self.view

    @property
    def num_statistics(self) -> int:
        """The number of statistics of one cell."""
        event = self.shape[len(self.shape) - self.prior.event_ndim :]
        value = jax.ShapeDtypeStruct(event, jnp.result_type(float))
        return jax.eval_shape(self.prior.statistics, value).shape[-1]

    @abc.abstractmethod
    def statistics(self, q: Any) -> Float[Array, "C U"]:
        """E_q of the sufficient statistics of every cell."""

    @abc.abstractmethod
    def updated(self, natural: Float[Array, "C U"], old: Any) -> Any:
        """The best q: in the family of the prior with these natural parameters of every cell."""

    def student(self, q: Any) -> tuple[Float[Array, " _"], Float[Array, " _"]] | None:
        """Where q is a distribution of precisions, what ``Parent`` has for the Student t that it makes of a normal."""
        del q

    @property
    def requirement(self) -> str:
        """The requirement of the prior."""
        return self.prior.requirement

    def is_proper(self, q: Mapping[str, np.ndarray]) -> bool:
        with jax.ensure_compile_time_eval():
            return bool(np.all(self.prior.proper({name: jnp.asarray(value) for name, value in q.items()})))

    def constraint(self, argument: str) -> constraints.Constraint:
        if argument == "rate_matrix":
            return constraints.positive_definite
        return constraints.greater_than(self.shape[-1] - 1.0) if self.prior.event_ndim == 2 else constraints.positive

    def distribution(self, q: Any, parent: Parent | None) -> Distribution:
        del parent
        batch = self.shape[: len(self.shape) - self.prior.event_ndim]
        arguments = {name: value.reshape(*batch, *value.shape[1:]) for name, value in q.items()}
        return self.prior.distribution(arguments).to_event(len(batch))

    def draw(self, q: Any, value: Any, covariance: None, random: np.random.Generator) -> Float[np.ndarray, "..."]:
        del value, covariance
        arguments = {name: np.asarray(argument, float) for name, argument in q.items()}
        return self.prior.draw(arguments, random).reshape(self.shape)


class NaturalPosterior(NaturalSite, of=Conjugate):
    """A full posterior in the family of the prior."""

    def from_prior(self, arguments: Arguments) -> Arguments:
        return arguments

    def value(self, q: Arguments) -> Float[Array, "..."]:
        """The mean; of a variance the inverse of the mean precision."""
        return self.prior.point(q).reshape(self.shape)

    def statistics(self, q: Arguments) -> Float[Array, "C U"]:
        return self.prior.expected_statistics(q)

    def student(self, q: Arguments) -> tuple[Float[Array, " _"], Float[Array, " _"]]:
        return self.prior.student(q)

    def updated(self, natural: Float[Array, "C U"], old: Arguments) -> Arguments:
        return as_before(self.prior.from_natural(natural), old)

    def entropy(self, q: Arguments, expectations: Callable[[], Array]) -> Float[Array, ""]:
        return self.prior.entropy(q, expectations()).sum()

    def coordinates(self, q: Arguments) -> Float[Array, "C U"]:
        return self.prior.natural(q)

    def from_coordinates(self, coordinates: Float[Array, "C U"], old: Arguments) -> Arguments:
        return self.updated(coordinates, old)

    def is_inside(self, q: Arguments) -> Bool[Array, ""]:
        return self.prior.proper(q).all()

    @property
    def in_words(self) -> str:
        return f"closed form: {type(self.view).__name__.removesuffix('Prior')}, prior + statistics"


class NaturalMode(PointMass, NaturalSite, of=Delta):
    """A point mass at the mode."""

    def from_prior(self, arguments: Arguments) -> Float[Array, "..."]:
        return self.prior.point(arguments).reshape(self.shape)

    def statistics(self, q: Float[Array, "..."]) -> Float[Array, "C U"]:
        return point_statistics(self.view, q)

    def updated(self, natural: Float[Array, "C U"], old: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.prior.mode(self.prior.from_natural(natural)).reshape(self.shape).astype(old.dtype)


def point_statistics(view: Density, value: Float[Array, "..."]) -> Float[Array, "C U"]:
    """T of a value, event by event."""
    ndim = view.event_ndim if isinstance(view, Prior) else 0
    return view.statistics(value.reshape(-1, *value.shape[value.ndim - ndim :]))
