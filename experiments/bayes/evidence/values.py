"""E1: the bound beside the log evidence, which is exact where all labellings can be enumerated.

The other side is ``evidence`` and SciPy's densities; nothing of it knows the engine.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy.stats as stats
from scipy.special import logsumexp

import probem
from probem import models
from probem.checking.residuals import ROUNDING, SAME, excess, relative, worst
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.oracles import evidence, plain_bayes
from probem.families import Corner
from probem.models import bayesian_covariance
from probem.models.priors import GaussianPrior

#: In units of a standard deviation; the location is worth half a row, so that the prior has a say.
PRIOR = GaussianPrior(np.zeros(2), 0.5, 4.0, np.eye(2))
#: All labellings of seven rows are few enough to be added up.
FEW = 7
#: The unit of measurement of the point corners: a tenth of a standard deviation.
TENTHS = 10.0
STARTS = 5


def two_columns(dataset: Dataset) -> np.ndarray:
    """The first and the last column, each standardised, ``[N, 2]``."""
    rows = dataset.rows[:, [0, -1]]
    return (rows - rows.mean(0)) / rows.std(0)


def few_rows(dataset: Dataset) -> np.ndarray:
    """Seven rows evenly spread over those of a data set, two columns, standardised among themselves, ``[7, 2]``."""
    rows = dataset.rows[np.linspace(0, len(dataset.rows) - 1, FEW).astype(int)][:, [0, -1]]
    return (rows - rows.mean(0)) / rows.std(0)


def in_units(prior: GaussianPrior, factor: float) -> GaussianPrior:
    """A prior of the rows as one of the rows times ``factor``."""
    return prior._replace(mean=factor * prior.mean, scatter=factor**2 * prior.scatter)


def program(
    num_components: int, prior: GaussianPrior = PRIOR, covariance: Any = bayesian_covariance.full, weights: Any = None
) -> Callable[..., None]:
    """``bayesian_gmm`` with everything bound but its rows."""
    # With its concentration bound, so that others are other numbers of one program.
    weights = weights or functools.partial(models.dirichlet, concentration=1.0)
    return functools.partial(
        models.bayesian_gmm, num_components=num_components, prior=prior, covariance=covariance, weights=weights
    )


def wishart(prior: GaussianPrior) -> evidence.NormalWishart:
    """The prior of full and tied covariances, for the oracles."""
    return evidence.NormalWishart(np.asarray(prior.mean), prior.strength, prior.dof, np.asarray(prior.scatter))


def gamma_arguments(prior: GaussianPrior) -> tuple[float, np.ndarray]:
    """Shape and rate [D] of a precision where features are independent: those of ``bayesian_covariance``, by hand."""
    return (prior.dof - np.size(prior.mean) + 1) / 2, np.diagonal(prior.scatter) / 2


def log_evidence(rows: np.ndarray, num_components: int, prior: GaussianPrior) -> float:
    """log p(X) by enumeration, weights Dirichlet(1, ..., 1), full covariances."""
    return evidence.log_evidence(rows, num_components, *_of_labels(num_components, prior))


def _of_labels(num_components: int, prior: GaussianPrior) -> tuple[Callable[..., float], Callable[..., float]]:
    """log p(t) and log p(X | t) as functions of labels, and of rows and labels."""
    concentration, of_rows = np.ones(num_components), wishart(prior)

    # Many labellings share few sets of rows.
    @functools.cache
    def marginal(rows: bytes) -> float:
        return of_rows.log_marginal(np.frombuffer(rows).reshape(-1, np.size(prior.mean)))

    return (
        lambda labels: evidence.dirichlet_log_prob(labels, concentration),
        lambda rows, labels: sum(marginal(rows[labels == k].tobytes()) for k in range(num_components)),
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
    return float(np.asarray(logsumexp(each))) + log_density(params, prior)


def bounded(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E1."""
    rows, generator = few_rows(dataset), np.random.default_rng(seed)
    for name, corner, num_components in (
        ("variational Bayes", probem.VARIATIONAL_BAYES, 2),
        ("Bayesian k-means", probem.MAXIMIZATION_EXPECTATION, 2),
    ):
        hard = corner is probem.MAXIMIZATION_EXPECTATION
        runs = _runs(program(num_components), rows, corner, num_components, generator)
        fits, words = [fit for _, fit in runs], f"{name}, K = {num_components}"
        exact, highest = log_evidence(rows, num_components, PRIOR), worst(*(fit.history.elbo for fit in fits))
        weights = plain_bayes.DirichletWeights(np.ones(num_components))
        loop = functools.partial(plain_bayes.variational_bayes, rows, prior=wishart(PRIOR), weights=weights, hard=hard)
        yield _climbs(dataset, words, fits)
        plain = [loop(start, num_steps=fit.num_steps)[-1].bound for start, fit in runs]
        yield _alike(dataset, f"{words}: F where it stops, and of a plain loop after as many steps", fits, plain)
        yield Check(
            "E1",
            dataset.name,
            f"{words}: what the highest F has above log p(X) of all {num_components**FEW} labellings, and 0",
            excess(highest, exact) / abs(exact),
            ROUNDING,
            {"log p(X)": exact, "highest F": highest, "gap (nats)": exact - highest},
        )
        if hard:
            joints = [log_joint_of_labels(rows, np.asarray(fit.predict(rows)), num_components, PRIOR) for fit in fits]
            yield _alike(dataset, f"{words}: F where it stops, and log p(T) + log p(X | T) of its labels", fits, joints)
    yield from _points(dataset, generator)


def _points(dataset: Dataset, generator: np.random.Generator) -> Iterator[Check]:
    """E1 in the two corners of point parameters, in units of a tenth of a standard deviation."""
    rows, prior = TENTHS * few_rows(dataset), in_units(PRIOR, TENTHS)
    exact = log_evidence(rows, 2, prior)
    for name, corner, hard in (("MAP-EM", probem.EM, False), ("hard MAP-EM", probem.HARD_EM, True)):
        runs = _runs(program(2, prior), rows, corner, 2, generator)
        fits = [fit for _, fit in runs]
        joints = [log_joint_of_parameters(rows, fit.params, prior) for fit in fits]
        highest = worst([fit.elbo for fit in fits])
        yield _climbs(dataset, name, fits)
        plain = [map_em(rows, start, prior, hard, fit.num_steps) for start, fit in runs]
        yield _alike(dataset, f"{name}: F where it stops, and of a plain loop after as many steps", fits, plain)
        if hard:
            above = worst([fit.elbo - joint for fit, joint in zip(fits, joints, strict=True)])
            yield Check(
                "E1",
                dataset.name,
                f"{name}: what F has above log p(X, θ) at its own θ, and 0",
                excess(above) / abs(exact),
                ROUNDING,
                {"least gap (nats)": -above},
            )
        else:
            yield _alike(dataset, f"{name}: F, and log p(X, θ) at its own θ", fits, joints)
        yield Check(
            "E1",
            dataset.name,
            f"{name}: what F lacks to exceed log p(X) by a nat in these units, and 0",
            excess(1.0 - (highest - exact)),
            0.0,
            {"F": highest, "log p(X)": exact},
        )


def _alike(dataset: Dataset, compared: str, fits: list[probem.Fit], others: list[float]) -> Check:
    """The F of several starts, and as many numbers that ought to be the same."""
    residuals = [relative(fit.elbo, other) for fit, other in zip(fits, others, strict=True)]
    largest = int(np.argmax(residuals))
    numbers = {"F": fits[largest].elbo, "other": others[largest]}
    return Check("E1", dataset.name, compared, residuals, SAME, numbers)


def _runs(
    of: Callable[..., None], rows: np.ndarray, corner: Corner, num_components: int, generator: np.random.Generator
) -> list[tuple[np.ndarray, probem.Fit]]:
    """From several random labellings, in which every component has a row: ``[N, K]``, and the fit."""
    spare = (generator.integers(num_components, size=FEW - num_components) for _ in range(STARTS))
    starts = [generator.permutation(np.append(np.arange(num_components), labels)) for labels in spare]
    fits = [probem.fit(of, rows, families=corner, init=probem.Labels(labels)) for labels in starts]
    return [(np.eye(num_components)[labels], fit) for labels, fit in zip(starts, fits, strict=True)]


def _climbs(dataset: Dataset, words: str, fits: list[probem.Fit]) -> Check:
    changes = np.concatenate([np.diff(fit.history.elbo) for fit in fits])
    size = worst(np.abs([fit.elbo for fit in fits]))
    return Check(
        "E1",
        dataset.name,
        f"{words}: the largest fall of F in a half-step, and 0",
        excess(-changes) / size,
        ROUNDING,
        {
            "half-steps": sum(len(fit.history) for fit in fits),
            "starts": len(fits),
            "largest rise": float(changes.max()),
        },
    )


def map_em(rows: np.ndarray, responsibilities: np.ndarray, prior: GaussianPrior, hard: bool, num_steps: int) -> float:
    """F = E_q log p(X, T | theta) + H(q) + log p(theta) of MAP-EM after so many M and E half-steps, by a plain loop.

    The mode of mu, Lambda ~ N(m, (k Lambda)^-1) W(nu, S) has mu = m and Lambda = (nu - D) S^-1, from the factor
    |Lambda|^((nu - D)/2) of the two densities together; that of Dirichlet(alpha) has weights alpha - 1, normalised.
    """
    weights, params, value = plain_bayes.DirichletWeights(np.ones(responsibilities.shape[1])), {}, 0.0
    for _ in range(num_steps):
        posterior = plain_bayes.m_step(rows, responsibilities, wishart(prior), weights)
        shares = np.maximum(posterior.weights - 1, 1e-300)
        precision = np.linalg.inv(posterior.scatter) * (posterior.dof - rows.shape[1])[:, None, None]
        params = {"weights": shares / shares.sum(), "loc": posterior.mean, "precision": precision}
        table = log_joint_table(rows, params)
        per_row = table.max(1) if hard else np.asarray(logsumexp(table, axis=1))
        responsibilities = np.eye(table.shape[1])[table.argmax(1)] if hard else np.exp(table - per_row[:, None])
        value = float(per_row.sum())
    return value + log_density(params, prior)
