"""Factors, inverses and determinants of batches of positive definite matrices, which cannot wait for themselves.

jaxlib 0.10 cuts a batch of more than 200000 operations into tasks for the threads of XLA and waits for them, on one of
these threads. As many such batches at once as there are threads (two, on two cores) wait for ever. A batch is therefore
handed over in parts that are below that limit, also where somebody maps over it.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int

# jaxlib reckons D^3 operations for a matrix [D, D], or fewer.
_MOST_OPERATIONS = 199_999
# Operations of a decomposition into eigenvalues, beside D^3. Source: Golub & Van Loan (2013), section 8.3.
_OF_EIGENVALUES = 9


def _in_parts(
    function: Callable[[Array], Array], matrices: Float[Array, "*batch D D"], times: int = 1
) -> Float[Array, "*batch D D"]:
    """A function of matrices to matrices of their shape, on a CPU so many at a time as run in place. It takes ``times``
    as many operations as a factorisation.
    """
    dim, count = matrices.shape[-1], math.prod(matrices.shape[:-2])
    most = max(1, _MOST_OPERATIONS // (times * dim**3))
    if count <= most:
        return function(matrices)

    def parts(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
        return jax.lax.map(function, matrices.reshape(count, dim, dim), batch_size=most).reshape(matrices.shape)

    return jax.lax.platform_dependent(matrices, cpu=parts, default=function)


@custom_vmap
def _factor(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    return _in_parts(lambda part: jax.lax.linalg.cholesky(part, symmetrize_input=False), matrices)


@_factor.def_vmap
def _(
    axis_size: int, in_batched: list[bool], matrices: Float[Array, "*batch D D"]
) -> tuple[Float[Array, "*batch D D"], bool]:
    del axis_size, in_batched
    return _factor(matrices), True


@custom_vmap
def _inverse_factor(lower: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    def solve(part: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
        identity = jnp.broadcast_to(jnp.eye(part.shape[-1], dtype=part.dtype), part.shape)
        return jax.lax.linalg.triangular_solve(part, identity, left_side=True, lower=True)

    return _in_parts(solve, lower)


@_inverse_factor.def_vmap
def _(
    axis_size: int, in_batched: list[bool], lower: Float[Array, "*batch D D"]
) -> tuple[Float[Array, "*batch D D"], bool]:
    del axis_size, in_batched
    return _inverse_factor(lower), True


@jax.custom_jvp
def cholesky(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    """The lower triangular L with L L' = A of matrices A; not numbers where A is not positive definite."""
    return _factor(0.5 * (matrices + _transposed(matrices)))


@cholesky.defjvp
def _(
    primals: tuple[Float[Array, "*batch D D"]], tangents: tuple[Float[Array, "*batch D D"]]
) -> tuple[Float[Array, "*batch D D"], Float[Array, "*batch D D"]]:
    """dL = L Phi(L^-1 dA L^-T), Phi the lower triangle with half of its diagonal. Murray (2016), eq. 8."""
    (matrices,), (tangent,) = primals, tangents
    factor = cholesky(matrices)
    whitening = inverse_triangular(factor)
    inner = whitening @ (0.5 * (tangent + _transposed(tangent))) @ _transposed(whitening)
    return factor, 0.5 * factor @ (jnp.tril(inner) + jnp.tril(inner, -1))


@jax.custom_jvp
def inverse_triangular(lower: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    """The inverse of lower triangular matrices."""
    return _inverse_factor(lower)


@inverse_triangular.defjvp
def _(
    primals: tuple[Float[Array, "*batch D D"]], tangents: tuple[Float[Array, "*batch D D"]]
) -> tuple[Float[Array, "*batch D D"], Float[Array, "*batch D D"]]:
    """d(L^-1) = -L^-1 dL L^-1."""
    (lower,), (tangent,) = primals, tangents
    inverted = inverse_triangular(lower)
    return inverted, -inverted @ jnp.tril(tangent) @ inverted


@jax.custom_jvp
def inverse(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    """The inverse of positive definite matrices."""
    if matrices.shape[-1] == 1:
        return 1.0 / matrices
    whitening = inverse_triangular(cholesky(matrices))
    return _transposed(whitening) @ whitening


@inverse.defjvp
def _(
    primals: tuple[Float[Array, "*batch D D"]], tangents: tuple[Float[Array, "*batch D D"]]
) -> tuple[Float[Array, "*batch D D"], Float[Array, "*batch D D"]]:
    """d(A^-1) = -A^-1 dA A^-1."""
    (matrices,), (tangent,) = primals, tangents
    inverted = inverse(matrices)
    return inverted, -inverted @ tangent @ inverted


@custom_vmap
def _pseudo_inverse(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    def of(part: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
        values, vectors = jnp.linalg.eigh(part)
        least = _rounding(values)
        # A matrix that is not finite stays so.
        inverses = jnp.where(values <= least, 0.0, 1.0 / jnp.where(values <= least, 1.0, values))
        return (vectors * inverses[..., None, :]) @ _transposed(vectors)

    return _in_parts(of, matrices, times=_OF_EIGENVALUES)


@_pseudo_inverse.def_vmap
def _(
    axis_size: int, in_batched: list[bool], matrices: Float[Array, "*batch D D"]
) -> tuple[Float[Array, "*batch D D"], bool]:
    del axis_size, in_batched
    return _pseudo_inverse(matrices), True


@jax.custom_jvp
def pseudo_inverse(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    """The inverse of positive semidefinite matrices in all directions but those in which they are zero, to rounding."""
    return _pseudo_inverse(0.5 * (matrices + _transposed(matrices)))


@pseudo_inverse.defjvp
def _(
    primals: tuple[Float[Array, "*batch D D"]], tangents: tuple[Float[Array, "*batch D D"]]
) -> tuple[Float[Array, "*batch D D"], Float[Array, "*batch D D"]]:
    """-A^+ dA A^+, where the rank stays."""
    (matrices,), (tangent,) = primals, tangents
    inverted = pseudo_inverse(matrices)
    return inverted, -inverted @ tangent @ inverted


def _rounding(values: Float[Array, "*batch D"]) -> Float[Array, "*batch 1"]:
    """Up to where eigenvalues in rising order are zero, to rounding."""
    return 10.0 * values.shape[-1] * jnp.finfo(values.dtype).eps * jnp.maximum(values[..., -1:], 0.0)


def rank(matrices: Float[Array, "*batch D D"]) -> Int[Array, "*batch"]:
    """The number of directions in which ``pseudo_inverse`` inverts."""
    if not matrices.shape[-1]:
        return jnp.zeros(matrices.shape[:-2], int)
    values = jnp.linalg.eigvalsh(matrices)
    return (values > _rounding(values)).sum(-1)


def condition_number(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch"]:
    """The largest eigenvalue of positive semidefinite matrices by the smallest; infinite where none is above zero."""
    values = jnp.linalg.eigvalsh(matrices)
    least, most = values[..., 0], values[..., -1]
    return jnp.where(least > 0, most / jnp.where(least > 0, least, 1.0), jnp.inf)


@jax.custom_jvp
def log_det(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch"]:
    """log|A| of positive definite matrices."""
    return _log_det(cholesky(matrices))


@log_det.defjvp
def _(
    primals: tuple[Float[Array, "*batch D D"]], tangents: tuple[Float[Array, "*batch D D"]]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """d log|A| = tr(A^-1 dA)."""
    (matrices,), (tangent,) = primals, tangents
    return log_det(matrices), (inverse(matrices) * _transposed(tangent)).sum((-1, -2))


@jax.custom_jvp
def inverse_and_log_det(
    matrices: Float[Array, "*batch D D"],
) -> tuple[Float[Array, "*batch D D"], Float[Array, "*batch"]]:
    """The inverse and log|A| of positive definite matrices, from one Cholesky factor."""
    factor = cholesky(matrices)
    whitening = inverse_triangular(factor)
    return _transposed(whitening) @ whitening, _log_det(factor)


@inverse_and_log_det.defjvp
def _(
    primals: tuple[Float[Array, "*batch D D"]], tangents: tuple[Float[Array, "*batch D D"]]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """As of ``inverse`` and ``log_det``."""
    (matrices,), (tangent,) = primals, tangents
    inverted, log_det = inverse_and_log_det(matrices)
    return (inverted, log_det), (-inverted @ tangent @ inverted, (inverted * _transposed(tangent)).sum((-1, -2)))


def _log_det(factor: Float[Array, "*batch D D"]) -> Float[Array, "*batch"]:
    return 2.0 * jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)).sum(-1)


def _transposed(matrices: Float[Array, "*batch D D"]) -> Float[Array, "*batch D D"]:
    return jnp.swapaxes(matrices, -1, -2)
