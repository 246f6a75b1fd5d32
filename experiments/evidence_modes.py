"""E9: F of exchangeable components sits in one of K! modes of the posterior, and log K! belongs to it.

The other side is ``evidence``, by enumeration of all labellings; nothing of it knows the engine.
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np

import probem
from probem.models import dirichlet

from . import evidence
from .bound_values import ROUNDING
from .claim import NO_DATASET, Check, excess
from .evidence import NormalKnownVariance
from .pruning import SPREAD, known_variance

#: Sets of rows, how many rows in each, the numbers of components among which to choose, and starts for each.
SETS, FEW, CHOICES, STARTS = 40, 7, (1, 2, 3), 5
#: How far apart clusters lie at which no row may be of two of them, in standard deviations.
APART = 30.0
#: Of the centres in the sets, in standard deviations: clusters overlap in some and are apart in others.
WIDTH = 3.0


def of(num_components: int) -> Callable[..., None]:
    """k-means' model with priors: known variance, normal centres, weights Dirichlet(1, ..., 1)."""
    return functools.partial(known_variance, num_components=num_components, weights=dirichlet)


def exact_evidence(rows: np.ndarray, num_components: int) -> float:
    """log p(X) of the same by enumeration, nats."""
    component, concentration = NormalKnownVariance(np.zeros(2), SPREAD, 1.0), np.ones(num_components)

    # Many labellings share few sets of rows.
    @functools.cache
    def marginal(members: bytes) -> float:
        return component.log_marginal(rows[np.frombuffer(members, bool)])

    return evidence.log_evidence(
        rows,
        num_components,
        lambda labels: evidence.dirichlet_log_prob(labels, concentration),
        lambda rows, labels: sum(marginal((labels == k).tobytes()) for k in range(num_components)),
    )


def highest(sets: np.ndarray, num_components: int, seed: int) -> np.ndarray:
    """F of the best of several starts for every set of rows, full posteriors, ``[B]``."""
    options = {"key": seed, "restarts": STARTS, "tolerance": 1e-10, "throw": False}
    found = probem.fit_many(of(num_components), sets, families=probem.VARIATIONAL_BAYES, **options)
    return np.asarray(found.elbo, float)


def sets_of(seed: int) -> np.ndarray:
    """Seven rows each, of one, two or three clusters in turn, ``[B, 7, 2]``."""
    generator, found = np.random.default_rng(seed), []
    for number in range(SETS):
        centres = WIDTH * generator.standard_normal((CHOICES[number % len(CHOICES)], 2))
        labels = generator.integers(len(centres), size=FEW)
        found.append(centres[labels] + generator.standard_normal((FEW, 2)))
    return np.stack(found)


def one_of_many_modes(seed: int) -> Iterator[Check]:
    """E9."""
    yield from _apart(seed)
    sets, log_modes = sets_of(seed), np.array([math.lgamma(K + 1) for K in CHOICES])
    bounds = np.stack([highest(sets, K, seed) for K in CHOICES], axis=1)
    exact = np.array([[exact_evidence(rows, K) for K in CHOICES] for rows in sets])
    by_evidence, by_bound, by_both = (np.argmax(values, axis=1) for values in (exact, bounds, bounds + log_modes))
    right = {"F": int((by_bound == by_evidence).sum()), "F + log K!": int((by_both == by_evidence).sum())}
    yield Check(
        "E9",
        NO_DATASET,
        f"{SETS} sets of seven rows: what F + log K! lacks to find the evidence’s K more often than F does",
        excess(right["F"] + 1.0, right["F + log K!"]) if np.isfinite(bounds).all() else np.inf,
        0,
        {f"sets in which {name} does": count for name, count in right.items()}
        | {f"sets in which the evidence prefers K = {K}": int((by_evidence == i).sum()) for i, K in enumerate(CHOICES)},
    )
    yield Check(
        "E9",
        NO_DATASET,
        f"{SETS} sets of seven rows: what F has above log p(X), relative, and 0",
        excess((bounds - exact) / np.abs(exact)),
        ROUNDING,
    )


def _apart(seed: int) -> Iterator[Check]:
    """Clusters so far apart that no other labelling counts: the gap is log K!, to the last digits."""
    generator = np.random.default_rng(seed)
    for K in CHOICES[1:]:
        labels = np.arange(FEW) % K
        rows = APART * np.stack([labels, labels**2], axis=1) + generator.standard_normal((FEW, 2))
        fit = probem.fit(of(K), rows, families=probem.VARIATIONAL_BAYES, init=probem.Labels(labels))
        exact, modes = exact_evidence(rows, K), math.lgamma(K + 1)
        yield Check(
            "E9",
            NO_DATASET,
            f"{K} clusters far apart: log p(X) − F, and log {K}! (nats)",
            abs(exact - fit.elbo - modes),
            1e-8,
            {"log p(X)": exact, "F": fit.elbo, f"log {K}!": modes},
        )
