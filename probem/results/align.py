"""Fits beside each other: which component of one is which of the other."""

from typing import Any

import numpy as np

from probem.errors import InputError
from probem.results.fit import Fit


def align(reference: Fit, fit: Fit, *data: Any) -> np.ndarray:
    """The component of ``fit`` that is component k of ``reference``, ``[K]``: a permutation.

    It maximises the expected number of rows of the data on which both agree, sum_nk r_nk s_n,order(k), with r and s the
    responsibilities: an assignment problem (the Hungarian method). ``fit.params["loc"][order]`` then stands beside
    ``reference.params["loc"]``.

    Raises
    ------
    InputError
        If the fits have different numbers of components.

    Source: Kuhn (1955); Stephens (2000), Dealing with label switching in mixture models, section 4.1.
    """
    from scipy.optimize import linear_sum_assignment

    first, second = (np.asarray(one.responsibilities(*data), float) for one in (reference, fit))
    if first.shape != second.shape:
        raise InputError(
            f"fits with {first.shape[1]} and {second.shape[1]} components",
            "the same number in both",
            "fit both with one number of components",
        )
    return linear_sum_assignment(first.T @ second, maximize=True)[1]
