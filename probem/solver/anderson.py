"""Anderson's acceleration, damped, with restarts: a secant method for the fixed point."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from probem.solver.accelerated import KEPT, TAKEN_BACK, Accelerated, Evaluation


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
