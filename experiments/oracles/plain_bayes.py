"""Variational Bayes and maximisation-expectation for Gaussian mixtures as plain loops in NumPy.

q(t) q(w) q(mu, Lambda), with the location and the precision of a component in one joint posterior. The bound is summed
term by term, with every constant in, in nats. Nothing here knows of probem's engine.

Sources: Bishop (2006), Pattern Recognition and Machine Learning, section 10.2; Ishwaran & James (2001), Gibbs sampling
methods for stick-breaking priors; Blei & Jordan (2006), Variational inference for Dirichlet process mixtures; Kurihara
and Welling (2009), Bayesian k-means as a "maximization-expectation" algorithm.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from scipy.special import betaln, digamma, gammaln, softmax

from .evidence import NormalGamma, NormalWishart, SphericalNormalGamma

GaussianPrior = NormalWishart | NormalGamma | SphericalNormalGamma


@dataclasses.dataclass(frozen=True)
class DirichletWeights:
    """w ~ Dirichlet(alpha ``[K]``); the posterior is ``[K]``, the same parameters."""

    concentration: np.ndarray

    def posterior(self, counts: np.ndarray) -> np.ndarray:
        """alpha_k + N_k: Bishop 2006, eq. 10.58."""
        return self.concentration + counts

    def expected_log(self, posterior: np.ndarray) -> np.ndarray:
        """E log w_k, ``[K]``: Bishop 2006, eq. 10.66."""
        return digamma(posterior) - digamma(posterior.sum())

    def log_prior(self, posterior: np.ndarray) -> float:
        """E log p(w): Bishop 2006, eq. 10.73."""
        inside = ((self.concentration - 1) * self.expected_log(posterior)).sum()
        return float(inside - _dirichlet_normalizer(self.concentration))

    def entropy(self, posterior: np.ndarray) -> float:
        """H(w): Bishop 2006, eq. B.22."""
        return float(_dirichlet_normalizer(posterior) - ((posterior - 1) * self.expected_log(posterior)).sum())


@dataclasses.dataclass(frozen=True)
class StickWeights:
    """w_k = v_k prod_(j<k) (1 - v_j), v_k ~ Beta(1, alpha) for k < K and v_K = 1; the posterior is ``[K - 1, 2]``."""

    alpha: float

    def posterior(self, counts: np.ndarray) -> np.ndarray:
        """Beta(1 + N_k, alpha + sum_(j>k) N_j): Blei & Jordan 2006, section 3."""
        after = [counts[k + 1 :].sum() for k in range(len(counts))]
        return np.stack([1 + counts[:-1], self.alpha + np.array(after)[:-1]], axis=1)

    def expected_log(self, posterior: np.ndarray) -> np.ndarray:
        """E log w_k = E log v_k + sum_(j<k) E log (1 - v_j), ``[K]``."""
        stick, rest = _expected_log_stick(posterior)
        return np.append(stick, 0.0) + np.append(0.0, np.cumsum(rest))

    def log_prior(self, posterior: np.ndarray) -> float:
        """sum_k E log Beta(v_k; 1, alpha) = sum_k log alpha + (alpha - 1) E log (1 - v_k)."""
        _, rest = _expected_log_stick(posterior)
        return float((np.log(self.alpha) + (self.alpha - 1) * rest).sum())

    def entropy(self, posterior: np.ndarray) -> float:
        """sum_k log B(a_k, b_k) - (a_k - 1) E log v_k - (b_k - 1) E log (1 - v_k)."""
        (a, b), (stick, rest) = posterior.T, _expected_log_stick(posterior)
        return float((betaln(a, b) - (a - 1) * stick - (b - 1) * rest).sum())


def _dirichlet_normalizer(concentration: np.ndarray) -> float:
    return float(gammaln(concentration).sum() - gammaln(concentration.sum()))


def _expected_log_stick(posterior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return digamma(posterior[:, 0]) - digamma(posterior.sum(1)), digamma(posterior[:, 1]) - digamma(posterior.sum(1))


@dataclasses.dataclass(frozen=True)
class Posterior:
    """q(mu_k, Lambda_k) with mu_k | Lambda_k ~ N(mean_k, (strength_k Lambda_k)^-1), and the posterior of the weights.

    A first axis of G precisions: K, or 1 where one is tied. Of a Wishart, ``dof`` is ``[G]`` and ``scatter``
    ``[G, D, D]``, its rate matrix; of Gammas, ``dof`` is the shape ``[G]`` and ``scatter`` the rate, ``[G, D]`` with a
    precision for each feature and ``[G]`` with one for all.
    """

    mean: np.ndarray
    strength: np.ndarray
    dof: np.ndarray
    scatter: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Iteration:
    """One E-step: a posterior, the responsibilities ``[N, K]`` it gives, and when it is asked for, the bound F under
    both, with its terms.
    """

    posterior: Posterior
    responsibilities: np.ndarray
    rows: np.ndarray
    prior: GaussianPrior
    weights: DirichletWeights | StickWeights

    @functools.cached_property
    def terms(self) -> Mapping[str, float]:
        return bound_terms(self.rows, self.responsibilities, self.posterior, self.prior, self.weights)

    @property
    def bound(self) -> float:
        return sum(self.terms.values())


def variational_bayes(
    rows: np.ndarray,
    responsibilities: np.ndarray,
    prior: GaussianPrior,
    weights: DirichletWeights | StickWeights,
    *,
    tied: bool = False,
    hard: bool = False,
    num_steps: int = 20,
) -> tuple[Iteration, ...]:
    """M, E, M, E, ... from ``responsibilities`` ``[N, K]``, ``num_steps`` times.

    The class of the prior names the structure: ``NormalWishart`` full, ``NormalGamma`` diagonal,
    ``SphericalNormalGamma`` spherical. ``tied``: one precision for all components. ``hard``: q(t_n) is a point mass at
    the largest responsibility, of several the lowest index (Kurihara & Welling 2009).
    """
    iterations = []
    for _ in range(num_steps):
        posterior = m_step(rows, responsibilities, prior, weights, tied)
        responsibilities = e_step(rows, posterior, weights, hard)
        iterations.append(Iteration(posterior, responsibilities, rows, prior, weights))
    return tuple(iterations)


def m_step(
    rows: np.ndarray,
    responsibilities: np.ndarray,
    prior: GaussianPrior,
    weights: DirichletWeights | StickWeights,
    tied: bool = False,
) -> Posterior:
    """The posteriors of parameters under responsibilities: Bishop 2006, eqs. 10.51 to 10.53 and 10.58 to 10.63."""
    D, K = rows.shape[1], responsibilities.shape[1]
    counts = responsibilities.sum(axis=0)
    strength = prior.strength + counts
    mean = (prior.strength * prior.mean + responsibilities.T @ rows) / strength[:, None]
    growth = np.zeros((K, D, D))
    for k in range(K):
        average = responsibilities[:, k] @ rows / counts[k] if counts[k] > 0 else prior.mean
        growth[k] = (responsibilities[:, [k]] * (rows - average)).T @ (rows - average)
        pull = prior.strength * counts[k] / (prior.strength + counts[k])
        growth[k] += pull * np.outer(average - prior.mean, average - prior.mean)
    size = counts
    if tied:
        growth, size = growth.sum(axis=0, keepdims=True), counts.sum(keepdims=True)
    if isinstance(prior, NormalWishart):
        dof, scatter = prior.dof + size, prior.scatter + growth
    elif isinstance(prior, NormalGamma):
        dof, scatter = prior.shape + size / 2, prior.rate + np.diagonal(growth, axis1=1, axis2=2) / 2
    else:
        dof, scatter = prior.shape + size * D / 2, prior.rate + np.trace(growth, axis1=1, axis2=2) / 2
    return Posterior(mean, strength, dof, scatter, weights.posterior(counts))


def e_step(
    rows: np.ndarray, posterior: Posterior, weights: DirichletWeights | StickWeights, hard: bool = False
) -> np.ndarray:
    """Responsibilities ``[N, K]`` ∝ exp(E log w_k + E log p(x_n | k)): Bishop 2006, eq. 10.46."""
    scores = weights.expected_log(posterior.weights) + _expected_log_likelihood(rows, posterior)
    if hard:
        return np.eye(scores.shape[1])[scores.argmax(axis=1)]
    return softmax(scores, axis=1)


def bound_terms(
    rows: np.ndarray,
    responsibilities: np.ndarray,
    posterior: Posterior,
    prior: GaussianPrior,
    weights: DirichletWeights | StickWeights,
) -> dict[str, float]:
    """The terms of F, which is their sum: Bishop 2006, eqs. 10.71 to 10.77."""
    D = rows.shape[1]
    log_det, precision = _expected_precision(posterior)
    locations, location_entropy = 0.0, 0.0
    for k, strength in enumerate(posterior.strength):
        away = posterior.mean[k] - prior.mean
        squares = D / strength + away @ precision[k] @ away
        locations += 0.5 * (D * np.log(prior.strength / (2 * np.pi)) + log_det[k] - prior.strength * squares)
        location_entropy += 0.5 * (D * np.log(2 * np.pi / strength) + D - log_det[k])
    positive = responsibilities[responsibilities > 0]
    precisions, precision_entropy = _precision_terms(posterior, prior)
    terms = {
        "E log p(x | t, mu, Lambda)": (responsibilities * _expected_log_likelihood(rows, posterior)).sum(),
        "E log p(t | w)": (responsibilities * weights.expected_log(posterior.weights)).sum(),
        "H(t)": -(positive * np.log(positive)).sum(),
        "E log p(w)": weights.log_prior(posterior.weights),
        "H(w)": weights.entropy(posterior.weights),
        "E log p(mu | Lambda)": locations,
        "H(mu | Lambda)": location_entropy,
        "E log p(Lambda)": precisions,
        "H(Lambda)": precision_entropy,
    }
    return {name: float(term) for name, term in terms.items()}


def _expected_precision(posterior: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """E log|Lambda_k| ``[K]`` and E Lambda_k ``[K, D, D]``: Bishop 2006, eqs. B.81 and B.80; of a Gamma, B.30, B.27."""
    K, D = posterior.mean.shape
    log_dets, precisions = [], []
    for dof, scatter in zip(posterior.dof, posterior.scatter, strict=True):
        if scatter.ndim == 2:
            log_dets.append(_wishart_log_det(dof, scatter))
            precisions.append(dof * np.linalg.inv(scatter))
        else:
            rates = np.broadcast_to(scatter, (D,))
            log_dets.append((digamma(dof) - np.log(rates)).sum())
            precisions.append(np.diag(dof / rates))
    return np.broadcast_to(np.array(log_dets), (K,)), np.broadcast_to(np.array(precisions), (K, D, D))


def _expected_log_likelihood(rows: np.ndarray, posterior: Posterior) -> np.ndarray:
    """E log N(x_n; mu_k, Lambda_k^-1), ``[N, K]``: Bishop 2006, eqs. 10.46 and 10.64."""
    (N, D), K = rows.shape, len(posterior.mean)
    log_det, precision = _expected_precision(posterior)
    table = np.zeros((N, K))
    for k in range(K):
        away = rows - posterior.mean[k]
        squares = D / posterior.strength[k] + ((away @ precision[k]) * away).sum(axis=1)
        table[:, k] = 0.5 * (log_det[k] - D * np.log(2 * np.pi) - squares)
    return table


def _precision_terms(posterior: Posterior, prior: GaussianPrior) -> tuple[float, float]:
    """E log p(Lambda) and H(Lambda), summed over precisions: Bishop 2006, eqs. 10.74 and B.82; of a Gamma, B.31."""
    expected, entropy = 0.0, 0.0
    for dof, scatter in zip(posterior.dof, posterior.scatter, strict=True):
        if isinstance(prior, NormalWishart):
            D, log_det = len(scatter), _wishart_log_det(dof, scatter)
            inside = -dof * np.trace(prior.scatter @ np.linalg.inv(scatter)) / 2
            expected += _log_wishart_normalizer(prior.dof, prior.scatter) + (prior.dof - D - 1) / 2 * log_det + inside
            entropy += -_log_wishart_normalizer(dof, scatter) - (dof - D - 1) / 2 * log_det + dof * D / 2
        else:
            a, log_precision = prior.shape, digamma(dof) - np.log(scatter)
            inside = (a - 1) * log_precision - prior.rate * dof / scatter
            expected += np.sum(a * np.log(prior.rate) - gammaln(a) + inside)
            entropy += np.sum(dof - np.log(scatter) + gammaln(dof) + (1 - dof) * digamma(dof))
    return float(expected), float(entropy)


def _wishart_log_det(dof: float, scatter: np.ndarray) -> float:
    D = len(scatter)
    return digamma((dof - np.arange(D)) / 2).sum() + D * np.log(2) - np.linalg.slogdet(scatter)[1]


def _log_wishart_normalizer(dof: float, scatter: np.ndarray) -> float:
    """log B(W, nu) with W = scatter^-1: Bishop 2006, eq. B.79."""
    D = len(scatter)
    log_gamma = D * (D - 1) / 4 * np.log(np.pi) + gammaln((dof - np.arange(D)) / 2).sum()
    return dof / 2 * np.linalg.slogdet(scatter)[1] - dof * D / 2 * np.log(2) - log_gamma
