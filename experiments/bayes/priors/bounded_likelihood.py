"""D2, E8: what gives the likelihood of D1 an upper bound: covariances that are fixed, or a prior on them."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from scipy.special import (
    expit,
    gammaln,
    logsumexp,
    multigammaln,  # pyright: ignore[reportAttributeAccessIssue]
    softmax,
    xlogy,
)
from scipy.stats import Covariance, halfcauchy, halfnorm, invgamma, wishart

import probem
from probem.checking.residuals import ROUNDING, SAME, excess, violations, worst
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.models import GaussianPrior, bayesian_gmm, kmeans

from .degeneracy import COMPONENTS, SCALES, Params, Setting, fit_from, log_joint, log_likelihood, normal, pose


def weak_prior(rows: np.ndarray) -> GaussianPrior:
    """The weakly informative prior of ``models``, as NumPy arrays."""
    prior = GaussianPrior.from_data(jnp.asarray(rows), COMPONENTS)
    return prior._replace(mean=np.asarray(prior.mean), scatter=np.asarray(prior.scatter))


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
    supremum = num_components * constant + largest(num_rows + rest) + (num_components - 1) * largest(rest)
    return float(supremum + gammaln(num_components) - num_rows * dim / 2 * np.log(2 * np.pi))


def best_two_clusters(rows: np.ndarray) -> float:
    """The least inertia J of any partition into two, exactly, for rows ``[N, 2]``.

    Between the best two means lies a straight line. The orders into which a direction can bring the rows change only
    where two of them project onto one place: one direction between any two such angles, every cut of each order.
    """
    centred = rows - rows.mean(axis=0)
    first, second = np.triu_indices(len(rows), 1)
    apart = np.unique(centred[first] - centred[second], axis=0)
    critical = np.unique(np.mod(np.arctan2(apart[:, 0], -apart[:, 1]), np.pi))
    angles = (critical + np.append(critical[1:], critical[0] + np.pi)) / 2
    counts = np.arange(1, len(rows))
    most = 0.0
    for few in np.array_split(angles, len(angles) // 2000 + 1):
        order = np.argsort(centred @ np.stack([np.cos(few), np.sin(few)]), axis=0)
        sums = np.cumsum(centred[order], axis=0)[:-1]
        between = (sums**2).sum(axis=2) * (1 / counts + 1 / (len(rows) - counts))[:, None]
        most = np.maximum(most, between.max())
    return float((centred**2).sum() - most)


def climb(objective: Callable[[np.ndarray], float], starts: Sequence[np.ndarray]) -> list[float]:
    """The local maxima that SciPy finds from these starts."""
    options = {"gtol": 1e-7, "maxiter": 2000}
    return [-float(minimize(lambda at: -objective(at), start, method="BFGS", options=options).fun) for start in starts]


@dataclasses.dataclass(frozen=True, eq=False)
class Below:
    """A fit from D1's start, the supremum of its F as computed, and a bound that can be written down; nats."""

    where: str
    fit: probem.Fit
    supremum: float
    loose: float


@Kept
def below(dataset: Dataset, seed: int) -> list[Below]:
    """The same start with the covariances fixed, under soft and under hard EM, and with a prior on them."""
    setting = pose(dataset)
    rows, (num_rows, dim) = setting.rows, setting.rows.shape
    program, generator = functools.partial(kmeans, num_components=COMPONENTS), np.random.default_rng(seed)
    loc = setting.params(1.0)["loc"]

    def soft(at: np.ndarray) -> float:
        half = ((rows[:, None] - at.reshape(COMPONENTS, dim)) ** 2).sum(axis=2) / 2
        constant = np.log(COMPONENTS) + dim / 2 * np.log(2 * np.pi)
        return float(np.asarray(logsumexp(-half, axis=1)).sum() - num_rows * constant)

    hardest = -best_two_clusters(rows) / 2 - num_rows * (dim / 2 * np.log(2 * np.pi) + np.log(COMPONENTS))
    pairs = [rows[generator.choice(num_rows, COMPONENTS, replace=False)].ravel() for _ in range(4)]
    softest = worst(climb(soft, [loc.ravel(), *pairs]))
    found = []
    for name, families, supremum in (
        ("soft EM", probem.EM, softest),
        ("point masses", probem.HARD_EM, hardest),
    ):
        fit = probem.fit(program, rows, families=families, init=probem.Parameters({"loc": loc}), throw=False)
        loose = supremum_fixed(num_rows, dim, COMPONENTS, hard=families is probem.HARD_EM)
        found.append(Below(f"Σ = I, {name}", fit, supremum, loose))
    prior = weak_prior(rows)
    fit = map_run(setting, prior)[-1]
    params = {name: np.asarray(value) for name, value in fit.params.items()}
    objective = functools.partial(log_posterior, rows, prior)
    supremum = worst(climb(objective, [to_free(params), to_free(setting.with_precision(rows.std()))]))
    loose = supremum_with_prior(prior, num_rows, COMPONENTS)
    return [*found, Below("a Wishart prior on the precisions", fit, supremum, loose)]


def bounded(dataset: Dataset, seed: int) -> Iterator[Check]:
    """D2: F stays below what was computed, and reaches it."""
    rows, dim = dataset.rows, dataset.rows.shape[1]
    for each in below(dataset, seed):
        yield from _stays_below(dataset.name, each.where, each.fit, each.supremum, each.loose)
    few = rows[:: len(rows) // 8][:8]
    bound_of = jax.jit(functools.partial(probem.elbo, functools.partial(kmeans, num_components=8)))
    attained = bound_of({"loc": few}, np.eye(8), few).elbo
    highest = supremum_fixed(8, dim, 8, hard=True)
    yield Check(
        "D2",
        dataset.name,
        "Σ = I, eight rows and a centre on each: hard F, and its upper bound, relative",
        abs(float(attained) / highest - 1),
        SAME,
        {"F": float(attained), "upper bound": highest},
    )


def to_free(params: Params) -> np.ndarray:
    """Weights, locations and precisions of two components as one unconstrained vector."""
    lower = np.linalg.cholesky(params["precision"])
    below = np.tril_indices(lower.shape[-1], -1)
    parts = [np.log(np.diagonal(lower, axis1=1, axis2=2)), lower[:, below[0], below[1]]]
    odds = np.log(params["weights"][1] / params["weights"][0])
    return np.concatenate([[odds], *(np.ravel(part) for part in (params["loc"], *parts))])


def from_free(at: np.ndarray, dim: int) -> Params:
    """The inverse of ``to_free``."""
    odds, loc, scales, rest = np.split(at, np.cumsum([1, COMPONENTS * dim, COMPONENTS * dim]))
    lower = np.zeros((COMPONENTS, dim, dim))
    lower[:, *np.diag_indices(dim)] = np.exp(scales.reshape(COMPONENTS, dim))
    lower[:, *np.tril_indices(dim, -1)] = rest.reshape(COMPONENTS, -1)
    weights = np.array([expit(-odds[0]), expit(odds[0])])
    return {"weights": weights, "loc": loc.reshape(COMPONENTS, dim), "precision": lower @ lower.swapaxes(1, 2)}


def log_posterior(rows: np.ndarray, prior: GaussianPrior, at: np.ndarray) -> float:
    """log p(X | theta) + log p(theta), of ``to_free``'s vector: Bishop (2006), eqs. 10.38 to 10.40, in plain NumPy."""
    num_rows, dim = rows.shape
    params = from_free(at, dim)
    table = np.zeros((num_rows, COMPONENTS))
    total = COMPONENTS * prior.dof / 2 * (np.linalg.slogdet(prior.scatter)[1] - dim * np.log(2))
    total -= COMPONENTS * multigammaln(prior.dof / 2, dim)
    for k, (loc, precision) in enumerate(zip(params["loc"], params["precision"], strict=True)):
        log_det = np.linalg.slogdet(precision)[1]
        away, off = rows - loc, loc - prior.mean
        table[:, k] = np.log(params["weights"][k]) + (log_det - dim * np.log(2 * np.pi)) / 2
        table[:, k] -= ((away @ precision) * away).sum(axis=1) / 2
        total += (prior.dof - dim - 1) / 2 * log_det - (prior.scatter * precision).sum() / 2
        total += (log_det + dim * np.log(prior.strength / (2 * np.pi)) - prior.strength * (off @ precision @ off)) / 2
    return float(np.asarray(logsumexp(table, axis=1)).sum() + total)


#: By how much SciPy may be above where EM stops, and EM above what SciPy finds, relative: neither goes on for ever.
TIGHT = 1e-9


def _stays_below(name: str, where: str, fit: probem.Fit, supremum: float, loose: float) -> Iterator[Check]:
    values = fit.history.elbo
    yield Check(
        "D2",
        name,
        f"{where}: by how much F exceeds the computed supremum in any half-step, relative, and 0",
        excess(values, supremum) / abs(supremum),
        TIGHT,
        {"first F": float(values[0]), "last F": float(values[-1]), "supremum": supremum, "bound by hand": loose},
    )
    yield Check(
        "D2",
        name,
        f"{where}: F where EM stops, and the computed supremum, relative",
        abs(fit.elbo / supremum - 1),
        TIGHT,
    )
    yield Check(
        "D2",
        name,
        f"{where}: what is missing from an end as CONVERGED",
        int(fit.result is not probem.Result.CONVERGED),
        0,
        {"result": fit.result.name if fit.result else "none", "steps": fit.num_steps},
    )


#: Priors on the standard deviation of a sphere, all of them proper, by whether their density outweighs the collapse.
SCALE_PRIORS = {
    "half-normal on σ": (halfnorm.logpdf, False),
    "half-Cauchy on σ": (halfcauchy.logpdf, False),
    "inverse gamma on σ²": (lambda scale: invgamma.logpdf(scale**2, 2.0), True),
}


@Kept
def ladder(dataset: Dataset) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """D1's standard deviations, from where component 1 contributes nothing to the row's density on; and for every prior
    log p(X, σ) there, by SciPy (nats).
    """
    setting = pose(dataset)
    scales = SCALES[SCALES < 1.5e-6 * setting.distance]
    likelihood = np.array([log_likelihood(setting.rows, setting.params(scale)) for scale in scales])
    return scales, {name: likelihood + log_density(scales) for name, (log_density, _) in SCALE_PRIORS.items()}


def proper_priors(dataset: Dataset, seed: int) -> Iterator[Check]:
    """D2 for more priors than one: down D1's ladder of standard deviations."""
    del seed
    _, heights = ladder(dataset)
    for words, (_, bounds) in SCALE_PRIORS.items():
        rises = np.diff(heights[words])
        numbers = {"decades": len(rises), "first rise (nats)": float(rises[0]), "last": float(rises[-1])}
        if bounds:
            what, residual = "decades in which log p(X, σ) does not fall", violations(rises < 0)
        else:
            what = "the rise of log p(X, σ) for each decade of σ, and D log 10, relative"
            residual = np.abs(rises / (dataset.rows.shape[1] * np.log(10)) - 1)
        yield Check("D2", dataset.name, f"{words}: {what}", residual, 0 if bounds else SAME, numbers)


def bounded_by_priors(dataset: Dataset, seed: int) -> Iterator[Check]:
    """D2, whole."""
    yield from bounded(dataset, seed)
    yield from proper_priors(dataset, seed)


# --- E8 ---


def map_run(setting: Setting, prior: GaussianPrior) -> list[probem.Fit]:
    """MAP-EM from D1's start, iteration by iteration."""
    program = functools.partial(bayesian_gmm, num_components=COMPONENTS, prior=prior)
    init = probem.Parameters(setting.with_precision(setting.start))
    return list(probem.iterate(program, setting.rows, init=init, throw=False))


def half_steps(rows: np.ndarray, prior: GaussianPrior, params: Sequence[Params]) -> np.ndarray:
    """F + log p(theta) after every half-step E, M, E, ..., E, from SciPy's densities."""
    tables = [log_joint(rows, point) for point in params]
    priors = [log_prior(prior, point) for point in params]
    values = [np.asarray(logsumexp(tables[0], axis=1)).sum() + priors[0]]
    for before, table, log_p in zip(tables, tables[1:], priors[1:], strict=False):
        q = softmax(before, axis=1)
        values += [(q * table).sum() - xlogy(q, q).sum() + log_p, np.asarray(logsumexp(table, axis=1)).sum() + log_p]
    return np.array(values)


@dataclasses.dataclass(frozen=True, eq=False)
class Regularised:
    """MAP-EM from D1's start: the fits, their parameters, and F + log p(θ) after every half-step, recorded and from
    SciPy's densities; the least eigenvalues ``[iterations, K]`` of the covariances after M-steps, and their floor.
    """

    setting: Setting
    prior: GaussianPrior
    fits: list[probem.Fit]
    params: list[dict[str, np.ndarray]]
    recorded: np.ndarray
    plain: np.ndarray

    @property
    def eigenvalues(self) -> np.ndarray:
        return np.array([1 / np.linalg.eigvalsh(values["precision"]).max(axis=1) for values in self.params[1:]])

    @property
    def floor(self) -> float:
        rows, dof = len(self.setting.rows), self.prior.dof - np.size(self.prior.mean)
        return float(np.linalg.eigvalsh(self.prior.scatter).min() / (rows + dof))


@Kept
def regularised(dataset: Dataset) -> Regularised:
    """MAP-EM from where maximum likelihood collapses."""
    setting = pose(dataset)
    prior = weak_prior(setting.rows)
    fits = map_run(setting, prior)
    params = [{name: np.asarray(value) for name, value in fit.params.items()} for fit in fits]
    plain = half_steps(setting.rows, prior, params)
    return Regularised(setting, prior, fits, params, fits[-1].history.elbo[: len(plain)], plain)


def with_a_prior(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E8."""
    del seed
    found = regularised(dataset)
    setting, prior, fits, params = found.setting, found.prior, found.fits, found.params
    recorded, plain = found.recorded, found.plain
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
    eigenvalues, floor = found.eigenvalues, found.floor
    finite = all(np.isfinite(value).all() for values in params for value in values.values())
    yield Check(
        "E8",
        dataset.name,
        "D1’s start: smallest eigenvalue of a covariance after any M-step, what it lacks of λ_min(S)/(N + ν − D)",
        excess(1 - eigenvalues / floor) if finite else np.inf,
        0.0,
        {"smallest eigenvalue": float(eigenvalues.min()), "its lower bound": floor},
    )
    yield _modes(dataset.name, setting.rows, prior, params[-2:])
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


def _modes(name: str, rows: np.ndarray, prior: GaussianPrior, last: Sequence[Params]) -> Check:
    """The covariances where EM stops, by a plain loop; what they are to those of Fraley & Raftery, in its numbers."""
    before, after = last
    q = softmax(log_joint(rows, before), axis=1)
    dim, residuals, ratios = rows.shape[1], [], {}
    for k, precision in enumerate(after["precision"]):
        size = q[:, k].sum()
        mean = (prior.strength * prior.mean + q[:, k] @ rows) / (prior.strength + size)
        scatter = prior.scatter + prior.strength * np.outer(mean - prior.mean, mean - prior.mean)
        for row, share in zip(rows, q[:, k], strict=True):
            scatter = scatter + share * np.outer(row - mean, row - mean)
        mode = scatter / (size + prior.dof - dim)
        residuals.append(np.abs(np.linalg.inv(precision) - mode).max() / np.abs(mode).max())
        ratios[f"component {k + 1}: rows"] = float(size)
        ratios[f"component {k + 1}: over Fraley & Raftery’s"] = float(
            (size + prior.dof + dim + 2) / (size + prior.dof - dim)
        )
    compared = "covariances where EM stops, and (S + scatter)/(N_k + ν − D) by a plain loop, relative"
    return Check("E8", name, compared, residuals, SAME, ratios)
