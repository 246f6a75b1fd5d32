"""The E half-step: one pass over the data, in chunks, to additive statistics. No N x K array is ever formed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from .bound import row_gap
from .data import Block, over_chunks
from .families import Assigned, Dense, Point
from .fixed import hold
from .linear import Linear
from .maximization import Statistics
from .program import Params

if TYPE_CHECKING:
    from .plan import Plan


# Beyond any log density that means something, and far enough from the largest float32 to be summed over columns.
LARGE = 1e30


class Prepared(NamedTuple):
    """What the pass needs of the data and is the same in every step: origins, totals, constants.

    ``totals`` [S] are the statistics summed over all rows: all that is needed of the columns that do not vary between
    components. ``log_base_measure`` is sum_n w_n h(x_n), nats; ``total_weight`` sum_n w_n. ``added_variance`` is that
    of the noise which the M half-step, and it alone, sees on the rows of location families.
    """

    shifts: Mapping[str, Array]
    totals: Array
    log_base_measure: Array
    total_weight: Array
    added_variance: Array | None = None


class Summary(NamedTuple):
    """Sums over rows: the additive statistics and the bound's local terms (nats)."""

    counts: Array
    sums: Array
    generic: Array
    entropy: Array
    gap: Array
    moved: Array
    gradient: Array


def zero_summary(plan: "Plan", num_gradient: int) -> Summary:
    """The sums over no rows; ``num_gradient`` is the number P of unconstrained values on the gradient route."""
    zero = jnp.zeros((), plan.dtype)
    return Summary(
        counts=jnp.zeros(plan.num_components, plan.dtype),
        sums=jnp.zeros((plan.num_components, len(plan.varying)), plan.dtype),
        generic=zero,
        entropy=zero,
        gap=zero,
        moved=jnp.zeros((), jnp.int32),
        gradient=jnp.zeros(num_gradient, plan.dtype),
    )


def linear(plan: "Plan", params: Params, prepared: Prepared) -> Linear:
    """E_q[W] and E_q[c] over all columns, in the dtype of the data."""
    return _finite(plan, plan.mean_field.linear(params, prepared.shifts))


def linear_at_points(plan: "Plan", points: Params, prepared: Prepared) -> Linear:
    """W and c at a value for every site, whatever its q."""
    return _finite(plan, plan.form.linear(points, prepared.shifts))


def _finite(plan: "Plan", found: Linear) -> Linear:
    # An infinite natural parameter (a rate of zero) times a statistic of zero is zero, which a matrix product cannot
    # know.
    weight = jnp.clip(found.weight.astype(plan.dtype), -LARGE, LARGE)
    return Linear(weight, found.offset.astype(plan.dtype))


def generic_table(plan: "Plan", params: Params, data: tuple[Any, ...]) -> Array:
    """The part of the table that only the program itself can give, ``[n, K]``."""
    sites = plan.program.enumerated_trace(plan.mean_field.points(params), data)
    return plan.program.table(sites, plan.form.generic).astype(plan.dtype)


def keep_features(plan: "Plan", block: Block, prepared: Prepared) -> Block:
    """The block with its statistics in place of its data, so that no pass forms them again."""
    phi = compute_features(plan, block.data, prepared)
    # Which row is fitted worst, only all of its columns say.
    needed = plan.form.generic or plan.family.fills_empty
    return block._replace(features=phi, data=block.data if needed else ())


def compute_features(plan: "Plan", data: tuple[Any, ...], prepared: Prepared) -> Array:
    """The columns of Phi that vary between components, ``[n, S']``."""
    return take_columns(plan.form.features(data, prepared.shifts).astype(plan.dtype), plan.varying)


def features(plan: "Plan", part: Block, prepared: Prepared) -> Array:
    """The same for a chunk, kept or computed."""
    return compute_features(plan, part.data, prepared) if part.features is None else part.features


def take_columns(phi: Array, columns: np.ndarray) -> Array:
    """Static columns of Phi, as slices where there are few runs of them: a slice costs nothing, a gather does."""
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    if len(runs) > 8:
        return phi[:, columns]
    return jnp.concatenate([phi[:, run[0] : run[-1] + 1] for run in runs], 1) if len(columns) else phi[:, :0]


def log_joint(plan: "Plan", phi: Array, lin: Linear, params: Params, data: tuple[Any, ...]) -> Array:
    """The table up to a constant of each row, ``[n, K]``: the columns that do not vary are left out."""
    table = phi @ take_columns(lin.weight, plan.varying).T + lin.offset[None, :]
    return table + generic_table(plan, params, data) if plan.form.generic else table


def accumulate(
    plan: "Plan",
    summary: Summary,
    labels: Sequence[Array],
    params: Params,
    lin: Linear,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Array] | None = None,
) -> tuple[Summary, tuple[Array, ...]]:
    """Add blocks to the summary; ``labels`` [B] are those of the step before and become those of this one.

    The blocks do not wait for each other: XLA runs what is independent in one computation side by side. ``held``
    replaces the family's projection by a given q: labels ``[B]`` or responsibilities ``[B, K]``.
    """
    moved = []
    for position, (block, before) in enumerate(zip(blocks, labels, strict=True)):
        own = None if held is None else held[position]

        def body(
            index: Array, part: Block, carry: tuple[Summary, Array], own: Array | None = own
        ) -> tuple[Summary, Array]:
            total, labels = carry
            phi = features(plan, part, prepared)
            table = known(log_joint(plan, phi, lin, params, part.data), part)
            q = _project(plan, table, own, index)
            count, labels = _moved(plan, q, labels, index, part)
            return add(total, _summarise(plan, q, table, phi, params, part, count)), labels

        nothing = jax.tree.map(jnp.zeros_like, summary)
        total, after = over_chunks(block, plan.chunk_rows(block.size), body, (nothing, before))
        summary = add(summary, total)
        moved.append(after)
    return summary, tuple(moved)


def known(table: Array, part: Block) -> Array:
    """The table ``[n, K]`` where an assignment is observed: no other value is possible."""
    if part.labels is None:
        return table
    own = part.labels[:, None]
    return jnp.where((own < 0) | (own == jnp.arange(table.shape[1])[None, :]), table, -jnp.inf)


def _project(plan: "Plan", table: Array, held: Array | None, index: Array) -> Assigned:
    if held is None:
        return plan.family.project(table)
    own = jax.lax.dynamic_slice_in_dim(held, index * len(table), len(table))
    if own.ndim == 1:
        return Point(own, jnp.zeros(plan.num_components, plan.dtype))
    return Dense(own, jnp.log(jnp.where(own > 0, own, 1.0)))


def add(first: Summary, second: Summary) -> Summary:
    """Summaries are additive."""
    return jax.tree.map(jnp.add, first, second)


def statistics(plan: "Plan", summary: Summary, prepared: Prepared) -> Statistics:
    """The statistics over all columns; of those that do not vary only the total matters: dealt out by count."""
    share = summary.counts / prepared.total_weight
    sums = share[:, None] * prepared.totals[None, :]
    return Statistics(summary.counts, sums.at[:, plan.varying].set(summary.sums), prepared.shifts)


def _moved(plan: "Plan", q: Assigned, labels: Array, index: Array, part: Block) -> tuple[Array, Array]:
    if not isinstance(q, Point) or not plan.family.is_point:
        return jnp.zeros((), jnp.int32), labels
    start = index * part.size
    before = jax.lax.dynamic_slice_in_dim(labels, start, part.size)
    moved = ((before != q.index) & part.real).sum(dtype=jnp.int32)
    return moved, jax.lax.dynamic_update_slice_in_dim(labels, q.index, start, 0)


def _summarise(
    plan: "Plan", q: Assigned, table: Array, phi: Array, params: Params, part: Block, moved: Array
) -> Summary:
    zero = jnp.zeros((), plan.dtype)
    counts, sums = q.statistics(phi, part)
    generic, gradient = zero, jnp.zeros(0, plan.dtype)
    if plan.gradient:
        (generic, gradient) = _generic_and_gradient(plan, q, params, part)
    elif plan.form.generic:
        generic = _weights(plan, part) @ q.expectation(generic_table(plan, params, part.data))
    entropy = zero if plan.family.is_point else _weights(plan, part) @ q.entropy()
    gap = _weights(plan, part) @ row_gap(table, q) if plan.record_gap and not plan.family.is_exact else zero
    return Summary(counts, sums, generic, entropy, gap, moved, gradient)


def _weights(plan: "Plan", rows: Block) -> Array:
    return rows.weights.astype(plan.dtype)


class Worst(NamedTuple):
    """The rows with the lowest log densities at their own point mass, ``[K]`` of them, worst first.

    ``log_density`` is infinite where there is none; ``features`` [K, S'] and ``weights`` [K] are what moves with a row.
    """

    log_density: Array
    features: Array
    labels: Array
    weights: Array


def no_worst(plan: "Plan", summary: Summary) -> Worst:
    """None so far."""
    count = plan.num_components
    return Worst(
        jnp.full(count, jnp.inf, plan.dtype),
        jnp.zeros_like(summary.sums),
        jnp.zeros(count, jnp.int32),
        jnp.zeros(count, plan.dtype),
    )


def add_worst(
    plan: "Plan", worst: Worst, summary: Summary, params: Params, lin: Linear, prepared: Prepared, block: Block
) -> Worst:
    """The worst of a block and of those before it, if there is a component without rows to give them to."""
    count = plan.num_components

    def body(index: Array, part: Block, worst: Worst) -> Worst:
        del index
        phi = plan.form.features(part.data, prepared.shifts).astype(plan.dtype)
        table = phi @ lin.weight.T + lin.offset[None, :]
        table = known(table + generic_table(plan, params, part.data) if plan.form.generic else table, part)
        q = plan.family.project(table)
        assert isinstance(q, Point)
        # A row whose assignment is known stays where it is.
        movable = (part.weights > 0) & (True if part.labels is None else part.labels < 0)
        own = jnp.where(movable, q.expectation(table), jnp.inf)
        found = Worst(own, take_columns(phi, plan.varying), q.index, _weights(plan, part))
        both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), worst, found)
        _, order = jax.lax.top_k(-both.log_density, count)
        return jax.tree.map(lambda leaf: leaf[order], both)

    # A loop of one turn at most: a condition would run both of its branches under vmap.
    def turn(carry: tuple[Array, Worst]) -> tuple[Array, Worst]:
        return jnp.asarray(False), over_chunks(block, plan.chunk_rows(block.size), body, carry[1])

    return jax.lax.while_loop(lambda carry: carry[0], turn, ((summary.counts <= 0).any(), worst))[1]


def filled(plan: "Plan", summary: Summary, worst: Worst) -> Summary:
    """The summary with one of the worst rows moved to each component without any, in order."""
    empty = summary.counts <= 0
    row = jnp.where(empty, jnp.cumsum(empty) - 1, 0)
    moves = empty & jnp.isfinite(worst.log_density[row])
    weights = jnp.where(moves, worst.weights[row], 0.0)
    features, sources = worst.features[row], worst.labels[row]
    counts = (summary.counts + weights).at[sources].add(-weights)
    moved = weights[:, None] * features
    return summary._replace(counts=counts, sums=(summary.sums + moved).at[sources].add(-moved))


def unconstrained(plan: "Plan", params: Params) -> tuple[Array, Any]:
    """The parameters of the gradient route as one vector in unconstrained space, and the way back."""
    bijections = {name: plan.program.bijection(name) for name in plan.gradient}
    flat, unravel = ravel_pytree({name: bijections[name].inv(params[name]) for name in plan.gradient})

    def back(vector: Array) -> Params:
        values = unravel(vector)
        found = {name: bijections[name](values[name]).astype(plan.dtype) for name in plan.gradient}
        held = {name: hold(plan.program, plan.fixed, name, own, params[name]) for name, own in found.items()}
        return {**params, **held}

    return flat.astype(plan.dtype), back


def _generic_and_gradient(plan: "Plan", q: Assigned, params: Params, part: Block) -> tuple[Array, Array]:
    flat, back = unconstrained(plan, params)

    def value(vector: Array) -> Array:
        return _weights(plan, part) @ q.expectation(generic_table(plan, back(vector), part.data))

    return jax.value_and_grad(value)(flat)


def accumulate_candidates(
    plan: "Plan",
    values: Array,
    candidates: Array,
    params: Params,
    lin: Linear,
    prepared: Prepared,
    block: Block,
    held: Array | None = None,
) -> Array:
    """Add to ``values`` [J] the expected generic log joint of each candidate ``[J, P]``, under q at ``params``."""
    _, back = unconstrained(plan, params)

    def body(index: Array, part: Block, total: Array) -> Array:
        table = known(log_joint(plan, features(plan, part, prepared), lin, params, part.data), part)
        q = _project(plan, table, held, index)

        def value(vector: Array) -> Array:
            return _weights(plan, part) @ q.expectation(generic_table(plan, back(vector), part.data))

        return total + jax.lax.map(value, candidates)

    return over_chunks(block, plan.chunk_rows(block.size), body, values)


def weighted_means(plan: "Plan", total: dict[str, Array], block: Block) -> dict[str, Array]:
    """Add sum_n w_n x_n of every observed site, and sum_n w_n, over one block."""

    def body(index: Array, part: Block, total: dict[str, Array]) -> dict[str, Array]:
        del index
        values = plan.program.observations(part.data)
        weights = _weights(plan, part)
        sums = {
            term.site: jnp.tensordot(weights, plan.form.events(term, values[term.site]).astype(plan.dtype), 1)
            for term in plan.form.data_terms
        }
        return jax.tree.map(jnp.add, total, {**sums, "": weights.sum()})

    return over_chunks(block, plan.chunk_rows(block.size), body, total)


def zero_means(plan: "Plan") -> dict[str, Array]:
    """An empty total for ``weighted_means``."""
    zeros = {term.site: jnp.zeros((term.copies, *term.event_shape), plan.dtype) for term in plan.form.data_terms}
    return {**zeros, "": jnp.zeros((), plan.dtype)}


def centred(plan: "Plan", total: dict[str, Array]) -> Prepared:
    """The origins, from the weighted sums; the totals are still to be added."""
    weight = total[""]
    means = {term.site: total[term.site] / weight for term in plan.form.data_terms}
    base = jnp.zeros(len(plan.form.data_terms), plan.dtype)
    return Prepared(plan.form.shifts(means), jnp.zeros(plan.form.num_columns, plan.dtype), base, weight)


def add_totals(plan: "Plan", prepared: Prepared, block: Block) -> Prepared:
    """Add one block to the totals of the statistics and of the base measure."""

    def body(index: Array, part: Block, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        del index
        phi = plan.form.features(part.data, prepared.shifts).astype(plan.dtype)
        base = plan.form.log_base_measure(part.data).astype(plan.dtype)
        weights = _weights(plan, part)
        return carry[0] + weights @ phi, carry[1] + weights @ base

    start = (prepared.totals, prepared.log_base_measure)
    totals, base = over_chunks(block, plan.chunk_rows(block.size), body, start)
    return prepared._replace(totals=totals, log_base_measure=base)


def prepare(plan: "Plan", blocks: Sequence[Block], call: Any) -> tuple[Prepared, list[Block]]:
    """Origins, totals and constants of the data, in two passes; and the blocks with what is worth keeping."""
    total = zero_means(plan)
    for block in blocks:
        total = call(weighted_means, None, None)(plan, total, block)
    prepared = call(centred, None)(plan, total)
    kept = []
    for block in blocks:
        prepared = call(add_totals, None, None)(plan, prepared, block)
        kept.append(call(keep_features, None, None)(plan, block, prepared) if plan.keeps_features else block)
    return prepared, kept
