"""Independent sides of the comparisons: NumPy and SciPy only."""

import jax
import numpy as np
import scipy.special

# What float64 leaves of a sum of a few hundred terms of size one to a hundred (1e-14 relative), and margin.
ROUNDING = 1e-11


def posterior(table: np.ndarray) -> np.ndarray:
    """p(t | x) from the table of log joints, [N, K]."""
    return np.exp(table - scipy.special.logsumexp(table, axis=1, keepdims=True))


def bound(table: np.ndarray, q: np.ndarray) -> float:
    """F without the prior, entry by entry: sum q (log p(x, t) - log q), where 0 log 0 = 0 and 0 * -inf = 0."""
    total = 0.0
    for row, own in zip(np.asarray(table), np.asarray(q), strict=True):
        for value, probability in zip(row, own, strict=True):
            if probability > 0:
                total += probability * (value - np.log(probability))
    return total


def log_likelihood(table: np.ndarray) -> float:
    """sum_n log sum_k p(x_n, t_n = k), nats."""
    return float(scipy.special.logsumexp(table, axis=1).sum())


def rises(history: "object", relative: float = 1e-12) -> bool:
    """Whether the objective of a history never falls, half-step by half-step, by more than rounding of its size."""
    values = history.objective
    return bool(np.all(np.isfinite(values)) and np.all(np.diff(values) >= -relative * (1 + np.abs(values[:-1]))))


def compiled(function: "object") -> "object":
    """One compilation in place of one for each operation: what the tests compare need not be slow to compute."""
    return jax.jit(function)
