"""Variational Bayes of a truncated Dirichlet process of Poisson counts, in NumPy and SciPy, by the formulas."""

from typing import Any

import numpy as np
from scipy.special import betaln, digamma, gammaln


def bound(
    x: np.ndarray, r: np.ndarray, q: dict[str, Any], prior: tuple[float, np.ndarray], alpha: float = 1.0
) -> float:
    """F at q(t) = r [N, K], q(sticks) a product of Beta(c1, c0) and q(rate) one of Gamma(a, b), nats; NaN is missing.

    Source: Blei & Jordan (2006), Variational inference for Dirichlet process mixtures, eq. 16.
    """
    c1, c0 = (np.asarray(q["sticks"][name]) for name in ("concentration1", "concentration0"))
    a, b = (np.reshape(q["rate"][name], (len(c1) + 1, -1)) for name in ("concentration", "rate"))
    here, x = ~np.isnan(x), np.nan_to_num(x)
    table = log_weights(c1, c0) + x @ (digamma(a) - np.log(b)).T - here @ (a / b).T - gammaln(x + 1).sum(1)[:, None]
    entropy = -np.where(r > 0, r * np.log(np.where(r > 0, r, 1.0)), 0.0).sum()
    return float((r * table).sum() + entropy - _beta_divergence(c1, c0, alpha) - _gamma_divergence(a, b, *prior))


def log_weights(c1: np.ndarray, c0: np.ndarray) -> np.ndarray:
    """E log of the stick-breaking weights, [K]; the last stick takes what is left."""
    taken, left = digamma(c1) - digamma(c1 + c0), digamma(c0) - digamma(c1 + c0)
    return np.append(taken, 0.0) + np.append(0.0, np.cumsum(left))


def maximised(x: np.ndarray, r: np.ndarray, prior: tuple[float, np.ndarray], alpha: float = 1.0) -> dict[str, Any]:
    """The best q of the sticks and the rates at q(t) = r."""
    counts, (shape, rate) = r.sum(0), prior
    beyond = np.cumsum(counts[::-1])[::-1][1:]
    return {
        "sticks": {"concentration1": 1.0 + counts[:-1], "concentration0": alpha + beyond},
        "rate": {"concentration": shape + r.T @ x, "rate": rate + counts[:, None] * np.ones(x.shape[1])},
    }


def _beta_divergence(c1: np.ndarray, c0: np.ndarray, alpha: float) -> float:
    """KL(Beta(c1, c0) || Beta(1, alpha)), summed."""
    total = digamma(c1 + c0)
    terms = betaln(1.0, alpha) - betaln(c1, c0) + (c1 - 1.0) * (digamma(c1) - total)
    return float((terms + (c0 - alpha) * (digamma(c0) - total)).sum())


def _gamma_divergence(a: np.ndarray, b: np.ndarray, shape: float, rate: np.ndarray) -> float:
    """KL(Gamma(a, b) || Gamma(shape, rate)), summed."""
    terms = (a - shape) * digamma(a) - gammaln(a) + gammaln(shape) + shape * (np.log(b) - np.log(rate))
    return float((terms + a * (rate - b) / b).sum())
