"""A selection that several files look at."""

import functools

import probem
from probem.models import diagonal, gmm
from tests.programs.fits import X


@functools.cache
def grid() -> probem.Selection:
    """One to three diagonal components, of which three are right."""
    return probem.select(
        functools.partial(gmm, covariance=diagonal), X, over={"num_components": range(1, 4)}, restarts=3
    )
