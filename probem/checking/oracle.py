"""The other side of every check: the densities of a program by NumPyro alone, one run for each value of t.

Nothing here comes from the way probem reads a program, or forms its table.
"""

import abc
import dataclasses
import functools
import importlib.util
import inspect
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to

from probem.checking.observed import Edges, Supports, WholeNumbers
from probem.errors import InputError, nearest
from probem.jit.tracing import isolated

# Signs at random with which numbers are moved.
_TRIES = 4
# The part of its size by which a number is moved for a difference.
_DIFFERENCE = 1e-6

Params = Mapping[str, Any]
Data = tuple[Any, ...]
Sites = Mapping[str, Mapping[str, Any]]


class Oracle(abc.ABC):
    """Log densities of a mixture at given parameters."""

    @abc.abstractmethod
    def log_joint(self, params: Params, data: Data | None = None) -> Float[Array, "N K"]:
        """log p(x_n, t_n = k | params), nats per row; ``data`` are those of the oracle, where they are arguments of
        what is compiled.
        """

    @abc.abstractmethod
    def log_likelihood(self, params: Params, data: Data | None = None) -> Float[Array, ""]:
        """log p(X | params), nats, total over the rows; ``data`` as in ``log_joint``."""


@dataclasses.dataclass(frozen=True)
class Latent:
    """An assignment: its values, and the shape of the site."""

    name: str
    values: tuple[Any, ...]
    shape: tuple[int, ...]


class Densities(NamedTuple):
    """What NumPyro says of a program at given parameters; nats.

    ``log_joint`` [N, K] and ``condition`` [N, K], how far it moves as all numbers move by their size, are per row;
    ``log_likelihood`` and ``log_prior`` are totals.
    """

    log_joint: Float[Array, "N K"]
    condition: Float[Array, "N K"]
    log_likelihood: Float[Array, ""]
    log_prior: Float[Array, ""]


class _Look(NamedTuple):
    """What is known of a site whatever its value: its role, shape, plates and support, and the values of an assignment.

    ``is_known`` says that no part of it is traced.
    """

    type: str
    is_observed: bool
    shape: tuple[int, ...]
    plates: tuple[Any, ...]
    support: Any
    values: tuple[Any, ...] | None
    is_known: bool


class NumPyroOracle(Oracle):
    """The densities of a program on its data."""

    def __init__(self, program: Callable[..., Any], data: Data):
        self.program = Edges(Supports(WholeNumbers(program)))
        self.data = jax.tree.map(jnp.asarray, data)
        sites = self._look()
        self.num_rows = jax.tree.leaves(self.data)[0].shape[0]
        plates = {frame.name: frame for site in sites.values() for frame in site.plates}
        # Components, or columns, may be as many as rows; assignments stand in the plate of the rows alone.
        (self.plate,) = {
            frame.name: frame
            for site in sites.values()
            if site.values is not None
            for frame in site.plates
            if frame.size == self.num_rows
        }.values()
        self.depth = max(-frame.dim for frame in plates.values())
        self.local = [
            name
            for name, site in sites.items()
            if site.type == "sample" and any(frame.name == self.plate.name for frame in site.plates)
        ]
        self.latents = [
            Latent(name, site.values, site.shape)
            for name, site in sites.items()
            if name in self.local and site.values is not None
        ]
        self.constraints = {
            name: site.support
            for name, site in sites.items()
            if site.type in ("param", "sample") and name not in self.local and not site.is_observed
        }
        self.num_numbers = sum(math.prod(sites[name].shape) for name in self.local if sites[name].is_observed)

    def _look(self) -> dict[str, _Look]:
        """What is known of every site; the program runs, with a draw of every site, only where that depends on it."""
        sites: dict[str, _Look] = {}

        def look(data: Data) -> None:
            sites.update({name: _look_at(site) for name, site in self._trace({}, data).items()})

        jax.eval_shape(look, self.data)
        if not all(site.is_known for site in sites.values()):
            look(self.data)
        return sites

    def _trace(self, values: Params, data: Data) -> Any:
        seeded = handlers.seed(handlers.substitute(self.program, data=dict(values)), 0)
        with isolated():
            return handlers.trace(seeded).get_trace(*data)

    def runs(self, params: Params, data: Data | None = None) -> list[Sites]:
        """A run of the program for each joint value of its assignments, in row-major order of their appearance."""
        return [self._trace({**params, **values}, self._given(data)) for values in self._assigned()]

    def _given(self, data: Data | None) -> Data:
        return self.data if data is None else data

    def runs_of(self, guide: Callable[..., Any], data: Data) -> list[Sites]:
        """A run of a guide for each joint value of the assignments of the program, in the same order."""
        return [
            handlers.trace(handlers.seed(handlers.substitute(guide, data=values), 0)).get_trace(*data)
            for values in self._assigned()
        ]

    def _assigned(self) -> list[dict[str, Any]]:
        """The joint values of the assignments, the same in all rows."""
        each = itertools.product(*(latent.values for latent in self.latents))
        return [
            {latent.name: jnp.full(latent.shape, value) for latent, value in zip(self.latents, values, strict=True)}
            for values in each
        ]

    def by_row(self, values: Float[Array, "..."]) -> Float[Array, " N"]:
        """Log densities of a site, summed over all its plates but that of the rows."""
        values = jnp.reshape(values, (1,) * (self.depth - jnp.ndim(values)) + jnp.shape(values))
        values = jnp.moveaxis(values, self.plate.dim, 0)
        return jnp.broadcast_to(values.reshape(values.shape[0], -1).sum(1), (self.num_rows,))

    @isolated()
    def log_joint(self, params: Params, data: Data | None = None) -> Float[Array, "N K"]:
        """log p(x_n, t_n = k | params), nats per row."""
        columns = [
            sum((self.by_row(_log_prob(sites[name])) for name in self.local), jnp.zeros(self.num_rows))
            for sites in self.runs(params, data)
        ]
        return jnp.stack(columns, axis=1)

    def densities(self, params: Params, data: Data, by_differences: bool = False) -> Densities:
        """All that is asked of the program at these parameters; ``log_likelihood`` is not a number without funsor.

        ``by_differences``: for programs with a rule of derivatives for reverse mode alone (``jax.custom_vjp``).
        """
        table, condition = self._with_condition(params, data, by_differences)
        can_sum = importlib.util.find_spec("funsor") is not None
        log_likelihood = self.log_likelihood(params, data) if can_sum else jnp.full((), jnp.nan)
        return Densities(table, condition, log_likelihood, self.log_prior(params, data))

    def _with_condition(
        self, params: Params, data: Data, by_differences: bool
    ) -> tuple[Float[Array, "N K"], Float[Array, "N K"]]:
        """The table, and how far it moves as all numbers of the data and the parameters move by their size, with signs
        at random: times the precision of a number, what is lost in writing them down. Nats, the largest of some tries.
        """
        leaves, tree = jax.tree.flatten((dict(params), data))
        moving = [place for place, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]

        def table(values: list[Array]) -> Float[Array, "N K"]:
            given = list(leaves)
            for place, value in zip(moving, values, strict=True):
                given[place] = value
            return self.log_joint(*jax.tree.unflatten(tree, given))

        at = [jnp.asarray(leaves[place]) for place in moving]
        here, moved_along = (_differences if by_differences else jax.linearize)(table, at)

        def moved(key: Array) -> Float[Array, "N K"]:
            keys = jax.random.split(key, len(at))
            signs = [jax.random.rademacher(of, jnp.shape(leaf), leaf.dtype) for of, leaf in zip(keys, at, strict=True)]
            return jnp.abs(moved_along([sign * leaf for sign, leaf in zip(signs, at, strict=True)]))

        far = jax.lax.map(moved, jax.random.split(jax.random.key(0), _TRIES)).max(0)
        # What is impossible moves by nothing that is a number.
        return here, jnp.where(jnp.isfinite(far), far, 0.0)

    @isolated()
    def log_prior(self, params: Params, data: Data | None = None) -> Float[Array, ""]:
        """log p(params), and what a program adds beside its rows, nats."""
        sites = self._trace(params, self._given(data))
        return sum(
            (
                _log_prob(site).sum()
                for name, site in sites.items()
                if site["type"] == "sample" and name not in self.local
            ),
            jnp.zeros(()),
        )

    @isolated()
    def log_likelihood(self, params: Params, data: Data | None = None) -> Float[Array, ""]:
        """log p(X | params) by NumPyro's own enumeration, which eliminates t with funsor; nats, total over the rows.

        Raises
        ------
        InputError
            Without funsor.
        """
        log_density, enum, config_enumerate = enumeration()
        enumerated = enum(config_enumerate(self.program), -1 - self.depth)
        total, _ = log_density(enumerated, self._given(data), {}, dict(params))
        return total - self.log_prior(params, data)


class GivenOracle(Oracle):
    """A log density of somebody's own: ``function(params, *data)`` is log p(x_n, t_n = k | params), ``[N, K]``."""

    def __init__(self, function: Callable[..., Any], data: Data, shape: tuple[int, int]):
        self.function, self.data, self.shape = function, data, shape
        #: Whether it was asked for its densities.
        self.was_asked = False

    def log_joint(self, params: Params, data: Data | None = None) -> Float[Array, "N K"]:
        """The table as it is given, nats per row: of the data as they are, which the function may take apart.

        Raises
        ------
        InputError
            For a table of another shape, and for an oracle that asks for a parameter that there is not.
        """
        del data
        self.was_asked = True
        try:
            table = jnp.asarray(self.function(dict(params), *self.data))
        except KeyError as error:
            name = error.args[0] if error.args else None
            if name in params:
                raise
            raise InputError(
                f"an oracle that asks for {name!r}, which is no parameter",
                f"one of {', '.join(sorted(params))}",
                nearest(str(name), params),
            ) from error
        if table.shape != self.shape:
            raise InputError(
                f"an oracle that returns shape {table.shape}",
                f"log p(x_n, t_n = k) of shape {self.shape}",
                "return one row for each row of the data, one column for each value of the assignment",
            )
        return table

    def log_likelihood(self, params: Params, data: Data | None = None) -> Float[Array, ""]:
        """Its logarithm of the sum of each row, nats, total over the rows."""
        return jax.nn.logsumexp(self.log_joint(params, data), axis=1).sum()


def check_callable(function: Callable[..., Any], num_data: int) -> None:
    """Refuse an oracle that does not take the parameters and the data.

    Raises
    ------
    InputError
        If it is no function, or one of other arguments.
    """
    arrays = f"{num_data} array{'s' * (num_data != 1)}"
    try:
        inspect.signature(function).bind({}, *[None] * num_data)
    except TypeError as error:
        raise InputError(
            f"an oracle that cannot be called with the parameters and {arrays} of data: {error}",
            "oracle(params, *data), which returns log p(x_n, t_n = k | params)",
            "give it these arguments",
        ) from None
    except ValueError:
        # A builtin without a signature says what it lacks when it is called.
        return


def free(constraints: Mapping[str, Any], params: Params) -> dict[str, Array]:
    """Parameters in unconstrained space."""
    return {name: biject_to(constraints[name]).inv(jnp.asarray(value)) for name, value in params.items()}


def constrained(constraints: Mapping[str, Any], values: Params) -> dict[str, Any]:
    """Values in unconstrained space on their constraints."""
    return {name: biject_to(constraints[name])(value) for name, value in values.items()}


def _differences(function: Callable[[list[Array]], Array], at: list[Array]) -> tuple[Array, Callable[..., Array]]:
    """The value, and how far it moves along a step, as ``jax.linearize`` returns them, by a difference."""
    here = function(at)

    def moved_along(step: list[Array]) -> Array:
        there = [value + _DIFFERENCE * along for value, along in zip(at, step, strict=True)]
        return (function(there) - here) / _DIFFERENCE

    return here, moved_along


def _log_prob(site: Mapping[str, Any]) -> Float[Array, "..."]:
    log_prob = site["fn"].log_prob(jnp.asarray(site["value"]))
    return log_prob if site["scale"] is None else site["scale"] * log_prob


def _look_at(site: Mapping[str, Any]) -> _Look:
    if site["type"] == "sample":
        support = site["fn"].support
    else:
        support = site.get("kwargs", {}).get("constraint", dist.constraints.real)
    values, is_observed = (), bool(site.get("is_observed", False))
    is_known = not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(support)) or is_observed
    is_assignment = site["type"] == "sample" and not is_observed and site["fn"].has_enumerate_support
    if is_assignment:
        try:
            with jax.ensure_compile_time_eval():
                values = tuple(np.asarray(site["fn"].enumerate_support(expand=False)).ravel())
        except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
            is_known = False
    return _Look(
        site["type"],
        is_observed,
        tuple(jnp.shape(site["value"])),
        tuple(site.get("cond_indep_stack", ())),
        support,
        values if is_assignment else None,
        is_known,
    )


@functools.cache
def enumeration() -> Any:
    """NumPyro's ``log_density``, ``enum`` and ``config_enumerate`` for programs with assignments.

    Raises
    ------
    InputError
        Without funsor.
    """
    try:
        from numpyro.contrib.funsor import config_enumerate, enum
        from numpyro.contrib.funsor.infer_util import log_density
    except ImportError:
        raise InputError(
            "no package funsor, with which NumPyro sums over assignments", "funsor", "pip install 'probem[cli]'"
        ) from None
    return log_density, enum, config_enumerate
