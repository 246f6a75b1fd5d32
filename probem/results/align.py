"""Fits beside each other: which component of one is which of the other."""

from typing import Any

import numpy as np
from jaxtyping import Int

from probem.errors import InputError
from probem.results.fit import Fit


def align(reference: Fit, fit: Fit, *data: Any) -> Int[np.ndarray, " K"]:
    """The component of ``fit`` that is component k of ``reference``.

    The order maximises the expected number of rows of the data on which both agree, sum_nk r_nk s_n,order(k), with r
    and s the responsibilities: an assignment problem, solved by the Hungarian method. ``fit.params["loc"][order]`` then
    stands beside ``reference.params["loc"]``. Sources: Kuhn (1955), The Hungarian method for the assignment problem;
    Stephens (2000), Dealing with label switching in mixture models, section 4.1.

    Parameters
    ----------
    reference, fit : fits with the same number K of components, of any programs and families
    data : the rows on which they are compared

    Returns
    -------
    np.ndarray : ``[K]``, a permutation

    Raises
    ------
    InputError
        If the fits have different numbers of components.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> program = partial(gmm, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> labels = np.repeat([0, 1], 6)
    >>> first = probem.fit(program, x, init=probem.Labels(labels))
    >>> second = probem.fit(program, x, init=probem.Labels(1 - labels))
    >>> probem.align(first, second, x).tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment

    first, second = (np.asarray(each.responsibilities(*data), float) for each in (reference, fit))
    if first.shape != second.shape:
        raise InputError(
            f"fits with {first.shape[1]} and {second.shape[1]} components",
            "the same number in both",
            "fit both with one number of components",
        )
    return linear_sum_assignment(first.T @ second, maximize=True)[1]
