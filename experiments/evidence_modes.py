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


def highest(rows: np.ndarray, num_components: int, seed: int) -> float:
    """F of the best of several starts, full posteriors."""
    options = {"key": seed, "restarts": STARTS, "tolerance": 1e-12, "throw": False}
    return probem.fit(program(num_components), rows, families=probem.VARIATIONAL_BAYES, **options).elbo


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
    bounds, exact = [], []
    for number, rows in enumerate(sets_of(dataset, seed)):
        bounds.append([highest(rows, K, seed + number) for K in CHOICES])
        exact.append([log_evidence(rows, K, PRIOR) for K in CHOICES])
    by_evidence, by_bound, by_both = (
        np.argmax(values, axis=1) for values in (exact, bounds, np.array(bounds) + log_modes)
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
        excess((np.array(bounds) - exact) / np.abs(exact)),
        ROUNDING,
    )
    settings = {"key": seed + SETS - 1, "restarts": STARTS, "tolerance": 1e-12}
    chosen = probem.select(
        lambda x, K: program(K)(x),
        rows,
        over={"K": CHOICES},
        families=probem.VARIATIONAL_BAYES,
        criterion="log_evidence",
        **settings,
    )
    by_hand = np.array(bounds[-1]) + log_modes
    yield Check(
        "E9",
        dataset.name,
        "the criterion log_evidence of select, and F + log K! by hand, relative; and whether it chooses the largest",
        [
            *np.abs([row.log_evidence for row in chosen.table] / by_hand - 1),
            float(chosen.best_settings["K"] != CHOICES[int(by_hand.argmax())]),
        ],
        ROUNDING,
        {f"K = {K}": float(value) for K, value in zip(CHOICES, by_hand, strict=True)},
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
