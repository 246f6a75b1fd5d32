"""G6: two symmetric components of known variance, from any start, beside SciPy's adaptive quadrature."""

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from probem.checking.residuals import SAME, excess
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT
from probem.plotting.fit import SERIES

from . import population
from .population import expected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DISTANCES = (1.0, 1.5, 2.0, 3.0)
#: Where EM starts, in standard deviations: as far out as infinity is here, and on the wrong side as well.
FAR = 20.0
NUM_STEPS = 10
#: So many steps are enough for all starts to arrive.
LONG = 200


def plain_path(distance: float, start: float, num_steps: int) -> Float[np.ndarray, " S"]:
    """theta, E[X tanh(theta X)], and so on: the start and every step after it."""
    path = [start]
    for _ in range(num_steps):
        theta = path[-1]
        path.append(expected(lambda x, theta=theta: x * math.tanh(theta * x), distance))
    return np.array(path)


@functools.cache
def paths(distances: tuple[float, ...], starts: tuple[float, ...], num_steps: int) -> Float[np.ndarray, "M T S"]:
    """The engine's theta, half the difference of the centres, of every distance and start, after every step."""
    row_weights = np.repeat([population.shares(-each, each) for each in distances], len(starts), axis=0)
    first = population.mirrored(np.tile(starts, len(distances)))
    centres = np.stack([population.after(number, first, row_weights)[0] for number in range(num_steps + 1)], axis=-1)
    return ((centres[:, 1] - centres[:, 0]) / 2).reshape(len(distances), len(starts), -1)


def starts_of(seed: int, num_drawn: int = 1) -> tuple[float, ...]:
    """Far out, and some drawn at random on either side."""
    drawn = np.random.default_rng(seed).uniform(0.05, 6.0, num_drawn).tolist()
    return (FAR, *drawn, *(-start for start in drawn))


def any_start(seed: int, distances: tuple[float, ...] = DISTANCES, num_drawn: int = 1) -> Iterator[Check]:
    """G6."""
    starts = starts_of(seed, num_drawn)
    ours = paths(distances, starts, NUM_STEPS)
    theirs = np.array([[plain_path(each, start, NUM_STEPS) for start in starts] for each in distances])
    yield Check(
        "G6",
        NO_DATASET,
        f"θ after each of {NUM_STEPS} steps, and E[X tanh(θX)] again and again by adaptive quadrature",
        np.abs(ours - theirs),
        SAME,
        {"mixtures": len(distances), "starts of each": len(starts)},
    )
    truth = np.sign(ours[..., :1]) * np.array(distances)[:, None, None]
    errors = np.abs(ours - truth)
    factor = np.exp(-(np.minimum(np.abs(ours), np.abs(truth)) ** 2) / 2)
    yield Check(
        "G6",
        NO_DATASET,
        "error after a step, less exp(−min(θ, μ)² / 2) times that before it, and 0",
        excess(errors[..., 1:] - factor[..., :-1] * errors[..., :-1]),
        SAME,
        {f"μ = {each:g}: largest ratio": _largest_ratio(row) for each, row in zip(distances, errors, strict=True)},
    )
    far = [(each, row[0, -1] / each) for each, row in zip(distances, errors, strict=True) if each >= 1]
    yield Check(
        "G6",
        NO_DATASET,
        f"μ of one standard deviation or more: relative error after {NUM_STEPS} steps from θ = {FAR:g}, above 1 %",
        excess([error for _, error in far], 0.01),
        0,
        {f"μ = {each:g}: relative error": float(error) for each, error in far},
    )
    row_weights = np.repeat([population.shares(-each, each) for each in distances], len(starts), axis=0)
    ends, _ = population.after(LONG, population.mirrored(ours[..., 0].ravel()), row_weights)
    yield Check(
        "G6",
        NO_DATASET,
        f"θ after {LONG} steps from every start, and ±μ on the side of the start",
        np.abs((ends[:, 1] - ends[:, 0]) / 2 - truth.ravel()),
        1e-8,
        {f"start {number + 1}": float(start) for number, start in enumerate(starts)},
    )


def _largest_ratio(errors: Float[np.ndarray, "T S"]) -> float:
    """Of the errors of neighbouring steps, as long as they are above rounding."""
    before, later = errors[:, :-1], errors[:, 1:]
    return float((later[before > 1e-6] / before[before > 1e-6]).max())


def any_start_full(seed: int) -> Iterator[Check]:
    """G6 with more distances and starts."""
    yield from any_start(seed, (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0), 4)


def start_figure(dataset: Dataset, seed: int) -> "Figure":
    """G6: the error against the step, from far out and from the start drawn, with the theorem's bound."""
    del dataset
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    starts = starts_of(seed)
    theta = paths(DISTANCES, starts, NUM_STEPS)
    steps = np.arange(NUM_STEPS + 1)
    for place, words in enumerate((f"from {starts[0]:g}", f"from {starts[1]:.2f}")):
        for number, (each, colour, marker) in enumerate(zip(DISTANCES, SERIES, "osD^", strict=False)):
            errors = np.abs(theta[number, place] - each)
            factor = np.exp(-(np.minimum(theta[number, place], each) ** 2) / 2)
            bound = errors[0] * np.cumprod(np.append(1.0, factor[:-1]))
            axes[place].plot(steps, bound, color=colour, linestyle=":", linewidth=1.0)
            seen = errors > 1e-14
            axes[place].plot(
                steps[seen], errors[seen], color=colour, marker=marker, markersize=4, label=f"μ = {each:g}"
            )
        axes[place].axhline(0.01, color=FAINT, linewidth=0.8)
        axes[place].set(yscale="log", ylim=(1e-15, 50), xlabel="step of EM", title=words, xticks=steps[::2])
    axes[0].set_ylabel("|θ − μ|, standard deviations")
    axes[1].legend(fontsize=8)
    return figure


CLAIMS = (
    Claim(
        id="G6",
        together="G4",
        title="Two symmetric clusters: from any start, and within ten steps",
        statement=(
            "Two equally common clusters of variance 1 at −μ and μ, and infinitely many rows: nodes of a quadrature, "
            "each with its weight. Whatever θ > 0 EM starts from, it ends at μ, and whatever θ < 0 at −μ, which is the "
            "same clusters numbered otherwise. Each step multiplies the error by exp(−min(θ, μ)² / 2) at most. From as "
            "far as twenty standard deviations, ten steps leave less than one per cent where μ is one standard "
            "deviation or more. Every step is held against E[X tanh(θX)] by another quadrature."
        ),
        formula=(
            r"\theta_{s+1} = \mathbb{E}\left[X \tanh(\theta_s X)\right], \qquad "
            r"|\theta_{s+1} - \mu| \le e^{-\min(\theta_s, \mu)^2 / 2} \, |\theta_s - \mu|"
        ),
        source="Daskalakis, Tzamos & Zampetakis 2017",
        check=None,
        by_itself=any_start,
        full_by_itself=any_start_full,
        figure=start_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"The error after each step of EM with infinitely many rows, and dotted the theorem’s bound. The grey line "
            r"is a hundredth of a standard deviation."
        ),
    ),
)
