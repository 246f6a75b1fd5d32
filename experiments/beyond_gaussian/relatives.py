"""F3: spherical k-means, k-modes and k-medians, as hard EM of three other densities.

Where several levels are as frequent, both sides take the lowest as the mode. Where a whole interval is a median, the
plain loop takes its middle; every point of it costs the same, so that F is compared, and not the median itself. Where a
row is equally near to two centres to rounding, either label is right, and the next step is that from the engine's.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from scipy.special import gammaln, ive

import probem
from probem.checking.residuals import ROUNDING, SAME, excess, violations
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.datasets import load
from probem.mean_field.naturals import NaturalMode

COMPONENTS = 3
#: Concentration of directions; the probability of another level than the mode; and the width of a Laplace density.
CONCENTRATION, NOISE, WIDTH = 8.0, 0.2, 0.5
LEVELS = 4
#: The M-step of directions is numerical: Newton steps until half the Newton decrement is rounding in F, which is
#: quadratic, so that directions have half its digits.
NUMERICAL = 1e-7

Params = Mapping[str, Any]


# --- the densities ---


class VonMisesFisher(dist.Distribution):
    """exp(kappa m'x) C_D(kappa) on the unit sphere, for a unit vector m. NumPyro has it on the circle alone."""

    arg_constraints = {"direction": constraints.real_vector, "concentration": constraints.positive}  # noqa: RUF012
    support: Any = constraints.real_vector
    pytree_data_fields = ("direction", "concentration")

    def __init__(self, direction: Any, concentration: Any, *, validate_args: bool | None = None) -> None:
        self.direction, self.concentration = direction, concentration
        shape = jnp.shape(direction)
        super().__init__(batch_shape=shape[:-1], event_shape=shape[-1:], validate_args=validate_args)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        """Nats, per row."""
        del intermediates
        constant = log_normaliser(self.direction.shape[-1], CONCENTRATION)
        return self.concentration * (self.direction * value).sum(-1) - constant


def log_normaliser(dim: int, concentration: float) -> float:
    """-log C_D(kappa), by SciPy's scaled Bessel function of the first kind."""
    order = dim / 2 - 1
    bessel = float(np.log(ive(order, concentration))) + concentration
    return dim / 2 * np.log(2 * np.pi) + bessel - order * np.log(concentration)


def _equal() -> Any:
    return dist.Categorical(probs=jnp.full(COMPONENTS, 1 / COMPONENTS))


def directions(x: jax.Array) -> None:
    """Von Mises–Fisher densities of one concentration, by ``log_prob``; any vector has a direction."""
    vector: Any = numpyro.param("vector", jnp.ones((COMPONENTS, x.shape[-1])))
    direction = vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", _equal())
        numpyro.sample("x", VonMisesFisher(direction[t], CONCENTRATION), obs=x)


def normal_directions(x: jax.Array) -> None:
    """The same on unit rows but for a constant: normal densities of variance 1 / kappa about points of the sphere."""
    vector: Any = numpyro.param("vector", jnp.ones((COMPONENTS, x.shape[-1])))
    direction = vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", _equal())
        numpyro.sample("x", dist.Normal(direction[t], CONCENTRATION**-0.5).to_event(1), obs=x)


def categories(x: jax.Array) -> None:
    """Independent levels, with a flat prior of their probabilities."""
    with numpyro.plate("components", COMPONENTS):
        prior = dist.Dirichlet(jnp.ones(LEVELS)).expand([x.shape[-1]]).to_event(1)
        probs: Any = numpyro.sample("probs", prior)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", _equal())
        numpyro.sample("x", dist.Categorical(probs=probs[t]).to_event(1), obs=x)


@dataclasses.dataclass(frozen=True)
class Modes(probem.Delta):
    """Point masses of probabilities on one level, but for a noise that all others share: a family for ``probs``."""

    noise: float = NOISE


class ModeSite(NaturalMode, of=Modes):
    """q of ``probs``: the best of those point masses is that of the most frequent level, the lowest of several."""

    def updated(self, natural: jax.Array, old: jax.Array) -> jax.Array:
        assert isinstance(self.family, Modes)
        return noisy(jnp.argmax(natural, axis=-1), self.family.noise).reshape(self.shape).astype(old.dtype)


def noisy(levels: Any, noise: float = NOISE) -> jax.Array:
    """1 - noise at the level, and the rest of it shared by the others."""
    at = jax.nn.one_hot(levels, LEVELS)
    return at * (1 - noise) + (1 - at) * noise / (LEVELS - 1)


def absolute(x: jax.Array) -> None:
    """Laplace densities of one width."""
    loc: Any = numpyro.param("loc", jnp.zeros((COMPONENTS, x.shape[-1])))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", _equal())
        numpyro.sample("x", dist.Laplace(loc[t], WIDTH).to_event(1), obs=x)


# --- the plain side ---


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _mode(part: np.ndarray) -> np.ndarray:
    return np.array([np.bincount(column, minlength=LEVELS).argmax() for column in part.T])


@dataclasses.dataclass(frozen=True)
class Relative:
    """A relative of k-means: its distance and its centre in plain NumPy, and the density of which it is hard EM.

    F at the nearest centres is ``constant(rows) - slope * (the sum of the distances)``.
    """

    name: str
    rows: Callable[[Dataset], np.ndarray]
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray]
    centre: Callable[[np.ndarray], np.ndarray]
    program: Callable[..., None]
    families: Any
    params: Callable[[np.ndarray], Params]
    centres: Callable[[Params], np.ndarray]
    slope: float
    constant: Callable[[np.ndarray], float]

    def table(self, rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """The distance of every row to every centre, ``[N, K]``."""
        return np.stack([self.distance(rows, centre) for centre in centres], axis=1)

    def moved(self, rows: np.ndarray, labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """The centre of the rows of each label; one without rows stays where it is."""
        each = [rows[labels == index] for index in range(len(centres))]
        return np.stack([self.centre(part) if len(part) else old for part, old in zip(each, centres, strict=True)])

    def cluster(self, rows: np.ndarray, centres: np.ndarray) -> list[np.ndarray]:
        """The centres of every iteration, until no label changes."""
        path, labels = [centres], self.table(rows, centres).argmin(axis=1)
        while True:
            path.append(self.moved(rows, labels, path[-1]))
            before, labels = labels, self.table(rows, path[-1]).argmin(axis=1)
            if np.array_equal(before, labels):
                return path

    def bound(self, rows: np.ndarray, centres: np.ndarray) -> float:
        """F of hard EM from the distances alone, nats."""
        return self.constant(rows) - self.slope * float(self.table(rows, centres).min(axis=1).sum())

    def fits(self, rows: np.ndarray, centres: np.ndarray, **options: Any) -> list[probem.Fit]:
        """The engine's iterations from these centres."""
        init = probem.Parameters(self.params(centres))
        steps = probem.iterate(self.program, rows, families=self.families, init=init, throw=False, **options)
        return list(steps)


def _directions_of(dataset: Dataset) -> np.ndarray:
    return _unit((dataset.rows - dataset.rows.mean(axis=0)) / dataset.rows.std(axis=0))


def _levels_of(dataset: Dataset) -> np.ndarray:
    return np.stack([np.searchsorted(np.quantile(column, (0.25, 0.5, 0.75)), column) for column in dataset.rows.T], 1)


_SHARE = -np.log(COMPONENTS)

SPHERICAL = Relative(
    "spherical k-means",
    _directions_of,
    lambda rows, centre: 1 - rows @ centre,
    lambda part: _unit(part.sum(axis=0)),
    normal_directions,
    probem.HARD_EM,
    lambda centres: {"vector": centres},
    lambda params: _unit(np.asarray(params["vector"])),
    CONCENTRATION,
    lambda rows: len(rows) * (_SHARE + rows.shape[1] / 2 * np.log(CONCENTRATION / (2 * np.pi))),
)
FISHER = dataclasses.replace(
    SPHERICAL,
    name="spherical k-means, by von Mises–Fisher’s log_prob",
    program=directions,
    constant=lambda rows: len(rows) * (_SHARE + CONCENTRATION - log_normaliser(rows.shape[1], CONCENTRATION)),
)
MODES = Relative(
    "k-modes",
    _levels_of,
    lambda rows, centre: (rows != centre).sum(axis=1),
    _mode,
    categories,
    probem.HARD_EM | {"probs": Modes()},
    lambda centres: {"probs": np.asarray(noisy(centres))},
    lambda params: np.asarray(params["probs"]).argmax(axis=-1),
    float(np.log((1 - NOISE) * (LEVELS - 1) / NOISE)),
    # The flat prior has the density (LEVELS - 1)! on its simplex.
    lambda rows: (
        len(rows) * (_SHARE + rows.shape[1] * np.log(1 - NOISE)) + COMPONENTS * rows.shape[1] * float(gammaln(LEVELS))
    ),
)
MEDIANS = Relative(
    "k-medians",
    lambda dataset: (dataset.rows - dataset.rows.mean(axis=0)) / dataset.rows.std(axis=0),
    lambda rows, centre: np.abs(rows - centre).sum(axis=1),
    lambda part: np.median(part, axis=0),
    absolute,
    probem.HARD_EM,
    lambda centres: {"loc": centres},
    lambda params: np.asarray(params["loc"]),
    1 / WIDTH,
    lambda rows: len(rows) * (_SHARE - rows.shape[1] * np.log(2 * WIDTH)),
)


def start_of(relative: Relative, rows: np.ndarray, seed: int) -> np.ndarray:
    """Distinct rows as centres, each with a row that is nearer to it than to the others."""
    generator, distinct = np.random.default_rng(seed), np.unique(rows, axis=0)
    while True:
        chosen = distinct[generator.choice(len(distinct), COMPONENTS, replace=False)]
        if len(np.unique(relative.table(rows, chosen).argmin(axis=1))) == COMPONENTS:
            return chosen


def different(table: np.ndarray, labels: np.ndarray) -> int:
    """Rows whose label is not a nearest centre, to rounding, of a table of distances ``[N, K]``."""
    chosen = np.take_along_axis(table, labels[:, None], axis=1)[:, 0]
    return violations(chosen <= table.min(axis=1) + 1e-9)


def relatives(dataset: Dataset, seed: int) -> Iterator[Check]:
    """F3: two of them step by step, the third, known by ``log_prob`` alone, wherever the plain loop passes."""
    for relative, near in ((SPHERICAL, NUMERICAL), (MODES, 0.0)):
        yield from _step_by_step(dataset, relative, near, seed)
    yield from _along(dataset, MEDIANS, seed)


def by_gradient(seed: int) -> Iterator[Check]:
    """F3 in full: von Mises–Fisher’s ``log_prob``, and the M-step of what is known by that alone, along a gradient."""
    yield from _along(load("iris"), FISHER, seed)
    # A sum of absolute values has a corner at every row, and a gradient knows only one side of it.
    for relative, near in ((FISHER, 1e-9), (MEDIANS, 1e-2)):
        yield from _labels_given(load("iris"), relative, near, seed)


def _step_by_step(dataset: Dataset, relative: Relative, near: float, seed: int) -> Iterator[Check]:
    """Every half-step of the engine, and the plain one from where the engine stands."""
    rows = relative.rows(dataset)
    start = start_of(relative, rows, seed)
    fits = relative.fits(rows, start)
    centres = [relative.centres(fit.params) for fit in fits]
    wrong, apart, bounds = 0, [], []
    for fit, now, after in zip(fits, centres, [*centres[1:], None], strict=True):
        labels = np.asarray(fit.predict(rows))
        wrong += different(relative.table(rows, now), labels)
        bounds.append(abs(fit.elbo / relative.bound(rows, now) - 1))
        if after is not None:
            apart.append(np.abs(after - relative.moved(rows, labels, now)).max())
    path = relative.cluster(rows, start)
    name, numbers = dataset.name, {"iterations": len(fits), "iterations of a plain loop": len(path)}
    yield Check("F3", name, f"{relative.name}: labels that are not of a nearest centre, in any iteration", wrong, 0)
    yield Check("F3", name, f"{relative.name}: centres after every M-step, and of a plain loop", apart, near, numbers)
    yield Check("F3", name, f"{relative.name}: F after every E-step, and from distances alone, relative", bounds, SAME)


def _along(dataset: Dataset, relative: Relative, seed: int) -> Iterator[Check]:
    """The engine's E-step and F at every centre of the plain loop."""
    rows = relative.rows(dataset)
    path = relative.cluster(rows, start_of(relative, rows, seed))
    wrong, bounds, values = 0, [], []
    for centres in path:
        (fit,) = relative.fits(rows, centres, max_steps=1, fixed=dict(relative.params(centres)))
        wrong += different(relative.table(rows, centres), np.asarray(fit.predict(rows)))
        bounds.append(abs(fit.elbo / relative.bound(rows, centres) - 1))
        values.append(fit.elbo)
    name, words = dataset.name, f"{relative.name}, at every centre of a plain loop"
    yield Check("F3", name, f"{words}: labels of the engine that are not of a nearest centre", wrong, 0)
    yield Check("F3", name, f"{words}: F of the engine, and from distances alone, relative", bounds, SAME)
    yield Check(
        "F3",
        name,
        f"{words}: by how much F of the engine falls, relative",
        excess(-np.diff(values) / abs(values[0])),
        ROUNDING,
        {"iterations": len(path), "rise (nats)": values[-1] - values[0]},
    )


def _labels_given(dataset: Dataset, relative: Relative, near: float, seed: int) -> Iterator[Check]:
    """The M-step alone: with the labels known, what the engine's ascent finds, and the plain centres."""
    rows = relative.rows(dataset)
    start = start_of(relative, rows, seed)
    labels = relative.table(rows, start).argmin(axis=1)
    options: Any = {"families": relative.families, "labels": labels, "throw": False}
    fit = probem.fit(relative.program, rows, init=probem.Parameters(relative.params(start)), **options)
    plain = relative.moved(rows, labels, start)
    table = relative.table(rows, plain)[np.arange(len(rows)), labels]
    best = relative.constant(rows) - relative.slope * float(table.sum())
    name, words = dataset.name, f"{relative.name}, labels given"
    numbers = {"F of the engine": fit.elbo, "at the plain centres": best, "steps": fit.num_steps}
    yield Check(
        "F3",
        name,
        f"{words}: how far F of the engine is above that at the plain centres, relative",
        excess(fit.elbo - best) / abs(best),
        ROUNDING,
        numbers,
    )
    yield Check(
        "F3", name, f"{words}: how far it is below, for each row (nats)", excess(best - fit.elbo) / len(rows), near
    )
