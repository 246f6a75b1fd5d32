"""What ``import probem`` gives; each name is imported when it is first used."""

from . import exponential, families, stopping
from .checking.check import as_test, check, claim
from .checking.evaluate import elbo, log_joint, log_prior
from .checking.evidence import evidence
from .checking.report import Check, Report
from .errors import FitError, InputError
from .families import (
    EM,
    HARD_EM,
    MAXIMIZATION_EXPECTATION,
    VARIATIONAL_BAYES,
    Annealed,
    Categorical,
    Conjugate,
    Delta,
    Gaussian,
    Sampled,
    Tempered,
    TopC,
)
from .fitting.explain import explain
from .fitting.fit import fit, iterate, solve
from .jit.disk import cache
from .many.fit_many import fit_many
from .many.many_fits import ManyFits
from .moves.refine import refine
from .program.mixtures import with_assignments
from .results.align import align
from .results.fit import Fit, load
from .results.history import History
from .results.interop import marginalize
from .results.moves import Move, Moves
from .results.summary import Summary
from .selection.criteria import Criterion
from .selection.select import select
from .selection.selection import Candidate, Selection
from .solver.anderson import Anderson
from .solver.initialisers import Labels, Parameters, Responsibilities
from .solver.result import Result
from .solver.seedings import KMeansPlusPlus, Lloyd, RandomRows, Seeding
from .solver.squarem import SQUAREM
from .streaming.absorb import absorb

__all__ = [
    "EM",
    "HARD_EM",
    "MAXIMIZATION_EXPECTATION",
    "SQUAREM",
    "VARIATIONAL_BAYES",
    "Anderson",
    "Annealed",
    "Candidate",
    "Categorical",
    "Check",
    "Conjugate",
    "Criterion",
    "Delta",
    "Fit",
    "FitError",
    "Gaussian",
    "History",
    "InputError",
    "KMeansPlusPlus",
    "Labels",
    "Lloyd",
    "ManyFits",
    "Move",
    "Moves",
    "Parameters",
    "RandomRows",
    "Report",
    "Responsibilities",
    "Result",
    "Sampled",
    "Seeding",
    "Selection",
    "Summary",
    "Tempered",
    "TopC",
    "absorb",
    "align",
    "as_test",
    "cache",
    "check",
    "claim",
    "elbo",
    "evidence",
    "explain",
    "exponential",
    "families",
    "fit",
    "fit_many",
    "iterate",
    "load",
    "log_joint",
    "log_prior",
    "marginalize",
    "refine",
    "select",
    "solve",
    "stopping",
    "with_assignments",
]

__version__: str
