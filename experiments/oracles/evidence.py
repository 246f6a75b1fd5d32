"""Exact log marginal likelihoods of conjugate components, and the exact log evidence of a mixture by enumeration.

Everything is in nats, with every constant in. Nothing here knows of probem's engine, or of a bound.

Sources: Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution; Bishop (2006), Pattern Recognition and
Machine Learning, chapters 2 and 10; Gelman et al. (2013), Bayesian Data Analysis, chapter 2; Ishwaran & James
(2001), Gibbs sampling methods for stick-breaking priors.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from scipy.special import betaln, gammaln

MAX_ROWS = 8


@runtime_checkable
class Prior(Protocol):
    """The prior of one component's parameters, which integrates them out of its rows."""

    def log_marginal(self, rows: np.ndarray) -> float:
        """log p(x_1..x_n) of the rows ``[n, D]`` of one component; without rows 0."""
        ...


# --- Gaussian components ---


@dataclasses.dataclass(frozen=True)
class NormalWishart:
    """Lambda ~ W(nu0, rate matrix S0), density ∝ |Lambda|^((nu0 - D - 1)/2) exp(-tr(S0 Lambda)/2); mu | Lambda below.

    mu | Lambda ~ N(m, (k0 Lambda)^-1). Source: Bishop 2006, eq. 10.40, S0 = W0^-1; Murphy 2007, section 8.
    """

    mean: np.ndarray
    strength: float
    dof: float
    scatter: np.ndarray

    def log_marginal(self, rows: np.ndarray) -> float:
        return _wishart(self, [rows])


@dataclasses.dataclass(frozen=True)
class NormalGamma:
    """For each feature lambda_d ~ Gamma(a0, rate b0_d) and mu_d ~ N(m_d, 1/(k0 lambda_d)): Murphy 2007, section 3."""

    mean: np.ndarray
    strength: float
    shape: float
    rate: np.ndarray

    def log_marginal(self, rows: np.ndarray) -> float:
        features = range(len(self.mean))
        densities = [
            SphericalNormalGamma(self.mean[[d]], self.strength, self.shape, float(self.rate[d])) for d in features
        ]
        return sum((densities[d].log_marginal(rows[:, [d]]) for d in features), 0.0)


@dataclasses.dataclass(frozen=True)
class SphericalNormalGamma:
    """One lambda ~ Gamma(a0, rate b0) for all features, mu_d ~ N(m_d, 1/(k0 lambda)): Murphy 2007, section 3."""

    mean: np.ndarray
    strength: float
    shape: float
    rate: float

    def log_marginal(self, rows: np.ndarray) -> float:
        return _gamma(self, [rows])


@dataclasses.dataclass(frozen=True)
class NormalKnownVariance:
    """mu_d ~ N(m_d, s0_d²), x_d ~ N(mu_d, noise²): Murphy 2007, section 2.

    log p = -n/2 log(2 pi noise²) - 1/2 log(1 + n s²/noise²) - [sum y² - (sum y)² / (n + noise²/s²)] / (2 noise²) for
    each feature, with y = x - m.
    """

    mean: np.ndarray
    scale: np.ndarray | float
    noise: float

    def log_marginal(self, rows: np.ndarray) -> float:
        total, n, variance = 0.0, len(rows), self.noise**2
        for d, s in enumerate(np.broadcast_to(self.scale, self.mean.shape)):
            y = rows[:, d] - self.mean[d]
            squares = (y**2).sum() - y.sum() ** 2 / (n + variance / s**2)
            total += -0.5 * (n * np.log(2 * np.pi * variance) + np.log1p(n * s**2 / variance) + squares / variance)
        return float(total)


def tied_log_marginal(prior: NormalWishart, rows: np.ndarray, labels: np.ndarray, num_components: int) -> float:
    """log p(X | t) where all components share one Lambda, and mu_k | Lambda ~ N(m, (k0 Lambda)^-1) for each."""
    return _wishart(prior, [rows[labels == k] for k in range(num_components)])


def tied_spherical_log_marginal(
    prior: SphericalNormalGamma, rows: np.ndarray, labels: np.ndarray, num_components: int
) -> float:
    """log p(X | t) where all components and features share one lambda, and mu_kd ~ N(m_d, 1/(k0 lambda)) for each."""
    return _gamma(prior, [rows[labels == k] for k in range(num_components)])


def _growth(rows: np.ndarray, mean: np.ndarray, strength: float) -> np.ndarray:
    """sum (x - x̄)(x - x̄)ᵀ + k0 n / (k0 + n) (x̄ - m)(x̄ - m)ᵀ, ``[D, D]``: Murphy 2007, section 8."""
    n = len(rows)
    average = rows.sum(axis=0) / max(n, 1)
    spread = (rows - average).T @ (rows - average)
    return spread + strength * n / (strength + n) * np.outer(average - mean, average - mean)


def _wishart(prior: NormalWishart, groups: Sequence[np.ndarray]) -> float:
    """-N D/2 log pi + log [Γ_D(nu_N/2) / Γ_D(nu0/2)] + nu0/2 log|S0| - nu_N/2 log|S_N| + D/2 sum log [k0/(k0 + n_k)].

    Groups of rows have a mean each and one precision together: nu_N = nu0 + N, and S_N = S0 + the groups' growth. With
    one group, Murphy 2007, section 8.
    """
    count, D = sum(len(rows) for rows in groups), len(prior.mean)
    dof = prior.dof + count
    scatter = prior.scatter + sum(_growth(rows, prior.mean, prior.strength) for rows in groups)
    below = np.arange(D)  # log Γ_D(a) = sum_j log Γ(a - j/2), j = 0..D-1, and a constant that cancels
    total = -count * D / 2 * np.log(np.pi) + (gammaln((dof - below) / 2) - gammaln((prior.dof - below) / 2)).sum()
    total += prior.dof / 2 * np.linalg.slogdet(prior.scatter)[1] - dof / 2 * np.linalg.slogdet(scatter)[1]
    return float(total + D / 2 * _log_shrinkage(prior.strength, groups))


def _gamma(prior: SphericalNormalGamma, groups: Sequence[np.ndarray]) -> float:
    """-N D/2 log 2 pi + log [Γ(a_N) / Γ(a0)] + a0 log b0 - a_N log b_N + D/2 sum log [k0/(k0 + n_k)].

    a_N = a0 + N D/2, b_N = b0 + half the trace of the groups' growth. With one group, Murphy 2007, section 3.
    """
    count, D = sum(len(rows) for rows in groups), len(prior.mean)
    shape = prior.shape + count * D / 2
    rate = prior.rate + sum(np.trace(_growth(rows, prior.mean, prior.strength)) for rows in groups) / 2
    total = -count * D / 2 * np.log(2 * np.pi) + gammaln(shape) - gammaln(prior.shape)
    total += prior.shape * np.log(prior.rate) - shape * np.log(rate)
    return float(total + D / 2 * _log_shrinkage(prior.strength, groups))


def _log_shrinkage(strength: float, groups: Sequence[np.ndarray]) -> float:
    return sum((float(np.log(strength / (strength + len(rows)))) for rows in groups), 0.0)


# --- other components; every feature has a parameter of its own, and all have the same prior ---


@dataclasses.dataclass(frozen=True)
class GammaPoisson:
    """r ~ Gamma(a, rate b), x ~ Poisson(r): Gelman et al. 2013, section 2.6."""

    shape: float
    rate: float

    def log_marginal(self, rows: np.ndarray) -> float:
        return _rates(self.shape, self.rate, rows.sum(axis=0), len(rows)) - float(gammaln(rows + 1).sum())


@dataclasses.dataclass(frozen=True)
class GammaGamma:
    """r ~ Gamma(a, rate b), x ~ Gamma(c, rate r) with c known: Fink 1997, A compendium of conjugate priors."""

    shape: float
    rate: float
    concentration: float

    def log_marginal(self, rows: np.ndarray) -> float:
        base = (self.concentration - 1) * np.log(rows).sum() - rows.size * gammaln(self.concentration)
        return _rates(self.shape, self.rate, len(rows) * self.concentration, rows.sum(axis=0)) + float(base)


@dataclasses.dataclass(frozen=True)
class GammaExponential:
    """r ~ Gamma(a, rate b), x ~ Exponential(rate r): Gelman et al. 2013, section 2.6."""

    shape: float
    rate: float

    def log_marginal(self, rows: np.ndarray) -> float:
        return _rates(self.shape, self.rate, len(rows), rows.sum(axis=0))


def _rates(shape: float, rate: float, power: np.ndarray | float | int, decay: np.ndarray | float | int) -> float:
    """log ∫ Gamma(r; a, b) r^power exp(-decay r) dr, summed over features."""
    power, decay = np.broadcast_arrays(power, decay)
    posterior = gammaln(shape + power) - (shape + power) * np.log(rate + decay)
    return float((shape * np.log(rate) - gammaln(shape) + posterior).sum())


@dataclasses.dataclass(frozen=True)
class BetaBernoulli:
    """p ~ Beta(a, b), x ~ Bernoulli(p): log B(a + sum x, b + n - sum x) - log B(a, b); Bishop 2006, section 2.1."""

    a: float
    b: float

    def log_marginal(self, rows: np.ndarray) -> float:
        ones = rows.sum(axis=0)
        return float((betaln(self.a + ones, self.b + len(rows) - ones) - betaln(self.a, self.b)).sum())


@dataclasses.dataclass(frozen=True)
class DirichletCategorical:
    """p ~ Dirichlet(alpha ``[C]``), x ~ Categorical(p) with codes 0..C-1 in ``rows``: Bishop 2006, section 2.2."""

    concentration: np.ndarray

    def log_marginal(self, rows: np.ndarray) -> float:
        return sum((dirichlet_log_prob(column, self.concentration) for column in rows.T), 0.0)


# --- assignments ---


def dirichlet_log_prob(labels: np.ndarray, concentration: np.ndarray) -> float:
    """log p(t) with w ~ Dirichlet(alpha): log [Γ(A) / Γ(A + N)] + sum_k log [Γ(alpha_k + n_k) / Γ(alpha_k)]."""
    counts, total = np.bincount(labels, minlength=len(concentration)), concentration.sum()
    ratios = gammaln(concentration + counts) - gammaln(concentration)
    return float(gammaln(total) - gammaln(total + len(labels)) + ratios.sum())


def stick_breaking_log_prob(labels: np.ndarray, alpha: float, num_components: int) -> float:
    """log p(t) with w_k = v_k prod_(j<k) (1 - v_j), v_k ~ Beta(1, alpha) for k < K, v_K = 1 (the weights sum to one).

    log p(t) = sum_(k<K) log [B(1 + n_k, alpha + n_(k+1) + ... + n_K) / B(1, alpha)]. Source: Ishwaran & James 2001.
    """
    counts = np.bincount(labels, minlength=num_components)
    sticks = range(num_components - 1)
    return float(sum(betaln(1 + counts[k], alpha + counts[k + 1 :].sum()) - betaln(1, alpha) for k in sticks))


def fixed_log_prob(labels: np.ndarray, weights: np.ndarray) -> float:
    """log p(t) with known weights: sum_n log w_(t_n)."""
    return float(np.log(weights[labels]).sum())


# --- evidence ---


def per_component(prior: Prior) -> Callable[[np.ndarray, np.ndarray], float]:
    """log p(X | t) as a function of rows and labels, where each component has parameters of its own under ``prior``."""
    return lambda rows, labels: sum((prior.log_marginal(rows[labels == k]) for k in np.unique(labels)), 0.0)


def log_evidence(
    rows: np.ndarray,
    num_components: int,
    log_prob_of_labels: Callable[[np.ndarray], float],
    log_marginal_of_labels: Callable[[np.ndarray, np.ndarray], float],
) -> float:
    """log p(X) = log sum_t p(t) p(X | t) over all K^N labellings, from log p(t) and log p(X | t) of (rows, labels)."""
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{len(rows)} rows have too many labellings; at most {MAX_ROWS} are enumerated")
    labellings = map(np.array, itertools.product(range(num_components), repeat=len(rows)))
    return float(np.logaddexp.reduce([log_prob_of_labels(t) + log_marginal_of_labels(rows, t) for t in labellings]))
