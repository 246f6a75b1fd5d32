"""G12: k-means++ draws as it says, and is then within a factor of the best."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import chi2

import probem
from probem.checking.residuals import excess
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import INK
from probem.experiments.oracles.lloyd import squared_distances
from probem.plotting.fit import SERIES

from .limits import best_partition, landscape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPONENTS, FEW, DRAWS = 3, 8, 20_000
#: A true chi-squared test is above its limit once in a million seeds.
ONCE_IN = 1e-6
#: Distances of three clusters, in their standard deviations.
APART = (0.0, 3.0, 10.0, 30.0, 100.0)

Sequences = tuple[np.ndarray, np.ndarray]


def by_squares(rows: np.ndarray) -> Sequences:
    """Every sequence of K distinct rows, ``[S, K]``, and its probability under k-means++, ``[S]``."""
    squares = squared_distances(rows, rows)
    sequences = np.array(list(itertools.permutations(range(len(rows)), COMPONENTS)))
    probabilities = []
    for sequence in sequences:
        probability = 1 / len(rows)
        for number in range(1, COMPONENTS):
            nearest = squares[:, sequence[:number]].min(axis=1)
            probability *= nearest[sequence[number]] / nearest.sum()
        probabilities.append(probability)
    return sequences, np.array(probabilities)


def uniformly(rows: np.ndarray) -> Sequences:
    """The same where every sequence is equally probable."""
    sequences = np.array(list(itertools.permutations(range(len(rows)), COMPONENTS)))
    return sequences, np.full(len(sequences), 1 / len(sequences))


def expected_cost(rows: np.ndarray, drawing: Callable[[np.ndarray], Sequences]) -> float:
    """E J of the seeds, every row with its nearest, by enumeration."""
    sequences, probabilities = drawing(rows)
    costs = [landscape(rows, rows[sequence]) for sequence in sequences]
    return float(probabilities @ np.array(costs))


@functools.cache
def _drawing(seeding: probem.Seeding) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def seeds(key: jax.Array, rows: jax.Array) -> jax.Array:
        return seeding.seeds(key, rows, jnp.ones(FEW), COMPONENTS)

    return jax.jit(jax.vmap(seeds, in_axes=(0, None)))


def drawn(rows: np.ndarray, seed: int, seeding: probem.Seeding) -> np.ndarray:
    """The seeds of the engine, many times over, as numbers of rows, ``[DRAWS, K]``."""
    keys = jax.random.split(jax.random.key(seed), DRAWS)
    seeds = np.asarray(_drawing(seeding)(keys, jnp.asarray(rows)))
    return ((seeds[:, :, None] - rows) ** 2).sum(axis=-1).argmin(axis=-1)


def chi_squared(counts: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """The statistic, relative to what it exceeds once in a million times; and its degrees of freedom.

    Cells that expect fewer than ten are taken together.
    """
    rare = expected < 10
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(counts) - 1
    return float(((counts - expected) ** 2 / expected).sum() / chi2.isf(ONCE_IN, freedom)), freedom


def few_rows(dataset: Dataset, seed: int) -> np.ndarray:
    """So few rows that every sequence of them can be tried."""
    distinct = np.unique(dataset.rows, axis=0)
    return distinct[np.random.default_rng(seed).choice(len(distinct), FEW, replace=False)]


def seeds(dataset: Dataset, seed: int) -> Iterator[Check]:
    """G12 on a few rows of a data set."""
    rows, name = few_rows(dataset, seed), dataset.name
    sequences, probabilities = by_squares(rows)
    rows_drawn = drawn(rows, seed, probem.KMeansPlusPlus())
    place = FEW ** np.arange(COMPONENTS)
    numbered = {int(sequence @ place): index for index, sequence in enumerate(sequences)}
    hits = [numbered.get(int(code)) for code in rows_drawn @ place]
    unheard = sum(hit is None for hit in hits)
    counts = np.bincount([hit for hit in hits if hit is not None], minlength=len(sequences))
    statistic, freedom = chi_squared(counts, DRAWS * probabilities)
    numbers = {"draws": DRAWS, "sequences": len(sequences), "degrees of freedom": freedom}
    words = f"{FEW} rows of the set"
    yield Check("G12", name, f"{words}: sequences of seeds that repeat a row", unheard, 0)
    yield Check(
        "G12",
        name,
        f"{words}: χ² of the engine’s sequences of {COMPONENTS} seeds against D² probabilities, relative to its "
        f"quantile at 1 − 10⁻⁶",
        statistic,
        1,
        numbers,
    )
    costs = np.array([landscape(rows, rows[sequence]) for sequence in sequences])
    mean, exact = float(counts @ costs) / DRAWS, float(probabilities @ costs)
    deviation = float(np.sqrt(probabilities @ (costs - exact) ** 2 / DRAWS))
    best, _ = best_partition(rows, COMPONENTS)
    limit = 8 * (np.log(COMPONENTS) + 2)
    yield Check(
        "G12",
        name,
        f"{words}: mean J of the engine’s seeds, and E J by enumeration, in standard errors",
        abs(mean - exact) / deviation,
        # Once in two million times.
        5,
        {"mean J": mean, "E J": exact},
    )
    yield Check(
        "G12",
        name,
        f"{words}: how far E J is above 8 (log K + 2) J*, J* by trying every partition, relative",
        excess(exact / best - limit),
        0,
        {"E J / J*": exact / best, "8 (log K + 2)": limit},
    )


def three_clusters(separation: float, seed: int) -> np.ndarray:
    """Three, three and two rows about the corners of a triangle."""
    corners = separation * np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
    noise = np.random.default_rng(seed).standard_normal((FEW, 2))
    return corners[np.arange(FEW) % COMPONENTS] + noise


def ratios(seed: int) -> dict[str, np.ndarray]:
    """E J / J* of clusters that move apart, by enumeration."""
    result: dict[str, list[float]] = {"D²": [], "uniform": []}
    for separation in APART:
        rows = three_clusters(separation, seed)
        best, _ = best_partition(rows, COMPONENTS)
        for words, drawing in (("D²", by_squares), ("uniform", uniformly)):
            result[words].append(expected_cost(rows, drawing) / best)
    return {words: np.array(values) for words, values in result.items()}


def moving_apart(seed: int) -> Iterator[Check]:
    """G12 by itself: what a bound is worth."""
    ratio, limit = ratios(seed), 8 * (np.log(COMPONENTS) + 2)
    numbers = {
        f"{words}, {separation:g} apart: E J / J*": float(value)
        for words, values in ratio.items()
        for separation, value in zip(APART, values, strict=True)
    }
    yield Check(
        "G12",
        NO_DATASET,
        "clusters moving apart: how far E J / J* of k-means++ is above 8 (log K + 2), by enumeration",
        excess(ratio["D²"] - limit),
        0,
        numbers,
    )
    yield Check(
        "G12",
        NO_DATASET,
        "clusters moving apart: what uniform seeds lack at the last to be above that bound",
        excess(limit - ratio["uniform"][-1:]),
        0,
    )


def bounded(dataset: Dataset, seed: int) -> "Figure":
    """G12: what seeds cost, against the distance of the clusters."""
    del dataset
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    axes = figure.subplots()
    ratio = ratios(seed)
    for words, marker, colour in (("D²", "o", SERIES[0]), ("uniform", "s", SERIES[1])):
        label = "k-means++: squared distances" if words == "D²" else "uniform seeds"
        axes.plot(APART, ratio[words], marker=marker, color=colour, label=label)
    axes.axhline(8 * (np.log(COMPONENTS) + 2), color=INK, linewidth=0.8, linestyle="--", label="8 (log K + 2)")
    axes.set(yscale="log", xlabel="distance of three clusters, in σ", ylabel="E J of the seeds / J*")
    axes.legend(fontsize=8)
    return figure


CLAIMS = (
    Claim(
        id="G12",
        title="k-means++ starts within a known factor of the least inertia",
        statement=(
            "k-means++ draws the next seed with probability proportional to the squared distance to the nearest seed "
            "so far. On eight rows one can write down the probability of every sequence of three seeds: 20,000 draws "
            "of the engine have these frequencies, by a chi-squared test. Their expected $J$, before any step of "
            "k-means, is then below $8 (\\log K + 2)$ times the least that any partition has, which is found by trying "
            "all of them. Seeds drawn uniformly have no such bound: as clusters move apart their ratio grows without "
            "end."
        ),
        formula=r"p(x_{\mathrm{next}} = x_i) = \frac{D(x_i)^2}{\sum_j D(x_j)^2}, \qquad "
        r"\mathbb{E}\, J \le 8\, (\log K + 2)\, J^{*}",
        source="Arthur & Vassilvitskii 2007",
        check=seeds,
        datasets=("old_faithful", "overlapping"),
        short_datasets=("old_faithful",),
        by_itself=moving_apart,
        figure=bounded,
        figure_caption="What the seeds of eight rows in three clusters are expected to cost, over the least cost, as "
        "the clusters move apart: by k-means++ it stays below the bound, by uniform seeds it does not.",
        together="K",
    ),
)
