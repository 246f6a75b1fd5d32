"""Second derivatives of the log likelihood in the coordinates of the gradient route, summed over rows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.e_step.evaluation import evaluate_rows, generic_table, row_weights
from probem.e_step.initial_q import EStep, assign
from probem.e_step.passes import Chunk, Reduction
from probem.e_step.summary import is_finite
from probem.form.statistics import DataTotals
from probem.plan.coordinates import coordinates, simplex_names
from probem.plan.plan import Plan


class Curvature(NamedTuple):
    """Sums over rows about the generic log joint L_nk in the coordinates of the gradient route.

    ``gradient`` is sum_n w_n E_q[dL] by ``Coordinates.to_weights`` over what q does not rule out, ``hessian`` is
    sum_n w_n E_q[d2 L], ``products`` sum_n w_n E_q[dL dL'] and ``variances`` sum_n w_n Cov_q[dL], zero where q does not
    follow the parameters as their posterior. hessian + variances is the second derivative of the log likelihood.
    Source: Louis (1982), Finding the observed information matrix when using the EM algorithm, section 3.
    """

    gradient: Float[Array, " P"]
    hessian: Float[Array, "P P"]
    products: Float[Array, "P P"]
    variances: Float[Array, "P P"]


def no_curvature(plan: Plan, num_gradient: int) -> Curvature:
    """The sums over no rows."""
    matrix = jnp.zeros((num_gradient, num_gradient), plan.dtype)
    return Curvature(jnp.zeros(num_gradient, plan.dtype), matrix, matrix, matrix)


def _curved(plan: Plan, e_step: EStep, totals: DataTotals, chunk: Chunk) -> tuple[Curvature, None]:
    """What a chunk adds under q.

    Forward over reverse mode: each of P directions costs about as much as three gradients.
    """
    at, active, block, initial = e_step.at, e_step.active, chunk.block, chunk.beside.q
    place = coordinates(plan, at.params)
    directions = jnp.eye(place.point.shape[0], dtype=plan.dtype)
    q = assign(plan, evaluate_rows(plan, block, at, totals).table, e_step, chunk)[0].dense()
    weights = row_weights(plan, block)[:, None] * q

    def table_and_gradient(vector: Float[Array, " P"]) -> tuple[Float[Array, "n K"], Float[Array, " P"]]:
        table, back = jax.vjp(lambda point: generic_table(plan, place.to_params(point), block), vector)
        return table, back(weights)[0]

    def along(direction: Float[Array, " P"]) -> tuple[Float[Array, "n K"], Float[Array, " P"], Float[Array, ""]]:
        slope, hessian = jax.jvp(table_and_gradient, (place.point,), (direction,))[1]
        return slope, hessian, expected_slope(direction, slope)

    def expected_slope(direction: Float[Array, " P"], slope: Float[Array, "n K"]) -> Float[Array, ""]:
        # Elsewhere it is that of the parameters.
        if simplex_names(plan):
            slope = jax.jvp(
                lambda point: generic_table(plan, place.to_weights(point), block), (place.point,), (direction,)
            )[1]
        return jnp.where(weights == 0, 0.0, weights * slope).sum()

    slopes, hessian, gradient = jax.lax.map(along, directions)
    slopes = jnp.where(weights == 0, 0.0, slopes)
    products = jnp.einsum("ink,jnk,nk->ij", slopes, slopes, weights)
    # Reverse mode multiplies an infinite slope by a weight of zero here too; the products are as large on average
    # where the model is right.
    hessian = jnp.where(is_finite(hessian), hessian, -products)
    variances = jnp.zeros_like(products)
    is_given = initial is not None and (True if active is None else active)
    if is_given is not True and plan.is_always_exact:
        means = (slopes * q).sum(2) * jnp.sqrt(row_weights(plan, block))
        variances = jnp.where(is_given, 0.0, products - means @ means.T)
    return Curvature(gradient, hessian, products, variances), None


#: Second derivatives under q.
CURVED = Reduction(_curved)
