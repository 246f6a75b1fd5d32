"""q of the rows: that of the family, or one that is given for a start and held."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from probem.e_step.evaluation import At, evaluate_rows
from probem.e_step.passes import Chunk, Reduction
from probem.families.posteriors import Assigned, Dense, Point
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan


class RowState(NamedTuple):
    """What belongs to rows and differs between restarts: ``labels`` [n] of the step before, None where q is no point
    mass; and a ``q`` that is held, labels ``[n]`` or responsibilities ``[n, K]``, None where none is.
    """

    labels: Array | None = None
    q: Array | None = None


class InitialQ(NamedTuple):
    """A q that takes the place of the projection of the family: labels ``[B]`` or responsibilities ``[B, K]`` of every
    block.

    ``active`` says whether it does, as a number: the same computation then serves steps with and without it. None is
    for good.
    """

    q: tuple[Array, ...]
    active: Array | None = None


def project(plan: Plan, table: Array, held: Array | None, active: Array | None) -> Assigned:
    """q of the rows of a chunk: that of the family for their table ``[n, K]``, or the one that is ``held``."""
    if held is None:
        return plan.family.project(table)
    given = given_assignments(plan, held)
    if active is None:
        return given
    free = plan.family.project(table)
    if isinstance(free, Dense):
        given = _dense(given.dense())
    return jax.tree.map(functools.partial(jnp.where, active), given, free)


def can_be_released(plan: Plan, labels: bool) -> bool:
    """Whether one computation can serve a held q (``labels`` or responsibilities) and that of the family."""
    table = jax.ShapeDtypeStruct((2, plan.num_components), plan.dtype)
    free = jax.eval_shape(plan.family.project, table)
    return isinstance(free, Dense) or (isinstance(free, Point) and labels and not plan.softens_labels)


def _softened(plan: Plan, at: At, totals: DataTotals, part: Chunk) -> tuple[None, Array]:
    """Responsibilities ``[n, K]`` for labels: a tenth of each row for all components that are possible there.

    What is possible is asked at some parameters once: a q that followed the table would let go of its labels.
    """
    return None, soften_labels(part.beside, evaluate_rows(plan, part.rows, at, totals).table)


#: Responsibilities for labels, block by block.
SOFTENED = Reduction(
    _softened, blank=lambda plan, labels: jnp.zeros((labels.shape[0], plan.num_components), plan.dtype)
)


def _dense(q: Array) -> Dense:
    return Dense(q, jnp.log(jnp.where(q > 0, q, 1.0)))


def given_assignments(plan: Plan, held: Array) -> Assigned:
    """The q of labels ``[n]`` or responsibilities ``[n, K]``."""
    return Point(held, jnp.zeros(plan.num_components, plan.dtype)) if held.ndim == 1 else _dense(held)


#: The part of a component that is made of all rows, where a start is softened.
SOFTENING = 0.1


def soften_labels(labels: Array, table: Array) -> Array:
    """q ``[n, K]`` of labels ``[n]``: a tenth of each row is shared by all components that its log joint allows."""
    count = table.shape[1]
    hard = jax.nn.one_hot(labels, count, dtype=table.dtype)
    allowed = jnp.where(jnp.isneginf(table), 0.0, (1 - SOFTENING) * hard + SOFTENING / count)
    total = allowed.sum(1, keepdims=True)
    return jnp.where(total > 0, allowed / jnp.where(total > 0, total, 1.0), hard)
