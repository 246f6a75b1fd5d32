"""The theory, checked on any program and its data."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probem.analysis.problem import read_complete
from probem.checking import half_steps, numpyros_elbo, values
from probem.checking.climb import Climb
from probem.checking.oracle import GivenOracle, NumPyroOracle, check_callable
from probem.checking.report import Check, Report
from probem.data.checks import check_data
from probem.errors import InputError, nearest
from probem.jit.precision import precision
from probem.solver.initialisers import Initializer

#: The claims that are checked on a program, in words, and how.
CLAIMS: dict[str, tuple[str, Callable[[Climb], Iterator[Check | str]]]] = {
    "table": ("the table of log joints is that of the program", values.table),
    "A1": ("F and its gap add up to log p(X, θ)", values.bound_and_gap),
    "A2": ("the q of an E half-step is the best of its family", values.posterior_is_best),
    "A3": ("no half-step lowers what its family maximises", half_steps.never_falls),
    "A5": ("the slope of log p(X) is the expected slope of log p(X, T)", values.fisher),
    "A6": ("F is NumPyro’s ELBO of the guide", numpyros_elbo.of_the_guide),
    "G1": ("the gain of every half-step is a divergence", half_steps.gains),
    "G14": ("where the fit stops, a Newton step promises nothing", values.promised),
    "E1": ("F of full posteriors is below the exact evidence", values.below_evidence),
    "units": ("F shifts with the unit of the data", half_steps.in_other_units),
}


def check(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | None = None,
    key: int = 0,
    max_steps: int = 1000,
) -> Report:
    """The theory of the bound on a program and its data, beside densities that are never probem's own.

    A fit is made, and compared with NumPyro's densities of the same program, one run for each value of its assignments,
    and with NumPyro's own enumeration: the table; A1, F + gap = log p(X, theta) for random q; A2, the E half-step takes
    the best q of its family; A3, no half-step lowers what the family maximises; A5, Fisher's identity; A6, NumPyro's
    ELBO of the guide; G1, the gain of every half-step is a Kullback-Leibler divergence; G14, where the fit stops a
    Newton step in all parameters promises nothing (beside corners, a search gains nothing); E1, F of full posteriors is
    below the exact evidence (of few rows); and F in other units. In float64, whatever the process is set to. Two sides
    may be apart by what rounding makes of the terms that cancel in them, as where clusters are narrow, or far from
    zero, and by little else.

    Parameters
    ----------
    program : a NumPyro program of its data, everything else bound beforehand
    data : arrays (or pytrees of arrays) with the same number N of rows, without missing values
    families, init, key, max_steps : as in ``probem.fit``

    Returns
    -------
    Report : ``holds``, ``rows``, ``remarks`` (what was not compared, and why), ``raise_for_failure()``, ``to_html()``

    Raises
    ------
    InputError
        For a program, data or options that cannot be used.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import probem
    >>> from probem.models import kmeans
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> report = probem.check(partial(kmeans, num_components=2), x, families=probem.HARD_EM)
    >>> report.holds
    True
    """
    return _report(tuple(CLAIMS), program, data, None, _options(families, init, key, max_steps))


def claim(
    name: str,
    program: Callable[..., Any],
    *data: Any,
    oracle: Callable[..., Any] | None = None,
    families: Any = None,
    init: Initializer | None = None,
    key: int = 0,
    max_steps: int = 1000,
) -> Report:
    """A single claim of ``probem.check``, on a program and its data, beside a log density of one's own.

    Parameters
    ----------
    name : ``"table"``, ``"A1"``, ``"A2"``, ``"A3"``, ``"A5"``, ``"A6"``, ``"G1"``, ``"G14"``, ``"E1"`` or ``"units"``:
        see ``probem.check``
    program, data, families, init, key, max_steps : as in ``probem.check``
    oracle : ``oracle(params, *data)`` is log p(x_n, t_n = k | params), ``[N, K]``, nats per row, with the values of
        several assignments in row-major order; a function of JAX, or of NumPy where no slope is compared. By default
        NumPyro's densities of the program

    Returns
    -------
    Report : as of ``probem.check``. Where a claim (A6, and A3 of full posteriors) compares nothing with the oracle that
        was given, a remark says so, and the report, which has no rows, does not hold

    Raises
    ------
    InputError
        For a claim that there is not, a table of another shape, and what ``probem.check`` refuses.

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import probem
    >>> from probem.models import kmeans
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> def wrong(params, x):  # forgets that the components are equally likely
    ...     return -0.5 * (x - params["loc"].T) ** 2 - 0.5 * np.log(2 * np.pi)
    >>> probem.claim("A1", partial(kmeans, num_components=2), x, oracle=wrong).holds
    False
    """
    if name not in CLAIMS:
        raise InputError(f"the claim {name!r}", f"one of {', '.join(CLAIMS)}", nearest(str(name), CLAIMS))
    if oracle is not None:
        check_callable(oracle, len(data))
    return _report((name,), program, data, oracle, _options(families, init, key, max_steps))


def as_test(program: Callable[..., Any], *data: Any, **options: Any) -> Callable[..., None]:
    """``probem.check`` as a test of pytest, a case for each claim: ``test_mixture = probem.as_test(mixture, x)``.

    Parameters
    ----------
    program, data, options : as in ``probem.check``, which is called when the first case runs

    Returns
    -------
    Callable : a test with a parameter ``claim``; a claim of which nothing is compared is skipped

    Examples
    --------
    >>> from functools import partial
    >>> import numpy as np
    >>> import probem
    >>> from probem.models import kmeans
    >>> test_kmeans = probem.as_test(partial(kmeans, num_components=2), np.r_[0.0:6, 100:106][:, None])
    >>> [mark.args[0] for mark in test_kmeans.pytestmark]
    ['claim']
    """
    import pytest

    @functools.cache
    def report() -> Report:
        return check(program, *data, **options)

    @pytest.mark.parametrize("claim", CLAIMS)
    def test(claim: str) -> None:
        part = report().of(claim)
        if not part.rows:
            pytest.skip(next((remark for remark in part.remarks if remark.startswith(claim)), "does not apply"))
        part.raise_for_failure()

    return test


def _options(families: Any, init: Any, key: int, max_steps: int) -> dict[str, Any]:
    return {"families": families, "init": init, "key": key, "max_steps": max_steps}


def _report(
    names: tuple[str, ...],
    program: Callable[..., Any],
    data: tuple[Any, ...],
    oracle: Callable[..., Any] | None,
    options: dict[str, Any],
) -> Report:
    with precision(np.float64):
        data = jax.tree.map(_in_float64, check_data(data))
        reading, _ = read_complete(program, data)
        num_rows, components = jax.tree.leaves(data)[0].shape[0], reading.num_components
        of_numpyro = NumPyroOracle(program, data)
        given = of_numpyro if oracle is None else GivenOracle(oracle, data, (num_rows, components))
        climb = Climb(program, data, options, of_numpyro, given, np.random.default_rng(0))
        rows: list[Check] = []
        remarks: list[str] = []
        for name in names:
            for compared in CLAIMS[name][1](climb):
                if isinstance(compared, Check):
                    rows.append(compared)
                else:
                    remarks.append(compared)
        if isinstance(given, GivenOracle) and not given.was_asked and rows:
            rows, remarks = [], [f"{name}: nothing in it is compared with a table that is given." for name in names]
        return Report(_name(program), (num_rows, components), tuple(rows), tuple(remarks), climb.end)


def _in_float64(leaf: Any) -> Any:
    array = np.asarray(leaf)
    return np.asarray(array, np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else array


def _name(program: Any) -> str:
    while hasattr(program, "func"):
        program = program.func
    return getattr(program, "__name__", type(program).__name__)
