"""The numeric route of the M half-step: parameters without a closed form, over statistics of a size that ignores N.

Maximised is what ``maximization.objective`` says, in nats, over unconstrained values, by the BFGS method of optimistix.
It walks in coordinates in which minus the Hessian at the start is the identity: its first step is the Newton step, and
neither the unit of a parameter nor its parametrisation matters. A round of it ends when the Newton decrement, the rise
that a quadratic function with this gradient and Hessian still promises, is below the rounding of the objective.
Source: Nocedal & Wright (2006), Numerical optimization, ch. 3.4 and 6.1; Boyd & Vandenberghe (2004), Convex
optimization, eq. 9.30 (the decrement); Dauphin et al. (2014), Identifying and attacking the saddle point problem
(absolute eigenvalues).
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optimistix
from jax import Array
from jax.flatten_util import ravel_pytree

from .fixed import hold
from .maximization import Statistics, expected
from .program import Params

if TYPE_CHECKING:
    from .plan import Plan

# The most unconstrained values whose Hessian is formed and decomposed; of more, only the lengths of its rows are known.
_MOST_DENSE = 256
# Evaluations of the objective in one round of the optimiser, and rounds: each begins with the Hessian where it stands.
_EVALUATIONS = 64
_ROUNDS = 8
# Rescalings of a matrix until its rows are alike; each halves how many digits they differ by, which are below 20.
_RESCALINGS = 20
# The same where only products with the matrix are known, and the random vectors that each of them asks for.
_SKETCHES, _VECTORS = 8, 8
# Steps of conjugate gradients.
_MOST_CONJUGATE = 256
# How far, in units of the precision, two values of the objective may differ by rounding.
_ROUNDING = 8
# The predicted rise, in nats, of the step that tells whether a direction of positive curvature leads upwards.
_TRIED = 1e-3
# Fractions of a Newton step that tell whether its slope is one.
_STEPS = tuple(4.0**-power for power in range(12))
# How many of them are tried along every value alone.
_ALONE = 6


class Promise(NamedTuple):
    """What a further maximisation over the numeric parameters would gain: ``nats``, and whether ``is_saddle``."""

    nats: Array
    is_saddle: Array


class _Problem(NamedTuple):
    """The objective of the numeric parameters: ``loss`` of a vector of unconstrained values is minus the objective and
    the sum of the absolute values of its terms, both in nats; ``start`` [P]; ``at`` gives parameters at a vector;
    ``precision`` is that of the parameters.
    """

    loss: Callable[[Array], tuple[Array, Array]]
    start: Array
    at: Callable[[Array], Params]
    precision: float


class _Rounds(NamedTuple):
    """Where the rounds have come to; ``damping`` is the least relative curvature that the next of them takes for real,
    and ``settled`` whether it would change nothing.
    """

    point: Array
    damping: Array
    settled: Array
    made: Array


class _Curvature(NamedTuple):
    """The loss, the absolute values of its terms, and its gradient ``[P]``; and coordinates z with x = x_0 + B z.

    ``alone`` [P] is how far each value would go by itself, by the Newton step of its own curvature.
    """

    loss: Array
    size: Array
    gradient: Array
    basis: Array
    alone: Array

    def step(self, coordinates: Array) -> Array:
        """B z: ``basis`` is B, or its diagonal where there are too many parameters for more."""
        return self.basis @ coordinates if self.basis.ndim == 2 else self.basis * coordinates

    def decrement(self) -> Array:
        """1/2 g' |H|^-1 g, nats."""
        inner = self.gradient @ self.basis if self.basis.ndim == 2 else self.gradient * self.basis
        return 0.5 * (inner**2).sum()


def _problem(plan: "Plan", statistics: Statistics, params: Params) -> _Problem:
    program, mean_field = plan.program, plan.mean_field
    bijections = {name: program.bijection(name) for name in plan.numeric}
    start, unravel = ravel_pytree({name: bijections[name].inv(params[name]) for name in plan.numeric})
    dtype, precision = start.dtype, float(jnp.finfo(start.dtype).eps)
    if start.shape[0] > _MOST_DENSE:
        # What optimistix remembers of the last steps has the default dtype.
        start = start.astype(jnp.result_type(float))

    def at(flat: Array) -> Params:
        values = unravel(flat.astype(dtype))
        found = {name: bijections[name](value) for name, value in values.items()}
        return {**params, **{name: hold(program, plan.fixed, name, found[name], params[name]) for name in found}}

    def loss(flat: Array) -> tuple[Array, Array]:
        values = at(flat)
        linear, log_prior = mean_field.linear(values, statistics.shifts), mean_field.log_prior(values)
        absolute = jax.tree.map(lambda part: jax.lax.stop_gradient(jnp.abs(part)), (linear, statistics))
        size = expected(*absolute) + jax.lax.stop_gradient(jnp.abs(log_prior))
        # A program may hold constants in float64 beside data in float32.
        return (-expected(linear, statistics) - log_prior).astype(start.dtype), size.astype(start.dtype)

    return _Problem(loss, start, at, precision)


def numeric_updates(plan: "Plan", statistics: Statistics, params: Params) -> Params:
    """Maximise over the parameters of the numeric route; accepted only if the objective is finite and no lower."""
    problem = _problem(plan, statistics, params)

    def unfinished(carry: _Rounds) -> Array:
        return ~carry.settled & (carry.made < _ROUNDS)

    start = _Rounds(problem.start, jnp.zeros((), problem.start.dtype), jnp.zeros((), bool), jnp.zeros((), jnp.int32))
    point = jax.lax.while_loop(unfinished, lambda carry: _round(problem, carry), start).point
    (before, after), _ = jax.vmap(problem.loss)(jnp.stack([problem.start, point]))
    better = jnp.isfinite(after) & ~(after > before)
    found = problem.at(point)
    return jax.tree.map(lambda new, old: jnp.where(better, new, old).astype(old.dtype), found, params)


def promised(plan: "Plan", statistics: Statistics, params: Params) -> Promise:
    """1/2 g' |H|^-1 g at these parameters, nats: g and H are of the objective over the unconstrained numeric ones.

    It does not depend on units. ``is_saddle``: a direction of positive curvature leads upwards, on either side. With
    more than 256 unconstrained values H^-1 g comes from conjugate gradients, which end in such a direction.
    """
    if not plan.numeric:
        return Promise(jnp.zeros((), plan.dtype), jnp.zeros((), bool))
    problem = _problem(plan, statistics, params)
    dense = problem.start.shape[0] <= _MOST_DENSE
    if dense:
        curvature, least, direction = _dense(problem, problem.start)
        nats = curvature.decrement()
    else:
        curvature = _sketched(problem, problem.start)
        nats, least, direction = _conjugate(problem, curvature)
    precision = problem.precision
    rounding = _ROUNDING * precision * curvature.size
    # Where the objective has a corner, no step is as good as its slope says: then nothing is promised.
    uphill = -curvature.step(curvature.gradient @ curvature.basis if dense else curvature.step(curvature.gradient))
    tried = jax.vmap(lambda step: problem.loss(problem.start + step * uphill)[0])(
        jnp.asarray(_STEPS, problem.start.dtype)
    )
    if dense:
        tried = jnp.append(tried, _one_by_one(problem, problem.start, curvature)[0])
    gained = curvature.loss - jnp.min(jnp.where(jnp.isfinite(tried), tried, jnp.inf))
    nats = jnp.where(gained > rounding, nats, jnp.minimum(nats, rounding))
    # Of a matrix whose rows are of length one; the step along it would gain _TRIED nats.
    length = jnp.sqrt(2 * _TRIED / jnp.where(least < 0, -least, 1.0))
    signs = jnp.array([1.0, -1.0], problem.start.dtype)
    either = jax.vmap(lambda sign: problem.loss(problem.start + sign * length * direction)[0])(signs)
    gained = curvature.loss - either.min()
    rises = gained > 0.25 * _TRIED + rounding
    return Promise(nats, (least < -(precision**0.5)) & rises)


def _round(problem: _Problem, carry: _Rounds) -> _Rounds:
    """Some steps of BFGS from here."""
    point = carry.point
    is_dense = point.shape[0] <= _MOST_DENSE
    curvature = _dense(problem, point, carry.damping)[0] if is_dense else _sketched(problem, point)
    rounding = _ROUNDING * problem.precision

    def rise(coordinates: Array, _: Any) -> tuple[Array, tuple[Array, Array]]:
        loss, size = problem.loss(point + curvature.step(coordinates))
        # Where the terms are so large that they lose their digits, a value is taken for the worst that it may be.
        return loss - curvature.loss + rounding * (size - curvature.size), (loss, size)

    solver = (_Dense if is_dense else _Limited)(
        tolerance=rounding / 1024 * curvature.size, search=_Backtracking(rounding * curvature.size)
    )
    found = optimistix.minimise(
        rise,
        solver,
        jnp.zeros_like(point),
        has_aux=True,
        max_steps=_EVALUATIONS,
        adjoint=_NoAdjoint(),
        throw=False,
    )
    following, (after, size) = point + curvature.step(found.value), found.aux
    stayed, settled = (found.value == 0).all(), found.result == optimistix.RESULTS.successful
    if is_dense:
        loss, alone = _one_by_one(problem, point, curvature)
        lower = loss < after - rounding * curvature.size
        following, stayed, settled = jnp.where(lower, alone, following), stayed & ~lower, settled & ~lower
    # What was lost to rounding where the terms were large is to be had where they are not. And far from the maximum the
    # Hessian says little of that there, nor does what BFGS has made of it.
    settled = settled & (curvature.decrement() < 1.0) & (16 * size > curvature.size)
    damping = jnp.where(stayed & ~settled, jnp.maximum(1e-8, 1e3 * carry.damping), 0.0).astype(point.dtype)
    return _Rounds(following, damping, settled, carry.made + 1)


def _dense(problem: _Problem, point: Array, damping: Array | float = 0.0) -> tuple[_Curvature, Array, Array]:
    """The curvature at a point; the least eigenvalue of the Hessian of the loss, rows at length one, and where to."""
    loss, size, gradient, hessian = jax.vmap(
        lambda vector: _product(problem, point, vector), out_axes=(None, None, None, 0)
    )(jnp.eye(point.shape[0], dtype=point.dtype))
    identity = jnp.eye(point.shape[0], dtype=point.dtype)
    hessian = jnp.where(jnp.isfinite(hessian).all(), 0.5 * (hessian + hessian.T), identity)

    def rescale(_: Any, scale: Array) -> Array:
        return _shorter(scale, jnp.abs(scale[:, None] * hessian * scale).max(1))

    # The largest entry of every row becomes one. Of a definite matrix that is the one on the diagonal.
    scale = jax.lax.fori_loop(0, _RESCALINGS, rescale, jnp.ones_like(point))
    values, vectors = jnp.linalg.eigh(scale[:, None] * hessian * scale)
    lengths = jnp.abs(values)
    floor = jnp.maximum(jnp.finfo(point.dtype).eps * point.shape[0], damping) * jnp.maximum(lengths.max(), 1.0)
    # No direction gains more than there is: a curvature that says so is about to change its sign.
    floor = jnp.maximum(floor, (gradient @ (scale[:, None] * vectors)) ** 2 / (2 * size))
    basis = scale[:, None] * vectors / jnp.sqrt(jnp.maximum(lengths, floor))
    own = jnp.abs(jnp.diag(hessian))
    alone = jnp.where(own > 0, -gradient / jnp.where(own > 0, own, 1.0), 0.0)
    return _Curvature(loss, size, gradient, basis, alone), values[0], scale * vectors[:, 0]


def _sketched(problem: _Problem, point: Array) -> _Curvature:
    """The curvature of very many parameters: the lengths of the rows of the Hessian, from products with random signs.

    Source: Dauphin, de Vries & Bengio (2015), Equilibrated adaptive learning rates for non-convex optimization, eq. 10.
    """

    def rescale(key: Array, scale: Array) -> Array:
        signs = jax.random.rademacher(key, (_VECTORS, point.shape[0]), point.dtype)
        products = jax.vmap(lambda vector: scale * _product(problem, point, scale * vector)[3])(signs)
        return _shorter(scale, jnp.sqrt((products**2).mean(0)))

    keys = jax.random.split(jax.random.key(0), _SKETCHES)
    scale = jax.lax.fori_loop(0, _SKETCHES, lambda i, scale: rescale(keys[i], scale), jnp.ones_like(point))
    loss, size, gradient, _ = _product(problem, point, jnp.zeros_like(point))
    # As in ``_dense``.
    scale = scale / jnp.maximum(1.0, jnp.abs(scale * gradient) / jnp.sqrt(2 * size))
    return _Curvature(loss, size, gradient, scale, -gradient * scale**2)


def _one_by_one(problem: _Problem, point: Array, curvature: _Curvature) -> tuple[Array, Array]:
    """The loss and the point of the best step along one value alone. At a corner in one of them (a value that is
    clipped, say) the slope is wrong for every step that moves that one too.
    """
    steps = jnp.asarray(_STEPS[:_ALONE], point.dtype)

    def best(index: Array) -> tuple[Array, Array]:
        losses = jax.vmap(lambda step: problem.loss(point.at[index].add(step * curvature.alone[index]))[0])(steps)
        losses = jnp.where(jnp.isfinite(losses), losses, jnp.inf)
        return losses.min(), steps[jnp.argmin(losses)]

    losses, lengths = jax.lax.map(best, jnp.arange(point.shape[0]))
    index = jnp.argmin(losses)
    return losses[index], point.at[index].add(lengths[index] * curvature.alone[index])


def _shorter(scale: Array, lengths: Array) -> Array:
    """Scales that bring the rows of a symmetric matrix closer to length one; rows of zeros stay."""
    usable = jnp.isfinite(lengths) & (lengths > 0)
    return scale / jnp.sqrt(jnp.where(usable, lengths, 1.0))


def _product(problem: _Problem, point: Array, vector: Array) -> tuple[Array, Array, Array, Array]:
    """The loss, the absolute values of its terms, its gradient, and the product of its Hessian with a vector."""
    ((loss, size), gradient), (_, product) = jax.jvp(
        jax.value_and_grad(problem.loss, has_aux=True), (point,), (vector,)
    )
    return loss, size, gradient, product


def _conjugate(problem: _Problem, curvature: _Curvature) -> tuple[Array, Array, Array]:
    """1/2 g' H^-1 g by conjugate gradients; and of the first direction that bends upwards, its curvature and itself.

    Source: Nocedal & Wright (2006), algorithm 7.1.
    """
    gradient = curvature.step(curvature.gradient)

    def product(vector: Array) -> Array:
        return curvature.step(_product(problem, problem.start, curvature.step(vector))[3])

    def unfinished(carry: tuple[Array, ...]) -> Array:
        residual, _, _, bent, made = carry
        least = jnp.finfo(residual.dtype).eps ** 0.5 * jnp.linalg.norm(gradient)
        return (jnp.linalg.norm(residual) > least) & (bent >= 0) & (made < _MOST_CONJUGATE)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        residual, direction, nats, _, made = carry
        turned = product(direction)
        squared, curved = (residual**2).sum(), direction @ turned
        bends = curved < 0
        size = squared / jnp.where(curved == 0, 1.0, jnp.abs(curved))
        following = residual - size * turned
        after = following + (following**2).sum() / squared * direction
        # Each step is conjugate to those before: the rises add up.
        return (
            jnp.where(bends, residual, following),
            jnp.where(bends, direction, after),
            nats + 0.5 * size * squared,
            jnp.where(bends, curved / (direction**2).sum(), 0.0),
            made + 1,
        )

    zero = jnp.zeros((), gradient.dtype)
    start = (gradient, gradient, zero, zero, jnp.zeros((), jnp.int32))
    _, direction, nats, bent, _ = jax.lax.while_loop(unfinished, step, start)
    length = jnp.linalg.norm(direction)
    return nats, bent, curvature.step(direction) / jnp.where(length > 0, length, 1.0)


class _Backtracking(optimistix.AbstractSearch):
    """Shorter steps until the loss falls by a tenth of what its slope says, but for ``rounding``, in nats."""

    rounding: Array

    def init(self, y: Array, f_info_struct: Any) -> Array:
        return jnp.ones((), y.dtype)

    def step(
        self, first_step: Array, y: Array, y_eval: Array, f_info: Any, f_eval_info: Any, state: Array
    ) -> tuple[Array, Array, Any, Array]:
        predicted = f_info.compute_grad_dot(y_eval - y)
        falls = f_eval_info.as_min() - f_info.as_min() <= 0.1 * predicted + self.rounding
        accept = first_step | (falls & (predicted <= 0))
        size = jnp.where(accept, 1.0, 0.25 * state).astype(state.dtype)
        short = size < jnp.finfo(size.dtype).eps ** 2
        results = optimistix.RESULTS
        return size, accept, results.where(short, results.nonlinear_divergence, results.successful), size


class _UntilPromised(optimistix.AbstractQuasiNewton):
    """Ends at a Newton decrement of ``tolerance``, in nats."""

    tolerance: Array
    search: _Backtracking
    descent: optimistix.NewtonDescent = optimistix.NewtonDescent()
    rtol: float = 0.0
    atol: float = 0.0
    norm: Callable[[Any], Array] = dataclasses.field(default=optimistix.two_norm)
    use_inverse: bool = True
    verbose: Callable[..., None] = dataclasses.field(default=lambda **_: None)

    def terminate(
        self, fn: Any, y: Array, args: Any, options: dict[str, Any], state: Any, tags: frozenset[object]
    ) -> tuple[Array, Any]:
        gradient = state.f_info.grad
        decrement = 0.5 * gradient @ state.f_info.hessian_inv.mv(gradient)
        return ~state.first_step & (decrement <= self.tolerance), state.result


class _Dense(_UntilPromised, optimistix.AbstractBFGS):
    """BFGS with a matrix ``[P, P]``."""


class _Limited(_UntilPromised, optimistix.AbstractLBFGS):
    """BFGS that remembers the last steps alone."""

    history_length: int = 20


class _NoAdjoint(optimistix.AbstractAdjoint):
    """The loop as it is: nothing is differentiated through an M-step."""

    def apply(self, primal_fn: Callable[..., Any], rewrite_fn: Any, inputs: tuple[Any, ...], tags: Any) -> Any:
        return primal_fn((*inputs, _while_loop))


def _while_loop(unfinished: Callable[..., Any], body: Callable[..., Any], start: Any, max_steps: int) -> Any:
    # The second of what is carried counts the steps.
    return jax.lax.while_loop(lambda carry: unfinished(carry) & (carry[1] < max_steps), body, start)
