"""Variational families: q of the assignments as projections, q of the parameters, and the four named corners."""

from .annealed import Annealed
from .assignments import AssignmentFamily, Categorical, Delta, HalfStep, Tempered, TopC
from .corners import EM, HARD_EM, MAXIMIZATION_EXPECTATION, VARIATIONAL_BAYES, Corner, Families
from .parameters import Conjugate, Gaussian, ParameterFamily
from .posteriors import Assigned, Dense, Point, Sparse
from .sampled import Sampled

__all__ = [
    "EM",
    "HARD_EM",
    "MAXIMIZATION_EXPECTATION",
    "VARIATIONAL_BAYES",
    "Annealed",
    "Assigned",
    "AssignmentFamily",
    "Categorical",
    "Conjugate",
    "Corner",
    "Delta",
    "Dense",
    "Families",
    "Gaussian",
    "HalfStep",
    "ParameterFamily",
    "Point",
    "Sampled",
    "Sparse",
    "Tempered",
    "TopC",
]
