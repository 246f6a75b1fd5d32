"""Answers, many small fits and restarts: estimators of scikit-learn's interface, side by side with probem's."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

import probem
import probem.sklearn
from probem import models
from probem.stopping import BoundChange, ParameterShift

from .settings import Answers, Restarts, SmallFits
from .timing import PROBEM, Measurement, measure_calls

_MODULES = {"KMeans": "cluster", "GaussianMixture": "mixture", "BayesianGaussianMixture": "mixture"}


def estimators(name: str, peers: list[str]) -> dict[str, Any]:
    """The class of this name, of probem and of each of the peers that has it."""
    sides = {PROBEM: getattr(probem.sklearn, name)}
    if "scikit-learn" in peers:
        sides["scikit-learn"] = getattr(importlib.import_module(f"sklearn.{_MODULES[name]}"), name)
    if "scikit-learn-intelex" in peers and name == "KMeans":
        sides["scikit-learn-intelex"] = importlib.import_module("sklearnex.cluster").KMeans
    return sides


def _clusters(count: int, num_rows: int, dim: int, num_components: int, seed: int) -> Float[np.ndarray, "B N D"]:
    """Data sets of clusters that overlap a little, each with centres of its own."""
    random = np.random.default_rng(seed)
    centres = 2.0 * random.normal(size=(count, num_components, dim))
    labels = random.integers(0, num_components, (count, num_rows))
    return np.take_along_axis(centres, labels[..., None], axis=1) + random.normal(size=(count, num_rows, dim))


def answers(settings: Answers, peers: list[str], seed: int) -> Iterator[Measurement]:
    """Calls of estimators whose fit took two iterations."""
    dim, count = settings.columns, settings.components
    rows = _clusters(1, max(settings.rows), dim, count, seed)[0]
    for call in settings.calls:
        name, method = call.split(".")
        fitted = {
            side: estimator(**{_count_of(name): count}, max_iter=2, random_state=0).fit(rows)
            for side, estimator in estimators(name, peers).items()
        }
        for num_rows in settings.rows:
            sides = {side: functools.partial(getattr(model, method), rows[:num_rows]) for side, model in fitted.items()}
            case = f"{_short(name)}.{method} ({num_rows}, {dim}, {count})"
            yield measure_calls(f"answers, {num_rows} rows", case, sides, settings.rounds, seconds=settings.seconds)


def small_fits(settings: SmallFits, peers: list[str], seed: int) -> Iterator[Measurement]:
    """``probem.fit_many``, and the estimators' method of that name, beside loops over fits of the peers.

    The first has the peers' rule of stopping and seeds drawn as they draw theirs, the second all of their defaults, but
    that all fits may converge.
    """
    num_rows, dim, count = settings.shape
    data = _clusters(settings.sets, num_rows, dim, count, seed)
    part = min(settings.looped / settings.sets, 1.0)
    for name in settings.models:
        program, alike = _program(name, data, count)
        defaults = {_count_of(name): count, "max_iter": 1000, "random_state": 0}
        for title, ours, options in (
            ("fit_many", program, defaults | alike),
            ("estimator", getattr(probem.sklearn, name)(**defaults).fit_many, defaults),
        ):
            sides = {PROBEM: functools.partial(ours, data)}
            for side, estimator in estimators(name, peers).items():
                if side != PROBEM:
                    sides[side] = functools.partial(_each, estimator, options, data[: settings.looped])
            case = f"{_short(name)}, {title}, {settings.sets} x ({num_rows}, {dim}, {count})"
            yield measure_calls("many small fits", case, sides, settings.rounds, part=part)


def _program(name: str, data: Float[np.ndarray, "B N D"], count: int) -> tuple[Callable[..., Any], dict[str, Any]]:
    """``probem.fit_many`` for a model, and arguments of the peers' estimators that ask for what it does."""
    rows = data.reshape(-1, data.shape[2])
    if name == "KMeans":
        program = functools.partial(models.kmeans, num_components=count)
        options: dict[str, Any] = {
            "families": {"t": probem.Delta(fill_empty=True)},
            "tolerance": ParameterShift(1e-4 * data.var(axis=1).mean(axis=1)),
        }
        alike: dict[str, Any] = {"tol": 1e-4}
    elif name == "GaussianMixture":
        program = functools.partial(models.gmm, num_components=count)
        options = {"tolerance": BoundChange(1e-3, per_row=True), "added_variance": 1e-6}
        alike = {"init_params": "k-means++", "tol": 1e-3, "reg_covar": 1e-6}
    else:
        prior = models.GaussianPrior(rows.mean(0), 1.0, float(rows.shape[1]), np.cov(rows, rowvar=False))
        program = functools.partial(models.bayesian_gmm, num_components=count, prior=prior)
        options = {"families": probem.VARIATIONAL_BAYES, "tolerance": BoundChange(1e-3, half="M")}
        alike = {
            "init_params": "k-means++",
            "tol": 1e-3,
            "reg_covar": 0.0,
            "weight_concentration_prior_type": "dirichlet_distribution",
            "weight_concentration_prior": 1.0,
            "mean_prior": prior.mean,
            "mean_precision_prior": prior.strength,
            "degrees_of_freedom_prior": prior.dof,
            "covariance_prior": prior.scatter,
        }
    return functools.partial(probem.fit_many, program, **options, throw=False), alike


def _each(estimator: Any, options: dict[str, Any], data: Float[np.ndarray, "B N D"]) -> list[Any]:
    return [estimator(**options).fit(rows) for rows in data]


def restarts(settings: Restarts, peers: list[str], seed: int) -> Iterator[Measurement]:
    """Starts that probem runs side by side, beside those of peers, and beside probem's fits of a start each."""
    num_rows, dim, count = settings.shape
    rows = _clusters(1, num_rows, dim, count, seed)[0]
    for name in settings.models:
        random_rows = {"init": "random"} if name == "KMeans" else {"init_params": "random_from_data"}
        options = {_count_of(name): count, "max_iter": settings.steps, "tol": 0.0, **random_rows}
        sides = {
            side: functools.partial(_each_seed, estimator, options | {"n_init": settings.starts}, rows, 1)
            for side, estimator in estimators(name, peers).items()
        }
        ours = getattr(probem.sklearn, name)
        alone = functools.partial(_each_seed, ours, options | {"n_init": 1}, rows, settings.starts)
        numbers = f"({num_rows}, {dim}, {count})"
        case = f"{_short(name)}, {settings.starts} starts {numbers}"
        yield measure_calls("restarts", case, sides, settings.rounds)
        case = f"{_short(name)}, {settings.starts} fits {numbers}"
        yield measure_calls(
            "restarts beside probem's own fits", case, {PROBEM: sides[PROBEM], "in turn": alone}, settings.rounds
        )


def _each_seed(estimator: Any, options: dict[str, Any], rows: Float[np.ndarray, "N D"], num_seeds: int) -> list[Any]:
    return [estimator(**options, random_state=seed).fit(rows) for seed in range(num_seeds)]


def _count_of(name: str) -> str:
    return "n_clusters" if name == "KMeans" else "n_components"


def _short(name: str) -> str:
    """What an estimator is called in a table."""
    return {"GaussianMixture": "GMM", "BayesianGaussianMixture": "VB"}.get(name, name)
