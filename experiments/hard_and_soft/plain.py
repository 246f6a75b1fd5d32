"""k-means' mixture in plain NumPy: K spheres of one standard deviation, equally probable. Nothing knows the engine.

A row's joint probabilities p(x_i, t_i = k) are raised to a power ``beta`` before they are normalised: 1 is the
posterior, infinity (``hard``) the point mass on the nearest centre.
"""

import dataclasses

import numpy as np
from scipy.special import logsumexp

from probem.experiments.oracles.lloyd import means, nearest, squared_distances


@dataclasses.dataclass(frozen=True)
class Spheres:
    """The centres ``[K, D]`` and the standard deviation that they share."""

    loc: np.ndarray
    scale: float

    def log_joint(self, rows: np.ndarray) -> np.ndarray:
        """log p(x_i, t_i = k), ``[N, K]``."""
        num_components, dim = self.loc.shape
        constant = np.log(num_components) + dim / 2 * np.log(2 * np.pi * self.scale**2)
        return -squared_distances(rows, self.loc) / (2 * self.scale**2) - constant

    def log_q(self, rows: np.ndarray, beta: float = 1.0) -> np.ndarray:
        """log q_ik, q_ik proportional to p(x_i, t_i = k)^beta, ``[N, K]``."""
        table = beta * self.log_joint(rows)
        return table - np.asarray(logsumexp(table, axis=1, keepdims=True))

    def log_likelihood(self, rows: np.ndarray) -> float:
        """log p(X), nats."""
        return float(np.asarray(logsumexp(self.log_joint(rows), axis=1)).sum())

    def gaps(self, rows: np.ndarray) -> np.ndarray:
        """By how much the second nearest squared distance exceeds the nearest, ``[N]``."""
        two = np.partition(squared_distances(rows, self.loc), 1, axis=1)
        return two[:, 1] - two[:, 0]


def tempered_bound(log_joint: np.ndarray, log_q: np.ndarray, beta: float) -> float:
    """E_q[log p(X, T)] + H(q) / beta, nats; beta = 1 is F."""
    q = np.exp(log_q)
    return float((q * log_joint).sum() - (q * np.where(q > 0, log_q, 0.0)).sum() / beta)


def soft_means(rows: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The mean of the rows, weighted by q ``[N, K]``; ``[K, D]``."""
    return q.T @ rows / q.sum(axis=0)[:, None]


def path(rows: np.ndarray, start: Spheres, beta: float, num_steps: int) -> list[np.ndarray]:
    """The centres at the start and after every step, by a loop; of an infinite beta Lloyd's."""
    centres = [start.loc]
    for _ in range(num_steps):
        now = Spheres(centres[-1], start.scale)
        if np.isinf(beta):
            centres.append(means(rows, nearest(rows, now.loc), now.loc))
        else:
            centres.append(soft_means(rows, np.exp(now.log_q(rows, beta))))
    return centres
