"""The state of the loop, what it is told of when to stop, and what it records."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from probem.e_step.bound import Bound
from probem.e_step.evaluation import At
from probem.e_step.initial_q import EStep, InitialQ
from probem.form.form import NaturalParameters
from probem.form.statistics import DataTotals
from probem.m_step.digits import is_collinear
from probem.m_step.gradient.ascent import Ascent, initial_ascent
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.solver.result import CODE, RUNNING, Result
from probem.stopping import Progress, Stopping


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Kinds:
    """The classes among objects of classes that JAX knows, as a pytree without leaves.

    For jaxlib two trees are equal whose dataclasses have equal fields, whatever their classes: ``jax.jit`` now and then
    runs for a rule of stopping what it compiled for another (jaxlib 0.10: of 2000 pairs of functions, 32). A tree in
    which their classes stand as well is another tree.
    """

    classes: tuple[type, ...]

    @classmethod
    def of(cls, *objects: Any) -> "Kinds":
        return cls(tuple(_classes(jax.tree.structure(objects))))


def _classes(tree: Any) -> Iterator[type]:
    """The classes of the nodes of a tree, from the root on."""
    if node := tree.node_data():
        yield node[0]
    for child in tree.children():
        yield from _classes(child)


class Limits(NamedTuple):
    """When to stop: the rule of convergence, and the number of steps; made by ``of``.

    While ``is_initial``, under a q that is given for a start, the rule is not asked. An ``acceleration`` says where the
    next step begins; None leaves it where the last one ended.
    """

    rule: Stopping
    max_steps: Int[Array, ""]
    is_initial: Any
    acceleration: "Acceleration | None"
    kinds: Kinds

    @classmethod
    def of(cls, rule: Stopping, max_steps: Int[Array, ""], acceleration: "Acceleration | None" = None) -> "Limits":
        return cls(rule, max_steps, np.asarray(False), acceleration, Kinds.of(rule, acceleration))


class State(NamedTuple):
    """What one step hands to the next.

    ``params``, ``natural`` and ``log_prior`` there are about to be evaluated; ``best`` is the last that was, and
    ``bound``, ``objective``, ``counts``, ``sums`` and ``noise`` belong to it, and so does ``promised``,
    how much the objective is expected to rise from there; ``rise`` is that of the step which led there. ``last`` is the
    objective after the last half-step. ``settled``: the rule of convergence was met by the step that made ``params``.
    ``seed`` is that of families which draw. ``lost``: least squares left out a slope in some M half-step so far.
    """

    params: Params
    natural: NaturalParameters
    log_prior: Float[Array, ""]
    ascent: Ascent
    best: Params
    bound: Bound
    objective: Float[Array, ""]
    rise: Float[Array, ""]
    promised: Float[Array, ""]
    counts: Float[Array, " K"]
    sums: Float[Array, "K S"]
    noise: Float[Array, " K"]
    last: Float[Array, ""]
    settled: Bool[Array, ""]
    code: Int[Array, ""]
    component: Int[Array, ""]
    step: Int[Array, ""]
    seed: UInt[Array, ""]
    lost: Bool[Array, ""]

    @property
    def at(self) -> At:
        """The parameters that are about to be evaluated."""
        return At(self.params, self.natural)

    def e_step(self, initial: InitialQ | None, projects: Bool[Array, ""] | None = None) -> EStep:
        """The E half-step that is about to be made."""
        return EStep(self.at, self.step, self.seed, None if initial is None else initial.active, projects)


@runtime_checkable
class Acceleration(Protocol):
    """Moves the state between two steps of the loop; a frozen dataclass that JAX knows, so that its numbers compile
    nothing.
    """

    def begin(self, plan: Plan, state: State) -> Any:
        """What is remembered before the first step: a pytree of arrays."""
        ...

    def between(
        self, plan: Plan, steps: tuple[State, State], past: Any, totals: DataTotals, limits: Limits
    ) -> tuple[State, Any, Int[Array, ""]]:
        """The state that the next step is made from, what is remembered, and what is recorded of this step (0: its
        parameters were not moved to; 1: they were; -1: they were, and are given up). ``steps`` are the states before
        and after it.

        ``last = -inf`` of a state that was moved says that its objective may be lower; whether it is, the next
        call sees.
        """
        ...


class Record(NamedTuple):
    """Steps for the history: the terms of ``Bound`` after the E and after the M half-step, and the rows that moved (-1:
    not a point mass). ``accelerated`` is what an acceleration says of each step, None without one.

    As one array, which the loop writes to at once.
    """

    bounds: Float[Array, "*steps 2 5"] | Float[np.ndarray, "*steps 2 5"]
    moved: Int[Array, "*steps"] | Int[np.ndarray, "*steps"]
    accelerated: Int[Array, "*steps"] | Int[np.ndarray, "*steps"] | None = None

    @classmethod
    def of(cls, expectation: Bound, maximization: Bound, moved: Any) -> "Record":
        """One step, by both bounds."""
        return cls(jnp.stack([*expectation, *maximization]).reshape(2, 5), moved)

    @property
    def expectation(self) -> Bound:
        """The bound after the E half-step."""
        return Bound(*(self.bounds[..., 0, term] for term in range(5)))

    @property
    def maximization(self) -> Bound:
        """The bound after the M half-step."""
        return Bound(*(self.bounds[..., 1, term] for term in range(5)))


class Proposal(NamedTuple):
    """A step between its maximisations: the next state but for the gradient route, and what that route needs."""

    state: State
    record: Record
    candidates: Float[Array, "J P"]
    progress: Progress
    renewal: Any = False


def initial_state(
    plan: Plan,
    params: Params,
    totals: DataTotals,
    evaluated: tuple[NaturalParameters, Float[Array, ""]] | None = None,
) -> State:
    """The state in which these parameters are about to be evaluated for the first time; ``evaluated`` is what the plan
    has of them, if it was asked before.
    """
    infinite = jnp.full((), -jnp.inf, plan.dtype)
    unknown = jnp.full((), jnp.nan, plan.dtype)
    params = jax.tree.map(lambda value: jnp.asarray(value, plan.dtype), params)
    natural, log_prior = plan.evaluated(params, totals.shifts) if evaluated is None else evaluated
    return State(
        params=params,
        natural=natural,
        log_prior=log_prior,
        ascent=initial_ascent(plan, params, totals),
        best=params,
        bound=Bound(unknown, unknown, unknown, unknown, unknown),
        objective=infinite,
        rise=-infinite,
        promised=-infinite,
        counts=jnp.zeros(plan.num_components, plan.dtype),
        sums=jnp.zeros((plan.num_components, plan.form.num_columns), plan.dtype),
        noise=jnp.zeros(plan.num_components if plan.form.generic else 0, plan.dtype),
        last=infinite,
        settled=jnp.zeros((), bool),
        code=_code_at_start(plan, totals),
        component=jnp.asarray(-1, jnp.int32),
        step=jnp.asarray(0, jnp.int32),
        seed=jnp.asarray(0, jnp.uint32),
        lost=jnp.zeros((), bool),
    )


def _code_at_start(plan: Plan, totals: DataTotals) -> Int[Array, ""]:
    running = jnp.asarray(RUNNING, jnp.int32)
    if not plan.form.predicted:
        return running
    return jnp.where(is_collinear(plan, totals), jnp.asarray(CODE[Result.UNRESOLVED], jnp.int32), running)
