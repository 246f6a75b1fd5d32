"""G4, G6 and G7: what the distance between clusters does to EM, with variances and weights known.

The other sides are integrals by SciPy's adaptive quadrature, closed forms, and the curvature of a plain log density.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import quad
from scipy.stats import norm

from probem.experiments.claims.claim import NO_DATASET, SAME, Check, Claim, Dataset, excess, violations
from probem.plotting.fit import SERIES

from . import population

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def expected(function, distance: float) -> float:
    """E f(X) for an even f, X equally often from N(-distance, 1) and N(distance, 1), by adaptive quadrature."""
    # Even functions: the half line has it all. Beyond 14 standard deviations nothing is left that counts.
    density = lambda x: norm.pdf(x, distance) + norm.pdf(x, -distance)  # noqa: E731
    value, _ = quad(lambda x: function(x) * density(x), 0.0, distance + 14.0, epsabs=1e-13, epsrel=1e-12, limit=400)
    return value


# --- G6: two symmetric components, from any start ---

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


def paths(distances: Sequence[float], starts: Sequence[float], num_steps: int) -> Float[np.ndarray, "M T S"]:
    """The engine's theta, half the difference of the centres, of every distance and start, after every step."""
    row_weights = np.repeat([population.shares(-each, each) for each in distances], len(starts), axis=0)
    first = population.mirrored(np.tile(starts, len(distances)))
    centres = np.stack([population.after(number, first, row_weights)[0] for number in range(num_steps + 1)], axis=-1)
    return ((centres[:, 1] - centres[:, 0]) / 2).reshape(len(distances), len(starts), -1)


def any_start(seed: int, distances: Sequence[float] = DISTANCES, num_drawn: int = 1) -> Iterator[Check]:
    """G6."""
    drawn = np.random.default_rng(seed).uniform(0.05, 6.0, num_drawn)
    starts = [FAR, *drawn, *-drawn]
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
    factor = np.exp(-np.minimum(np.abs(ours), np.abs(truth)) ** 2 / 2)
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


# --- G4: the rate of convergence, and the overlap ---

LADDER = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
#: How far from the fixed point the map is looked at, in standard deviations.
NEAR = 1e-4
#: An overlap that is small enough for a theorem about those that tend to 0.
SMALL = 0.02


def overlap(distance: float) -> float:
    """E[r1 r2] under the truth: r1 r2 = 1 / (4 cosh²(distance x)) for equal weights and unit variances."""
    return expected(lambda x: _product(x, distance), distance)


def _product(x: float, distance: float) -> float:
    return 0.25 / math.cosh(min(distance * x, 350.0)) ** 2


def plain_rates(distance: float) -> tuple[float, float]:
    """The eigenvalues of the map's Jacobian at the truth: 4 mu² E[r1 r2] and 4 E[r1 r2 X²].

    The first belongs to both centres moving alike, the second to their moving apart. The Jacobian is
    J_jk = E[(x - mu_j) r_j (delta_jk - r_k) (x - mu_k)] / w_j; it is symmetric here, with equal entries on its diagonal.
    """
    return 4 * distance**2 * overlap(distance), 4 * expected(lambda x: x**2 * _product(x, distance), distance)


def rates(distances: Sequence[float]) -> Float[np.ndarray, "M 2"]:
    """The engine's: how much of a small shift of both centres, and of their distance, is left after a step."""
    truth = np.repeat(population.mirrored(distances), 4, axis=0)
    moved = np.tile(NEAR * np.array([[1, 1], [-1, -1], [-1, 1], [1, -1]]), (len(distances), 1))
    row_weights = np.repeat([population.shares(-each, each) for each in distances], 4, axis=0)
    ends = population.after(1, truth + moved, row_weights)[0].reshape(-1, 4, 2)
    # Central differences: what is left over is of the order of NEAR².
    shift, apart = ends[:, 0] - ends[:, 1], ends[:, 2] - ends[:, 3]
    return np.stack([shift.sum(axis=1), apart[:, 1] - apart[:, 0]], axis=1) / (4 * NEAR)


def slopes(rate: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """Of log rate over log overlap, from each rung of the ladder to the next."""
    return np.diff(np.log(rate)) / np.diff(np.log(overlaps))


def rate_and_overlap(seed: int, distances: Sequence[float] = LADDER) -> Iterator[Check]:
    """G4."""
    del seed
    ours, theirs = rates(distances), np.array([plain_rates(each) for each in distances])
    yield Check(
        "G4",
        NO_DATASET,
        "both eigenvalues of a step at the truth, and 4 μ² E[r₁r₂] and 4 E[r₁r₂X²] by adaptive quadrature, relative",
        np.abs(ours / theirs - 1),
        # Central differences of 1e-4: a part of 1e-8 by curvature, and rounding over 1e-4 times the rate itself.
        1e-6,
        {f"μ = {each:g}: rate": float(rate) for each, rate in zip(distances, ours.max(axis=1), strict=True)},
    )
    overlaps = np.array([overlap(each) for each in distances])
    steepness = slopes(ours.max(axis=1), overlaps)
    # The theorem is about overlaps that tend to 0.
    yield Check(
        "G4",
        NO_DATASET,
        f"overlap below {SMALL:.0%}: what a slope of log rate over log overlap lacks to be the theorem’s 1/2",
        excess(0.5 - steepness[overlaps[:-1] < SMALL]),
        0,
        {f"μ from {a:g} to {b:g}": float(s) for a, b, s in zip(distances, distances[1:], steepness, strict=False)},
    )
    yield Check(
        "G4",
        NO_DATASET,
        "at how many rungs slopes do not rise, or are not below 1",
        violations(np.append(np.diff(steepness) > 0, steepness < 1)),
        0,
        {f"μ = {each:g}: overlap": float(value) for each, value in zip(distances, overlaps, strict=True)},
    )


# --- G7: three components that cannot leave a bad maximum ---

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


def maxima(radii: Sequence[float], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows ``[M, N]``, and where EM ends: centres ``[M, 2, 3]`` and F ``[M, 2]``, from the bad and the true start."""
    rows = (np.array([centres_of(radius) for radius in radii])[:, :, None] + clusters(seed)).reshape(len(radii), -1)
    starts = np.array([[bad_start(radius), centres_of(radius)] for radius in radii])
    twice = np.repeat(rows, 2, axis=0)
    centres, bounds = population.after(SETTLED, starts.reshape(-1, 3), np.ones_like(twice), twice)
    return rows, centres.reshape(-1, 2, 3), bounds.reshape(-1, 2)


def bad_maxima(seed: int, radii: Sequence[float] = RADII) -> Iterator[Check]:
    """G7."""
    rows, centres, bounds = maxima(radii, seed)
    slope, curvature = jax.jacobian(log_density), jax.hessian(log_density)
    first, highest, plain = [], [], []
    for row, pair in zip(rows, centres, strict=True):
        plain.append([float(log_density(each, row)) for each in pair])
        first.append(np.abs(np.asarray(slope(jnp.asarray(pair[0]), row))).max())
        highest.append(float(np.linalg.eigvalsh(np.asarray(curvature(jnp.asarray(pair[0]), row))).max()))
    yield Check(
        "G7", NO_DATASET, "F at both ends, and log p(X) written plainly, relative", np.abs(bounds / rows.shape[1] / plain - 1), SAME
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
