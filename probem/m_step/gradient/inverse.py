"""The inverse of a Hessian as a product R R', learned by BFGS or from second derivatives."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Inverse(NamedTuple):
    """The inverse of a Hessian, sign reversed, as R R': what is promised is a sum of squares, whatever the rounding.

    ``root`` is R.
    """

    root: Float[Array, "P P"]

    def times(self, gradient: Float[Array, " P"]) -> Float[Array, " P"]:
        """Newton's step."""
        return self.root @ self.along(gradient)

    def along(self, gradient: Float[Array, " P"]) -> Float[Array, " P"]:
        """The gradient in coordinates in which the Hessian is the identity."""
        return self.root.T @ gradient

    def promise(self, gradient: Float[Array, " P"]) -> Float[Array, ""]:
        """Half the Newton decrement, nats."""
        return 0.5 * (self.along(gradient) ** 2).sum()

    @property
    def diagonal(self) -> Float[Array, " P"]:
        return (self.root**2).sum(1)

    def learned(self, moved: Float[Array, " P"], turned: Float[Array, " P"]) -> tuple["Inverse", Bool[Array, ""]]:
        """By BFGS after a step by which the gradient fell, and whether that taught anything."""
        curvature, precision = moved @ turned, jnp.finfo(moved.dtype).eps
        # Less, beside what R R' expects, is rounding; it may expect too much by many orders of magnitude.
        useful = jnp.isfinite(curvature) & (curvature > 2 * precision * self.promise(turned) / 1e8)
        rho = jnp.where(useful, 1.0 / jnp.where(useful, curvature, 1.0), 0.0)
        turned = jnp.where(useful, turned, 0.0)
        left = self.root - rho * jnp.outer(moved, self.along(turned))
        both = jnp.concatenate([left, jnp.sqrt(rho) * moved[:, None]], 1)
        return Inverse(jnp.where(useful, jnp.linalg.qr(both.T, mode="r").T, self.root)), useful


class _Information(NamedTuple):
    """The inverse of V diag(values) V' with its values made positive, and which of them were negative."""

    inverse: Inverse
    negative: Bool[Array, " P"]


def decompose(information: Float[Array, "P P"], products: Float[Array, "P P"]) -> _Information:
    """The information in absolute value, whatever the units of the coordinates.

    A coordinate is measured in its own curvature or, where there is none (a density with corners), in the products of
    its slopes, which are as large on average where the model is right.
    """
    curvatures, slopes = jnp.diag(information), jnp.diag(products)
    size = jnp.where(jnp.abs(curvatures) > 1e-6 * slopes, jnp.abs(curvatures), slopes)
    scale = jnp.where(size > 0, 1 / jnp.sqrt(jnp.where(size > 0, size, 1.0)), 0.0)
    scaled = jnp.nan_to_num(scale[:, None] * information * scale[None, :])
    values, vectors = jnp.linalg.eigh((scaled + scaled.T) / 2)
    products = jnp.nan_to_num(scale[:, None] * products * scale[None, :])
    spread = jnp.einsum("ji,jk,ki->i", vectors, products, vectors)
    least = 16 * curvatures.shape[0] * jnp.finfo(curvatures.dtype).eps
    # A saddle is left along its negative curvature; a direction without any is as uncertain as its slopes vary.
    positive = jnp.where(values < -1e-3 * spread, -values, jnp.where(values > least, values, spread))
    positive = jnp.maximum(positive, least)
    return _Information(Inverse(scale[:, None] * vectors / jnp.sqrt(positive)), values < -least)
