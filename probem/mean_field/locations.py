"""q of a site that is the location of densities: it reaches them by its mean and covariance."""

import abc
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import Distribution, constraints

from probem.errors import InputError
from probem.exponential import Arguments, Density, Location, linalg
from probem.exponential.linalg import cholesky, inverse
from probem.families.assignments import Delta
from probem.families.parameters import Conjugate, ParameterFamily
from probem.mean_field.factors import take
from probem.mean_field.sites import Parent, PointMass, SitePosterior, as_before


@dataclasses.dataclass(frozen=True, eq=False)
class LocationSite(SitePosterior):
    """A location, cut into cells of ``dim`` entries that are independent under q, which is normal."""

    view: Density
    dim: int

    is_location: ClassVar[bool] = True

    def __init_subclass__(cls, of: type[ParameterFamily] | None = None) -> None:
        if "location" in vars(cls) and "untied" not in vars(cls):
            raise InputError(
                f"{cls.__name__}, which says what its location is, and leaves to others what it is untied",
                "both, or untied(q) alone: updates ask for that",
                "define untied(q) as well",
            )
        super().__init_subclass__(of)

    @classmethod
    def in_events(cls, name: str, family: ParameterFamily, view: Density, shape: tuple[int, ...]) -> "LocationSite":
        dim = getattr(view, "dim", 1)
        return cls(name, family, view, shape, math.prod(shape) // dim, dim)

    def tied_to(self, parent: str, cells: Int[np.ndarray, " C"]) -> "LocationSite":
        """q where its precision is a multiple of the one in its prior, which follows from these ``cells`` of another
        site, its ``parent``: as it is, unless q may depend on the value there.
        """
        del parent, cells
        return self

    @abc.abstractmethod
    def untied(self, q: Any) -> Location:
        """Mean ``[C, D]`` and covariance ``[C, D, D]``, without what another site has to do with them: all that updates
        need. A precision times the covariance of what is tied to it is the same for any precision.
        """

    def location(self, q: Any, precision: Callable[[], Array]) -> Location:
        """Mean ``[C, D]`` and covariance ``[C, D, D]``; ``precision()`` is the expected one in the prior."""
        del precision
        return self.untied(q)

    @abc.abstractmethod
    def updated(
        self, best: Location, precision: Float[Array, "C D D"], prior_precision: Callable[[], Array], old: Any
    ) -> Any:
        """The best q: normal with this mean and covariance, the inverse of ``precision``; the expected precision in the
        prior is ``prior_precision()``.
        """

    def cell_matrices(self, matrices: Float[Array, " E"] | Float[Array, "E B B"]) -> Float[Array, "C D D"]:
        """Matrices of the E events of the prior as those of the cells."""
        matrices = matrices.reshape(-1, 1, 1) if matrices.ndim == 1 else matrices
        entries = np.arange(self.cells * self.dim).reshape(self.cells, self.dim)
        return between(matrices, entries[:, :, None], entries[:, None, :])

    @property
    def requirement(self) -> str:
        return "finite values and a positive strength or covariance"

    def constraint(self, argument: str) -> constraints.Constraint:
        if argument == "loc":
            return constraints.real
        return constraints.positive_definite if argument == "covariance" else constraints.positive

    def draw(
        self, q: Any, value: Any, covariance: Float[np.ndarray, "C D D"], random: np.random.Generator
    ) -> Float[np.ndarray, "..."]:
        del q
        noise = np.linalg.cholesky(np.asarray(covariance, float)) @ random.normal(size=(self.cells, self.dim, 1))
        return np.asarray(value + noise.reshape(self.shape))

    def normal(self, loc: Float[Array, "C D"], covariance: Float[Array, "C D D"]) -> Distribution:
        """The normal distribution of the cells as one event of the shape of the site."""
        if self.dim == 1:
            scale = jnp.sqrt(covariance).reshape(self.shape)
            return dist.Normal(loc.reshape(self.shape), scale).to_event(len(self.shape))
        if self.shape[-1] == self.dim:
            batch = self.shape[:-1]
            matrices = covariance.reshape(*batch, self.dim, self.dim)
            return dist.MultivariateNormal(loc.reshape(self.shape), matrices).to_event(len(batch))
        flat = dist.MultivariateNormal(loc[0], covariance[0])
        return dist.TransformedDistribution(flat, dist.transforms.ReshapeTransform(self.shape, flat.event_shape))


class LocationPosterior(LocationSite, of=Conjugate):
    """A full posterior with a covariance of its own."""

    def tied_to(self, parent: str, cells: Int[np.ndarray, " C"]) -> LocationSite:
        return TiedLocation(self.name, self.family, self.view, self.shape, self.cells, self.dim, parent, cells)

    def from_prior(self, arguments: Arguments) -> Arguments:
        statistics = self.view.argument_statistics(arguments)
        assert statistics is not None
        covariance = inverse(self.cell_matrices(self.view.precision(statistics)))
        return {"loc": arguments["loc"].reshape(self.cells, self.dim), "covariance": covariance}

    def value(self, q: Arguments) -> Float[Array, "..."]:
        return q["loc"].reshape(self.shape)

    def untied(self, q: Arguments) -> Location:
        return Location(q["loc"], q["covariance"])

    def updated(
        self, best: Location, precision: Float[Array, "C D D"], prior_precision: Callable[[], Array], old: Arguments
    ) -> Arguments:
        del precision, prior_precision
        return as_before({"loc": best.mean, "covariance": best.covariance}, old)

    def coordinates(self, q: Arguments) -> Float[Array, "C _ D"]:
        """Precision times mean, and the precision."""
        precision = inverse(q["covariance"])
        return jnp.concatenate([jnp.matmul(precision, q["loc"][..., None]).swapaxes(-1, -2), precision], axis=-2)

    def from_coordinates(self, coordinates: Float[Array, "C _ D"], old: Arguments) -> Arguments:
        covariance = inverse(coordinates[:, 1:])
        mean = jnp.matmul(covariance, coordinates[:, 0, :, None])[..., 0]
        return as_before({"loc": mean, "covariance": covariance}, old)

    def is_inside(self, q: Arguments) -> Bool[Array, ""]:
        return jnp.isfinite(cholesky(q["covariance"])).all()

    def entropy(self, q: Arguments, expectations: Callable[[], Array]) -> Float[Array, ""]:
        del expectations
        return _normal_entropy(self) + 0.5 * linalg.log_det(q["covariance"]).sum()

    @property
    def in_words(self) -> str:
        many = f", {self.dim} entries together" if self.dim > 1 else ""
        return f"closed form: Normal{many}, prior + statistics"

    def is_proper(self, q: Mapping[str, np.ndarray]) -> bool:
        return bool(np.isfinite(q["loc"]).all() and (np.linalg.eigvalsh(q["covariance"]) > 0).all())

    def distribution(self, q: Any, parent: Parent | None) -> Distribution:
        del parent
        return self.normal(q["loc"], q["covariance"])


@dataclasses.dataclass(frozen=True, eq=False)
class TiedLocation(LocationSite):
    """A full posterior given a precision: that of each cell is a multiple, its ``strength``, of the one in its prior,
    which follows from one cell of one other site, ``parent``: the cell there for every cell, ``parent_cells``.
    """

    parent: str
    parent_cells: Int[np.ndarray, " C"]

    is_tied: ClassVar[bool] = True

    def from_prior(self, arguments: Arguments) -> Arguments:
        loc = arguments["loc"].reshape(self.cells, self.dim)
        return {"loc": loc, "strength": jnp.ones(self.cells, loc.dtype)}

    def value(self, q: Arguments) -> Float[Array, "..."]:
        return q["loc"].reshape(self.shape)

    def untied(self, q: Arguments) -> Location:
        return _certain(q["loc"])

    def location(self, q: Arguments, precision: Callable[[], Array]) -> Location:
        return Location(q["loc"], inverse(q["strength"][:, None, None] * precision()))

    def updated(
        self, best: Location, precision: Float[Array, "C D D"], prior_precision: Callable[[], Array], old: Arguments
    ) -> Arguments:
        # One is a multiple of the other.
        whole, prior = (jnp.trace(matrix, axis1=-2, axis2=-1) for matrix in (precision, prior_precision()))
        return as_before({"loc": best.mean, "strength": whole / prior}, old)

    def coordinates(self, q: Arguments) -> Float[Array, "C _"]:
        """Strength times mean, and the strength: the joint natural parameters in which the parent has no part."""
        strength = q["strength"][:, None]
        return jnp.concatenate([strength * q["loc"], strength], axis=-1)

    def from_coordinates(self, coordinates: Float[Array, "C _"], old: Arguments) -> Arguments:
        strength = coordinates[:, -1]
        return as_before({"loc": coordinates[:, :-1] / strength[:, None], "strength": strength}, old)

    def is_inside(self, q: Arguments) -> Bool[Array, ""]:
        return (q["strength"] > 0).all()

    def entropy(self, q: Arguments, expectations: Callable[[], Array]) -> Float[Array, ""]:
        """The entropy given the parent, on average."""
        log_det = expectations()[..., -1].sum()
        return _normal_entropy(self) - 0.5 * (self.dim * jnp.log(q["strength"]).sum() + log_det)

    @property
    def in_words(self) -> str:
        return f"closed form: Normal given '{self.parent}', prior + statistics"

    def is_proper(self, q: Mapping[str, np.ndarray]) -> bool:
        return bool(np.isfinite(q["loc"]).all() and (q["strength"] > 0).all())

    def distribution(self, q: Any, parent: Parent | None) -> Distribution:
        """A Student t where the precision has a full posterior."""
        assert parent is not None
        if parent.student is None:
            return self.normal(q["loc"], parent.covariance)
        freedom, factor = (value[self.parent_cells] for value in parent.student)
        covariance = parent.covariance * factor[:, None, None]
        batch = self.shape if self.dim == 1 else self.shape[:-1]
        loc, freedom = q["loc"].reshape(self.shape), freedom.reshape(batch)
        if self.dim == 1:
            return dist.StudentT(freedom, loc, jnp.sqrt(covariance.reshape(batch))).to_event(len(batch))
        factor = cholesky(covariance).reshape(*batch, self.dim, self.dim)
        return dist.MultivariateStudentT(freedom, loc, factor).to_event(len(batch))


class LocationMode(PointMass, LocationSite, of=Delta):
    """A point mass at the mode."""

    def from_prior(self, arguments: Arguments) -> Float[Array, "..."]:
        return arguments["loc"].reshape(self.shape)

    def untied(self, q: Float[Array, "..."]) -> Location:
        return _certain(q.reshape(self.cells, self.dim))

    def updated(
        self,
        best: Location,
        precision: Float[Array, "C D D"],
        prior_precision: Callable[[], Array],
        old: Float[Array, "*shape"],
    ) -> Float[Array, "*shape"]:
        del precision, prior_precision
        return best.mean.reshape(self.shape).astype(old.dtype)


def between(
    blocks: Float[Array, "C D D"], first: Int[np.ndarray, "..."], second: Int[np.ndarray, "..."]
) -> Float[Array, "..."]:
    """The covariance of two flat entries, given that of the entries of every cell; zero between cells."""
    dim = blocks.shape[-1]
    same = first // dim == second // dim
    covariance = take(blocks.reshape(-1), first * dim + second % dim)
    return covariance if same.all() else jnp.where(same, covariance, 0.0)


def _certain(mean: Float[Array, "C D"]) -> Location:
    return Location(mean, jnp.zeros((*mean.shape, mean.shape[1]), mean.dtype))


def _normal_entropy(site: LocationSite) -> float:
    """H of a normal distribution of all entries whose covariance has the determinant one."""
    return 0.5 * site.cells * site.dim * (1.0 + math.log(2.0 * math.pi))
