"""The other side of every check: the densities of a program by NumPyro alone, one run for each value of t.

Nothing here comes from the way probem reads a program, or forms its table.
"""

import abc
import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro import handlers
from numpyro.distributions import biject_to

from probem.errors import InputError, nearest
from probem.jit.tracing import isolated

# Signs at random with which numbers are moved.
_TRIES = 4

Params = Mapping[str, Any]
Sites = Mapping[str, Mapping[str, Any]]


class Oracle(abc.ABC):
    """Log densities of a mixture at given parameters."""

    @abc.abstractmethod
    def log_joint(self, params: Params) -> Float[Array, "N K"]:
        """log p(x_n, t_n = k | params), nats per row."""

    @abc.abstractmethod
    def log_likelihood(self, params: Params) -> Float[Array, ""]:
        """log p(X | params), nats, total over the rows."""


@dataclasses.dataclass(frozen=True)
class Latent:
    """An assignment: its values, and the shape of the site."""

    name: str
    values: tuple[Any, ...]
    shape: tuple[int, ...]


class NumPyroOracle(Oracle):
    """The densities of a program on its data."""

    def __init__(self, program: Callable[..., Any], data: tuple[Any, ...]):
        self.program = WholeNumbers(program)
        self.data = jax.tree.map(jnp.asarray, data)
        sites = self._trace({})
        num_rows = jax.tree.leaves(self.data)[0].shape[0]
        plates = {frame.name: frame for site in sites.values() for frame in site.get("cond_indep_stack", ())}
        # Components, or columns, may be as many as rows; assignments stand in the plate of the rows alone.
        (self.plate,) = {
            frame.name: frame
            for site in sites.values()
            if site["type"] == "sample" and not site["is_observed"] and site["fn"].has_enumerate_support
            for frame in site["cond_indep_stack"]
            if frame.size == num_rows
        }.values()
        self.num_rows, self.depth = num_rows, max(-frame.dim for frame in plates.values())
        self.local = [name for name, site in sites.items() if site["type"] == "sample" and self._is_inside(site)]
        self.latents = [
            Latent(name, tuple(np.asarray(sites[name]["fn"].enumerate_support(expand=False)).ravel()), shape)
            for name in self.local
            if not sites[name]["is_observed"]
            for shape in [jnp.shape(sites[name]["value"])]
        ]
        outside = [
            site for name, site in sites.items() if site["type"] in ("param", "sample") and name not in self.local
        ]
        self.constraints = {
            site["name"]: site["kwargs"].get("constraint", dist.constraints.real)
            if site["type"] == "param"
            else site["fn"].support
            for site in outside
            if site["type"] == "param" or not site["is_observed"]
        }
        self.num_numbers = sum(np.size(sites[name]["value"]) for name in self.local if sites[name]["is_observed"])

    def _trace(self, values: Params, data: tuple[Any, ...] | None = None) -> Any:
        seeded = handlers.seed(handlers.substitute(self.program, data=dict(values)), 0)
        with isolated():
            return handlers.trace(seeded).get_trace(*(self.data if data is None else data))

    def _is_inside(self, site: Mapping[str, Any]) -> bool:
        return any(frame.name == self.plate.name for frame in site["cond_indep_stack"])

    def runs(self, params: Params, data: tuple[Any, ...] | None = None) -> list[Sites]:
        """A run of the program for each joint value of its assignments, in row-major order of their appearance; on
        other ``data``, if any.
        """
        return [self._trace({**params, **values}, data) for values in self._assigned()]

    def runs_of(self, guide: Callable[..., Any], data: tuple[Any, ...]) -> list[Sites]:
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

    def log_joint(self, params: Params, data: tuple[Any, ...] | None = None) -> Float[Array, "N K"]:
        """log p(x_n, t_n = k | params), nats per row; of other ``data``, if any."""
        columns = [
            sum((self.by_row(_log_prob(sites[name])) for name in self.local), jnp.zeros(self.num_rows))
            for sites in self.runs(params, data)
        ]
        return jnp.stack(columns, axis=1)

    def condition(self, params: Params) -> Float[Array, "N K"]:
        """How far the table moves as all numbers of the data and the parameters move by their size, with signs at
        random: times the precision of a number, what is lost in writing them down. Nats, the largest of some tries.
        """
        leaves, tree = jax.tree.flatten((dict(params), self.data))
        moving = [place for place, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)]

        def table(values: list[Array]) -> Float[Array, "N K"]:
            given = list(leaves)
            for place, value in zip(moving, values, strict=True):
                given[place] = value
            return self.log_joint(*jax.tree.unflatten(tree, given))

        at = [jnp.asarray(leaves[place]) for place in moving]

        def moved(key: Array) -> Float[Array, "N K"]:
            keys = jax.random.split(key, len(at))
            signs = [jax.random.rademacher(of, jnp.shape(leaf), leaf.dtype) for of, leaf in zip(keys, at, strict=True)]
            moves = [sign * leaf for sign, leaf in zip(signs, at, strict=True)]
            return jnp.abs(jax.jvp(table, (at,), (moves,))[1])

        far = jax.lax.map(moved, jax.random.split(jax.random.key(0), _TRIES)).max(0)
        # What is impossible moves by nothing that is a number.
        return jnp.where(jnp.isfinite(far), far, 0.0)

    def log_prior(self, params: Params) -> Float[Array, ""]:
        """log p(params), and what a program adds beside its rows, nats."""
        sites = self._trace(params)
        return sum(
            (
                _log_prob(site).sum()
                for name, site in sites.items()
                if site["type"] == "sample" and name not in self.local
            ),
            jnp.zeros(()),
        )

    def log_likelihood(self, params: Params) -> Float[Array, ""]:
        """log p(X | params) by NumPyro's own enumeration, which eliminates t with funsor; nats, total over the rows."""
        log_density, enum, config_enumerate = _enumeration()
        enumerated = enum(config_enumerate(self.program), -1 - self.depth)
        with isolated():
            total, _ = log_density(enumerated, self.data, {}, dict(params))
        return total - self.log_prior(params)


class GivenOracle(Oracle):
    """A log density of somebody's own: ``function(params, *data)`` is log p(x_n, t_n = k | params), ``[N, K]``."""

    def __init__(self, function: Callable[..., Any], data: tuple[Any, ...], shape: tuple[int, int]):
        self.function, self.data, self.shape = function, data, shape
        #: Whether it was asked for its densities.
        self.was_asked = False

    def log_joint(self, params: Params) -> Float[Array, "N K"]:
        """The table as it is given, nats per row.

        Raises
        ------
        InputError
            For a table of another shape, and for an oracle that asks for a parameter that there is not.
        """
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

    def log_likelihood(self, params: Params) -> Float[Array, ""]:
        """Its logarithm of the sum of each row, nats, total over the rows."""
        return jax.nn.logsumexp(self.log_joint(params), axis=1).sum()


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


def _log_prob(site: Mapping[str, Any]) -> Float[Array, "..."]:
    log_prob = site["fn"].log_prob(jnp.asarray(site["value"]))
    return log_prob if site["scale"] is None else site["scale"] * log_prob


class WholeNumbers(handlers.Messenger):
    """Categories that are observed as floats, as NumPyro takes them."""

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample" or not msg["is_observed"] or "Categorical" not in _name(msg["fn"]):
            return
        value = jnp.asarray(msg["value"])
        if jnp.issubdtype(value.dtype, jnp.floating):
            msg["value"] = value.astype(int)


def _name(distribution: Any) -> str:
    """The name of a distribution without what is wrapped around it."""
    while hasattr(distribution, "base_dist") and distribution.base_dist is not None:
        distribution = distribution.base_dist
    return type(distribution).__name__


@functools.cache
def _enumeration() -> Any:
    try:
        from numpyro.contrib.funsor import config_enumerate, enum
        from numpyro.contrib.funsor.infer_util import log_density
    except ImportError:
        raise InputError(
            "no package funsor, with which NumPyro sums over assignments", "funsor", "pip install 'probem[cli]'"
        ) from None
    return log_density, enum, config_enumerate
