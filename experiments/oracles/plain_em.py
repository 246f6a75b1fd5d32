"""EM for Gaussian mixtures as a plain loop in NumPy: with values missing, labels known, and rows in batches.

Nothing here knows of probem's engine. Sources: Dempster, Laird & Rubin (1977); Ghahramani & Jordan (1994), Supervised
learning from incomplete data via an EM approach, section 2.2; Cappé & Moulines (2009), eq. 10.
"""

import dataclasses

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal


@dataclasses.dataclass(frozen=True)
class Params:
    """Weights ``[K]``, locations ``[K, D]``, covariances ``[K, D, D]``."""

    weights: np.ndarray
    loc: np.ndarray
    covariance: np.ndarray


@dataclasses.dataclass(frozen=True)
class Moments:
    """Expected sums over rows: of t_k ``[K]``, and of t_k ``[K]``, t_k x ``[K, D]`` and t_k x xᵀ ``[K, D, D]`` over
    those of which something is there: a row without a value says nothing of locations and covariances.
    """

    counts: np.ndarray
    seen: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def scaled(self, factor: float) -> "Moments":
        """Each times a factor."""
        return Moments(*(factor * mine for mine in dataclasses.astuple(self)))

    def mix(self, other: "Moments", share: float) -> "Moments":
        """(1 - share) of these and ``share`` of the others."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Moments(*((1 - share) * mine + share * theirs for mine, theirs in pairs))


@dataclasses.dataclass(frozen=True)
class Iteration:
    """Parameters, the responsibilities ``[N, K]`` they give, and log p(observed values, known labels), nats."""

    params: Params
    responsibilities: np.ndarray
    log_likelihood: float


def e_step(rows: np.ndarray, params: Params, labels: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Responsibilities ``[N, K]`` and the log likelihood of what is there: NaN is missing, a label of -1 unknown."""
    table = np.zeros((len(rows), len(params.weights)))
    for n, row in enumerate(rows):
        there = np.isfinite(row)
        for k, (weight, loc, covariance) in enumerate(zip(params.weights, params.loc, params.covariance, strict=True)):
            table[n, k] = np.log(weight)
            if there.any():
                table[n, k] += multivariate_normal.logpdf(row[there], loc[there], covariance[np.ix_(there, there)])
        if labels is not None and labels[n] >= 0:
            table[n, np.arange(table.shape[1]) != labels[n]] = -np.inf
    total = np.asarray(logsumexp(table, axis=1, keepdims=True))
    return np.exp(table - total), float(total.sum())


def filled_in(row: np.ndarray, loc: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[x | what is there] ``[D]`` and Cov[x | what is there] ``[D, D]`` under one normal distribution."""
    there, gone = np.isfinite(row), ~np.isfinite(row)
    mean, spread = np.where(there, row, loc), np.zeros_like(covariance)
    gain = covariance[np.ix_(gone, there)] @ np.linalg.inv(covariance[np.ix_(there, there)])
    mean[gone] += gain @ (row - loc)[there]
    spread[np.ix_(gone, gone)] = covariance[np.ix_(gone, gone)] - gain @ covariance[np.ix_(there, gone)]
    return mean, spread


def moments(rows: np.ndarray, responsibilities: np.ndarray, params: Params) -> Moments:
    """The expected sums, of missing values by their conditional moments."""
    (_, D), K = rows.shape, len(params.weights)
    seen, first, second = np.zeros(K), np.zeros((K, D)), np.zeros((K, D, D))
    for row, q in zip(rows, responsibilities, strict=True):
        if np.isnan(row).all():
            continue
        seen += q
        for k in range(K):
            mean, spread = filled_in(row, params.loc[k], params.covariance[k])
            first[k] += q[k] * mean
            second[k] += q[k] * (np.outer(mean, mean) + spread)
    return Moments(responsibilities.sum(axis=0), seen, first, second)


def m_step(sums: Moments) -> Params:
    """Shares, means and covariances."""
    loc = sums.first / sums.seen[:, None]
    covariance = sums.second / sums.seen[:, None, None] - loc[:, :, None] * loc[:, None, :]
    return Params(sums.counts / sums.counts.sum(), loc, covariance)


def impute(rows: np.ndarray, params: Params) -> np.ndarray:
    """Every missing value by E[x | what is there], over the components."""
    responsibilities, _ = e_step(rows, params)
    filled = np.zeros(rows.shape)
    for n, row in enumerate(rows):
        for k, q in enumerate(responsibilities[n]):
            filled[n] += q * filled_in(row, params.loc[k], params.covariance[k])[0]
    return filled


def em(rows: np.ndarray, params: Params, num_steps: int, labels: np.ndarray | None = None) -> tuple[Iteration, ...]:
    """E, then M, E so often: what every E-step finds, the first at the parameters given."""
    iterations = []
    for step in range(num_steps + 1):
        if step:
            params = m_step(moments(rows, iterations[-1].responsibilities, params))
        iterations.append(Iteration(params, *e_step(rows, params, labels)))
    return tuple(iterations)
