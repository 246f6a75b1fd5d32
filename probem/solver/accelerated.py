"""Accelerations of EM: between two steps the parameters are moved on, and a move that lowers F is taken back.

An iteration is a map M of the parameters, of which a fit is a fixed point; EM comes near it by the same factor in every
step, the more slowly the more information is missing. What is learned of M on the way says where its fixed point lies.
"""

import abc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.e_step.bound import Bound
from probem.form.statistics import DataTotals
from probem.plan.plan import Plan
from probem.plan.positions import at_position, position
from probem.solver.judgement import is_final
from probem.solver.result import CODE, RUNNING, Result
from probem.solver.state import Limits, State
from probem.stopping import ROUNDINGS

#: What an acceleration says of a step: made at parameters that were not moved; at moved ones, which were kept; at moved
#: ones that were given up, because F was lower there.
PLAIN, KEPT, TAKEN_BACK = 0, 1, -1

# The slowest convergence that is reckoned with: steps that an error takes to fall to 1/e.
_SLOWEST = 1e6


class Evaluation(NamedTuple):
    """A point at which F was evaluated, and where M leads from there, in coordinates.

    ``outcome`` says how it was come by; ``is_near``: it was moved to, and by the rule of convergence it could be final.
    """

    here: Float[Array, " P"]
    there: Float[Array, " P"]
    outcome: Int[Array, ""]
    is_near: Bool[Array, ""]


class Past(NamedTuple):
    """What is known before a step: whether it is made at moved parameters, and the state to go back to if F is lower
    there; the last evaluation; the ``reach``, how many times a step its way still is where M is slowest; the memory.
    """

    is_moved: Bool[Array, ""]
    back: State
    here: Float[Array, " P"]
    there: Float[Array, " P"]
    reach: Float[Array, ""]
    memory: Any


class Accelerated(abc.ABC):
    """An acceleration that is guarded by F; a subclass says where to move to.

    The state is moved in the coordinates of ``plan/positions.py``. If F of the family after the E half-step there is
    lower than it was after the M half-step before, or the step fails in any other way, the plain state is gone back to:
    F rises from half-step to half-step but for those that were given up. Source: Varadhan & Roland (2008), section 5.

    A fit converges by plain steps alone: a small rise over a move says nothing, which may have led from one side
    of the maximum to the other. Two of them in a row do not always see the slowest direction, along which a move may
    have left an error: what F will rise by is therefore reckoned at the slowest rate that was seen in the whole fit.
    """

    @abc.abstractmethod
    def blank(self, here: Float[Array, " P"]) -> Any:
        """What is remembered before the first step."""

    @abc.abstractmethod
    def target(self, memory: Any, seen: Evaluation) -> tuple[Bool[Array, ""], Float[Array, " P"], Any]:
        """Whether to move, where to, and what is remembered if it is, or is not, moved."""

    def begin(self, plan: Plan, state: State) -> Past:
        """Before the first step."""
        here = position(plan, state.params)
        unknown = jnp.full_like(here, jnp.nan)
        return Past(jnp.asarray(False), state, unknown, unknown, jnp.ones((), plan.dtype), self.blank(here))

    def between(
        self, plan: Plan, steps: tuple[State, State], past: Past, totals: DataTotals, limits: Limits
    ) -> tuple[State, Past, Int[Array, ""]]:
        """The state that the next step is made from, what is remembered, and how the step was come by."""
        before, after = steps
        allowance = _rounding(plan, after.bound)
        failed = ~_is_any(after.code, RUNNING, *(CODE[result] for result in _GOOD))
        lower = past.is_moved & (failed | ~(after.objective >= past.back.last - allowance))
        outcome = jnp.where(past.is_moved, jnp.where(lower, TAKEN_BACK, KEPT), PLAIN).astype(jnp.int32)
        here, there = position(plan, before.params), position(plan, after.params)
        reach = jnp.where(lower, past.reach, _reach(past, here, there))
        goes_on = jnp.where(after.step >= limits.max_steps, CODE[Result.STEP_LIMIT], RUNNING).astype(jnp.int32)
        ended = _is_any(after.code, *(CODE[result] for result in _CONVERGED))
        allowed = limits.rule.promise(totals.total_weight)
        rise = after.objective - past.back.objective
        could_end = ended | after.settled | (jnp.isfinite(allowed) & (rise <= jnp.maximum(allowed, allowance)))
        # Of plain steps: what is left at the slowest rate. Where a rise is rounding it says nothing.
        rate = (1 - 1 / reach) ** 2
        left = jnp.where(jnp.abs(after.rise) <= allowance, 0.0, after.rise * rate / (1 - rate))
        too_early = ended & ~before.settled & ~(left <= allowed)
        plain = after._replace(
            code=jnp.where(too_early, goes_on, after.code),
            promised=jnp.where(jnp.isfinite(after.rise), jnp.maximum(after.promised, left), after.promised),
        )
        # How far a move rose says nothing of how far the next step will.
        infinite = jnp.full_like(after.rise, jnp.inf)
        kept = after._replace(
            code=jnp.where(ended, goes_on, after.code),
            rise=-infinite,
            promised=infinite,
            settled=jnp.zeros_like(after.settled),
        )
        back = past.back._replace(step=after.step, code=goes_on)
        state = _chosen(past.is_moved, _chosen(lower, back, kept), plain)
        seen = Evaluation(here, there, outcome, (outcome == KEPT) & could_end)
        wanted, target, memory = self.target(past.memory, seen)
        params, inside = at_position(plan, target, state.params)
        moves = wanted & inside & (state.code == RUNNING) & ~state.settled & is_final(plan, state)
        natural, log_prior = plan.evaluated(params, totals.shifts)
        moved = state._replace(
            params=params, natural=natural, log_prior=log_prior, last=-infinite.astype(state.last.dtype)
        )
        moved = moved._replace(rise=-infinite)
        # Of what was given up nothing is compared with what follows.
        here, there = (jnp.where(lower, old, new) for old, new in ((past.here, here), (past.there, there)))
        return _chosen(moves, moved, state), Past(moves, state, here, there, reach, memory), outcome


# How a step may end that led to a better state; and how, if that is why it ended.
_GOOD = (Result.CONVERGED, Result.EMPTY_COMPONENT, Result.STEP_LIMIT)
_CONVERGED = (Result.CONVERGED, Result.EMPTY_COMPONENT)


def _is_any(code: Int[Array, ""], *codes: int) -> Bool[Array, ""]:
    return (code == jnp.asarray(codes)).any()


def _chosen(condition: Bool[Array, ""], first: Any, second: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)


def _rounding(plan: Plan, bound: Bound) -> Float[Array, ""]:
    """How far F may fall by rounding alone, nats, by the size of its terms."""
    terms = (bound.elbo, bound.expected_log_joint, bound.entropy, bound.log_prior)
    size = sum((jnp.abs(jnp.where(jnp.isfinite(term), term, 0.0)) for term in terms), jnp.zeros((), plan.dtype))
    return ROUNDINGS * jnp.finfo(plan.dtype).eps * size


def _length(vector: Float[Array, " P"]) -> Float[Array, ""]:
    """Of what is finite."""
    return jnp.sqrt((jnp.where(jnp.isfinite(vector), vector, 0.0) ** 2).sum())


def ratio(way: Float[Array, " P"], change: Float[Array, " P"]) -> Float[Array, ""]:
    """The length of a way over that of the change of the residual along it: 1 / (1 - lambda) in a direction in which M
    brings every error down to its lambda-th part. Zero if there is no change.
    """
    length = _length(change)
    return jnp.where(length > 0, _length(way) / jnp.where(length > 0, length, 1.0), 0.0)


def _reach(past: Past, here: Float[Array, " P"], there: Float[Array, " P"]) -> Float[Array, ""]:
    """The slowest convergence seen so far."""
    way = here - past.here
    seen = jnp.where(jnp.isfinite(way).any(), ratio(way, there - past.there - way), 0.0)
    return jnp.clip(jnp.maximum(seen, past.reach), 1.0, _SLOWEST)
