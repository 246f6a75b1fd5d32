"""G11: as clusters move apart, log p(X) - F tends to log K!, and how fast."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

import probem
from probem.checking.residuals import SAME, excess, violations
from probem.experiments.bayes.evidence.modes import FEW, exact_evidence, of
from probem.experiments.bayes.priors.pruning import SPREAD
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT
from probem.experiments.oracles.evidence import NormalKnownVariance, dirichlet_log_prob, per_component
from probem.plotting.fit import SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Distances of the centres, in standard deviations, and the numbers of components of a run of minutes.
LADDER, CHOICES = (4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 20.0), (3,)
#: At which nothing but log K! may be left.
LAST = 1e-10


def sets_of(
    num_components: int, ladder: Sequence[float], seed: int
) -> tuple[Float[np.ndarray, "M 7 2"], Int[np.ndarray, " 7"]]:
    """Seven rows about the corners of a triangle, or two points, so far apart; the noise is that of every distance."""
    labels = np.arange(FEW) % num_components
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])
    # Half of a standard deviation: no row of a draw lies nearer to another corner.
    noise = 0.5 * np.random.default_rng(seed).standard_normal((FEW, 2))
    return np.array(
        [distance * (corners - corners[:num_components].mean(axis=0))[labels] + noise for distance in ladder]
    ), labels


def log_joint(rows: Float[np.ndarray, "7 2"], labels: Int[np.ndarray, " 7"], num_components: int) -> float:
    """log p(X, T) with all parameters integrated out, nats."""
    component = NormalKnownVariance(np.zeros(2), SPREAD, 1.0)
    return dirichlet_log_prob(labels, np.ones(num_components)) + per_component(component)(rows, labels)


@functools.cache
def gaps(num_components: int, ladder: tuple[float, ...], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p(X), F, and log p(X, T) at the true labels, of every distance; nats."""
    sets, labels = sets_of(num_components, ladder, seed)
    init = probem.Labels(np.tile(labels, (len(sets), 1)))
    options = {"families": probem.VARIATIONAL_BAYES, "tolerance": 1e-15, "throw": False}
    fits = probem.fit_many(of(num_components), sets, init=init, **options)
    exact = np.array([exact_evidence(rows, num_components) for rows in sets])
    joint = np.array([log_joint(rows, labels, num_components) for rows in sets])
    return exact, np.asarray(fits.bound.elbo), joint


def log_factorial_full(seed: int) -> Iterator[Check]:
    """G11 for two and three components, and several draws of the rows."""
    for number in range(10):
        yield from log_factorial(seed + number, (2, 3))


def log_factorial(seed: int, choices: tuple[int, ...] = CHOICES) -> Iterator[Check]:
    """G11."""
    ladder = LADDER
    for K in choices:
        exact, bound, joint = gaps(K, ladder, seed)
        modes, gap = math.lgamma(K + 1), exact - bound
        yield Check(
            "G11",
            NO_DATASET,
            f"K = {K}: log p(X) − F, and log {K}! at the largest distance (nats)",
            abs(gap[-1] - modes),
            LAST,
            {
                f"distance {d:g}: log p(X) − F − log {K}!": float(value - modes)
                for d, value in zip(ladder, gap, strict=True)
            },
        )
        # A point mass on the true labels, with the posterior that they give, is one of the q among which F is highest.
        others = exact - joint - modes
        yield Check(
            "G11",
            NO_DATASET,
            f"K = {K}: what F is below log p(X, T) at the true labels, or above log p(X) (nats)",
            excess([gap - (others + modes), -gap]),
            SAME,
            {
                f"distance {d:g}: log p(X) − log p(X, T) − log {K}!": float(value)
                for d, value in zip(ladder, others, strict=True)
            },
        )
        # What is left falls with the odds of the nearest other labelling, exponentially in the squared distance.
        left = np.abs(gap - modes)[: len(ladder) - 2]
        yield Check(
            "G11",
            NO_DATASET,
            f"K = {K}: at how many rungs what is left does not fall",
            violations(np.diff(left) < 0),
            0,
        )


def gap_figure(dataset: Dataset, seed: int) -> "Figure":
    """G11: the gap against the distance, and what is left of it without log K!."""
    del dataset
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.3), layout="constrained")
    gap_axes, left_axes = figure.subplots(1, 2)
    (K,) = CHOICES
    exact, bound, joint = gaps(K, LADDER, seed)
    modes = math.lgamma(K + 1)
    gap_axes.axhline(modes, color=FAINT, linestyle="--", label=f"log {K}!")
    gap_axes.plot(LADDER, exact - joint, color=SERIES[1], marker="s", markersize=4, label="log p(X) − log p(X, T)")
    gap_axes.plot(LADDER, exact - bound, color=SERIES[0], marker="o", markersize=4, label="log p(X) − F")
    gap_axes.set(xlabel="distance of the centres, standard deviations", ylabel="nats", ylim=(0, None))
    gap_axes.legend(fontsize=8)
    squares, left = np.square(LADDER), np.abs(exact - bound - modes)
    seen = left > 1e-12
    left_axes.plot(squares[seen], left[seen], color=SERIES[0], marker="o", markersize=4)
    left_axes.set(yscale="log", xlabel="squared distance", ylabel=f"|log p(X) − F − log {K}!|, nats")
    return figure


CLAIMS = (
    Claim(
        id="G11",
        together="G11",
        title="Far apart, F is below the evidence by log K!, and by nothing else",
        statement=(
            "Variances are known, and seven rows lie in clusters that move apart. The exact evidence is summed over "
            "all labellings. What F of variational Bayes is below it tends to log K!, the number of ways in which the "
            "clusters may be numbered: what is left falls from rung to rung, exponentially in the squared distance, "
            "and is gone at twenty standard deviations. At every distance F is at least log p(X, T) at the true "
            "labels, parameters integrated out, since a point mass on them is one of the q that it is the highest of."
        ),
        formula=(
            r"\log p(X, T^*) \le F \le \log p(X), \qquad "
            r"\log p(X) - F \;\longrightarrow\; \log K! \;\; \text{as clusters move apart}"
        ),
        source="Bishop 2006, section 10.2.4",
        check=None,
        by_itself=log_factorial,
        full_by_itself=log_factorial_full,
        figure=gap_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"Left, how far $F$, and the probability of rows and true labels, are below the exact evidence of seven "
            r"rows in three clusters. Right, what is left of it without $\log 3!$."
        ),
    ),
)
