"""The exact log evidence of a program of a cell, by enumeration of the assignments."""

import functools
import itertools
from typing import Any

import numpy as np

from probem.errors import InputError
from probem.experiments.oracles import evidence as oracle
from probem.models import bayesian_covariance, bayesian_gmm, bayesian_poisson_mixture, dirichlet
from probem.models.priors import GaussianPrior, RatePrior

# At most so many labellings: a second or so.
_LABELLINGS = 2**14


def log_evidence(program: functools.partial, rows: np.ndarray) -> float:
    """log p(X) of all rows, nats, with every constant: log sum_t p(t) p(X | t) over all K^N assignments.

    For ``bayesian_gmm`` (full, diagonal, spherical) and ``bayesian_poisson_mixture`` with Dirichlet weights.

    Raises
    ------
    InputError : for another program, and for more assignments than can be enumerated
    """
    bound = program.keywords
    num_components = bound["num_components"] if "num_components" in bound else 0
    prior, concentration = _prior(program.func, bound), _concentration(bound)
    if prior is None or concentration is None or not num_components:
        raise InputError(
            "a program of which the exact evidence is not known",
            "bayesian_gmm (full, diagonal, spherical) or bayesian_poisson_mixture with Dirichlet weights",
            "leave evidence out of measure",
        )
    if num_components ** len(rows) > _LABELLINGS:
        raise InputError(
            f"{num_components}^{len(rows)} assignments to enumerate", f"at most {_LABELLINGS}", "take fewer rows"
        )
    masks = 1 << np.arange(len(rows))
    labellings = np.array(list(itertools.product(range(num_components), repeat=len(rows))))
    alpha = np.full(num_components, concentration)

    @functools.cache
    def marginal(mask: int) -> float:
        return prior.log_marginal(rows[(mask & masks) > 0])

    @functools.cache
    def log_prob(counts: tuple[int, ...]) -> float:
        return oracle.dirichlet_log_prob(np.repeat(np.arange(num_components), counts), alpha)

    values = []
    for labels in labellings:
        members = labels == np.arange(num_components)[:, None]
        counts = tuple(members.sum(axis=1).tolist())
        values.append(log_prob(counts) + sum(map(marginal, (members @ masks).tolist())))
    return float(np.logaddexp.reduce(values))


def _prior(function: Any, bound: dict[str, Any]) -> oracle.Prior | None:
    prior = bound.get("prior")
    if function is bayesian_poisson_mixture and isinstance(prior, RatePrior):
        rate = np.unique(np.asarray(prior.rate, float))
        return oracle.GammaPoisson(float(prior.shape), float(rate[0])) if len(rate) == 1 else None
    if function is not bayesian_gmm or not isinstance(prior, GaussianPrior):
        return None
    mean, scatter = np.asarray(prior.mean, float), np.asarray(prior.scatter, float)
    strength, dof = float(prior.strength), float(prior.dof)
    shape, rate = (dof - len(mean) + 1) / 2, np.diagonal(scatter) / 2
    covariance = bound.get("covariance", bayesian_covariance.full)
    if covariance is bayesian_covariance.full:
        return oracle.NormalWishart(mean, strength, dof, scatter)
    if covariance is bayesian_covariance.diagonal:
        return oracle.NormalGamma(mean, strength, shape, rate)
    if covariance is bayesian_covariance.spherical:
        return oracle.SphericalNormalGamma(mean, strength, shape, float(rate.mean()))
    return None


def _concentration(bound: dict[str, Any]) -> float | None:
    weights = bound.get("weights", dirichlet)
    if weights is dirichlet:
        return 1.0
    if isinstance(weights, functools.partial) and weights.func is dirichlet:
        return float(weights.keywords.get("concentration", 1.0))
    return None
