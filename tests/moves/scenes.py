"""Data in three clusters, a truncated Dirichlet process of Poisson counts for it, and fits that start badly."""

import functools

import jax
import numpy as np

import probem
from probem.models import RatePrior, bayesian_poisson_mixture, dirichlet, stick_breaking
from tests.oracles import dirichlet_process

TRUTH = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [250, 200, 150]))
RATES = np.repeat([[2.0, 20.0], [15.0, 15.0], [40.0, 3.0]], 4, axis=1)
X = np.random.default_rng(1).poisson(RATES[TRUTH]).astype(float)
PRIOR = RatePrior(1.0, np.full(8, 0.1))
VB = probem.VARIATIONAL_BAYES
# The first cluster in two, at the median of a column that says nothing; and a tenth of all rows in one more component.
HALVED = np.where((TRUTH == 0) & (X[:, 0] > np.median(X[TRUTH == 0, 0])), 3, TRUTH)
SPOILT = np.where(np.random.default_rng(3).random(600) < 0.1, 3, TRUTH)


def process(x: jax.Array, *, num_components: int, prior: RatePrior) -> None:
    """A truncated Dirichlet process of independent Poisson counts."""
    bayesian_poisson_mixture(x, num_components=num_components, prior=prior, weights=stick_breaking)


PROGRAM = functools.partial(process, num_components=6, prior=PRIOR)
# The same with a sparse Dirichlet prior, under which the order of the components says nothing.
SPARSE = functools.partial(
    bayesian_poisson_mixture, num_components=6, prior=PRIOR, weights=functools.partial(dirichlet, concentration=0.1)
)


def fitted(labels: np.ndarray, **options) -> probem.Fit:
    """Variational Bayes from these labels."""
    return probem.fit(PROGRAM, X, families=VB, init=probem.Labels(labels), verbose=0, **options)


@functools.cache
def halved() -> probem.Fit:
    """The fit that begins with a cluster in two."""
    return fitted(HALVED)


@functools.cache
def in_one() -> probem.Fit:
    """The fit in which one component has all rows."""
    return fitted(np.zeros(600, int))


@functools.cache
def at_random() -> probem.Fit:
    """A fit that begins with random labels."""
    return fitted(np.random.default_rng(4).integers(6, size=600))


def occupied(fit: probem.Fit) -> int:
    """How many components have half a row or more."""
    return int((fit.counts > 0.5).sum())


def bound_of(fit: probem.Fit, x: np.ndarray = X) -> float:
    """F of a fit, by the formulas, at its own posteriors and the responsibilities that follow."""
    return dirichlet_process.bound(x, fit.responsibilities(x), fit.variational, PRIOR)
