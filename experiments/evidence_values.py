"""E1, E2: the bound beside the log evidence, which is exact here: by enumeration of all labellings, or with one component.

The other side is ``evidence`` and SciPy's densities; nothing of it knows the engine.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.stats as stats
from numpyro import handlers
from scipy.special import logsumexp

import probem
from probem import models
from probem.families import Corner
from probem.models import bayesian_covariance
from probem.models.priors import GaussianPrior

from . import evidence, plain_bayes
from .bound_values import ROUNDING, SAME, relative
from .claim import Check, Dataset
from .mixtures import counts, halves

#: In units of a standard deviation; the location is worth half a row, so that the prior has a say.
PRIOR = GaussianPrior(np.zeros(2), 0.5, 4.0, np.eye(2))
#: All labellings of seven rows are few enough to be added up.
FEW = 7
#: The unit of measurement of the point corners: a tenth of a standard deviation.
TENTHS = 10.0
STARTS = 5

_PARTS = (bayesian_covariance.full, bayesian_covariance.tied, bayesian_covariance.diagonal, bayesian_covariance.spherical)


def two_columns(dataset: Dataset) -> np.ndarray:
    """The first and the last column, each standardised, ``[N, 2]``."""
    rows = dataset.rows[:, [0, -1]]
    return (rows - rows.mean(0)) / rows.std(0)


def few_rows(dataset: Dataset) -> np.ndarray:
    """Seven rows evenly spread over those of a data set, two columns, standardised among themselves, ``[7, 2]``."""
    rows = dataset.rows[np.linspace(0, len(dataset.rows) - 1, FEW).astype(int)][:, [0, -1]]
    return (rows - rows.mean(0)) / rows.std(0)


def in_units(prior: GaussianPrior, factor: float) -> GaussianPrior:
    """The same prior of the rows times ``factor``."""
    return prior._replace(mean=factor * prior.mean, scatter=factor**2 * prior.scatter)


def program(
    num_components: int, prior: GaussianPrior = PRIOR, covariance: Any = bayesian_covariance.full, weights: Any = None
) -> Callable[..., None]:
    """``bayesian_gmm`` with everything bound but its rows."""
    weights = weights or models.dirichlet
    return functools.partial(
        models.bayesian_gmm, num_components=num_components, prior=prior, covariance=covariance, weights=weights
    )


def wishart(prior: GaussianPrior) -> evidence.NormalWishart:
    """The prior of full and tied covariances, for the oracles."""
    return evidence.NormalWishart(np.asarray(prior.mean), prior.strength, prior.dof, np.asarray(prior.scatter))


def gamma_arguments(prior: GaussianPrior) -> tuple[float, np.ndarray]:
    """Shape and rate [D] of a precision where features are independent: those of ``bayesian_covariance``, by hand."""
    return (prior.dof - len(prior.mean) + 1) / 2, np.diagonal(prior.scatter) / 2


def log_evidence(rows: np.ndarray, num_components: int, prior: GaussianPrior) -> float:
    """log p(X) by enumeration, weights Dirichlet(1, ..., 1), full covariances."""
    return evidence.log_evidence(rows, num_components, *_of_labels(num_components, prior))


def _of_labels(num_components: int, prior: GaussianPrior) -> tuple[Callable[..., float], Callable[..., float]]:
    """log p(t) and log p(X | t) as functions of labels, and of rows and labels."""
    concentration = np.ones(num_components)
    return (
        lambda labels: evidence.dirichlet_log_prob(labels, concentration),
        evidence.per_component(wishart(prior)),
    )


def log_joint_of_labels(rows: np.ndarray, labels: np.ndarray, num_components: int, prior: GaussianPrior) -> float:
    """log p(X, t), parameters integrated out."""
    of_labels, of_rows = _of_labels(num_components, prior)
    return of_labels(labels) + of_rows(rows, labels)


def log_density(params: Mapping[str, Any], prior: GaussianPrior) -> float:
    """log p(theta) by SciPy: Dirichlet(1, ..., 1), Wishart, Normal."""
    weights = np.asarray(params["weights"], float)
    total = float(stats.dirichlet.logpdf(weights / weights.sum(), np.ones(len(weights))))
    for loc, precision in zip(np.asarray(params["loc"]), np.asarray(params["precision"]), strict=True):
        total += stats.wishart.logpdf(precision, prior.dof, np.linalg.inv(prior.scatter))
        total += stats.multivariate_normal.logpdf(loc, prior.mean, np.linalg.inv(prior.strength * precision))
    return float(total)


def log_joint_table(rows: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """log p(x_n, t_n = k | theta), ``[N, K]``, by SciPy."""
    each = zip(np.asarray(params["loc"]), np.linalg.inv(params["precision"]), strict=True)
    densities = [stats.multivariate_normal.logpdf(rows, loc, covariance) for loc, covariance in each]
    return np.log(params["weights"]) + np.stack(densities, axis=1)


def log_joint_of_parameters(rows: np.ndarray, params: Mapping[str, Any], prior: GaussianPrior) -> float:
    """log p(X, theta) = log p(theta) + log sum_T p(X, T | theta), labelling by labelling."""
    table = log_joint_table(rows, params)
    labellings = itertools.product(range(table.shape[1]), repeat=len(rows))
    each = [table[np.arange(len(rows)), labels].sum() for labels in map(list, labellings)]
    return float(logsumexp(each)) + log_density(params, prior)


def bounded(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E1."""
    rows, generator = few_rows(dataset), np.random.default_rng(seed)
    cases = (("variational Bayes", probem.VARIATIONAL_BAYES, 2), ("Bayesian k-means", probem.MAXIMIZATION_EXPECTATION, 3))
    for name, corner, num_components in cases:
        fits = _fits(program(num_components), rows, corner, num_components, generator)
        exact = log_evidence(rows, num_components, PRIOR)
        words = f"{name}, K = {num_components}"
        yield _climbs(dataset, words, fits)
        highest = max(float(fit.history.elbo.max()) for fit in fits)
        yield Check(
            "E1",
            dataset.name,
            f"{words}: what the highest F has above log p(X) of all {num_components**FEW} labellings, and 0",
            float(np.maximum(highest - exact, 0.0)) / abs(exact),
            ROUNDING,
            {"log p(X)": exact, "highest F": highest, "gap (nats)": exact - highest},
        )
        if corner is probem.MAXIMIZATION_EXPECTATION:
            labels = [fit.predict(rows) for fit in fits]
            joints = [log_joint_of_labels(rows, own, num_components, PRIOR) for own in labels]
            residuals = [relative(fit.elbo, joint) for fit, joint in zip(fits, joints, strict=True)]
            worst = int(np.argmax(residuals))
            yield Check(
                "E1",
                dataset.name,
                f"{words}: F where it stops, and log p(T) + log p(X | T) of its labels",
                residuals[worst],
                SAME,
                {"F": fits[worst].elbo, "log p(X, T)": joints[worst]},
            )
    yield from _points(dataset, generator)


def _points(dataset: Dataset, generator: np.random.Generator) -> Iterator[Check]:
    """E1 in the two corners of point parameters, in units of a tenth of a standard deviation."""
    rows, prior = TENTHS * few_rows(dataset), in_units(PRIOR, TENTHS)
    exact = log_evidence(rows, 2, prior)
    for name, corner in (("MAP-EM", probem.EM), ("hard MAP-EM", probem.HARD_EM)):
        fits = _fits(program(2, prior), rows, corner, 2, generator)
        joints = [log_joint_of_parameters(rows, fit.params, prior) for fit in fits]
        excess = np.array([fit.elbo - joint for fit, joint in zip(fits, joints, strict=True)])
        best = max(range(STARTS), key=lambda start: fits[start].elbo)
        yield _climbs(dataset, name, fits)
        numbers = {"F": fits[best].elbo, "log p(X, θ)": joints[best]}
        if corner is probem.EM:
            words, off = f"{name}: F, and log p(X, θ) at its own θ", np.abs(excess)
        else:
            words, off = f"{name}: what F has above log p(X, θ) at its own θ, and 0", np.maximum(excess, 0.0)
        yield Check("E1", dataset.name, words, float(off.max()) / abs(exact), SAME, numbers)
        yield Check(
            "E1",
            dataset.name,
            f"{name}: what F lacks to exceed log p(X) by a nat in these units, and 0",
            float(np.maximum(0.0, 1.0 - (fits[best].elbo - exact))),
            0.0,
            {"F": fits[best].elbo, "log p(X)": exact},
        )


def _fits(
    of: Callable[..., None], rows: np.ndarray, corner: Corner, num_components: int, generator: np.random.Generator
) -> list[probem.Fit]:
    """From several random labellings, in which every component has a row."""
    spare = (generator.integers(num_components, size=FEW - num_components) for _ in range(STARTS))
    starts = [generator.permutation(np.append(np.arange(num_components), own)) for own in spare]
    return [probem.fit(of, rows, families=corner, init=probem.Labels(labels)) for labels in starts]


def _climbs(dataset: Dataset, words: str, fits: list[probem.Fit]) -> Check:
    changes = np.concatenate([np.diff(fit.history.elbo) for fit in fits])
    size = max(abs(fit.elbo) for fit in fits)
    return Check(
        "E1",
        dataset.name,
        f"{words}: the largest fall of F in a half-step, and 0",
        float(np.maximum(-changes, 0.0).max()) / size,
        ROUNDING,
        {"half-steps": sum(len(fit.history) for fit in fits), "starts": len(fits), "largest rise": float(changes.max())},
    )


def map_em(
    rows: np.ndarray, responsibilities: np.ndarray, prior: GaussianPrior, hard: bool = False, num_steps: int = 60
) -> float:
    """F = E_q log p(X, T | theta) + H(q) + log p(theta) of MAP-EM after so many M and E half-steps, by a plain loop.

    The mode of mu, Lambda ~ N(m, (k Lambda)^-1) W(nu, S) has mu = m and Lambda = (nu - D) S^-1, from the factor
    |Lambda|^((nu - D)/2) of the two densities together; that of Dirichlet(alpha) has weights alpha - 1, normalised.
    """
    weights, value = plain_bayes.DirichletWeights(np.ones(responsibilities.shape[1])), -np.inf
    for _ in range(num_steps):
        own = plain_bayes.m_step(rows, responsibilities, wishart(prior), weights)
        shares = np.maximum(own.weights - 1, 1e-300)
        precision = np.linalg.inv(own.scatter) * (own.dof - rows.shape[1])[:, None, None]
        params = {"weights": shares / shares.sum(), "loc": own.mean, "precision": precision}
        table = log_joint_table(rows, params)
        per_row = table.max(1) if hard else logsumexp(table, axis=1)
        responsibilities = np.eye(table.shape[1])[table.argmax(1)] if hard else np.exp(table - per_row[:, None])
        value = float(per_row.sum()) + log_density(params, prior)
    return value


# --- E2 ---


def four_structures(x: jax.Array, *, prior: GaussianPrior) -> None:
    """The same rows observed four times, by a Gaussian of each structure of ``bayesian_covariance``; one component."""
    weights = models.dirichlet(1)
    components = {}
    for structure in _PARTS:
        with handlers.scope(prefix=structure.__name__, divider="_"):
            components[structure.__name__] = structure(1, prior)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        for name, component in components.items():
            numpyro.sample(name, component(t), obs=x)


def five_kinds(count: jax.Array, half: jax.Array, level: jax.Array, length: jax.Array, value: jax.Array) -> None:
    """Two columns of counts, of zeros and ones, of levels, of durations and of measurements; one component."""
    weights = models.dirichlet(1)
    with numpyro.plate("components", 1):
        rate = numpyro.sample("count_rate", dist.Gamma(1.3, 0.6).expand([2]).to_event(1))
        probs = numpyro.sample("half_probs", dist.Beta(1.3, 0.6).expand([2]).to_event(1))
        shares = numpyro.sample("level_shares", dist.Dirichlet(jnp.array([0.8, 1.7, 1.1])).expand([2]).to_event(1))
        decay = numpyro.sample("length_rate", dist.Gamma(1.3, 0.6).expand([2]).to_event(1))
        loc = numpyro.sample("value_loc", dist.Normal(0.3, 1.7).expand([2]).to_event(1))
    with numpyro.plate("data", count.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("count", dist.Poisson(rate[t]).to_event(1), obs=count)
        numpyro.sample("half", dist.Bernoulli(probs=probs[t]).to_event(1), obs=half)
        numpyro.sample("level", dist.Categorical(probs=shares[t]).to_event(1), obs=level)
        numpyro.sample("length", dist.Exponential(decay[t]).to_event(1), obs=length)
        numpyro.sample("value", dist.Normal(loc[t], 0.6).to_event(1), obs=value)


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


def one_component(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E2."""
    rows, raw = two_columns(dataset), dataset.rows[:, [0, -1]]
    gaussian = {name: (f"Gaussian, {name} covariance", prior) for name, prior in structures(PRIOR).items()}
    kinds = (counts(raw), halves(raw), np.digitize(rows, (-0.5, 0.5)), np.exp(rows), rows)
    cases = (
        (functools.partial(four_structures, prior=PRIOR), (rows,), gaussian, (rows,) * len(gaussian)),
        (five_kinds, kinds, KINDS, kinds),
    )
    for of, data, parts, observed in cases:
        fit = probem.fit(of, *data, families=probem.VARIATIONAL_BAYES, init=probem.Labels(np.zeros(len(rows), int)))
        exact = {site: prior.log_marginal(own) for (site, (_, prior)), own in zip(parts.items(), observed, strict=True)}
        found = fit.elbo_terms
        for site, (words, _) in parts.items():
            # E log p(x), and E log p(z) and H(z) of its own parameters.
            value = sum(term for name, term in found.items() if f"({site}_" in name or name == f"E log p({site})")
            yield Check(
                "E2",
                dataset.name,
                f"{words}: F, and log p(X) in closed form (nats)",
                abs(value - exact[site]),
                ONE,
                {"F": value, "log p(X)": exact[site]},
            )
        yield Check(
            "E2",
            dataset.name,
            f"all {len(parts)} together: F, and the sum of their log p(X) (nats)",
            abs(fit.elbo - sum(exact.values())),
            ONE,
            {"F": fit.elbo, "log p(X)": sum(exact.values())},
        )
    yield _of_scikit_learn(dataset, rows)


# What is asked for: the bound adds up a dozen terms, some a hundred times as large as what remains of them.
ONE = 1e-8


def _of_scikit_learn(dataset: Dataset, rows: np.ndarray) -> Check:
    from sklearn.mixture import BayesianGaussianMixture

    exact = wishart(PRIOR).log_marginal(rows)
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
    return Check(
        "E2",
        dataset.name,
        "scikit-learn’s lower_bound_: what its distance from log p(X) lacks to a nat, and 0",
        float(np.maximum(0.0, 1.0 - abs(theirs.lower_bound_ - exact))),
        0.0,
        {"lower_bound_": float(theirs.lower_bound_), "log p(X)": exact, "difference": theirs.lower_bound_ - exact},
    )
