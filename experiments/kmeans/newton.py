"""G5: a step of k-means is a step of Newton's method on J."""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from probem.checking.residuals import ROUNDING
from probem.experiments.claims.claim import Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.experiments.oracles.lloyd import inertia, means, starts
from probem.plotting.fit import SERIES

from .limits import landscape
from .trajectories import distance, k_means

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS = 3


def cost(flat: jax.Array, rows: jax.Array) -> jax.Array:
    """J as a function of the centres alone ``[K D]``: every row counts with its nearest."""
    centres = flat.reshape(COMPONENTS, rows.shape[1])
    return ((rows[:, None] - centres) ** 2).sum(axis=2).min(axis=1).sum()


def start_of(rows: np.ndarray, seed: int) -> np.ndarray:
    """Centres between rows: where no two are equally near to a row, J has derivatives."""
    return starts(rows, COMPONENTS, 2, seed)[1]


def newton(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G5: gradient and Hessian by automatic differentiation of J; the steps are the engine's."""
    rows = dataset.rows
    run = k_means(rows, start_of(rows, seed))
    derivatives = jax.jit(lambda flat, x: (jax.grad(cost)(flat, x), jax.hessian(cost)(flat, x)))
    apart, counted, falls, left = [], [], [], []
    for now, after in itertools.pairwise(run.iterations):
        flat = now.centres.ravel()
        gradient, hessian = (np.asarray(value) for value in derivatives(jnp.asarray(flat), jnp.asarray(rows)))
        # A centre without rows has neither slope nor curvature, and stays.
        step = -np.linalg.pinv(hessian, hermitian=True) @ gradient
        stepped = (flat + step).reshape(now.centres.shape)
        apart.append(distance(after.centres, stepped))
        sizes = np.repeat(np.bincount(now.labels, minlength=COMPONENTS), rows.shape[1])
        counted.append(np.abs(hessian - 2.0 * np.diag(sizes)) / len(rows))
        here = inertia(rows, now.labels, now.centres)
        falls.append(abs(here - inertia(rows, now.labels, after.centres) + gradient @ step / 2) / here)
        parted = 2 * sizes * (after.centres - means(rows, now.labels, after.centres)).ravel()
        left.append(np.abs(parted) / (len(rows) * np.abs(rows).max()))
    numbers = {"steps": len(apart), "K": COMPONENTS}
    name = dataset.name
    yield Check(
        "G5", name, "centres after every step of the engine, and after Newton’s, relative", apart, ROUNDING, numbers
    )
    yield Check("G5", name, "Hessian of J, and twice the sizes of the clusters, relative to N", counted, ROUNDING)
    yield Check("G5", name, "fall of J at fixed labels, and half the Newton decrement, relative to J", falls, ROUNDING)
    yield Check("G5", name, "slope of J at fixed labels that a step leaves, relative to N max|x|", left, ROUNDING)


def parabolas(dataset: Dataset, seed: int) -> "Figure":
    """G5: J along the way of a step, and the parabola whose bottom Newton's method goes to."""
    from matplotlib.figure import Figure

    rows = dataset.rows
    run = k_means(rows, start_of(rows, seed)).iterations
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    along = np.linspace(0, 2, 41)
    for number, (now, after) in enumerate(itertools.pairwise(run[:4])):
        centres = [now.centres + part * (after.centres - now.centres) for part in along]
        fixed = np.array([inertia(rows, now.labels, at) for at in centres])
        free = np.array([landscape(rows, at) for at in centres])
        axes.plot(along, fixed / fixed[0], "--", color=SERIES[number], linewidth=1)
        axes.plot(along, free / fixed[0], color=SERIES[number], label=f"step {number + 1}")
        bottom = inertia(rows, now.labels, after.centres) / fixed[0]
        axes.plot(1, bottom, "osD"[number], color=SERIES[number], markersize=5)
    axes.axvline(1, color=FAINT, linewidth=0.8)
    axes.plot([], [], "--", color=INK, linewidth=1, label="labels fixed")
    axes.plot([], [], color=INK, label="every row with its nearest")
    axes.set(xlabel="part of the step of k-means", ylabel="J, relative to that before the step")
    axes.legend(fontsize=8, loc="lower left")
    return figure


CLAIMS = (
    Claim(
        id="G5",
        title="k-means is Newton’s method",
        statement=(
            "Between two changes of labels $J$ is a parabola in the centres, and its Hessian is twice the number of "
            "rows of each cluster, on the diagonal. Newton’s method goes to the bottom of that parabola in one step, "
            "and the bottom is the mean: each step of k-means is a Newton step on $J$, so no step size has to be "
            "chosen, and $J$ falls by half the Newton decrement, or more where labels then change. Gradient and "
            "Hessian come from automatic differentiation of $J$, the steps from the engine."
        ),
        formula=r"\mu^{(s+1)} = \mu^{(s)} - \left( \nabla^2 J \right)^{-1} \nabla J, \qquad "
        r"\nabla^2 J = 2\, \mathrm{diag}(N_1 I, \dots, N_K I)",
        source="Bottou & Bengio 1995",
        check=newton,
        datasets=("old_faithful", "overlapping", "iris"),
        short_datasets=("old_faithful",),
        figure=parabolas,
        figure_dataset="old_faithful",
        figure_caption="$J$ on the line from the centres before a step to those after it (full lines) lies below the "
        "parabola with the labels fixed (dashed): the step ends at the bottom of the parabola.",
        together="K",
    ),
)
