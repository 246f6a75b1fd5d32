"""probem: write a mixture as a NumPyro program, choose a variational family for its latents, get the algorithm."""

import os as _os

from . import process as _process

if _process.is_starting():
    _process.end_quietly_on_interrupt()
if _os.path.isfile(_os.path.join(__path__[0], "models")):
    # A ZIP download has files in place of the links to models, experiments and configs, which stand beside this folder.
    __path__.append(_os.path.dirname(__path__[0]))

from .comparison import align
from .errors import FitError, InputError
from .evaluate import elbo, log_joint, log_prior
from .explain import explain
from .families import (
    EM,
    HARD_EM,
    MAXIMIZATION_EXPECTATION,
    VARIATIONAL_BAYES,
    Categorical,
    Conjugate,
    Delta,
    Tempered,
    TopC,
)
from .fit import fit, iterate, solve
from .fitted import Fit, load
from .history import History
from .initialization import KMeansPlusPlus, Labels, Parameters, RandomRows, Responsibilities
from .interop import marginalize
from .loop import Result
from .many import fit_many
from .many_fitted import ManyFits
from .selected import Candidate, Selection
from .selection import select
from .stepwise import absorb

__all__ = [
    "EM",
    "HARD_EM",
    "MAXIMIZATION_EXPECTATION",
    "VARIATIONAL_BAYES",
    "Candidate",
    "Categorical",
    "Conjugate",
    "Delta",
    "Fit",
    "FitError",
    "History",
    "InputError",
    "KMeansPlusPlus",
    "Labels",
    "ManyFits",
    "Parameters",
    "RandomRows",
    "Responsibilities",
    "Result",
    "Selection",
    "Tempered",
    "TopC",
    "absorb",
    "align",
    "elbo",
    "explain",
    "fit",
    "fit_many",
    "iterate",
    "load",
    "log_joint",
    "log_prior",
    "marginalize",
    "select",
    "solve",
]
