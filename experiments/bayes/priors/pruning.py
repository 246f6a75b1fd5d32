"""E5: how many components: what priors on the weights leave of them, and what Bayesian k-means chooses."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.stats import entropy

import probem
from probem.checking.residuals import SAME, excess, violations
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.oracles.evidence import NormalKnownVariance, dirichlet_log_prob, per_component
from probem.experiments.oracles.lloyd import inertia, lloyd, means, nearest, starts
from probem.models import dirichlet, gmm, identity, stick_breaking

#: How many clusters there are in the data set of E5, and how many components are offered.
CLUSTERS, OFFERED = 4, 10
#: Starts with seeds for all of them: stick-breaking has local optima, and two starts may both end in one.
TRIES = 5
CONCENTRATIONS = (0.01, 1.0, 10.0)
STICKS = (0.1, 100.0)
#: Numbers of components among which Bayesian k-means chooses, and starts for each of them.
CHOICES, STARTS = (2, 3, 4, 5, 6), 10
#: Standard deviation of the prior of every centre; rows are centred beforehand.
SPREAD = 10.0

Weights = Callable[[int], jax.Array]


def known_variance(x: jax.Array, *, num_components: int, weights: Weights, variance: float = 1.0) -> None:
    """k-means' model with priors: loc_k ~ N(0, SPREAD² I), x_n | t_n ~ N(loc[t_n], variance I)."""
    mixing = weights(num_components)
    with numpyro.plate("components", num_components):
        centre: Any = dist.Normal(jnp.zeros(x.shape[-1]), SPREAD)
        loc: Any = numpyro.sample("loc", centre.to_event(1))
    with numpyro.plate("data", x.shape[0]):
        assignment: Any = dist.Categorical(probs=mixing)
        t = numpyro.sample("t", assignment)
        row: Any = dist.Normal(loc[t], variance**0.5)
        numpyro.sample("x", row.to_event(1), obs=x)


def centred(dataset: Dataset) -> np.ndarray:
    """The rows with mean zero, where the prior of the centres is."""
    return dataset.rows - dataset.rows.mean(axis=0)


# --- E5: surplus components ---


@dataclasses.dataclass(frozen=True)
class Left:
    """What is left of the components: how many hold more than one row, and exp(entropy) of the shares ``[K]``.

    ``bound`` is F; ``wide`` says whether it was reached from a start with rows in every component.
    """

    shares: np.ndarray
    occupied: int
    bound: float = math.nan
    wide: bool = True

    @property
    def effective(self) -> float:
        """As many equal components have this entropy."""
        return float(np.exp(entropy(self.shares)))


def left(fit: probem.Fit, wide: bool = True) -> Left:
    """Of a fit; shares are the rows of every component over all."""
    return Left(fit.counts / fit.counts.sum(), int((fit.counts > 1).sum()), fit.elbo, wide)


def start_of(rows: np.ndarray, seed: int, num_seeds: int = OFFERED) -> probem.Labels:
    """Every row with the nearest of so many rows drawn by k-means++: the same start for every prior."""
    from sklearn.cluster import kmeans_plusplus

    seeds, _ = kmeans_plusplus(rows, num_seeds, random_state=seed)
    return probem.Labels(nearest(rows, seeds))


def prune(rows: np.ndarray, seed: int, prior: Callable[..., jax.Array], concentration: float) -> Left:
    """Variational Bayes with ten components and this prior of the weights, by the highest F of several starts.

    Two starts have rows in every component, one in as many as there are clusters: coordinate ascent empties a component
    slowly or not at all where F is flat, so that which of two optima is the higher is for F to say. What was asked once
    is remembered.
    """
    return _prune(rows.tobytes(), rows.shape, seed, prior, concentration)


@functools.lru_cache(maxsize=32)
def _prune(
    contents: bytes, shape: tuple[int, ...], seed: int, prior: Callable[..., jax.Array], concentration: float
) -> Left:
    rows = np.frombuffer(contents).reshape(shape)
    weights = functools.partial(prior, concentration=concentration)
    program = functools.partial(known_variance, num_components=OFFERED, weights=weights)
    options: dict[str, Any] = {"tolerance": 1e-11, "max_steps": 5000, "throw": False}
    outcomes = []
    for draw, num_seeds in (*((seed + number, OFFERED) for number in range(TRIES)), (seed, CLUSTERS)):
        init = start_of(rows, draw, num_seeds)
        fit = probem.fit(program, rows, families=probem.VARIATIONAL_BAYES, init=init, **options)
        outcomes.append(left(fit, num_seeds == OFFERED))
    return outcomes[int(np.argmax([outcome.bound for outcome in outcomes]))]


def keep(rows: np.ndarray, seed: int) -> Left:
    """EM with ten components, by maximum likelihood."""
    program = functools.partial(gmm, num_components=OFFERED, covariance=identity)
    start = start_of(rows, seed)
    return left(probem.fit(program, rows, init=start, tolerance=1e-11, max_steps=5000, throw=False))


def surplus_components(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E5: against the concentration of either prior, and without any; then Bayesian k-means."""
    rows = centred(dataset)
    for name, prior, values in (("Dirichlet", dirichlet, CONCENTRATIONS), ("stick-breaking", stick_breaking, STICKS)):
        outcomes = [prune(rows, seed, prior, value) for value in values]
        numbers: dict[str, float | int | str] = {}
        for value, outcome in zip(values, outcomes, strict=True):
            numbers[f"α = {value:g}: components with more than one row"] = outcome.occupied
            numbers[f"α = {value:g}: exp(entropy) of the shares"] = outcome.effective
            numbers[f"α = {value:g}: highest F"] = outcome.bound
        rises = [low.effective - high.effective for low, high in itertools.pairwise(outcomes)]
        yield Check(
            "E5",
            dataset.name,
            f"{name}: by how much exp(entropy) of the shares rises where α falls, and 0",
            excess(rises),
            1e-3,
            numbers,
        )
        # Watanabe & Watanabe: a Dirichlet prior empties surplus components below this, and uses them above.
        # No α tried is beyond a threshold of stick-breaking: with the highest F, its surplus is empty at all of them.
        threshold = (rows.shape[1] + 1) / 2 if prior is dirichlet else np.inf
        below = f" below {threshold:g}" if prior is dirichlet else ""
        few = [outcome.occupied for value, outcome in zip(values, outcomes, strict=True) if value < threshold]
        yield Check(
            "E5",
            dataset.name,
            f"{name}: components with more than one row at every α{below}, and the {CLUSTERS} clusters",
            np.abs(np.array(few) - CLUSTERS),
            0,
        )
        if prior is not dirichlet:
            continue
        yield Check(
            "E5",
            dataset.name,
            f"{name}: what components with more than one row lack to exceed the {CLUSTERS} clusters at the largest α",
            excess(CLUSTERS + 1.0 - outcomes[-1].occupied),
            0,
        )
    kept = keep(rows, seed)
    yield Check(
        "E5",
        dataset.name,
        f"maximum likelihood: how many of {OFFERED} components are left with one row or less",
        OFFERED - kept.occupied,
        0,
        {"exp(entropy) of the shares": kept.effective},
    )
    yield from _chooses(dataset.name, rows, seed)


@dataclasses.dataclass(frozen=True)
class Choice:
    """For one K: the lowest inertia of k-means, the highest F of Bayesian k-means, and log p(X, t) at its labels."""

    num_components: int
    inertia: float
    bound: float
    log_joint: float


def choices(rows: np.ndarray, seed: int) -> list[Choice]:
    """Both from the same starts, Bayesian k-means from where k-means ends. What was asked once is remembered."""
    return _choices(rows.tobytes(), rows.shape, seed)


@functools.lru_cache(maxsize=8)
def _choices(contents: bytes, shape: tuple[int, ...], seed: int) -> list[Choice]:
    rows = np.frombuffer(contents).reshape(shape)
    choices = []
    for K in CHOICES:
        ends = [lloyd(rows, start)[-1].labels for start in starts(rows, K, STARTS, seed)]
        costs = [inertia(rows, labels, means(rows, labels, np.zeros((K, rows.shape[1])))) for labels in ends]
        program = functools.partial(known_variance, num_components=K, weights=dirichlet)
        corner = probem.MAXIMIZATION_EXPECTATION
        fits = [probem.fit(program, rows, families=corner, init=probem.Labels(labels)) for labels in ends]
        best = fits[int(np.argmax([fit.elbo for fit in fits]))]
        labels = np.asarray(best.predict(rows))
        component = NormalKnownVariance(np.zeros(rows.shape[1]), SPREAD, 1.0)
        log_joint = dirichlet_log_prob(labels, np.ones(K)) + per_component(component)(rows, labels)
        choices.append(Choice(K, float(np.min(costs)), best.elbo, log_joint))
    return choices


def forget() -> None:
    """Forget the fits remembered."""
    _prune.cache_clear()
    _choices.cache_clear()


def _chooses(name: str, rows: np.ndarray, seed: int) -> Iterator[Check]:
    offered = choices(rows, seed)
    yield Check(
        "E5",
        name,
        "Bayesian k-means: F, and log p(X, t) with all parameters integrated out, in closed form, relative",
        [abs(choice.bound / choice.log_joint - 1) for choice in offered],
        SAME,
        {f"F with K = {choice.num_components}": choice.bound for choice in offered},
    )
    chosen = offered[int(np.argmax([choice.bound for choice in offered]))].num_components
    yield Check(
        "E5",
        name,
        f"Bayesian k-means: the K with the highest F, and the {CLUSTERS} clusters",
        abs(chosen - CLUSTERS),
        0,
        {"chosen": chosen},
    )
    falls = [before.inertia - after.inertia for before, after in itertools.pairwise(offered)]
    yield Check(
        "E5",
        name,
        "k-means: values of K at which one more component does not lower the inertia",
        violations([fall > 0 for fall in falls]),
        0,
        {f"inertia with K = {choice.num_components}": choice.inertia for choice in offered},
    )
