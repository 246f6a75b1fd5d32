"""G4, G6 and G7: what the distance between clusters does to EM, with variances and weights known.

The other sides are integrals by SciPy's adaptive quadrature, closed forms, and the curvature of a plain log density.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.integrate import quad

import probem
from probem.checking.residuals import SAME, excess, violations
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.models import gmm
from probem.plotting.fit import SERIES

from . import population

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def expected(function: Callable[[float], float], distance: float) -> float:
    """E f(X) for an even f, X equally often from N(-distance, 1) and N(distance, 1), by adaptive quadrature."""

    def integrand(x: float) -> float:
        # Both normal densities, without SciPy's checks of its arguments.
        both = math.exp(-((x - distance) ** 2) / 2) + math.exp(-((x + distance) ** 2) / 2)
        return function(x) * both / math.sqrt(2 * math.pi)

    # The half line has all of an even function. Beyond 14 standard deviations nothing is left that counts.
    value, _ = quad(integrand, 0.0, distance + 14.0, epsabs=1e-13, epsrel=1e-12, limit=400)
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
    return 0.25 / math.cosh(distance * x) ** 2


def plain_rates(distance: float) -> tuple[float, float]:
    """The eigenvalues of the map's Jacobian at the truth: 4 mu² E[r1 r2] and 4 E[r1 r2 X²].

    The first belongs to both centres moving alike, the second to their moving apart. The Jacobian is
    J_jk = E[(x - mu_j) r_j (delta_jk - r_k) (x - mu_k)] / w_j; it is symmetric here, its diagonal constant.
    """
    return 4 * distance**2 * overlap(distance), 4 * expected(lambda x: x**2 * _product(x, distance), distance)


@functools.cache
def rates(distances: tuple[float, ...]) -> Float[np.ndarray, "M 2"]:
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


def rate_and_overlap(seed: int, distances: tuple[float, ...] = LADDER) -> Iterator[Check]:
    """G4."""
    del seed
    ours, theirs = rates(distances), plain_rates_of(distances)
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


# --- the pictures ---


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


def rate_figure(dataset: Dataset, seed: int) -> "Figure":
    """G4: the rate against the overlap, with lines of slope 1/2 and 1."""
    del dataset, seed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    axes = figure.subplots()
    overlaps = np.array([overlap(each) for each in LADDER])
    rate = rates(LADDER)
    axes.plot(overlaps, plain_rates_of(LADDER)[:, 0], color=INK, linewidth=1.0, label="4 μ² E[r₁r₂]")
    axes.plot(
        overlaps, rate[:, 0], color=SERIES[0], marker="o", linestyle="none", label="a step of EM, both centres alike"
    )
    axes.plot(overlaps, rate[:, 1], color=SERIES[1], marker="s", linestyle="--", label="and apart")
    for power, style in ((0.5, ":"), (1.0, "-.")):
        line = rate[-1, 0] * (overlaps / overlaps[-1]) ** power
        axes.plot(overlaps, line, color=FAINT, linestyle=style, linewidth=1.0, label=f"slope {power:g}")
    axes.set(xscale="log", yscale="log", xlabel="overlap E[r₁r₂]", ylabel="what is left of an error after a step")
    axes.legend(fontsize=8)
    return figure


def plain_rates_of(distances: tuple[float, ...]) -> Float[np.ndarray, "M 2"]:
    """Both eigenvalues in closed form, of every distance."""
    return np.array([plain_rates(each) for each in distances])


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


# --- longer ladders ---


def any_start_full(seed: int) -> Iterator[Check]:
    """G6 with more distances and starts."""
    yield from any_start(seed, (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0), 4)


def rate_full(seed: int) -> Iterator[Check]:
    """G4 with smaller steps between the rungs, and with weights and variances learned as well."""
    distances = tuple(np.arange(1.0, 4.01, 0.25).tolist())
    yield from rate_and_overlap(seed, distances)
    ours, theirs = all_parameters(distances)
    yield Check(
        "G4",
        NO_DATASET,
        "weights, centres and variances: largest eigenvalue of a step at the truth, and of a plain one, relative",
        np.abs(ours / theirs - 1),
        # Central differences of 1e-4: a part of 1e-8 by curvature, and room.
        1e-6,
        {f"μ = {each:g}: rate": float(rate) for each, rate in zip(distances, ours, strict=True)},
    )
    overlaps = np.array([overlap(each) for each in distances])
    steepness = slopes(ours, overlaps)
    yield Check(
        "G4",
        NO_DATASET,
        f"the same, overlap below {SMALL / 4:.1%}: what a slope over log overlap lacks to be the theorem’s 1/2",
        excess(0.5 - steepness[overlaps[:-1] < SMALL / 4]),
        0,
        {f"μ from {a:g}": float(s) for a, s in zip(distances, steepness, strict=False)},
    )


def all_parameters(distances: tuple[float, ...]) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """The largest eigenvalue of a step of EM at the truth in (weight, centres, variances): the engine's, and a plain
    one's by autodiff.
    """
    program = functools.partial(gmm, num_components=2)

    def engine(at: jax.Array, row_weights: jax.Array) -> jax.Array:
        start = {"weights": jnp.stack([at[0], 1 - at[0]]), "loc": at[1:3, None], "covariance": at[3:, None, None]}
        options = {"row_weights": row_weights, "max_steps": 2, "tolerance": 0.0}
        params = probem.solve(program, population.NODES[:, None], init=probem.Parameters(start), **options).params
        return jnp.concatenate([params["weights"][:1], params["loc"][:, 0], params["covariance"][:, 0, 0]])

    x = jnp.asarray(population.NODES)

    @jax.jit
    def plain(at: jax.Array, row_weights: jax.Array) -> jax.Array:
        log_weights = jnp.log(jnp.stack([at[0], 1 - at[0]]))
        table = log_weights - 0.5 * (x[:, None] - at[1:3]) ** 2 / at[3:] - 0.5 * jnp.log(at[3:])
        shares = row_weights[:, None] * jax.nn.softmax(table, axis=1)
        totals = shares.sum(axis=0)
        loc = x @ shares / totals
        variance = ((x[:, None] - loc) ** 2 * shares).sum(axis=0) / totals
        return jnp.concatenate([totals[:1] / totals.sum(), loc, variance])

    step, moves = jax.jit(jax.vmap(engine, in_axes=(0, None))), NEAR * np.concatenate([np.eye(5), -np.eye(5)])
    ours, theirs = [], []
    for distance in distances:
        truth, row_weights = np.array([0.5, -distance, distance, 1.0, 1.0]), population.shares(-distance, distance)
        ends = np.asarray(step(truth + moves, row_weights))
        jacobian = (ends[:5] - ends[5:]).T / (2 * NEAR)
        ours.append(np.abs(np.linalg.eigvals(jacobian)).max())
        by_autodiff = np.asarray(jax.jacobian(plain)(jnp.asarray(truth), jnp.asarray(row_weights)))
        theirs.append(np.abs(np.linalg.eigvals(by_autodiff)).max())
    return np.array(ours), np.array(theirs)


def bad_maxima_full(seed: int) -> Iterator[Check]:
    """G7 for several draws of the rows."""
    for number in range(8):
        yield from bad_maxima(seed + number, (6.0, 9.0, 15.0, 30.0, 60.0))


CLAIMS = (
    Claim(
        id="G4",
        together="G4",
        title="The farther apart the clusters, the faster EM",
        statement=(
            "After a step of EM a share of the error is left: that is its rate. Two equally common clusters of known "
            "variance lie at −μ and μ, and there are infinitely many rows, so that nothing is left to chance. Then the "
            "rate is 4 μ² times the average overlap E[r₁r₂], to the digits of a quadrature. It falls to 0 as clusters "
            "move apart, faster than the square root of the overlap, as has been proved, and nearly as fast as the "
            "overlap itself: the slope of its logarithm over that of the overlap rises towards 1 and stays below. EM "
            "is slow where one can hardly tell the clusters apart, and needs next to no steps where one can. With "
            "weights and variances learned as well (--full) it is slower, and its slope passes 1/2 later."
        ),
        formula=(
            r"\rho = 4 \mu^2 \, \mathbb{E}[r_1 r_2], \qquad "
            r"\frac{\mathrm{d} \log \rho}{\mathrm{d} \log \mathbb{E}[r_1 r_2]} \;\longrightarrow\; 1"
        ),
        source="Ma, Xu & Jordan 2000; Xu & Jordan 1996",
        check=None,
        by_itself=rate_and_overlap,
        full_by_itself=rate_full,
        figure=rate_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"How much a step of EM leaves of a small error, against the overlap of two clusters, from $\mu = 4$ on "
            r"the left to $\mu = 1.5$ on the right. The grey lines have slopes 1/2 and 1."
        ),
    ),
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
