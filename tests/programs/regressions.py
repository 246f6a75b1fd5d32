"""Mixtures of regressions of many shapes, in the style of tutorials, and the route of every parameter of theirs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from tests.programs.example import weights_param

_RANDOM = np.random.default_rng(5)
GROUP = np.arange(120) % 2
X = _RANDOM.normal(size=(120, 2))
TIME = _RANDOM.uniform(-1.0, 1.0, size=120)
KIND = _RANDOM.integers(0, 3, size=120)
SLOPES = np.array([[-2.0, 0.5], [2.0, 1.0]])
Y = np.array([1.0, -1.0])[GROUP] + (SLOPES[GROUP] * X).sum(1) + 0.4 * _RANDOM.normal(size=120)
CURVE = np.array([[1.0, 2.0, 0.5], [-1.0, 0.3, -2.0]])[GROUP]
Z = CURVE[:, 0] + CURVE[:, 1] * TIME + CURVE[:, 2] * TIME**2 + 0.3 * _RANDOM.normal(size=120)
PAIR = np.stack([Y, X @ [1.0, -1.0] + 0.5 * _RANDOM.normal(size=120)], 1)
GROUPED = np.array([[0.0, 2.0, 4.0], [1.0, -1.0, -3.0]])[GROUP, KIND] + 0.3 * _RANDOM.normal(size=120)


def normal(name: str, shape: tuple[int, ...], scale: float = 3.0) -> jax.Array:
    """A site of coefficients with a normal prior."""
    return numpyro.sample(name, dist.Normal(jnp.zeros(shape), scale).to_event(len(shape)))


def real(name: str, shape: tuple[int, ...]) -> jax.Array:
    """Coefficients without a prior."""
    return numpyro.param(name, jnp.linspace(-1.0, 1.0, int(np.prod(shape))).reshape(shape))


def positive(name: str, shape: tuple[int, ...]) -> jax.Array:
    """Standard deviations without a prior."""
    return numpyro.param(name, jnp.ones(shape), constraint=constraints.positive)


def deviations(name: str, shape: tuple[int, ...]) -> jax.Array:
    """Standard deviations of precisions with a gamma prior."""
    return numpyro.sample(name, dist.Gamma(2.0 * jnp.ones(shape), 1.0).to_event(len(shape))) ** -0.5


def bayesian_weights(name: str, shape: tuple[int, ...]) -> jax.Array:
    return numpyro.sample(name, dist.Dirichlet(jnp.ones(shape)))


def maximum_likelihood_weights(name: str, shape: tuple[int, ...]) -> jax.Array:
    return weights_param(shape[0], name)


# How coefficients, standard deviations and weights are declared: without priors, or with conjugate ones.
PLAIN = (real, positive, maximum_likelihood_weights)
BAYESIAN = (normal, deviations, bayesian_weights)

Declared = tuple[Callable[..., jax.Array], Callable[..., jax.Array], Callable[..., jax.Array]]


def with_intercepts(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2, x.shape[-1])), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(a[t] + (x * b[t]).sum(-1), s[t]), obs=y)


def through_origin(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    b, s = coefficients("b", (2, 2)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(jnp.einsum("nd,...nd->...n", x, b[t]), s[t]), obs=y)


def design_matrix(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    """The intercept is a column of ones, and one scale is shared."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    b, s = coefficients("b", (2, 3)), scales("s", ())
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        design = jnp.concatenate([jnp.ones((x.shape[0], 1)), x], axis=1)
        numpyro.sample("y", dist.Normal((b[t] * design).sum(-1), s), obs=y)


def shared_slopes(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2,)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(a[t] + x @ b, s[t]), obs=y)


def shared_slopes_and_scale(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2,)), scales("s", ())
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(a[t] + x @ b, s), obs=y)


def polynomial(y: jax.Array, time: jax.Array, declared: Declared = PLAIN) -> None:
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    c, s = coefficients("c", (2, 3)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(c[t, 0] + c[t, 1] * time + c[t, 2] * time**2, s[t]), obs=y)


def interaction(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    """Centred covariates and their product."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    b, s = coefficients("b", (4, 2)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        first, second = x[:, 0] - 0.1, x[:, 1] + 0.2
        numpyro.sample(
            "y", dist.Normal(b[0, t] + b[1, t] * first + b[2, t] * second + b[3, t] * first * second, s[t]), obs=y
        )


def two_outputs(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    """A row of two values, each with coefficients of its own."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2, 2)), coefficients("b", (2, 2, 2)), scales("s", (2, 2))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        mean = a[t] + jnp.einsum("nd,...ndo->...no", x, b[t])
        numpyro.sample("y", dist.Normal(mean, s[t]).to_event(1), obs=y)


def feature_plate(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    """Two values in a plate of their own, with one covariate and one standard deviation each."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2, 2)), coefficients("b", (2, 2)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0], dim=-2):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        with numpyro.plate("features", 2, dim=-1):
            feature = jnp.arange(2)
            numpyro.sample("y", dist.Normal(a[t, feature] + b[t, feature] * x, s), obs=y)


def two_assignments(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    """Slopes and intercepts go with one assignment, the spread with another."""
    coefficients, scales, weights = declared
    share, other = weights("weights", (2,)), weights("other", (2,))
    a, b, s = coefficients("a", (2, 2)), coefficients("b", (2, 2, 2)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        z = numpyro.sample("z", dist.Categorical(probs=other))
        numpyro.sample("y", dist.Normal(a[t, z] + (x * b[t, z]).sum(-1), s[t]), obs=y)


def two_sites(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    """Both observed values depend on the same covariates."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2, 2)), scales("s", (2,))
    c, r = coefficients("c", (2, 2)), scales("r", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(a[t] + (x * b[t]).sum(-1), s[t]), obs=y[:, 0])
        numpyro.sample("z", dist.Normal((x * c[t]).sum(-1), r[t]), obs=y[:, 1])


def clusterwise(rows: jax.Array, declared: Declared = PLAIN) -> None:
    """Covariates are observed as well: cluster-weighted modelling, of one array."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    m, q = coefficients("m", (2,)), scales("q", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2,)), scales("s", (2,))
    with numpyro.plate("data", rows.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("x", dist.Normal(m[t], q[t]), obs=rows[:, 1])
        numpyro.sample("y", dist.Normal(a[t] + b[t] * rows[:, 1], s[t]), obs=rows[:, 0])


def noise_beside_lines(y: jax.Array, time: jax.Array, declared: Declared = PLAIN) -> None:
    """The last component is noise around zero."""
    coefficients, scales, weights = declared
    share = weights("weights", (3,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2,)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        intercepts, slopes = jnp.append(a, 0.0), jnp.append(b, 0.0)
        numpyro.sample("y", dist.Normal(intercepts[t] + slopes[t] * time, jnp.append(s, 5.0)[t]), obs=y)


def offset(y: jax.Array, time: jax.Array, declared: Declared = PLAIN) -> None:
    """A known trend, and a slope beside it."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2,)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(3.0 * jnp.sin(time) + a[t] + b[t] * time, s[t]), obs=y)


def groups(y: jax.Array, kind: jax.Array, declared: Declared = PLAIN) -> None:
    """A level for each of three kinds, which the data look up: indicators are covariates."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    level, s = coefficients("level", (2, 3)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(level[t, kind], s[t]), obs=y)


def positive_slopes(y: jax.Array, time: jax.Array, declared: Declared = PLAIN) -> None:
    """A slope that has to be positive has no closed form."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, s = coefficients("a", (2,)), scales("s", (2,))
    b = numpyro.param("b", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(a[t] + b[t] * time, s[t]), obs=y)


def non_linear(y: jax.Array, time: jax.Array, declared: Declared = PLAIN) -> None:
    """A rate in the exponent: what depends on data depends on a parameter as well."""
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, r, s = coefficients("a", (2,)), coefficients("r", (2,)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(a[t] * jnp.exp(-r[t] * time), s[t]), obs=y)


def robust(y: jax.Array, x: jax.Array, declared: Declared = PLAIN) -> None:
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2, 2)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.StudentT(4.0, a[t] + (x * b[t]).sum(-1), s[t]), obs=y)


def spread_by_row(y: jax.Array, time: jax.Array, declared: Declared = PLAIN) -> None:
    coefficients, scales, weights = declared
    share = weights("weights", (2,))
    a, b, s = coefficients("a", (2,)), coefficients("b", (2,)), scales("s", (2,))
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=share))
        numpyro.sample("y", dist.Normal(a[t] + b[t] * time, s[t] * (1.0 + time**2)), obs=y)


@dataclasses.dataclass(frozen=True, eq=False)
class Regression:
    """A program and its data; the route of each of its parameters without priors, by maximum likelihood; and what is
    refused of full posteriors, None if nothing is.
    """

    program: Callable[..., Any]
    data: tuple[Any, ...]
    routes: dict[str, str]
    refused: str | None = None
    start: dict[str, Any] = dataclasses.field(default_factory=dict)


def _closed(*names: str) -> dict[str, str]:
    return {"weights": "closed", **dict.fromkeys(names, "closed")}


REGRESSIONS = {
    "intercepts": Regression(with_intercepts, (Y, X), _closed("a", "b", "s")),
    "origin": Regression(through_origin, (Y, X), _closed("b", "s")),
    "design matrix": Regression(design_matrix, (Y, X), _closed("b", "s")),
    "shared slopes": Regression(shared_slopes, (Y, X), _closed("s") | {"a": "numeric", "b": "numeric"}),
    "shared slopes and scale": Regression(
        shared_slopes_and_scale, (Y, X), _closed("s") | {"a": "numeric", "b": "numeric"}
    ),
    "polynomial": Regression(polynomial, (Z, TIME), _closed("c", "s")),
    "interaction": Regression(interaction, (Y, X), _closed("b", "s")),
    "two outputs": Regression(two_outputs, (PAIR, X), _closed("a", "b", "s")),
    "feature plate": Regression(feature_plate, (PAIR, X), _closed("a", "b", "s")),
    "two assignments": Regression(two_assignments, (Y, X), _closed("other", "a", "b", "s")),
    "two sites": Regression(two_sites, (PAIR, X), _closed("a", "b", "c", "r", "s")),
    "cluster-weighted": Regression(clusterwise, (np.stack([Y, X[:, 0]], 1),), _closed("m", "q", "a", "b", "s")),
    "noise": Regression(noise_beside_lines, (Z, TIME), _closed("a", "b") | {"s": "closed"}),
    "offset": Regression(offset, (Z + 3 * np.sin(TIME), TIME), _closed("a", "b", "s")),
    "groups": Regression(groups, (GROUPED, KIND), _closed("level", "s")),
    "positive slopes": Regression(
        positive_slopes, (Z, TIME), _closed("s") | {"a": "numeric", "b": "numeric"}, "'y' depends on together with 'b'"
    ),
    "non-linear": Regression(
        non_linear, (Z, TIME), {"weights": "closed", "a": "gradient", "r": "gradient", "s": "gradient"}, "'y' depends"
    ),
    "robust": Regression(
        robust, (Y, X), {"weights": "closed", "a": "gradient", "b": "gradient", "s": "gradient"}, "'y' depends"
    ),
    "spread by row": Regression(
        spread_by_row,
        (Z, TIME),
        {"weights": "closed", "a": "gradient", "b": "gradient", "s": "gradient"},
        "'y' depends",
    ),
}
