"""``fit``, ``iterate`` and ``solve``: from a program and data to a fitted state."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm.auto import tqdm

from probem.data.blocks import Block, one_block, to_blocks
from probem.data.checks import check_data
from probem.e_step.initial_q import InitialQ
from probem.errors import InputError
from probem.fitting.options import FitOptions, check, check_variance
from probem.form.statistics import DataTotals, Statistics, widened
from probem.jit.calls import from_host
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results import failures
from probem.results.fit import Fit
from probem.results.history import History
from probem.solver import certificate, loop
from probem.solver.beginning import begin_from_host, begin_in_block, begin_in_blocks
from probem.solver.initialisers import Initializer, Responsibilities
from probem.solver.loop import CALL_STEPS
from probem.solver.result import RESULTS, RUNNING, Result
from probem.solver.state import Limits, Record, State
from probem.solver.step import step
from probem.solver.stopping import Stopping, check_stopping

# How long the host leaves compiled code alone before it looks at the progress and at Ctrl-C, seconds.
_CALL_SECONDS = 0.3


# A call that takes less than this is made before the one before it is looked at, and may be in vain, seconds.
_AHEAD_SECONDS = 0.05


# Nats a row that count as no rise of the bound.
_NO_RISE = 1e-10


# Rows by which it is seen that components are not one after all.
_FEW_ROWS = 512


# Iterations for components that were one and were moved apart: they part, or meet again.
_MOST_APART = 1000


# A fit that takes longer than this shows its progress, seconds.
_PROGRESS_DELAY = 2.0


class Solution(NamedTuple):
    """The pure result of ``solve``: F in nats, total; ``result`` is the place of a ``Result`` in its enumeration.

    ``promised`` (nats, total) is how much the objective is expected to rise if the iterations go on.
    """

    params: Params
    elbo: Array
    result: Array
    num_steps: Array
    promised: Array


class _Records(NamedTuple):
    """The records of one call, ``[(R,) (steps)]``, and the number of steps ``[(R)]`` before and after it."""

    records: Record
    before: Array
    after: Array


class _Problem(NamedTuple):
    plan: Plan
    blocks: Sequence[Block]
    prepared: DataTotals
    limits: Limits
    restarts: int
    program: Callable[..., Any]
    released: tuple[InitialQ, ...] | None


def fit(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | None = None,
    key: Array | int = 0,
    restarts: int = 1,
    max_steps: int = 1000,
    tolerance: int | float | Stopping = 1e-10,
    row_weights: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    added_variance: Any = 0.0,
    record_gap: bool = False,
    throw: bool = True,
    progress: bool | None = None,
) -> Fit:
    """Fit a mixture written as a NumPyro program by coordinate ascent on the bound F.

    Each iteration maximises F = E_q[log p(X, T, theta)] + H(q(T)) + H(q(theta)) over q(T) in its family (the E
    half-step), then over theta (the M half-step): over points, whose entropy is left out, or over full posteriors. F
    never falls; under ``Tempered``, what never falls is F with H(q(T)) divided by beta. Without points
    under a prior, F <= log p(X).

    Threads may fit side by side. NumPyro's handlers are shared by all of them: do not run models of your own under
    handlers in one thread while another fits.

    Parameters
    ----------
    program : a NumPyro program of its data, everything else bound beforehand (``functools.partial``)
    data : arrays (or pytrees of arrays) with the same number N of rows
    families : ``probem.EM`` (default), ``HARD_EM``, ``VARIATIONAL_BAYES`` or ``MAXIMIZATION_EXPECTATION``, one of them
        with other families on some sites (``corner | {"loc": probem.Delta()}``), or a mapping from site to family
    init : ``KMeansPlusPlus()`` (default), ``RandomRows()``, ``Parameters``, ``Labels``, ``Responsibilities``, or a
        callable ``(key, rows [N, F])`` that returns parameters, labels or responsibilities
    key : a JAX key or a seed; the same key gives the same fit
    restarts : how many starts to run side by side; the one with the highest F is returned
    max_steps : the largest number of iterations
    tolerance : converged when F rises by at most so many nats a row in an iteration, and is expected to rise by no
        more if it goes on; 0 never stops on it. Point-mass assignments converge exactly, when no row moves. Or another
        rule of ``probem.stopping``
    row_weights : ``[N]``, how often each row counts: 2 is the row twice, 0 is no row
    labels : ``[N]``, the assignment of each row where it is known, -1 where it is not: t_n is then observed, q(t_n) a
        point mass, and F a bound on log p(X, known T). The mean of the rows known to be of a component is its seed
    fixed : values of parameters by site name that stay where they are; NaN marks the entries that are free. What is
        left of a simplex is shared by its free entries
    added_variance : the M half-step sees the rows with noise of this variance (a number, or a covariance matrix
        ``[F, F]``) added, in squared units of the data, which keeps every spread of a location family above it
        (``reg_covar`` of scikit-learn). It does not maximise F then: F may fall by a little, and a fall is no failure
    record_gap : also record sum_n KL(q_n || posterior) in every E half-step (one more exponential for each entry of
        the table)
    throw : raise ``FitError`` for every result but CONVERGED and INTERRUPTED; False returns the fit with its ``result``
    progress : show a progress bar; None shows one on a terminal once a fit takes long

    Raises
    ------
    InputError
        Before anything runs, for a program or data that cannot be used.
    FitError
        For a fit that ended badly; its ``fit`` holds the last good state.

    Source: Neal & Hinton (1998), A view of the EM algorithm that justifies incremental, sparse, and other variants.
    """
    settings = FitOptions(
        families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance, restarts, record_gap
    )
    chosen = failures.judged(_run(*_begin(program, data, settings), max_steps, progress))
    modes = not failures.needs_no_prior(chosen)
    if not modes:
        chosen = _run(*_begin(program, data, settings, modes), max_steps, progress)
    chosen = certified(chosen, program, data, settings, modes)
    if throw:
        failures.throw(chosen)
    return chosen


def iterate(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | None = None,
    key: Array | int = 0,
    max_steps: int = 1000,
    tolerance: int | float | Stopping = 1e-10,
    row_weights: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    added_variance: Any = 0.0,
    record_gap: bool = False,
    throw: bool = True,
) -> Iterator[Fit]:
    """The same fit, one iteration at a time: yields a ``Fit`` after every E half-step, with its bound.

    The first holds the initial parameters. The arguments are those of ``fit``. Where points under a prior turn out not
    to be conjugate in the end, it begins again, as ``fit`` does, with their numerical maximisation.
    """
    settings = FitOptions(families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance)
    made = None
    for modes in (True, False):
        problem, state = _begin(program, data, settings._replace(record_gap=record_gap), modes)
        records: list[_Records] = []
        points = _first_labels(problem)
        made = _fit(problem, state, records, interrupted=False)
        while _running(state):
            state, points, record = _advance(problem, state, points, 1)
            records.append(record)
            made = failures.judged(_fit(problem, state, records, interrupted=False))
            made = certified(made, program, data, settings, modes)
            if not failures.needs_no_prior(made):
                yield made
        if not failures.needs_no_prior(made):
            break
    assert made is not None
    if throw:
        failures.throw(made)


def solve(
    program: Callable[..., Any],
    *data: Any,
    families: Any = None,
    init: Initializer | None = None,
    key: Array | int = 0,
    max_steps: Array | int = 1000,
    tolerance: Array | int | float | Stopping = 1e-10,
    row_weights: Any = None,
    labels: Any = None,
    fixed: Mapping[str, Any] | None = None,
    added_variance: Any = 0.0,
) -> Solution:
    """The pure part of ``fit``: a function of arrays that can be jitted, vmapped and nested, initialisation included.

    ``jax.vmap(lambda key: probem.solve(program, x, key=key))(keys)`` runs restarts; mapping over ``x`` fits many
    data sets in one call. The arguments are those of ``fit``; ``max_steps``, ``tolerance``, ``row_weights``, ``labels``
    and ``added_variance`` may be traced. Failure is data: ``result`` is the place of a ``Result`` in its enumeration.
    Where ``fit`` would begin again numerically, with points that turned out not to be conjugate, it is NOT_CONJUGATE.
    What ``fit`` proves once it has ended (NOT_STATIONARY, SADDLE) is not looked at here.
    """
    settings = FitOptions(families, init, key, max_steps, tolerance, row_weights, labels, fixed, added_variance)
    plan, rows, start, seeding, limits = check(program, data, settings)
    rows = rows._replace(data=jax.tree.map(jnp.asarray, rows.data))
    block = one_block(rows, plan.cut(rows.num_rows).chunk_rows, plan.dtype)
    prepared, block, state = begin_in_block(plan, seeding, start, block, check_variance(added_variance, plan), 1)
    labels = loop.no_labels(plan, block.size)
    state, _ = loop.compiled_run_to_end(plan, state, labels, prepared, block, limits)
    code = failures.judged_code(plan, state)
    return Solution(plan.mean_field.points(state.best), state.bound.elbo, code, state.step, state.promised)


def _run(problem: _Problem, state: State, max_steps: int, progress: bool | None) -> Fit:
    """Step after step, until all restarts have ended."""
    records: list[_Records] = []
    labels = _first_labels(problem)
    interrupted = False
    num_steps = 1
    ahead = None
    elapsed = _AHEAD_SECONDS
    bar = tqdm(
        total=max_steps,
        desc="probem",
        unit="step",
        disable=None if progress is None else not progress,
        delay=_PROGRESS_DELAY if progress is None else 0,
        leave=False,
    )
    with bar:
        try:
            while _running(state):
                began = time.perf_counter()
                (state, labels, record), asked = ahead or (_advance(problem, state, labels, num_steps), num_steps)
                records.append(record)
                # What is quick is begun before the call before it is looked at: it would wait for the host.
                quick = elapsed < _AHEAD_SECONDS
                ahead = (_advance(problem, state, labels, num_steps), num_steps) if quick else None
                jax.block_until_ready(state)
                elapsed = time.perf_counter() - began
                done = int(np.max(np.asarray(state.step)))
                bar.update(done - bar.n)
                bar.set_postfix_str(f"F = {float(np.max(np.asarray(state.bound.elbo))):.8g}", refresh=False)
                num_steps = _next_steps(asked, elapsed)
        except KeyboardInterrupt:
            interrupted = True
    return _fit(problem, state, records, interrupted)


def certified(
    fit: Fit, program: Callable[..., Any], data: tuple[Any, ...], settings: FitOptions, modes: bool = True
) -> Fit:
    """The fit, with a result of its own if it converged to what is no maximum.

    The slope and the curvature in the parameters of the numeric route are those of a maximum, or they promise more nats
    than the rule of convergence allows. Components that are one stay so in every iteration: moved apart a little, at
    random, they meet again, or F rises above where it stood.
    """
    if fit.result is not Result.CONVERGED:
        return fit
    fit = _stationary(fit, settings)
    if not fit.twins or fit.result is not Result.CONVERGED:
        return fit
    assert fit.plan is not None
    arrays, options = _counted(check_data(data, missing=True), settings)
    few = jax.tree.map(lambda leaf: leaf[:_FEW_ROWS], arrays)
    twins = certificate.shared_rows(np.asarray(fit.responsibilities(*few), float), fit.twins, nearly=True)
    if not twins:
        return dataclasses.replace(fit, twins=())
    shares = np.asarray(fit.responsibilities(*arrays), float)
    rows = [np.asarray(leaf, float).reshape(len(shares), -1) for leaf in jax.tree.leaves(arrays)]
    apart = options._replace(
        init=Responsibilities(certificate.moved_apart(shares, twins, np.concatenate(rows, axis=1))),
        restarts=1,
        max_steps=_MOST_APART,
        tolerance=_NO_RISE,
    )
    tried = _run(*_begin(program, arrays, apart, modes, dict(fit.variational)), _MOST_APART, progress=False)
    gain = tried.elbo - fit.elbo
    allowed = float(check_stopping(settings.tolerance).promise(jnp.asarray(fit.total_weight)))
    least = max(_NO_RISE * fit.total_weight, allowed if math.isfinite(allowed) else 0.0)
    if tried.result in failures.FAILURES or not gain > least:
        return dataclasses.replace(fit, twins=certificate.shared_rows(shares, twins))
    return dataclasses.replace(fit, twins=twins, promised=gain, result=Result.SADDLE)


def _counted(data: tuple[Any, ...], settings: FitOptions) -> tuple[tuple[Any, ...], FitOptions]:
    """The rows of a positive weight, and what is said of them: the others may hold anything."""
    data = jax.tree.map(np.asarray, data)
    if settings.row_weights is None:
        return data, settings
    weights = np.asarray(settings.row_weights)
    counted = weights > 0
    labels = None if settings.labels is None else np.asarray(settings.labels)[counted]
    options = settings._replace(row_weights=weights[counted], labels=labels)
    return jax.tree.map(lambda leaf: leaf[counted], data), options


def _stationary(fit: Fit, settings: FitOptions) -> Fit:
    """The fit, judged by its Newton decrement in the parameters of the numeric route at fixed q."""
    plan, prepared = fit.plan, fit.prepared
    assert plan is not None
    assert prepared is not None
    if not plan.numeric:
        return fit
    rule = check_stopping(settings.tolerance)
    allowed = float(rule.promise(jnp.asarray(fit.total_weight)))
    seen = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), prepared.shifts)
    statistics = widened(plan.form, seen, prepared.added_variance)
    # A rule of another kind says nothing of edges.
    edge = allowed if math.isfinite(allowed) and allowed > 0 else _NO_RISE * fit.total_weight
    promise, edges = certificate.numeric_promise(plan, dict(fit.variational), statistics, edge)
    nats = max(fit.promised, float(promise.nats))
    fit = dataclasses.replace(fit, promised=nats, at_boundary={**edges, **fit.at_boundary})
    rounding = 1e3 * float(jnp.finfo(plan.dtype).eps) * abs(fit.elbo)
    if not float(promise.nats) <= allowed + rounding or bool(promise.is_saddle):
        return dataclasses.replace(fit, result=Result.NOT_STATIONARY)
    return fit


def _begin(
    program: Callable[..., Any],
    data: tuple[Any, ...],
    settings: FitOptions,
    modes: bool = True,
    initial: Params | None = None,
) -> tuple[_Problem, State]:
    """The problem and its first state; ``initial`` values take the place of the program's own."""
    restarts = settings.restarts
    for name, value in (("restarts", restarts), ("max_steps", settings.max_steps)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name}={value!r}", "a whole number of at least 1", "change it")
    plan, rows, start, seeding, limits = check(program, data, settings, modes, distinct=True)
    start = start if initial is None else start._replace(initial=initial)
    variance = check_variance(settings.added_variance, plan)
    blocks: Sequence[Block] = list(to_blocks(rows, plan.cut(rows.num_rows).block_rows, plan.dtype))
    if len(blocks) == 1:
        prepared, block, state, released = begin_from_host(plan, seeding, start, blocks[0], variance, limits, restarts)
        blocks = (block,)
    else:
        prepared, blocks, state, released = begin_in_blocks(plan, seeding, start, rows, blocks, variance, restarts)
    return _Problem(plan, blocks, prepared, limits, restarts, program, released), state


def _first_labels(problem: _Problem) -> tuple[Array, ...]:
    return tuple(loop.no_labels(problem.plan, block.size, problem.restarts) for block in problem.blocks)


def _running(state: State) -> bool:
    return bool((np.asarray(state.code) == RUNNING).any())


def _advance(
    problem: _Problem, state: State, labels: tuple[Array, ...], num_steps: int
) -> tuple[State, tuple[Array, ...], _Records]:
    """Up to ``num_steps`` iterations; restarts that have ended stay as they are."""
    plan, prepared, limits = problem.plan, problem.prepared, problem.limits
    batched = problem.restarts > 1
    few = 1 if batched else plan.cut(problem.blocks[0].size).abreast
    if len(problem.blocks) <= few:
        run = loop.compiled_run(batched)
        after, own, records = run(
            plan, state, labels, prepared, tuple(problem.blocks), limits, num_steps, problem.released
        )
        return after, own, _Records(records, state.step, after.step)
    call = from_host(batched)
    after, own, record = step(plan, state, labels, problem.released, prepared, problem.blocks, limits, call)
    if batched:
        after = from_host(batched)(_unless_ended, 0, 0)(plan, state, after)
    return after, own, _Records(record, state.step, after.step)


def _unless_ended(plan: Plan, before: State, after: State) -> State:
    return jax.tree.map(lambda old, new: jnp.where(before.code == RUNNING, new, old), before, after)


def _next_steps(num_steps: int, seconds: float) -> int:
    """How many steps to take at once, from how long the last ones took."""
    wanted = int(num_steps * _CALL_SECONDS / max(seconds, 1e-9))
    return int(np.clip(wanted, 1, min(4 * num_steps, CALL_STEPS)))


def _fit(problem: _Problem, state: State, history: Sequence[_Records], interrupted: bool) -> Fit:
    """The best restart as a ``Fit``."""
    batched = problem.restarts > 1
    states = jax.tree.map(lambda leaf: leaf if batched else leaf[None], jax.device_get(state))
    codes = np.asarray(states.code)
    objective = np.asarray(states.objective, float)
    elbos = np.where(np.isfinite(objective), np.asarray(states.bound.elbo, float), -np.inf)
    best = int(failures.best_restart(codes, objective))
    own = jax.tree.map(lambda leaf: leaf[best], states)
    records = []
    for part in history:
        before, after = (int(np.asarray(step).reshape(-1)[best]) for step in (part.before, part.after))
        made = slice(after - before)
        records.append(jax.tree.map(lambda leaf, made=made: _of_restart(leaf, problem, best)[made], part.records))
    code = int(codes[best])
    variational = jax.tree.map(jnp.asarray, own.best)
    unfinished = Result.INTERRUPTED if interrupted else None
    return Fit.of(
        problem.plan,
        problem.prepared,
        problem.program,
        variational,
        bound=jax.tree.map(float, own.bound),
        result=unfinished if code == RUNNING and interrupted else (None if code == RUNNING else RESULTS[code]),
        num_steps=int(own.step),
        history=History.of(records, problem.plan.family.entropy_weight),
        restart_elbos=elbos,
        counts=np.asarray(own.counts),
        sums=np.asarray(own.sums),
        component=int(own.component),
        settled=bool(own.settled),
        promised=float(max(own.promised, 0.0)) if np.isfinite(own.promised) else math.inf,
        twins=_twins(problem.plan, own, code),
    )


def _twins(plan: Plan, state: State, code: int) -> tuple[tuple[int, int], ...]:
    """The components that are one where a fit converged; a point mass on the first of them has no others."""
    if plan.is_point or code < 0 or RESULTS[code] is not Result.CONVERGED:
        return ()
    return certificate.pairs(certificate.find_twins(state.linear.weight, state.counts, state.sums, state.noise))


def _of_restart(leaf: Array, problem: _Problem, index: int) -> np.ndarray:
    """One restart's records of a call, ``[steps]``."""
    return np.asarray(leaf).reshape(problem.restarts, -1)[index]
