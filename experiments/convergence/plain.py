"""EM for a mixture of normal distributions in plain NumPy: densities, posteriors, statistics and the M-step."""

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

Params = dict[str, np.ndarray]


def log_joint(params: Params, rows: np.ndarray) -> np.ndarray:
    """log p(x_n, t_n = k), ``[N, K]``, nats; a covariance may be shared."""
    apart = rows[:, None, :] - params["loc"]
    precision = np.broadcast_to(np.linalg.inv(params["covariance"]), (len(params["loc"]), *2 * rows.shape[1:]))
    scaled = np.einsum("nki,kij,nkj->nk", apart, precision, apart)
    constant = np.linalg.slogdet(params["covariance"])[1] + rows.shape[1] * np.log(2 * np.pi)
    return np.log(params["weights"]) - 0.5 * (scaled + constant)


def log_density(params: Params, rows: np.ndarray) -> float:
    """log p(X), nats, total over the rows."""
    return float(np.asarray(logsumexp(log_joint(params, rows), axis=1)).sum())


def posterior(params: Params, rows: np.ndarray) -> np.ndarray:
    """q(t_n = k), ``[N, K]``."""
    table = log_joint(params, rows)
    q = np.exp(table - table.max(1, keepdims=True))
    return q / q.sum(1, keepdims=True)


class Sums(NamedTuple):
    """Expected sums over rows: of t_k ``[K]``, t_k x ``[K, D]`` and t_k x x' ``[K, D, D]``."""

    counts: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, q: np.ndarray, rows: np.ndarray) -> "Sums":
        """Those under q."""
        return cls(q.sum(0), q.T @ rows, np.einsum("nk,ni,nj->kij", q, rows, rows))

    def replaced(self, old: "Sums", new: "Sums") -> "Sums":
        """These with one block's sums in place of what it had."""
        return Sums(*(all - before + after for all, before, after in zip(self, old, new, strict=True)))

    def maximised(self) -> Params:
        """The M-step, about the origin of the rows."""
        loc = self.first / self.counts[:, None]
        covariance = self.second / self.counts[:, None, None] - loc[:, :, None] * loc[:, None, :]
        return {"weights": self.counts / self.counts.sum(), "loc": loc, "covariance": covariance}


def iterated(params: Params, rows: np.ndarray, num_steps: int) -> Params:
    """So many iterations of EM."""
    for _ in range(num_steps):
        params = Sums.of(posterior(params, rows), rows).maximised()
    return params
