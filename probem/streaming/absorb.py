"""Stepwise (online) EM: a fit goes on with data that arrives batch by batch, and is then forgotten.

The data meets the parameters only through additive statistics, so all that is kept of it is sums over rows. With s
their running average per row, a batch of weight n_t is one step

    s <- (1 - rho_t) s + rho_t s_batch(theta),        theta <- M(N_t s),        N_t = n_1 + ... + n_t,

where M is the M half-step of every other fit: closed, numeric, or prior + statistics. On full posteriors this is
stochastic variational inference, with natural parameters prior + N_t s.
Source: Cappé & Moulines (2009), On-line EM algorithm for latent data models, eq. 10 and section 2.3; Hoffman, Blei,
Wang & Paisley (2013), Stochastic variational inference, figure 4.
"""

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from probem.analysis.problem import observe
from probem.analysis.routes import for_rows, make_plan
from probem.analysis.violations import conjugacy_violation
from probem.e_step.passes import Pass
from probem.errors import InputError
from probem.form.statistics import DataTotals, Statistics
from probem.plan.plan import Plan
from probem.results import failures
from probem.results.fit import Fit
from probem.results.history import History
from probem.solver.result import Result
from probem.streaming.step import RunningStatistics, StepSize, StreamStep, compiled_stream_step, stream_step


def absorb(
    fit: Fit,
    *batch: Any,
    row_weights: Any = None,
    labels: Any = None,
    decay: int | float = 0.6,
    rate: int | float | None = None,
    throw: bool = True,
) -> Fit:
    """A new fit from a fit and a batch of rows that it has not seen; the old fit stays as it was.

    A stream starts with ``probem.fit`` on a first batch, or with ``probem.load(path, program)``. Every further batch is
    one E half-step over its rows, and one M half-step over a running average of the statistics of all rows seen. With
    t the number of batches so far, n_t and N_t the weight of the rows in this batch and in all, its share in it is

        rho_t = min(1, n_t / N_t * t^(1 - decay)).

    For batches of one size this is the schedule t^(-decay). With ``decay=1`` it is n_t / N_t, and all rows count alike
    whatever the sizes. In between, a row of batch t counts t^(1 - decay) times as much as a row of the first batch did,
    in a small batch as in a large one: assignments by early, poor parameters are forgotten, and the parameters rest on
    the last 2 n_t / rho_t rows or so. The first fit should be a good one: enough rows for every component, and several
    starts. Source: Cappé & Moulines (2009), On-line EM algorithm for latent data models, eq. 10. With ``HARD_EM`` and
    ``decay=1`` k-means is the mini-batch k-means of Sculley (2010), Web-scale k-means clustering, algorithm 1.

    A component with no row in a batch keeps its average, while its weight falls; without a prior, a component whose
    count has fallen to nothing stays where it is. The origins of the statistics follow the running mean of the data,
    exactly: data that drifts far away costs no digits. As in any fit, a spread below the rounding of its distance to
    that mean (in float64 1e-7 of it, in float32 1e-3) counts as collapsed.

    Parameters
    ----------
    fit : of a program all of whose sites have an exponential-family form
    batch : the data arguments, of any number of rows; small batches are padded to one size and compile nothing new
    row_weights : ``[n]``, how often each row counts
    labels : ``[n]``, the assignment of each row where it is known, -1 where it is not
    decay : in (0.5, 1], where the parameters converge; at 1 they are slow to forget a poor start
    rate : rho_t itself, in (0, 1], in place of the schedule; a constant rate follows data that never stops changing
    throw : raise ``FitError`` for a batch after which a parameter is not finite or a spread collapsed; False returns
        the old fit with that ``result``, from which the stream can go on

    Returns
    -------
    Fit : ``elbo`` (nats, total) is F(q, params) with the q that every row was given when it was seen, and the weight
        that is left to it in N_t s. With ``decay=1`` that is a bound like any other, F <= log p(all rows seen), though
        loose (the incremental EM of Neal & Hinton 1998); otherwise it is an estimate of a bound. ``history`` has
        two more entries: this F before and after the M half-step. ``batch_elbo`` (nats per row) is F of the batch at
        the parameters of ``fit``, which had not seen it, without the prior: an honest score of the stream. ``counts``,
        ``sums`` and ``total_weight`` are N_t s and N_t: a full posterior is as narrow as N_t rows make it, forgotten or
        not. ``result`` is None: a stream does not end, and
        ``promised`` is NaN, since nothing follows from one batch of what another will bring

    Raises
    ------
    InputError
        Before anything runs, for a batch or a fit that cannot be used.
    FitError
        For a batch that no good parameters come of; its ``fit`` is the old fit, with the ``result``.

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
    >>> first = probem.fit(program, x)
    >>> second = probem.absorb(first, x + 1, decay=1)
    >>> second.num_batches, second.total_weight
    (2, 24.0)
    >>> sorted(np.round(second.params["loc"].ravel(), 1).tolist())
    [3.0, 103.0]
    """
    plan, totals = _checked(fit)
    check_step_size("decay", decay, 0.5)
    check_step_size("rate", 1.0 if rate is None else rate, 0.0)
    plan, rows, _ = observe(plan, batch, row_weights, labels)
    if rows.are_sparse and fit.plan is not None and fit.plan.form.gaps:
        raise InputError(
            "sparse rows after rows with missing values, whose sums count what was there",
            "rows as an array",
            "pass x.toarray()",
        )
    weight = float(rows.num_rows) if rows.weights is None else float(rows.weights.sum())
    total = fit.total_weight + weight
    number, *factors = step_size(fit, weight, decay, rate)
    size = StepSize(jnp.asarray(number, jnp.int32), *(jnp.asarray(factor, plan.dtype) for factor in factors))
    statistics = Statistics(jnp.asarray(fit.counts), jnp.asarray(_sums(fit, plan)), totals.shifts)
    entropy, filled = (jnp.asarray(nats, plan.dtype) for nats in (fit.bound.entropy, fit.filled_entropy))
    seen = RunningStatistics(statistics, entropy, filled, totals.log_base_measure)
    data_pass, variance = Pass.of(plan, rows, is_once=True), totals.added_variance
    if len(data_pass.blocks) == 1:
        made = compiled_stream_step(plan, fit.variational, seen, size, tuple(data_pass.blocks), variance)
    else:
        made = stream_step(data_pass, fit.variational, seen, size, variance)
    made = jax.device_get(made)
    result, component = _judged(plan, made)
    if result is None:
        after = _extended(fit, plan, made, total)
        if plan.form.predicted and bool(
            failures.has_cancelled_for(plan, after.variational, _statistics(after, totals))
        ):
            after = dataclasses.replace(after, result=Result.UNRESOLVED)
        if conjugacy_violation(plan.mean_field, after.variational) is not None:
            if plan.families.conjugate:
                after = dataclasses.replace(after, result=Result.NOT_CONJUGATE)
            else:
                # Points need no conjugate prior: they are maximised numerically from here on.
                families = plan.families._replace(modes=False)
                changed = make_plan(plan.program, families, plan.record_gap, plan.form.gaps)
                fit = dataclasses.replace(fit, plan=for_rows(changed, plan.form.sparse_rows))
                return absorb(fit, *batch, row_weights=row_weights, labels=labels, decay=decay, rate=rate, throw=throw)
    else:
        after = dataclasses.replace(fit, result=result, component=component)
    if throw:
        failures.throw(after)
    return after


def _statistics(fit: Fit, totals: DataTotals) -> Statistics:
    return Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), totals.shifts)


def step_size(fit: Fit, weight: float, decay: int | float, rate: int | float | None = None) -> StepSize:
    """rho_t of a batch of this weight, and what is kept of the sums of the fit and gained from those of the batch."""
    total = fit.total_weight + weight
    count = fit.num_batches + 1
    rho = min(1.0, weight / total * count ** (1.0 - float(decay))) if rate is None else float(rate)
    return StepSize(fit.num_batches, rho, (1.0 - rho) * total / fit.total_weight, rho * total / weight)


def _checked(fit: Fit) -> tuple[Plan, DataTotals]:
    plan, totals = fit.plan, fit.totals
    if plan is None or totals is None:
        raise InputError(
            "a fit that was loaded without its program", "the program it was fitted with", "probem.load(path, program)"
        )
    if plan.form.generic:
        named = ", ".join(f"'{site}'" for site in plan.form.generic)
        raise InputError(
            f"a stream of a program in which {named} reaches the parameters by its gradient over the data",
            "additive statistics of every site",
            "write it with a distribution of exponential-family form, or fit all rows at once",
        )
    if not (np.isfinite(fit.elbo) and fit.total_weight > 0 and np.sum(fit.counts) > 0):
        raise InputError(
            "a fit that ended before its first step and has no statistics",
            "one that a stream can start from",
            "fit more rows first, or start elsewhere (key=, init=, restarts=)",
        )
    return plan, totals


def check_step_size(name: str, value: Any, least: float) -> None:
    """Refuse what is no share of a batch, nor the exponent of one."""
    if not (isinstance(value, numbers.Real) and least < float(value) <= 1):
        raise InputError(f"{name}={value!r}", f"a number in ({least:g}, 1]", "change it")


def _sums(fit: Fit, plan: Plan) -> Float[np.ndarray, "K S"]:
    """The sums of the fit in the columns of the plan: of rows without gaps, every event was observed."""
    assert fit.plan is not None
    if fit.plan.form.gaps == plan.form.gaps:
        return fit.sums
    columns = []
    for term in fit.plan.form.column_terms:
        columns.append(fit.sums[:, fit.plan.form.columns(term)])
        if not term.partial:
            columns.append(np.repeat(fit.counts[:, None], term.copies, axis=1))
    return np.concatenate(columns, axis=1)


def _judged(plan: Plan, made: StreamStep) -> tuple[Result | None, int]:
    """What went wrong, and in which component."""
    before, after = (float(bound.elbo) for bound in (made.record.expectation, made.record.maximization))
    if not np.isfinite(before):
        return Result.NON_FINITE, -1
    if made.broken.any():
        return Result.SINGULAR if plan.spreads else Result.NON_FINITE, int(np.argmax(made.broken))
    return (None, -1) if np.isfinite(after) else (Result.NON_FINITE, -1)


def _extended(fit: Fit, plan: Plan, made: StreamStep, total: float) -> Fit:
    """The fit after the batch."""
    variational = jax.tree.map(jnp.asarray, made.params)
    statistics = made.seen.statistics
    shifts = jax.tree.map(jnp.asarray, dict(statistics.shifts))
    base = jnp.asarray(made.seen.log_base_measure)
    assert fit.totals is not None
    variance = fit.totals.added_variance
    totals = DataTotals(shifts, jnp.asarray(statistics.sums.sum(0)), base, jnp.asarray(total, plan.dtype), variance)
    latest = History.of(
        [jax.tree.map(lambda leaf: np.asarray(leaf)[None], made.record)], float(plan.family.entropy_weight)
    )
    return Fit.of(
        plan,
        totals,
        fit.program,
        variational,
        bound=jax.tree.map(float, made.record.maximization),
        result=None,
        num_steps=fit.num_steps + 1,
        history=fit.history.followed_by(latest),
        restart_elbos=np.asarray([made.record.maximization.elbo], float),
        counts=statistics.counts,
        sums=statistics.sums,
        total_weight=total,
        component=-1,
        num_batches=fit.num_batches + 1,
        batch_elbo=float(made.batch_elbo),
    )
