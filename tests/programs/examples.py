"""NumPyro programs unlike those of models/, each with its table of log joints as plain loops over SciPy's densities.

Programs live at module level, so that what is compiled for one test serves the others.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import scipy.stats as stats
from numpyro import handlers
from numpyro.distributions import constraints

Row = Any
Params = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A program, data, parameters, and log p(row, components | params) by hand.

    ``log_joint(params, row, *values)`` takes one value for each assignment site, from ``supports``; ``row`` holds the
    data arguments at one row.
    """

    program: Callable[..., None]
    data: tuple[Any, ...]
    params: Params
    supports: tuple[tuple[int, ...], ...]
    log_joint: Callable[..., float]
    log_prior: Callable[[Params], float] = lambda params: 0.0

    @property
    def num_rows(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    def table(self, params: Params | None = None) -> np.ndarray:
        """[N, K], joint values in row-major order."""
        params = self.params if params is None else params
        joint = [[]]
        for support in self.supports:
            joint = [[*values, value] for values in joint for value in support]
        rows = [jax.tree.map(lambda leaf, n=n: np.asarray(leaf)[n], self.data) for n in range(self.num_rows)]
        return np.array([[self.log_joint(params, row, *values) for values in joint] for row in rows])


def _two_groups(seed: int, num_rows: int = 60) -> tuple[np.random.Generator, np.ndarray]:
    random = np.random.default_rng(seed)
    return random, random.permutation(np.arange(num_rows) % 5 < 2).astype(int)


def weights_param(num_components: int, name: str = "weights") -> jax.Array:
    return numpyro.param(name, jnp.full(num_components, 1 / num_components), constraint=constraints.simplex)


# A mask and a scale on one observed site, a deterministic site, and the scale bound by a closure.


def make_masked(temperature: float) -> Callable[..., None]:
    def masked(x: jax.Array, seen: jax.Array) -> None:
        weights = weights_param(2)
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=weights))
            mean = numpyro.deterministic("mean", loc[t])
            with handlers.mask(mask=seen), handlers.scale(scale=temperature):
                numpyro.sample("x", dist.Normal(mean, 0.7), obs=x)

    return masked


def _masked_example() -> Example:
    random, group = _two_groups(1)
    x = np.where(group, 2.0, -1.5) + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        own = 0.5 * stats.norm.logpdf(row[0], params["loc"][t], 0.7) if row[1] else 0.0
        return np.log(params["weights"][t]) + own

    params = {"weights": np.array([0.3, 0.7]), "loc": np.array([-1.2, 1.9])}
    return Example(make_masked(0.5), (x, random.random(60) < 0.8), params, ((0, 1),), log_joint)


# Priors in a plate over the components.


def with_priors(x: jax.Array, *, num_components: int) -> None:
    weights = numpyro.sample("weights", dist.Dirichlet(2.0 * jnp.ones(num_components)))
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(0.0, 5.0))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.Normal(loc[t], scale[t]), obs=x)


def _normal_by_parameters(params: Params, row: Row, t: int) -> float:
    return np.log(params["weights"][t]) + stats.norm.logpdf(row[0], params["loc"][t], params["scale"][t])


def _prior_example() -> Example:
    random, group = _two_groups(2)
    x = np.where(group, 3.0, -2.0) + random.normal(size=60)

    def log_prior(params: Params) -> float:
        return (
            # float32 rounds a simplex to a sum off one by more than SciPy allows.
            stats.dirichlet.logpdf(params["weights"] / params["weights"].sum(), [2.0, 2.0])
            + stats.norm.logpdf(params["loc"], 0, 5).sum()
            + stats.lognorm.logpdf(params["scale"], 0.5).sum()
        )

    params = {"weights": np.array([0.3, 0.7]), "loc": np.array([-1.2, 1.9]), "scale": np.array([0.8, 1.4])}
    program = functools.partial(with_priors, num_components=2)
    return Example(program, (x,), params, ((0, 1),), _normal_by_parameters, log_prior)


# A mixture of linear regressions: covariates are a second data argument.


def regressions(y: jax.Array, covariates: jax.Array) -> None:
    weights = weights_param(2)
    slope = numpyro.param("slope", jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    intercept = numpyro.param("intercept", jnp.zeros(2))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("y", dist.Normal((slope[t] * covariates).sum(-1) + intercept[t], scale[t]), obs=y)


def _regression_example() -> Example:
    random, group = _two_groups(3)
    covariates = random.normal(size=(60, 2))
    slopes = np.array([[-2.0, 0.5], [2.0, 1.0]])
    y = (slopes[group] * covariates).sum(1) + np.array([0.5, -0.5])[group] + 0.4 * random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        mean = params["slope"][t] @ row[1] + params["intercept"][t]
        return np.log(params["weights"][t]) + stats.norm.logpdf(row[0], mean, params["scale"][t])

    params = {
        "weights": np.array([0.4, 0.6]),
        "slope": np.array([[-1.5, 0.2], [1.0, 0.3]]),
        "intercept": np.array([0.1, -0.2]),
        "scale": np.array([0.7, 1.1]),
    }
    return Example(regressions, (y, covariates), params, ((0, 1),), log_joint)


# Two assignment sites, the second of which depends on the first; the joint index is t * 3 + z.


def nested(x: jax.Array) -> None:
    weights = weights_param(2)
    inner = numpyro.param("inner", jnp.full((2, 3), 1 / 3), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.arange(6.0).reshape(2, 3))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        z = numpyro.sample("z", dist.Categorical(probs=inner[t]))
        numpyro.sample("x", dist.Normal(loc[t, z], 0.4), obs=x)


def _nested_example() -> Example:
    random, group = _two_groups(4)
    inner = random.integers(0, 3, 60)
    x = np.array([[-6.0, -4.0, -2.0], [1.0, 3.0, 5.0]])[group, inner] + 0.4 * random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int, z: int) -> float:
        own = np.log(params["weights"][t]) + np.log(params["inner"][t, z])
        return own + stats.norm.logpdf(row[0], params["loc"][t, z], 0.4)

    params = {
        "weights": np.array([0.35, 0.65]),
        "inner": np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]),
        "loc": np.array([[-5.5, -4.2, -1.0], [0.5, 3.3, 4.4]]),
    }
    return Example(nested, (x,), params, ((0, 1), (0, 1, 2)), log_joint)


# The rows on the second axis from the right, the features in a plate of their own.


def feature_plate(x: jax.Array) -> None:
    num_features = x.shape[1]
    weights = weights_param(2)
    rate = numpyro.param(
        "rate", jnp.ones((2, num_features)) * jnp.array([[1.0], [2.0]]), constraint=constraints.positive
    )
    features = numpyro.plate("features", num_features, dim=-1)
    with numpyro.plate("data", x.shape[0], dim=-2):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        with features:
            numpyro.sample("x", dist.Poisson(rate[t, jnp.arange(num_features)]), obs=x)


def _feature_example() -> Example:
    random, group = _two_groups(5)
    x = random.poisson(np.array([[1.0, 6.0, 3.0], [5.0, 2.0, 3.0]])[group])

    def log_joint(params: Params, row: Row, t: int) -> float:
        return np.log(params["weights"][t]) + stats.poisson.logpmf(row[0], params["rate"][t]).sum()

    params = {"weights": np.array([0.45, 0.55]), "rate": np.array([[1.5, 5.0, 2.0], [4.0, 2.5, 3.5]])}
    return Example(feature_plate, (x,), params, ((0, 1),), log_joint)


# A pytree of data, and two observed sites of different distributions: categories beside a Gaussian vector.


def mixed(data: dict[str, jax.Array]) -> None:
    weights = weights_param(2)
    probs = numpyro.param("probs", jnp.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    tril = numpyro.param("tril", jnp.stack([jnp.eye(2)] * 2), constraint=constraints.lower_cholesky)
    with numpyro.plate("data", data["colour"].shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("colour", dist.Categorical(probs=probs[t]), obs=data["colour"])
        numpyro.sample("place", dist.MultivariateNormal(loc[t], scale_tril=tril[t]), obs=data["place"])


def _mixed_example() -> Example:
    random, group = _two_groups(6)
    colour = np.array([random.choice(3, p=[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]][g]) for g in group])
    place = np.array([[-2.0, 1.0], [2.0, -1.0]])[group] + random.normal(size=(60, 2)) @ np.array(
        [[1.0, 0.5], [0.0, 0.6]]
    )

    def log_joint(params: Params, row: Row, t: int) -> float:
        covariance = params["tril"][t] @ params["tril"][t].T
        own = np.log(params["weights"][t]) + np.log(params["probs"][t, row[0]["colour"]])
        return own + stats.multivariate_normal.logpdf(row[0]["place"], params["loc"][t], covariance)

    params = {
        "weights": np.array([0.45, 0.55]),
        "probs": np.array([[0.6, 0.3, 0.1], [0.3, 0.3, 0.4]]),
        "loc": np.array([[-1.0, 0.5], [1.2, -0.3]]),
        "tril": np.array([[[1.0, 0.0], [0.4, 0.8]], [[0.7, 0.0], [-0.2, 1.1]]]),
    }
    return Example(mixed, ({"colour": colour, "place": place},), params, ((0, 1),), log_joint)


# Values that do not start at zero, and locations in a box.


def boxed(x: jax.Array) -> None:
    with numpyro.plate("components", 3):
        loc = numpyro.sample("loc", dist.Uniform(-4.0, 8.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.DiscreteUniform(2, 4))
        numpyro.sample("x", dist.Normal(loc[t - 2], 1.0), obs=x)


def _boxed_example() -> Example:
    random = np.random.default_rng(7)
    x = np.repeat([-2.0, 2.0, 6.0], 20) + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        return np.log(1 / 3) + stats.norm.logpdf(row[0], params["loc"][t - 2], 1.0)

    params = {"loc": np.array([-3.0, 1.0, 7.0])}
    return Example(boxed, (x,), params, ((2, 3, 4),), log_joint, lambda params: 3 * np.log(1 / 12))


# Zero-inflated counts: the first component is a point mass at zero.


def zero_inflated(x: jax.Array) -> None:
    occupied = numpyro.param("occupied", 0.5, constraint=constraints.unit_interval)
    rate = numpyro.param("rate", 1.0, constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(probs=occupied))
        numpyro.sample("x", dist.Poisson(jnp.where(t == 1, rate, 0.0)), obs=x)


def _zero_inflated_example() -> Example:
    random, group = _two_groups(8)
    x = random.poisson(4.0, 60) * group

    def log_joint(params: Params, row: Row, t: int) -> float:
        occupied = params["occupied"]
        own = stats.poisson.logpmf(row[0], params["rate"]) if t else (0.0 if row[0] == 0 else -np.inf)
        return np.log(occupied if t else 1 - occupied) + own

    params = {"occupied": np.array(0.6), "rate": np.array(2.5)}
    return Example(zero_inflated, (x,), params, ((0, 1),), log_joint)


# An angle and a length for every row: von Mises has no exponential-family view.


def directions(angle: jax.Array, length: jax.Array) -> None:
    weights = weights_param(2)
    mean_angle = numpyro.param("mean_angle", jnp.array([-1.0, 1.0]), constraint=constraints.circular)
    concentration = numpyro.param("concentration", jnp.ones(2), constraint=constraints.positive)
    mean_length = numpyro.param("mean_length", jnp.zeros(2))
    scale = numpyro.param("scale", jnp.ones(()), constraint=constraints.positive)
    with numpyro.plate("data", angle.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("angle", dist.VonMises(mean_angle[t], concentration[t]), obs=angle)
        numpyro.sample("length", dist.Normal(mean_length[t], scale), obs=length)


def _direction_example() -> Example:
    random, group = _two_groups(9)
    angle = random.vonmises(np.array([-1.8, 0.9])[group], np.array([3.0, 6.0])[group])
    length = np.array([1.0, 3.0])[group] + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        own = stats.vonmises.logpdf(row[0], params["concentration"][t], loc=params["mean_angle"][t])
        return np.log(params["weights"][t]) + own + stats.norm.logpdf(row[1], params["mean_length"][t], params["scale"])

    params = {
        "weights": np.array([0.4, 0.6]),
        "mean_angle": np.array([-1.5, 1.2]),
        "concentration": np.array([2.0, 4.0]),
        "mean_length": np.array([0.5, 2.5]),
        "scale": np.array(1.3),
    }
    return Example(directions, (angle, length), params, ((0, 1),), log_joint)


# A mixture of factor analysers: every covariance is low-rank plus diagonal.


def factor_analysers(x: jax.Array) -> None:
    dim = x.shape[1]
    weights = weights_param(2)
    loc = numpyro.param("loc", jnp.zeros((2, dim)))
    loading = numpyro.param("loading", 0.1 * jnp.ones((2, dim, 1)))
    noise = numpyro.param("noise", jnp.ones((2, dim)), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        diagonal = noise[t][..., None] * jnp.eye(dim)
        covariance = loading[t] @ jnp.swapaxes(loading[t], -1, -2) + diagonal
        numpyro.sample("x", dist.MultivariateNormal(loc[t], covariance_matrix=covariance), obs=x)


def _factor_example() -> Example:
    random, group = _two_groups(10)
    loading = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
    x = np.array([[-2.0, 0.0, 1.0], [2.0, 1.0, -1.0]])[group] + loading[group] * random.normal(size=(60, 1))
    x = x + 0.5 * random.normal(size=(60, 3))

    def log_joint(params: Params, row: Row, t: int) -> float:
        covariance = params["loading"][t] @ params["loading"][t].T + np.diag(params["noise"][t])
        return np.log(params["weights"][t]) + stats.multivariate_normal.logpdf(row[0], params["loc"][t], covariance)

    params = {
        "weights": np.array([0.4, 0.6]),
        "loc": np.array([[-1.0, 0.0, 0.5], [1.0, 0.5, -0.5]]),
        "loading": np.array([[[0.5], [0.4], [0.1]], [[0.0], [0.7], [-0.6]]]),
        "noise": np.array([[0.5, 0.6, 0.7], [0.8, 0.7, 0.4]]),
    }
    return Example(factor_analysers, (x,), params, ((0, 1),), log_joint)


# Heavy tails, with the degrees of freedom learned; one scale for both, which could hold the tails otherwise.


def student_t(x: jax.Array) -> None:
    weights = weights_param(2)
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    scale = numpyro.param("scale", jnp.ones(()), constraint=constraints.positive)
    df = numpyro.param("df", jnp.array(5.0), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", dist.StudentT(df, loc[t], scale), obs=x)


def _student_example() -> Example:
    random, group = _two_groups(11)
    x = np.where(group, 8.0, -8.0) + random.standard_t(1.5, size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        own = stats.t.logpdf(row[0], params["df"], params["loc"][t], params["scale"])
        return np.log(params["weights"][t]) + own

    params = {
        "weights": np.array([0.4, 0.6]),
        "loc": np.array([-2.0, 3.0]),
        "scale": np.array(0.8),
        "df": np.array(4.0),
    }
    return Example(student_t, (x,), params, ((0, 1),), log_joint)


# Weights that depend on a covariate: a mixture of experts.


def experts(x: jax.Array, covariate: jax.Array) -> None:
    gate = numpyro.param("gate", jnp.array([0.0, 0.1]))
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        logit = gate[0] + gate[1] * covariate
        t = numpyro.sample("t", dist.Categorical(logits=jnp.stack([jnp.zeros_like(logit), logit], -1)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def _expert_example() -> Example:
    random = np.random.default_rng(12)
    covariate = random.normal(size=60)
    group = (random.random(60) < 1 / (1 + np.exp(-0.5 - 2 * covariate))).astype(int)
    x = np.array([-2.0, 2.0])[group] + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        logit = params["gate"][0] + params["gate"][1] * row[1]
        return -np.logaddexp(0, -logit if t else logit) + stats.norm.logpdf(row[0], params["loc"][t], 1.0)

    params = {"gate": np.array([0.3, 1.5]), "loc": np.array([-1.5, 2.5])}
    return Example(experts, (x, covariate), params, ((0, 1),), log_joint)


# A factor inside the plate, which no distribution stands for: component 1 costs half a nat.


def penalised(x: jax.Array) -> None:
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    rows = numpyro.plate("data", x.shape[0])
    with rows:
        t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
    with rows:
        numpyro.factor("penalty", -0.5 * t)
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def _penalised_example() -> Example:
    random, group = _two_groups(13)
    x = np.where(group, 2.0, -2.0) + random.normal(size=60)

    def log_joint(params: Params, row: Row, t: int) -> float:
        return np.log(0.5) - 0.5 * t + stats.norm.logpdf(row[0], params["loc"][t], 1.0)

    return Example(penalised, (x,), {"loc": np.array([-1.5, 1.5])}, ((0, 1),), log_joint)


EXAMPLES = {
    "masked and scaled": _masked_example(),
    "priors": _prior_example(),
    "regressions": _regression_example(),
    "nested": _nested_example(),
    "feature plate": _feature_example(),
    "categories and Gaussian": _mixed_example(),
    "boxed": _boxed_example(),
    "zero-inflated": _zero_inflated_example(),
    "directions": _direction_example(),
    "factor analysers": _factor_example(),
    "Student-t": _student_example(),
    "experts": _expert_example(),
    "penalised": _penalised_example(),
}
