"""The bound and the table at given parameters, from the program itself: the slow path that everything else is held
against.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from probem.analysis.problem import read_complete
from probem.data.arrays import numeric
from probem.e_step.bound import Bound, bound_from_table
from probem.errors import InputError
from probem.program.program import Program
from probem.program.values import check_values


def log_joint(program: Callable[..., Any], params: Mapping[str, Any], *data: Any) -> Float[Array, "N K"]:
    """The table L_nk = log p(x_n, t_n = k | params), by NumPyro's handlers alone.

    Every N x K entry is formed: this is the meaning of the program, not the way it is fitted.

    Parameters
    ----------
    program : a NumPyro program of its data, everything else bound beforehand
    params : a value for every site outside the data plate
    data : arrays (or pytrees of arrays) with the same number N of rows, without missing values

    Returns
    -------
    Array : ``[N, K]``, nats. Several assignment sites are indexed jointly, in row-major order of their appearance

    Raises
    ------
    InputError
        For a program, parameters or data that cannot be used.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import kmeans
    >>> numpyro.enable_x64()
    >>> program = partial(kmeans, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> params = {"loc": np.array([[0.0], [100.0]])}
    >>> table = probem.log_joint(program, params, x)
    >>> table.argmax(1).tolist()
    [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    >>> round(float(table[0, 0]), 2), round(float(np.log(1 / 2) - np.log(2 * np.pi) / 2), 2)
    (-1.61, -1.61)
    """
    mixture, values, data = _at(program, params, data)
    return mixture.log_joint(values, data)


def log_prior(program: Callable[..., Any], params: Mapping[str, Any], *data: Any) -> Float[Array, ""]:
    """log p(params): the log density of the sites that have a prior.

    Parameters
    ----------
    program, params, data : as in ``log_joint``

    Returns
    -------
    Array : a number, nats; zero for a program without a prior

    Raises
    ------
    InputError
        For a program, parameters or data that cannot be used.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import kmeans
    >>> numpyro.enable_x64()
    >>> program = partial(kmeans, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> params = {"loc": np.array([[0.0], [100.0]])}
    >>> float(probem.log_prior(program, params, x))
    0.0
    """
    mixture, values, data = _at(program, params, data)
    return mixture.log_prior(values)


def elbo(program: Callable[..., Any], params: Mapping[str, Any], responsibilities: Any, *data: Any) -> Bound:
    """F(q, params) for any q of the assignments and any parameters, by NumPyro's handlers alone.

        F = E_q[log p(X, T | params)] + H(q) + log p(params)

    Source: Neal & Hinton (1998), A view of the EM algorithm, eq. 7.

    Parameters
    ----------
    program, params, data : as in ``log_joint``
    responsibilities : ``[N, K]``, q(t_n = k), rows summing to 1; a point mass is a row with a single 1

    Returns
    -------
    Bound : ``elbo``, its terms ``expected_log_joint``, ``entropy`` and ``log_prior``, and ``gap`` = sum_n KL(q_n ||
        p(t_n | x_n, params)); nats, totals over the rows

    Raises
    ------
    InputError
        For a program, parameters or data that cannot be used, and for a q of another shape.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import kmeans
    >>> numpyro.enable_x64()
    >>> program = partial(kmeans, num_components=2)
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> params = {"loc": np.array([[0.0], [100.0]])}
    >>> bound = probem.elbo(program, params, np.repeat(np.eye(2), 6, axis=0), x)
    >>> abs(float(bound.entropy)), abs(float(bound.gap)) < 1e-3
    (0.0, True)
    >>> bool(np.isclose(bound.elbo, bound.expected_log_joint + bound.entropy + bound.log_prior))
    True
    """
    mixture, values, data = _at(program, params, data)
    table = mixture.log_joint(values, data)
    q = jnp.asarray(numeric(responsibilities, "responsibilities"))
    if q.shape != table.shape:
        raise InputError(
            f"responsibilities of shape {q.shape}", f"shape {table.shape}", "give one row for each row of the data"
        )
    return bound_from_table(table, q, mixture.log_prior(values))


def _at(
    program: Callable[..., Any], params: Mapping[str, Any], data: tuple[Any, ...]
) -> tuple[Program, dict[str, Array], tuple[Any, ...]]:
    mixture, data = read_complete(program, data)
    missing = [site.name for site in mixture.globals if site.name not in params]
    if missing:
        raise InputError(f"no value for the site '{missing[0]}'", "a value for every global site", "add it to params")
    values = check_values(params, mixture, closed=True, role="value")
    return mixture, {name: jnp.asarray(value) for name, value in values.items()}, data
