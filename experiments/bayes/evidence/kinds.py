"""E2: with one component the bound is the log evidence, in closed form for every kind of observation.

The other side is ``evidence``; nothing of it knows the engine.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers

import probem
from probem import models
from probem.checking.residuals import excess
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.experiments.oracles import evidence
from probem.experiments.oracles.mixtures import counts, halves
from probem.models import bayesian_covariance
from probem.models.priors import GaussianPrior

from .values import PRIOR, gamma_arguments, two_columns, wishart

#: Nats: a dozen terms of some hundred nats each, and their special functions.
ONE = 1e-8

_PARTS = (
    bayesian_covariance.full,
    bayesian_covariance.tied,
    bayesian_covariance.diagonal,
    bayesian_covariance.spherical,
)


# NumPyro declares what it returns as anything between a number and an array.
_sample: Any = numpyro.sample


def four_structures(x: jax.Array, *, prior: GaussianPrior) -> None:
    """Rows observed four times, by a Gaussian of each structure of ``bayesian_covariance``; one component."""
    weights = models.dirichlet(1)
    components = {}
    for structure in _PARTS:
        with handlers.scope(prefix=structure.__name__, divider="_"):
            components[structure.__name__] = structure(1, prior)
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(probs=weights))
        for name, component in components.items():
            _sample(name, component(t), obs=x)


def five_kinds(count: jax.Array, half: jax.Array, level: jax.Array, length: jax.Array, value: jax.Array) -> None:
    """Two columns of counts, of zeros and ones, of levels, of durations and of measurements; one component."""
    weights = models.dirichlet(1)
    with numpyro.plate("components", 1):
        rate = _sample("count_rate", dist.Gamma(1.3, 0.6).expand([2]).to_event(1))
        probs = _sample("half_probs", dist.Beta(1.3, 0.6).expand([2]).to_event(1))
        shares = _sample("level_shares", dist.Dirichlet(jnp.array([0.8, 1.7, 1.1])).expand([2]).to_event(1))
        decay = _sample("length_rate", dist.Gamma(1.3, 0.6).expand([2]).to_event(1))
        loc = _sample("value_loc", dist.Normal(0.3, 1.7).expand([2]).to_event(1))
    with numpyro.plate("data", count.shape[0]):
        t = _sample("t", dist.Categorical(probs=weights))
        _sample("count", dist.Poisson(rate[t]).to_event(1), obs=count)
        _sample("half", dist.Bernoulli(probs=probs[t]).to_event(1), obs=half)
        _sample("level", dist.Categorical(probs=shares[t]).to_event(1), obs=level)
        _sample("length", dist.Exponential(decay[t]).to_event(1), obs=length)
        _sample("value", dist.Normal(loc[t], 0.6).to_event(1), obs=value)


#: The priors of ``five_kinds``, for the oracle, by observed site.
KINDS: dict[str, tuple[str, evidence.Prior]] = {
    "count": ("Poisson, gamma rates", evidence.GammaPoisson(1.3, 0.6)),
    "half": ("Bernoulli, beta", evidence.BetaBernoulli(1.3, 0.6)),
    "level": ("categorical, Dirichlet", evidence.DirichletCategorical(np.array([0.8, 1.7, 1.1]))),
    "length": ("exponential, gamma rates", evidence.GammaExponential(1.3, 0.6)),
    "value": ("normal of known variance", evidence.NormalKnownVariance(np.full(2, 0.3), 1.7, 0.6)),
}


def structures(prior: GaussianPrior) -> dict[str, evidence.Prior]:
    """The priors of ``four_structures``, for the oracle; of one component, tied is full."""
    (shape, rate), full, mean = gamma_arguments(prior), wishart(prior), np.asarray(prior.mean)
    return {
        "full": full,
        "tied": full,
        "diagonal": evidence.NormalGamma(mean, prior.strength, shape, rate),
        "spherical": evidence.SphericalNormalGamma(mean, prior.strength, shape, float(rate.mean())),
    }


@dataclasses.dataclass(frozen=True)
class Compared:
    """What is observed in one component, F of the engine and log p(X) in closed form, nats; ``is_whole`` of a sum."""

    words: str
    bound: float
    exact: float
    is_whole: bool = False


@Kept
def compared(dataset: Dataset, seed: int) -> list[Compared]:
    """Every kind of observation, and all kinds of a program together."""
    del seed
    rows, raw = two_columns(dataset), dataset.rows[:, [0, -1]]
    gaussian = {name: (f"Gaussian, {name} covariance", prior) for name, prior in structures(PRIOR).items()}
    kinds = (counts(raw), halves(raw), np.digitize(rows, (-0.5, 0.5)), np.exp(rows), rows)
    cases = (
        (functools.partial(four_structures, prior=PRIOR), (rows,), gaussian, (rows,) * len(gaussian)),
        (five_kinds, kinds, KINDS, kinds),
    )
    found = []
    for of, data, parts, observed in cases:
        fit = probem.fit(of, *data, families=probem.VARIATIONAL_BAYES, init=probem.Labels(np.zeros(len(rows), int)))
        exact = [prior.log_marginal(values) for (_, prior), values in zip(parts.values(), observed, strict=True)]
        terms = fit.elbo_terms
        for (site, (words, _)), marginal in zip(parts.items(), exact, strict=True):
            # E log p(x), and E log p(z) and H(z) of its own parameters.
            value = sum(term for name, term in terms.items() if f"({site}_" in name or name == f"E log p({site})")
            found.append(Compared(words, value, marginal))
        found.append(Compared(f"all {len(parts)} together", fit.elbo, sum(exact), is_whole=True))
    return found


@Kept
def scikit_learn(dataset: Dataset, seed: int) -> Compared:
    """``lower_bound_`` of its BayesianGaussianMixture with one component, and log p(X)."""
    del seed
    from sklearn.mixture import BayesianGaussianMixture

    rows = two_columns(dataset)
    theirs = BayesianGaussianMixture(
        n_components=1,
        reg_covar=0.0,
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=1.0,
        mean_prior=PRIOR.mean,
        mean_precision_prior=PRIOR.strength,
        degrees_of_freedom_prior=PRIOR.dof,
        covariance_prior=PRIOR.scatter,
    ).fit(rows)
    return Compared("scikit-learn’s lower_bound_", float(theirs.lower_bound_), wishart(PRIOR).log_marginal(rows))


def one_component(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E2."""
    for each in compared(dataset, seed):
        sides = "F, and the sum of their log p(X)" if each.is_whole else "F, and log p(X) in closed form"
        yield Check(
            "E2",
            dataset.name,
            f"{each.words}: {sides} (nats)",
            abs(each.bound - each.exact),
            ONE,
            {"F": each.bound, "log p(X)": each.exact},
        )
    theirs = scikit_learn(dataset, seed)
    difference = theirs.bound - theirs.exact
    yield Check(
        "E2",
        dataset.name,
        "scikit-learn’s lower_bound_: what its distance from log p(X) lacks to a nat, and 0",
        excess(1.0 - abs(difference)),
        0.0,
        {"lower_bound_": theirs.bound, "log p(X)": theirs.exact, "difference": difference},
    )
