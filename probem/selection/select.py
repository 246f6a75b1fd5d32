"""``select``: the same data fitted by a grid of programs, and the one that a criterion prefers."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from probem.analysis.options import FitOptions
from probem.analysis.problem import parse
from probem.data.checks import check_data, check_row_weights
from probem.data.row_axes import RowAxes
from probem.errors import InputError, nearest
from probem.fitting.fit import fit, fitted
from probem.plan.plan import Plan
from probem.selection.candidates import Choice, check_criterion, programs_of
from probem.selection.criteria import CRITERIA, criteria, num_parameters
from probem.selection.selection import Candidate, Selection
from probem.selection.symmetry import log_relabellings
from probem.solver.result import Result

# Arguments of ``fit`` that are arguments here, or decided here.
_OWN = ("program", "data", "families", "throw")
_UNKNOWN = dict.fromkeys(("log_likelihood", "elbo", "bic", "aic", "icl"), math.nan)


def select(
    program: Callable[..., Any] | Mapping[str, Any],
    *data: Any,
    over: Any = None,
    criterion: str = "bic",
    families: Any = None,
    **options: Any,
) -> Selection:
    """Fit a program with every combination of some keyword arguments, and choose by a criterion.

    With L = log p(X | theta), the sum of w_n log p(x_n | theta) at the fitted points (of w_n log p(x_n, t_n | theta)
    where ``labels`` know t_n), P their number of free parameters, without those that are ``fixed``, and N the total
    weight of the rows, all in nats and totals over the data:

        bic   -2 L + P log N                                         lower is better
        aic   -2 L + 2 P                                             lower is better
        icl   bic - 2 sum_n w_n log max_k p(t_n = k | x_n, theta)    lower is better
        elbo  F, the bound on log p(X)                               higher is better
        log_evidence  F + log K!                                     higher is better

    ``log_evidence`` is an estimate of log p(X), and no bound. The posterior of K exchangeable components has K! modes,
    one for every numbering of them, and q sits in one: where the modes are apart, F is too low by log K!, which grows
    with K, so that F alone prefers too few. Where components coincide (or are empty) modes do too, and it is too much.
    It is defined for full posteriors under which every numbering is as probable, without ``labels`` and ``fixed``.

    ``icl`` is the form with every row assigned to its mode, not that with the entropy of the posterior; it prefers
    components that are apart. ``elbo`` is for full posteriors: between fits with points on sites of different shapes F
    decides nothing, and for maximum likelihood it grows with every component.

    Sources: Schwarz (1978), Estimating the dimension of a model; Akaike (1974); Biernacki, Celeux & Govaert (2000),
    Assessing a mixture model for clustering with the integrated completed likelihood, section 2; Beal (2003), section
    2.4, the bound; Bishop (2006), Pattern Recognition and Machine Learning, section 10.2.4, the K! modes.

    Parameters
    ----------
    program : a NumPyro program of its data; or a mapping from name to program, and then no ``over``
    data : arrays (or pytrees of arrays) with the same number N of rows
    over : the values to try of keyword arguments of the program: ``{"num_components": range(1, 7)}``
    criterion : ``"bic"``, ``"aic"``, ``"icl"``, ``"elbo"`` or ``"log_evidence"``
    families : as in ``fit``, the same for every candidate
    options : further arguments of ``fit``, such as ``restarts``, ``key`` (every candidate starts from the same),
        ``tolerance`` and ``row_weights``

    Returns
    -------
    Selection : all that was fitted. A fit that ended badly, and a program that could not be fitted, are rows as well,
        and are not chosen. Ctrl-C ends with what is done so far.

    Raises
    ------
    InputError
        Before the first fit: for what is no candidate or no option, or a criterion that does not compare these fits;
        and if no candidate can be used.
    FitError
        If no fit converged; its ``fit`` is the ``Selection``.

    Examples
    --------
    >>> import numpy as np
    >>> import numpyro
    >>> import probem
    >>> from probem.models import gmm
    >>> numpyro.enable_x64()
    >>> x = np.r_[0.0:6, 100:106][:, None]
    >>> selection = probem.select(gmm, x, over={"num_components": [1, 2]})
    >>> selection.best_settings
    {'num_components': 2}
    >>> [row.num_parameters for row in selection.table]
    [2, 5]
    """
    if not isinstance(criterion, str) or criterion not in CRITERIA:
        known = ", ".join(f"'{name}'" for name in CRITERIA)
        raise InputError(f"criterion={criterion!r}", f"one of {known}", nearest(str(criterion), CRITERIA))
    _check_options(options)
    progress = options.pop("progress", None)
    asked = FitOptions(families=families, **options)
    candidates = programs_of(program, over, len(data))
    data = check_data(data, missing=True)
    weights = check_row_weights(asked.row_weights, RowAxes(jax.tree.leaves(data)[0].shape[0]))
    planned = [_planned(one, data, asked) for _, one in candidates]
    plans = [one for one in planned if isinstance(one, Plan)]
    if not plans:
        raise next(one for one in planned if isinstance(one, InputError))
    check_criterion(criterion, plans)
    modes = [_log_relabellings(criterion, plan, asked) for plan in planned]
    table: list[Candidate] = []
    errors: list[InputError] = []
    interrupted = False
    try:
        for (settings, one), plan, own_modes in zip(candidates, planned, modes, strict=True):
            try:
                table.append(_fitted(settings, one, plan, data, asked, progress))
            except InputError as error:
                table.append(_refused(settings, plan, error))
                errors.append(error)
                continue
            interrupted = table[-1].result is Result.INTERRUPTED
            if interrupted:
                break
            # Only now: what was fitted is kept, should Ctrl-C come while it is measured.
            table[-1] = _measured(table[-1], data, weights, asked.labels)
            table[-1] = dataclasses.replace(table[-1], log_evidence=table[-1].elbo + own_modes)
    except KeyboardInterrupt:
        interrupted = True
        if not table:
            raise
    found = Selection(tuple(table), criterion, interrupted)
    if len(errors) == len(candidates):
        raise errors[0]
    if not interrupted:
        _ = found.best_candidate  # raises if there is none
    return found


def _log_relabellings(criterion: str, plan: Plan | InputError, options: FitOptions) -> float:
    """log K! where the criterion asks for it, else NaN."""
    if criterion != "log_evidence" or isinstance(plan, InputError):
        return math.nan
    for name in ("labels", "fixed"):
        if getattr(options, name) is not None:
            raise InputError(
                f"criterion='log_evidence' beside {name}=",
                "components of which none is known, so that every numbering of them is as probable",
                f"leave out {name}=, or use criterion='elbo'",
            )
    return log_relabellings(plan.program)


def _check_options(options: Mapping[str, Any]) -> None:
    known = [name for name in inspect.signature(fit).parameters if name not in _OWN]
    for name in options:
        if name == "throw":
            raise InputError(
                "throw=, which select decides", "no such option", "leave it out: a fit that ends badly is a row"
            )
        if name not in known:
            raise InputError(f"the option '{name}'", "an argument of probem.fit", nearest(name, known))


def _planned(program: Callable[..., Any], data: tuple[Any, ...], options: FitOptions) -> Plan | InputError:
    """The plan that ``fit`` will find made, or why there is none."""
    try:
        return parse(program, data, options).plan
    except InputError as error:
        return error


def _fitted(
    settings: Choice,
    program: Callable[..., Any],
    plan: Plan | InputError,
    data: tuple[Any, ...],
    options: FitOptions,
    progress: bool | None,
) -> Candidate:
    """A candidate that was fitted, its criteria still to be computed."""
    if isinstance(plan, InputError):
        raise plan
    found = fitted(program, data, options, progress)
    assert found.result is not None
    values = _UNKNOWN | {"elbo": found.elbo}
    return Candidate(
        settings, num_parameters(plan), **values, result=found.result, fit=found, message=found.result.value
    )


def _refused(settings: Choice, plan: Plan | InputError, error: InputError) -> Candidate:
    count = num_parameters(plan) if isinstance(plan, Plan) else None
    return Candidate(settings, count, **_UNKNOWN, result=None, fit=None, message=str(error))


def _measured(
    row: Candidate, data: tuple[Any, ...], row_weights: Float[np.ndarray, " N"] | None, labels: Any
) -> Candidate:
    assert row.fit is not None
    own = None if labels is None else np.asarray(labels, np.int32)
    return dataclasses.replace(row, **criteria(row.fit, data, row_weights, own)._asdict())
