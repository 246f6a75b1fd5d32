"""G7: three components that cannot leave a bad maximum, beside the curvature of a plain log density."""

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from probem.checking.residuals import SAME, excess
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT
from probem.plotting.fit import SERIES

from . import population

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RADII = (6.0, 8.0, 12.0, 16.0, 24.0)
#: Rows of each cluster, and their variance: a little luck of the draw, at which two centres in one cluster part. At 1
#: exactly the curvature along their difference is 0.
SIZE, VARIANCE = 60, 1.2
#: EM's rate is about (3 - VARIANCE) / VARIANCE² along that difference: so many steps leave nothing.
SETTLED = 2000
#: Per row of the data: what counts as curved downwards, and as a gradient of 0.
CURVED, FLAT = 0.01, 1e-9


def clusters(seed: int) -> Float[np.ndarray, "3 n"]:
    """Rows around 0 with mean 0 and the same variance, for the three clusters."""
    noise = np.random.default_rng(seed).standard_normal((3, SIZE))
    noise -= noise.mean(axis=1, keepdims=True)
    return noise * np.sqrt(VARIANCE / (noise**2).mean(axis=1, keepdims=True))


def centres_of(radius: float) -> Float[np.ndarray, " 3"]:
    """Of the clusters: two at equal distances of 0, the third far from both."""
    return radius * np.array([-1.0, 1.0, 5.0])


def bad_start(radius: float) -> Float[np.ndarray, " 3"]:
    """A centre between two clusters, and two in the third."""
    return np.array([0.0, 5 * radius - 0.5, 5 * radius + 0.5])


@jax.jit
def log_density(centres: jax.Array, rows: jax.Array) -> jax.Array:
    """log p(X) per row under equally common normal distributions of variance 1, plainly."""
    table = -0.5 * (rows[:, None] - centres) ** 2 - 0.5 * math.log(2 * math.pi) - math.log(len(centres))
    return jax.nn.logsumexp(table, axis=1).mean()


@functools.cache
def maxima(radii: tuple[float, ...], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows ``[M, N]``, and where EM ends: centres ``[M, 2, 3]`` and F ``[M, 2]``, from the bad and the true start."""
    rows = (np.array([centres_of(radius) for radius in radii])[:, :, None] + clusters(seed)).reshape(len(radii), -1)
    starts = np.array([[bad_start(radius), centres_of(radius)] for radius in radii])
    twice = np.repeat(rows, 2, axis=0)
    centres, bounds = population.after(SETTLED, starts.reshape(-1, 3), np.ones_like(twice), twice)
    return rows, centres.reshape(-1, 2, 3), bounds.reshape(-1, 2)


def bad_maxima(seed: int, radii: tuple[float, ...] = RADII) -> Iterator[Check]:
    """G7."""
    rows, centres, bounds = maxima(radii, seed)
    slope, curvature = jax.jacobian(log_density), jax.hessian(log_density)
    first, highest, plain = [], [], []
    for row, pair in zip(rows, centres, strict=True):
        plain.append([float(log_density(each, row)) for each in pair])
        first.append(np.abs(np.asarray(slope(jnp.asarray(pair[0]), row))).max())
        highest.append(float(np.linalg.eigvalsh(np.asarray(curvature(jnp.asarray(pair[0]), row))).max()))
    yield Check(
        "G7",
        NO_DATASET,
        "F at both ends, and log p(X) written plainly, relative",
        np.abs(bounds / rows.shape[1] / plain - 1),
        SAME,
    )
    yield Check("G7", NO_DATASET, "where the bad start ends: gradient of log p(X) by autodiff, nats a row", first, FLAT)
    yield Check(
        "G7",
        NO_DATASET,
        f"where the bad start ends: what the largest eigenvalue of the Hessian has above −{CURVED:g} a row",
        excess(highest, -CURVED),
        0,
        {f"R = {radius:g}: largest eigenvalue": value for radius, value in zip(radii, highest, strict=True)},
    )
    losses = (bounds[:, 1] - bounds[:, 0]) / rows.shape[1]
    # A third of the rows each lies R from its centre, twice; the rest of the loss does not depend on R.
    expected_growth = np.diff(np.square(radii)) / 3
    yield Check(
        "G7",
        NO_DATASET,
        "loss of the bad maximum per row: its growth from R to R', and (R'² − R²) / 3, relative",
        np.abs(np.diff(losses) / expected_growth - 1),
        # Of a row of another cluster, exp(-R²) and less is left at R = 6: nothing. Rounding of F, and room.
        SAME,
        {f"R = {radius:g}: nats a row lost": float(loss) for radius, loss in zip(radii, losses, strict=True)},
    )


def bad_maxima_full(seed: int) -> Iterator[Check]:
    """G7 for several draws of the rows."""
    for number in range(8):
        yield from bad_maxima(seed + number, (6.0, 9.0, 15.0, 30.0, 60.0))


def maxima_figure(dataset: Dataset, seed: int) -> "Figure":
    """G7: the density at both maxima for one R, and the loss against R."""
    del dataset
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.3), layout="constrained")
    curve, ladder = figure.subplots(1, 2, width_ratios=(1.6, 1))
    rows, centres, bounds = maxima(RADII, seed)
    x = np.linspace(rows[0].min() - 4, rows[0].max() + 4, 600)
    curve.hist(rows[0], bins=80, density=True, color=FAINT, alpha=0.5)
    for place, words, colour, marker in (
        (1, "from the true centres", SERIES[0], "o"),
        (0, "from the bad start", SERIES[1], "s"),
    ):
        density = np.exp(-((x[:, None] - centres[0, place]) ** 2) / 2).mean(axis=1) / math.sqrt(2 * math.pi)
        curve.plot(x, density, color=colour, label=words, linestyle="-" if place else "--")
        curve.plot(
            centres[0, place], np.full(3, -0.006 - 0.008 * (1 - place)), color=colour, marker=marker, linestyle="none"
        )
    curve.set(xlabel="x", ylabel="density", title=f"R = {RADII[0]:g}: both are local maxima")
    curve.legend(fontsize=8)
    losses = (bounds[:, 1] - bounds[:, 0]) / rows.shape[1]
    radii = np.array(RADII)
    ladder.plot(radii, radii**2 / 3, color=FAINT, linestyle=":", label="R² / 3")
    ladder.plot(radii, losses, color=SERIES[1], marker="s", label="nats a row lost")
    ladder.set(xscale="log", yscale="log", xlabel="R, standard deviations", title="the loss has no limit")
    ladder.set_xticks(RADII, [f"{radius:g}" for radius in RADII])
    ladder.set_yticks([10, 30, 100], ["10", "30", "100"])
    ladder.minorticks_off()
    ladder.legend(fontsize=8)
    return figure


CLAIMS = (
    Claim(
        id="G7",
        together="G7",
        title="Three clusters: a bad maximum, as bad as you like",
        statement=(
            "With two clusters every start is good enough; with three it is not. Two clusters lie at −R and R, a third "
            "at 5R. Start with one centre between the first two and two centres in the third, and EM stays there: the "
            "gradient is zero and the likelihood curves downwards in every direction. The loss against the true "
            "centres grows by R²/3 nats a row, without limit, though the clusters could not be easier to tell apart. "
            "Hence several starts. (Each cluster’s rows are scaled to variance 1.2, a draw somewhat wider than the "
            "model’s 1, so that the two centres in one cluster part; at exactly 1 the curvature between them vanishes.)"
        ),
        formula=(
            r"\nabla \log p(X \mid \theta') = 0, \quad \nabla^2 \log p(X \mid \theta') \prec 0, \quad "
            r"\tfrac{1}{N} \log \frac{p(X \mid \theta^*)}{p(X \mid \theta')} = \tfrac{R^2}{3} + \mathrm{const}"
        ),
        source="Jin et al. 2016",
        check=None,
        by_itself=bad_maxima,
        full_by_itself=bad_maxima_full,
        figure=maxima_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"Left, the rows (grey), and the densities at which EM ends from two starts; markers are the centres. "
            r"Right, what the worse of them loses, against $R^2/3$."
        ),
    ),
)
