"""What a fit proves of itself once it has converged: that it is a maximum, and no saddle."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from probem.analysis.options import FitOptions
from probem.data.checks import check_data
from probem.data.compressed import CompressedRows
from probem.fitting.run import begin, drive
from probem.form.statistics import Statistics, widened
from probem.results import failures
from probem.results.fit import Fit
from probem.solver import certificate
from probem.solver.initialisers import Responsibilities
from probem.solver.result import Result
from probem.stopping import check_stopping

# Nats a row that count as no rise of the bound.
_NO_RISE = 1e-10
# Rows by which it is seen that components are not one after all.
_FEW_ROWS = 512
# Iterations for components that were one and were moved apart: they part, or meet again.
_MOST_APART = 1000
# Directions along which sparse rows are told apart.
_DIRECTIONS = 8


def certified(fit: Fit, data: tuple[Any, ...], options: FitOptions) -> Fit:
    """The fit, with a result of its own if it converged to what is no maximum.

    The slope and the curvature in the parameters of the numeric route are those of a maximum, or they promise more nats
    than the rule of convergence allows. Components that are one stay so in every iteration: moved apart a little, at
    random, they meet again, or the objective (F, but for a tempered family) rises above where it stood. A schedule of
    the family goes on from where it was: from its beginning it might bring them together.
    """
    if fit.result is not Result.CONVERGED:
        return fit
    assert fit.plan is not None
    if fit.plan.is_stochastic:
        # An average of draws is no maximum, and draws leave a saddle by themselves.
        return dataclasses.replace(fit, twins=())
    fit = _stationary(fit, options)
    if not fit.twins or fit.result is not Result.CONVERGED:
        return fit
    assert fit.plan is not None
    arrays, counted = _counted(check_data(data, missing=True, sparse=True), options)
    few = jax.tree.map(lambda leaf: leaf[:_FEW_ROWS], arrays)
    twins = certificate.shared_rows(np.asarray(fit.responsibilities(*few), float), fit.twins, nearly=True)
    if not twins:
        return dataclasses.replace(fit, twins=())
    shares = np.asarray(fit.responsibilities(*arrays), float)
    rows = [_columns(leaf) for leaf in jax.tree.leaves(arrays)]
    apart = counted._replace(
        init=Responsibilities(certificate.moved_apart(shares, twins, np.concatenate(rows, axis=1))),
        restarts=1,
        max_steps=fit.num_steps + _MOST_APART,
        tolerance=_NO_RISE,
        acceleration=None,
    )
    run, state = begin(fit.program, arrays, apart, dict(fit.variational))
    tried = drive(run, state._replace(step=jnp.asarray(fit.num_steps, state.step.dtype)), verbose=0)
    gain = _objective(tried) - _objective(fit)
    allowed = float(check_stopping(options.tolerance).promise(jnp.asarray(fit.total_weight)))
    least = max(_NO_RISE * fit.total_weight, allowed if math.isfinite(allowed) else 0.0)
    if tried.result in failures.FAILURES or not gain > least:
        return dataclasses.replace(fit, twins=certificate.shared_rows(shares, twins))
    return dataclasses.replace(fit, twins=twins, promised=gain, result=Result.SADDLE)


def _objective(fit: Fit) -> float:
    """What the family of the assignments maximises, nats, total."""
    assert fit.plan is not None
    return fit.elbo + (float(fit.plan.family.entropy_weight) - 1.0) * float(fit.bound.entropy)


def _columns(leaf: Any) -> Float[np.ndarray, "N _"]:
    """The values of every row; of sparse rows, where they lie along a few random directions."""
    if isinstance(leaf, CompressedRows):
        return leaf.matrix @ np.random.default_rng(1).standard_normal((leaf.shape[1], _DIRECTIONS))
    return np.asarray(leaf, float).reshape(len(leaf), -1)


def _counted(data: tuple[Any, ...], options: FitOptions) -> tuple[tuple[Any, ...], FitOptions]:
    """The rows of a positive weight, and what is said of them: the others may hold anything."""
    data = jax.tree.map(lambda leaf: leaf if isinstance(leaf, CompressedRows) else np.asarray(leaf), data)
    if options.row_weights is None:
        return data, options
    weights = np.asarray(options.row_weights)
    counted = weights > 0
    labels = None if options.labels is None else np.asarray(options.labels)[counted]
    chosen = options._replace(row_weights=weights[counted], labels=labels)
    return jax.tree.map(lambda leaf: leaf[counted], data), chosen


def _stationary(fit: Fit, options: FitOptions) -> Fit:
    """The fit, judged by its Newton decrement in the parameters of the numeric route at fixed q."""
    plan, totals = fit.plan, fit.totals
    assert plan is not None
    assert totals is not None
    if not plan.numeric:
        return fit
    rule = check_stopping(options.tolerance)
    allowed = float(rule.promise(jnp.asarray(fit.total_weight)))
    seen = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), totals.shifts)
    statistics = widened(plan.form, seen, totals.added_variance)
    # A rule of another kind says nothing of edges.
    edge = allowed if math.isfinite(allowed) and allowed > 0 else _NO_RISE * fit.total_weight
    promise, edges = certificate.numeric_promise(plan, dict(fit.variational), statistics, edge)
    nats = max(fit.promised, float(promise.nats))
    fit = dataclasses.replace(fit, promised=nats, at_boundary={**edges, **fit.at_boundary})
    rounding = 1e3 * float(jnp.finfo(plan.dtype).eps) * abs(fit.elbo)
    if not float(promise.nats) <= allowed + rounding or bool(promise.is_saddle):
        return dataclasses.replace(fit, result=Result.NOT_STATIONARY)
    return fit
