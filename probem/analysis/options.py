"""What a fit is asked for beside its program and data, and what of it is wrong whatever these are."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from probem.errors import InputError
from probem.stopping import check_stopping


class FitOptions(NamedTuple):
    """What a fit is asked for beside its program and data; see ``probem.fit``.

    Of many data sets (``probem.fit_many``) the ``key``, the numbers of ``tolerance``, the matrices of
    ``added_variance``, and what is given for each row may have a leading axis B. ``modes`` allows a point under a
    conjugate prior its closed form, the mode of what its full posterior would be, ``predictors`` a location that is
    linear in parameters its statistics.
    """

    families: Any = None
    init: Any = None
    key: Any = 0
    max_steps: Any = 1000
    tolerance: Any = 1e-10
    row_weights: Any = None
    labels: Any = None
    fixed: Any = None
    added_variance: Any = 0.0
    restarts: int = 1
    record_gap: bool = False
    modes: bool = True
    predictors: bool = True
    acceleration: Any = None


def check_options(options: FitOptions, num_sets: int | None = None, traced: bool = False) -> None:
    """Refuse what is wrong with an option whatever the program and the data; ``traced`` allows arrays of JAX.

    Raises
    ------
    InputError
        Naming the option.
    """
    for number in jax.tree.leaves(check_stopping(options.tolerance)):
        if np.ndim(number) and np.shape(number) != (num_sets,):
            tolerance = f"a tolerance of shape {np.shape(number)}"
            if num_sets is None:
                raise InputError(tolerance, "a number", "fit_many takes one for each fit")
            raise InputError(tolerance, f"a number, or {num_sets}, one for each data set", "change it")
    for name, value in (("restarts", options.restarts), ("max_steps", options.max_steps)):
        if isinstance(value, Tracer) and traced:
            continue
        if not (isinstance(value, int | np.integer) or (traced and _is_whole(value))) or value < 1:
            raise InputError(f"{name}={value!r}", "a whole number of at least 1", "change it")
    if isinstance(options.init, type):
        name = options.init.__name__
        raise InputError(f"the class {name} as init", "an initialiser", f"write {name}(...)")


def _is_whole(value: Any) -> bool:
    whole = isinstance(value, jax.Array) and value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.integer)
    return whole or isinstance(value, int | np.integer)
