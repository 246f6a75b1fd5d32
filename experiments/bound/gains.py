"""G1: what a half-step gains is a divergence, by the closed forms of NumPyro."""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

import probem
from probem import models
from probem.checking.residuals import ROUNDING
from probem.experiments.claims.claim import Check, Claim, Dataset
from probem.experiments.oracles.mixtures import pose
from probem.plotting.fit import SERIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS = 3

Case = tuple[str, Callable[..., None], Any, Any]


def _cases(dataset: Dataset, seed: int) -> list[Case]:
    """Name, program, families and start."""
    problem = pose(dataset, seed)
    start = probem.Parameters(problem.params)
    prior = models.GaussianPrior.from_data(jnp.asarray(dataset.rows), COMPONENTS)
    bayesian = functools.partial(models.bayesian_gmm, num_components=COMPONENTS, prior=prior)
    return [
        ("EM", problem.program, probem.EM, start),
        ("hard EM", problem.program, probem.HARD_EM, start),
        ("the two largest", problem.program, {"t": probem.TopC(2)}, start),
        ("variational Bayes", bayesian, probem.VARIATIONAL_BAYES, None),
    ]


@functools.lru_cache(maxsize=8)
def compared(case: str, dataset: str, seed: int) -> tuple[probem.Check, ...]:
    """Every half-step of the first iterations: its gain, and the divergence, nats."""
    from probem.experiments.claims.datasets import load

    loaded = load(dataset)
    program, families, init = next(rest for name, *rest in _cases(loaded, seed) if name == case)
    report = probem.claim("G1", program, loaded.rows, families=families, init=init, key=seed)
    if report.remarks:
        raise ValueError(f"nothing to compare: {report.remarks[0]}")
    return report.rows


def gains(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G1."""
    for name, *_ in _cases(dataset, seed):
        rows = compared(name, dataset.name, seed)
        for half, words in (
            ("E", "Σ KL(q_old ‖ posterior) less that of q_new"),
            ("M", "KL of the new model from the old"),
        ):
            steps = [row for row in rows if row.half_step.startswith(half)]
            yield Check(
                "G1",
                dataset.name,
                f"{name}: the gain of every {half} half-step, and {words}",
                [row.residual for row in steps],
                ROUNDING,
                {"half-steps": len(steps), "first gain": steps[0].left, "last gain": steps[-1].left},
            )


def figure(dataset: Dataset, seed: int) -> "Figure":
    """Gains as dots, divergences as rings, on a logarithmic scale."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8.6, 3.4), layout="constrained")
    for axes, name in zip(picture.subplots(1, 2, sharey=True), ("EM", "variational Bayes"), strict=True):
        for half, colour, marker in (("E", SERIES[0], "o"), ("M", SERIES[1], "^")):
            steps = [row for row in compared(name, dataset.name, seed) if row.half_step.startswith(half)]
            places = np.array([int(row.half_step[2:]) for row in steps]) + (0.5 if half == "M" else 0.0)
            axes.plot(places, [row.left for row in steps], marker, color=colour, markersize=4, label=f"gain, {half}")
            axes.plot(
                places, [row.right for row in steps], marker, color=colour, markersize=9, fillstyle="none", label="KL"
            )
        axes.set(title=name, xlabel="iteration", yscale="log")
    picture.axes[0].set_ylabel("nats")
    picture.axes[0].legend(fontsize=8)
    return picture


CLAIMS = (
    Claim(
        id="G1",
        title="What a half-step gains is a divergence",
        statement=(
            "F does not merely rise: by how much is a Kullback–Leibler divergence. The E half-step gains what $q$ "
            "comes closer to the posterior. The M half-step of an exponential family gains the divergence of the new "
            "model of rows and labels from the old one, and under variational Bayes that of the old posterior from the "
            "new. So a small gain says that two models are close in the only sense that does not depend on how "
            "parameters are written. F comes from the engine, the divergences from NumPyro’s closed forms."
        ),
        formula=(
            r"F(q, \theta') - F(q, \theta) = \sum_{n} \mathbb{E}_{q}\, "
            r"\mathrm{KL}\left(p(x_n, t_n \mid \theta') \,\|\, p(x_n, t_n \mid \theta)\right)"
        ),
        source="Kunstner, Kumar & Schmidt 2021",
        check=gains,
        datasets=("old_faithful", "overlapping"),
        short_datasets=("overlapping",),
        figure=figure,
        figure_dataset="overlapping",
        figure_caption=(
            "The gain of every half-step (dots), and the divergence that it is (rings): left EM, right variational "
            "Bayes."
        ),
    ),
)
