"""Small Bayesian mixtures whose priors are conjugate, each with data, its sites, and log p(X | t) in closed form."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import probem
from probem import models
from probem.experiments.oracles import evidence
from probem.models import bayesian_covariance

Component = Callable[[jax.Array], dist.Distribution]
LogMarginal = Callable[[np.ndarray, np.ndarray, int], float]
#: Cells, entries of each, and the site that a location is tied to, by site.
Cells = Mapping[str, tuple[int, int, str | None]]

# Above D + 1 degrees of freedom, and concentrations above one, so that every prior but two has a mode.
PRIOR = models.GaussianPrior(np.array([0.1, -0.2]), 0.7, 4.5, np.array([[1.0, 0.3], [0.3, 0.8]]))
RATE = models.RatePrior(1.3, np.array([0.6, 0.6]))
SHARES = np.array([0.8, 1.7, 1.1])
ALPHA, STICK_ALPHA = 1.2, 1.5
# Of every variance under PRIOR: a gamma distribution of its inverse.
SHAPE, RATES = (PRIOR.dof - 1) / 2, np.diagonal(PRIOR.scatter) / 2

WISHART = evidence.NormalWishart(PRIOR.mean, PRIOR.strength, PRIOR.dof, PRIOR.scatter)
GAMMA = evidence.NormalGamma(PRIOR.mean, PRIOR.strength, SHAPE, RATES)
SPHERICAL = evidence.SphericalNormalGamma(PRIOR.mean, PRIOR.strength, SHAPE, float(RATES.mean()))


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """``component(K)`` samples the parameters of K components; ``cells`` are those for K = 2."""

    component: Callable[[int], Component]
    cells: Cells
    log_marginal: LogMarginal | None
    rows: np.ndarray


def _locations(num_components: int, precision: jax.Array) -> jax.Array:
    """Normal locations, each entry of the prior's strength times this precision."""
    shape = (num_components, len(PRIOR.mean))
    scale = 1 / jnp.sqrt(PRIOR.strength * precision)
    return numpyro.sample("loc", dist.Normal(PRIOR.mean, scale).expand(shape).to_event(2))


def full_covariance(num_components: int) -> Component:
    with numpyro.plate("components", num_components):
        covariance = numpyro.sample("covariance", dist.InverseWishart(PRIOR.dof, scale_matrix=PRIOR.scatter))
        loc = numpyro.sample("loc", dist.MultivariateNormal(PRIOR.mean, covariance / PRIOR.strength))
    return lambda t: dist.MultivariateNormal(loc[t], covariance[t])


def diagonal_variance(num_components: int) -> Component:
    shape = (num_components, len(RATES))
    variance = numpyro.sample("variance", dist.InverseGamma(SHAPE, RATES).expand(shape).to_event(2))
    loc = numpyro.sample("loc", dist.Normal(PRIOR.mean, jnp.sqrt(variance / PRIOR.strength)).to_event(2))
    return lambda t: dist.Normal(loc[t], jnp.sqrt(variance[t])).to_event(1)


def tied_diagonal(num_components: int) -> Component:
    precision = numpyro.sample("precision", dist.Gamma(SHAPE, RATES).to_event(1))
    loc = _locations(num_components, precision)
    return lambda t: dist.Normal(loc[t], 1 / jnp.sqrt(precision)).to_event(1)


def tied_spherical(num_components: int) -> Component:
    precision = numpyro.sample("precision", dist.Gamma(SHAPE, RATES.mean()))
    loc = _locations(num_components, precision)
    return lambda t: dist.Normal(loc[t], 1 / jnp.sqrt(precision)).to_event(1)


def known_variance(num_components: int) -> Component:
    with numpyro.plate("components", num_components):
        loc = numpyro.sample("loc", dist.Normal(PRIOR.mean, 2.0).to_event(1))
    return lambda t: dist.Normal(loc[t], 0.5).to_event(1)


def factorised_location(num_components: int) -> Component:
    """The precision matrix couples the entries of a location, whose prior does not depend on it."""
    with numpyro.plate("components", num_components):
        precision = numpyro.sample("precision", dist.Wishart(PRIOR.dof, rate_matrix=PRIOR.scatter))
        loc = numpyro.sample("loc", dist.Normal(PRIOR.mean, 2.0).to_event(1))
    return lambda t: dist.MultivariateNormal(loc[t], precision_matrix=precision[t])


def _rates(num_components: int) -> jax.Array:
    return numpyro.sample("rate", dist.Gamma(RATE.shape, RATE.rate).expand([num_components, 2]).to_event(2))


def poisson(num_components: int) -> Component:
    rate = _rates(num_components)
    return lambda t: dist.Poisson(rate[t]).to_event(1)


def exponential(num_components: int) -> Component:
    rate = _rates(num_components)
    return lambda t: dist.Exponential(rate[t]).to_event(1)


def gamma(num_components: int) -> Component:
    rate = _rates(num_components)
    return lambda t: dist.Gamma(2.5, rate[t]).to_event(1)


def bernoulli(num_components: int) -> Component:
    probs = numpyro.sample("probs", dist.Beta(1.3, 1.6).expand([num_components, 2]).to_event(2))
    return lambda t: dist.Bernoulli(probs=probs[t]).to_event(1)


def categorical(num_components: int) -> Component:
    shares = numpyro.sample("shares", dist.Dirichlet(jnp.asarray(SHARES)).expand([num_components, 2]).to_event(2))
    return lambda t: dist.Categorical(probs=shares[t]).to_event(1)


def _each(prior: evidence.Prior) -> LogMarginal:
    return lambda rows, labels, num_components: evidence.per_component(prior)(rows, labels)


def _tied_diagonal_log_marginal(rows: np.ndarray, labels: np.ndarray, num_components: int) -> float:
    features = [
        evidence.SphericalNormalGamma(PRIOR.mean[[d]], PRIOR.strength, SHAPE, float(rate))
        for d, rate in enumerate(RATES)
    ]
    return sum(
        evidence.tied_spherical_log_marginal(prior, rows[:, [d]], labels, num_components)
        for d, prior in enumerate(features)
    )


_RANDOM = np.random.default_rng(3)
LABELS = _RANDOM.permutation(np.arange(40) % 5 < 2).astype(int)
NORMAL = np.array([[-1.2, 0.4], [1.0, -0.3]])[LABELS] + 0.7 * _RANDOM.normal(size=(40, 2))
COUNTS = _RANDOM.poisson(np.array([[1.0, 6.0], [5.0, 2.0]])[LABELS])
DURATIONS = _RANDOM.gamma(2.0, np.array([[0.5, 2.0], [2.0, 0.7]])[LABELS])
HALVES = (_RANDOM.random((40, 2)) < np.array([[0.2, 0.7], [0.8, 0.4]])[LABELS]).astype(int)
LEVELS = (_RANDOM.random((40, 2)) * np.array([[2.0, 3.0], [3.0, 1.5]])[LABELS]).astype(int)

_MATRICES = {"precision": (2, 0, None), "loc": (2, 2, "precision")}
_SCALARS = {"precision": (4, 0, None), "loc": (4, 1, "precision")}


def _structure(component: Any) -> Callable[[int], Component]:
    return functools.partial(component, prior=PRIOR)


EXAMPLES = {
    "full": Example(_structure(bayesian_covariance.full), _MATRICES, _each(WISHART), NORMAL),
    "full covariance": Example(
        full_covariance, {"covariance": (2, 0, None), "loc": (2, 2, "covariance")}, _each(WISHART), NORMAL
    ),
    "tied": Example(
        _structure(bayesian_covariance.tied),
        {"precision": (1, 0, None), "loc": (2, 2, "precision")},
        functools.partial(evidence.tied_log_marginal, WISHART),
        NORMAL,
    ),
    "diagonal": Example(_structure(bayesian_covariance.diagonal), _SCALARS, _each(GAMMA), NORMAL),
    "diagonal variance": Example(
        diagonal_variance, {"variance": (4, 0, None), "loc": (4, 1, "variance")}, _each(GAMMA), NORMAL
    ),
    "tied diagonal": Example(
        tied_diagonal,
        {"precision": (2, 0, None), "loc": (4, 1, "precision")},
        _tied_diagonal_log_marginal,
        NORMAL,
    ),
    "spherical": Example(
        _structure(bayesian_covariance.spherical),
        {"precision": (2, 0, None), "loc": (4, 1, "precision")},
        _each(SPHERICAL),
        NORMAL,
    ),
    "tied spherical": Example(
        tied_spherical,
        {"precision": (1, 0, None), "loc": (4, 1, "precision")},
        functools.partial(evidence.tied_spherical_log_marginal, SPHERICAL),
        NORMAL,
    ),
    "known variance": Example(
        known_variance, {"loc": (4, 1, None)}, _each(evidence.NormalKnownVariance(PRIOR.mean, 2.0, 0.5)), NORMAL
    ),
    "factorised location": Example(factorised_location, {"precision": (2, 0, None), "loc": (2, 2, None)}, None, NORMAL),
    "poisson": Example(poisson, {"rate": (4, 0, None)}, _each(evidence.GammaPoisson(1.3, 0.6)), COUNTS),
    "exponential": Example(exponential, {"rate": (4, 0, None)}, _each(evidence.GammaExponential(1.3, 0.6)), DURATIONS),
    "gamma": Example(gamma, {"rate": (4, 0, None)}, _each(evidence.GammaGamma(1.3, 0.6, 2.5)), DURATIONS),
    "bernoulli": Example(bernoulli, {"probs": (4, 0, None)}, _each(evidence.BetaBernoulli(1.3, 1.6)), HALVES),
    "categorical": Example(categorical, {"shares": (4, 0, None)}, _each(evidence.DirichletCategorical(SHARES)), LEVELS),
}


def dirichlet(num_components: int) -> jax.Array:
    return models.dirichlet(num_components, ALPHA)


def sticks(num_components: int) -> jax.Array:
    return models.stick_breaking(num_components, STICK_ALPHA)


def uncertain_sticks(num_components: int) -> jax.Array:
    """The concentration of the process has a prior as well."""
    alpha = numpyro.sample("alpha", dist.Gamma(2.0, 1.0))
    taken = numpyro.sample("sticks", dist.Beta(1.0, alpha).expand([num_components - 1]).to_event(1))
    return jnp.append(taken, 1.0) * jnp.append(1.0, jnp.cumprod(1.0 - taken))


def write(
    component: Callable[[int], Component], weights: Callable[[int], jax.Array], num_components: int
) -> Callable[[jax.Array], None]:
    """The mixture of these components."""

    def mixture(x: jax.Array) -> None:
        mixing = weights(num_components)
        own = component(num_components)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=mixing))
            numpyro.sample("x", own(t), obs=x)

    return mixture


@functools.cache
def mixture(
    name: str, num_components: int = 2, weights: Callable[[int], jax.Array] = dirichlet
) -> Callable[[jax.Array], None]:
    """The mixture of the components of this example; the same object every time, so that it is compiled once."""
    return write(EXAMPLES[name].component, weights, num_components)


def log_prior_of_labels(labels: np.ndarray, num_components: int, weights: Callable[[int], jax.Array]) -> float:
    """log p(t) in closed form."""
    if weights is sticks:
        return evidence.stick_breaking_log_prob(labels, STICK_ALPHA, num_components)
    return evidence.dirichlet_log_prob(labels, np.full(num_components, ALPHA))


# Programs that leave the plain case in one way each.


def hierarchical(num_components: int) -> Component:
    """The rate of the precisions and the mean of the locations have priors."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, jnp.ones(2)).to_event(1))
    precision = numpyro.sample("precision", dist.Gamma(1.5, rate).expand([num_components, 2]).to_event(2))
    mean = numpyro.sample("mean", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(mean, 1 / jnp.sqrt(0.3 * precision)).to_event(2))
    return lambda t: dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])).to_event(1)


def param_covariance(num_components: int) -> Component:
    """Covariances without a prior, fitted by maximum likelihood."""
    start = jnp.broadcast_to(jnp.eye(2), (num_components, 2, 2))
    covariance = numpyro.param("covariance", start, constraint=dist.constraints.positive_definite)
    prior = dist.MultivariateNormal(jnp.zeros(2), 4 * jnp.eye(2))
    loc = numpyro.sample("loc", prior.expand([num_components]).to_event(1))
    return lambda t: dist.MultivariateNormal(loc[t], covariance[t])


def empirical_bayes(num_components: int) -> Component:
    """The spread of the locations is a parameter: what maximises the bound is the type-II estimate."""
    spread = numpyro.param("spread", 1.0, constraint=dist.constraints.positive)
    loc = numpyro.sample("loc", dist.Normal(0.0, spread).expand([num_components, 2]).to_event(2))
    return lambda t: dist.Normal(loc[t], 0.5).to_event(1)


#: Programs with other families than full posteriors everywhere, or with priors on priors, all for the rows NORMAL.
MIXED: dict[str, tuple[Callable[[jax.Array], None], Any]] = {
    "hierarchical": (write(hierarchical, dirichlet, 2), probem.VARIATIONAL_BAYES),
    "param covariance": (write(param_covariance, dirichlet, 2), probem.VARIATIONAL_BAYES),
    "empirical bayes": (write(empirical_bayes, dirichlet, 2), probem.VARIATIONAL_BAYES),
    "point location": (mixture("full"), probem.VARIATIONAL_BAYES | {"loc": probem.Delta()}),
    "point precision": (mixture("full"), probem.VARIATIONAL_BAYES | {"precision": probem.Delta()}),
    "point concentration": (
        write(EXAMPLES["diagonal"].component, uncertain_sticks, 3),
        probem.VARIATIONAL_BAYES | {"alpha": probem.Delta()},
    ),
}
#: Their cells.
MIXED_CELLS: dict[str, Cells] = {
    "hierarchical": {
        "weights": (1, 0, None),
        "rate": (2, 0, None),
        "precision": (4, 0, None),
        "mean": (2, 1, None),
        "loc": (4, 1, "precision"),
    },
    "param covariance": {"weights": (1, 0, None), "loc": (2, 2, None)},
    "empirical bayes": {"weights": (1, 0, None), "loc": (4, 1, None)},
    "point location": {"weights": (1, 0, None), "precision": (2, 0, None), "loc": (2, 2, None)},
    "point precision": {"weights": (1, 0, None), "precision": (2, 0, None), "loc": (2, 2, "precision")},
    "point concentration": {
        "sticks": (2, 0, None),
        "precision": (6, 0, None),
        "loc": (6, 1, "precision"),
    },
}


@functools.cache
def fitted(name: str) -> probem.Fit:
    """Variational Bayes for the mixture of two components of this example, or a mixed program."""
    program, families = MIXED[name] if name in MIXED else (mixture(name), probem.VARIATIONAL_BAYES)
    rows = NORMAL if name in MIXED else EXAMPLES[name].rows
    return probem.fit(program, rows, families=families, key=1, tolerance=1e-12)
