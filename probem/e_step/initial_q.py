"""q of the rows: that of the family, or one that is given for a start and held."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from probem.data.blocks import Block, over_chunks
from probem.e_step.evaluation import evaluate_rows
from probem.families.posteriors import Assigned, Dense, Point
from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan
from probem.program.sites import Params


class InitialQ(NamedTuple):
    """A q that takes the place of the projection of the family: labels ``[B]`` or responsibilities ``[B, K]``.

    ``active`` says whether it does, as a number: the same computation then serves steps with and without it. None is
    for good.
    """

    q: Array
    active: Array | None = None


def project(plan: Plan, table: Array, held: InitialQ | None, index: Array) -> Assigned:
    """q of the rows of a chunk: that of the family for their table ``[n, K]``, or the one that is held."""
    if held is None:
        return plan.family.project(table)
    given = given_assignments(plan, held.q, index, len(table))
    if held.active is None:
        return given
    free = plan.family.project(table)
    if isinstance(free, Dense):
        given = _dense(given.dense())
    return jax.tree.map(functools.partial(jnp.where, held.active), given, free)


def can_be_released(plan: Plan, labels: bool) -> bool:
    """Whether one computation can serve a held q (``labels`` or responsibilities) and that of the family."""
    table = jax.ShapeDtypeStruct((2, plan.num_components), plan.dtype)
    free = jax.eval_shape(plan.family.project, table)
    return isinstance(free, Dense) or (isinstance(free, Point) and labels and not plan.softens_labels)


def softened(
    plan: Plan, labels: Array, params: Params, lin: NaturalParameters, prepared: DataTotals, block: Block
) -> Array:
    """Responsibilities ``[B, K]`` for labels ``[B]``: a tenth of each row for all components that are possible there.

    What is possible is asked at ``params`` once: a q that followed the table would let go of its labels.
    """

    def body(index: Array, part: Block, q: Array) -> Array:
        own = jax.lax.dynamic_slice_in_dim(labels, index * part.size, part.size)
        table = evaluate_rows(plan, part, lin, params, prepared).table
        return jax.lax.dynamic_update_slice_in_dim(q, soften_labels(own, table), index * part.size, 0)

    blank = jnp.zeros((block.size, plan.num_components), plan.dtype)
    return over_chunks(block, plan.chunk_rows(block.size), body, blank)


def _dense(q: Array) -> Dense:
    return Dense(q, jnp.log(jnp.where(q > 0, q, 1.0)))


def given_assignments(plan: Plan, held: Array, index: Array, num_rows: int) -> Assigned:
    """The q of one chunk of so many rows out of one that is held, labels ``[B]`` or responsibilities ``[B, K]``."""
    own = jax.lax.dynamic_slice_in_dim(held, index * num_rows, num_rows)
    if own.ndim == 1:
        return Point(own, jnp.zeros(plan.num_components, plan.dtype))
    return _dense(own)


#: The part of a component that is made of all rows, where a start is softened.
SOFTENING = 0.1


def soften_labels(labels: Array, table: Array) -> Array:
    """q ``[n, K]`` of labels ``[n]``: a tenth of each row is shared by all components that its log joint allows."""
    count = table.shape[1]
    hard = jax.nn.one_hot(labels, count, dtype=table.dtype)
    allowed = jnp.where(jnp.isneginf(table), 0.0, (1 - SOFTENING) * hard + SOFTENING / count)
    total = allowed.sum(1, keepdims=True)
    return jnp.where(total > 0, allowed / jnp.where(total > 0, total, 1.0), hard)
