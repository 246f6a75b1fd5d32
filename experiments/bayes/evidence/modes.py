"""E9: F of exchangeable components sits in one of K! modes of the posterior, and log K! belongs to it.

The other side is ``evidence``, by enumeration of all labellings; nothing of it knows the engine.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import digamma, gammaln, logsumexp

import probem
from probem.checking.residuals import ROUNDING, excess
from probem.experiments.bayes.priors.pruning import SPREAD, known_variance
from probem.experiments.claims.claim import NO_DATASET, Check
from probem.experiments.claims.kept import Kept
from probem.experiments.oracles import evidence
from probem.experiments.oracles.evidence import NormalKnownVariance
from probem.models import dirichlet

#: Sets of rows, how many rows in each, the numbers of components among which to choose, and starts for each.
SETS, FEW, CHOICES, STARTS = 40, 7, (1, 2, 3), 8
#: How many steps the plain loop takes, and in how many of the sets the engine is held against it.
PLAIN_STEPS, COMPARED = 500, 5
#: How far apart clusters lie at which no row may be of two of them, in standard deviations.
APART = 30.0
#: Nats by which log p(X) - F may miss log K! there.
FAR = 1e-8
#: Of the centres in the sets, in standard deviations: clusters overlap in some and are apart in others.
WIDTH = 3.0


def of(num_components: int) -> Callable[..., None]:
    """k-means' model with priors: known variance, normal centres, weights Dirichlet(1, ..., 1)."""
    return functools.partial(known_variance, num_components=num_components, weights=dirichlet)


@functools.cache
def _labellings(num_components: int) -> tuple[np.ndarray, np.ndarray]:
    """All labellings of seven rows: log p(t), and for each component the subset of rows as a binary number."""
    labels = np.array(list(itertools.product(range(num_components), repeat=FEW)))
    log_probs = [evidence.dirichlet_log_prob(labelling, np.ones(num_components)) for labelling in labels]
    subsets = [(labels == k) @ 2 ** np.arange(FEW) for k in range(num_components)]
    return np.array(log_probs), np.stack(subsets, axis=1)


def exact_evidence(rows: np.ndarray, num_components: int) -> float:
    """log p(X) by enumeration of all labellings, which share 128 sets of rows; nats."""
    component = NormalKnownVariance(np.zeros(2), SPREAD, 1.0)
    members = (np.arange(2**FEW)[:, None] >> np.arange(FEW)) % 2 == 1
    marginals = np.array([component.log_marginal(rows[subset]) for subset in members])
    log_probs, subsets = _labellings(num_components)
    return float(np.asarray(logsumexp(log_probs + marginals[subsets].sum(axis=1))))


def plain_bound(sets: np.ndarray, labels: np.ndarray, num_components: int) -> np.ndarray:
    """F of variational Bayes by a plain loop, for sets ``[B, N, D]`` from labels ``[B, S, N]``; ``[B, S]``, nats.

    q(w) is Dirichlet(1 + N_k), q(mu_k) normal of precision 1/SPREAD² + N_k: Bishop 2006, eqs. 10.58 and 10.63. F is
    sum_n log sum_k exp E log p(x_n, t_n = k), less the divergences of q(w) and q(mu) from their priors.
    """
    dim, rows = sets.shape[2], sets[:, None]
    q = np.eye(num_components)[labels]
    counts = log_weights = q.sum(axis=2)
    for _ in range(PLAIN_STEPS):
        counts = q.sum(axis=2)
        precision = 1 / SPREAD**2 + counts
        mean = np.swapaxes(q, 2, 3) @ rows / precision[..., None]
        log_weights = digamma(1 + counts) - digamma(num_components + FEW)
        squares = ((rows[:, :, :, None] - mean[:, :, None]) ** 2).sum(axis=-1) + dim / precision[:, :, None]
        table = log_weights[:, :, None] - (dim * np.log(2 * np.pi) + squares) / 2
        per_row = np.asarray(logsumexp(table, axis=-1))
        q = np.exp(table - per_row[..., None])
    of_weights = gammaln(num_components + FEW) - gammaln(num_components) - gammaln(1 + counts).sum(axis=-1)
    of_weights += (counts * log_weights).sum(axis=-1)
    ratio = SPREAD**2 * precision
    of_loc = (dim * (np.log(ratio) + 1 / ratio - 1) + (mean**2).sum(axis=-1) / SPREAD**2).sum(axis=-1) / 2
    return per_row.sum(axis=-1) - of_weights - of_loc


def random_labels(num_components: int, generator: np.random.Generator) -> np.ndarray:
    """Labels of every set for every start, each component with a row, ``[B, S, N]``."""
    shape = (SETS, STARTS, FEW - num_components)
    spare = generator.integers(num_components, size=shape)
    every = np.broadcast_to(np.arange(num_components), (SETS, STARTS, num_components))
    return generator.permuted(np.concatenate([every, spare], axis=2), axis=2)


def sets_of(seed: int) -> np.ndarray:
    """Seven rows each, of one, two or three clusters in turn, ``[B, 7, 2]``."""
    generator, sets = np.random.default_rng(seed), []
    for number in range(SETS):
        centres = WIDTH * generator.standard_normal((CHOICES[number % len(CHOICES)], 2))
        labels = generator.integers(len(centres), size=FEW)
        sets.append(centres[labels] + generator.standard_normal((FEW, 2)))
    return np.stack(sets)


@dataclasses.dataclass(frozen=True, eq=False)
class Modes:
    """Of every set of rows, for every number of components: F ``[B, K]`` and log p(X) ``[B, K]``, nats.

    ``apart`` has both for one set of clusters far apart for each K above 1; ``ours`` and ``plain`` are F of the engine
    and of the plain loop in some of the sets.
    """

    bounds: np.ndarray
    exact: np.ndarray
    apart: dict[int, tuple[float, float]]
    ours: np.ndarray
    plain: np.ndarray

    @property
    def corrected(self) -> np.ndarray:
        """F + log K!."""
        return self.bounds + [math.lgamma(K + 1) for K in CHOICES]


@Kept
def modes(seed: int) -> Modes:
    """Clusters far apart, and sets in which they may overlap."""
    apart = _apart(seed)
    generator, sets = np.random.default_rng(seed), sets_of(seed)
    labels = [random_labels(K, generator) for K in CHOICES]
    each = [plain_bound(sets, start, K) for start, K in zip(labels, CHOICES, strict=True)]
    # The engine, from the labels from which the plain loop climbs highest.
    ours, theirs = [], []
    for rows, starts, values in list(zip(sets, labels[-1], each[-1], strict=True))[:COMPARED]:
        init = probem.Labels(starts[values.argmax()])
        options = {"families": probem.VARIATIONAL_BAYES, "init": init, "tolerance": 1e-15, "max_steps": PLAIN_STEPS}
        ours.append(probem.fit(of(CHOICES[-1]), rows, throw=False, **options).elbo)
        theirs.append(values.max())
    bounds = np.stack([values.max(axis=1) for values in each], axis=1)
    exact = np.array([[exact_evidence(rows, K) for K in CHOICES] for rows in sets])
    return Modes(bounds, exact, apart, np.array(ours), np.array(theirs))


def one_of_many_modes(seed: int) -> Iterator[Check]:
    """E9."""
    found = modes(seed)
    bounds, exact, corrected = found.bounds, found.exact, found.corrected
    for K, (bound, evidence_of_apart) in found.apart.items():
        names = math.lgamma(K + 1)
        yield Check(
            "E9",
            NO_DATASET,
            f"{K} clusters far apart: log p(X) − F, and log {K}! (nats)",
            abs(evidence_of_apart - bound - names),
            FAR,
            {"log p(X)": evidence_of_apart, "F": bound, f"log {K}!": names},
        )
    yield Check(
        "E9",
        NO_DATASET,
        f"{COMPARED} of the sets, K = {CHOICES[-1]}: F of the engine, and of a plain loop, relative",
        np.abs(found.ours / found.plain - 1),
        # Coordinate ascent may be slow: the two need not stop at the same step.
        1e-6,
    )
    by_evidence, by_bound, by_both = (np.argmax(values, axis=1) for values in (exact, bounds, corrected))
    right = {"F": int((by_bound == by_evidence).sum()), "F + log K!": int((by_both == by_evidence).sum())}
    # With one component there is nothing to number otherwise, and nothing to add.
    off, off_both = (np.abs(values - exact)[:, 1:] for values in (bounds, corrected))
    yield Check(
        "E9",
        NO_DATASET,
        f"{SETS} sets of seven rows: by how much F + log K! is further from log p(X) than F, on average (nats)",
        excess(off_both.mean(), off.mean()),
        0,
        {"F": float(off.mean()), "F + log K!": float(off_both.mean())},
    )
    yield Check(
        "E9",
        NO_DATASET,
        f"{SETS} sets of seven rows: in how many fewer F + log K! finds the evidence’s K than F does",
        excess(right["F"], right["F + log K!"]),
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


def _apart(seed: int) -> dict[int, tuple[float, float]]:
    """F and log p(X) of clusters so far apart that no other labelling counts."""
    generator, found = np.random.default_rng(seed), {}
    for K in CHOICES[1:]:
        labels = np.arange(FEW) % K
        rows = APART * np.stack([labels, labels**2], axis=1) + generator.standard_normal((FEW, 2))
        fit = probem.fit(of(K), rows, families=probem.VARIATIONAL_BAYES, init=probem.Labels(labels))
        found[K] = fit.elbo, exact_evidence(rows, K)
    return found
