"""F2: the closed forms that are read off a program, and a numerical maximisation of the same sum."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to, constraints
from scipy.optimize import minimize
from scipy.special import softmax

import probem
from probem.checking.residuals import ROUNDING, SAME, excess, violations
from probem.experiments.claims.claim import NO_DATASET, Check

COMPONENTS, ROWS, DIM, LEVELS = 2, 40, 2, 3
#: BFGS stops where no slope is above 1e-7, or where rounding hides what is left: log densities of rows are as exact as
#: slope over curvature, which is at least one row, times how steep the density of a row is.
NEAR = 1e-5

Generator = np.random.Generator


@dataclasses.dataclass(frozen=True, eq=False)
class Written:
    """One way of writing a distribution: the constraint and the shape of every argument, and how rows are drawn.

    ``shared`` arguments are the same for all components.
    """

    name: str
    distribution: Callable[..., dist.Distribution]
    arguments: Mapping[str, tuple[Any, tuple[int, ...]]]
    draw: Callable[[Generator, int], np.ndarray]
    shared: tuple[str, ...] = ()

    def named(self, argument: str) -> str:
        """The name of the parameter that is this argument."""
        return f"{self.name}: {argument}"

    def shape(self, argument: str) -> tuple[int, ...]:
        """The shape of a parameter, with an axis for the components unless they share it."""
        event = self.arguments[argument][1]
        return event if argument in self.shared else (COMPONENTS, *event)

    def components(self, params: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The arguments of all components, ``[K, ...]``."""
        values = {argument: params[self.named(argument)] for argument in self.arguments}
        return {
            argument: jnp.broadcast_to(value, (COMPONENTS, *self.arguments[argument][1]))
            for argument, value in values.items()
        }


_REAL, _POSITIVE, _MATRIX = constraints.real, constraints.positive, constraints.positive_definite


def _vectors(generator: Generator, count: int) -> np.ndarray:
    return generator.standard_normal((count, DIM)) @ np.array([[1.0, 0.4], [0.0, 0.6]]) + [1.0, -2.0]


def _multivariate(matrix: str, shared: tuple[str, ...] = ()) -> Written:
    arguments = {"loc": (constraints.real_vector, (DIM,)), matrix: (_MATRIX, (DIM, DIM))}
    name = f"multivariate normal, {'shared ' * bool(shared)}{matrix.replace('_', ' ')}"
    return Written(name, dist.MultivariateNormal, arguments, _vectors, shared)


#: Every distribution with a closed form, once ...
ONCE = (
    Written(
        "normal",
        dist.Normal,
        {"loc": (_REAL, ()), "scale": (_POSITIVE, ())},
        lambda generator, count: 2 + 3 * generator.standard_normal(count),
    ),
    _multivariate("covariance_matrix"),
    Written(
        "categorical, probs",
        dist.CategoricalProbs,
        {"probs": (constraints.simplex, (LEVELS,))},
        lambda generator, count: generator.integers(LEVELS, size=count),
    ),
    Written(
        "Bernoulli, probs",
        dist.BernoulliProbs,
        {"probs": (constraints.unit_interval, ())},
        lambda generator, count: generator.integers(2, size=count),
    ),
    Written(
        "Poisson", dist.Poisson, {"rate": (_POSITIVE, ())}, lambda generator, count: generator.poisson(3.0, size=count)
    ),
    Written(
        "exponential",
        dist.Exponential,
        {"rate": (_POSITIVE, ())},
        lambda generator, count: generator.exponential(0.4, size=count),
    ),
    Written(
        "gamma",
        dist.Gamma,
        {"concentration": (_POSITIVE, ()), "rate": (_POSITIVE, ())},
        lambda generator, count: generator.gamma(2.5, 0.7, size=count),
    ),
)
#: ... and the other ways of writing one, or of sharing an argument.
OTHERWISE = (
    Written(
        "normal, shared scale",
        dist.Normal,
        {"loc": (_REAL, ()), "scale": (_POSITIVE, ())},
        lambda generator, count: 3 * generator.standard_normal(count),
        ("scale",),
    ),
    _multivariate("precision_matrix"),
    _multivariate("covariance_matrix", shared=("covariance_matrix",)),
    Written(
        "categorical, logits",
        dist.CategoricalLogits,
        {"logits": (constraints.real_vector, (LEVELS,))},
        lambda generator, count: generator.integers(LEVELS, size=count),
    ),
    Written(
        "Bernoulli, logits",
        dist.BernoulliLogits,
        {"logits": (_REAL, ())},
        lambda generator, count: generator.integers(2, size=count),
    ),
)

Params = Mapping[str, Any]


def mixture(x: Mapping[str, jax.Array], *, written: tuple[Written, ...]) -> None:
    """One mixture of them all: an observed site for each, one assignment."""
    weights: Any = numpyro.param("weights", jnp.full(COMPONENTS, 1 / COMPONENTS), constraint=constraints.simplex)
    values: dict[str, Any] = {}
    for each in written:
        for argument, (constraint, event) in each.arguments.items():
            initial = jnp.broadcast_to(_middle(constraint, event), each.shape(argument))
            values[each.named(argument)] = numpyro.param(each.named(argument), initial, constraint=constraint)
    assignment: Any = dist.Categorical(probs=weights)
    with numpyro.plate("data", next(iter(x.values())).shape[0]):
        t = numpyro.sample("t", assignment)
        for each in written:
            arguments = {
                argument: values[each.named(argument)][... if argument in each.shared else t]
                for argument in each.arguments
            }
            numpyro.sample(each.name, each.distribution(**arguments), obs=x[each.name])


def _middle(constraint: Any, event: tuple[int, ...]) -> np.ndarray:
    """A value that is allowed."""
    if constraint == _MATRIX:
        return np.eye(event[-1])
    if constraint == constraints.simplex:
        return np.full(event, 1 / event[-1])
    return np.full(event, 0.0 if constraint in (_REAL, constraints.real_vector) else 0.5)


def draw_params(written: tuple[Written, ...], generator: Generator) -> dict[str, np.ndarray]:
    """Random values of every parameter."""
    params = {"weights": generator.dirichlet(np.full(COMPONENTS, 5.0))}
    for each in written:
        for argument, (constraint, event) in each.arguments.items():
            noise = 0.5 * generator.standard_normal(each.shape(argument))
            if constraint == _MATRIX:
                value = np.eye(event[-1]) + noise @ np.swapaxes(noise, -1, -2)
            elif constraint == constraints.simplex:
                value = softmax(noise, axis=-1)
            elif constraint == constraints.unit_interval:
                value = 1 / (1 + np.exp(-noise))
            else:
                value = np.exp(noise) if constraint == _POSITIVE else noise
            params[each.named(argument)] = value
    return params


def transforms(written: tuple[Written, ...]) -> dict[str, Any]:
    """For every parameter NumPyro's map from numbers without constraints."""
    pairs = {each.named(argument): each.arguments[argument][0] for each in written for argument in each.arguments}
    return {name: biject_to(constraint) for name, constraint in {"weights": constraints.simplex, **pairs}.items()}


def tables(written: tuple[Written, ...], params: Params, x: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """log p(x_n | t_n = k) of every site by NumPyro's densities, and log p(t_n = k), ``[N, K]`` each."""
    result: dict[str, Any] = {"weights": jnp.broadcast_to(jnp.log(params["weights"]), (ROWS, COMPONENTS))}
    for each in written:
        density, rows = each.distribution(**each.components(params)), x[each.name]
        result[each.name] = density.log_prob(rows.reshape(ROWS, 1, *rows.shape[1:]))
    return result


@dataclasses.dataclass(frozen=True)
class Posed:
    """One M-step: the q that it is given, the engine's parameters after it, and the sum that it maximises.

    Parameters are one vector without constraints. ``falling`` is minus the sum of q log p over all rows, components and
    sites there, its gradient, and the table of every site.
    """

    q: np.ndarray
    start: np.ndarray
    ours: np.ndarray
    updates: Mapping[str, str]
    falling: Callable[[np.ndarray], tuple[float, np.ndarray, dict[str, np.ndarray]]]

    def terms(self, at: np.ndarray) -> dict[str, float]:
        """The sum, site by site, nats."""
        return {name: float((self.q * table).sum()) for name, table in self.falling(at)[2].items()}


@functools.cache
def pose(seed: int, written: tuple[Written, ...]) -> Posed:
    """Random rows, random parameters, the posterior at these, and what the engine makes of it."""
    generator = np.random.default_rng(seed)
    rows = {each.name: each.draw(generator, ROWS) for each in written}
    start, x = draw_params(written, generator), {name: jnp.asarray(value) for name, value in rows.items()}
    program = functools.partial(mixture, written=written)
    options: Any = {"families": probem.EM, "max_steps": 2, "tolerance": 0, "throw": False}
    _, fit = probem.iterate(program, rows, init=probem.Parameters(start), **options)
    updates = {row.site: row.update for row in probem.explain(program, rows).rows if row.site in start}
    to_constrained = transforms(written)
    shapes = {name: to_constrained[name].inverse_shape(value.shape) for name, value in start.items()}
    unravel = ravel_pytree({name: np.zeros(shape) for name, shape in shapes.items()})[1]

    @jax.jit
    def free(params: Params) -> jax.Array:
        return ravel_pytree({name: to_constrained[name].inv(value) for name, value in params.items()})[0]

    @jax.jit
    def falling(at: jax.Array, q: jax.Array) -> tuple[tuple[jax.Array, dict[str, jax.Array]], jax.Array]:
        def value(at: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
            params = {name: to_constrained[name](value) for name, value in unravel(at).items()}
            each = tables(written, params, x)
            return -(q * sum(each.values())).sum(), each

        return jax.value_and_grad(value, has_aux=True)(at)

    first, ours = (np.asarray(free({name: params[name] for name in start})) for params in (start, fit.params))
    before = falling(jnp.asarray(first), jnp.zeros((ROWS, COMPONENTS)))[0][1]
    q = softmax(np.asarray(sum(before.values())), axis=1)

    def at_q(at: np.ndarray) -> tuple[float, np.ndarray, dict[str, np.ndarray]]:
        (loss, each), slope = falling(jnp.asarray(at), jnp.asarray(q))
        return float(loss), np.asarray(slope), {name: np.asarray(table) for name, table in each.items()}

    return Posed(q, first, ours, updates, at_q)


def closed_forms(seed: int, written: tuple[Written, ...] = ONCE) -> Iterator[Check]:
    """F2."""
    posed = pose(seed, written)
    words = f"{len(written)} observed sites of one mixture"
    by_scipy = minimize(
        lambda at: posed.falling(at)[:2], posed.start, jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 2000}
    )
    loss, slope, ours = posed.falling(posed.ours)
    theirs = posed.falling(by_scipy.x)[2]
    names = [each.name for each in written]
    numbers = {"rows": ROWS, "free numbers": len(posed.ours), "steps of BFGS": by_scipy.nit}
    yield Check(
        "F2",
        NO_DATASET,
        f"{words}: parameters that are not updated in closed form",
        violations([update.startswith("closed form") for update in posed.updates.values()]),
        0,
        {"sites": "; ".join(names)},
    )
    yield Check(
        "F2",
        NO_DATASET,
        f"{words}: slope of Σ q log p at the closed forms, by automatic differentiation, for each row (nats)",
        np.abs(slope) / ROWS,
        SAME,
        numbers,
    )
    rises = {name: float((posed.q * (theirs[name] - ours[name])).sum()) for name in ours}
    yield Check(
        "F2",
        NO_DATASET,
        f"{words}: how far SciPy’s maximum of Σ q log p is above, the highest of all sites, relative to the sum",
        excess(list(rises.values())) / abs(loss),
        ROUNDING,
    )
    apart = {name: float(np.abs(theirs[name] - ours[name]).max()) for name in ours}
    yield Check(
        "F2",
        NO_DATASET,
        f"{words}: log p(x | t) of every row, with the parameters of both (nats)",
        list(apart.values()),
        NEAR,
        apart,
    )


def every_way(seed: int) -> Iterator[Check]:
    """F2, also with every other way of writing."""
    return closed_forms(seed, ONCE + OTHERWISE)
