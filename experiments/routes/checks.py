"""H1 to H7: what else a fit is asked for, each held against plain loops, repetition, conditioning or SciPy.

The loops are those of ``plain_em``; nothing of them knows the engine.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import norm
from scipy.stats import t as student

import probem
from probem.checking.residuals import SAME, excess
from probem.experiments.claims.claim import NO_DATASET, Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.experiments.oracles import plain_em
from probem.models import gmm

COMPONENTS, STEPS = 2, 8
#: Two ways through the same sums, step after step: each passes on the roundings of those before it.
STEPWISE = 1e-8
#: Every third row is enough for plain loops.
EVERY = 3

# NumPyro declares what it returns as anything between a number and an array.
_param: Any = numpyro.param
_sample: Any = numpyro.sample


# --- H1, H2: where there is no closed form, and SciPy goes on from the end ---

#: Nats that SciPy may find above where a fit says CONVERGED.
PROMISED = 1e-6
#: What the rows are multiplied by: another unit changes F by N log(unit), and nothing else.
UNITS = (1e-3, 1.0, 1e3)


def mirrored(x: jax.Array) -> None:
    """Two normal distributions at -m and m, of one scale, equally common: m reaches the rows by its sign."""
    m = _param("m", jnp.ones(()))
    scale = _param("scale", jnp.ones(()), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(probs=jnp.full(2, 0.5)))
        _sample("x", dist.Normal(jnp.stack([-m, m])[t], scale), obs=x)


def heavy_tailed(x: jax.Array) -> None:
    """Two Student t distributions of five degrees of freedom, which are no exponential family."""
    weights = _param("weights", jnp.full(2, 0.5), constraint=dist.constraints.simplex)
    loc = _param("loc", jnp.zeros(2))
    scale = _param("scale", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = _sample("t", dist.Categorical(probs=weights))
        _sample("x", dist.StudentT(5.0, loc[t], scale[t]), obs=x)


def log_density_mirrored(x: np.ndarray, at: np.ndarray) -> float:
    """log p(X) by SciPy at (m, log scale)."""
    both = [norm.logpdf(x, sign * at[0], np.exp(at[1])) for sign in (-1, 1)]
    return float(np.sum(np.asarray(logsumexp(both, axis=0)) - np.log(2)))


def log_density_heavy(x: np.ndarray, at: np.ndarray) -> float:
    """log p(X) by SciPy at (log odds, locations, log scales)."""
    log_weights = -np.logaddexp(0, [at[0], -at[0]])
    both = [student.logpdf(x, 5, at[1 + k], np.exp(at[3 + k])) + log_weights[k] for k in range(2)]
    return float(np.asarray(logsumexp(both, axis=0)).sum())


def free_mirrored(params: Mapping[str, Any]) -> np.ndarray:
    """What ``log_density_mirrored`` is a function of."""
    return np.array([float(params["m"]), np.log(float(params["scale"]))])


def free_heavy(params: Mapping[str, Any]) -> np.ndarray:
    """What ``log_density_heavy`` is a function of."""
    weights = np.asarray(params["weights"], float)
    return np.concatenate([[np.log(weights[1] / weights[0])], params["loc"], np.log(params["scale"])])


@dataclasses.dataclass(frozen=True, eq=False)
class Ended:
    """A fit in one unit of measurement, the free parameters where it stops, and log p(X) by SciPy there and at the
    maximum that SciPy finds from there; nats.
    """

    unit: float
    rows: np.ndarray
    fit: probem.Fit
    at: np.ndarray
    here: float
    best: float

    @property
    def comparable(self) -> float:
        """F as it would be in the first unit: densities of rows in another differ by N log(unit)."""
        return self.fit.elbo + len(self.rows) * math.log(self.unit)


def _ended(
    program: Callable[..., None],
    start: Mapping[str, Any],
    free: Callable[[Mapping[str, Any]], np.ndarray],
    log_density: Callable[[np.ndarray, np.ndarray], float],
    locations: tuple[int, ...],
) -> list[Ended]:
    """A fit in every unit, and what SciPy makes of its end."""
    generator = np.random.default_rng(17)
    x = np.concatenate([generator.normal(-1.5, 1.0, 60), generator.normal(2.0, 0.7, 60)])
    ends = []
    for unit in UNITS:
        rows = unit * x
        scaled = {name: value if name == "weights" else unit * np.asarray(value) for name, value in start.items()}
        fit = probem.fit(program, rows, init=probem.Parameters(scaled), tolerance=1e-13, max_steps=5000, throw=False)
        at = free(fit.params)
        # In units of the rows themselves: otherwise SciPy's own differences would be of another size.
        size = np.ones(len(at))
        size[list(locations)] = unit

        def falling(point: np.ndarray, rows: np.ndarray = rows, size: np.ndarray = size) -> float:
            return -log_density(rows, size * point)

        best = minimize(falling, at / size, method="BFGS", options={"gtol": 1e-9})
        ends.append(Ended(unit, rows, fit, at, log_density(rows, at), -float(best.fun)))
    return ends


@Kept
def mirrored_ends() -> list[Ended]:
    """Of ``mirrored``, whose M-step maximises numerically over statistics."""
    return _ended(mirrored, {"m": 0.5, "scale": 2.0}, free_mirrored, log_density_mirrored, (0,))


@Kept
def heavy_ends() -> list[Ended]:
    """Of ``heavy_tailed``, whose M-step climbs a gradient over all rows."""
    start = {"weights": np.full(2, 0.5), "loc": np.array([-1.0, 1.0]), "scale": np.ones(2)}
    return _ended(heavy_tailed, start, free_heavy, log_density_heavy, (1, 2))


def _goes_on(claim: str, ends: list[Ended]) -> Iterator[Check]:
    """What SciPy finds above where a fit stops, and the same F in every unit."""
    for end in ends:
        fit = end.fit
        yield Check(
            claim,
            NO_DATASET,
            f"unit {end.unit:g}: nats that SciPy finds above where the fit stops",
            excess(end.best, end.here),
            PROMISED,
            {"F": fit.elbo, "log p(X) by SciPy": end.here, "steps": fit.num_steps},
        )
        yield Check(
            claim,
            NO_DATASET,
            f"unit {end.unit:g}: F, and log p(X) by SciPy, relative",
            abs(fit.elbo / end.here - 1),
            SAME,
        )
        yield Check(
            claim,
            NO_DATASET,
            f"unit {end.unit:g}: what is missing from an end as CONVERGED",
            int(fit.result is not probem.Result.CONVERGED),
            0,
            {"result": fit.result.name if fit.result else "none"},
        )
    bounds = np.array([end.comparable for end in ends])
    yield Check(
        claim,
        NO_DATASET,
        "F + N log(unit) in one unit and another (nats)",
        np.abs(bounds - bounds[UNITS.index(1.0)]),
        PROMISED,
    )


def numeric_route(seed: int) -> Iterator[Check]:
    """H1."""
    del seed
    yield from _goes_on("H1", mirrored_ends())


def gradient_route(seed: int) -> Iterator[Check]:
    """H2."""
    del seed
    yield from _goes_on("H2", heavy_ends())


# --- H3 to H7: Gaussian mixtures beside a plain loop, from the same parameters ---


def program() -> Callable[..., None]:
    """A mixture of two normal distributions with covariances of their own."""
    return functools.partial(gmm, num_components=COMPONENTS)


def start_of(rows: np.ndarray, generator: np.random.Generator) -> plain_em.Params:
    """Two rows for locations, the covariance of all, unequal weights."""
    loc = rows[generator.choice(len(rows), COMPONENTS, replace=False)]
    covariance = np.tile(np.cov(rows, rowvar=False), (COMPONENTS, 1, 1))
    return plain_em.Params(np.array([0.4, 0.6]), loc, covariance)


def given(params: plain_em.Params) -> probem.Parameters:
    """These parameters as a start of the engine's."""
    return probem.Parameters({"weights": params.weights, "loc": params.loc, "covariance": params.covariance})


def apart(fit: probem.Fit, params: plain_em.Params) -> list[float]:
    """How far every parameter of a fit is from that of a plain loop, relative to the largest of its kind."""
    pairs = [(fit.params[name], getattr(params, name)) for name in ("weights", "loc", "covariance")]
    return [float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()) for ours, theirs in pairs]


def follow(rows: np.ndarray, params: plain_em.Params, **options: Any) -> list[probem.Fit]:
    """The engine's fit at the start, and after every one of ``STEPS`` iterations."""
    steps = probem.iterate(
        program(), rows, init=given(params), max_steps=STEPS + 1, tolerance=0, throw=False, **options
    )
    return list(steps)


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
    """The engine and a plain loop from one start on rows ``[N, D]``; ``special`` is what the claim is about: weights or
    labels ``[N]``, or the rows without a gap.
    """

    rows: np.ndarray
    fits: list[probem.Fit]
    plain: tuple[plain_em.Iteration, ...]
    special: np.ndarray


def _alike(claim: str, name: str, words: str, both: Followed) -> Iterator[Check]:
    """F and parameters of every iteration on both sides."""
    fits, plain = both.fits, both.plain
    numbers = {"iterations": len(fits), "first F": fits[0].elbo, "last F": fits[-1].elbo}
    pairs = list(zip(fits, plain, strict=False))
    # A fit that ends before the plain loop does is as far from it as can be.
    absent = [np.inf] * abs(len(fits) - len(plain))
    bounds = [abs(fit.elbo / iteration.log_likelihood - 1) for fit, iteration in pairs] + absent
    yield Check(claim, name, f"{words}: F of every iteration, and of a plain loop, relative", bounds, SAME, numbers)
    params = [apart(fit, iteration.params) for fit, iteration in pairs]
    yield Check(claim, name, f"{words}: parameters of every iteration, relative", params, STEPWISE)


def _posed(dataset: Dataset, seed: int) -> tuple[np.ndarray, plain_em.Params, np.random.Generator]:
    rows, generator = dataset.rows[::EVERY], np.random.default_rng(seed)
    return rows, start_of(rows, generator), generator


@Kept
def with_gaps(dataset: Dataset, seed: int) -> Followed:
    """H3: a quarter of the values missing."""
    rows, start, generator = _posed(dataset, seed)
    gaps = np.where(generator.random(rows.shape) < 0.25, np.nan, rows)
    # One row of which nothing is known.
    gaps[0] = np.nan
    return Followed(gaps, follow(gaps, start), plain_em.em(gaps, start, STEPS), rows)


def filled(both: Followed) -> tuple[np.ndarray, np.ndarray]:
    """Rows with every gap filled in, by the engine and by conditioning, ``[N, D]``."""
    return np.asarray(both.fits[-1].impute(both.rows)), plain_em.impute(both.rows, both.plain[-1].params)


def missing_values(dataset: Dataset, seed: int) -> Iterator[Check]:
    """H3."""
    both = with_gaps(dataset, seed)
    yield from _alike("H3", dataset.name, f"{int(np.isnan(both.rows).sum())} values missing", both)
    ours, expected = filled(both)
    yield Check(
        "H3",
        dataset.name,
        "values filled in, and E[missing | there] by conditioning, relative",
        np.abs(ours - expected) / np.abs(expected).max(),
        STEPWISE,
    )


@Kept
def weighted(dataset: Dataset, seed: int) -> Followed:
    """H4: weights on one side, repeated rows on the other."""
    rows, start, generator = _posed(dataset, seed)
    times = generator.integers(0, 4, len(rows))
    plain = plain_em.em(np.repeat(rows, times, axis=0), start, STEPS)
    return Followed(rows, follow(rows, start, row_weights=times), plain, times)


def weights(dataset: Dataset, seed: int) -> Iterator[Check]:
    """H4."""
    yield from _alike("H4", dataset.name, "weights of 0 to 3, and rows repeated so often", weighted(dataset, seed))


@Kept
def labelled(dataset: Dataset, seed: int) -> Followed:
    """H5: some labels known, -1 where they are not."""
    rows, start, generator = _posed(dataset, seed)
    # Labels at random: what the rows themselves say must not win.
    labels = np.where(generator.random(len(rows)) < 0.3, generator.integers(0, COMPONENTS, len(rows)), -1)
    return Followed(rows, follow(rows, start, labels=labels), plain_em.em(rows, start, STEPS, labels), labels)


def known_labels(dataset: Dataset, seed: int) -> Iterator[Check]:
    """H5."""
    both = labelled(dataset, seed)
    yield from _alike("H5", dataset.name, f"{int((both.special >= 0).sum())} labels known", both)


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """Rows in batches, and the engine's fit and a plain running average after each, for one decay."""

    decay: float
    batches: list[np.ndarray]
    fits: list[probem.Fit]
    plain: list[plain_em.Params]


@Kept
def streamed(dataset: Dataset, seed: int) -> list[Stream]:
    """With a decay that forgets and with one that does not; the first batch is fitted as a whole."""
    rows, start, _ = _posed(dataset, seed)
    batches = np.array_split(rows, (len(rows) // 2, 3 * len(rows) // 4))
    first, streams = batches[0], []
    for decay in (0.6, 1.0):
        fits, plain = [follow(first, start)[-1]], [plain_em.em(first, start, STEPS)[-1].params]
        responsibilities, _ = plain_em.e_step(first, plain[-1])
        average, seen = plain_em.moments(first, responsibilities, plain[-1]).scaled(1 / len(first)), len(first)
        for number, batch in enumerate(batches[1:], start=2):
            fits.append(probem.absorb(fits[-1], batch, decay=decay))
            seen += len(batch)
            responsibilities, _ = plain_em.e_step(batch, plain[-1])
            new = plain_em.moments(batch, responsibilities, plain[-1]).scaled(1 / len(batch))
            average = average.mix(new, float(np.minimum(1.0, len(batch) / seen * number ** (1 - decay))))
            plain.append(plain_em.m_step(average))
        streams.append(Stream(decay, batches, fits, plain))
    return streams


def streams(dataset: Dataset, seed: int) -> Iterator[Check]:
    """H6."""
    for stream in streamed(dataset, seed):
        yield Check(
            "H6",
            dataset.name,
            f"decay {stream.decay:g}: parameters after every batch, and of a plain running average, relative",
            [apart(fit, params) for fit, params in zip(stream.fits[1:], stream.plain[1:], strict=True)],
            STEPWISE,
            {"batches": len(stream.batches) - 1, "rows of each": len(stream.batches[1])},
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Restarted:
    """The engine's best of several starts, and a plain loop from each."""

    fit: probem.Fit
    runs: list[tuple[plain_em.Iteration, ...]]


@Kept
def restarted(dataset: Dataset, seed: int) -> Restarted:
    """Four starts."""
    rows, _, generator = _posed(dataset, seed)
    starts = [start_of(rows, generator) for _ in range(4)]
    left = iter(starts)
    fit = probem.fit(
        program(),
        rows,
        init=lambda key, seen: given(next(left)).values,
        restarts=len(starts),
        max_steps=STEPS + 1,
        tolerance=0,
        throw=False,
    )
    return Restarted(fit, [plain_em.em(rows, start, STEPS) for start in starts])


def best_restart(dataset: Dataset, seed: int) -> Iterator[Check]:
    """H7."""
    found = restarted(dataset, seed)
    fit, ends = found.fit, [run[-1] for run in found.runs]
    expected = np.array([end.log_likelihood for end in ends])
    best = int(expected.argmax())
    yield Check(
        "H7",
        dataset.name,
        "F of every start, and of a plain loop from each, relative",
        np.abs(fit.restart_elbos / expected - 1),
        SAME,
        {f"start {number + 1}": float(value) for number, value in enumerate(expected)},
    )
    yield Check(
        "H7",
        dataset.name,
        "F that is returned, and the highest of the plain loops, relative",
        abs(fit.elbo / expected[best] - 1),
        SAME,
        {"best start": best + 1},
    )
    yield Check(
        "H7", dataset.name, "parameters that are returned, and its, relative", apart(fit, ends[best].params), STEPWISE
    )
    yield Check(
        "H7",
        dataset.name,
        "what the lowest of the plain loops lacks to be a nat below the highest, so that there is a choice, and 0",
        excess(1.0 - np.ptp(expected)),
        0,
    )
