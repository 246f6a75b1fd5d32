"""G10 and G15: how far F of variational Bayes is below the log likelihood, as the number of rows grows.

Components are normal with variance 1; centres have a normal prior and weights a symmetric Dirichlet prior. Rows are a
few values with weights, so that a million of them cost what sixty-five do.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp
from scipy.stats import norm

import probem
from probem.experiments.bayes.priors.pruning import known_variance
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT
from probem.models import dirichlet
from probem.plotting.fit import SERIES

from .overfitted import STEP, VALUES, draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Components that are offered.
OFFERED = 3
#: Numbers of rows, each a hundred times the one before.
LADDER = (1e3, 1e5, 1e7)
#: Below the threshold (D + 1) / 2 = 1 and above it.
CONCENTRATIONS = (0.25, 0.6, 1.5, 3.0)
#: Steps of EM; from components that part, the last of them are worth little.
NUM_STEPS = 1500
#: Of a slope over log N: F at N has terms of the order of log(N) / N, and what NUM_STEPS have left undone.
SLOPE = 0.03


def bounds(
    rows: Float[np.ndarray, "N D"],
    concentration: float,
    q: Float[np.ndarray, "B N K"],
    row_weights: Float[np.ndarray, "B N"],
    num_steps: int = NUM_STEPS,
) -> Float[np.ndarray, " B"]:
    """F of variational Bayes from every start, nats, total over the rows."""
    weights = functools.partial(dirichlet, concentration=concentration)
    program = functools.partial(known_variance, num_components=OFFERED, weights=weights)
    # At a tolerance of 0 all take the same number of steps, and components that stay one are no reason to look twice.
    fits = probem.fit_many(
        program,
        np.broadcast_to(rows, (len(q), *rows.shape)),
        families=probem.VARIATIONAL_BAYES,
        init=probem.Responsibilities(q),
        row_weights=row_weights,
        max_steps=num_steps,
        tolerance=0.0,
        throw=False,
    )
    return np.asarray(fits.bound.elbo)


def used(rows: Float[np.ndarray, "N D"], number: int) -> Float[np.ndarray, "N K"]:
    """Responsibilities of so many components in equal parts, for every row."""
    return np.pad(np.full((len(rows), number), 1 / number), ((0, 0), (0, OFFERED - number)))


def parted(rows: Float[np.ndarray, "N D"], centres: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "N K"]:
    """Responsibilities of equally common N(centre, I)."""
    table = rows @ centres.T - (centres**2).sum(axis=1) / 2
    return np.exp(table - np.asarray(logsumexp(table, axis=1, keepdims=True)))


def coefficient(concentration: float, dim: int, true: int = 1) -> float:
    """Of log N in log p(X | truth) - F: the least over how many components k are used, from the true number on.

    A component that is used costs half of log N for each of its D coordinates and, but for the first, half of log N for
    its weight; the weight of an empty one costs the concentration.
    """
    return float(np.min([cost(number, concentration, dim) for number in range(true, OFFERED + 1)]))


#: By the start from which F is highest.
IN_USE = ("one component", "two components", "all, in one place", "all, from where they part")


def cost(number: int, concentration: float, dim: int) -> float:
    """Of log N, with so many components in use."""
    return (OFFERED - number) * concentration + (dim * number + number - 1) / 2


def deficits(
    rows: Float[np.ndarray, "N D"],
    density: Float[np.ndarray, " N"],
    concentrations: Sequence[float],
    ladder: Sequence[float],
    seed: int,
) -> Float[np.ndarray, "A M S"]:
    """log p(X | truth) - F from each start: k components that are one, for every k, and all of them parted; nats.

    ``density`` [N] is what every row is worth under the truth, of which the rows are the nodes.
    """
    centres = np.random.default_rng(seed).standard_normal((OFFERED, rows.shape[1]))
    starts = [*(used(rows, number) for number in range(1, OFFERED + 1)), parted(rows, centres)]
    sizes = np.repeat(np.asarray(ladder), len(starts))
    q = np.tile(np.array(starts), (len(ladder), 1, 1))
    values = np.array([bounds(rows, alpha, q, sizes[:, None] * density) for alpha in concentrations])
    log_truth = norm.logpdf(rows).sum(axis=1) @ density
    return (sizes * log_truth - values).reshape(len(concentrations), len(ladder), len(starts))


def nodes() -> tuple[Float[np.ndarray, "N 1"], Float[np.ndarray, " N"]]:
    """A quadrature of N(0, 1) by equal steps."""
    return VALUES[:, None], norm.pdf(VALUES) * STEP


@functools.cache
def in_one_dimension(seed: int) -> Float[np.ndarray, "A M S"]:
    """The deficits in one dimension."""
    return deficits(*nodes(), CONCENTRATIONS, LADDER, seed)


def stochastic_complexity(seed: int) -> Iterator[Check]:
    """G10, in one dimension."""
    yield from _coefficients(in_one_dimension(seed), 1, CONCENTRATIONS, LADDER)


def in_two_dimensions(seed: int) -> Iterator[Check]:
    """G10, in one dimension and in two, where the threshold is 3 / 2."""
    yield from stochastic_complexity(seed)
    x, share = nodes()
    middle = np.abs(x[:, 0]) <= 6
    x, share = x[middle, 0], share[middle]
    rows = np.stack([each.ravel() for each in np.meshgrid(x, x)], axis=1)
    concentrations = (0.6, 1.25, 2.0, 3.0)
    below = deficits(rows, np.outer(share, share).ravel(), concentrations, LADDER, seed)
    yield from _coefficients(below, 2, concentrations, LADDER)


def _coefficients(
    below: Float[np.ndarray, "A M S"], dim: int, concentrations: Sequence[float], ladder: Sequence[float]
) -> Iterator[Check]:
    steps = np.diff(np.log(ladder))
    # Terms that do not grow decide which number of components is best where N is small: the last rung counts.
    measured = np.diff(below.min(axis=2), axis=1)[:, -1] / steps[-1]
    expected = np.array([coefficient(alpha, dim) for alpha in concentrations])
    names = [f"α = {alpha:g}" for alpha in concentrations]
    yield Check(
        "G10",
        NO_DATASET,
        f"D = {dim}: growth of log p(X | truth) − F over that of log N at the highest F, and the formula",
        np.abs(measured - expected),
        SLOPE,
        {
            f"{name}: growth, and the formula": f"{growth:.4f}, {value:g}"
            for name, growth, value in zip(names, measured, expected, strict=True)
        },
    )
    each = np.diff(below[:, :, :OFFERED], axis=1) / steps[:, None]
    costs = np.array([[cost(number, alpha, dim) for number in range(1, OFFERED + 1)] for alpha in concentrations])
    yield Check(
        "G10",
        NO_DATASET,
        f"D = {dim}: the same with 1, 2 or {OFFERED} components in use",
        np.abs(each - costs[:, None]),
        SLOPE,
    )
    # The least cost is that of one component below the threshold, and of all above it.
    best = below[:, -1, :].argmin(axis=1)
    few = np.array([alpha < (dim + 1) / 2 for alpha in concentrations])
    yield Check(
        "G10",
        NO_DATASET,
        f"D = {dim}: at how many α the highest F uses more than one component below {(dim + 1) / 2:g}, or one above it",
        int(((best == 0) != few).sum()),
        0,
        {name: IN_USE[place] for name, place in zip(names, best, strict=True)},
    )


# --- G15: F beside BIC ---

#: Data sets of each size, the prior of their weights, and steps of variational Bayes and of EM.
SETS, CONCENTRATION, BAYES_STEPS, EM_STEPS = 16, 0.5, 300, 2000
#: Centres that three components are needed for.
NEEDED = (-4.0, 0.0, 4.0)
#: Two weights and three centres.
PARAMETERS = 2 * OFFERED - 1
#: Numbers of rows. Where one component would do, EM needs the order of sqrt(N) steps: beyond these, more than it takes.
SIZES, MORE = (1e3, 3e4, 1e6), (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
#: Of a slope over log N. From set to set F + BIC / 2 varies by about a nat: four standard errors of the slope are
#: 4 sqrt(2 / 16) / 6.9 = 0.2, and what log log N adds to the likelihood ratio is of the order of 0.1.
GROWTH = 0.3


def highest(counts: Float[np.ndarray, "B N"], start: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " B"]:
    """The log likelihood that a plain loop of EM climbs to, over weights and centres, nats."""
    q = np.broadcast_to(start, (len(counts), *start.shape))
    per_row = np.zeros_like(counts)
    for _ in range(EM_STEPS):
        shares = counts[..., None] * q
        totals = shares.sum(axis=1)
        centres = np.einsum("bnk,n->bk", shares, VALUES) / totals
        # log N(x; centre, 1), less what no component has a part in.
        table = np.log(totals / counts.sum(axis=1, keepdims=True)) - centres**2 / 2
        table = VALUES[:, None] * centres[:, None] + table[:, None]
        top = table.max(axis=2, keepdims=True)
        q = np.exp(table - top)
        sums = q.sum(axis=2, keepdims=True)
        q, per_row = q / sums, (top + np.log(sums))[..., 0]
    return (counts * (per_row - VALUES**2 / 2 - math.log(2 * math.pi) / 2)).sum(axis=1)


@functools.cache
def beside_bic(true: tuple[float, ...], ladder: tuple[float, ...], seed: int) -> Float[np.ndarray, "M B"]:
    """F + BIC / 2 of data sets from these centres, nats; BIC = -2 log L + P log N."""
    values = []
    rows = VALUES[:, None]
    truth = np.array([*true, -0.5, 0.5][:OFFERED])[:, None]
    starts = [used(rows, 1) if len(true) == 1 else parted(rows, truth), parted(rows, truth)]
    for size in ladder:
        counts = draws(np.random.default_rng([seed, int(size), len(true)]), int(size), *true)[:SETS]
        q = np.repeat(starts, len(counts), axis=0)
        fits = bounds(rows, CONCENTRATION, q, np.tile(counts, (len(starts), 1)), BAYES_STEPS)
        bic = -2 * highest(counts, starts[-1]) + PARAMETERS * math.log(size)
        values.append(fits.reshape(len(starts), -1).max(axis=0) + bic / 2)
    return np.array(values)


#: In words, and where the clusters are.
TRUTHS = (("three clusters, three components", NEEDED), ("one cluster, three components", (0.0,)))


def bic_full(seed: int) -> Iterator[Check]:
    """G15 in smaller steps."""
    yield from bic(seed, MORE)


def bic(seed: int, ladder: tuple[float, ...] = SIZES) -> Iterator[Check]:
    """G15."""
    log_n = np.log(ladder) - np.mean(np.log(ladder))
    for words, true in TRUTHS:
        values = beside_bic(true, ladder, seed)
        growth = float(log_n @ values.mean(axis=1) / (log_n @ log_n))
        expected = PARAMETERS / 2 - coefficient(CONCENTRATION, 1, len(true))
        yield Check(
            "G15",
            NO_DATASET,
            f"{words}: growth of F + BIC / 2 over that of log N, and {expected:g}",
            abs(growth - expected),
            GROWTH,
            {"growth": growth}
            | {
                f"N = {size:.0e}: F + BIC / 2": float(mean)
                for size, mean in zip(ladder, values.mean(axis=1), strict=True)
            }
            | {"standard deviation from set to set": float(values.std(axis=1).max())},
        )


# --- the pictures ---


def complexity_figure(dataset: Dataset, seed: int) -> "Figure":
    """G10: growth against the concentration, measured and by the formula."""
    del dataset
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    axes = figure.subplots()
    below = in_one_dimension(seed)
    growth = (below[:, -1] - below[:, 0]) / math.log(LADDER[-1] / LADDER[0])
    alphas = np.linspace(0.0, 3.2, 200)
    axes.plot(alphas, [coefficient(alpha, 1) for alpha in alphas], color=FAINT, linewidth=4, label="the formula")
    for number, (words, colour, marker) in enumerate(zip(IN_USE[:3], SERIES, "os^", strict=False)):
        lines = [cost(number + 1, alpha, 1) for alpha in alphas]
        axes.plot(alphas, lines, color=colour, linestyle=":", linewidth=1.0)
        axes.plot(CONCENTRATIONS, growth[:, number], color=colour, marker=marker, linestyle="none", label=words)
    axes.axvline(1.0, color=FAINT, linewidth=0.8)
    axes.set(
        xlabel="concentration α of the weights’ prior", ylabel="growth of log p(X | truth) − F over log N", ylim=(0, 5)
    )
    axes.legend(fontsize=8, loc="upper left")
    return figure


def bic_figure(dataset: Dataset, seed: int) -> "Figure":
    """G15: F + BIC / 2 against N, for both truths."""
    del dataset
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.4), layout="constrained")
    axes = figure.subplots()
    for (words, true), colour, marker in zip(TRUTHS, SERIES, "os", strict=False):
        values = beside_bic(true, SIZES, seed)
        power = PARAMETERS / 2 - coefficient(CONCENTRATION, 1, len(true))
        line = values.mean() + power * (np.log(SIZES) - np.mean(np.log(SIZES)))
        axes.plot(SIZES, line, color=FAINT, linestyle="--", linewidth=1.0, label=f"{power:g} × log N")
        sizes = np.repeat(SIZES, values.shape[1])
        axes.plot(sizes, values.ravel(), color=colour, marker=marker, markersize=4, linestyle="none", label=words)
    axes.set(xscale="log", xlabel="rows N", ylabel="F + BIC / 2, nats")
    axes.legend(fontsize=8)
    return figure


CLAIMS = (
    Claim(
        id="G10",
        together="G10",
        title="What variational Bayes charges for components, and when it empties them",
        statement=(
            "Three components are offered to rows of one cluster; F of variational Bayes falls below the log "
            "likelihood of the truth by a multiple of log N. A component in use costs log N / 2 for every coordinate "
            "of its centre and for its weight; the weight of an empty one costs the concentration α of the Dirichlet "
            "prior. F takes whichever is less: it empties components while α is below (D + 1) / 2 and uses all of them "
            "above. The multiples are measured from a thousand rows to ten million, with one, two and three components "
            "in use, at four values of α; rows are the nodes of a quadrature with weights, so that nothing is left to "
            "chance."
        ),
        formula=(
            r"\log p(X \mid \theta^*) - F = \lambda \log N + O(1), \qquad "
            r"\lambda = \min_{K^* \le k \le K} \left[(K - k)\,\alpha + \frac{D k + k - 1}{2}\right]"
        ),
        source="Watanabe & Watanabe 2006",
        check=None,
        by_itself=stochastic_complexity,
        full_by_itself=in_two_dimensions,
        figure=complexity_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"The multiple of $\log N$ against $\alpha$, with one, two or three components in use: markers are "
            r"measured, dotted lines and the least of them (grey) are the formula’s. They cross at $(D + 1)/2 = 1$."
        ),
    ),
    Claim(
        id="G15",
        together="G10",
        title="F agrees with BIC where every component is needed, and only there",
        statement=(
            "BIC charges log N / 2 for every parameter. Where three components are fitted to three clusters, so does F "
            "of variational Bayes: F + BIC / 2 stays where it is from a thousand rows to a million. Where one "
            "cluster is all there is, two of the components have parameters that nothing depends on, and BIC charges "
            "for them all the same: F + BIC / 2 grows like log N, here (α = 1/2) by one nat for every factor of e. "
            "The likelihood in BIC is that of a plain loop of EM."
        ),
        formula=(
            r"F + \tfrac{1}{2} \mathrm{BIC} = O(1) \;\; (K = K^*), \qquad "
            r"\left(\tfrac{P}{2} - \lambda\right) \log N + O(\log \log N) \;\; (K > K^*)"
        ),
        source="Watanabe 2013; Watanabe & Watanabe 2006",
        check=None,
        by_itself=bic,
        full_by_itself=bic_full,
        figure=bic_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"$F + \mathrm{BIC}/2$ of sixteen data sets of each size, and lines of the slopes that the theory gives."
        ),
    ),
)
