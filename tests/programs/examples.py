"""NumPyro programs unlike those of models/, each with its table of log joints as plain loops over SciPy's densities.

Programs live at module level, so that what is compiled for one test serves the others.
"""

from tests.programs.densities import (
    direction_example,
    expert_example,
    factor_example,
    regression_example,
    student_example,
    zero_inflated_example,
)
from tests.programs.structures import (
    boxed_example,
    feature_example,
    masked_example,
    mixed_example,
    nested_example,
    penalised_example,
    prior_example,
)

EXAMPLES = {
    "masked and scaled": masked_example(),
    "priors": prior_example(),
    "regressions": regression_example(),
    "nested": nested_example(),
    "feature plate": feature_example(),
    "categories and Gaussian": mixed_example(),
    "boxed": boxed_example(),
    "zero-inflated": zero_inflated_example(),
    "directions": direction_example(),
    "factor analysers": factor_example(),
    "Student-t": student_example(),
    "experts": expert_example(),
    "penalised": penalised_example(),
}
