"""The driver of one fit: from its first state, step after step, until all restarts have ended."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from probem.analysis.options import FitOptions, check_options
from probem.analysis.problem import parse
from probem.e_step.initial_q import InitialQ
from probem.e_step.passes import Pass
from probem.errors import InputError
from probem.fitting.options import beginning
from probem.fitting.reporting import Reporter
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results import failures
from probem.results.fit import Fit
from probem.results.history import History
from probem.solver import certificate, loop
from probem.solver.beginning import first_state
from probem.solver.loop import CALL_STEPS, Memory
from probem.solver.result import RESULTS, RUNNING, Result
from probem.solver.state import Limits, Record, State

# How long the host leaves compiled code alone before it looks at the progress and at Ctrl-C, seconds.
_CALL_SECONDS = 0.3
# A call that takes less than this is made before the one before it is looked at, and may be in vain, seconds.
_AHEAD_SECONDS = 0.05


class Run(NamedTuple):
    """A fit on its way: the program as it was given, the pass over the rows, and when to stop.

    ``initial`` is a q that was given for the start and is released: the steps were compiled for both.
    """

    function: Callable[..., Any]
    data_pass: Pass
    limits: Limits
    initial: InitialQ | None


class Records(NamedTuple):
    """The records of one call, ``[(R,) (steps)]``, and the number of steps before and after it."""

    records: Record
    before: Int[Array, "*R"]
    after: Int[Array, "*R"]


def begin(
    function: Callable[..., Any], data: tuple[Any, ...], options: FitOptions, initial: Params | None = None
) -> tuple[Run, State]:
    """A run and its first state; ``initial`` values take the place of the program's chosen.

    Raises
    ------
    InputError
        For a program, data or options that cannot be used, before anything of the fit is traced.
    """
    check_options(options)
    problem = parse(function, data, options, distinct=True)
    seeding, start, limits, variance = beginning(problem, options)
    start = start if initial is None else start._replace(initial=initial)
    data_pass = Pass.of(problem.plan, problem.rows, options.restarts)
    data_pass, state, initial_q = first_state(data_pass, seeding, start, problem.rows, variance, limits)
    return Run(function, data_pass, limits, initial_q), state


def started(function: Callable[..., Any], data: tuple[Any, ...], options: FitOptions) -> tuple[Run, State, FitOptions]:
    """What ``begin`` makes, and the options for which: without the statistics of linear predictors where covariates are
    too close to collinear for them. A program's own gradient needs no products of two.

    Raises
    ------
    InputError
        As ``begin``; and where they are so beside full posteriors, which need these statistics.
    """
    run, state = begin(function, data, options)
    if not (np.asarray(state.code) == RESULTS.index(Result.UNRESOLVED)).any():
        return run, state, options
    plan = run.data_pass.plan
    if plan.families.conjugate:
        named = ", ".join(f"'{term.site}'" for term in plan.form.predicted)
        raise InputError(
            f"covariates of {named} so close to collinear that {plan.dtype} loses their coefficients",
            "covariates none of which nearly follows from the others",
            "centre and scale them, leave out what follows from others, or use float64 (jax_enable_x64)",
        )
    options = options._replace(predictors=False)
    return *begin(function, data, options), options


def drive(run: Run, state: State, verbose: int | None) -> Fit:
    """Step after step, until all restarts have ended; what is said meanwhile is that of a ``Reporter``."""
    records: list[Records] = []
    memory = loop.blank_memory(run.data_pass, state, run.limits)
    interrupted = False
    num_steps = 1
    ahead = None
    elapsed = _AHEAD_SECONDS
    with Reporter(verbose, int(run.limits.max_steps)) as reporter:
        try:
            while is_running(state):
                began = time.perf_counter()
                (state, memory, record), asked = ahead or (advance(run, state, memory, num_steps), num_steps)
                records.append(record)
                # What is quick is begun before the call before it is looked at: it would wait for the host.
                quick = elapsed < _AHEAD_SECONDS
                ahead = (advance(run, state, memory, num_steps), num_steps) if quick else None
                jax.block_until_ready(state)
                elapsed = time.perf_counter() - began
                reporter.moved(int(np.max(np.asarray(state.step))), float(np.max(np.asarray(state.bound.elbo))))
                reporter.recorded(record.records.bounds, record.before, record.after)
                num_steps = _next_steps(asked, elapsed)
        except KeyboardInterrupt:
            interrupted = True
    return fit_of(run, state, records, interrupted)


def is_running(state: State) -> bool:
    """Whether any restart has not ended."""
    return bool((np.asarray(state.code) == RUNNING).any())


def advance(run: Run, state: State, memory: Memory, num_steps: int) -> tuple[State, Memory, Records]:
    """Up to ``num_steps`` iterations; restarts that have ended stay as they are."""
    after, memory, records = loop.advance(run.data_pass, state, memory, run.initial, run.limits, num_steps)
    return after, memory, Records(records, state.step, after.step)


def _next_steps(num_steps: int, seconds: float) -> int:
    """How many steps to take at once, from how long the last ones took."""
    wanted = int(num_steps * _CALL_SECONDS / max(seconds, 1e-9))
    return int(np.clip(wanted, 1, min(4 * num_steps, CALL_STEPS)))


def fit_of(run: Run, state: State, history: Sequence[Records], interrupted: bool) -> Fit:
    """The best restart as a ``Fit``."""
    plan, batched = run.data_pass.plan, run.data_pass.restarts > 1
    states = jax.tree.map(lambda leaf: leaf if batched else leaf[None], jax.device_get(state))
    codes = np.asarray(states.code)
    objective = np.asarray(states.objective, float)
    elbos = np.where(np.isfinite(objective), np.asarray(states.bound.elbo, float), -np.inf)
    best = int(failures.best_restart(codes, objective))
    chosen = jax.tree.map(lambda leaf: leaf[best], states)
    records = []
    for part in history:
        before, after = (int(np.asarray(step).reshape(-1)[best]) for step in (part.before, part.after))
        records.append(_of_restart(part.records, run, best, after - before))
    code = int(codes[best])
    variational = jax.tree.map(jnp.asarray, chosen.best)
    unfinished = Result.INTERRUPTED if interrupted else None
    return Fit.of(
        plan,
        run.data_pass.totals,
        run.function,
        variational,
        bound=jax.tree.map(float, chosen.bound),
        result=unfinished if code == RUNNING and interrupted else (None if code == RUNNING else RESULTS[code]),
        num_steps=int(chosen.step),
        history=History.of(records, float(plan.family.entropy_weight)),
        restart_elbos=elbos,
        counts=np.asarray(chosen.counts),
        sums=np.asarray(chosen.sums),
        component=int(chosen.component),
        settled=bool(chosen.settled),
        promised=float(max(chosen.promised, 0.0)) if np.isfinite(chosen.promised) else math.inf,
        twins=_twins(plan, chosen, code),
    )


def _twins(plan: Plan, state: State, code: int) -> tuple[tuple[int, int], ...]:
    """The components that are one where a fit converged; a point mass on the first of them has no others."""
    if plan.is_point or code < 0 or RESULTS[code] is not Result.CONVERGED:
        return ()
    return certificate.pairs(certificate.find_twins(state.natural.weight, state.counts, state.sums, state.noise))


def _of_restart(record: Record, run: Run, index: int, num_steps: int) -> Record:
    """The first steps of one restart in the record of a call."""
    restarts = run.data_pass.restarts

    def taken(leaf: Any, shape: tuple[int, ...]) -> Any:
        return np.asarray(leaf).reshape(restarts, -1, *shape)[index][:num_steps]

    outcomes = None if record.accelerated is None else taken(record.accelerated, ())
    return Record(taken(record.bounds, (2, 5)), taken(record.moved, ()), outcomes)
