"""A NumPyro program that was read: the roles of its sites, and the table of log joints, by handlers alone.

The table is the *meaning* of the program: every faster path must equal it.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from probem.jit.compilation import concrete
from probem.jit.live import live
from probem.jit.structure import Structure, shared, with_origin
from probem.jit.tracing import isolated, kept, unchecked
from probem.program.densities import broadcast_value, is_categorical, log_prior_density, log_prob_of_events
from probem.program.fingerprint import number_key
from probem.program.sites import Assignment, Global, Params, RowSpec


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A NumPyro program, read: which site plays which role. Hashed by its structure and its numbers.

    ``numbers`` are the floats, and arrays of floats, that it is bound to, closes over or names;
    ``rebuild(numbers)`` is the program with such numbers in it. ``places`` says where they are among all that
    ``lift`` finds, of which others may be part of the structure. A copy in a trace has traced numbers, and the
    hash of what it is a copy of.
    """

    rebuild: Callable[[tuple[Any, ...]], Callable[..., Any]]
    numbers: tuple[Any, ...]
    places: tuple[int, ...]
    spec: RowSpec
    structure: Structure
    plate: str
    plate_dim: int
    assignments: tuple[Assignment, ...]
    observed: tuple[str, ...]
    globals: tuple[Global, ...]
    event_ndims: Mapping[str, int]

    @shared
    def key(self) -> Hashable:
        """What makes two programs equal."""
        return self.structure, tuple(number_key(number) for number in self.numbers)

    @kept
    def function(self) -> Callable[..., Any]:
        """The program itself, of which the data are the arguments."""
        return self.rebuild(self.numbers)

    def with_numbers(self, numbers: tuple[Any, ...]) -> "Program":
        """The program with other numbers in it; what is known of its structure stays."""
        return with_origin(dataclasses.replace(self, numbers=numbers), self) if numbers else self

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.key == other.key

    @property
    def num_components(self) -> int:
        """Joint values of all assignment sites; value (t, z, ...) has the index of row-major order."""
        return math.prod(site.size for site in self.assignments)

    @property
    def dtype(self) -> Any:
        """The floating dtype of the data; JAX's default where all of it is integer."""
        dtypes = [jnp.dtype(dtype) for _, dtype in self.spec.rows]
        floating = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
        return jnp.result_type(*floating) if floating else jnp.result_type(float)

    @property
    def has_priors(self) -> bool:
        """Whether every site outside the data plate has a prior."""
        return all(site.has_prior for site in self.globals)

    @property
    def enumeration_shape(self) -> tuple[int, ...]:
        return tuple(site.size for site in self.assignments)

    @property
    def local(self) -> tuple[str, ...]:
        return (*(site.name for site in self.assignments), *self.observed)

    def enumerated_trace(
        self, params: Mapping[str, Array], data: tuple[Any, ...], seeded: bool = True, component: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """Trace with every assignment site set to all its values, or to those of one component, each on an axis of its
        own to the left.

        ``seeded=False`` leaves the keys of sites without a value to the handlers outside; others have no part in it.
        """
        chosen = [slice(None)] * len(self.assignments)
        if component is not None:
            chosen = [slice(index, index + 1) for index in np.unravel_index(component, self.enumeration_shape)]
        values = {
            site.name: jnp.asarray(site.support[each]).reshape((-1,) + (1,) * (-site.dim - 1))
            for site, each in zip(self.assignments, chosen, strict=True)
        }
        substituted = handlers.substitute(self.function, data={**params, **values})
        data = jax.tree.map(jnp.asarray, data)
        with isolated() if seeded else unchecked():
            return handlers.trace(handlers.seed(substituted, 0) if seeded else substituted).get_trace(*data)

    def abstract_trace(self, look: Callable[[dict[str, dict[str, Any]]], Any], num_rows: int) -> Any:
        """What ``look`` sees in an enumerated trace: shapes and classes, nothing is computed."""
        seen = []

        def run(params: Params, data: tuple[Any, ...]) -> None:
            seen.append(look(self.enumerated_trace(params, data)))

        dtype = jnp.result_type(float)
        params = {site.name: jax.ShapeDtypeStruct(site.shape, dtype) for site in self.globals}
        jax.eval_shape(run, params, self.spec.abstract(num_rows))
        return seen[0]

    @property
    def constraints(self) -> dict[str, constraints.Constraint]:
        """The constraint of every parameter and the support of every global latent site."""
        return {site.name: site.constraint for site in self.globals}

    def bijection(self, name: str) -> Any:
        """From unconstrained space to the values that the site may take."""
        return biject_to(self.constraints[name])

    def random_params(self, seed: int, scale: float = 1.0) -> dict[str, Float[np.ndarray, "..."]]:
        """Random values of every global site, on their constraints; ``scale`` times a normal number, unconstrained."""
        random = np.random.default_rng(seed)
        dtype = np.dtype(jnp.result_type(float))
        shapes = {site.name: self.bijection(site.name).inverse_shape(site.shape) for site in self.globals}
        values = {
            # The more entries, the smaller each: a random covariance matrix stays well-conditioned in any dimension.
            name: (scale * random.normal(size=shape) / max((1, *shape[-1:])) ** 0.25).astype(dtype)
            for name, shape in shapes.items()
        }
        return _constrained(self, values)

    def log_joint(self, params: Mapping[str, Array], data: tuple[Any, ...]) -> Float[Array, "n K"]:
        """The table log p(x_n, t_n = k | params), nats, for the distributions as NumPyro has them."""
        return self.table(self.enumerated_trace(params, data), self.local)

    @unchecked()
    def table(
        self,
        sites: Mapping[str, dict[str, Any]],
        names: tuple[str, ...],
        observed: Mapping[str, Bool[Array, "..."]] | None = None,
    ) -> Float[Array, "n K"]:
        """The part of the table that comes from the sites named.

        ``observed`` says which entries of their values count; an event without one counts nothing.
        """
        num_rows = sites[self.plate]["value"].shape[0]
        total = jnp.zeros((*self.enumeration_shape, num_rows))
        for name in names:
            total = total + self._rows(sites[name], num_rows, None if observed is None else observed.get(name))
        return jnp.moveaxis(total, -1, 0).reshape(num_rows, self.num_components)

    def _rows(
        self, site: dict[str, Any], num_rows: int, observed: Bool[Array, "..."] | None = None
    ) -> Float[Array, "*K n"]:
        """Log probability of one site, an axis for each assignment, of size 1 where it does not depend on it."""
        value = site["value"].astype(int) if is_categorical(site) else broadcast_value(site["value"], site["fn"])
        log_prob = log_prob_of_events(site["fn"], value, observed)
        log_prob = jnp.broadcast_to(log_prob, jnp.broadcast_shapes(log_prob.shape, site["fn"].batch_shape))
        if site["scale"] is not None:
            log_prob = log_prob * site["scale"]
        # Leftmost come the enumerated axes, then the plates; every plate but that of the rows is summed over.
        ndim = max(-assignment.dim for assignment in self.assignments)
        log_prob = log_prob.reshape((1,) * (ndim - log_prob.ndim) + log_prob.shape)
        plates = tuple(
            axis
            for axis in range(len(self.assignments), ndim)
            if axis != ndim + self.plate_dim and log_prob.shape[axis] != 1
        )
        log_prob = log_prob.sum(plates, keepdims=True)
        enumerated = log_prob.shape[: len(self.assignments)]
        log_prob = jnp.broadcast_to(
            log_prob.reshape(*enumerated, log_prob.shape[ndim + self.plate_dim]), (*enumerated, num_rows)
        )
        # The first assignment lies nearest to the plates: reverse, so that it comes first.
        order = tuple(range(len(enumerated)))[::-1]
        return log_prob.transpose(*order, len(enumerated))

    @unchecked()
    def log_prior(
        self, params: Mapping[str, Array], sites: Mapping[str, dict[str, Any]] | None = None
    ) -> Float[Array, ""]:
        """log p(params), nats: the log density of every global sample site (and factor) at its value."""
        sites = self.enumerated_trace(params, self.spec.zeros(2)) if sites is None else sites
        return sum(self.log_priors(sites).values(), jnp.zeros(()))

    @unchecked()
    def log_priors(
        self, sites: Mapping[str, dict[str, Any]], besides: Collection[str] = ()
    ) -> dict[str, Float[Array, ""]]:
        """The log density of every global sample site (and factor) at its value, by name, nats, without ``besides``."""
        log_priors = {}
        for name, site in sites.items():
            if site["type"] == "sample" and name not in self.local and name not in besides:
                log_prob = jnp.sum(log_prior_density(site["fn"], site["value"]))
                log_priors[name] = log_prob if site["scale"] is None else log_prob * site["scale"]
        return log_priors

    @shared
    def categorical(self) -> tuple[str, ...]:
        """The observed sites whose values are categories, and whole numbers even in an array of floats."""

        def look(sites: Mapping[str, dict[str, Any]]) -> tuple[str, ...]:
            return tuple(name for name in self.observed if is_categorical(sites[name]))

        return self.abstract_trace(look, 2)

    def observations(self, data: tuple[Any, ...]) -> dict[str, Shaped[Array, "..."]]:
        """The value of every observed site, rows on the axis of the data plate."""
        # The values of the parameters do not matter to the values observed.
        params = {site.name: jnp.zeros(site.shape) for site in self.globals}

        def values(data: tuple[Any, ...]) -> dict[str, Shaped[Array, "..."]]:
            sites = self.enumerated_trace(params, data)
            return {name: jnp.asarray(sites[name]["value"]) for name in self.observed}

        return live(values)(data)


@concrete
def _constrained(program: Program, values: Params) -> Params:
    """Values in unconstrained space on their constraints."""
    return {name: program.bijection(name)(value) for name, value in values.items()}
