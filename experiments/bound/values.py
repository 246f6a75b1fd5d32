"""A1, A2, A5, A6: what the bound is, at one q and one theta.

F comes from the engine; the other side from NumPyro's densities (``mixtures``) or its own bounds, and from NumPy.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import Trace_ELBO, TraceEnum_ELBO
from scipy.special import log_softmax, softmax, xlogy

import probem
from probem.checking.residuals import ROUNDING, SAME, excess, relative
from probem.experiments.claims.claim import Check, Dataset
from probem.experiments.claims.kept import Kept
from probem.experiments.oracles.mixtures import CONSTRAINTS, MIXTURES, Params, Problem, pose


def bounds(problem: Problem, params: Params, assignments: Sequence[np.ndarray]) -> np.ndarray:
    """F of the engine for each of several q [N, K], nats."""
    return np.asarray(jax.jit(_bounds_of(problem))(dict(params), np.stack(assignments), problem.rows))


def _bounds_of(problem: Problem) -> Callable[[Params, jax.Array, jax.Array], jax.Array]:
    def of(params: Params, assignments: jax.Array, rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda q: probem.elbo(problem.program, params, q, rows).elbo)(assignments)

    return of


def divergence(q: np.ndarray, log_posterior: np.ndarray) -> float:
    """sum_n KL(q_n || posterior_n), nats."""
    return float((xlogy(q, q) - q * log_posterior).sum())


def random_assignments(generator: np.random.Generator, num_rows: int, num_components: int) -> Iterator[np.ndarray]:
    """q [N, K] from nearly uniform to nearly certain, and a point mass."""
    for concentration in (20.0, 1.0, 0.05):
        yield generator.dirichlet(np.full(num_components, concentration), num_rows)
    yield np.eye(num_components)[generator.integers(num_components, size=num_rows)]


def bound_and_gap(dataset: Dataset, seed: int) -> Iterator[Check]:
    """A1, for every program of ``models/``."""
    for number, mixture in enumerate(MIXTURES):
        problem = pose(dataset, seed + number, mixture)

        # One compilation for each program, but not one for all: XLA 0.10 can wait for itself in a program so large.
        @jax.jit
        def sides(
            params: Params, assignments: jax.Array, rows: jax.Array, problem: Problem = problem
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            distribution = problem.mixture.distribution(params, problem.num_components)
            evidence, table = distribution.log_prob(rows).sum(), distribution.component_log_probs(rows)
            return evidence, table, _bounds_of(problem)(params, assignments, rows)

        generator = np.random.default_rng([seed, number])
        assignments = list(random_assignments(generator, len(problem.rows), problem.num_components))
        evidence, table, values = sides(problem.params, np.stack(assignments), problem.rows)
        log_posterior = log_softmax(np.asarray(table), axis=1)
        gaps = [divergence(q, log_posterior) for q in assignments]
        residuals = [
            relative(float(evidence), float(f) + gap, float(f), gap) for f, gap in zip(values, gaps, strict=True)
        ]
        # The place of the largest; not a number is larger than any.
        largest = int(np.argmax(residuals))
        yield Check(
            "A1",
            dataset.name,
            f"{mixture.name}: log p(X) by NumPyro, and F + KL for {len(assignments)} random q",
            residuals,
            SAME,
            {"log p(X)": float(evidence), "F": float(values[largest]), "sum of KL": gaps[largest]},
        )


#: What ``perturbations`` do to q, in turn.
KINDS = ("towards a random q", "towards a random corner", "flatter, a power below 1", "sharper, a power above 1")


def perturbations(generator: np.random.Generator, q: np.ndarray) -> Iterator[np.ndarray]:
    """Steps from q [N, K] towards random points of the simplex, and powers of q, from tiny to whole."""
    for step in (1e-4, 1e-3, 1e-2, 0.1, 0.5, 1.0):
        for concentration in (1.0, 0.1):
            yield (1 - step) * q + step * generator.dirichlet(np.full(q.shape[1], concentration), len(q))
        for power in (1 - 0.9 * step, 1 + step):
            yield softmax(power * np.log(np.maximum(q, 1e-300)), axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Perturbed:
    """The E-step's q ``[N, K]`` and its fit; of every other q, in the order of ``KINDS`` over and over: how far it is
    from the posterior (total variation, on average over the rows), and what F has above that of the E-step (nats).
    """

    problem: Problem
    fit: probem.Fit
    q: np.ndarray
    distances: np.ndarray
    changes: np.ndarray


@Kept
def perturbed(dataset: Dataset, seed: int) -> Perturbed:
    """The posterior, and q near it and far from it."""
    problem = pose(dataset, seed)
    start = probem.Parameters(problem.params)
    fit = probem.fit(problem.program, problem.rows, init=start, max_steps=1, throw=False)
    q = np.asarray(fit.responsibilities(problem.rows))
    others = list(perturbations(np.random.default_rng(seed), q))
    distances = np.array([np.abs(other - q).sum() / 2 / len(q) for other in others])
    return Perturbed(problem, fit, q, distances, bounds(problem, problem.params, others) - fit.elbo)


def posterior_is_best(dataset: Dataset, seed: int) -> Iterator[Check]:
    """A2."""
    near = perturbed(dataset, seed)
    problem, fit, q, changes = near.problem, near.fit, near.q, near.changes
    evidence = problem.log_likelihood(problem.params)
    posterior = softmax(problem.log_joint(problem.params), axis=1)
    yield Check("A2", dataset.name, "q of the E-step, and Bayes’ rule", np.abs(q - posterior), SAME)
    yield Check(
        "A2",
        dataset.name,
        "F after the E-step, and log p(X) by NumPyro",
        relative(fit.elbo, evidence),
        SAME,
        {"F": fit.elbo, "log p(X)": evidence},
    )
    # The gap adds up terms of either sign that cancel row by row.
    yield Check("A2", dataset.name, "the gap after the E-step, and 0", abs(fit.gap(problem.rows) / fit.elbo), ROUNDING)
    yield Check(
        "A2",
        dataset.name,
        "the most by which another q raises F, and 0",
        excess(changes) / abs(fit.elbo),
        ROUNDING,
        {"other q": len(changes), "nearest change of F (nats)": float(changes.max()), "farthest": float(changes.min())},
    )


Gradient = Callable[[Params], np.ndarray]


def gradients(problem: Problem) -> tuple[Gradient, Gradient]:
    """Of log p(X), through NumPyro's mixture; and E_posterior of that of log p(X, T), through the program's table.

    Both by autodiff, in unconstrained space, so that weights need no Lagrange multiplier; one vector each.
    """
    to = {name: biject_to(CONSTRAINTS[name]) for name in problem.params}

    def values(free: Params) -> dict[str, Any]:
        return {name: to[name](value) for name, value in free.items()}

    @jax.jit
    @jax.grad
    def marginal(free: Params, rows: jax.Array) -> jax.Array:
        return problem.mixture.distribution(values(free), problem.num_components).log_prob(rows).sum()

    @jax.jit
    @jax.grad
    def joint(free: Params, rows: jax.Array, posterior: jax.Array) -> jax.Array:
        return (posterior * probem.log_joint(problem.program, values(free), rows)).sum()

    def vector(gradient: Any, params: Params, *rest: Any) -> np.ndarray:
        free = {name: to[name].inv(jnp.asarray(value)) for name, value in params.items()}
        slopes = gradient(free, problem.rows, *rest)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(slopes)])

    return (
        lambda params: vector(marginal, params),
        lambda params: vector(joint, params, softmax(problem.log_joint(params), axis=1)),
    )


#: The slope of log p(X) where EM stops, the start being 1: F no longer rises in its sixteen digits there, and a slope
#: is like the root of a rise.
STANDSTILL = 1e-5


@dataclasses.dataclass(frozen=True, eq=False)
class Slopes:
    """Both gradients at the start, one entry for every free parameter, and EM from there to where it stops."""

    problem: Problem
    of_marginal: Gradient
    marginal: np.ndarray
    joint: np.ndarray
    fit: probem.Fit

    def after(self, num_steps: int) -> float:
        """The largest entry of the gradient of log p(X) after so many iterations of EM."""
        return float(np.abs(self.of_marginal(_em(self.problem, num_steps).params)).max())


def _em(problem: Problem, num_steps: int) -> probem.Fit:
    start = probem.Parameters(problem.params)
    return probem.fit(problem.program, problem.rows, init=start, max_steps=num_steps, tolerance=1e-16, throw=False)


@Kept
def slopes(dataset: Dataset, seed: int) -> Slopes:
    """Of log p(X) and of the complete data, and EM."""
    problem = pose(dataset, seed)
    of_marginal, of_joint = gradients(problem)
    marginal, joint = of_marginal(problem.params), of_joint(problem.params)
    return Slopes(problem, of_marginal, marginal, joint, _em(problem, 20_000))


def fisher_identity(dataset: Dataset, seed: int) -> Iterator[Check]:
    """A5."""
    both = slopes(dataset, seed)
    marginal, joint, fit = both.marginal, both.joint, both.fit
    size = float(np.abs(marginal).max())
    yield Check(
        "A5",
        dataset.name,
        "gradient of log p(X), and E[gradient of log p(X, T)]",
        np.abs(marginal - joint) / size,
        SAME,
        {"parameters": len(marginal), "largest entry": size},
    )
    rest = float(np.abs(both.of_marginal(fit.params)).max())
    yield Check(
        "A5",
        dataset.name,
        "gradient of log p(X) where EM stops, relative to the start, and 0",
        rest / size,
        STANDSTILL,
        {"iterations": fit.num_steps, "largest entry at the start": size, "where EM stops": rest},
    )


# Draws of T for the Monte Carlo estimate.
DRAWS = 100

Model = Callable[..., Any]


def empty_guide(rows: jax.Array) -> None:
    """A guide that leaves every site to the model."""


def computed(guide: Model, rows: jax.Array) -> Model:
    """The guide with its q computed once, so that NumPyro's bounds can be compiled around it."""
    site = handlers.trace(handlers.seed(guide, 0)).get_trace(rows)["t"]
    q: Any = site["fn"]
    if q.has_enumerate_support:
        q = dist.Categorical(logits=q.log_prob(q.enumerate_support()).T)

    def constant(rows: jax.Array) -> None:
        with numpyro.plate("data", len(rows)):
            numpyro.sample("t", q, infer=site["infer"])

    return constant


def enumerated(model: Model, guide: Model, rows: jax.Array) -> Callable[[Params], float]:
    """NumPyro's F as a function of the parameters, the discrete sites of model and guide enumerated; nats."""
    bound = jax.jit(
        lambda params: -TraceEnum_ELBO(max_plate_nesting=1).loss(jax.random.key(0), params, model, guide, rows)
    )
    return lambda params: float(bound(dict(params)))


def drawn(params: Params, model: Model, guide: Model, rows: jax.Array, seed: int) -> np.ndarray:
    """NumPyro's estimates of F from one draw of T each, ``[DRAWS]``, nats."""

    @jax.jit
    def losses(params: dict[str, Any], keys: jax.Array) -> Any:
        return jax.lax.map(lambda key: Trace_ELBO().loss(key, params, model, guide, rows), keys)

    return -np.asarray(losses(dict(params), jax.random.split(jax.random.key(seed), DRAWS)))


@dataclasses.dataclass(frozen=True, eq=False)
class Guides:
    """F by NumPyro and by the engine under several guides, and of the last guide what single draws of T estimate.

    ``error`` is the standard error of their mean, by enumeration.
    """

    names: tuple[str, ...]
    theirs: tuple[float, ...]
    ours: tuple[float, ...]
    draws: np.ndarray
    error: float


@Kept
def guides(dataset: Dataset, seed: int) -> Guides:
    """The guides of A6, each under NumPyro's bound and under the engine's."""
    try:
        from numpyro.contrib.funsor import config_enumerate
    except ImportError as missing:
        raise ImportError(
            "claim A6 enumerates with NumPyro, which needs the package funsor: pip install funsor"
        ) from missing
    problem = pose(dataset, seed)
    program, rows, start = problem.program, jnp.asarray(problem.rows), probem.Parameters(problem.params)
    soft, hard, first = (
        probem.fit(program, rows, families={"t": family}, init=start, max_steps=max_steps, throw=False)
        for family, max_steps in ((probem.Categorical(), 5), (probem.Delta(), 5), (probem.Categorical(), 1))
    )
    # q of one theta under another is no posterior: draws of log p(X, T) - log q(T) vary. The q of the start is spread
    # wide, so that their sum over the rows is nearly normal.
    params, q = pose(dataset, seed + 1).params, np.asarray(first.responsibilities(rows))
    guide = computed(first.guide(), rows)
    theirs = (
        enumerated(config_enumerate(program), empty_guide, rows)(soft.params),
        enumerated(program, computed(hard.guide(), rows), rows)(hard.params),
        enumerated(program, computed(soft.guide(), rows), rows)(soft.params),
        enumerated(program, guide, rows)(params),
    )
    ours = (
        float(soft.log_density(rows).sum()),
        hard.elbo,
        soft.elbo,
        float(bounds(problem, params, [q])[0]),
    )
    drop = problem.log_joint(params) - np.log(np.maximum(q, 1e-300))
    variance = float(((q * drop**2).sum(1) - (q * drop).sum(1) ** 2).sum())
    names = ("an empty guide", "the guide of hard EM", "the guide of soft EM", "a guide that is not the posterior")
    return Guides(names, theirs, ours, drawn(params, program, guide, rows, seed), (variance / DRAWS) ** 0.5)


def numpyros_own(dataset: Dataset, seed: int) -> Iterator[Check]:
    """A6."""
    found = guides(dataset, seed)
    for name, theirs, ours in zip(found.names, found.theirs, found.ours, strict=True):
        what = "log p(X)" if name == found.names[0] else "ours"
        numbers = {"NumPyro": theirs, "probem": ours}
        compared = f"{name}: NumPyro’s F, and {what}"
        yield Check("A6", dataset.name, compared, relative(theirs, ours), SAME, numbers)
    mean, ours = float(found.draws.mean()), found.ours[-1]
    yield Check(
        "A6",
        dataset.name,
        f"the same by {DRAWS} draws of T: distance from F in standard errors",
        abs(mean - ours) / found.error,
        # By chance alone once in 16 000 seeds.
        4.0,
        {"Monte Carlo": mean, "standard error": found.error, "F": ours},
    )
