"""D2, E8: what gives the likelihood of D1 an upper bound: covariances that are fixed, or a prior on them."""

import functools
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln, logsumexp, softmax, xlogy
from scipy.stats import Covariance, wishart

import probem
from probem.models import GaussianPrior, bayesian_gmm, kmeans

from .bound_values import ROUNDING, SAME
from .claim import Check, Dataset, excess
from .degeneracy import COMPONENTS, Params, Setting, fit_from, log_joint, normal, pose


def weak_prior(rows: np.ndarray) -> GaussianPrior:
    """The weakly informative prior of ``models``, as NumPy arrays."""
    found = GaussianPrior.from_data(jnp.asarray(rows), COMPONENTS)
    return found._replace(mean=np.asarray(found.mean), scatter=np.asarray(found.scatter))


def log_prior(prior: GaussianPrior, params: Params) -> float:
    """Dirichlet(1, ..., 1), Wishart, and a normal location given its precision: Bishop (2006), eqs. 10.39 and 10.40."""
    total = float(gammaln(len(params["weights"])))
    scale = np.linalg.inv(prior.scatter)
    for loc, precision in zip(params["loc"], params["precision"], strict=True):
        # Rounding alone makes a matrix unsymmetric, which SciPy refuses.
        symmetric = (precision + precision.T) / 2
        total += wishart(prior.dof, scale).logpdf(symmetric)
        total += normal(prior.mean, Covariance.from_precision(prior.strength * symmetric)).logpdf(loc)
    return float(total)


# --- D2 ---


def supremum_fixed(num_rows: int, dim: int, num_components: int, hard: bool) -> float:
    """The upper bound of F for fixed identity covariances and equal weights: every row on a centre."""
    return -float(num_rows * (dim / 2 * np.log(2 * np.pi) + (np.log(num_components) if hard else 0.0)))


def supremum_with_prior(prior: GaussianPrior, num_rows: int, num_components: int) -> float:
    """An upper bound of log p(X | theta) + log p(theta), whatever theta.

    No row is denser than under the component with the largest |Lambda_k|; the exponents of that determinant, from rows,
    location and Wishart prior, add up to a = N + nu - D, those of the others to nu - D. For each of them
    a/2 log|Lambda| - tr(S Lambda)/2 is largest at Lambda = a S^-1.
    """
    dim, log_det = np.size(prior.mean), np.linalg.slogdet(prior.scatter)[1]

    def largest(a: float) -> float:
        return a / 2 * (dim * np.log(a) - log_det) - a * dim / 2

    constant = prior.dof / 2 * (log_det - dim * np.log(2))
    constant -= dim * (dim - 1) / 4 * np.log(np.pi) + gammaln((prior.dof - np.arange(dim)) / 2).sum()
    constant += dim / 2 * np.log(prior.strength / (2 * np.pi))
    rest = prior.dof - dim
    found = num_components * constant + largest(num_rows + rest) + (num_components - 1) * largest(rest)
    return float(found + gammaln(num_components) - num_rows * dim / 2 * np.log(2 * np.pi))


def bounded(dataset: Dataset, seed: int) -> Iterator[Check]:
    """D2: the same start with the covariances fixed, under soft and under hard EM, and with a prior on them."""
    del seed
    setting = pose(dataset)
    rows, (num_rows, dim) = setting.rows, setting.rows.shape
    program = functools.partial(kmeans, num_components=COMPONENTS)
    init = probem.Parameters({"loc": setting.params(1.0)["loc"]})
    for name, families in (("soft EM", probem.EM), ("point masses", probem.HARD_EM)):
        fit = probem.fit(program, rows, families=families, init=init, throw=False)
        supremum = supremum_fixed(num_rows, dim, COMPONENTS, hard=families is probem.HARD_EM)
        yield from _stays_below(dataset.name, f"Σ = I, {name}", fit, supremum)
    few = rows[:: len(rows) // 8][:8]
    attained = probem.elbo(functools.partial(kmeans, num_components=8), {"loc": few}, np.eye(8), few).elbo
    highest = supremum_fixed(8, dim, 8, hard=True)
    yield Check(
        "D2",
        dataset.name,
        "Σ = I, eight rows and a centre on each: hard F, and its upper bound, relative",
        abs(float(attained) / highest - 1),
        SAME,
        {"F": float(attained), "upper bound": highest},
    )
    prior = weak_prior(rows)
    fit = map_run(setting, prior)[-1]
    yield from _stays_below(dataset.name, "a prior on Σ", fit, supremum_with_prior(prior, num_rows, COMPONENTS))


def _stays_below(name: str, where: str, fit: probem.Fit, supremum: float) -> Iterator[Check]:
    values = fit.history.elbo
    yield Check(
        "D2",
        name,
        f"{where}: by how much F exceeds its upper bound in any half-step, or is not finite, and 0",
        max(0.0, float(values.max()) - supremum) if np.isfinite(values).all() else np.inf,
        0.0,
        {"first F": float(values[0]), "last F": float(values[-1]), "upper bound": supremum},
    )
    yield Check(
        "D2",
        name,
        f"{where}: what is missing from an end as CONVERGED",
        int(fit.result is not probem.Result.CONVERGED),
        0,
        {"result": fit.result.name if fit.result else "none", "steps": fit.num_steps},
    )


# --- E8 ---


def map_run(setting: Setting, prior: GaussianPrior) -> list[probem.Fit]:
    """MAP-EM from D1's start, iteration by iteration."""
    program = functools.partial(bayesian_gmm, num_components=COMPONENTS, prior=prior)
    init = probem.Parameters(setting.with_precision(setting.start))
    return list(probem.iterate(program, setting.rows, init=init, throw=False))


def half_steps(rows: np.ndarray, prior: GaussianPrior, params: Sequence[Params]) -> np.ndarray:
    """F + log p(theta) after every half-step E, M, E, ..., E, from SciPy's densities."""
    tables = [log_joint(rows, own) for own in params]
    priors = [log_prior(prior, own) for own in params]
    values = [np.sum(logsumexp(tables[0], axis=1)) + priors[0]]
    for before, table, own in zip(tables, tables[1:], priors[1:], strict=False):
        q = softmax(before, axis=1)
        values += [(q * table).sum() - xlogy(q, q).sum() + own, np.sum(logsumexp(table, axis=1)) + own]
    return np.array(values)


def with_a_prior(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E8: MAP-EM from where maximum likelihood collapses."""
    del seed
    setting = pose(dataset)
    prior = weak_prior(setting.rows)
    fits = map_run(setting, prior)
    params = [{name: np.asarray(value) for name, value in fit.params.items()} for fit in fits]
    plain = half_steps(setting.rows, prior, params)
    recorded = fits[-1].history.elbo[: len(plain)]
    size = np.abs(plain).max()
    yield Check(
        "E8",
        dataset.name,
        "F + log p(θ) of every half-step as recorded, and from SciPy’s densities, relative",
        np.abs(recorded - plain) / size,
        SAME,
        {"half-steps": len(plain), "first": float(plain[0]), "last": float(plain[-1])},
    )
    yield Check(
        "E8",
        dataset.name,
        "the largest fall of F + log p(θ) in a half-step, recorded or from SciPy, relative, and 0",
        excess(-np.concatenate([np.diff(plain), np.diff(recorded)]) / size),
        ROUNDING,
    )
    eigenvalues = np.array([1 / np.linalg.eigvalsh(own["precision"]).max(axis=1) for own in params[1:]])
    floor = np.linalg.eigvalsh(prior.scatter).min() / (len(setting.rows) + prior.dof - np.size(prior.mean))
    finite = all(np.isfinite(value).all() for own in params for value in own.values())
    yield Check(
        "E8",
        dataset.name,
        "D1’s start: smallest eigenvalue of a covariance after any M-step, what it lacks of λ_min(S)/(N + ν − D)",
        excess(1 - eigenvalues / floor) if finite else np.inf,
        0.0,
        {"smallest eigenvalue": float(eigenvalues.min()), "its lower bound": float(floor)},
    )
    last = fits[-1]
    yield Check(
        "E8",
        dataset.name,
        "D1’s start: what is missing from an end as CONVERGED with finite parameters",
        2 - int(finite) - (last.result is probem.Result.CONVERGED),
        0,
        {
            "result": last.result.name if last.result else "none",
            "steps": last.num_steps,
            "maximum likelihood ends as": (fit_from(setting, setting.start).result or probem.Result.CONVERGED).name,
        },
    )
