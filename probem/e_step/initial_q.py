"""q of the rows: that of the family, or one that is given for a start."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from probem.e_step.evaluation import At, evaluate_rows
from probem.e_step.passes import Chunk, Reduction
from probem.families.assignments import AssignmentFamily, HalfStep, assigned_type
from probem.families.posteriors import Assigned, Dense, Point, Sparse
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan

#: A q that is given for rows, labels or responsibilities; over restarts, R of them.
GivenQ = Int[Array, "*R n"] | Float[Array, "*R n K"]


class RowMemory(NamedTuple):
    """What rows keep from one E half-step to the next: their ``labels``, None where q is no point mass, and what
    their ``family`` wants to know again.
    """

    labels: Int[Array, " n"] | None = None
    family: Any = None


class RowState(NamedTuple):
    """What belongs to rows and differs between restarts: their ``memory``, and a ``q`` if one is given for a start."""

    memory: RowMemory = RowMemory()
    q: GivenQ | None = None


class EStep(NamedTuple):
    """What an E half-step is told beside the rows: the parameters ``at`` which q is wanted, its ``number`` and ``seed``
    (``HalfStep``), whether an initial q is ``active`` (``InitialQ``), and whether q is the projection (``projects``)
    of a family that draws.
    """

    at: At
    number: Int[Array, ""]
    seed: UInt[Array, ""]
    active: Bool[Array, ""] | None = None
    projects: Bool[Array, ""] | None = None


class InitialQ(NamedTuple):
    """A q that takes the place of the projection of the family, for every block.

    ``active`` says whether it does, as a number: the same computation then serves steps with and without it. None is
    for good.
    """

    q: tuple[GivenQ, ...]
    active: Bool[Array, ""] | None = None


def assign(plan: Plan, table: Float[Array, "n K"], e_step: EStep, chunk: Chunk) -> tuple[Assigned, RowMemory]:
    """q of the rows of a chunk, and what they keep: that of the family for their table, or the initial q."""
    memory, initial = chunk.beside
    given = None if initial is None else given_assignments(plan, initial)
    if given is not None and e_step.active is None:
        return given, _kept(given, memory, memory.family)
    half_step = HalfStep(e_step.number, e_step.seed, chunk.index)
    q, after = plan.family.assign(table, memory.family, half_step)
    projects = e_step.projects
    if projects is not None and isinstance(projection := plan.family.project(table), type(q)):
        q = jax.tree.map(lambda end, drawn: jnp.where(projects, end, drawn), projection, q)
    # As the loop carries them, whatever they were made of.
    q = jax.tree.map(lambda leaf: leaf.astype(plan.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, q)
    after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, memory.family)
    if chunk.block.labels is not None and type(plan.family).assign is not AssignmentFamily.assign:
        q = _with_known_labels(q, chunk.block.labels)
    if given is not None:
        given = _dense(given.dense()) if isinstance(q, Dense) else given
        is_given = jnp.asarray(e_step.active)
        q = jax.tree.map(lambda first, second: jnp.where(is_given, first, second), given, q)
    return q, _kept(q, memory, after)


def _with_known_labels(q: Assigned, labels: Int[Array, " n"]) -> Assigned:
    """q with a point mass on the label of every row whose assignment is known: a projection of the table has it."""
    is_known = labels >= 0
    if isinstance(q, Point):
        return q._replace(index=jnp.where(is_known, labels, q.index))
    if isinstance(q, Dense):
        label = jax.nn.one_hot(labels, q.q.shape[1], dtype=q.q.dtype)
    elif isinstance(q, Sparse):
        label = jnp.zeros_like(q.q).at[:, 0].set(1.0)
        q = q._replace(index=jnp.where(is_known[:, None], labels[:, None], q.index))
    else:
        return q
    log_label = jnp.where(label > 0, 0.0, -jnp.inf)
    return q._replace(
        q=jnp.where(is_known[:, None], label, q.q), log_q=jnp.where(is_known[:, None], log_label, q.log_q)
    )


def _kept(q: Assigned, memory: RowMemory, family: Any) -> RowMemory:
    if memory.labels is None or not isinstance(q, Point):
        return RowMemory(memory.labels, family)
    return RowMemory(q.index.astype(memory.labels.dtype), family)


def blank_memory(plan: Plan, num_rows: int) -> RowMemory:
    """What rows keep before the first E half-step: they belong nowhere yet."""
    labels = jnp.asarray(np.full(num_rows, -1, np.int32)) if plan.is_point else None
    return RowMemory(labels, plan.family.begin(num_rows, plan.num_components))


def can_be_released(plan: Plan, labels: bool) -> bool:
    """Whether one computation can serve a given q (``labels`` or responsibilities) and that of the family."""
    free = assigned_type(plan.family, plan.num_components)
    return issubclass(free, Dense) or (issubclass(free, Point) and labels and not plan.softens_labels)


def _softened(plan: Plan, at: At, totals: DataTotals, chunk: Chunk) -> tuple[None, Float[Array, "n K"]]:
    """Responsibilities for labels: a tenth of each row for all components that are possible there.

    What is possible is asked at some parameters once: a q that followed the table would let go of its labels.
    """
    return None, soften_labels(chunk.beside, evaluate_rows(plan, chunk.block, at, totals).table)


#: Responsibilities for labels, block by block.
SOFTENED = Reduction(
    _softened, blank=lambda plan, labels: jnp.zeros((labels.shape[0], plan.num_components), plan.dtype)
)


def _dense(q: Float[Array, "n K"]) -> Dense:
    return Dense(q, jnp.log(jnp.where(q > 0, q, 1.0)))


def given_assignments(plan: Plan, q: GivenQ) -> Assigned:
    """A q that is given, as families return it."""
    return Point(q, jnp.zeros(plan.num_components, plan.dtype)) if q.ndim == 1 else _dense(q)


#: The part of a component that is made of all rows, where a start is softened.
SOFTENING = 0.1


def soften_labels(labels: Int[Array, " n"], table: Float[Array, "n K"]) -> Float[Array, "n K"]:
    """q of labels: a tenth of each row is shared by all components that its log joint allows."""
    count = table.shape[1]
    hard = jax.nn.one_hot(labels, count, dtype=table.dtype)
    allowed = jnp.where(jnp.isneginf(table), 0.0, (1 - SOFTENING) * hard + SOFTENING / count)
    total = allowed.sum(1, keepdims=True)
    return jnp.where(total > 0, allowed / jnp.where(total > 0, total, 1.0), hard)
