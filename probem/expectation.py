"""The E half-step: one pass over the data, in chunks, to additive statistics. No N x K array is ever formed."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import completion
from .bound import row_gap
from .coordinates import coordinates, simplex_names
from .data import Block, over_chunks
from .families import Assigned, Dense, Point
from .linear import Linear, Term, poisoned
from .maximization import Statistics
from .program import Params
from .softening import soften_labels

if TYPE_CHECKING:
    from .plan import Plan


def impossible(dtype: Any) -> float:
    """The size that stands for an infinite natural parameter in a matrix product, where zero times it must be zero.

    Near the largest number of the dtype: no log density of rows whose squares are finite comes so far, in any unit.
    """
    return float(jnp.finfo(dtype).max) / 2**10


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
    """Sums over rows: the additive statistics and the bound's local terms (nats).

    ``entropy`` is that of the assignments, ``filled`` that of the entries that were filled in. ``noise`` [K] sums a
    pseudo-random number of each row, where a density is generic: components with equal shares of every row have equal
    means of it, and other components do not. ``generic`` [K] is the expected log joint on the generic path, and
    ``highest`` [K] the sum of the log densities that would know each of its ``plan.continuous`` values to rounding.
    """

    counts: Array
    sums: Array
    noise: Array
    highest: Array
    generic: Array
    entropy: Array
    filled: Array
    gap: Array
    moved: Array
    gradient: Array


def zero_summary(plan: "Plan", num_gradient: int) -> Summary:
    """The sums over no rows; ``num_gradient`` is the number P of unconstrained values on the gradient route."""
    zero = jnp.zeros((), plan.dtype)
    by_component = jnp.zeros(plan.num_components if plan.form.generic else 0, plan.dtype)
    return Summary(
        counts=jnp.zeros(plan.num_components, plan.dtype),
        sums=jnp.zeros((plan.num_components, len(plan.varying)), plan.dtype),
        noise=by_component,
        highest=by_component,
        generic=by_component,
        entropy=zero,
        filled=zero,
        gap=zero,
        moved=jnp.zeros((), jnp.int32),
        gradient=jnp.zeros(num_gradient, plan.dtype),
    )


def linear(plan: "Plan", params: Params, prepared: Prepared) -> Linear:
    """E_q[W] and E_q[c] over all columns, in the dtype of the data; what is impossible has an infinite W."""
    return _in_dtype(plan, plan.mean_field.linear(params, prepared.shifts))


def linear_at_points(plan: "Plan", points: Params, prepared: Prepared) -> Linear:
    """W and c at a value for every site, whatever its q."""
    return _in_dtype(plan, plan.form.linear(points, prepared.shifts))


def _in_dtype(plan: "Plan", found: Linear) -> Linear:
    return Linear(*(part.astype(plan.dtype) for part in found))


def inner(phi: Array, weight: Array) -> Array:
    """<T(x_n), eta_k> over some columns, ``[n, K]`` of ``[n, S]`` and ``[K, S]``.

    An infinite natural parameter (of a rate of zero) times a statistic of zero is zero, which a matrix product cannot
    know: it is held finite there. A natural parameter that is finite is what it is, however large its unit makes it.
    """
    most = impossible(weight.dtype)
    return phi @ jnp.clip(weight, -most, most).T


def generic_table(plan: "Plan", params: Params, part: Block) -> Array:
    """The part of the table that only the program itself can give, ``[n, K]``."""
    sites = plan.program.enumerated_trace(plan.mean_field.points(params), part.data)
    observed = plan.form.generic_observed(part.data, part.missing) if plan.form.partial else None
    return plan.program.table(sites, plan.form.generic, observed).astype(plan.dtype)


def compute_features(plan: "Plan", rows: Block, prepared: Prepared) -> Array:
    """The columns of Phi that vary between components, ``[n, S']``."""
    return take_columns(all_features(plan, rows, prepared), plan.varying)


def all_features(plan: "Plan", rows: Block, prepared: Prepared) -> Array:
    """Phi, ``[n, S]``."""
    return plan.form.features(rows.data, prepared.shifts, rows.missing).astype(plan.dtype)


def features(plan: "Plan", part: Block, prepared: Prepared) -> Array:
    """The same for a chunk, kept or computed."""
    return compute_features(plan, part, prepared) if part.features is None else part.features


def take_columns(phi: Array, columns: np.ndarray) -> Array:
    """Static columns of Phi, as slices where there are few runs of them: a slice costs nothing, a gather does."""
    runs = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    if len(runs) > 8:
        return phi[:, columns]
    return jnp.concatenate([phi[:, run[0] : run[-1] + 1] for run in runs], 1) if len(columns) else phi[:, :0]


class Rows(NamedTuple):
    """What the pass forms of a chunk of n rows.

    ``table`` [n, K] holds the log joints, up to a constant of each row: ``features`` [n, S'] has the columns that vary.
    """

    table: Array
    features: Array
    completed: Mapping[str, completion.Completed]


def look_at(plan: "Plan", part: Block, lin: Linear, params: Params, prepared: Prepared) -> Rows:
    """The rows as they are under each component."""
    rows = _look_at_forms(plan, part, lin, prepared)
    table = rows.table + generic_table(plan, params, part) if plan.form.generic else rows.table
    return rows._replace(table=known(table, part))


def _look_at_forms(plan: "Plan", part: Block, lin: Linear, prepared: Prepared) -> Rows:
    """The rows by the sites with an exponential-family form alone."""
    phi = features(plan, part, prepared)
    table = inner(phi, take_columns(lin.weight, plan.varying)) + lin.offset[None, :]
    completed = completion.complete(plan.form, lin, part, prepared)
    for own in completed.values():
        table = table + own.table
    return Rows(table, phi, completed)


class Held(NamedTuple):
    """A q that takes the place of the projection of the family: labels ``[B]`` or responsibilities ``[B, K]``.

    ``active`` says whether it does, as a number: the same computation then serves steps with and without it. None is
    for good.
    """

    q: Array
    active: Array | None = None


def accumulate(
    plan: "Plan",
    summary: Summary,
    labels: Sequence[Array],
    params: Params,
    lin: Linear,
    prepared: Prepared,
    blocks: Sequence[Block],
    held: Sequence[Held] | None = None,
) -> tuple[Summary, tuple[Array, ...]]:
    """Add blocks to the summary; ``labels`` [B] are those of the step before and become those of this one.

    The blocks do not wait for each other: XLA runs what is independent in one computation side by side. ``held``
    replaces the family's projection by a given q.
    """
    moved = []
    for position, (block, before) in enumerate(zip(blocks, labels, strict=True)):
        own = None if held is None else held[position]

        def body(
            index: Array, part: Block, carry: tuple[Summary, Array], own: Held | None = own
        ) -> tuple[Summary, Array]:
            total, labels = carry
            rows = look_at(plan, part, lin, params, prepared)
            q = _project(plan, rows.table, own, index)
            count, labels = _moved(plan, q, labels, index, part)
            return add(total, _summarise(plan, q, rows, params, part, index, count)), labels

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


def _project(plan: "Plan", table: Array, held: Held | None, index: Array) -> Assigned:
    if held is None:
        return plan.family.project(table)
    given = given_assignments(plan, held.q, index, len(table))
    if held.active is None:
        return given
    free = plan.family.project(table)
    if isinstance(free, Dense):
        given = _dense(given.dense())
    return jax.tree.map(functools.partial(jnp.where, held.active), given, free)


def can_be_released(plan: "Plan", labels: bool) -> bool:
    """Whether one computation can serve a held q (``labels`` or responsibilities) and that of the family."""
    table = jax.ShapeDtypeStruct((2, plan.num_components), plan.dtype)
    free = jax.eval_shape(plan.family.project, table)
    return isinstance(free, Dense) or (isinstance(free, Point) and labels and not plan.softens_labels)


def softened(plan: "Plan", labels: Array, params: Params, lin: Linear, prepared: Prepared, block: Block) -> Array:
    """Responsibilities ``[B, K]`` for labels ``[B]``: a tenth of each row for all components that are possible there.

    What is possible is asked at ``params`` once: a q that followed the table would let go of its labels.
    """

    def body(index: Array, part: Block, q: Array) -> Array:
        own = jax.lax.dynamic_slice_in_dim(labels, index * part.size, part.size)
        table = look_at(plan, part, lin, params, prepared).table
        return jax.lax.dynamic_update_slice_in_dim(q, soften_labels(own, table), index * part.size, 0)

    blank = jnp.zeros((block.size, plan.num_components), plan.dtype)
    return over_chunks(block, plan.chunk_rows(block.size), body, blank)


def _dense(q: Array) -> Dense:
    return Dense(q, jnp.log(jnp.where(q > 0, q, 1.0)))


def given_assignments(plan: "Plan", held: Array, index: Array, num_rows: int) -> Assigned:
    """The q of one chunk of so many rows out of one that is held, labels ``[B]`` or responsibilities ``[B, K]``."""
    own = jax.lax.dynamic_slice_in_dim(held, index * num_rows, num_rows)
    if own.ndim == 1:
        return Point(own, jnp.zeros(plan.num_components, plan.dtype))
    return _dense(own)


def add(first: Summary, second: Summary) -> Summary:
    """Summaries are additive."""
    return jax.tree.map(jnp.add, first, second)


def statistics(plan: "Plan", summary: Summary, prepared: Prepared) -> Statistics:
    """The statistics over all columns; of those that do not vary only the total matters: dealt out by count."""
    if plan.form.indicators is None:
        share = (summary.counts / prepared.total_weight)[:, None]
    else:
        where = np.searchsorted(plan.varying, plan.form.indicators)
        events = summary.sums[:, where]
        share = events / jnp.where(events.sum(0) > 0, events.sum(0), 1.0)
    sums = share * prepared.totals[None, :]
    return Statistics(summary.counts, sums.at[:, plan.varying].set(summary.sums), prepared.shifts)


def _moved(plan: "Plan", q: Assigned, labels: Array, index: Array, part: Block) -> tuple[Array, Array]:
    if not isinstance(q, Point):
        return jnp.zeros((), jnp.int32), labels
    start = index * part.size
    before = jax.lax.dynamic_slice_in_dim(labels, start, part.size)
    moved = ((before != q.index) & (part.weights > 0)).sum(dtype=jnp.int32)
    return moved, jax.lax.dynamic_update_slice_in_dim(labels, q.index.astype(labels.dtype), start, 0)


def _summarise(
    plan: "Plan", q: Assigned, rows: Rows, params: Params, part: Block, index: Array, moved: Array
) -> Summary:
    zero = jnp.zeros((), plan.dtype)
    features, noise, highest = rows.features, jnp.zeros(0, plan.dtype), jnp.zeros(0, plan.dtype)
    if plan.form.generic:
        beside = jnp.stack([_noise(plan, index, len(features)), _highest(plan, part, len(features))], 1)
        features = jnp.concatenate([features, beside], 1)
    counts, sums = q.statistics(features, part)
    if plan.form.generic:
        sums, noise, highest = sums[:, :-2], sums[:, -2], sums[:, -1]
    if plan.form.completing:
        weights = row_weights(plan, part)[:, None] * q.dense()
        for term in plan.form.completing:
            found = completion.expected_features(term, rows.completed[term.site])
            sums = sums.at[:, statistics_of(plan, term)].set((weights[:, :, None] * found).sum(0))
    generic, gradient = jnp.zeros(0, plan.dtype), jnp.zeros(0, plan.dtype)
    if plan.gradient:
        (generic, gradient) = _generic_and_gradient(plan, q, params, part)
    elif plan.form.generic:
        generic = _by_component(row_weights(plan, part)[:, None] * q.dense(), generic_table(plan, params, part))
    entropy = zero if plan.is_point else row_weights(plan, part) @ q.entropy()
    filled = zero
    for completed in rows.completed.values():
        filled = filled + row_weights(plan, part) @ q.expectation(completed.entropy)
    gap = row_weights(plan, part) @ row_gap(rows.table, q) if plan.record_gap and not plan.family.is_exact else zero
    return Summary(counts, sums, noise, highest, generic, entropy, filled, gap, moved, gradient)


def _highest(plan: "Plan", part: Block, num_rows: int) -> Array:
    """The log density, nats, of each row ``[n]`` that would know every ``plan.continuous`` value to rounding: the
    density of a value is one over 64 times the precision times the value, and as good as infinite at zero.
    """
    total = jnp.zeros(num_rows, plan.dtype)
    if not plan.continuous:
        return total
    dtype = jnp.finfo(plan.dtype)
    data = part.data if part.missing is None else poisoned(part.data, part.missing)
    values = plan.program.observations(data)
    for name in plan.continuous:
        size = jnp.abs(plan.form.flat(name, values[name], num_rows)).astype(plan.dtype)
        width = jnp.maximum(64 * dtype.eps * size, dtype.tiny)
        total = total - jnp.where(jnp.isnan(size), 0.0, jnp.log(width)).sum(1)
    return total


def _noise(plan: "Plan", index: Array, num_rows: int) -> Array:
    """Numbers in [-1, 1] that nothing in the data follows, one for each row of a chunk: a hash of its place."""
    place = (index * num_rows + jnp.arange(num_rows)).astype(jnp.uint32)
    mixed = place * jnp.uint32(2654435761)
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(2246822519)
    return (mixed >> 8).astype(plan.dtype) * 2.0**-23 - 1.0


def statistics_of(plan: "Plan", term: Term) -> np.ndarray:
    """Where the statistics of a term that completes are among the columns that vary."""
    own = plan.form.columns(term)
    return np.searchsorted(plan.varying, np.arange(own.start, own.stop - term.copies))


def row_weights(plan: "Plan", rows: Block) -> Array:
    """How often every row counts, ``[n]``, in the dtype of the data."""
    return rows.weights.astype(plan.dtype)


def common(plan: "Plan", part: Block, lin: Linear, prepared: Prepared) -> Array:
    """What every component has in common in the log joint of a row, ``[n]``: the columns that the pass leaves out.

    The level, which is common to all rows as well, is left out here too.
    """
    constant = np.flatnonzero(~plan.form.varying)
    return inner(take_columns(all_features(plan, part, prepared), constant), lin.weight[:1, constant])[:, 0]


def _generic_and_gradient(plan: "Plan", q: Assigned, params: Params, part: Block) -> tuple[Array, Array]:
    """The expected generic log joint of every component [K], nats, and the gradient of their sum by
    ``Coordinates.to_weights``, ``[P]``.

    The gradient is NaN where q rules out a component of density zero, whose slope is infinite: reverse mode multiplies
    that by the weight zero. ``accumulate_curvature`` has the slope of each entry by itself.
    """
    place = coordinates(plan, params)

    def table_at(vector: Array) -> Array:
        return generic_table(plan, place.to_weights(vector), part)

    table, back = jax.vjp(table_at, place.point)
    weights = row_weights(plan, part)[:, None] * q.dense()
    (gradient,) = back(weights)

    return _by_component(weights, table), gradient


def _by_component(weights: Array, table: Array) -> Array:
    """Sums over the rows ``[K]``; 0 * -inf counts as 0."""
    return jnp.where(weights == 0, 0.0, weights * table).sum(0)


def is_finite(gradient: Array) -> Array:
    """Whether every entry of a gradient is a finite number."""
    return jnp.isfinite(gradient).all()


class Curvature(NamedTuple):
    """Sums over rows about the generic log joint L_nk in the coordinates of the gradient route, ``[P]`` or ``[P, P]``.

    ``gradient`` is sum_n w_n E_q[dL] by ``Coordinates.to_weights`` over what q does not rule out, ``hessian`` is
    sum_n w_n E_q[d2 L], ``products`` sum_n w_n E_q[dL dL'] and ``variances`` sum_n w_n Cov_q[dL], zero where q does not
    follow the parameters as their posterior. hessian + variances is the second derivative of the log likelihood.
    Source: Louis (1982), Finding the observed information matrix when using the EM algorithm, section 3.
    """

    gradient: Array
    hessian: Array
    products: Array
    variances: Array


def no_curvature(plan: "Plan", num_gradient: int) -> Curvature:
    """The sums over no rows."""
    matrix = jnp.zeros((num_gradient, num_gradient), plan.dtype)
    return Curvature(jnp.zeros(num_gradient, plan.dtype), matrix, matrix, matrix)


def accumulate_curvature(
    plan: "Plan",
    total: Curvature,
    wanted: Array,
    params: Params,
    lin: Linear,
    prepared: Prepared,
    block: Block,
    held: Held | None = None,
) -> Curvature:
    """Add one block to the ``total``, under q at ``params``; nothing is computed unless it is ``wanted``.

    Forward over reverse mode: each of P directions costs about as much as three gradients.
    """
    place = coordinates(plan, params)
    directions = jnp.eye(place.point.shape[0], dtype=plan.dtype)

    def body(index: Array, part: Block, total: Curvature) -> Curvature:
        q = _project(plan, look_at(plan, part, lin, params, prepared).table, held, index).dense()
        weights = row_weights(plan, part)[:, None] * q

        def table_and_gradient(vector: Array) -> tuple[Array, Array]:
            table, back = jax.vjp(lambda at: generic_table(plan, place.to_params(at), part), vector)
            return table, back(weights)[0]

        def along(direction: Array) -> tuple[Array, Array, Array]:
            slope, hessian = jax.jvp(table_and_gradient, (place.point,), (direction,))[1]
            return slope, hessian, expected_slope(direction, slope)

        def expected_slope(direction: Array, slope: Array) -> Array:
            # Elsewhere it is that of the parameters.
            if simplex_names(plan):
                slope = jax.jvp(
                    lambda at: generic_table(plan, place.to_weights(at), part), (place.point,), (direction,)
                )[1]
            return jnp.where(weights == 0, 0.0, weights * slope).sum()

        slopes, hessian, gradient = jax.lax.map(along, directions)
        slopes = jnp.where(weights == 0, 0.0, slopes)
        products = jnp.einsum("ink,jnk,nk->ij", slopes, slopes, weights)
        # Reverse mode multiplies an infinite slope by a weight of zero here too; the products are as large on average
        # where the model is right.
        hessian = jnp.where(is_finite(hessian), hessian, -products)
        variances = jnp.zeros_like(products)
        is_held = held is not None and (True if held.active is None else held.active)
        if is_held is not True and plan.family.is_exact:
            means = (slopes * q).sum(2) * jnp.sqrt(row_weights(plan, part))
            variances = jnp.where(is_held, 0.0, products - means @ means.T)
        own = Curvature(gradient, hessian, products, variances)
        return jax.tree.map(jnp.add, total, own)

    # A loop of no or one round, since a branch would be taken in every step once restarts are mapped over.
    return jax.lax.fori_loop(
        0,
        wanted.astype(jnp.int32),
        lambda _, total: over_chunks(block, plan.chunk_rows(block.size), body, total),
        total,
    )


def accumulate_candidates(
    plan: "Plan",
    values: Array,
    candidates: Array,
    params: Params,
    lin: Linear,
    prepared: Prepared,
    block: Block,
    held: Held | None = None,
) -> Array:
    """Add to ``values`` [J] what a block contributes to the objective at each candidate ``[J, P]``, nats.

    q is projected anew for each, unless it is held: one from before forbids a density of zero wherever it had the
    smallest probability left, as it has by rounding in the tails. ``params`` and ``lin`` are those of the other routes;
    columns that all components have in common are left out, as is the prior.
    """
    place = coordinates(plan, params)

    def body(index: Array, part: Block, total: Array) -> Array:
        forms = None if plan.gradient_reaches_forms else _look_at_forms(plan, part, lin, prepared).table

        def value(vector: Array) -> Array:
            there = place.to_params(vector)
            own = _look_at_forms(plan, part, linear(plan, there, prepared), prepared).table if forms is None else forms
            table = known(own + generic_table(plan, there, part), part)
            q = _project(plan, table, held, index)
            return row_weights(plan, part) @ (q.expectation(table) + plan.family.entropy_weight * q.entropy())

        return total + jax.lax.map(value, candidates)

    return over_chunks(block, plan.chunk_rows(block.size), body, values)


def beside_candidates(plan: "Plan", params: Params, prepared: Prepared) -> Array:
    """What ``accumulate_candidates`` leaves out, nats, but for a constant."""
    constant = np.flatnonzero(~plan.form.varying)
    lin, totals = linear(plan, params, prepared), prepared.totals[constant]
    shared = jnp.where(totals == 0, 0.0, lin.weight[0, constant] * totals).sum()
    return shared + lin.level * prepared.total_weight + plan.log_prior(params)
