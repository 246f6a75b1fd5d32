"""A3, A4: what becomes of the bound, and of the likelihood, half-step by half-step."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import softmax, xlogy

import probem
from probem.checking.residuals import ROUNDING, SAME, excess
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.oracles.mixtures import KMEANS, Problem, pose

Family = probem.Categorical | probem.Delta | probem.Tempered | probem.TopC


@dataclasses.dataclass(frozen=True)
class FamilyCase:
    """A family of the engine, and the same projection written in NumPy: table [N, K] -> q [N, K]."""

    name: str
    family: Family
    project: Callable[[np.ndarray], np.ndarray]
    entropy_weight: float = 1.0


def _keep_two(table: np.ndarray) -> np.ndarray:
    second = np.sort(table, axis=1)[:, -2:-1]
    return softmax(np.where(table >= second, table, -np.inf), axis=1)


FAMILIES = (
    FamilyCase("any q", probem.Categorical(), lambda table: softmax(table, axis=1)),
    FamilyCase("point masses", probem.Delta(), lambda table: np.eye(table.shape[1])[table.argmax(1)]),
    FamilyCase("tempered, β = 1/2", probem.Tempered(0.5), lambda table: softmax(0.5 * table, axis=1), 2.0),
    FamilyCase("the two largest", probem.TopC(2), _keep_two),
)


def trajectory(problem: Problem, family: Family, max_steps: int = 30) -> list[probem.Fit]:
    """The fit after every iteration, the initial parameters first."""
    start = probem.Parameters(problem.params)
    return list(
        probem.iterate(
            problem.program, problem.rows, families={"t": family}, init=start, max_steps=max_steps, throw=False
        )
    )


def half_steps(problem: Problem, case: FamilyCase, fits: list[probem.Fit]) -> np.ndarray:
    """What the family maximises after every half-step, from NumPyro's densities and the plain q: E, M, E, ..., E."""
    tables = [problem.log_joint(fit.params) for fit in fits]
    assigned = [case.project(table) for table in tables]

    def objective(q: np.ndarray, table: np.ndarray) -> float:
        # A component that lost all its rows has a log joint of -inf, and q = 0.
        expected = np.multiply(q, table, where=q > 0, out=np.zeros_like(q)).sum()
        return float(expected - case.entropy_weight * xlogy(q, q).sum())

    values = [objective(assigned[0], tables[0])]
    for number in range(1, len(fits)):
        values += [objective(assigned[number - 1], tables[number]), objective(assigned[number], tables[number])]
    return np.array(values)


def never_falls(dataset: Dataset, seed: int) -> Iterator[Check]:
    """A3, for every family."""
    problem = pose(dataset, seed)
    for case in FAMILIES:
        fits = trajectory(problem, case.family)
        plain = half_steps(problem, case, fits)
        recorded = fits[-1].history.objective
        if fits[-1].result is probem.Result.SINGULAR:
            # The last M half-step found no parameters to speak of.
            recorded = recorded[: len(plain)]
        size = float(np.abs(plain).max())
        falls = -np.concatenate([np.diff(plain), np.diff(recorded)])
        yield Check(
            "A3",
            dataset.name,
            f"{case.name}: F of every half-step as recorded, and from NumPyro’s densities",
            np.abs(recorded[: len(plain)] - plain) / size,
            SAME,
            {"half-steps": len(plain), "first F": float(plain[0]), "last F": float(plain[-1])},
        )
        yield Check(
            "A3",
            dataset.name,
            f"{case.name}: the largest fall of F in a half-step, and 0",
            # A fit that collapses in its first M half-step has nothing that could fall.
            excess(np.append(falls, 0.0)) / size,
            ROUNDING,
            {
                "least rise (nats)": -float(falls.max(initial=-np.inf)),
                "rise in all (nats)": float(plain[-1] - plain[0]),
            },
        )


#: Starts of k-means, as numbers of rows, from which the likelihood of the mixture falls on the way.
FALLS = {
    "iris": (19, 119, 148),
    "wine": (15, 31, 142),
    "overlapping": (80, 478, 77),
    "one_dimensional": (78, 32, 249),
}
# Nats by which it has to fall: far above rounding.
FALL = 0.01


def kmeans_run(dataset: Dataset) -> tuple[list[probem.Fit], np.ndarray]:
    """k-means from the named start: the fit after every iteration, and log p(X) of the mixture there (nats)."""
    problem = pose(dataset, 0, KMEANS)
    problem = dataclasses.replace(problem, params={"loc": dataset.rows[list(FALLS[dataset.name])]})
    fits = trajectory(problem, probem.Delta(), 100)
    return fits, np.array([problem.log_likelihood(fit.params) for fit in fits])


def likelihood_follows(dataset: Dataset, seed: int) -> Iterator[Check]:
    """A4: log p(X) rises under soft EM everywhere, and falls under hard EM from the starts named."""
    problem = pose(dataset, seed)
    fits = trajectory(problem, probem.Categorical())
    bounds = np.array([fit.elbo for fit in fits])
    evidence = np.array([problem.log_likelihood(fit.params) for fit in fits])
    size = float(np.abs(evidence).max())
    yield Check(
        "A4",
        dataset.name,
        "soft EM: F after every E-step, and log p(X) by NumPyro",
        np.abs(bounds - evidence) / size,
        SAME,
        {"iterations": len(fits) - 1, "log p(X) at first": float(evidence[0]), "at last": float(evidence[-1])},
    )
    falls = excess(-np.diff(evidence)) / size
    yield Check("A4", dataset.name, "soft EM: the largest fall of log p(X), and 0", falls, ROUNDING)
    if dataset.name not in FALLS:
        return
    fits, evidence = kmeans_run(dataset)
    bounds, changes = np.array([fit.elbo for fit in fits]), np.diff(evidence)
    falls = excess(-np.diff(bounds) / np.abs(bounds[1:]))
    yield Check("A4", dataset.name, "k-means: the largest fall of F, and 0", falls, ROUNDING)
    steepest = int(changes.argmin())
    yield Check(
        "A4",
        dataset.name,
        f"k-means: what is missing from a fall of log p(X) by {FALL} nats, and 0",
        excess(FALL + changes[steepest]),
        0.0,
        {
            "iteration": steepest + 1,
            "log p(X) falls by (nats)": -float(changes[steepest]),
            "F rises by (nats)": float(bounds[steepest + 1] - bounds[steepest]),
        },
    )
