"""SQUAREM: after two plain steps, a move along both."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from probem.solver.accelerated import PLAIN, TAKEN_BACK, Accelerated, Evaluation, ratio


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
        best = ratio(r, v)
        size = jnp.clip(best, 1.0, farthest)
        is_second = (seen.outcome == PLAIN) & memory.has_first
        target = memory.first + 2 * size * r + size**2 * v
        grown = jnp.where(is_second & (best >= farthest), self.growth * farthest, farthest)
        moves = is_second & (size > 1.0)
        # After a move the first point of the next cycle is where its step leads; without one, it is this one.
        return moves, target, _Cycle((seen.outcome == PLAIN) & ~moves, seen.here, grown.astype(farthest.dtype))
