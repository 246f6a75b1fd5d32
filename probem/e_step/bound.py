"""The bound F (the ELBO), its terms and the gap, by the same lines for every family.

    F(q, theta) = E_q[log p(X, T | theta)] + H(q) + log p(theta)
                = log p(X, theta) - sum_n KL(q_n || p(t_n | x_n, theta))

where theta is a point, and the expectation of the same over q(theta), plus H(q(theta)), where it has a full posterior.
All in nats, summed over the data. log p(theta) is the prior of the sites that have one. A point mass on a continuous
site has no finite entropy, and that constant is left out: compare F only between fits with point masses on the same
sites. Without any on sites with a prior, F <= log p(X). Source: Neal & Hinton (1998), eq. 7.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from probem.families.posteriors import Assigned, Dense


class Bound(NamedTuple):
    """F and its terms, nats, totals over the rows: numbers, or arrays of them (for each step, for each restart).

    Attributes
    ----------
    elbo : F
    expected_log_joint : E_q[log p(X, T | theta)]
    entropy : H(q) of the assignments
    log_prior : log p(theta) of points, and E_q[log p] + H(q) = -KL(q || prior) of full posteriors
    gap : sum_n KL(q_n || posterior), NaN where it was not computed
    """

    elbo: Any
    expected_log_joint: Any
    entropy: Any
    log_prior: Any
    gap: Any


def assemble(
    expected_log_joint: Float[Array, ""], entropy: Float[Array, ""], log_prior: Float[Array, ""], gap: Float[Array, ""]
) -> Bound:
    """F from its terms."""
    return Bound(expected_log_joint + entropy + log_prior, expected_log_joint, entropy, log_prior, gap)


def row_gap(table: Float[Array, "n K"], q: Assigned) -> Float[Array, " n"]:
    """KL(q_n || p(t_n | x_n)) = log sum_k exp(L_nk) - E_q[L_n] - H(q_n) for every row of the table, nats."""
    return jax.nn.logsumexp(table.T, axis=0) - q.expectation(table) - q.entropy()


def bound_from_table(
    log_joint: Float[Array, "N K"], responsibilities: Float[Array, "N K"], log_prior: Float[ArrayLike, ""] = 0.0
) -> Bound:
    """F of any q(t_n = k) on any table of log p(x_n, t_n = k | theta); nats."""
    q = Dense(responsibilities, jnp.log(jnp.where(responsibilities > 0, responsibilities, 1.0)))
    return assemble(
        q.expectation(log_joint).sum(), q.entropy().sum(), jnp.asarray(log_prior), row_gap(log_joint, q).sum()
    )
