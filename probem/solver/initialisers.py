"""Where a fit starts: parameters, or a q from which the first M-step makes parameters.

An initialiser maps a key and the observed rows ``[N, F]`` to seeds, labels, responsibilities or parameters. The
named ones run under ``jit`` and ``vmap``.

Under hard labels a discrete density may get a probability of exactly zero for what no row of a component shows, and
zero is absorbing: no later step can leave it. In the first M-step a tenth of such a density, and of no other, is that
of all rows, wherever q came from. Where the probabilities of a discrete site are parameters of the gradient route, a
tenth of each labelled row is shared by all components instead; ``Responsibilities`` stay as they are on that route.

Seeds come in no order. Where the components of a program are not exchangeable (means ``low`` and ``low + d``, a vector
that is ordered, a component of a known density, entries that are fixed, priors that differ), they are given to the
components in the order with the highest F after the first M-step: of all orders up to four components (three, where
each takes a pass over the data), else of those sorted by a statistic and of exchanges of two. Known labels, and labels
given as a start, say themselves which component is which.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from probem.data.arrays import numeric
from probem.data.row_axes import RowAxes
from probem.errors import InputError
from probem.families.posteriors import lowest_argmax
from probem.program.program import Program
from probem.program.values import check_values, is_concrete

# Seeds are drawn from at most this many bytes of rows, and no more rows than the block of small data holds.
_SEED_BYTES = 2**23
_SEED_CHUNK = 512


class FixedSeeds(NamedTuple):
    """Seeds that are given: their ``rows``, NaN where no value is known, and which of them are ``given``."""

    rows: Float[Array, "K F"]
    given: Bool[Array, " K"]


# Seeds so far, and a number of every row by which the next is drawn.
_Drawn = tuple[Float[Array, "K F"], Float[Array, " n"]]


class Seeding(abc.ABC):
    """A way to draw seeds, which runs under ``jit`` and ``vmap``; every row then belongs to its nearest seed.

    A subclass of your own, immutable and hashable (a frozen dataclass), goes to ``init=``, and draws for every restart
    and every data set.
    """

    @abc.abstractmethod
    def seeds(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "n F"],
        row_weights: Float[Array, " n"],
        num_seeds: int,
        fixed_seeds: FixedSeeds | None = None,
    ) -> Float[Array, "K F"]:
        """Seeds ``[K, F]``, such as rows with a positive weight, but for those that are fixed.

        Parameters
        ----------
        key : a JAX key
        rows : ``[n, F]``, NaN where a value is missing; some stand for no row, and have no weight
        row_weights : ``[n]``, how often each row counts
        num_seeds : K
        fixed_seeds : those that known labels fix
        """


@dataclasses.dataclass(frozen=True)
class KMeansPlusPlus(Seeding):
    """Start from seeds drawn with probability proportional to the squared distance to the nearest seed drawn before.

    Every row then belongs to its nearest seed. Distances are Euclidean on the observed rows as they are. The draws
    depend on the set of rows alone, not on their order, and a row of weight 2 counts as two rows. Of data in several
    blocks at most 8192 rows, a random part for each restart, are drawn from. Source: Arthur & Vassilvitskii (2007),
    k-means++: the advantages of careful seeding, section 2.2.
    """

    def seeds(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "n F"],
        row_weights: Float[Array, " n"],
        num_seeds: int,
        fixed_seeds: FixedSeeds | None = None,
    ) -> Float[Array, "K F"]:
        rows, row_weights, fixed = _in_order(rows, row_weights, fixed_seeds)

        def closer(distance: Float[Array, " n"], seed: Float[Array, " F"]) -> Float[Array, " n"]:
            return jnp.minimum(distance, ((rows - seed[None, :]) ** 2).sum(1))

        def add_seed(number: Int[Array, ""], carry: _Drawn) -> _Drawn:
            seeds, distance = carry
            # The first is drawn by weight alone, and so is one when every row is a seed already.
            mass = row_weights * jnp.where(jnp.isinf(distance), 1.0, distance)
            mass = jnp.where((mass > 0).any(), mass, row_weights)
            drawn = rows[_draw(jax.random.fold_in(key, number), mass)]
            seed = drawn if fixed is None else jnp.where(fixed.given[number], fixed.rows[number], drawn)
            return seeds.at[number].set(seed), closer(distance, seed)

        seeds = jnp.zeros((num_seeds, rows.shape[1]), rows.dtype)
        distance = jnp.full(rows.shape[0], jnp.inf, rows.dtype)
        if fixed is not None:

            def add_fixed(number: Int[Array, ""], distance: Float[Array, " n"]) -> Float[Array, " n"]:
                return jnp.where(fixed.given[number], closer(distance, fixed.rows[number]), distance)

            distance = jax.lax.fori_loop(0, num_seeds, add_fixed, distance)
        return jax.lax.fori_loop(0, num_seeds, add_seed, (seeds, distance))[0]


@dataclasses.dataclass(frozen=True)
class RandomRows(Seeding):
    """Start from seeds that are distinct rows, drawn with probability proportional to their weight.

    Every row then belongs to its nearest seed. From data in several blocks, at most 8192 rows are drawn from.
    """

    def seeds(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "n F"],
        row_weights: Float[Array, " n"],
        num_seeds: int,
        fixed_seeds: FixedSeeds | None = None,
    ) -> Float[Array, "K F"]:
        rows, row_weights, fixed = _in_order(rows, row_weights, fixed_seeds)

        def add_seed(number: Int[Array, ""], carry: _Drawn) -> _Drawn:
            seeds, left = carry
            mass = jnp.where((left > 0).any(), left, row_weights)
            drawn = rows[_draw(jax.random.fold_in(key, number), mass)]
            left = jnp.where((rows == drawn[None, :]).all(1), 0.0, left)
            seed = drawn if fixed is None else jnp.where(fixed.given[number], fixed.rows[number], drawn)
            return seeds.at[number].set(seed), left

        seeds = jnp.zeros((num_seeds, rows.shape[1]), rows.dtype)
        return jax.lax.fori_loop(0, num_seeds, add_seed, (seeds, row_weights))[0]


def _in_order(
    rows: Float[Array, "n F"], row_weights: Float[Array, " n"], fixed: FixedSeeds | None
) -> tuple[Float[Array, "n F"], Float[Array, " n"], FixedSeeds | None]:
    """The rows, equal ones together, in an order that does not depend on the one in which they came.

    A value that is missing stands at the mean of its column.
    """
    seen = ~jnp.isnan(rows)
    weights = row_weights[:, None] * seen
    means = jnp.where(seen, weights * rows, 0.0).sum(0) / jnp.maximum(weights.sum(0), jnp.finfo(rows.dtype).tiny)
    rows = jnp.where(seen, rows, means)
    if fixed is not None:
        fixed = fixed._replace(rows=jnp.where(jnp.isnan(fixed.rows), means, fixed.rows))
    # Their places along one direction; that two different rows share a place matters to no distribution.
    directions = np.random.default_rng(0).normal(size=rows.shape[1])
    order = jnp.argsort((rows * jnp.asarray(directions, rows.dtype)).sum(1))
    return rows[order], row_weights[order], fixed


def _draw(key: PRNGKeyArray, mass: Float[Array, " n"]) -> Int[Array, ""]:
    """An index drawn with probability proportional to its mass, by inversion: equal neighbours count as one."""
    cumulative = jnp.cumsum(mass)
    place = jax.random.uniform(key, (), mass.dtype) * cumulative[-1]
    # Rounding must not lead past the last index that has any.
    last = jnp.searchsorted(cumulative, cumulative[-1], side="left")
    return jnp.minimum(jnp.searchsorted(cumulative, place, side="right"), last)


@dataclasses.dataclass(frozen=True, eq=False)
class Parameters:
    """Start at given parameters.

    Parameters
    ----------
    values : by site name; of a site with a full posterior, the arguments of its q
    others : any other initialiser, which starts the sites left out; without it they start at the program's initial
        values

    Raises
    ------
    InputError
        If ``values`` are not by site name.
    """

    values: Mapping[str, Any]
    others: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.values, Mapping):
            raise InputError(
                f"Parameters of a {type(self.values).__name__}", "values by site name", "write Parameters({'loc': ...})"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Start with the M-step under a hard assignment.

    A probability of exactly zero, which no step could leave again, is softened: a discrete density that has such a
    probability is made of nine tenths of these rows and one tenth of all. For a start at zero, give it as
    ``Parameters``.

    Parameters
    ----------
    values : ``[N]``, whole numbers in 0..K-1
    """

    values: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Responsibilities:
    """Start with the M-step under a given q. Estimates of zero are softened as under ``Labels``.

    Parameters
    ----------
    values : ``[N, K]``, rows on the simplex
    """

    values: Any


GivenStart = Parameters | Labels | Responsibilities
Initializer = Seeding | GivenStart | Callable[[PRNGKeyArray, Float[Array, "N F"]], Any]


def seed_rows(row_bytes: int) -> int:
    """How many rows seeds are drawn from at most: a fixed number, so that a new N compiles nothing."""
    return max(4 * _SEED_CHUNK, _SEED_BYTES // max(row_bytes, 1) // _SEED_CHUNK * _SEED_CHUNK)


def nearest_seed(rows: Float[Array, "n F"], seeds: Float[Array, "K F"], partial: bool = False) -> Int[Array, " n"]:
    """The index of the nearest seed of every row, ties to the lowest.

    Where rows are ``partial``, by the values that are there.
    """
    centre = seeds.mean(0, keepdims=True)
    rows, seeds = rows - centre, seeds - centre
    squares = 0.5 * (seeds**2).sum(1)[None, :]
    if partial:
        seen = ~jnp.isnan(rows)
        rows, squares = jnp.where(seen, rows, 0.0), 0.5 * seen.astype(rows.dtype) @ (seeds**2).T
    return lowest_argmax((seeds @ rows.T).T - squares)


def as_given_start(value: Any) -> GivenStart:
    """What a callable initialiser returned: parameters, labels or responsibilities."""
    if isinstance(value, GivenStart):
        return value
    if isinstance(value, Mapping):
        return Parameters(value)
    ndim = np.ndim(value)
    if ndim == 1:
        return Labels(value)
    if ndim == 2:
        return Responsibilities(value)
    raise InputError(
        f"{type(value).__name__} with {ndim} dimensions from the initialiser",
        "parameters by name, labels [N] or responsibilities [N, K]",
        "return one of them",
    )


def check_given_start(given: GivenStart, program: Program, axes: RowAxes) -> GivenStart:
    """The start with its arrays as numbers of the right shape, on their constraints.

    Raises
    ------
    InputError
        Naming the site, what was got and what was expected.
    """
    if isinstance(given, Parameters):
        return Parameters(check_values(given.values, program, lead=axes.shape[:-1]))
    count = program.num_components
    name, shape = ("labels", axes.shape) if isinstance(given, Labels) else ("responsibilities", (*axes.shape, count))
    values = numeric(given.values, f"initial {name}" if axes.num_sets is None else "the start")
    if values.shape != shape:
        remedy = "give one label for each row"
        if isinstance(given, Responsibilities):
            remedy = "give one row for each row of the data and one column for each component"
        raise InputError(f"initial {name} of shape {values.shape}", f"shape {shape}", remedy)
    if isinstance(given, Labels):
        if is_concrete(values):
            labels = np.asarray(values)
            if not (np.equal(np.mod(labels, 1), 0).all() and (labels >= 0).all() and (labels < count).all()):
                raise InputError(
                    f"initial labels from {labels.min()} to {labels.max()}",
                    f"whole numbers in 0..{count - 1}",
                    "number the components from zero",
                )
        return Labels(values.astype(np.int32))
    if is_concrete(values):
        rows = np.asarray(values, float).reshape(-1, count)
        off = np.flatnonzero(~(np.isfinite(rows).all(1) & (rows >= 0).all(1) & (np.abs(rows.sum(1) - 1) < 1e-4)))
        if off.size:
            raise InputError(
                f"initial responsibilities with {off.size} rows off the simplex (the first is"
                f" {axes.rows_in_words(off[:1])})",
                "rows that are not negative and sum to 1",
                "divide every row by its sum",
            )
    return Responsibilities(values)
