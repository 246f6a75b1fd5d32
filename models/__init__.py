"""NumPyro programs, one idea a file. They import jax and numpyro only, and nothing from the engine."""

from .bernoulli_mixture import bernoulli_mixture
from .covariance import diagonal, full, identity, shared_spherical, spherical, tied
from .gmm import gmm
from .kmeans import kmeans
from .poisson_mixture import poisson_mixture
from .weights import equal, free

__all__ = [
    "bernoulli_mixture",
    "diagonal",
    "equal",
    "free",
    "full",
    "gmm",
    "identity",
    "kmeans",
    "poisson_mixture",
    "shared_spherical",
    "spherical",
    "tied",
]
