"""``fit_many``: one program fitted to many data sets of one shape, side by side in one compiled call."""

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from probem.analysis.options import FitOptions, check_options
from probem.analysis.problem import Problem, parse
from probem.analysis.violations import are_violated
from probem.data.blocks import padded
from probem.data.row_axes import listed
from probem.errors import FitError
from probem.fitting.certify import certified
from probem.fitting.options import beginning
from probem.fitting.unresolved import is_unresolved
from probem.form.statistics import DataTotals, Statistics
from probem.many.joining import joined
from probem.many.many_fits import ManyFits
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results import failures
from probem.solver import certificate
from probem.solver.batching import Batches, DataSets, solve_batches
from probem.solver.initialisers import Initializer
from probem.solver.result import RESULTS, Result
from probem.solver.seedings import Seeding
from probem.solver.side_by_side import batch_size
from probem.solver.state import Acceleration, Limits, Record, State
from probem.stopping import Stopping

# Bytes of data, statistics, labels and history in one compiled call, and of a step of that.
_CALL_BYTES = 2**28
_STEP_BYTES = 84


def fit_many(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | list[Any] | None = None,
    key: Array | int = 0,
    restarts: int = 1,
    max_steps: int = 1000,
    tolerance: int | float | Stopping = 1e-10,
    row_weights: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    added_variance: Any = 0.0,
    acceleration: Acceleration | None = None,
    record_history: bool = False,
    throw: bool = True,
) -> ManyFits:
    """Fit one program to B independent data sets of the same shape, in one compiled call.

    Data set b is fitted as ``probem.fit(program, x[b], key=jax.random.split(key, B)[b])`` would be, to rounding: from
    the same start, in as many steps. (Of more than some thousand rows ``fit`` draws its seeds from a part; here all
    count. A given start is the same.) Data sets that have ended give way to others, so that none waits for the slowest.
    Where data and what is kept of it exceed 256 MiB, they are cut into several calls, with the same results. Another
    number of rows N compiles anew, and another B unless it rounds up to the same multiple of those side by side.
    Ctrl-C waits for the call that is running, and gives up what was done.

    Parameters
    ----------
    program : a NumPyro program of one data set, everything else bound beforehand
    data : arrays (or pytrees of arrays) ``[B, N, ...]``
    families, restarts, max_steps, fixed, acceleration : as in ``fit``, the same for all
    tolerance, added_variance : as in ``fit``, and the same for all unless the numbers of a rule of ``probem.stopping``
        are ``[B]``, or the covariances ``[B, F, F]``
    init : as in ``fit``. ``Parameters``, ``Labels`` and ``Responsibilities`` have a leading axis B as well; a callable
        is called with the key and the rows ``[N, F]`` of one data set after another; or a list of B callables
    key : a JAX key or a seed, split into one key for each data set; or B keys
    row_weights : ``[B, N]``, how often each row counts. Data sets of different lengths are padded with any finite rows
        of weight 0
    labels : ``[B, N]``, the assignment of each row where it is known, -1 where it is not
    record_history : keep the bound after every half-step, for ``fits[b].history`` (at most 170 bytes for each of
        ``max_steps``)
    throw : raise ``FitError`` if a fit ended in anything but CONVERGED; False returns them with their ``results``

    Returns
    -------
    ManyFits : parameters, bounds and results ``[B, ...]``; ``fits[b]`` is the ``Fit`` of data set b

    Raises
    ------
    InputError
        Before anything runs, for a program or data that cannot be used; it names the data sets.
    FitError
        If fits ended badly: which, and how. Its ``fit`` holds all B of them; the others are as good as alone.

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
    >>> fits = probem.fit_many(program, np.stack([x, x + 1]))
    >>> fits.params["loc"].shape, fits[1].result.name
    ((2, 2, 1), 'CONVERGED')
    >>> sorted(np.round(fits.params["loc"][1].ravel(), 1).tolist())
    [3.5, 103.5]
    """
    options = FitOptions(
        families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance, restarts
    )._replace(acceleration=acceleration)
    fits = fitted_many(program, data, options, record_history)
    if throw:
        _throw(fits)
    return fits


def fitted_many(
    program: Callable[..., Any], data: tuple[Any, ...], options: FitOptions, record_history: bool
) -> ManyFits:
    """The ``ManyFits`` that are asked for, however they ended.

    Raises
    ------
    InputError
        Before anything runs, for a program, data or options that cannot be used.
    """
    rows, num_sets = joined(data)
    check_options(options, num_sets)
    fits = _best_restarts(parse(program, rows, options, distinct=True, num_sets=num_sets), options, record_history)
    if not fits.plan.families.conjugate and _is_unresolved(fits, rows):
        # What is maximised by the gradient of the program needs no products of two covariates.
        options = options._replace(predictors=False)
        fits = _best_restarts(parse(program, rows, options, distinct=True, num_sets=num_sets), options, record_history)
    if Result.NOT_CONJUGATE in fits.results and not fits.plan.families.conjugate:
        # Points need no conjugate prior: they are maximised numerically then.
        options = options._replace(modes=False)
        fits = _best_restarts(parse(program, rows, options, distinct=True, num_sets=num_sets), options, record_history)
    return _certified(fits, rows, options)


def _best_restarts(problem: Problem, options: FitOptions, record_history: bool) -> ManyFits:
    """The best restart of every data set."""
    seeding, start, limits, variances = beginning(problem, options)
    rows = jax.tree.map(problem.axes.by_set, problem.rows)
    if options.restarts > 1:
        # The restarts of a data set are fitted as other data sets are.
        rows = jax.tree.map(lambda leaf: leaf.repeat(options.restarts, 0), rows)
    sets = DataSets(start, rows, limits.rule, variances)
    num_records = 2 ** math.ceil(math.log2(options.max_steps)) if record_history else 0
    solved = _solved(problem, seeding, sets, limits._replace(rule=Stopping()), num_records)
    return _judged(_best(problem, solved, options.restarts))


class _Solved(NamedTuple):
    """What a fit of every data set ended with, ``[B, ...]``, on the host."""

    params: Params
    state: State
    totals: DataTotals
    records: Record | None


def _solved(problem: Problem, seeding: Seeding | None, sets: DataSets, limits: Limits, num_records: int) -> _Solved:
    """All data sets, in as few compiled calls as memory allows."""
    plan, fixed = problem.plan, problem.fixed
    num_sets, num_rows = jax.tree.leaves(sets.rows.data)[0].shape[:2]
    width = batch_size(num_sets, num_rows)
    together = width * max(1, _CALL_BYTES // (width * (num_rows * _row_bytes(plan) + num_records * _STEP_BYTES)))
    # Cut and filled up without compiling anything.
    sets = jax.tree.map(_on_host, sets)
    parts = []
    for first in range(0, num_sets, together):
        these = slice(first, min(first + together, num_sets))
        count = these.stop - first
        # What is left over for the last call is filled up, and compiles nothing new.
        size = together if num_sets > together else -(-num_sets // width) * width
        chosen = jax.tree.map(lambda leaf, these=these, size=size: padded(leaf[these], size), sets)
        solved = solve_batches(
            plan, Batches(seeding, width, num_records), chosen, fixed, jnp.asarray(count, jnp.int32), limits
        )
        parts.append(_Solved(*jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], solved)))
    # Of the records there is room for many more steps than were made.
    made = max(int(part.state.step.max()) for part in parts)
    parts = [part._replace(records=jax.tree.map(lambda leaf: leaf[:, :made], part.records)) for part in parts]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _on_host(leaf: Any) -> Any:
    """An array of NumPy, but for keys, which it has not."""
    return leaf if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def _best(problem: Problem, solved: _Solved, restarts: int) -> ManyFits:
    """The best restart of every data set."""
    codes, objective, elbos = (
        np.asarray(leaf).reshape(-1, restarts)
        for leaf in (solved.state.code, solved.state.objective, solved.state.bound.elbo)
    )
    best = np.arange(len(codes)) * restarts + failures.best_restart(codes, objective)
    chosen: Any = solved if restarts == 1 else jax.tree.map(lambda leaf: leaf[best], solved)
    params, state, totals, records = chosen
    return ManyFits(
        params=jax.tree.map(jnp.asarray, params),
        variational=jax.tree.map(jnp.asarray, state.best),
        bound=jax.tree.map(lambda leaf: np.asarray(leaf, float), state.bound),
        results=tuple(RESULTS[code] for code in state.code),
        num_steps=state.step,
        counts=state.counts,
        sums=state.sums,
        components=state.component,
        settled=state.settled,
        promised=np.where(np.isfinite(state.promised), np.maximum(state.promised, 0.0), np.inf),
        twins=_twins(problem.plan, state),
        restart_elbos=np.where(np.isfinite(objective), np.asarray(elbos, float), -np.inf),
        plan=problem.plan,
        totals=totals,
        program=problem.function,
        records=records,
    )


def _twins(plan: Plan, state: State) -> Bool[np.ndarray, "B K K"]:
    """Which pairs of components are one in the fits that converged."""
    alike = certificate.find_twins(state.natural.weight, state.counts, state.sums, state.noise)
    ended = (state.code == RESULTS.index(Result.CONVERGED)) & (not plan.is_point)
    return alike & ended[:, None, None]


def _certified(fits: ManyFits, rows: tuple[Any, ...], options: FitOptions) -> ManyFits:
    """The fits, with results of their own for those that converged to no maximum: see ``fitting/certify.py``."""
    results, promised, twins = list(fits.results), fits.promised.copy(), fits.twins.copy()
    converged = np.array([result is Result.CONVERGED for result in results])
    every = jax.tree.map(lambda leaf: leaf.reshape(len(fits), -1, *leaf.shape[1:]), rows)
    doubtful = twins.any((1, 2)) | (converged & bool(fits.plan.numeric))
    for number in map(int, np.flatnonzero(doubtful)):
        data = jax.tree.map(lambda leaf, number=number: leaf[number], every)
        judged = certified(fits[number], data, _alone(options, number))
        if judged.result is not None:
            results[number] = judged.result
        promised[number] = judged.promised
        twins[number] = False
        for j, k in judged.twins:
            twins[number, j, k] = True
    return dataclasses.replace(fits, results=tuple(results), promised=promised, twins=twins)


def _alone(options: FitOptions, number: int) -> FitOptions:
    """What is asked for a data set, but for where it starts."""

    def taken(value: Any, ndim: int) -> Any:
        return value[number] if np.ndim(value) > ndim else value

    return options._replace(
        init=None,
        key=0,
        restarts=1,
        tolerance=jax.tree.map(lambda value: taken(value, 0), options.tolerance),
        added_variance=taken(options.added_variance, 2),
        row_weights=None if options.row_weights is None else np.asarray(options.row_weights)[number],
        labels=None if options.labels is None else np.asarray(options.labels)[number],
    )


def _row_bytes(plan: Plan) -> int:
    """Of one row: its data and statistics, and its label or the start's probabilities."""
    columns = plan.num_observed + plan.form.num_columns + plan.num_components + 1
    return jnp.dtype(plan.dtype).itemsize * columns


def _judged(fits: ManyFits) -> ManyFits:
    """The fits, with results of their own for those that ended at posteriors that are not those of the program, or at
    linear predictors that rounding decides.
    """
    plan, results = fits.plan, list(fits.results)

    def are(result: Result, which: Bool[np.ndarray, " B"]) -> None:
        results[:] = [result if there else other for other, there in zip(results, which, strict=True)]

    if plan.mean_field.sites:
        are(Result.NOT_CONJUGATE, are_violated(plan.mean_field, fits.variational))
    if plan.form.predicted:
        cancelled = np.asarray(failures.have_cancelled(plan, fits.variational, _statistics(fits)))
        are(Result.UNRESOLVED, cancelled & [result is not Result.SINGULAR for result in results])
    return dataclasses.replace(fits, results=tuple(results))


def _is_unresolved(fits: ManyFits, rows: tuple[Any, ...]) -> bool:
    """Whether rounding decides a linear predictor of some data set."""
    if not fits.plan.form.predicted:
        return False
    if Result.UNRESOLVED in fits.results:
        return True
    lost = np.asarray(failures.have_lost_slopes(fits.plan, _statistics(fits)))
    every = jax.tree.map(lambda leaf: leaf.reshape(len(fits), -1, *leaf.shape[1:]), rows)
    return any(
        is_unresolved(fits[number], jax.tree.map(lambda leaf, number=number: leaf[number], every))
        for number in map(int, np.flatnonzero(lost))
        if fits.results[number] is not Result.SINGULAR
    )


def _statistics(fits: ManyFits) -> Statistics:
    return Statistics(jnp.asarray(fits.counts), jnp.asarray(fits.sums), fits.totals.shifts)


def _throw(fits: ManyFits) -> None:
    """Raise a ``FitError`` that says which fits ended how, unless all converged."""
    bad = collections.Counter(result for result in fits.results if result is not Result.CONVERGED).most_common()
    if not bad:
        return
    places = {result: [number for number, ended in enumerate(fits.results) if ended is result] for result, _ in bad}
    said = "; ".join(f"{result.name} in {listed(places[result])} ({result.value})" for result, _ in bad)
    total = sum(count for _, count in bad)
    raise FitError(
        f"{total} of {len(fits)} fits ended badly: {said}; {failures.REMEDIES[bad[0][0]]}. All of them are in the"
        " error's .fit.",
        fits,
    )
