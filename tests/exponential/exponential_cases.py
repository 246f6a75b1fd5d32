"""One case for every way of writing a distribution that has a view: where the conformance suite takes its numbers.

The mean statistics are written from textbook moments (SciPy's digamma for the gamma), never from the views.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import numpyro.distributions as dist
import scipy.special

from probem.exponential import view
from probem.exponential.base import ExponentialFamily

Arrays = dict[str, np.ndarray]

DIM = 3
CATEGORIES = 4
TRIALS = 7


@dataclasses.dataclass(frozen=True)
class Case:
    """How to draw arguments and rows, and the exact mean of T(x)."""

    name: str
    distribution: Callable[..., dist.Distribution]
    draw_arguments: Callable[[np.random.Generator, tuple[int, ...]], Arrays]
    draw_rows: Callable[[np.random.Generator, int], np.ndarray]
    mean_statistics: Callable[[Arrays], np.ndarray]
    event_shape: tuple[int, ...] = ()
    #: For an argument, those that must be equal in all components for its moment to be pooled over them ...
    pooled_over_equal: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)
    #: ... and those that are maximised together with it.
    together_with: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)
    #: Arguments that are no parameters.
    known: dict[str, int] = dataclasses.field(default_factory=dict, hash=False)

    def build(self, arguments: Arrays) -> dist.Distribution:
        return self.distribution(**arguments, **self.known)

    def view(self, arguments: Arrays) -> ExponentialFamily:
        found = view(self.build(arguments))
        assert found is not None
        return found


def _covariance(rng: np.random.Generator, batch: tuple[int, ...]) -> np.ndarray:
    factor = rng.normal(size=(*batch, DIM, DIM + 2))
    return factor @ np.swapaxes(factor, -1, -2) + 0.1 * np.eye(DIM)


def _multivariate(matrix: str) -> Case:
    from_covariance = {
        "covariance_matrix": lambda c: c,
        "precision_matrix": np.linalg.inv,
        "scale_tril": np.linalg.cholesky,
    }
    to_covariance = {
        "covariance_matrix": lambda m: m,
        "precision_matrix": np.linalg.inv,
        "scale_tril": lambda m: m @ np.swapaxes(m, -1, -2),
    }

    def draw_arguments(rng: np.random.Generator, batch: tuple[int, ...]) -> Arrays:
        return {"loc": rng.normal(size=(*batch, DIM)), matrix: from_covariance[matrix](_covariance(rng, batch))}

    def mean_statistics(arguments: Arrays) -> np.ndarray:
        covariance = to_covariance[matrix](arguments[matrix])
        mean = arguments["loc"]
        products = [
            covariance[..., i, j] + mean[..., i] * mean[..., j] for i in range(DIM) for j in range(DIM) if i <= j
        ]
        return np.concatenate([mean, np.stack(products, axis=-1)], axis=-1)

    return Case(
        f"multivariate_normal_{matrix}",
        dist.MultivariateNormal,
        draw_arguments,
        lambda rng, n: rng.normal(size=(n, DIM)) * [1.0, 3.0, 0.5] + [2.0, -1.0, 0.0],
        mean_statistics,
        (DIM,),
        pooled_over_equal={"loc": matrix},
    )


def _log_dirichlet(rng: np.random.Generator, batch: tuple[int, ...]) -> np.ndarray:
    return np.log(rng.dirichlet(np.full(CATEGORIES, 3.0), size=batch))


CASES = (
    Case(
        "normal",
        dist.Normal,
        lambda rng, batch: {"loc": rng.normal(size=batch), "scale": rng.gamma(3.0, size=batch)},
        lambda rng, n: 2.0 + 3.0 * rng.normal(size=n),
        lambda a: np.stack([a["loc"], a["scale"] ** 2 + a["loc"] ** 2], axis=-1),
        pooled_over_equal={"loc": "scale"},
    ),
    _multivariate("covariance_matrix"),
    _multivariate("precision_matrix"),
    _multivariate("scale_tril"),
    Case(
        "categorical_probs",
        dist.CategoricalProbs,
        lambda rng, batch: {"probs": np.exp(_log_dirichlet(rng, batch))},
        lambda rng, n: rng.integers(CATEGORIES, size=n),
        lambda a: a["probs"],
    ),
    Case(
        "categorical_logits",
        dist.CategoricalLogits,
        lambda rng, batch: {"logits": _log_dirichlet(rng, batch)},
        lambda rng, n: rng.integers(CATEGORIES, size=n),
        lambda a: np.exp(a["logits"]),
    ),
    Case(
        "multinomial_probs",
        dist.MultinomialProbs,
        lambda rng, batch: {"probs": np.exp(_log_dirichlet(rng, batch))},
        lambda rng, n: rng.multinomial(TRIALS, np.full(CATEGORIES, 1 / CATEGORIES), size=n),
        lambda a: TRIALS * a["probs"],
        event_shape=(CATEGORIES,),
        known={"total_count": TRIALS},
    ),
    Case(
        "multinomial_logits",
        dist.MultinomialLogits,
        lambda rng, batch: {"logits": _log_dirichlet(rng, batch)},
        lambda rng, n: rng.multinomial(TRIALS, np.full(CATEGORIES, 1 / CATEGORIES), size=n),
        lambda a: TRIALS * np.exp(a["logits"]),
        event_shape=(CATEGORIES,),
        known={"total_count": TRIALS},
    ),
    Case(
        "bernoulli_probs",
        dist.BernoulliProbs,
        lambda rng, batch: {"probs": rng.uniform(0.05, 0.95, size=batch)},
        lambda rng, n: rng.integers(2, size=n),
        lambda a: a["probs"][..., None],
    ),
    Case(
        "bernoulli_logits",
        dist.BernoulliLogits,
        lambda rng, batch: {"logits": rng.normal(size=batch)},
        lambda rng, n: rng.integers(2, size=n),
        lambda a: scipy.special.expit(a["logits"])[..., None],
    ),
    Case(
        "poisson",
        dist.Poisson,
        lambda rng, batch: {"rate": rng.gamma(4.0, size=batch)},
        lambda rng, n: rng.poisson(3.0, size=n),
        lambda a: a["rate"][..., None],
    ),
    Case(
        "exponential",
        dist.Exponential,
        lambda rng, batch: {"rate": rng.gamma(4.0, size=batch)},
        lambda rng, n: rng.exponential(0.4, size=n),
        lambda a: 1.0 / a["rate"][..., None],
    ),
    Case(
        "gamma",
        dist.Gamma,
        lambda rng, batch: {
            "concentration": np.exp(rng.uniform(-2.0, 3.0, size=batch)),
            "rate": np.exp(rng.normal(size=batch)),
        },
        lambda rng, n: rng.gamma(2.5, 0.7, size=n),
        lambda a: np.stack(
            [scipy.special.digamma(a["concentration"]) - np.log(a["rate"]), a["concentration"] / a["rate"]], axis=-1
        ),
        pooled_over_equal={"rate": "concentration"},
        together_with={"concentration": "rate"},
    ),
)

LOCATION_CASES = tuple(case for case in CASES if "normal" in case.name)
