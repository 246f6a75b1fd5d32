"""Accelerations of EM: between two steps the parameters are moved on, and a move that lowers F is taken back.

An iteration is a map M of the parameters, of which a fit is a fixed point; EM comes near it by the same factor in every
step, the more slowly the more information is missing. What is learned of M on the way says where its fixed point lies.
"""

import abc
import dataclasses
import math
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from probem.e_step.bound import Bound
from probem.errors import InputError
from probem.form.statistics import DataTotals
from probem.mean_field.sites import SitePosterior
from probem.plan.plan import Plan
from probem.plan.positions import at_position, position
from probem.solver.judgement import is_final
from probem.solver.result import CODE, RUNNING, Result
from probem.solver.state import Acceleration, Limits, State
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


def _ratio(way: Float[Array, " P"], change: Float[Array, " P"]) -> Float[Array, ""]:
    """The length of a way over that of the change of the residual along it: 1 / (1 - lambda) in a direction in which M
    brings every error down to its lambda-th part. Zero if there is no change.
    """
    length = _length(change)
    return jnp.where(length > 0, _length(way) / jnp.where(length > 0, length, 1.0), 0.0)


def _reach(past: Past, here: Float[Array, " P"], there: Float[Array, " P"]) -> Float[Array, ""]:
    """The slowest convergence seen so far."""
    way = here - past.here
    ratio = jnp.where(jnp.isfinite(way).any(), _ratio(way, there - past.there - way), 0.0)
    return jnp.clip(jnp.maximum(ratio, past.reach), 1.0, _SLOWEST)


# --- SQUAREM ---


class _Cycle(NamedTuple):
    """Of a cycle: whether it has its first point, that point, and the longest step that is tried."""

    has_first: Bool[Array, ""]
    first: Float[Array, " P"]
    farthest: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SQUAREM(Accelerated):
    """Squared extrapolation: after two plain steps, a move along both.

    With theta_1 = M(theta_0), theta_2 = M(theta_1), r = theta_1 - theta_0 and v = theta_2 - theta_1 - r, the next step
    is made at theta_0 + 2 a r + a² v, a = ||r|| / ||v||: at a = 1, which is theta_2, nothing is moved. Steps a are no
    longer than a limit, which grows by ``growth`` where it is reached and falls by it where F was lower. Parameters are
    moved without their constraints, full posteriors in their natural parameters. Source: Varadhan & Roland (2008),
    Simple and globally convergent methods for accelerating the convergence of any EM algorithm, Scand. J. Stat. 35,
    335-353, scheme S3.

    Parameters
    ----------
    farthest : the limit of a at first
    growth : by what factor it changes

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> x = np.random.default_rng(0).normal(size=(200, 1)) + np.where(np.arange(200) < 60, 2.0, 0.0)[:, None]
    >>> plain, fast = (
    ...     probem.fit(partial(gmm, num_components=2), x, tolerance=1e-12, max_steps=5000, acceleration=acceleration)
    ...     for acceleration in (None, probem.SQUAREM())
    ... )
    >>> bool(np.isclose(fast.elbo, plain.elbo)), fast.num_steps < plain.num_steps
    (True, True)
    """

    farthest: Any = 4.0
    growth: Any = 4.0

    def blank(self, here: Float[Array, " P"]) -> _Cycle:
        """A cycle that begins."""
        return _Cycle(jnp.asarray(False), here, jnp.asarray(self.farthest, here.dtype))

    def target(self, memory: _Cycle, seen: Evaluation) -> tuple[Bool[Array, ""], Float[Array, " P"], _Cycle]:
        """Along the last two steps, if there were two plain steps."""
        farthest = jnp.where(
            seen.outcome == TAKEN_BACK, jnp.maximum(memory.farthest / self.growth, 1.0), memory.farthest
        )
        r, v = seen.here - memory.first, seen.there - 2 * seen.here + memory.first
        best = _ratio(r, v)
        size = jnp.clip(best, 1.0, farthest)
        is_second = (seen.outcome == PLAIN) & memory.has_first
        target = memory.first + 2 * size * r + size**2 * v
        grown = jnp.where(is_second & (best >= farthest), self.growth * farthest, farthest)
        moves = is_second & (size > 1.0)
        # After a move the first point of the next cycle is where its step leads; without one, it is this one.
        return moves, target, _Cycle((seen.outcome == PLAIN) & ~moves, seen.here, grown.astype(farthest.dtype))


# --- Anderson ---


class _Columns(NamedTuple):
    """Differences of residuals and of images of M between neighbours, ``[P, m]``, of which there are ``count``; the
    last residual and image, if any; how often moves were kept (``trust``); and how many steps are to be plain.
    """

    residuals: Float[Array, "P m"]
    images: Float[Array, "P m"]
    count: Int[Array, ""]
    residual: Float[Array, " P"]
    image: Float[Array, " P"]
    has_last: Bool[Array, ""]
    trust: Float[Array, ""]
    num_plain: Int[Array, ""]


# Bisections of the logarithm of the ridge, of which the least is this much of the largest singular value, squared.
_BISECTIONS, _LEAST_RIDGE = 40, 1e-16
# Moves that have to be kept before damping is half of what it is at first, and by what factor each takes from it.
_TRUSTED, _TRUST = 25.0, 1.2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Anderson(Accelerated):
    """Anderson's acceleration, damped, with restarts: a secant method for the fixed point.

    With residuals f_i = M(theta_i) - theta_i, the next step is made at M(theta_i) - dM gamma, where dM holds the last
    differences of M(theta), df those of f, and gamma minimises ||f_i - df gamma||² + ridge ||gamma||². The ridge is
    such that ||gamma||² is the share 1 / (1 + 1.2^(25 - s)) of what it is without; s counts moves that were kept, and
    those taken back against them. A move against f_i, which is on its way to a saddle that steps lead away from, is
    turned round. Differences are given up once there are ``memory`` of them. Parameters are moved
    without their constraints, full posteriors in their natural parameters. Sources: Walker & Ni (2011), Anderson
    acceleration for fixed-point iterations, SIAM J. Numer. Anal. 49, 1715-1735; Henderson & Varadhan (2019), Damped
    Anderson acceleration with restarts and monotonicity control, J. Comput. Graph. Stat. 28, 834-846.

    Parameters
    ----------
    memory : the number of differences, at least 1

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> x = np.random.default_rng(0).normal(size=(200, 1)) + np.where(np.arange(200) < 60, 2.0, 0.0)[:, None]
    >>> plain, fast = (
    ...     probem.fit(partial(gmm, num_components=2), x, tolerance=1e-12, max_steps=5000, acceleration=acceleration)
    ...     for acceleration in (None, probem.Anderson(memory=4))
    ... )
    >>> bool(np.isclose(fast.elbo, plain.elbo)), fast.num_steps < plain.num_steps
    (True, True)
    """

    memory: int = dataclasses.field(default=5, metadata={"static": True})

    def blank(self, here: Float[Array, " P"]) -> _Columns:
        """No differences."""
        columns = jnp.zeros((len(here), self.memory), here.dtype)
        zero, nothing = jnp.zeros((), here.dtype), jnp.asarray(0)
        return _Columns(columns, columns, nothing, here, here, jnp.asarray(False), zero, nothing)

    def target(self, memory: _Columns, seen: Evaluation) -> tuple[Bool[Array, ""], Float[Array, " P"], _Columns]:
        """By the differences, unless plain steps are to say whether this is the end."""
        residual = seen.there - seen.here
        is_new = seen.outcome != TAKEN_BACK
        paired = is_new & memory.has_last
        place = jnp.where(memory.count >= self.memory, 0, memory.count)
        empty = jnp.where(place > 0, 1.0, 0.0).astype(residual.dtype)
        columns = [
            jnp.where(paired, (empty * old).at[:, place].set(_finite(new - last)), old)
            for old, new, last in (
                (memory.residuals, residual, memory.residual),
                (memory.images, seen.there, memory.image),
            )
        ]
        count = jnp.where(paired, place + 1, memory.count)
        trust = memory.trust + jnp.where(seen.outcome == KEPT, 1.0, 0.0)
        trust = jnp.where(is_new, trust, jnp.maximum(trust - self.memory, -_TRUSTED))
        share = 1 / (1 + _TRUST ** (_TRUSTED - trust))
        move = -columns[1] @ damped(columns[0], _finite(residual), share)
        target = seen.there + jnp.where((move * _finite(residual)).sum() < 0, -move, move)
        num_plain = jnp.where(seen.is_near, 2, jnp.maximum(memory.num_plain - 1, 0))
        last = jnp.where(is_new, residual, memory.residual), jnp.where(is_new, seen.there, memory.image)
        wanted = is_new & (count > 0) & (num_plain == 0)
        return (
            wanted,
            target,
            _Columns(columns[0], columns[1], count, *last, is_new | memory.has_last, trust, num_plain),
        )


def _finite(vector: Float[Array, " P"]) -> Float[Array, " P"]:
    """Zero where a value is on an edge."""
    return jnp.where(jnp.isfinite(vector), vector, 0.0)


def damped(columns: Float[Array, "P m"], residual: Float[Array, " P"], share: Float[Array, ""]) -> Float[Array, " m"]:
    """The gamma of least ||residual - columns gamma||² + ridge ||gamma||², whose squared length is this share of that
    without a ridge. Source: Henderson & Varadhan (2019), section 3.1.
    """
    left, sizes, right = jnp.linalg.svd(columns, full_matrices=False)
    inner = left.T @ residual
    scale = jnp.where(sizes[0] > 0, sizes[0], 1.0)
    counted = sizes > len(sizes) * jnp.finfo(columns.dtype).eps * scale

    def gamma(ridge: Float[Array, ""]) -> Float[Array, " m"]:
        return jnp.where(counted, sizes * inner / jnp.where(counted, sizes**2 + ridge, 1.0), 0.0)

    wanted = share * (gamma(jnp.zeros((), columns.dtype)) ** 2).sum()
    # The length falls as the ridge grows: at 1 / share times the largest singular value squared it is short enough.
    ends = (jnp.log(_LEAST_RIDGE * scale**2), jnp.log(scale**2 / share))

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        is_long = (gamma(jnp.exp(middle)) ** 2).sum() > wanted
        return jnp.where(is_long, middle, low), jnp.where(is_long, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, ends)
    return right.T @ gamma(jnp.exp(0.5 * (low + high)))


#: By the names that files and the command line have for them.
ACCELERATIONS = {"squarem": SQUAREM, "anderson": Anderson}


# --- What is refused ---


def check_acceleration(acceleration: Any, plan: Plan, has_variance: bool) -> Any:
    """The acceleration, or None.

    Raises
    ------
    InputError
        For what is none, and where steps are no smooth map of the parameters that climbs F.
    """
    if acceleration is None:
        return None
    if not isinstance(acceleration, Acceleration) or isinstance(acceleration, type):
        raise InputError(
            f"acceleration={acceleration!r}", "probem.SQUAREM(), probem.Anderson() or None", "pass one of them"
        )
    check_numbers(acceleration)
    name = type(acceleration).__name__
    if plan.is_point:
        raise InputError(
            f"{name} for assignments that are point masses",
            "a family under which a step moves the parameters smoothly: with point masses it is constant until a row"
            " moves, and ends after finitely many",
            "leave it out",
        )
    if plan.is_stochastic:
        raise InputError(
            f"{name} for the family {type(plan.family).__name__}, which draws",
            "a family without chance in it, whose steps are a map with a fixed point",
            "leave it out",
        )
    if has_variance:
        raise InputError(
            f"{name} with added_variance",
            "M half-steps that maximise F, which guards every move",
            "leave one of them out",
        )
    if plan.gradient and not plan.gradient_is_multinomial:
        raise InputError(
            f"{name} for '{plan.gradient[0]}', which is climbed to along its gradient",
            "parameters with a maximum of their own in every M half-step: such a climb has an acceleration in it",
            "leave it out",
        )
    for site in plan.mean_field.sites:
        if not site.is_point and type(site).coordinates is SitePosterior.coordinates:
            raise InputError(
                f"{name} for q of '{site.name}', a {type(site).__name__}",
                "a q with natural parameters",
                f"define coordinates, from_coordinates and is_inside in {type(site).__name__}",
            )
    return acceleration


def check_numbers(acceleration: Any) -> None:
    """Refuse numbers that an acceleration of probem cannot use; traced ones are not known.

    Raises
    ------
    InputError
        For a memory, a farthest step or a growth that cannot be.
    """
    if isinstance(acceleration, Anderson):
        memory = acceleration.memory
        if not isinstance(memory, int) or isinstance(memory, bool) or memory < 1:
            raise InputError(f"memory={memory!r} in Anderson", "a whole number of at least 1", "change it")
    if isinstance(acceleration, SQUAREM):
        for name, least in (("farthest", "at least"), ("growth", "above")):
            value = getattr(acceleration, name)
            if isinstance(value, Tracer):
                continue
            is_number = isinstance(value, numbers.Real) and math.isfinite(value)
            if not is_number or value < 1 or (name == "growth" and value == 1):
                raise InputError(f"{name}={value!r} in SQUAREM", f"a number {least} 1", "change it")
