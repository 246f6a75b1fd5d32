"""D1, D2, E8: the likelihood that has no upper bound, and the two ways to give it one: fix the covariances, or a prior."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln, logsumexp, multigammaln, softmax, xlogy
from scipy.stats import Covariance, multivariate_normal, wishart

import probem
from probem.models import GaussianPrior, bayesian_gmm, gmm, kmeans

from .bound_values import ROUNDING, SAME
from .claim import Check, Dataset
from .lloyd import squared_distances

#: Standard deviations of the component that sits on a row.
SCALES = 10.0 ** -np.arange(1, 13)
#: That of the start of every run, in units of the distance to the nearest other row: small enough for EM to collapse.
START = 0.3
COMPONENTS = 2

Params = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Component 0 on the row that is furthest from all others, component 1 where all rows are, equal weights."""

    rows: np.ndarray
    row: int
    distance: float

    def params(self, scale: float) -> dict[str, np.ndarray]:
        """Component 0 with this standard deviation in every direction."""
        covariance = np.stack([scale**2 * np.eye(self.rows.shape[1]), np.cov(self.rows, rowvar=False)])
        loc = np.stack([self.rows[self.row], self.rows.mean(axis=0)])
        return {"weights": np.full(COMPONENTS, 1 / COMPONENTS), "loc": loc, "covariance": covariance}

    def with_precision(self, scale: float) -> dict[str, np.ndarray]:
        """The same for a program of precisions."""
        params = self.params(scale)
        return {"precision": np.linalg.inv(params.pop("covariance")), **params}

    @property
    def start(self) -> float:
        """The standard deviation from which the runs start."""
        return START * self.distance


def pose(dataset: Dataset) -> Setting:
    """The row furthest from its nearest other; there is only one of it."""
    distances = squared_distances(dataset.rows, dataset.rows)
    np.fill_diagonal(distances, np.inf)
    row = int(distances.min(axis=1).argmax())
    return Setting(dataset.rows, row, float(np.sqrt(distances[row].min())))


def weak_prior(rows: np.ndarray) -> GaussianPrior:
    """The weakly informative prior of ``models``, as NumPy arrays."""
    found = GaussianPrior.from_data(rows, COMPONENTS)
    return found._replace(mean=np.asarray(found.mean), scatter=np.asarray(found.scatter))


# --- log densities by SciPy ---


def log_joint(rows: np.ndarray, params: Params) -> np.ndarray:
    """log p(x_n, t_n = k), ``[N, K]``, of parameters with covariances or precisions."""
    spreads = (
        map(Covariance.from_precision, params["precision"])
        if "precision" in params
        else map(Covariance.from_cholesky, np.linalg.cholesky(params["covariance"]))
    )
    parts = [multivariate_normal(mean, cov).logpdf(rows) for mean, cov in zip(params["loc"], spreads, strict=True)]
    return np.stack(parts, axis=1) + np.log(params["weights"])


def log_likelihood(rows: np.ndarray, params: Params) -> float:
    """log p(X), nats, total."""
    return float(logsumexp(log_joint(rows, params), axis=1).sum())


def log_prior(prior: GaussianPrior, params: Params) -> float:
    """Dirichlet(1, ..., 1), Wishart, and a normal location given its precision: Bishop (2006), eqs. 10.39 and 10.40."""
    total = float(gammaln(len(params["weights"])))
    scale = np.linalg.inv(prior.scatter)
    for loc, precision in zip(params["loc"], params["precision"], strict=True):
        # Rounding alone makes a matrix unsymmetric, which SciPy refuses.
        symmetric = (precision + precision.T) / 2
        total += wishart(prior.dof, scale).logpdf(symmetric)
        total += multivariate_normal(prior.mean, Covariance.from_precision(prior.strength * symmetric)).logpdf(loc)
    return float(total)


# --- D1 ---


def without_limit(dataset: Dataset, seed: int) -> Iterator[Check]:
    """D1: log p(X) by SciPy down a ladder of standard deviations, and EM started on it."""
    del seed
    setting = pose(dataset)
    rows, dim = setting.rows, setting.rows.shape[1]
    values = np.array([log_likelihood(rows, setting.params(scale)) for scale in SCALES])
    # From here on component 1 contributes nothing to the row's density, and component 0 nothing to any other.
    narrow = SCALES < 1.5e-6 * setting.distance
    sensible = fit_from(setting, setting.rows.std())
    yield Check(
        "D1",
        dataset.name,
        "log p(X) by SciPy: its rise for each decade of σ below the first six, and D log 10, relative",
        float(np.abs(np.diff(values[narrow]) / (dim * np.log(10)) - 1).max()),
        SAME,
        {
            "decades": int(narrow.sum()) - 1,
            "at the largest σ": float(values[0]),
            "at the smallest σ": float(values[-1]),
            "where EM ends from a wide start": sensible.elbo,
        },
    )
    fit = fit_from(setting, setting.start)
    evaluated = fit.history.elbo[: 2 * fit.num_steps - 1]
    finite = all(np.isfinite(value).all() for value in fit.params.values())
    smallest = np.linalg.eigvalsh(fit.params["covariance"][0]).min()
    yield Check(
        "D1",
        dataset.name,
        "EM from there: the largest fall of F in a half-step, relative, and 0",
        max(0.0, -float(np.diff(evaluated).min() / np.abs(evaluated).max())),
        ROUNDING,
        {"half-steps": len(evaluated), "first F": float(evaluated[0]), "last F": float(evaluated[-1])},
    )
    ends = (fit.result is probem.Result.SINGULAR, fit.component == 0, finite, evaluated[-1] > evaluated[0])
    yield Check(
        "D1",
        dataset.name,
        "EM from there: what is missing from an end as SINGULAR, in component 0, with finite parameters and a higher F",
        4 - sum(ends),
        0,
        {
            "result": fit.result.name if fit.result else "none",
            "component": fit.component,
            "its last standard deviation": float(np.sqrt(smallest)),
        },
    )
    yield Check(
        "D1",
        dataset.name,
        "the same run with throw=True: what is missing from a FitError that names component 0 and holds the same F",
        2 - sum(_raised(setting, fit.elbo)),
        0,
    )


def fit_from(setting: Setting, scale: float, **options: Any) -> probem.Fit:
    """EM by maximum likelihood, started with this standard deviation in component 0."""
    program = functools.partial(gmm, num_components=COMPONENTS)
    options = {"throw": False, **options}
    return probem.fit(program, setting.rows, init=probem.Parameters(setting.params(scale)), **options)


def _raised(setting: Setting, last: float) -> tuple[bool, bool]:
    try:
        fit_from(setting, setting.start, throw=True)
    except probem.FitError as error:
        return "component 0" in str(error), error.fit.elbo == last
    return False, False


# --- D2 ---


def supremum_fixed(num_rows: int, dim: int, num_components: int, hard: bool) -> float:
    """The upper bound of F for fixed identity covariances and equal weights: every row on a centre."""
    return -num_rows * (dim / 2 * np.log(2 * np.pi) + (np.log(num_components) if hard else 0.0))


def supremum_with_prior(prior: GaussianPrior, num_rows: int, num_components: int) -> float:
    """An upper bound of log p(X | theta) + log p(theta), whatever theta.

    No row is denser than under the component with the largest |Lambda_k|; the exponents of that determinant, from rows,
    location and Wishart prior, add up to a = N + nu - D, those of the others to nu - D. For each of them
    a/2 log|Lambda| - tr(S Lambda)/2 is largest at Lambda = a S^-1.
    """
    dim, log_det = len(prior.mean), np.linalg.slogdet(prior.scatter)[1]

    def largest(a: float) -> float:
        return a / 2 * (dim * np.log(a) - log_det) - a * dim / 2

    constant = prior.dof / 2 * (log_det - dim * np.log(2)) - multigammaln(prior.dof / 2, dim)
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


def half_steps(rows: np.ndarray, prior: GaussianPrior, params: list[Params]) -> np.ndarray:
    """F + log p(theta) after every half-step E, M, E, ..., E, from SciPy's densities."""
    tables = [log_joint(rows, own) for own in params]
    priors = [log_prior(prior, own) for own in params]
    values = [logsumexp(tables[0], axis=1).sum() + priors[0]]
    for before, table, own in zip(tables, tables[1:], priors[1:], strict=False):
        q = softmax(before, axis=1)
        values += [(q * table).sum() - xlogy(q, q).sum() + own, logsumexp(table, axis=1).sum() + own]
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
        float(np.abs(recorded - plain).max() / size),
        SAME,
        {"half-steps": len(plain), "first": float(plain[0]), "last": float(plain[-1])},
    )
    yield Check(
        "E8",
        dataset.name,
        "the largest fall of F + log p(θ) in a half-step, recorded or from SciPy, relative, and 0",
        max(0.0, -float(min(np.diff(plain).min(), np.diff(recorded).min()) / size)),
        ROUNDING,
    )
    eigenvalues = np.array([1 / np.linalg.eigvalsh(own["precision"]).max(axis=1) for own in params[1:]])
    floor = np.linalg.eigvalsh(prior.scatter).min() / (len(setting.rows) + prior.dof - len(prior.mean))
    finite = all(np.isfinite(value).all() for own in params for value in own.values())
    yield Check(
        "E8",
        dataset.name,
        "D1’s start: smallest eigenvalue of a covariance after any M-step, what it lacks of λ_min(S)/(N + ν − D)",
        max(0.0, 1 - float(eigenvalues.min() / floor)) if finite else np.inf,
        0.0,
        {"smallest eigenvalue": float(eigenvalues.min()), "its lower bound": float(floor)},
    )
    last = fits[-1]
    yield Check(
        "E8",
        dataset.name,
        "D1’s start: what is missing from an end as CONVERGED with finite parameters",
        2 - finite - (last.result is probem.Result.CONVERGED),
        0,
        {
            "result": last.result.name if last.result else "none",
            "steps": last.num_steps,
            "maximum likelihood ends as": (fit_from(setting, setting.start).result or probem.Result.CONVERGED).name,
        },
    )
