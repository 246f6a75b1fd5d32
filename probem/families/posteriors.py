"""q(t_n) of some rows, as families return it: dense, sparse, or a point mass."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from probem.data.blocks import Block


@runtime_checkable
class Assigned(Protocol):
    """What a projection returns: q(t_n) for n rows; every reduction is row by row, in nats."""

    def statistics(self, features: Float[Array, "n S"], rows: Block) -> tuple[Float[Array, " K"], Float[Array, "K S"]]:
        """Weighted counts sum_n w_n q_nk ``[K]`` and sums sum_n w_n q_nk features_n ``[K, S]``."""
        ...

    def expectation(self, table: Float[Array, "n K"]) -> Float[Array, " n"]:
        """E_q of a table ``[n, K]``, ``[n]``, nats per row; 0 * -inf counts as 0."""
        ...

    def entropy(self) -> Float[Array, " n"]:
        """H(q), ``[n]``, nats per row; zero for a point mass."""
        ...

    def dense(self) -> Float[Array, "n K"]:
        """The probabilities, ``[n, K]``."""
        ...


class Dense(NamedTuple):
    """Any q. What is added up is transposed: so the table, and what ``softmax`` makes of it, lie in memory.

    Attributes
    ----------
    q : ``[n, K]``, the probabilities
    log_q : ``[n, K]``, their logarithms
    """

    q: Float[Array, "n K"]
    log_q: Float[Array, "n K"]

    def statistics(self, features: Float[Array, "n S"], rows: Block) -> tuple[Float[Array, " K"], Float[Array, "K S"]]:
        weighted = self.q.T * rows.weights.astype(self.q.dtype)[None, :]
        return weighted.sum(1), weighted @ features

    def expectation(self, table: Float[Array, "n K"]) -> Float[Array, " n"]:
        return jnp.where(self.q.T == 0, 0.0, self.q.T * table.T).sum(0)

    def entropy(self) -> Float[Array, " n"]:
        return -jnp.where(self.q.T == 0, 0.0, self.q.T * self.log_q.T).sum(0)

    def dense(self) -> Float[Array, "n K"]:
        return self.q


class Sparse(NamedTuple):
    """A q that is zero outside C components of each row.

    Attributes
    ----------
    index : ``[n, C]``, these components
    q : ``[n, C]``, their probabilities
    log_q : ``[n, C]``, the logarithms
    zeros : ``[K]``, carries the number of components
    """

    index: Int[Array, "n C"]
    q: Float[Array, "n C"]
    log_q: Float[Array, "n C"]
    zeros: Float[Array, " K"]

    def statistics(self, features: Float[Array, "n S"], rows: Block) -> tuple[Float[Array, " K"], Float[Array, "K S"]]:
        weighted = self.q * rows.weights.astype(self.q.dtype)[:, None]
        counts = self.zeros.at[self.index].add(weighted)
        sums = jnp.zeros((self.zeros.shape[0], features.shape[1]), features.dtype)
        return counts, sums.at[self.index].add(weighted[:, :, None] * features[:, None, :])

    def expectation(self, table: Float[Array, "n K"]) -> Float[Array, " n"]:
        return jnp.where(self.q == 0, 0.0, self.q * jnp.take_along_axis(table, self.index, 1)).sum(1)

    def entropy(self) -> Float[Array, " n"]:
        return -jnp.where(self.q == 0, 0.0, self.q * self.log_q).sum(1)

    def dense(self) -> Float[Array, "n K"]:
        rows = jnp.arange(self.index.shape[0])[:, None]
        return jnp.zeros((self.index.shape[0], self.zeros.shape[0]), self.q.dtype).at[rows, self.index].add(self.q)


class Point(NamedTuple):
    """A point mass.

    Attributes
    ----------
    index : ``[n]``, the component of each row
    zeros : ``[K]``, carries the number of components
    """

    index: Int[Array, " n"]
    zeros: Float[Array, " K"]

    def statistics(self, features: Float[Array, "n S"], rows: Block) -> tuple[Float[Array, " K"], Float[Array, "K S"]]:
        # A scatter is twice as fast as the product with a one-hot matrix; padding points past the end and is dropped.
        index = jnp.where(rows.real, self.index, self.zeros.shape[0])
        sums = jnp.zeros((self.zeros.shape[0], features.shape[1]), features.dtype)
        if rows.row_weights is None:
            counts = jnp.zeros(self.zeros.shape, jnp.int32).at[index].add(1, mode="drop").astype(self.zeros.dtype)
            return counts, sums.at[index].add(features, mode="drop")
        weighted = rows.row_weights[:, None] * features
        return self.zeros.at[index].add(rows.row_weights, mode="drop"), sums.at[index].add(weighted, mode="drop")

    def expectation(self, table: Float[Array, "n K"]) -> Float[Array, " n"]:
        return jnp.take_along_axis(table, self.index[:, None], 1)[:, 0]

    def entropy(self) -> Float[Array, " n"]:
        return jnp.zeros(self.index.shape, self.zeros.dtype)

    def dense(self) -> Float[Array, "n K"]:
        return jax.nn.one_hot(self.index, self.zeros.shape[0], dtype=self.zeros.dtype)


def softmax(table: Float[Array, "n K"]) -> Dense:
    """The posterior of every row of a table ``[n, K]``."""
    # The maximum is taken out first. A row of -inf alone gets the uniform q, whose expectation of it is -inf and
    # shows up in the bound. To clip every entry costs nothing, to test every row a third of the pass.
    components = jnp.clip(table.T, jnp.finfo(table.dtype).min, jnp.finfo(table.dtype).max)
    # q does not depend on it, nor does a derivative: XLA may form the entries once more, with another rounding, and
    # then none of them is the maximum.
    centred = components - jax.lax.stop_gradient(components.max(0, keepdims=True))
    exponential = jnp.exp(centred)
    total = exponential.sum(0, keepdims=True)
    # One division and one logarithm a row, not one for each entry.
    q, log_q = exponential * (1.0 / total), centred - jnp.log(total)
    return Dense(q.T, log_q.T)


# Components that ``lowest_argmax`` takes in one go, without forming the table; and in each turn where there are more.
_ARGMAX_COMPONENTS, _ARGMAX_TURN = 32, 16


def lowest_argmax(table: Float[Array, "n K"]) -> Int[Array, " n"]:
    """argmax along the last axis of ``[n, K]``, ties to the lowest index, int32.

    The highest so far of all rows, component after component: a reduction over (value, index) takes three times as
    long, since XLA compares its pairs one by one. Some components at a time, so that what is compiled does not grow
    with K.
    """
    components = table.T

    def better(
        best: tuple[Array, Array], some: Float[Array, "k n"], first: Int[Array, ""] | int
    ) -> tuple[Array, Array]:
        for number in range(some.shape[0]):
            higher = some[number] > best[0]
            best = jnp.where(higher, some[number], best[0]), jnp.where(higher, first + number, best[1])
        return best

    def turn(number: Int[Array, ""], best: tuple[Array, Array]) -> tuple[Array, Array]:
        first = rest + number * _ARGMAX_TURN
        return better(best, jax.lax.dynamic_slice_in_dim(components, first, _ARGMAX_TURN), first.astype(jnp.int32))

    nothing = jnp.full(table.shape[0], -jnp.inf, table.dtype), jnp.zeros(table.shape[0], jnp.int32)
    if components.shape[0] <= _ARGMAX_COMPONENTS:
        return better(nothing, components, 0)[1]
    turns, rest = divmod(components.shape[0], _ARGMAX_TURN)
    return jax.lax.fori_loop(0, turns, turn, better(nothing, components[:rest], 0))[1]
