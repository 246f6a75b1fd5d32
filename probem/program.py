"""Reading a NumPyro program: its sites, their roles, and the table of log joints, by handlers alone.

The table is the *meaning* of the program: every faster path must equal it.
"""

import dataclasses
import functools
import hashlib
import inspect
import math
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from .errors import InputError

Params = dict[str, Array]

# Programs are read at these numbers of rows, whatever the data has: a plate that follows the data follows both, and
# a new number of rows needs no new reading. Primes, so that no other size in a program is mistaken for the rows.
_READING_SIZES = (4099, 5003)

# Padding, probes with NaN, and a log density of minus infinity are all meant here; NumPyro's checks of values would
# object.
unchecked = numpyro.validation_enabled(False)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A discrete latent site inside the data plate: its values, and the axis ``dim`` along which they are
    enumerated.
    """

    name: str
    support: tuple[int | float, ...]
    dim: int

    @property
    def size(self) -> int:
        return len(self.support)


@dataclasses.dataclass(frozen=True)
class Global:
    """A site outside the data plate: a ``param`` (``has_prior`` False) or a latent ``sample`` site, and where it may
    lie.
    """

    name: str
    shape: tuple[int, ...]
    has_prior: bool
    constraint: constraints.Constraint


@dataclasses.dataclass(frozen=True)
class RowSpec:
    """Structure, trailing shapes and dtypes of the data arguments: all but the number of rows."""

    treedef: Any
    rows: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, data: tuple[Any, ...]) -> "RowSpec":
        leaves, treedef = jax.tree.flatten(data)
        return cls(treedef, tuple((tuple(leaf.shape[1:]), str(leaf.dtype)) for leaf in leaves))

    def abstract(self, num_rows: int) -> tuple[Any, ...]:
        leaves = [jax.ShapeDtypeStruct((num_rows, *shape), dtype) for shape, dtype in self.rows]
        return jax.tree.unflatten(self.treedef, leaves)

    def zeros(self, num_rows: int) -> tuple[Any, ...]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.abstract(num_rows))

    def examples(self, num_rows: int) -> tuple[Any, ...]:
        """Rows that most densities allow and that differ from each other: fractions, zeros and ones."""

        def values(leaf: Any) -> np.ndarray:
            numbers = np.arange(math.prod(leaf.shape)).reshape(leaf.shape)
            fractional = np.issubdtype(leaf.dtype, np.floating)
            return (0.2 + 0.6 * (0.618 * numbers % 1) if fractional else numbers % 2).astype(leaf.dtype)

        return jax.tree.map(values, self.abstract(num_rows))


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A NumPyro program, read: which site plays which role. Hashed by the identity of what was read."""

    function: Callable[..., Any]
    spec: RowSpec
    key: Hashable
    plate: str
    plate_dim: int
    assignments: tuple[Assignment, ...]
    observed: tuple[str, ...]
    globals: tuple[Global, ...]
    event_ndims: Mapping[str, int]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Program) and self.key == other.key

    @property
    def num_components(self) -> int:
        """Joint values of all assignment sites; value (t, z, ...) has the index of row-major order."""
        return math.prod(site.size for site in self.assignments)

    @property
    def enumeration_shape(self) -> tuple[int, ...]:
        return tuple(site.size for site in self.assignments)

    @property
    def local(self) -> tuple[str, ...]:
        return (*(site.name for site in self.assignments), *self.observed)

    @unchecked
    def enumerated_trace(
        self, params: Mapping[str, Array], data: tuple[Any, ...], seeded: bool = True
    ) -> dict[str, dict[str, Any]]:
        """Trace with every assignment site set to all its values, each on an axis of its own to the left.

        ``seeded=False`` leaves the keys of sites without a value to the handlers outside.
        """
        values = {
            site.name: jnp.asarray(site.support).reshape((site.size,) + (1,) * (-site.dim - 1))
            for site in self.assignments
        }
        substituted = handlers.substitute(self.function, data={**params, **values})
        data = jax.tree.map(jnp.asarray, data)
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

    def random_params(self, seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
        """Random values of every global site, on their constraints; ``scale`` times a normal number, unconstrained."""
        random = np.random.default_rng(seed)
        dtype = np.dtype(jnp.result_type(float))
        shapes = {site.name: self.bijection(site.name).inverse_shape(site.shape) for site in self.globals}
        values = {
            # The more entries, the smaller each: a random covariance matrix stays well-conditioned in any dimension.
            name: (scale * random.normal(size=shape) / max((1, *shape[-1:])) ** 0.25).astype(dtype)
            for name, shape in shapes.items()
        }
        return self._constrain(values)

    @functools.cached_property
    def _constrain(self) -> Callable[[Any], Any]:
        return concrete(lambda values: {name: self.bijection(name)(value) for name, value in values.items()})

    def log_joint(self, params: Mapping[str, Array], data: tuple[Any, ...]) -> Array:
        """The table log p(x_n, t_n = k | params), ``[N, K]``, nats, for the distributions as NumPyro has them."""
        return self.table(self.enumerated_trace(params, data), self.local)

    @unchecked
    def table(self, sites: Mapping[str, dict[str, Any]], names: tuple[str, ...]) -> Array:
        """The part of the table that comes from the sites named, ``[N, K]``."""
        num_rows = sites[self.plate]["value"].shape[0]
        total = jnp.zeros((*self.enumeration_shape, num_rows))
        for name in names:
            total = total + self._rows(sites[name], num_rows)
        return jnp.moveaxis(total, -1, 0).reshape(num_rows, self.num_components)

    def _rows(self, site: dict[str, Any], num_rows: int) -> Array:
        """Log probability of one site, ``[K_1, K_2, ..., N]``, size 1 where it does not depend on an assignment."""
        log_prob = site["fn"].log_prob(_broadcast(site["value"], site["fn"]))
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

    @unchecked
    def log_prior(self, params: Mapping[str, Array], sites: Mapping[str, dict[str, Any]] | None = None) -> Array:
        """log p(params), nats: the log density of every global sample site (and factor) at its value."""
        sites = self.enumerated_trace(params, self.spec.zeros(2)) if sites is None else sites
        total = jnp.zeros(())
        for name, site in sites.items():
            if site["type"] == "sample" and name not in self.local:
                log_prob = jnp.sum(site["fn"].log_prob(site["value"]))
                total = total + (log_prob if site["scale"] is None else log_prob * site["scale"])
        return total

    def observations(self, data: tuple[Any, ...]) -> dict[str, Array]:
        """The value of every observed site, rows on the axis of the data plate."""
        # The values of the parameters do not matter to the values observed.
        params = {site.name: jnp.zeros(site.shape) for site in self.globals}
        sites = self.enumerated_trace(params, data)
        return {name: jnp.asarray(sites[name]["value"]) for name in self.observed}


def _broadcast(value: Any, distribution: Any) -> Any:
    """The value as the density takes it: that of NumPyro's MultivariateNormal does not broadcast over its matrices."""
    base = distribution
    while hasattr(base, "base_dist"):
        base = base.base_dist
    if not base.event_shape:
        return value
    shape = (*distribution.batch_shape, *distribution.event_shape)
    return jnp.broadcast_to(value, jnp.broadcast_shapes(jnp.shape(value), shape))


def concrete(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled by itself: NumPy arrays in and out, even while a caller traces.

    What a program *is* does not depend on its data, and is found out with numbers, once.
    """
    compiled: dict[Any, Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        leaves, treedef = jax.tree.flatten(arguments)
        key = (treedef, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if key not in compiled:
            compiled[key] = jax.jit(function).lower(*arguments).compile()
        return jax.tree.map(np.asarray, compiled[key](*arguments))

    return call


def program_key(function: Callable[..., Any]) -> Hashable:
    """What makes two programs the same: the same function, bound to, closing over and naming equal values.

    A notebook changes a global and fits again: the program is then another one, though the function is the same object.
    """
    return _fingerprint(function, frozenset())


# Libraries do not change under a program; what they define stands for itself.
_LIBRARIES = ("jax", "jaxlib", "numpy", "numpyro", "builtins", "functools", "math")


def _fingerprint(value: Any, seen: frozenset[int]) -> Hashable:
    if id(value) in seen or isinstance(value, Tracer):
        return id(value)
    seen = seen | {id(value)}
    if isinstance(value, functools.partial):
        keywords = tuple((name, _fingerprint(own, seen)) for name, own in sorted(value.keywords.items()))
        return "partial", _fingerprint(value.func, seen), tuple(_fingerprint(own, seen) for own in value.args), keywords
    if isinstance(value, types.MethodType):
        return "method", value.__func__, _fingerprint(vars(value.__self__), seen)
    if isinstance(value, types.FunctionType):
        # A check of annotations around a function changes nothing that it says, and names half of its own library.
        while value.__globals__.get("__name__", "").startswith(("jaxtyping.", "beartype.")) and hasattr(
            value, "__wrapped__"
        ):
            value = value.__wrapped__
        if (value.__module__ or "").partition(".")[0] in _LIBRARIES:
            return value
        named = inspect.getclosurevars(value)
        outside = {**named.globals, **named.nonlocals}
        defaults = (value.__defaults__, value.__kwdefaults__)
        return value, _fingerprint(outside, seen), _fingerprint(defaults, seen)
    if isinstance(value, dict):
        return "dict", tuple((str(name), _fingerprint(own, seen)) for name, own in value.items())
    if isinstance(value, list | tuple):
        return type(value), tuple(_fingerprint(own, seen) for own in value)
    if isinstance(value, np.ndarray | jax.Array) and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        array = np.asarray(value)
        return "array", array.shape, str(array.dtype), hashlib.sha256(array.tobytes()).hexdigest()
    try:
        hash(value)
    except TypeError:
        return type(value), id(value)
    # With its type: True is 1 is 1.0 to a dictionary, but not to a program.
    return type(value), value


@functools.lru_cache(maxsize=256)
def _read(key: Hashable, wrapped: "_Wrapped", spec: RowSpec, precision: str) -> Program:
    function = wrapped.function
    sites, again = (_abstract_sites(function, spec, num_rows) for num_rows in _READING_SIZES)
    plate, plate_dim = _data_plate(sites, again)
    nesting = max(-frame.dim for site in sites.values() for frame in site.stack)
    assignments, observed, global_sites = [], [], []
    for name, site in sites.items():
        inside = any(frame.name == plate for frame in site.stack)
        if site.type == "param" or (site.type == "sample" and not inside and not site.observed):
            if site.shape != again[name].shape:
                flat = " (data with one dimension has no columns: pass x[:, None])"
                raise InputError(
                    f"the parameter '{name}' with one entry per row (shape {site.shape} at {_READING_SIZES[0]} rows)",
                    "parameters whose size does not follow the data",
                    "give it a fixed size" + (flat if any(not shape for shape, _ in spec.rows) else ""),
                )
        if site.type == "param":
            global_sites.append(Global(name, site.shape, False, site.constraint))
        elif site.type != "sample":
            continue
        elif inside:
            if len(site.batch_shape) > nesting:
                raise InputError(
                    f"the site '{name}' with batch shape {site.batch_shape}",
                    f"batch dimensions that are plates ({nesting} of them here)",
                    "declare the remaining ones with .to_event(...)",
                )
            if site.observed:
                observed.append(name)
            else:
                assignments.append(_assignment(name, site, plate, -nesting - 1 - len(assignments)))
        elif site.observed and not site.factor:
            raise InputError(
                f"the observation '{name}' outside the data plate",
                "every observed site inside it",
                f"indent it into the block of plate '{plate}'",
            )
        elif not site.observed:
            if site.discrete:
                raise InputError(
                    f"the discrete latent site '{name}' outside the data plate",
                    "discrete latent sites inside it, one value per row",
                    f"move it into plate '{plate}', or bind its value with handlers.condition",
                )
            global_sites.append(Global(name, site.shape, True, site.constraint))
    if not assignments:
        raise InputError(
            f"no discrete latent site in plate '{plate}'",
            "at least one assignment site such as numpyro.sample('t', dist.Categorical(weights))",
            "add one; a program without assignments needs no EM",
        )
    if not observed:
        raise InputError(
            f"no observed site in plate '{plate}'",
            "at least one numpyro.sample(..., obs=...)",
            "condition one of its sites on the data with obs=",
        )
    return Program(
        function,
        spec,
        (key, spec, precision),
        plate,
        plate_dim,
        tuple(assignments),
        tuple(observed),
        tuple(global_sites),
        {name: len(sites[name].event_shape) for name in observed},
    )


class _Wrapped:
    """Carries the function past the cache, which is keyed by ``program_key`` alone."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Wrapped)


def read(function: Callable[..., Any], data: tuple[Any, ...]) -> Program:
    """Read the program, given its data arguments (only their shapes and dtypes are looked at).

    Raises
    ------
    InputError
        If it is not a program with one plate over the rows, discrete latent sites and observed sites inside it, and
        nothing else inside it; the message names the site and the remedy.
    """
    if not callable(function):
        raise InputError(f"a program of type {type(function).__name__}", "a NumPyro program (a function)", "pass it")
    if not data:
        raise InputError(
            "no data argument",
            "the program's positional arguments, arrays with one row per observation",
            "write the program as a function of its data, and pass the data after it",
        )
    return _read(program_key(function), _Wrapped(function), RowSpec.of(data), str(jnp.result_type(float)))


@dataclasses.dataclass(frozen=True)
class _AbstractSite:
    type: str
    observed: bool
    factor: bool
    discrete: bool
    enumerable: bool
    shape: tuple[int, ...]
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    stack: tuple[Any, ...]
    size: tuple[int | None, ...]
    support: Any
    constraint: Any


@unchecked
def _abstract_sites(function: Callable[..., Any], spec: RowSpec, num_rows: int) -> dict[str, _AbstractSite]:
    """What can be said of every site without computing anything."""
    sites: dict[str, _AbstractSite] = {}
    elsewhere: dict[str, _AbstractSite] = {}

    def look(*data: Any) -> None:
        for name, site in handlers.trace(handlers.seed(function, 0)).get_trace(*data).items():
            sites[name] = _look_at(site)

    def look_elsewhere(*data: Any) -> None:
        moved = handlers.substitute(function, substitute_fn=_moved)
        for name, site in handlers.trace(handlers.seed(moved, 1)).get_trace(*data).items():
            elsewhere[name] = _look_at(site)

    shapes = ", ".join(str((num_rows, *shape)) for shape, _ in spec.rows)
    try:
        jax.eval_shape(look, *spec.abstract(num_rows))
        jax.eval_shape(look_elsewhere, *spec.abstract(num_rows))
        if any(_depends_on_values(site) for site in sites.values()):
            # The bounds of a support may be values of the program: then it has to run.
            with jax.ensure_compile_time_eval():
                look(*spec.zeros(num_rows))
                look_elsewhere(*spec.zeros(num_rows))
    except Exception as error:
        text = " ".join(str(error).split())
        raise InputError(
            f"{type(error).__name__} from the program on data of shape {shapes}: {text[:300]}",
            "a program that runs for any number of rows",
            "take the number of rows from the data (x.shape[0]), bind every other argument beforehand with"
            " functools.partial, and run it once under numpyro.handlers.seed to see the error whole",
        ) from error
    for name, site in elsewhere.items():
        here, there = jax.tree.leaves(sites[name].constraint), jax.tree.leaves(site.constraint)
        is_global = site.type == "param" or (site.type == "sample" and not site.observed and not site.discrete)
        if is_global and not all(np.array_equal(a, b) for a, b in zip(here, there, strict=True)):
            raise InputError(
                f"the site '{name}' with a support that depends on the values of other sites",
                "supports that stay where they are",
                "write it as a function of a site with a fixed support, such as low + width * fraction",
            )
    return sites


def _moved(site: dict[str, Any]) -> Any:
    """Another value for every parameter: what follows it in the program follows it there."""
    if site["type"] != "param" or callable(site["args"][0]):
        return None
    value = site["args"][0]
    # Plain numbers stay plain numbers, so that what is computed from them is known at once.
    return 0.9 * (value if isinstance(value, Tracer) else np.asarray(value)) + 0.01


def _look_at(site: dict[str, Any]) -> _AbstractSite:
    fn = site["fn"] if site["type"] == "sample" else None
    discrete = fn is not None and bool(getattr(fn.support, "is_discrete", False))
    enumerable = discrete and bool(fn.has_enumerate_support)
    support: Any = ()
    if enumerable and not site["is_observed"]:
        try:
            with jax.ensure_compile_time_eval():
                support = tuple(fn.enumerate_support(expand=False).reshape(-1).tolist())
        except jax.errors.ConcretizationTypeError:
            support = None
        except NotImplementedError:  # several values at once, which is refused further on
            support = ()
    return _AbstractSite(
        type=site["type"],
        observed=bool(site.get("is_observed", False)),
        factor=isinstance(fn, numpyro.distributions.Unit),
        discrete=discrete,
        enumerable=enumerable,
        shape=tuple(jnp.shape(site["value"])),
        batch_shape=() if fn is None else tuple(fn.batch_shape),
        event_shape=() if fn is None else tuple(fn.event_shape),
        stack=tuple(site.get("cond_indep_stack", ())),
        size=tuple(site["args"]) if site["type"] == "plate" else (),
        support=support,
        constraint=site.get("kwargs", {}).get("constraint", constraints.real) if fn is None else fn.support,
    )


def _depends_on_values(site: _AbstractSite) -> bool:
    latent = site.type == "param" or (site.type == "sample" and not site.observed)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(site.constraint))
    return latent and (site.support is None or (traced and not site.discrete))


def _data_plate(sites: dict[str, _AbstractSite], again: dict[str, _AbstractSite]) -> tuple[str, int]:
    remedy = "write the program with one 'with numpyro.plate(\"data\", x.shape[0]):' around what belongs to a row"
    plates = {name: site for name, site in sites.items() if site.type == "plate"}
    rows = [
        name
        for name, site in plates.items()
        if (site.size[0], again[name].size[0] if name in again else None) == _READING_SIZES
    ]
    if len(rows) == 1:
        name = rows[0]
        subsample = plates[name].size[1]
        if subsample is not None and subsample != plates[name].size[0]:
            raise InputError(
                f"the data plate '{name}' with subsample_size={subsample}",
                "a plate over all rows",
                "leave subsample_size out: the pass over the data is cut into chunks for you",
            )
        dims = {frame.dim for site in sites.values() for frame in site.stack if frame.name == name}
        if dims:
            return name, dims.pop()
        raise InputError(f"nothing inside the data plate '{name}'", "the assignment and observed sites in it", remedy)
    if rows:
        names = " and ".join(f"'{name}'" for name in rows)
        raise InputError(f"{len(rows)} plates over the rows ({names})", "exactly one", remedy)
    if plates:
        fixed = ", ".join(f"'{name}'" for name in plates)
        raise InputError(
            f"no plate over the rows (the size of {fixed} does not follow the number of rows)", "exactly one", remedy
        )
    raise InputError("no plate over the rows", "exactly one", remedy)


def _assignment(name: str, site: _AbstractSite, plate: str, dim: int) -> Assignment:
    if not site.discrete:
        raise InputError(
            f"the continuous latent site '{name}' inside the data plate",
            "only discrete latent sites (the assignments) there",
            "integrate it out by hand, make it a global site, or fit the program with NumPyro's SVI",
        )
    if not site.enumerable:
        raise InputError(
            f"the latent site '{name}' with infinitely many values inside the data plate",
            "assignment sites with finitely many values",
            "truncate it to a Categorical",
        )
    if (
        site.event_shape
        or math.prod(site.batch_shape) != site.batch_shape[[f.name for f in _frames(site)].index(plate)]
    ):
        raise InputError(
            f"the assignment site '{name}' with several values per row (shape {site.shape})",
            "one value per row",
            "take it out of the inner plate, or write one site for each value",
        )
    return Assignment(name, site.support, dim)


def _frames(site: _AbstractSite) -> list[Any]:
    """The plates of a site from left to right, as its batch shape has them."""
    by_dim = {frame.dim: frame for frame in site.stack}
    missing = next(iter(site.stack))._replace(name="")
    return [by_dim.get(dim, missing) for dim in range(-len(site.batch_shape), 0)]
