"""The Hessian of the numeric objective, and coordinates in which it is the identity."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from probem.m_step.numeric.problem import NumericProblem

# Rescalings of a matrix until its rows are alike; each halves how many digits they differ by, which are below 20.
_RESCALINGS = 20
# The same where only products with the matrix are known, and the random vectors that each of them asks for.
_SKETCHES, _VECTORS = 8, 8
# Steps of conjugate gradients.
_MOST_CONJUGATE = 256


class NumericCurvature(NamedTuple):
    """The loss, the absolute values of its terms, and its gradient; and coordinates z with x = x_0 + B z.

    ``alone`` is how far each value would go by itself, by the Newton step of its own curvature.
    """

    loss: Float[Array, ""]
    size: Float[Array, ""]
    gradient: Float[Array, " P"]
    basis: Float[Array, "P P"] | Float[Array, " P"]
    alone: Float[Array, " P"]

    def step(self, coordinates: Float[Array, " P"]) -> Float[Array, " P"]:
        """B z: ``basis`` is B, or its diagonal where there are too many parameters for more."""
        return self.basis @ coordinates if self.basis.ndim == 2 else self.basis * coordinates

    def decrement(self) -> Float[Array, ""]:
        """1/2 g' |H|^-1 g, nats."""
        inner = self.gradient @ self.basis if self.basis.ndim == 2 else self.gradient * self.basis
        return 0.5 * (inner**2).sum()


def dense_curvature(
    problem: NumericProblem, point: Float[Array, " P"], damping: Float[Array, ""] | float = 0.0
) -> tuple[NumericCurvature, Float[Array, ""], Float[Array, " P"]]:
    """The curvature at a point; the least eigenvalue of the Hessian of the loss, rows at length one, and where to."""
    loss, size, gradient, hessian = jax.vmap(
        lambda vector: _product(problem, point, vector), out_axes=(None, None, None, 0)
    )(jnp.eye(point.shape[0], dtype=point.dtype))
    identity = jnp.eye(point.shape[0], dtype=point.dtype)
    hessian = jnp.where(jnp.isfinite(hessian).all(), 0.5 * (hessian + hessian.T), identity)

    def rescale(_: Int[Array, ""], scale: Float[Array, " P"]) -> Float[Array, " P"]:
        return _shorter(scale, jnp.abs(scale[:, None] * hessian * scale).max(1))

    # The largest entry of every row becomes one. Of a definite matrix that is the one on the diagonal.
    scale = jax.lax.fori_loop(0, _RESCALINGS, rescale, jnp.ones_like(point))
    values, vectors = jnp.linalg.eigh(scale[:, None] * hessian * scale)
    lengths = jnp.abs(values)
    floor = jnp.maximum(jnp.finfo(point.dtype).eps * point.shape[0], damping) * jnp.maximum(lengths.max(), 1.0)
    # No direction gains more than there is: a curvature that says so is about to change its sign.
    floor = jnp.maximum(floor, (gradient @ (scale[:, None] * vectors)) ** 2 / (2 * size))
    basis = scale[:, None] * vectors / jnp.sqrt(jnp.maximum(lengths, floor))
    curvatures = jnp.abs(jnp.diag(hessian))
    alone = jnp.where(curvatures > 0, -gradient / jnp.where(curvatures > 0, curvatures, 1.0), 0.0)
    return NumericCurvature(loss, size, gradient, basis, alone), values[0], scale * vectors[:, 0]


def sketched_curvature(problem: NumericProblem, point: Float[Array, " P"]) -> NumericCurvature:
    """The curvature of very many parameters: the lengths of the rows of the Hessian, from products with random signs.

    Source: Dauphin, de Vries & Bengio (2015), Equilibrated adaptive learning rates for non-convex optimization, eq. 10.
    """

    def rescale(key: Key[Array, ""], scale: Float[Array, " P"]) -> Float[Array, " P"]:
        signs = jax.random.rademacher(key, (_VECTORS, point.shape[0]), point.dtype)
        products = jax.vmap(lambda vector: scale * _product(problem, point, scale * vector)[3])(signs)
        return _shorter(scale, jnp.sqrt((products**2).mean(0)))

    keys = jax.random.split(jax.random.key(0), _SKETCHES)
    scale = jax.lax.fori_loop(0, _SKETCHES, lambda i, scale: rescale(keys[i], scale), jnp.ones_like(point))
    loss, size, gradient, _ = _product(problem, point, jnp.zeros_like(point))
    # As in ``dense_curvature``.
    scale = scale / jnp.maximum(1.0, jnp.abs(scale * gradient) / jnp.sqrt(2 * size))
    return NumericCurvature(loss, size, gradient, scale, -gradient * scale**2)


def _shorter(scale: Float[Array, " P"], lengths: Float[Array, " P"]) -> Float[Array, " P"]:
    """Scales that bring the rows of a symmetric matrix closer to length one; rows of zeros stay."""
    usable = jnp.isfinite(lengths) & (lengths > 0)
    return scale / jnp.sqrt(jnp.where(usable, lengths, 1.0))


def _product(
    problem: NumericProblem, point: Float[Array, " P"], vector: Float[Array, " P"]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " P"], Float[Array, " P"]]:
    """The loss, the absolute values of its terms, its gradient, and the product of its Hessian with a vector."""
    ((loss, size), gradient), (_, product) = jax.jvp(
        jax.value_and_grad(problem.loss, has_aux=True), (point,), (vector,)
    )
    return loss, size, gradient, product


def conjugate_decrement(
    problem: NumericProblem, curvature: NumericCurvature
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " P"]]:
    """1/2 g' H^-1 g by conjugate gradients; and of the first direction that bends upwards, its curvature and itself.

    Source: Nocedal & Wright (2006), algorithm 7.1.
    """
    gradient = curvature.step(curvature.gradient)

    def product(vector: Float[Array, " P"]) -> Float[Array, " P"]:
        return curvature.step(_product(problem, problem.start, curvature.step(vector))[3])

    def unfinished(carry: tuple[Array, ...]) -> Bool[Array, ""]:
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
