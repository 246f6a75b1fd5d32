"""D1: the likelihood of a mixture with free covariances has no upper bound."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy.special import logsumexp
from scipy.stats import Covariance, multivariate_normal

import probem
from probem.checking.residuals import ROUNDING, SAME, excess
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.oracles.lloyd import squared_distances
from probem.models import gmm

#: Standard deviations of the component that sits on a row.
SCALES = 10.0 ** -np.arange(1, 13)
#: That of the start of every run, in units of the distance to the nearest other row: small enough for EM to collapse.
START = 0.3
COMPONENTS = 2

Params = Mapping[str, np.ndarray]
# SciPy's annotations know of no Covariance.
normal: Any = multivariate_normal


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
        """The parameters of ``params``, for a program of precisions."""
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


# --- log densities by SciPy ---


def log_joint(rows: np.ndarray, params: Params) -> np.ndarray:
    """log p(x_n, t_n = k), ``[N, K]``, of parameters with covariances or precisions."""
    spreads = (
        map(Covariance.from_precision, params["precision"])
        if "precision" in params
        else map(Covariance.from_cholesky, np.linalg.cholesky(params["covariance"]))
    )
    parts = [normal(mean, cov).logpdf(rows) for mean, cov in zip(params["loc"], spreads, strict=True)]
    return np.stack(parts, axis=1) + np.log(params["weights"])


def log_likelihood(rows: np.ndarray, params: Params) -> float:
    """log p(X), nats, total."""
    return float(np.asarray(logsumexp(log_joint(rows, params), axis=1)).sum())


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
        np.abs(np.diff(values[narrow]) / (dim * np.log(10)) - 1),
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
        excess(-np.diff(evaluated) / np.abs(evaluated).max()),
        ROUNDING,
        {"half-steps": len(evaluated), "first F": float(evaluated[0]), "last F": float(evaluated[-1])},
    )
    ends = (fit.result is probem.Result.SINGULAR, fit.component == 0, finite, evaluated[-1] > evaluated[0])
    yield Check(
        "D1",
        dataset.name,
        "EM from there: what is missing from an end as SINGULAR, in component 0, with finite parameters and a higher F",
        4 - sum(map(bool, ends)),
        0,
        {
            "result": fit.result.name if fit.result else "none",
            "component": int(fit.component),
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
