"""NumPyro programs, one idea a file. They import jax and numpyro only, and nothing from the engine."""

from .bayesian_gmm import bayesian_gmm
from .bayesian_poisson_mixture import bayesian_poisson_mixture
from .bernoulli_mixture import bernoulli_mixture
from .covariance import diagonal, full, identity, shared_spherical, spherical, tied
from .dirichlet_process_gmm import dirichlet_process_gmm
from .gmm import gmm
from .kmeans import kmeans
from .poisson_mixture import poisson_mixture
from .priors import GaussianPrior, RatePrior
from .weights import dirichlet, equal, free, stick_breaking

__all__ = [
    "GaussianPrior",
    "RatePrior",
    "bayesian_gmm",
    "bayesian_poisson_mixture",
    "bernoulli_mixture",
    "diagonal",
    "dirichlet",
    "dirichlet_process_gmm",
    "equal",
    "free",
    "full",
    "gmm",
    "identity",
    "kmeans",
    "poisson_mixture",
    "shared_spherical",
    "spherical",
    "stick_breaking",
    "tied",
]
