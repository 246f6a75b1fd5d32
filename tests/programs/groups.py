"""Forty rows in groups, and mixtures of every covariance structure."""

import functools

import numpy as np

from probem.models import GaussianPrior, bayesian_gmm, diagonal, full, gmm, tied
from probem.models.covariance import shared_spherical, spherical
from tests.oracles.gaps import groups

ROWS = groups(40, 3, 0)
PRIOR = GaussianPrior(np.zeros(3), 0.5, 6.0, np.eye(3))
STRUCTURES = {
    "full": functools.partial(gmm, num_components=2, covariance=full),
    "tied": functools.partial(gmm, num_components=2, covariance=tied),
    "diagonal": functools.partial(gmm, num_components=2, covariance=diagonal),
    "spherical": functools.partial(gmm, num_components=2, covariance=spherical),
    "shared": functools.partial(gmm, num_components=2, covariance=shared_spherical),
    "MAP": functools.partial(bayesian_gmm, num_components=2, prior=PRIOR),
    "posterior": functools.partial(bayesian_gmm, num_components=2, prior=PRIOR),
}
