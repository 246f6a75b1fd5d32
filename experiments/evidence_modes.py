"""E9: F of exchangeable components sits in one of K! modes of the posterior, and log K! belongs to it.

The other side is ``evidence``, by enumeration of all labellings; nothing of it knows the engine.
"""

import functools
import math
from collections.abc import Iterator

import numpy as np

import probem
from probem.models import dirichlet

from . import evidence
from .bound_values import ROUNDING
from .claim import Check, Dataset, excess
from .evidence import NormalKnownVariance, per_component
from .evidence_values import FEW, PRIOR, log_evidence, program
from .pruning import SPREAD, known_variance

#: Sets of seven rows drawn from a data set, the numbers of components among which to choose, and starts for each.
SETS, CHOICES, STARTS = 40, (1, 2, 3), 5
#: How far apart clusters lie at which no row may be of two of them, in standard deviations.
APART = 30.0


def highest(sets: np.ndarray, num_components: int, seed: int) -> np.ndarray:
    """F of the best of several starts for every set of rows, full posteriors, ``[B]``."""
    options = {"key": seed, "restarts": STARTS, "tolerance": 1e-10, "throw": False}
    found = probem.fit_many(program(num_components), sets, families=probem.VARIATIONAL_BAYES, **options)
    return np.asarray(found.elbo, float)


def sets_of(dataset: Dataset, seed: int) -> Iterator[np.ndarray]:
    """Seven rows at a time, two columns, standardised among themselves, ``[7, 2]``."""
    generator, columns = np.random.default_rng(seed), dataset.rows[:, [0, -1]]
    for _ in range(SETS):
        rows = columns[generator.choice(len(columns), FEW, replace=False)]
        yield (rows - rows.mean(axis=0)) / rows.std(axis=0)


def one_of_many_modes(dataset: Dataset, seed: int) -> Iterator[Check]:
    """E9."""
    yield from _apart(dataset.name, seed)
    log_modes = np.array([math.lgamma(K + 1) for K in CHOICES])
    sets = np.stack(list(sets_of(dataset, seed)))
    bounds = np.stack([highest(sets, K, seed) for K in CHOICES], axis=1)
    exact = np.array([[log_evidence(rows, K, PRIOR) for K in CHOICES] for rows in sets])
    by_evidence, by_bound, by_both = (
        np.argmax(values, axis=1) for values in (exact, bounds, bounds + log_modes)
    )
    right = {"F": int((by_bound == by_evidence).sum()), "F + log K!": int((by_both == by_evidence).sum())}
    yield Check(
        "E9",
        dataset.name,
        f"{SETS} sets of seven rows: what F + log K! lacks to find the evidence’s K more often than F does",
        excess(right["F"] + 1.0, right["F + log K!"]) if np.isfinite(bounds).all() else np.inf,
        0,
        {f"sets in which {name} does": count for name, count in right.items()}
        | {f"sets in which the evidence prefers K = {K}": int((by_evidence == i).sum()) for i, K in enumerate(CHOICES)},
    )
    yield Check(
        "E9",
        dataset.name,
        f"{SETS} sets of seven rows: what F has above log p(X), relative, and 0",
        excess((bounds - exact) / np.abs(exact)),
        ROUNDING,
    )


def _apart(name: str, seed: int) -> Iterator[Check]:
    """Clusters so far apart, of known variance, that no other labelling counts: the gap is log K!, to the last digits."""
    generator, component = np.random.default_rng(seed), NormalKnownVariance(np.zeros(2), SPREAD, 1.0)
    for K in CHOICES[1:]:
        labels = np.arange(FEW) % K
        rows = APART * np.stack([labels, labels**2], axis=1) + generator.standard_normal((FEW, 2))
        of = functools.partial(known_variance, num_components=K, weights=dirichlet)
        fit = probem.fit(of, rows, families=probem.VARIATIONAL_BAYES, init=probem.Labels(labels))
        modes = math.lgamma(K + 1)
        exact = evidence.log_evidence(
            rows, K, lambda labels, K=K: evidence.dirichlet_log_prob(labels, np.ones(K)), per_component(component)
        )
        yield Check(
            "E9",
            name,
            f"{K} clusters far apart: log p(X) − F, and log {K}! (nats)",
            abs(exact - fit.elbo - modes),
            1e-8,
            {"log p(X)": exact, "F": fit.elbo, f"log {K}!": modes},
        )
