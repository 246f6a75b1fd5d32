"""Rows, and conjugate pairs of every covariance structure, for the oracles of the evidence."""

import functools

import numpy as np

from probem.experiments.oracles import evidence
from probem.experiments.oracles.evidence import NormalGamma, NormalWishart, SphericalNormalGamma, per_component

MEAN = np.array([0.3, -0.5])
FULL = NormalWishart(MEAN, 0.7, 3.5, np.array([[1.2, 0.3], [0.3, 0.8]]))
DIAGONAL = NormalGamma(MEAN, 0.7, 1.6, np.array([0.9, 1.4]))
SPHERICAL = SphericalNormalGamma(MEAN, 0.7, 1.6, 0.9)


def rows_of(count, seed=3):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 2)) + 1.5 * generator.choice([-1.0, 1.0], (count, 1))


def tied_diagonal(rows, labels, num_components):
    """Under a tied diagonal the features are independent, and one feature alone is spherical."""
    features = [SphericalNormalGamma(MEAN[[d]], 0.7, 1.6, float(DIAGONAL.rate[d])) for d in range(2)]
    columns = [rows[:, [d]] for d in range(2)]
    marginal = evidence.tied_spherical_log_marginal
    return sum(marginal(one, x, labels, num_components) for one, x in zip(features, columns, strict=True))


STRUCTURES = {
    "full": (FULL, False, per_component(FULL)),
    "tied": (FULL, True, functools.partial(evidence.tied_log_marginal, FULL)),
    "diagonal": (DIAGONAL, False, per_component(DIAGONAL)),
    "tied diagonal": (DIAGONAL, True, tied_diagonal),
    "spherical": (SPHERICAL, False, per_component(SPHERICAL)),
    "tied spherical": (SPHERICAL, True, functools.partial(evidence.tied_spherical_log_marginal, SPHERICAL)),
}
