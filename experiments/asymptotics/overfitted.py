"""G8: with a component too many the centres are off by N^(-1/4), not N^(-1/2)."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm

from probem.checking.residuals import SAME
from probem.experiments.claims.claim import NO_DATASET, Check, Claim, Dataset
from probem.experiments.claims.drawing import FAINT, INK
from probem.plotting.fit import SERIES

from . import population

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Numbers of rows, and data sets of each.
LADDER, LONG, SETS = (200, 2_000, 20_000), (200, 2_000, 20_000, 200_000, 2_000_000), 96
#: In how many data sets of each size SciPy goes on, and what it may find, nats.
CHECKED, ABOVE = 4, 1e-2
#: Times the square root of N: so many steps of EM.
STEPS = 10.0
#: Rows are rounded to these, so that N of them are a few numbers with counts. Rounding adds STEP² / 12 to a variance,
#: which is taken from it beforehand; of anything else that it does to sums of smooth functions, exp(-2 pi² / STEP²) and
#: less is left.
STEP = 0.25
VALUES = np.arange(-8.0, 8.0 + STEP / 2, STEP)
SCALE = np.sqrt(1 - STEP**2 / 12)
#: Where the centres are in the mixture that is no more than it has to be.
APART = 2.0
#: Standard deviations of the slope that are allowed, and that of a log error: a root mean square of B data sets has the
#: relative variance Var(e²) / (4 B (E e²)²). Where e is normal, that is 1 / (2 B). With one cluster e² is the positive
#: part of a normal variable of mean 0: E e² = s / sqrt(2 pi), E e⁴ = s² / 2, and so (pi - 1) / (4 B).
WIDE, REGULAR, OVER = 4.0, np.sqrt(1 / (2 * SETS)), np.sqrt((np.pi - 1) / (4 * SETS))


def draws(generator: np.random.Generator, num_rows: int, *centres: float) -> Float[np.ndarray, "B N"]:
    """How often each value is drawn in N rows of equally common N(centre, 1), for every data set."""
    edges = np.append(VALUES - STEP / 2, np.inf)
    edges[0] = -np.inf
    shares = np.diff(norm.cdf(edges[:, None], centres, SCALE).mean(axis=1))
    return generator.multinomial(num_rows, shares / shares.sum(), size=SETS).astype(float)


def fitted(
    counts: Float[np.ndarray, "B N"], start: float, num_steps: int
) -> tuple[Float[np.ndarray, "B 2"], Float[np.ndarray, " B"]]:
    """Two centres by maximum likelihood with variances and weights known, after so many steps, and F (nats)."""
    starts = population.mirrored(np.full(len(counts), start))
    return population.after(num_steps, starts, counts, np.broadcast_to(VALUES, counts.shape))


def log_likelihood(centres: Float[np.ndarray, " 2"], counts: Float[np.ndarray, " N"]) -> float:
    """log p(X) by SciPy, nats."""
    return float(counts @ (np.asarray(logsumexp(norm.logpdf(VALUES[:, None], centres), axis=1)) - np.log(2)))


@dataclasses.dataclass(frozen=True)
class Rung:
    """For one N: what the two centres are off by, root mean square over the data sets, and half their difference."""

    num_rows: int
    errors: float
    halves: Float[np.ndarray, " B"]
    excess_variances: Float[np.ndarray, " B"]
    #: Of some data sets: F, SciPy's log p(X) there, and the highest that SciPy reaches from there.
    ends: Float[np.ndarray, "C 3"]


@functools.cache
def rung(num_rows: int, centres: tuple[float, ...], seed: int) -> Rung:
    """Data sets of N rows from these centres, and two fitted to them."""
    counts = draws(np.random.default_rng([seed, num_rows, len(centres)]), num_rows, *centres)
    # With one cluster the rate is 1 - O(N^-1/2): EM takes as many more steps as that asks for.
    num_steps = int(STEPS * np.sqrt(num_rows)) if len(centres) == 1 else int(STEPS)
    ends, bounds = fitted(counts, 1.0 if len(centres) == 1 else APART, num_steps)
    halves = np.abs(ends[:, 1] - ends[:, 0]) / 2
    truth = 0.0 if len(centres) == 1 else APART
    second = (counts @ VALUES**2) / num_rows - (counts @ VALUES / num_rows) ** 2
    checked = []
    for end, bound, count in list(zip(ends, bounds, counts, strict=True))[:CHECKED]:
        best = minimize(lambda at, count=count: -log_likelihood(at, count), end, method="BFGS", options={"gtol": 1e-7})
        checked.append([bound, log_likelihood(end, count), float(np.maximum(-best.fun, log_likelihood(end, count)))])
    return Rung(num_rows, float(np.sqrt(((halves - truth) ** 2).mean())), halves, second - 1, np.array(checked))


def slope(rungs: Sequence[Rung]) -> tuple[float, float]:
    """Of log error over log N by least squares, and its standard deviation in those of a log error."""
    log_n = np.log([each.num_rows for each in rungs])
    away = log_n - log_n.mean()
    value = float(away @ np.log([each.errors for each in rungs]) / (away @ away))
    return value, 1 / float(np.sqrt(away @ away))


def too_many(seed: int, ladder: Sequence[int] = LADDER) -> Iterator[Check]:
    """G8."""
    for words, centres, power, spread in (
        ("one cluster, two components", (0.0,), -0.25, OVER),
        ("two clusters, two components", (-APART, APART), -0.5, REGULAR),
    ):
        rungs = [rung(num_rows, centres, seed) for num_rows in ladder]
        every = np.concatenate([each.ends for each in rungs])
        yield Check(
            "G8",
            NO_DATASET,
            f"{words}: F, and log p(X) by SciPy, relative",
            np.abs(every[:, 0] / every[:, 1] - 1),
            SAME,
        )
        yield Check(
            "G8",
            NO_DATASET,
            f"{words}: nats that SciPy finds above where EM stops, in {CHECKED} data sets of each size",
            every[:, 2] - every[:, 1],
            ABOVE,
        )
        steepness, unit = slope(rungs)
        yield Check(
            "G8",
            NO_DATASET,
            f"{words}: slope of log error over log N, and {power:g}",
            abs(steepness - power),
            WIDE * spread * unit,
            {"slope": steepness} | {f"N = {each.num_rows:.0e}: error": each.errors for each in rungs},
        )


def too_many_full(seed: int) -> Iterator[Check]:
    """G8 up to two million rows."""
    yield from too_many(seed, LONG)


def error_figure(dataset: Dataset, seed: int) -> "Figure":
    """G8: error against N, with lines of slope -1/4 and -1/2, and the halves themselves."""
    del dataset
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    ladder, single = figure.subplots(1, 2)
    sizes = np.array(LADDER, float)
    for words, centres, power, colour, marker in (
        ("one cluster, two components", (0.0,), -0.25, SERIES[1], "s"),
        ("two clusters, two components", (-APART, APART), -0.5, SERIES[0], "o"),
    ):
        rungs = [rung(num_rows, centres, seed) for num_rows in LADDER]
        errors = np.array([each.errors for each in rungs])
        middle = np.exp(np.log(errors).mean() + power * (np.log(sizes) - np.log(sizes).mean()))
        ladder.plot(sizes, middle, color=FAINT, linestyle=":" if power > -0.5 else "-.", label=f"slope {power:g}")
        ladder.plot(sizes, errors, color=colour, marker=marker, linestyle="none", label=words)
    ladder.set(xscale="log", yscale="log", xlabel="rows N", ylabel="error of a centre, standard deviations")
    ladder.set_xticks(sizes, [f"{size:,.0f}".replace(",", " ") for size in sizes])
    ladder.set_yticks([0.01, 0.03, 0.1], ["0.01", "0.03", "0.1"])
    ladder.minorticks_off()
    ladder.legend(fontsize=8)
    for number, num_rows in enumerate(LADDER):
        each = rung(num_rows, (0.0,), seed)
        scaled = np.sqrt(num_rows) * each.excess_variances
        name = f"N = {num_rows:,}".replace(",", " ")
        single.scatter(
            scaled, num_rows**0.25 * each.halves, s=9, color=SERIES[number], marker="os^"[number], label=name
        )
    x = np.linspace(-4, 4, 400)
    single.plot(x, np.sqrt(np.maximum(x, 0)), color=INK, linewidth=1.0, label="square root")
    single.set(
        xlabel="√N (sample variance − 1)", ylabel="N^(1/4) × half the distance", title="one cluster, two components"
    )
    single.legend(fontsize=8)
    return figure


CLAIMS = (
    Claim(
        id="G8",
        together="G4",
        title="With a component too many, ten thousand rows are worth a hundred",
        statement=(
            "Two components of known variance and weight are fitted to rows of one cluster. Nothing tells them apart, "
            "and yet the estimate puts them apart whenever the sample variance exceeds 1, by its square root: an error "
            "of N^(−1/2) in the variance is one of N^(−1/4) in the centres. Where there are two clusters it is the "
            "usual N^(−1/2). The slopes are measured over 96 data sets of each size; the tolerance is four of their "
            "standard errors, and in some of the sets SciPy goes on from where EM stops and finds nothing. EM itself "
            "needs of the order of √N steps."
        ),
        formula=r"|\hat\theta - \theta^*| \sim N^{-1/4} \;\; (K = 2,\, K^* = 1), \qquad N^{-1/2} \;\; (K = K^* = 2)",
        source="Dwivedi et al. 2020",
        check=None,
        by_itself=too_many,
        full_by_itself=too_many_full,
        figure=error_figure,
        figure_dataset="one_dimensional",
        figure_caption=(
            r"Left, root mean square error against the number of rows. Right, every data set of one cluster: half the "
            r"distance of the two centres against by how much the sample variance exceeds 1, both scaled by $N$."
        ),
    ),
)
