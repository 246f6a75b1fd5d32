"""q of a site outside the data plate, by what it is asked for."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Delta, Distribution, constraints

from probem.exponential import Arguments, Density
from probem.families.parameters import ParameterFamily


class Parent(NamedTuple):
    """What q of a location that is tied to the precision of another site needs of it: its own ``covariance``
    there and, where the precision has a full posterior, the degrees of freedom and the factor of the scale matrix of
    the Student t that each of its cells gives.
    """

    covariance: Float[Array, "C D D"]
    student: tuple[Float[Array, " _"], Float[Array, " _"]] | None


@dataclasses.dataclass(frozen=True, eq=False)
class SitePosterior(abc.ABC):
    """q of one site: everything that is done with it is asked of it.

    The site falls into ``cells`` that are independent under q; its prior has a ``view`` where that is conjugate. A
    ``q`` is a value of the site where it is a point mass, and the arguments of its distribution by name, ``[C, ...]``,
    where it is a full posterior.

    A class ``of`` a family is q of the sites with that family, or with one that is a subclass of it: those that are
    locations, or those that are not, as it says itself.
    """

    name: str
    family: ParameterFamily
    view: Density | None
    shape: tuple[int, ...]
    cells: int

    #: Whether q is a point mass, at the mode of what the full posterior would be.
    is_point: ClassVar[bool] = False
    #: Whether the site is the location of densities; else its statistics are all that they need.
    is_location: ClassVar[bool] = False
    #: Whether q is given the value of another site.
    is_tied: ClassVar[bool] = False

    def __init_subclass__(cls, of: type[ParameterFamily] | None = None) -> None:
        super().__init_subclass__()
        if of is not None:
            CLASSES[of, cls.is_location] = cls

    @classmethod
    @abc.abstractmethod
    def in_events(cls, name: str, family: ParameterFamily, view: Density, shape: tuple[int, ...]) -> "SitePosterior":
        """q of a site of which every event of the prior is a cell."""

    @abc.abstractmethod
    def from_prior(self, arguments: Arguments) -> Any:
        """q as the prior is with these arguments, ``[C, ...]``."""

    @abc.abstractmethod
    def value(self, q: Any) -> Float[Array, "..."]:
        """The value that stands for q, in the shape of the site."""

    @abc.abstractmethod
    def entropy(self, q: Any, expectations: Callable[[], Array]) -> Float[Array, ""]:
        """H(q), nats, total; zero for a point mass. ``expectations()`` are those that the moments have: of a location
        the expected ``argument_statistics`` of its prior, of any other site its own expected statistics.
        """

    def coordinates(self, q: Any) -> Float[Array, "..."]:
        """Natural parameters of a q that is a distribution, to which an update adds statistics. What moves q between
        steps (an acceleration) asks for them; without them it is refused.
        """
        raise NotImplementedError(f"{type(self).__name__} has no coordinates")

    def from_coordinates(self, coordinates: Float[Array, "..."], old: Any) -> Any:
        """The q with these coordinates, in the shapes and dtypes of ``old``."""
        raise NotImplementedError(f"{type(self).__name__} has no coordinates")

    def is_inside(self, q: Any) -> Bool[Array, ""]:
        """Whether this q, made ``from_coordinates``, is a distribution."""
        raise NotImplementedError(f"{type(self).__name__} has no coordinates")

    @property
    @abc.abstractmethod
    def in_words(self) -> str:
        """How q is updated."""

    @property
    @abc.abstractmethod
    def requirement(self) -> str:
        """What the arguments of q have to be."""

    @abc.abstractmethod
    def is_proper(self, q: Mapping[str, np.ndarray]) -> bool:
        """Whether these arguments are those of a distribution."""

    @abc.abstractmethod
    def constraint(self, argument: str) -> constraints.Constraint:
        """Where an argument of q may lie."""

    @abc.abstractmethod
    def distribution(self, q: Any, parent: Parent | None) -> Distribution:
        """q as NumPyro has it, by itself, with the site as its event."""

    @abc.abstractmethod
    def draw(
        self, q: Any, value: Any, covariance: Float[np.ndarray, "C D D"] | None, random: np.random.Generator
    ) -> Float[np.ndarray, "..."]:
        """A value drawn from q, of which a location has this ``value`` and ``covariance``."""


class PointMass(SitePosterior):
    """A point mass at the mode of what the full posterior would be."""

    is_point: ClassVar[bool] = True

    def value(self, q: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return q

    def entropy(self, q: Float[Array, "..."], expectations: Callable[[], Array]) -> Float[Array, ""]:
        del q, expectations
        return jnp.zeros(())

    @property
    def in_words(self) -> str:
        return "closed form: mode of its conditional posterior"

    def is_proper(self, q: Mapping[str, np.ndarray]) -> bool:
        raise NotImplementedError(f"'{self.name}' is a point mass, which has no arguments")

    def distribution(self, q: Float[Array, "..."], parent: Parent | None) -> Distribution:
        del parent
        return Delta(q, event_dim=len(self.shape))

    def draw(self, q: Any, value: Any, covariance: Any, random: np.random.Generator) -> Float[np.ndarray, "..."]:
        del value, covariance, random
        return np.asarray(q, float)


#: q of a site, by its family and by whether it is a location.
CLASSES: dict[tuple[type[ParameterFamily], bool], type[SitePosterior]] = {}


def class_of(family: ParameterFamily, is_location: bool) -> type[SitePosterior] | None:
    """The class of q of a site with this family, if there is one."""
    return next((CLASSES[cls, is_location] for cls in type(family).__mro__ if (cls, is_location) in CLASSES), None)


def as_before(updated: Arguments, old: Arguments) -> Arguments:
    """In the shapes and dtypes of what it replaces, as a loop asks."""
    return {name: updated[name].reshape(value.shape).astype(value.dtype) for name, value in old.items()}
