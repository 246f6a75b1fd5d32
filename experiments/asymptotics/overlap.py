"""G4: the rate of convergence and the overlap of two components, beside SciPy's adaptive quadrature."""

import functools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

import probem
from probem.checking.residuals import excess, violations
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.models import gmm
from probem.plotting.fit import SERIES

from . import population
from .population import expected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def plain_rates_of(distances: tuple[float, ...]) -> Float[np.ndarray, "M 2"]:
    """Both eigenvalues in closed form, of every distance."""
    return np.array([plain_rates(each) for each in distances])


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
)
