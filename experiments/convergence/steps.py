"""G2: an iteration of EM is a step along the gradient of log p(X), with a matrix of its own before it."""

import itertools
from collections.abc import Iterator

import numpy as np

import probem
from probem.checking.residuals import ROUNDING, worst
from probem.experiments.claims.claim import Check, Dataset

from . import mixture
from .rates import COMPONENTS, program

#: Iterations that are compared.
FOLLOWED = 10


def predicted(params: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """P(theta) times the gradient of log p(X), by autodiff of NumPyro's density.

    P is (diag(pi) - pi pi') / N for the weights, Sigma_k / N_k for a location, and for a covariance it takes a gradient
    G to 2 Sigma_k G Sigma_k / N_k. Xu & Jordan (1996), theorem 1.
    """
    slope = mixture.as_numbers(mixture.gradient(params, rows))
    weights, covariance = params["weights"], params["covariance"]
    counts = np.asarray(mixture.responsibilities(params, rows)).sum(0)
    return {
        "weights": (weights * slope["weights"] - weights * (weights @ slope["weights"])) / len(rows),
        "loc": np.einsum("kij,kj->ki", covariance, slope["loc"]) / counts[:, None],
        "covariance": 2 * covariance @ slope["covariance"] @ covariance / counts[:, None, None],
    }


def moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far an iteration moved the parameters, the covariances taken about the means before it."""
    change = {name: after[name] - before[name] for name in before}
    change["covariance"] = change["covariance"] + change["loc"][:, :, None] * change["loc"][:, None, :]
    return change


def directions(rows: np.ndarray, seed: int) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """How the engine moved in every iteration, and what the gradient predicts."""
    generator = np.random.default_rng(seed)
    start = {
        "weights": generator.dirichlet(np.full(COMPONENTS, 5.0)),
        "loc": rows[generator.choice(len(rows), COMPONENTS, replace=False)],
        "covariance": np.tile(np.cov(rows, rowvar=False), (COMPONENTS, 1, 1)),
    }
    options = {"init": probem.Parameters(start), "max_steps": FOLLOWED + 1, "tolerance": 0, "throw": False}
    fits = [mixture.as_numbers(fit.params) for fit in probem.iterate(program(), rows, **options)]
    return [(moved(before, after), predicted(before, rows)) for before, after in itertools.pairwise(fits)]


def preconditioned(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G2."""
    both = directions(dataset.rows, seed)
    sizes = {name: worst([np.abs(step[name]).max() for step, _ in both]) for name in both[0][0]}
    spread = float(np.sqrt(np.mean([(step["covariance"] ** 2).mean() for step, _ in both])))
    for name, words in (("weights", "weights"), ("loc", "locations"), ("covariance", "covariances")):
        yield Check(
            "G2",
            dataset.name,
            f"{words}: how {len(both)} iterations moved, and P(θ) times the gradient, in units of the longest move",
            [np.abs(step[name] - by_gradient[name]).max() / sizes[name] for step, by_gradient in both],
            ROUNDING,
            {"longest move": float(sizes[name])} | ({"typical move": spread} if name == "covariance" else {}),
        )
