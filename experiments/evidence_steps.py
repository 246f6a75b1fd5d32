"""E3, E4: variational Bayes step by step, and beside EM as the rows grow in number.

The other side is scikit-learn where its updates are exact, and the loops of ``plain_bayes`` everywhere.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import probem
from probem import models
from probem.models import bayesian_covariance
from probem.models.priors import GaussianPrior

from .claim import Check, Dataset
from .evidence import NormalGamma, SphericalNormalGamma
from .evidence_values import PRIOR, gamma_arguments, program, two_columns, wishart
from .plain_bayes import DirichletWeights, GaussianPrior as PlainPrior, Iteration, Posterior, StickWeights, variational_bayes

STEPS = 15
#: Two ways through the same sums, fifteen times over: each step passes on the roundings of those before it.
STEPWISE = 1e-8
# What the answers of scikit-learn, as probabilities, have to be apart to count as different.
APART = 1e-3
STICKS = 3.0


@dataclasses.dataclass(frozen=True)
class Structure:
    """A program of the engine with two components, the same for the plain loop, and what scikit-learn calls it."""

    name: str
    covariance: Callable[..., Any]
    sticks: bool
    differs: str | None

    @property
    def program(self) -> Callable[..., None]:
        weights = functools.partial(models.stick_breaking, concentration=STICKS) if self.sticks else None
        return program(2, PRIOR, self.covariance, weights)

    @property
    def plain_prior(self) -> PlainPrior:
        (shape, rate), mean = gamma_arguments(PRIOR), np.asarray(PRIOR.mean)
        if self.covariance is bayesian_covariance.diagonal:
            return NormalGamma(mean, PRIOR.strength, shape, rate)
        if self.covariance is bayesian_covariance.spherical:
            return SphericalNormalGamma(mean, PRIOR.strength, shape, float(rate.mean()))
        return wishart(PRIOR)

    def plain(self, rows: np.ndarray, start: np.ndarray) -> tuple[Iteration, ...]:
        weights = StickWeights(STICKS) if self.sticks else DirichletWeights(np.ones(2))
        tied = self.covariance is bayesian_covariance.tied
        return variational_bayes(rows, start, self.plain_prior, weights, tied=tied, num_steps=STEPS)


STRUCTURES = (
    Structure("full", bayesian_covariance.full, False, None),
    Structure("full, sticks", bayesian_covariance.full, True, "it leaves the last stick open"),
    Structure("tied", bayesian_covariance.tied, False, "it counts N / K rows where there are N"),
    Structure(
        "diagonal", bayesian_covariance.diagonal, False, "it takes E log Λ of a Wishart matrix for that of gammas"
    ),
    Structure(
        "spherical", bayesian_covariance.spherical, False, "it averages over columns where they add up, as a Wishart"
    ),
)


def estimator_of(structure: Structure, start: np.ndarray) -> Any:
    """scikit-learn's, with our priors, from these responsibilities ``[N, K]``: first an M-step, then a step at a time."""
    from sklearn.mixture import BayesianGaussianMixture

    class Started(BayesianGaussianMixture):
        def _initialize_parameters(self, X: np.ndarray, *given: Any, **named: Any) -> None:  # noqa: N803
            self._initialize(X, start)

    gammas = structure.covariance in (bayesian_covariance.diagonal, bayesian_covariance.spherical)
    shape, rate = gamma_arguments(PRIOR)
    # Of a gamma its variables are the inverse of the mean precision, 2 rate / (2 shape).
    scatter: Any = np.asarray(PRIOR.scatter)
    if gammas:
        scatter = 2 * rate if structure.covariance is bayesian_covariance.diagonal else float(2 * rate.mean())
    return Started(
        n_components=2,
        covariance_type=structure.covariance.__name__,
        tol=0.0,
        reg_covar=0.0,
        max_iter=0,
        warm_start=True,
        weight_concentration_prior_type="dirichlet_process" if structure.sticks else "dirichlet_distribution",
        weight_concentration_prior=STICKS if structure.sticks else 1.0,
        mean_prior=PRIOR.mean,
        mean_precision_prior=PRIOR.strength,
        degrees_of_freedom_prior=2 * shape if gammas else PRIOR.dof,
        covariance_prior=scatter,
    )


def scikit_learn(structure: Structure, rows: np.ndarray, start: np.ndarray, num_steps: int) -> Iterator[Any]:
    """The estimator after the M-step of the start, and after every one of ``num_steps`` further iterations."""
    from sklearn.exceptions import ConvergenceWarning

    estimator = estimator_of(structure, start)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield estimator.fit(rows)
        estimator.set_params(max_iter=1)
        for _ in range(num_steps):
            yield estimator.fit(rows)


def posterior_of(fit: probem.Fit) -> Posterior:
    """q of the engine in the terms of the plain loop."""
    loc, precision = (fit.variational[name] for name in ("loc", "precision"))
    strength = PRIOR.strength * np.asarray(loc["strength"])
    if "sticks" in fit.variational:
        sticks = fit.variational["sticks"]
        weights = np.stack([sticks["concentration1"], sticks["concentration0"]], axis=-1)
    else:
        weights = np.asarray(fit.variational["weights"]["concentration"])
    scatter = precision["rate_matrix"] if "rate_matrix" in precision else precision["rate"]
    return Posterior(np.asarray(loc["loc"]), strength, np.asarray(precision["concentration"]), scatter, weights)


def distance(own: Posterior, other: Posterior) -> float:
    """The largest difference of an argument of q, relative to the largest of its kind."""
    found = []
    for field in dataclasses.fields(Posterior):
        first, second = (np.ravel(getattr(one, field.name)) for one in (own, other))
        # The engine has a shape for every gamma, the plain loop one for all features of a component.
        second = np.repeat(second, first.size // second.size) if field.name == "dof" else second
        found.append(np.abs(first - second).max() / np.abs(second).max())
    return float(max(found))


def of_scikit_learn(estimator: Any) -> Posterior:
    """Of full covariances: it keeps S / nu."""
    dof = estimator.degrees_of_freedom_
    return Posterior(
        estimator.means_,
        estimator.mean_precision_,
        dof,
        estimator.covariances_ * dof[:, None, None],
        estimator.weight_concentration_,
    )


def trajectory(structure: Structure, rows: np.ndarray, start: np.ndarray) -> list[probem.Fit]:
    """The fit after the M-step of the start and an E-step, and after every further iteration."""
    steps = probem.iterate(
        structure.program,
        rows,
        families=probem.VARIATIONAL_BAYES,
        init=probem.Responsibilities(start),
        max_steps=STEPS,
        tolerance=0,
        throw=False,
    )
    return list(steps)


def start_of(rows: np.ndarray, seed: int) -> np.ndarray:
    """Responsibilities ``[N, 2]``: half of them at random, half by the sign of the first column."""
    anywhere = np.random.default_rng(seed).dirichlet(np.ones(2), len(rows))
    return 0.5 * (anywhere + np.eye(2)[(rows[:, 0] > 0).astype(int)])


def stepwise(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E3."""
    rows = two_columns(dataset)
    start = start_of(rows, seed)
    for structure in STRUCTURES:
        fits, plain = trajectory(structure, rows, start), structure.plain(rows, start)
        own = [posterior_of(fit) for fit in fits]
        yield Check(
            "E3",
            dataset.name,
            f"{structure.name}: q of every iteration, and of a plain loop",
            max(distance(one, other.posterior) for one, other in zip(own, plain, strict=True)),
            STEPWISE,
            {"iterations": len(fits)},
        )
        differences = [abs(fit.elbo - other.bound) for fit, other in zip(fits, plain, strict=True)]
        yield Check(
            "E3",
            dataset.name,
            f"{structure.name}: F of every iteration, and of a plain loop",
            max(differences) / abs(plain[-1].bound),
            STEPWISE,
            {"first F": fits[0].elbo, "last F": fits[-1].elbo},
        )
        if structure.differs is None:
            theirs = [of_scikit_learn(each) for each in scikit_learn(structure, rows, start, STEPS - 1)]
            yield Check(
                "E3",
                dataset.name,
                f"{structure.name}: q of every iteration, and scikit-learn’s",
                max(distance(one, other) for one, other in zip(own, theirs, strict=True)),
                STEPWISE,
                {"iterations": len(theirs)},
            )
            continue
        apart = float(np.abs(next(scikit_learn(structure, rows, start, 0)).predict_proba(rows) - plain[0].responsibilities).max())
        yield Check(
            "E3",
            dataset.name,
            f"{structure.name}: what scikit-learn’s first responsibilities lack to be {APART} off, and 0",
            float(np.maximum(0.0, APART - apart)),
            0.0,
            {"off by": apart, "since": structure.differs},
        )


# --- E4 ---

SIZES = (100, 400, 1600, 6400)
SAMPLES = 5
#: As flat as the families go: no row's worth for a location, D - 1 degrees of freedom, no scatter.
FLAT = GaussianPrior(np.zeros(2), 1e-6, 1.0 + 1e-6, 1e-6 * np.eye(2))


@dataclasses.dataclass(frozen=True)
class Source:
    """A Gaussian mixture to draw rows from."""

    weights: np.ndarray
    loc: np.ndarray
    covariance: np.ndarray

    def draw(self, generator: np.random.Generator, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[N, D]`` and their labels ``[N]``."""
        labels = generator.choice(len(self.weights), num_rows, p=self.weights)
        noise = generator.standard_normal((num_rows, self.loc.shape[1], 1))
        return self.loc[labels] + (np.linalg.cholesky(self.covariance)[labels] @ noise)[..., 0], labels


def source_of(dataset: Dataset, seed: int) -> Source:
    """What EM finds in the data set, two components."""
    fit = probem.fit(_em(), two_columns(dataset), key=seed)
    return Source(*(np.asarray(fit.params[name]) for name in ("weights", "loc", "covariance")))


def _em() -> Callable[..., None]:
    return functools.partial(models.gmm, num_components=2)


def estimates(params: Mapping[str, Any]) -> np.ndarray:
    """Weights, locations and covariances, of q its means, side by side."""
    covariance = params["covariance"] if "covariance" in params else np.linalg.inv(params["precision"])
    return np.concatenate([np.ravel(part) for part in (params["weights"], params["loc"], covariance)])


def errors(dataset: Dataset, seed: int) -> np.ndarray:
    """Root mean square distance of variational Bayes and EM, ``[SAMPLES, SIZES]``, from the same start."""
    source, generator = source_of(dataset, seed), np.random.default_rng(seed)
    found = np.zeros((SAMPLES, len(SIZES)))
    for sample in range(SAMPLES):
        for place, size in enumerate(SIZES):
            rows, labels = source.draw(generator, size)
            options: dict[str, Any] = {"init": probem.Labels(labels), "tolerance": 1e-14, "throw": False}
            em = probem.fit(_em(), rows, **options)
            full = probem.fit(program(2, FLAT), rows, families=probem.VARIATIONAL_BAYES, **options)
            found[sample, place] = np.sqrt(np.mean((estimates(em.params) - estimates(full.params)) ** 2))
    return found


def slope_of(found: np.ndarray) -> float:
    """Of the logarithm of the error against that of N, by least squares."""
    return float(np.polyfit(np.tile(np.log(SIZES), len(found)), np.log(found).ravel(), 1)[0])


def meets(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E4."""
    found = errors(dataset, seed)
    slope = slope_of(found)
    means = np.exp(np.log(found).mean(0))
    yield Check(
        "E4",
        dataset.name,
        "slope of log error against log N, and -1",
        abs(slope + 1.0),
        # The rows are drawn anew for every N, so that the factor before 1/N varies: by a third at 100 rows.
        0.4,
        {"slope": slope, **{f"error at N = {size}": float(own) for size, own in zip(SIZES, means, strict=True)}},
    )
