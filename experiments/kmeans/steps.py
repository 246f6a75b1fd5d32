"""B1 to B4: one half-step of k-means at a time, as EM has it and as the lecture's derivation has it."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import probem
from probem.checking.residuals import violations, worst
from probem.e_step.bound import row_gap
from probem.experiments.claims.claim import NO_DATASET, Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.experiments.oracles.lloyd import means, nearest, squared_distances, starts, tied
from probem.families import Point
from probem.models import diagonal, gmm, kmeans

from .trajectories import distance, hard_em

#: The lecture's posterior, and what its two point masses cost, to the four digits that one would write down.
LECTURE = ((0.4, 0.9163), (0.6, 0.5108))

_COMPONENTS = 3


def lecture_and_random(seed: int) -> Iterator[Check]:
    """B1 by itself: on the lecture's posterior, and on random ones with ties."""
    p, written = np.array(LECTURE).T
    priced = np.array([_divergence(p, index) for index in range(2)])
    yield Check(
        "B1",
        NO_DATASET,
        "the lecture's p = (0.4, 0.6): KL by enumeration against what is written above, 0.9163 and 0.5108",
        np.abs(priced - written),
        5e-5,
        {"KL to cluster 1": float(priced[0]), "KL to cluster 2": float(priced[1]), "closest": int(priced.argmin()) + 1},
    )
    generator = np.random.default_rng(seed)
    for what, table in (
        ("random p", generator.dirichlet(np.ones(5), 200)),
        ("random p with two equal largest entries", _with_ties(generator.dirichlet(np.ones(5), 200), generator)),
    ):
        yield from _prices(NO_DATASET, what, table, generator)


def point_masses(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B1 on posteriors of the rows."""
    table = _posteriors(dataset.rows, seed)
    yield from _prices(dataset.name, "posteriors of the rows", table, np.random.default_rng(seed))


def _prices(name: str, what: str, table: np.ndarray, generator: np.random.Generator) -> Iterator[Check]:
    """What every point mass costs on posteriors ``[n, K]``, and where the engine puts q."""
    enumerated = np.array([[_divergence(row, index) for index in range(len(row))] for row in table])
    # A joint is p times p(x): adding the same number to a row of logarithms must change nothing.
    log_joint = jnp.asarray(np.log(table) + generator.normal(0, 3, (len(table), 1)))
    zeros = jnp.zeros(table.shape[1])
    gap_of = jax.jit(lambda index: row_gap(log_joint, Point(jnp.full(len(table), index), zeros)))
    gaps = [gap_of(index) for index in range(table.shape[1])]
    differences = np.abs(np.stack(gaps, axis=1) - enumerated) / (1 + enumerated)
    yield Check(
        "B1",
        name,
        f"{what}: KL of every point mass by enumeration against −log p and against the engine's gap, relative",
        worst(differences, np.abs(-np.log(table) - enumerated) / (1 + enumerated)),
        # Logarithms of at most a few hundred, and sums of that size, each rounded once or twice.
        1e-13,
        {"rows": len(table)},
    )
    # Equal entries cost the same to the last bit in the enumeration; the engine sees them shifted, still equal.
    chosen = np.asarray(_projected(probem.HARD_EM.assignments, jnp.log(jnp.asarray(table)))).argmax(axis=1)
    yield Check(
        "B1",
        name,
        f"{what}: rows whose closest point mass (lowest index at a tie) is not where the engine puts q",
        violations(chosen == enumerated.argmin(axis=1)),
        0.0,
        {"rows": len(table), "rows with a tie": _count_ties(table)},
    )


@functools.partial(jax.jit, static_argnums=0)
def _projected(family: Any, table: jax.Array) -> jax.Array:
    """Where the engine puts q of this family, ``[n, K]``."""
    return family.project(table).dense()


def _count_ties(p: np.ndarray) -> int:
    return int(((p == p.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())


def _divergence(p: np.ndarray, index: int) -> float:
    """KL(q || p) of a point mass, from its definition."""
    from scipy.special import rel_entr

    return float(rel_entr(np.eye(len(p))[index], p).sum())


def _posteriors(rows: np.ndarray, seed: int) -> np.ndarray:
    """Posteriors of up to 200 rows over five clusters wide enough for every one of them to count, ``[n, 5]``."""
    distances = squared_distances(rows[:: 1 + len(rows) // 200], starts(rows, 5, 1, seed)[0])
    return np.exp(-0.5 * distances / distances.mean()) / np.exp(-0.5 * distances / distances.mean()).sum(
        1, keepdims=True
    )


def _with_ties(p: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    tied_p = p.copy()
    for row in tied_p:
        largest = row.argmax()
        row[generator.choice(np.delete(np.arange(len(row)), largest))] = row[largest]
    return tied_p / tied_p.sum(axis=1, keepdims=True)


@Kept
def joint_and_posterior(dataset: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """log p(x_n, t_n = k) of the program, and log p(t_n = k | x_n) by SciPy's densities and Bayes' rule, ``[N, K]``."""
    from scipy.special import logsumexp
    from scipy.stats import norm

    rows = dataset.rows
    generator = np.random.default_rng(seed)
    spread = np.maximum(rows.std(axis=0), rows.std())
    params = {
        "weights": generator.dirichlet(np.full(_COMPONENTS, 3.0)),
        "loc": starts(rows, _COMPONENTS, 1, seed)[0],
        "scale": spread * generator.uniform(0.5, 2.0, (_COMPONENTS, rows.shape[1])),
    }
    program = functools.partial(gmm, num_components=_COMPONENTS, covariance=diagonal)
    joint = np.asarray(jax.jit(functools.partial(probem.log_joint, program))(params, rows))
    by_hand = np.log(params["weights"]) + norm.logpdf(rows[:, None], params["loc"], params["scale"]).sum(axis=2)
    return joint, by_hand - logsumexp(by_hand, axis=1, keepdims=True)


def normaliser(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B2: the joint from the program, the posterior from SciPy's densities and Bayes' rule."""
    joint, posterior = joint_and_posterior(dataset, seed)
    top = np.sort(joint, axis=1)[:, -2:]
    at_tie = top[:, 1] - top[:, 0] <= 1e-12 * np.abs(top).max(axis=1)
    yield Check(
        "B2",
        dataset.name,
        "rows whose largest posterior is not where their largest joint is",
        violations((joint.argmax(axis=1) == posterior.argmax(axis=1)) | at_tie),
        0.0,
        {"rows": len(joint), "rows at a tie to rounding": int(at_tie.sum())},
    )
    normalisers = joint - posterior
    yield Check(
        "B2",
        dataset.name,
        "log joint − log posterior: how far it is from one number in a row, relative to the log joint",
        np.ptp(normalisers, axis=1) / np.abs(joint).max(axis=1),
        # Both sides are sums of D + 1 terms of the joint's own size at most.
        1e-12,
    )


def anywhere(rows: np.ndarray, seed: int) -> np.ndarray:
    """Four sets of centres drawn about the rows, ``[4, K, D]``."""
    generator = np.random.default_rng((seed, rows.shape[1]))
    return rows.mean(axis=0) + rows.std(axis=0) * generator.standard_normal((4, _COMPONENTS, rows.shape[1]))


def nearest_centre(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B3 on all columns, and on one alone as the article has it: one dimension, sigma = 1."""
    widest = dataset.rows[:, [dataset.rows.std(axis=0).argmax()]]
    alone = (widest, "one column, σ = 1")
    for rows, where in (alone,) if dataset.rows.shape[1] == 1 else ((dataset.rows, "all columns"), alone):
        drawn = anywhere(rows, seed)
        different = at_ties = 0
        for centres in (*drawn, *starts(rows, _COMPONENTS, 2, seed)):
            at_tie = tied(rows, centres)
            expected = nearest(rows, centres)
            different += sum(int(((labels != expected) & ~at_tie).sum()) for labels in both_ways(rows, centres))
            at_ties += int(at_tie.sum())
        yield Check(
            "B3",
            dataset.name,
            f"{where}: rows whose most probable cluster is not that of the nearest centre, over six sets of centres",
            float(different),
            0.0,
            {"rows": len(rows), "rows at a tie to rounding": at_ties},
        )
        # The last centre is the first once more: every row nearest to it is at an exact tie, and belongs to the first.
        centres = drawn[0].copy()
        centres[-1] = centres[0]
        settled = ~tied(rows, centres[:-1])
        expected = nearest(rows, centres)
        by_program, by_engine = both_ways(rows, centres)
        # The program gives both copies the same number. The engine's matrix product may round the two differently, and
        # then either copy is the nearest centre.
        later = by_engine == len(centres) - 1
        wrong = (by_program != expected) | (np.where(later, 0, by_engine) != expected)
        yield Check(
            "B3",
            dataset.name,
            f"{where}: the same with one centre given twice, where every such tie must go to the lower index",
            float((wrong & settled).sum()),
            0.0,
            {
                "rows at an exact tie": int((settled & (expected == 0)).sum()),
                "of them at a tie to rounding in the engine": int((later & settled).sum()),
            },
        )


def log_joint(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """log p(x_n, t_n = k) of the k-means program, ``[N, K]``."""
    return np.asarray(_table_of(kmeans, len(centres))({"loc": centres}, rows))


@functools.cache
def _table_of(program: Callable[..., None], num_components: int) -> Callable[..., jax.Array]:
    """``probem.log_joint`` of a program with so many components, compiled."""
    return jax.jit(functools.partial(probem.log_joint, functools.partial(program, num_components=num_components)))


def both_ways(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most probable cluster by the program's own table, and by the E-step of the engine."""
    program = functools.partial(kmeans, num_components=len(centres))
    table = log_joint(rows, centres)
    labels = np.asarray(_projected(probem.HARD_EM.assignments, jnp.asarray(table))).argmax(axis=1)
    return labels, hard_em(program, rows, {"loc": centres}, max_steps=1).iterations[0].labels


@dataclasses.dataclass(frozen=True, eq=False)
class Maximum:
    """F as a function of the centres, with the labels of the first E-step, and where its maximum should be.

    ``bound_and_slope`` maps the centres ``[K D]`` in one vector to F and its gradient; ``start``, ``after`` (an M-step
    of the engine) and ``averages`` (a plain loop) are centres ``[K, D]``, ``counts`` the rows of each cluster.
    """

    bound_and_slope: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    start: np.ndarray
    after: np.ndarray
    averages: np.ndarray
    counts: np.ndarray


@Kept
def maximum(dataset: Dataset, seed: int) -> Maximum:
    """One E-step and one M-step, by the engine, by hand and by automatic differentiation of the program."""
    rows = dataset.rows
    centres = starts(rows, _COMPONENTS, 2, seed)[1]
    program = functools.partial(kmeans, num_components=_COMPONENTS)
    first, second = hard_em(program, rows, {"loc": centres}, max_steps=2).iterations
    point_mass = jnp.asarray(np.eye(_COMPONENTS)[first.labels])

    def bound(flat: jax.Array) -> jax.Array:
        return probem.elbo(program, {"loc": flat.reshape(centres.shape)}, point_mass, jnp.asarray(rows)).elbo

    counts = np.bincount(first.labels, minlength=_COMPONENTS)
    averages = means(rows, first.labels, centres)
    return Maximum(jax.jit(jax.value_and_grad(bound)), centres, second.centres, averages, counts)


def mean_is_the_maximum(dataset: Dataset, seed: int) -> Iterator[Check]:
    """B4: gradient and Hessian of F in the centres, by automatic differentiation of the program."""
    rows, found = dataset.rows, maximum(dataset, seed)
    centres, averages, counts = found.start, found.averages, found.counts

    def gradient(flat: jax.Array) -> jax.Array:
        return found.bound_and_slope(flat)[1]

    yield Check(
        "B4",
        dataset.name,
        "the centres after the engine's M-step against the means of the rows assigned, relative",
        distance(found.after, averages),
        # Sums of up to N rows, in two orders.
        1e-12,
        {"rows": len(rows)},
    )
    by_hand = counts[:, None] * (averages - centres)
    slope = np.asarray(gradient(jnp.asarray(centres.ravel()))).reshape(centres.shape)
    yield Check(
        "B4",
        dataset.name,
        "∂F/∂μ_c at the start, by automatic differentiation, against N_c (mean − μ_c), relative",
        distance(slope, by_hand),
        1e-12,
        {"largest entry": float(np.abs(by_hand).max())},
    )
    yield Check(
        "B4",
        dataset.name,
        "∂F/∂μ_c at the means, by automatic differentiation, against zero, relative to N max|x|",
        np.abs(gradient(jnp.asarray(averages.ravel()))) / (len(rows) * np.abs(rows).max()),
        1e-14,
    )
    # One direction at a time: for the digits all at once would fill half a gigabyte.
    columns = jax.jit(lambda at: jax.lax.map(lambda e: jax.jvp(gradient, (at,), (e,))[1], jnp.eye(at.size)))
    hessian = np.asarray(columns(jnp.asarray(averages.ravel())))
    expected = -np.diag(np.repeat(counts, rows.shape[1]).astype(float))
    yield Check(
        "B4",
        dataset.name,
        "the Hessian of F at the means against −N_c on the diagonal (so every eigenvalue is negative), relative",
        worst(np.abs(hessian - expected) / len(rows)) + violations(np.linalg.eigvalsh(hessian) < 0),
        1e-14,
        {"largest eigenvalue": float(np.linalg.eigvalsh(hessian).max()), "smallest cluster": int(counts.min())},
    )
