"""How a fit ended."""

import enum


class Result(enum.Enum):
    """How a fit ended; the values are the messages."""

    CONVERGED = "converged: no row moved, or the bound rises by less than the tolerance"
    STEP_LIMIT = "the step limit was reached before the bound settled"
    BOUND_FELL = "the bound fell by more than rounding explains"
    NON_FINITE = "the bound or a parameter is not finite"
    SINGULAR = "the spread of a component collapsed, and the likelihood grows without limit"
    EMPTY_COMPONENT = "converged, with a component that no row belongs to"
    INTERRUPTED = "interrupted; this is the best state so far"
    NOT_STATIONARY = "the bound no longer rises, but its slope promises more than the tolerance"
    SADDLE = "a saddle of the bound: components that are one, or nearly, and F rises once they are moved apart"
    NOT_CONJUGATE = "a density does not depend on the parameters where they were fitted as it does elsewhere"
    UNRESOLVED = "covariates are so close to collinear, or so large beside deviations, that rounding decides"


#: Codes inside compiled code; RUNNING is not a result.
RUNNING = -1
RESULTS = tuple(Result)
CODE = {result: code for code, result in enumerate(RESULTS)}
