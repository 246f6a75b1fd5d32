"""The pass over rows: how they are cut, which of them are computed side by side, and how results are added up.

Data comes in blocks of few sizes, so that a new number of rows compiles nothing; a block is gone through in
chunks, which the caches of the cores hold. Whatever looks at rows is a ``Reduction`` of chunks, handed to a ``Pass``:
it knows nothing of blocks, of padding, of restarts side by side, or of whether it runs inside a trace.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, Shaped

from probem.data.blocks import Block, chunk_of, num_entries, one_block, to_blocks
from probem.data.observations import Observations
from probem.form.statistics import DataTotals
from probem.jit.calls import Call, from_host, inline
from probem.jit.compilation import FEW_IN_STEPS, MANY_OF_POINTS, Effort
from probem.plan.plan import Plan

# Rows of the one block of few rows that are asked about once: what a call costs is then most of what an answer takes.
_FEW_ROWS = 128


class Chunk(NamedTuple):
    """n rows on their way through a reduction, the chunk of this ``index`` among all.

    ``beside`` belongs to these rows and may differ between restarts (labels, an initial q), ``[n, ...]`` each.
    """

    block: Block
    beside: Any
    index: Int[Array, ""]


def _added(total: Any, contribution: Any) -> Any:
    return jax.tree.map(jnp.add, total, contribution)


def _nothing(plan: Plan, beside: Any) -> None:
    del plan, beside


class Reduction(NamedTuple):
    """What is looked for in rows: ``of(plan, each, totals, chunk)`` returns what a chunk contributes, and new values
    for its rows (or None), ``[n, ...]``.

    ``each`` is whatever the reduction needs that differs between restarts. ``add`` joins contributions; ``blank(plan,
    beside)`` makes the rows of a block before any is known. ``is_parallel``: blocks need not wait for each other.
    """

    of: Callable[[Plan, Any, Any, Chunk], tuple[Any, Any]]
    add: Callable[[Any, Any], Any] = _added
    blank: Callable[[Plan, Any], Any] = _nothing
    is_parallel: bool = False


class Pass(NamedTuple):
    """Rows in blocks, and all that is known of them in every step (``totals``); ``restarts`` of them side by side.

    Compiled part by part from the host, or as it is inside a trace (``in_trace``).
    """

    plan: Plan
    blocks: Sequence[Block]
    totals: Any = None
    restarts: int = 1
    in_trace: bool = False

    @classmethod
    def of(cls, plan: Plan, rows: Observations, restarts: int = 1, is_once: bool = False) -> "Pass":
        """Rows on the host, in blocks: with little padding, unless they are gone through once."""
        num_rows = rows.num_rows
        block_rows = plan.cut(num_rows).block_rows if is_once else plan.pass_block_rows(num_rows)
        return cls(plan, list(to_blocks(rows, block_rows, plan.dtype)), restarts=restarts)

    @classmethod
    def traced(cls, plan: Plan, rows: Observations, unpadded: bool = False) -> "Pass":
        """Rows inside a trace, where their number is fixed: one block; ``unpadded`` if they are fewer than a chunk.

        Padded rows are added up as they are on the host, in the same order.
        """
        chunk_rows = plan.cut(rows.num_rows).chunk_rows
        block = one_block(rows, min(rows.num_rows, chunk_rows) if unpadded else chunk_rows, plan.dtype)
        return cls(plan, (block,), in_trace=True)

    @property
    def call(self) -> Call:
        """How a part of a step is run that looks at no rows."""
        return inline if self.in_trace else from_host(self.restarts > 1)

    @property
    def effort(self) -> Effort:
        """What compiling is worth for what goes over the rows in every step."""
        numbers = num_entries(self.blocks)
        if numbers < FEW_IN_STEPS:
            return Effort.LEAST
        is_repaid = self.plan.is_point and numbers * self.restarts >= MANY_OF_POINTS
        return Effort.MOST if is_repaid else Effort.LESS

    @property
    def block_rows(self) -> int:
        """The number of rows of every block."""
        return self.blocks[0].size

    @property
    def parallel_blocks(self) -> int:
        """How many blocks one call takes; restarts fill the machine, and the memory, by themselves."""
        return 1 if self.restarts > 1 else self.plan.cut(self.block_rows).parallel_blocks

    @property
    def alone(self) -> "Pass":
        """The rows for what is the same in every restart."""
        return self._replace(restarts=1)

    def split(self, values: Shaped[Array, "..."]) -> list[Shaped[Array, "..."]]:
        """Values of all rows, ``[N, ...]`` (over restarts ``[R, N, ...]``), block by block."""
        several = values if self.restarts > 1 else values[None]
        cuts = [
            [block.data[0] for block in to_blocks(Observations((leaf,)), self.block_rows, self.plan.dtype)]
            for leaf in several
        ]
        return [jnp.stack(parts) if self.restarts > 1 else parts[0] for parts in zip(*cuts, strict=True)]

    def reduce(
        self, reduction: Reduction, zero: Any, each: Any, beside: Sequence[Any] | None = None, wanted: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """All contributions added to ``zero``, and the new values of the rows, block by block.

        ``beside`` has an entry for every block. Nothing is computed unless it is ``wanted`` (a number, or None).
        """
        over_rows = self.call if self.in_trace else from_host(self.restarts > 1, self.effort)
        run = over_rows(_reduced(reduction), 0, 0, 0, 0, None)
        beside = [None] * len(self.blocks) if beside is None else beside
        together = self.parallel_blocks if reduction.is_parallel else 1
        total, values, first = zero, [], 0
        while first < len(self.blocks):
            # What is left over goes one by one, so that the number of blocks compiles nothing new.
            these = slice(first, first + (together if first + together <= len(self.blocks) else 1))
            common = (self.totals, tuple(self.blocks[these]), np.int32(first))
            total, after = run(self.plan, total, each, tuple(beside[these]), wanted, common)
            values.extend(after)
            first = these.stop
        return total, tuple(values)

    def map(
        self, function: Callable[[Plan, Any, Any, Chunk], Any], each: Any, beside: Sequence[Any] | None = None
    ) -> list[Any]:
        """``function(plan, each, totals, chunk)`` of every block, taken whole."""
        run = self.call(_mapped(function), 0, 0, None, None)
        beside = [None] * len(self.blocks) if beside is None else beside
        pairs = zip(self.blocks, beside, strict=True)
        return [run(self.plan, each, state, self.totals, block) for block, state in pairs]


def about_rows(
    plan: Plan,
    rows: Observations,
    function: Callable[..., Any],
    *arguments: Any,
    axis: int = 0,
    block_rows: int | None = None,
) -> Any:
    """What ``function(plan, *arguments, block)`` says of every row, along this axis; NumPy arrays, unless traced.

    The blocks are not kept.
    """
    parts: list[Any] = []
    num_rows = rows.num_rows
    if block_rows is None:
        block_rows = plan.cut(num_rows).block_rows
        block_rows = min(_FEW_ROWS, block_rows) if num_rows <= _FEW_ROWS else block_rows
    for block in to_blocks(rows, block_rows, plan.dtype, is_summed=False):
        parts.append(function(plan, *arguments, block))
        # One block is computed while the next is made ready.
        if len(parts) > 1:
            parts[-2] = jax.tree.map(_fetched, parts[-2])

    def joined(*leaves: Any) -> Any:
        xp = jnp if isinstance(leaves[0], Tracer) else np
        # To slice an array of JAX takes as long as to answer about few rows.
        whole = _fetched(leaves[0]) if len(parts) == 1 else xp.concatenate(leaves, axis)
        wanted = whole[(slice(None),) * axis + (slice(num_rows),)]
        # What JAX returns cannot be written to.
        return np.array(wanted) if isinstance(wanted, np.ndarray) and len(leaves) == 1 else wanted

    return joined(*parts) if isinstance(parts[0], jax.Array | np.ndarray) else jax.tree.map(joined, *parts)


def _fetched(leaf: Any) -> Any:
    """Traced in a guide that NumPyro compiles, it stays what it is."""
    return leaf if isinstance(leaf, Tracer) else np.asarray(leaf)


@functools.cache
def _reduced(reduction: Reduction) -> Callable[..., Any]:
    def reduced(
        plan: Plan,
        total: Any,
        each: Any,
        beside: tuple[Any, ...],
        wanted: Bool[Array, ""] | None,
        common: tuple[DataTotals | None, tuple[Block, ...], Int[Array, ""] | np.int32],
    ) -> tuple[Any, tuple[Any, ...]]:
        totals, blocks, first = common

        def body(chunk: Chunk, carry: Any) -> tuple[Any, Any]:
            contribution, values = reduction.of(plan, each, totals, chunk)
            return reduction.add(carry, contribution), values

        def go(numbered: _Numbered, start: Any) -> tuple[Any, Any]:
            blank = reduction.blank(plan, numbered.beside)
            return _over_chunks(numbered, plan.chunk_rows(numbered.block.size), body, start, blank)

        values = []
        for number, pair in enumerate(zip(blocks, beside, strict=True)):
            numbered = _Numbered(*pair, jnp.asarray(first + number, jnp.int32))
            if wanted is not None:
                # A loop of no or one round, since a branch would be taken in every step once restarts are mapped over.
                rounds = wanted.astype(jnp.int32)

                def once(_: Any, now: Any, numbered: _Numbered = numbered) -> Any:
                    # What does not depend on the round would be computed before the loop, wanted or not.
                    return go(*jax.lax.optimization_barrier((numbered, now)))[0]

                total = jax.lax.fori_loop(0, rounds, once, total)
                values.append(None)
                continue
            start = jax.tree.map(jnp.zeros_like, total) if reduction.is_parallel else total
            result, after = go(numbered, start)
            total = reduction.add(total, result) if reduction.is_parallel else result
            values.append(after)
        return total, tuple(values)

    return reduced


@functools.cache
def _mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    def mapped(plan: Plan, each: Any, beside: Any, totals: DataTotals | None, block: Block) -> Any:
        return function(plan, each, totals, Chunk(block, beside, jnp.zeros((), jnp.int32)))

    return mapped


class _Numbered(NamedTuple):
    """A block, what belongs to its rows, and its number among all blocks."""

    block: Block
    beside: Any
    number: Int[Array, ""]


def _over_chunks(
    numbered: _Numbered, chunk_rows: int, body: Callable[[Chunk, Any], tuple[Any, Any]], start: Any, blank: Any = None
) -> tuple[Any, Any]:
    """``body(chunk, carry)`` over the chunks of a block that hold a real row: the carry, and new values of the rows,
    written over those that are ``blank``.

    A block that is one chunk is used in place, without a loop, and whether or not any of its rows is real.
    """
    block, beside, number = numbered
    if block.size == chunk_rows:
        return body(Chunk(block, beside, number), start)
    first = number * (block.size // chunk_rows)
    count = (block.num_rows + chunk_rows - 1) // chunk_rows

    def turn(index: Int[Array, ""], carry: tuple[Any, Any]) -> tuple[Any, Any]:
        place = index * chunk_rows
        cut = jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, place, chunk_rows), beside)
        total, values = body(Chunk(chunk_of(block, index, chunk_rows), cut, first + index), carry[0])
        written = jax.tree.map(
            lambda all, new: jax.lax.dynamic_update_slice_in_dim(all, new.astype(all.dtype), place, 0), carry[1], values
        )
        return total, written

    return jax.lax.fori_loop(0, count, turn, (start, blank))


def map_chunks(plan: Plan, about: Callable[[Block], Any], block: Block) -> Any:
    """``about(chunk)`` of a block, ``[n, ...]``, chunk after chunk: what is formed on the way has few rows."""
    chunk_rows = plan.chunk_rows(block.size)
    if block.size == chunk_rows:
        return about(block)

    def body(index: Int[Array, ""]) -> Any:
        chunk = chunk_of(block, index, chunk_rows)
        nothing = jax.eval_shape(about, chunk)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), nothing)
        return jax.lax.cond(chunk.num_rows > 0, about, lambda _: zeros, chunk)

    # As many steps whatever the rows, so that it can be differentiated backwards.
    parts = jax.lax.map(body, jnp.arange(block.size // chunk_rows))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), parts)
