"""``select``: the same data fitted by a grid of programs, and the one that a criterion prefers."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from probem.analysis.options import FitOptions
from probem.analysis.problem import parse
from probem.data.checks import check_data, check_row_weights
from probem.data.row_axes import RowAxes
from probem.errors import InputError, nearest
from probem.fitting.fit import fit, fitted
from probem.fitting.reporting import check_verbose
from probem.plan.plan import Plan
from probem.selection.candidates import programs_of
from probem.selection.criteria import CRITERIA, Criterion, Measures, criterion_of, num_parameters, value_of
from probem.selection.selection import Candidate, Selection
from probem.solver.result import Result

# Arguments of ``fit`` that are arguments here, or decided here.
_OWN = ("program", "data", "families", "throw")


def select(
    program: Callable[..., Any] | Mapping[str, Any],
    *data: Any,
    over: Any = None,
    criterion: str | Criterion = "bic",
    families: Any = None,
    **options: Any,
) -> Selection:
    """Fit a program with every combination of some keyword arguments, and choose by a criterion.

    A criterion is a number of every fit, nats, total over the data: of points, such as ``"bic"``, on the scale of
    -2 log p(X | theta), where lower is better; of full posteriors, such as ``"elbo"``, a bound or an estimate of
    log p(X), where higher is better. ``help(probem.selection.criteria)`` has all of them, with formulas and sources.

    Parameters
    ----------
    program : a NumPyro program of its data; or a mapping from name to program, and then no ``over``
    data : arrays (or pytrees of arrays) with the same number N of rows
    over : the values to try of keyword arguments of the program: ``{"num_components": range(1, 7)}``
    criterion : the name of one, or a ``probem.Criterion`` of your own
    families : as in ``fit``, the same for every candidate
    options : further arguments of ``fit``, such as ``restarts``, ``key`` (every candidate starts from the same),
        ``tolerance`` and ``row_weights``

    Returns
    -------
    Selection : all that was fitted. A fit that ended badly, and a program that could not be fitted, are rows as well,
        and are not chosen; nor is one whose criterion is NaN because it raised or is no number, as its message says.
        Ctrl-C ends with what is done so far.

    Raises
    ------
    InputError
        Before the first fit: for what is no candidate or no option, or a criterion that does not compare these fits;
        and if no candidate can be used.
    FitError
        If no fit converged, or none with a finite criterion; its ``fit`` is the ``Selection``.

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
    chosen = criterion_of(criterion)
    _check_options(options)
    verbose = options.pop("verbose", None)
    check_verbose(verbose)
    asked = FitOptions(families=families, **options)
    candidates = programs_of(program, over, len(data))
    data = check_data(data, missing=True, sparse=True)
    weights = check_row_weights(asked.row_weights, RowAxes(jax.tree.leaves(data)[0].shape[0]))
    planned = [_planned(candidate, data, asked) for _, candidate in candidates]
    plans = [plan for plan in planned if isinstance(plan, Plan)]
    if not plans:
        raise next(error for error in planned if isinstance(error, InputError))
    chosen.check(plans, asked)
    computed = {name: each for name, each in CRITERIA.items() if not each.only_if_chosen} | {chosen.name: chosen}
    unknown = dict.fromkeys((*CRITERIA, chosen.name), math.nan)
    labels = None if asked.labels is None else np.asarray(asked.labels, np.int32)
    table: list[Candidate] = []
    errors: list[InputError] = []
    interrupted = False
    try:
        for (settings, candidate), plan in zip(candidates, planned, strict=True):
            try:
                if isinstance(plan, InputError):
                    raise plan
                ended = fitted(candidate, data, asked, verbose)
            except InputError as error:
                count = num_parameters(plan) if isinstance(plan, Plan) else None
                table.append(Candidate(settings, count, math.nan, unknown, None, None, str(error)))
                errors.append(error)
                continue
            assert ended.result is not None
            measures = Measures(ended, data, weights, labels)
            defined = [each for each in computed.values() if each.refusal(plan, asked) is None]
            at_once, reasons = _computed([each for each in defined if not each.needs_rows], measures)
            row = (settings, num_parameters(plan), math.nan, unknown | at_once, ended.result, ended)
            table.append(Candidate(*row, "; ".join([ended.result.value, *reasons])))
            interrupted = ended.result is Result.INTERRUPTED
            if interrupted:
                break
            # Only now: what was fitted is kept, should Ctrl-C come while it is measured.
            values, more = _computed([each for each in defined if each.needs_rows], measures)
            table[-1] = dataclasses.replace(
                table[-1],
                log_likelihood=measures.log_likelihood,
                criteria=unknown | at_once | values,
                message="; ".join([ended.result.value, *reasons, *more]),
            )
    except KeyboardInterrupt:
        interrupted = True
        if not table:
            raise
    selection = Selection(tuple(table), criterion, interrupted)
    if len(errors) == len(candidates):
        raise errors[0]
    if not interrupted:
        _ = selection.best_candidate  # raises if there is none
    return selection


def _check_options(options: Mapping[str, Any]) -> None:
    names = [name for name in inspect.signature(fit).parameters if name not in _OWN]
    for name in options:
        if name == "throw":
            raise InputError(
                "throw=, which select decides", "no such option", "leave it out: a fit that ends badly is a row"
            )
        if name not in names:
            raise InputError(f"the option '{name}'", "an argument of probem.fit", nearest(name, names))


def _computed(criteria: Sequence[Criterion], measures: Measures) -> tuple[dict[str, float], list[str]]:
    """The criteria of a fit by name, and why some of them are NaN: whatever one does, no fit is lost."""
    values: dict[str, float] = {}
    reasons: list[str] = []
    for each in criteria:
        try:
            values[each.name] = value_of(each, measures)
        except InputError as error:
            values[each.name] = math.nan
            reasons.append(str(error))
    return values, reasons


def _planned(program: Callable[..., Any], data: tuple[Any, ...], options: FitOptions) -> Plan | InputError:
    """The plan that ``fit`` will find made, or why there is none."""
    try:
        return parse(program, data, options).plan
    except InputError as error:
        return error
