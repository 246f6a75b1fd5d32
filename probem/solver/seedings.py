"""Seeds: rows from which the components of a start grow, every row beginning with its nearest.

Seeds come in no order. Where the components of a program are not exchangeable (means ``low`` and ``low + d``, a vector
that is ordered, a component of a known density, entries that are fixed, priors that differ), they are given to the
components in the order with the highest F after the first M-step: of all orders up to four components (three, where
each takes a pass over the data), else of those sorted by a statistic and of exchanges of two.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from probem.data.compressed import CompressedBlock
from probem.errors import InputError
from probem.families.posteriors import lowest_argmax

# Seeds are drawn from at most this many bytes of rows, and no more rows than the block of small data holds.
_SEED_BYTES = 2**23
_SEED_CHUNK = 512


class FixedSeeds(NamedTuple):
    """Seeds that are given: their ``rows``, NaN where no value is known, and which of them are ``given``."""

    rows: Float[Array, "K F"]
    given: Bool[Array, " K"]


# How many roundings of a sum of squares may be left where all of it was taken off.
_MEETING = 64

# Seeds so far, and a number of every row by which the next is drawn.
_Drawn = tuple[Float[Array, "K F"], Float[Array, " n"]]


class Seeding(abc.ABC):
    """A way to draw seeds, which runs under ``jit`` and ``vmap``; every row then belongs to its nearest seed.

    A subclass of your own, immutable and hashable (a frozen dataclass), goes to ``init=``, and draws for every restart
    and every data set. ``takes_sparse_rows``: ``rows`` may also be a ``CompressedBlock``, of which non-zeros alone are
    stored.
    """

    takes_sparse_rows: ClassVar[bool] = False

    @abc.abstractmethod
    def seeds(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "n F"] | CompressedBlock,
        row_weights: Float[Array, " n"],
        num_seeds: int,
        fixed_seeds: FixedSeeds | None = None,
    ) -> Float[Array, "K F"]:
        """Seeds ``[K, F]``, such as rows with a positive weight, but for those that are fixed.

        Parameters
        ----------
        key : a JAX key
        rows : ``[n, F]``, NaN where a value is missing; some stand for no row, and have no weight. Sparse ones only if
            it ``takes_sparse_rows``
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

    takes_sparse_rows: ClassVar[bool] = True

    def seeds(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "n F"] | CompressedBlock,
        row_weights: Float[Array, " n"],
        num_seeds: int,
        fixed_seeds: FixedSeeds | None = None,
    ) -> Float[Array, "K F"]:
        ordered, row_weights, fixed = _in_order(rows, row_weights, fixed_seeds)

        def closer(distance: Float[Array, " n"], seed: Float[Array, " F"]) -> Float[Array, " n"]:
            return jnp.minimum(distance, ordered.squared_distances(seed))

        # The first is drawn by weight alone, and so is one when every row is a seed already.
        def mass(distance: Float[Array, " n"]) -> Float[Array, " n"]:
            return row_weights * jnp.where(jnp.isinf(distance), 1.0, distance)

        distance = jnp.full(row_weights.shape, jnp.inf, ordered.dtype)
        if fixed is not None:

            def add_fixed(number: Int[Array, ""], distance: Float[Array, " n"]) -> Float[Array, " n"]:
                return jnp.where(fixed.given[number], closer(distance, fixed.rows[number]), distance)

            distance = jax.lax.fori_loop(0, num_seeds, add_fixed, distance)
        return _drawn_in_turn(key, (ordered, row_weights, fixed), num_seeds, distance, mass, closer)


@dataclasses.dataclass(frozen=True)
class RandomRows(Seeding):
    """Start from seeds that are distinct rows, drawn with probability proportional to their weight.

    Every row then belongs to its nearest seed. From data in several blocks, at most 8192 rows are drawn from.
    """

    takes_sparse_rows: ClassVar[bool] = True

    def seeds(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "n F"] | CompressedBlock,
        row_weights: Float[Array, " n"],
        num_seeds: int,
        fixed_seeds: FixedSeeds | None = None,
    ) -> Float[Array, "K F"]:
        ordered, row_weights, fixed = _in_order(rows, row_weights, fixed_seeds)

        def left(weights: Float[Array, " n"], seed: Float[Array, " F"]) -> Float[Array, " n"]:
            return jnp.where(ordered.equal(seed), 0.0, weights)

        return _drawn_in_turn(key, (ordered, row_weights, fixed), num_seeds, row_weights, lambda weights: weights, left)


@dataclasses.dataclass(frozen=True)
class Lloyd(Seeding):
    """Start from the clusters of k-means: seeds of ``KMeansPlusPlus``, each moved to the mean of its rows in turn.

    Lloyd's algorithm, until no row changes its seed, ``max_steps`` times at most. Seeds that are fixed stay. An empty
    cluster moves to the row that is farthest from its seed, one in each step. Of a row with missing values, those that
    are there count. Of data in several blocks at most 8192 rows are clustered. Source: Lloyd (1982), Least squares
    quantization in PCM, section IV, method I.

    Parameters
    ----------
    max_steps : how often the seeds are moved at most
    """

    max_steps: int = 300

    def __post_init__(self) -> None:
        if not isinstance(self.max_steps, int) or isinstance(self.max_steps, bool) or self.max_steps < 0:
            raise InputError(f"Lloyd(max_steps={self.max_steps!r})", "a whole number from 0", "leave it out")

    def seeds(
        self,
        key: PRNGKeyArray,
        rows: Float[Array, "n F"],
        row_weights: Float[Array, " n"],
        num_seeds: int,
        fixed_seeds: FixedSeeds | None = None,
    ) -> Float[Array, "K F"]:
        seen, counted = ~jnp.isnan(rows), (row_weights > 0)[:, None]
        # In a unit near the range of the rows, which divides without rounding: squares are numbers, and not zero.
        low = jnp.where(seen & counted, rows, jnp.inf).min()
        high = jnp.where(seen & counted, rows, -jnp.inf).max()
        unit = jnp.ldexp(jnp.ones((), rows.dtype), jnp.frexp(high - low)[1])
        fixed = None if fixed_seeds is None else fixed_seeds._replace(rows=fixed_seeds.rows / unit)
        drawn = KMeansPlusPlus().seeds(key, rows / unit, row_weights, num_seeds, fixed)
        # Around their centre, where squares keep their digits.
        origin, here = drawn.mean(0), seen.astype(rows.dtype)
        values = jnp.where(seen & counted, rows / unit - origin, 0.0)

        def assigned(centres: Float[Array, "K F"]) -> tuple[Int[Array, " n"], Float[Array, " n"]]:
            """The nearest centre of every row, and the squared distance to it."""
            # Components first, as a table of the pass is.
            scores = centres @ values.T - 0.5 * (centres**2) @ here.T
            return lowest_argmax(scores.T), (values**2).sum(1) - 2.0 * scores.max(0)

        def step(now: _Clustered) -> _Clustered:
            centres, labels, distance, _, number = now
            weights = jax.nn.one_hot(labels, num_seeds, dtype=rows.dtype) * row_weights[:, None]
            masses = weights.T @ here
            means = jnp.where(masses > 0, weights.T @ values / jnp.where(masses > 0, masses, 1.0), centres)
            free = jnp.ones(num_seeds, bool) if fixed_seeds is None else ~fixed_seeds.given
            far = jnp.where(row_weights > 0, distance, 0.0)
            empty = free & (weights.sum(0) <= 0) & (far.max() > 64 * jnp.finfo(rows.dtype).eps)
            is_moved = empty & (jnp.cumsum(empty) == 1)
            means = jnp.where(is_moved[:, None], values[jnp.argmax(far)], means)
            centres = jnp.where(free[:, None], means, centres)
            after, distance = assigned(centres)
            changes = ((after != labels) & (row_weights > 0)).any() | empty.any()
            return _Clustered(centres, after, distance, changes, number + 1)

        centres = drawn - origin
        start = _Clustered(centres, *assigned(centres), jnp.asarray(True), jnp.asarray(0, jnp.int32))
        clustered = jax.lax.while_loop(lambda now: now.changes & (now.number < self.max_steps), step, start)
        return unit * (origin + clustered.centres)


@dataclasses.dataclass(frozen=True, eq=False)
class SeedingIn:
    """An initialiser that draws seeds where distances between rows are |M (x - y)|, for estimators that fit rows in a
    frame of their own.

    ``metric`` is M, or its diagonal; None for the unit matrix. ``fixed_seeds`` stay where they are, NaN where none is.
    Of many data sets both have an axis B.
    """

    seeding: Seeding
    metric: Float[np.ndarray, "*B F F"] | Float[np.ndarray, "*B F"] | None = None
    fixed_seeds: Float[np.ndarray, "*B K F"] | None = None


class _Clustered(NamedTuple):
    """k-means after a ``number`` of steps; whether the last one ``changes`` anything."""

    centres: Float[Array, "K F"]
    labels: Int[Array, " n"]
    distance: Float[Array, " n"]
    changes: Bool[Array, ""]
    number: Int[Array, ""]


def _drawn_in_turn(
    key: PRNGKeyArray,
    population: "tuple[_Ordered | _OrderedSparse, Float[Array, ' n'], FixedSeeds | None]",
    num_seeds: int,
    first: Float[Array, " n"],
    mass: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    after: Callable[[Float[Array, " n"], Float[Array, " F"]], Float[Array, " n"]],
) -> Float[Array, "K F"]:
    """Seeds drawn from the rows of a ``population`` (with weights, and seeds that are fixed), one after another.

    A number of every row, ``first`` to begin with, says by its ``mass`` how probable each is; it is another ``after`` a
    seed.
    """
    rows, row_weights, fixed = population

    def add_seed(number: Int[Array, ""], carry: _Drawn) -> _Drawn:
        seeds, numbers = carry
        masses = mass(numbers)
        drawn = rows.row(_draw(jax.random.fold_in(key, number), jnp.where((masses > 0).any(), masses, row_weights)))
        seed = drawn if fixed is None else jnp.where(fixed.given[number], fixed.rows[number], drawn)
        return jax.lax.dynamic_update_index_in_dim(seeds, seed, number, 0), after(numbers, seed)

    seeds = jnp.zeros((num_seeds, rows.num_columns), rows.dtype)
    return jax.lax.fori_loop(0, num_seeds, add_seed, (seeds, first))[0]


class _Ordered(NamedTuple):
    """Rows in order, equal ones together."""

    values: Float[Array, "n F"]

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def num_columns(self) -> int:
        return self.values.shape[1]

    def row(self, index: Int[Array, ""]) -> Float[Array, " F"]:
        return self.values[index]

    def squared_distances(self, seed: Float[Array, " F"]) -> Float[Array, " n"]:
        return ((self.values - seed[None, :]) ** 2).sum(1)

    def equal(self, seed: Float[Array, " F"]) -> Bool[Array, " n"]:
        return (self.values == seed[None, :]).all(1)


class _OrderedSparse(NamedTuple):
    """Sparse rows, and the order in which they are."""

    values: CompressedBlock
    order: Int[Array, " n"]

    @property
    def dtype(self) -> Any:
        return self.values.by_row.values.dtype

    @property
    def num_columns(self) -> int:
        return self.values.num_columns

    def row(self, index: Int[Array, ""]) -> Float[Array, " F"]:
        return self.values.taken(self.order[index][None])[0]

    def squared_distances(self, seed: Float[Array, " F"]) -> Float[Array, " n"]:
        """Of a row that is the seed it is zero, as are all of the differences."""
        moved = self.values.compared(seed[None, :], lambda x, y: jnp.where(x[:, None] != 0, (x[:, None] - y) ** 2, 0.0))
        # What the seed has where the row is zero: no less than nothing, and exactly nothing where they meet.
        met = self.values.compared(seed[None, :], lambda x, y: jnp.where(x[:, None] != 0, y**2, 0.0))
        square = (seed**2).sum()
        rest = jnp.where(square - met > _MEETING * jnp.finfo(seed.dtype).eps * square, square - met, 0.0)
        return (moved + rest)[self.order, 0]

    def equal(self, seed: Float[Array, " F"]) -> Bool[Array, " n"]:
        off = self.values.compared(seed[None, :], lambda x, y: ((x[:, None] != 0) & (x[:, None] != y)).astype(y.dtype))
        met = self.values.compared(seed[None, :], lambda x, y: ((x[:, None] != 0) & (y != 0)).astype(y.dtype))
        return ((off == 0) & (met == (seed != 0).sum()))[self.order, 0]


def _in_order(
    rows: Float[Array, "n F"] | CompressedBlock, row_weights: Float[Array, " n"], fixed: FixedSeeds | None
) -> tuple[_Ordered | _OrderedSparse, Float[Array, " n"], FixedSeeds | None]:
    """The rows, equal ones together, in an order that does not depend on the one in which they came.

    A value that is missing stands at the mean of its column.
    """
    if isinstance(rows, CompressedBlock):
        order = jnp.argsort(rows.times(_directions(rows.num_columns, rows.by_row.values.dtype)[None, :])[:, 0])
        return _OrderedSparse(rows, order), row_weights[order], fixed
    seen = ~jnp.isnan(rows)
    weights = row_weights[:, None] * seen
    means = jnp.where(seen, weights * rows, 0.0).sum(0) / jnp.maximum(weights.sum(0), jnp.finfo(rows.dtype).tiny)
    rows = jnp.where(seen, rows, means)
    if fixed is not None:
        fixed = fixed._replace(rows=jnp.where(jnp.isnan(fixed.rows), means, fixed.rows))
    order = jnp.argsort((rows * _directions(rows.shape[1], rows.dtype)).sum(1))
    return _Ordered(rows[order]), row_weights[order], fixed


def _directions(num_columns: int, dtype: Any) -> Float[Array, " F"]:
    """A direction, by the places along which rows are sorted; that two different rows share a place matters to no
    distribution.
    """
    return jnp.asarray(np.random.default_rng(0).normal(size=num_columns), dtype)


def _draw(key: PRNGKeyArray, mass: Float[Array, " n"]) -> Int[Array, ""]:
    """An index drawn with probability proportional to its mass, by inversion: equal neighbours count as one."""
    cumulative = jnp.cumsum(mass)
    place = jax.random.uniform(key, (), mass.dtype) * cumulative[-1]
    # Rounding must not lead past the last index that has any.
    last = jnp.searchsorted(cumulative, cumulative[-1], side="left")
    return jnp.minimum(jnp.searchsorted(cumulative, place, side="right"), last)


def seed_rows(row_bytes: int) -> int:
    """How many rows seeds are drawn from at most: a fixed number, so that a new N compiles nothing."""
    return max(4 * _SEED_CHUNK, _SEED_BYTES // max(row_bytes, 1) // _SEED_CHUNK * _SEED_CHUNK)


def nearest_seed(
    rows: Float[Array, "n F"] | CompressedBlock, seeds: Float[Array, "K F"], partial: bool = False
) -> Int[Array, " n"]:
    """The index of the nearest seed of every row, ties to the lowest.

    Where rows are ``partial``, by the values that are there.
    """
    if isinstance(rows, CompressedBlock):
        return lowest_argmax(rows.times(seeds) - 0.5 * (seeds**2).sum(1)[None, :])
    centre = seeds.mean(0, keepdims=True)
    rows, seeds = rows - centre, seeds - centre
    squares = 0.5 * (seeds**2).sum(1)[None, :]
    if partial:
        seen = ~jnp.isnan(rows)
        rows, squares = jnp.where(seen, rows, 0.0), 0.5 * seen.astype(rows.dtype) @ (seeds**2).T
    return lowest_argmax((seeds @ rows.T).T - squares)


def in_metric(
    rows: Float[Array, "n F"], metric: Float[Array, "F F"] | Float[Array, " F"] | None
) -> Float[Array, "n F"]:
    """Rows whose Euclidean distances are those of the metric; NaN stays where it is under a diagonal one."""
    if metric is None:
        return rows
    return rows * metric if metric.ndim == 1 else rows @ metric.T


def beside(fixed_seeds: FixedSeeds | None, rows: Float[Array, "K F"]) -> FixedSeeds:
    """More seeds that are fixed, NaN where none is; they come before those that known labels fix."""
    given = ~jnp.isnan(rows).any(1)
    if fixed_seeds is None:
        return FixedSeeds(rows, given)
    return FixedSeeds(jnp.where(given[:, None], rows, fixed_seeds.rows), given | fixed_seeds.given)
