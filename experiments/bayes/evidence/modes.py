"""E9: F of exchangeable components sits in one of K! modes of the posterior, and log K! belongs to it.

The other side is ``evidence``, by enumeration of all labellings; nothing of it knows the engine.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import digamma, gammaln, logsumexp

import probem
from probem.checking.residuals import ROUNDING, excess
from probem.experiments.bayes.priors.pruning import SPREAD, known_variance
from probem.experiments.claims.claim import NO_DATASET, Check, Claim
from probem.experiments.oracles import evidence
from probem.experiments.oracles.evidence import NormalKnownVariance
from probem.models import dirichlet

#: Sets of rows, how many rows in each, the numbers of components among which to choose, and starts for each.
SETS, FEW, CHOICES, STARTS = 40, 7, (1, 2, 3), 8
#: How many steps the plain loop takes, and in how many of the sets the engine is held against it.
PLAIN_STEPS, COMPARED = 500, 5
#: How far apart clusters lie at which no row may be of two of them, in standard deviations.
APART = 30.0
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


def one_of_many_modes(seed: int) -> Iterator[Check]:
    """E9."""
    yield from _apart(seed)
    generator, sets = np.random.default_rng(seed), sets_of(seed)
    log_modes = np.array([math.lgamma(K + 1) for K in CHOICES])
    labels = [random_labels(K, generator) for K in CHOICES]
    each = [plain_bound(sets, start, K) for start, K in zip(labels, CHOICES, strict=True)]
    # The engine, from the labels from which the plain loop climbs highest.
    ours, theirs = [], []
    for rows, starts, values in list(zip(sets, labels[-1], each[-1], strict=True))[:COMPARED]:
        init = probem.Labels(starts[values.argmax()])
        options = {"families": probem.VARIATIONAL_BAYES, "init": init, "tolerance": 1e-15, "max_steps": PLAIN_STEPS}
        ours.append(probem.fit(of(CHOICES[-1]), rows, throw=False, **options).elbo)
        theirs.append(values.max())
    yield Check(
        "E9",
        NO_DATASET,
        f"{COMPARED} of the sets, K = {CHOICES[-1]}: F of the engine, and of a plain loop, relative",
        np.abs(np.divide(ours, theirs) - 1),
        # Coordinate ascent may be slow: the two need not stop at the same step.
        1e-6,
    )
    bounds = np.stack([values.max(axis=1) for values in each], axis=1)
    exact = np.array([[exact_evidence(rows, K) for K in CHOICES] for rows in sets])
    by_evidence, by_bound, by_both = (np.argmax(values, axis=1) for values in (exact, bounds, bounds + log_modes))
    right = {"F": int((by_bound == by_evidence).sum()), "F + log K!": int((by_both == by_evidence).sum())}
    # With one component there is nothing to number otherwise, and nothing to add.
    off, off_both = (np.abs(values - exact)[:, 1:] for values in (bounds, bounds + log_modes))
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


CLAIMS = (
    Claim(
        id="E9",
        together="E9",
        title="F describes one of K! equal modes, and log K! completes it",
        statement=(
            "Number the clusters otherwise, and nothing has changed: the posterior of K clusters has K! modes, one for "
            "every numbering. A mean field sits in one of them. Where clusters are so far apart that no row may be of "
            "two, F is below the evidence by log K!, to the last digits. So F of different K may be compared, but not "
            "as it stands: it charges every cluster more for its names. With log K! added (the criterion log_evidence "
            "of probem.select) it is nearer to the exact evidence of 40 sets of seven rows, and finds the evidence’s K "
            "at least as often; the numbers below say how often. Where clusters overlap or are empty, modes run into "
            "each other and log K! is too much, and what a mean field leaves out is not in it: it is an estimate, and "
            "no bound."
        ),
        formula=r"\log p(X) - F \;\longrightarrow\; \log K! \quad \text{as clusters move apart}",
        source="Bishop 2006, section 10.2.4",
        check=None,
        by_itself=one_of_many_modes,
    ),
)
