"""q of a site that is normal in unconstrained space: densities that depend on it are averaged over nodes.

z = g(m + L u), where u is standard normal and g the bijection onto the support of the prior. Source: Opper & Archambeau
(2009), The variational Gaussian approximation revisited.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float
from numpyro.distributions import Distribution, biject_to, constraints

from probem.exponential import Arguments
from probem.families.parameters import Gaussian
from probem.mean_field.sites import Parent, SitePosterior, as_before

#: The standard deviation, in unconstrained space, of the q that stands for a value.
_START_SCALE = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class GaussianSite(SitePosterior):
    """A q that is normal in unconstrained space, in cells of ``dim`` entries that are independent of each other.

    The arguments of q are ``loc`` ``[C, D]`` and ``scale_tril`` ``[C, D, D]``, lower triangular.
    """

    dim: int
    constraint_of_site: constraints.Constraint

    @classmethod
    def in_cells(
        cls, name: str, family: Gaussian, shape: tuple[int, ...], constraint: constraints.Constraint, dim: int = 1
    ) -> "GaussianSite":
        """q of a site with this support, ``dim`` unconstrained entries to a cell."""
        size = math.prod(biject_to(constraint).inverse_shape(shape))
        return cls(name, family, None, shape, size // dim, dim, constraint)

    @property
    def gaussian(self) -> Gaussian:
        """The family, which says how many nodes are taken."""
        assert isinstance(self.family, Gaussian)
        return self.family

    @property
    def bijection(self) -> Any:
        """From unconstrained space to the values that the site may take."""
        return biject_to(self.constraint_of_site)

    @property
    def unconstrained_shape(self) -> tuple[int, ...]:
        """Of all cells together."""
        return tuple(self.bijection.inverse_shape(self.shape))

    def at_node(self, q: Arguments, normals: Float[Array, "C D"]) -> tuple[Float[Array, "..."], Float[Array, ""]]:
        """The value at standard normal numbers, and the log volume there: log |dz / d(unconstrained)|, nats."""
        place = q["loc"] + jnp.matmul(q["scale_tril"], normals.astype(q["loc"].dtype)[..., None])[..., 0]
        place = place.reshape(self.unconstrained_shape)
        value = self.bijection(place)
        return value, jnp.sum(self.bijection.log_abs_det_jacobian(place, value))

    def about(self, value: Float[Array, "..."]) -> Arguments:
        """A narrow q around a value, to start from."""
        place = self.bijection.inv(value).reshape(self.cells, self.dim)
        scale = jnp.broadcast_to(_START_SCALE * jnp.eye(self.dim, dtype=place.dtype), (*place.shape, self.dim))
        return {"loc": place, "scale_tril": scale}

    @classmethod
    def in_events(cls, name: str, family: Any, view: Any, shape: tuple[int, ...]) -> "GaussianSite":
        raise NotImplementedError("the cells of a Gaussian q do not follow from the events of a prior")

    def from_prior(self, arguments: Arguments) -> Arguments:
        raise NotImplementedError("a Gaussian q does not follow from the arguments of a prior")

    def value(self, q: Arguments) -> Float[Array, "..."]:
        """The bijection of the mean: the median, where it works entry by entry."""
        return self.bijection(q["loc"].reshape(self.unconstrained_shape))

    def entropy(self, q: Arguments, expectations: Callable[[], Array]) -> Float[Array, ""]:
        """H of the normal in unconstrained space; that of q has the expected log volume beside it, ``expectations()``.

        H(z) = H(m + L u) + E[log |dz / d(m + L u)|].
        """
        constant = 0.5 * self.cells * self.dim * (1.0 + math.log(2.0 * math.pi))
        return constant + jnp.log(_diagonal(q["scale_tril"])).sum() + expectations()

    def coordinates(self, q: Arguments) -> Float[Array, "C _"]:
        """Means, logarithms of the diagonal of L, and what lies below it: all of them free of constraints."""
        scale = q["scale_tril"]
        rows, columns = np.tril_indices(self.dim, -1)
        return jnp.concatenate([q["loc"], jnp.log(_diagonal(scale)), scale[:, rows, columns]], axis=-1)

    def from_coordinates(self, coordinates: Float[Array, "C _"], old: Arguments) -> Arguments:
        dim = self.dim
        rows, columns = np.tril_indices(dim, -1)
        scale = jnp.exp(coordinates[:, dim : 2 * dim, None]) * jnp.eye(dim, dtype=coordinates.dtype)
        scale = scale.at[:, rows, columns].set(coordinates[:, 2 * dim :])
        return as_before({"loc": coordinates[:, :dim], "scale_tril": scale}, old)

    def is_inside(self, q: Arguments) -> Bool[Array, ""]:
        return (_diagonal(q["scale_tril"]) > 0).all()

    @property
    def in_words(self) -> str:
        many = f", {self.dim} entries together" if self.dim > 1 else ""
        return f"maximised numerically over K-sized statistics: Normal in unconstrained space{many}"

    @property
    def requirement(self) -> str:
        return "finite loc and scale_tril, the latter lower triangular with a positive diagonal"

    def is_proper(self, q: Mapping[str, np.ndarray]) -> bool:
        scale = q["scale_tril"]
        finite = np.isfinite(q["loc"]).all() and np.isfinite(scale).all()
        return bool(finite and (np.triu(scale, 1) == 0).all() and (np.diagonal(scale, axis1=-2, axis2=-1) > 0).all())

    def constraint(self, argument: str) -> constraints.Constraint:
        return constraints.lower_cholesky if argument == "scale_tril" else constraints.real

    def distribution(self, q: Arguments, parent: Parent | None) -> Distribution:
        del parent
        shape = self.unconstrained_shape
        if self.dim == 1:
            normal: Any = dist.Normal(q["loc"].reshape(shape), q["scale_tril"].reshape(shape))
        elif shape[-1] == self.dim:
            scale = q["scale_tril"].reshape(*shape, self.dim)
            normal = dist.MultivariateNormal(q["loc"].reshape(shape), scale_tril=scale)
        else:
            flat = dist.MultivariateNormal(q["loc"], scale_tril=q["scale_tril"]).to_event(1)
            reshape = dist.transforms.ReshapeTransform(shape, flat.event_shape)
            normal = dist.TransformedDistribution(flat, reshape)
        if not _is_identity(self.bijection):
            normal = dist.TransformedDistribution(normal, self.bijection)
        return normal.to_event(len(normal.batch_shape))

    def draw(
        self, q: Any, value: Any, covariance: Float[np.ndarray, "C D D"] | None, random: np.random.Generator
    ) -> Float[np.ndarray, "..."]:
        del value, covariance
        loc, scale = (np.asarray(q[name], float) for name in ("loc", "scale_tril"))
        place = loc + (scale @ random.normal(size=(*loc.shape, 1)))[..., 0]
        with jax.ensure_compile_time_eval():
            return np.asarray(self.bijection(jnp.asarray(place.reshape(self.unconstrained_shape))))


def _is_identity(bijection: Any) -> bool:
    while isinstance(bijection, dist.transforms.IndependentTransform):
        bijection = bijection.base_transform
    return isinstance(bijection, dist.transforms.IdentityTransform)


def _diagonal(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D"]:
    return jnp.diagonal(matrices, axis1=-2, axis2=-1)
