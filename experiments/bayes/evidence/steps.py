"""E3: variational Bayes step by step.

The other side is scikit-learn where its updates are exact, and the loops of ``plain_bayes`` everywhere.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import probem
from probem import models
from probem.checking.residuals import excess, worst
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.experiments.oracles.evidence import NormalGamma, SphericalNormalGamma
from probem.experiments.oracles.plain_bayes import (
    DirichletWeights,
    Iteration,
    Posterior,
    StickWeights,
    variational_bayes,
)
from probem.experiments.oracles.plain_bayes import (
    GaussianPrior as PlainPrior,
)
from probem.models import bayesian_covariance

from .values import FEW, PRIOR, few_rows, gamma_arguments, program, two_columns, wishart

STEPS = 15
NUM_ROWS = 200
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

    def plain(self, rows: np.ndarray, start: np.ndarray, num_steps: int = STEPS) -> tuple[Iteration, ...]:
        weights = StickWeights(STICKS) if self.sticks else DirichletWeights(np.ones(2))
        tied = self.covariance is bayesian_covariance.tied
        return variational_bayes(rows, start, self.plain_prior, weights, tied=tied, num_steps=num_steps)


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
    """scikit-learn's, with our priors, from these responsibilities ``[N, K]``; its first fit is an M-step alone."""
    from sklearn.mixture import BayesianGaussianMixture

    class Started(BayesianGaussianMixture):
        def _initialize_parameters(self, X: np.ndarray, *given: Any, **named: Any) -> None:
            self._initialize(X, start)

    gammas = structure.covariance in (bayesian_covariance.diagonal, bayesian_covariance.spherical)
    shape, rate = gamma_arguments(PRIOR)
    # Of a gamma its variables are the inverse of the mean precision, 2 rate / (2 shape).
    scatter: Any = np.asarray(PRIOR.scatter)
    if gammas:
        scatter = 2 * rate if structure.covariance is bayesian_covariance.diagonal else float(2 * rate.mean())
    return Started(
        n_components=2,
        covariance_type="diag"
        if structure.covariance is bayesian_covariance.diagonal
        else structure.covariance.__name__,
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
    scatter = np.asarray(precision["rate_matrix"] if "rate_matrix" in precision else precision["rate"])
    return Posterior(np.asarray(loc["loc"]), strength, np.asarray(precision["concentration"]), scatter, weights)


def distance(posterior: Posterior, other: Posterior) -> float:
    """The largest difference of an argument of q, relative to the largest of its kind."""
    distances = []
    for field in dataclasses.fields(Posterior):
        first, second = (np.ravel(getattr(q, field.name)) for q in (posterior, other))
        # Where features are independent, the engine has a shape and a strength for each, the plain loop one for all.
        second = np.repeat(second, first.size // second.size)
        distances.append(np.abs(first - second).max() / np.abs(second).max())
    return worst(distances)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
    """A structure followed from one start: by the engine, by the plain loop and by scikit-learn.

    ``from_plain`` and ``from_scikit_learn`` are distances of q in every iteration (the latter empty where its updates
    are not exact), ``off`` by how much its responsibilities of few rows are wrong after one step.
    """

    structure: Structure
    fits: list[probem.Fit]
    plain: tuple[Iteration, ...]
    from_plain: list[float]
    from_scikit_learn: list[float]
    off: float


@Kept
def followed(dataset: Dataset, seed: int) -> list[Followed]:
    """Every structure."""
    rows = two_columns(dataset)
    # The plain loop is slow, and as many rows of every data set have nothing compiled anew.
    rows = rows[np.linspace(0, len(rows) - 1, NUM_ROWS).astype(int)]
    start = start_of(rows, seed)
    # The fewer the rows, the more it shows where scikit-learn is not exact.
    few = few_rows(dataset)
    start_of_few = start_of(few, seed)
    runs = []
    for structure in STRUCTURES:
        fits, plain = trajectory(structure, rows, start), structure.plain(rows, start)
        ours = [posterior_of(fit) for fit in fits]
        from_plain = [distance(posterior, other.posterior) for posterior, other in zip(ours, plain, strict=True)]
        from_theirs, off = [], 0.0
        if structure.differs is None:
            theirs = [of_scikit_learn(each) for each in scikit_learn(structure, rows, start, STEPS - 1)]
            from_theirs = [distance(posterior, other) for posterior, other in zip(ours, theirs, strict=True)]
        else:
            theirs_first = next(scikit_learn(structure, few, start_of_few, 0)).predict_proba(few)
            exact = structure.plain(few, start_of_few, 1)[0].responsibilities
            off = float(np.abs(theirs_first - exact).max())
        runs.append(Followed(structure, fits, plain, from_plain, from_theirs, off))
    return runs


def stepwise(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E3."""
    for run in followed(dataset, seed):
        name, fits, plain = run.structure.name, run.fits, run.plain
        yield Check(
            "E3",
            dataset.name,
            f"{name}: q of every iteration, and of a plain loop",
            run.from_plain,
            STEPWISE,
            {"iterations": len(fits)},
        )
        differences = [abs(fit.elbo - other.bound) for fit, other in zip(fits, plain, strict=True)]
        yield Check(
            "E3",
            dataset.name,
            f"{name}: F of every iteration, and of a plain loop",
            np.divide(differences, abs(plain[-1].bound)),
            STEPWISE,
            {"first F": fits[0].elbo, "last F": fits[-1].elbo},
        )
        if run.structure.differs is None:
            yield Check(
                "E3",
                dataset.name,
                f"{name}: q of every iteration, and scikit-learn’s",
                run.from_scikit_learn,
                STEPWISE,
                {"iterations": len(run.from_scikit_learn)},
            )
            continue
        yield Check(
            "E3",
            dataset.name,
            f"{name}: what scikit-learn’s responsibilities after one step lack to be {APART} off, and 0",
            excess(APART - run.off),
            0.0,
            {"off by": run.off, "rows": FEW, "since": run.structure.differs},
        )
