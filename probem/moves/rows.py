"""What a move knows of the rows: their q at a fit, over all components or some, and what each row would lose."""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probem.data.blocks import Block
from probem.e_step.evaluation import At, evaluate_rows, natural_parameters
from probem.e_step.passes import Pass
from probem.form.statistics import DataTotals
from probem.jit.calls import from_host
from probem.plan.plan import Plan
from probem.program.sites import Params


class RowShares(NamedTuple):
    """q of every row, its most probable component, and the nats of F that the row loses without that component."""

    q: Float[np.ndarray, "N K"]
    top: Int[np.ndarray, " N"]
    lost: Float[np.ndarray, " N"]


def _shares(
    plan: Plan, params: Params, allowed: Bool[Array, " K"], totals: DataTotals, block: Block
) -> tuple[Float[Array, "n K"], Int[Array, " n"], Float[Array, " n"]]:
    table = evaluate_rows(plan, block, At(params, natural_parameters(plan, params, totals)), totals).table
    table = jnp.where(allowed, table, -jnp.inf)
    # A row that no other component allows is shared by all of them; the first M half-step sees to it.
    nowhere = jnp.where(allowed, 0.0, -jnp.inf).astype(table.dtype)
    table = jnp.where((table > -jnp.inf).any(1, keepdims=True), table, nowhere)
    top = table.argmax(1)
    is_top = jnp.arange(table.shape[1]) == top[:, None]
    q = plan.family.project(table)
    without = jnp.where(is_top, -jnp.inf, table)
    possible = (without > -jnp.inf).any(1)
    without = jnp.where(possible[:, None], without, 0.0)
    rest = plan.family.project(without)
    lost = q.expectation(table) + q.entropy() - rest.expectation(without) - rest.entropy()
    return q.dense(), top, jnp.where(possible, lost, jnp.inf)


def row_shares(data_pass: Pass, params: Params, allowed: Bool[np.ndarray, " K"], num_rows: int) -> RowShares:
    """q of the rows at these parameters, over the components that are ``allowed``; the others get nothing."""
    run = from_host(False, data_pass.effort)(_shares)
    parts = [run(data_pass.plan, params, jnp.asarray(allowed), data_pass.totals, block) for block in data_pass.blocks]
    leaves = [[np.asarray(leaf) for leaf in each] for each in zip(*parts, strict=True)]
    q, top, lost = (np.concatenate(each)[:num_rows] for each in leaves)
    return RowShares(np.asarray(q, float), top, np.asarray(lost, float))


def losses(shares: RowShares, weights: Float[np.ndarray, " N"]) -> Float[np.ndarray, " K"]:
    """How much F falls if a component is ruled out and no parameter changes, nats, total: sum_n w_n log(1 / (1 - q_nk))
    of a full q.
    """
    q, top, lost = shares
    rows = np.arange(len(q))
    others = -np.log1p(-np.where(np.arange(q.shape[1]) == top[:, None], 0.0, q))
    others[rows, top] = lost
    return np.where(weights[:, None] > 0, weights[:, None] * others, 0.0).sum(0)


@functools.lru_cache(maxsize=1)
def _directions(num_rows: int) -> Float[np.ndarray, "N 4"]:
    random = np.random.default_rng(0)
    return np.concatenate([np.ones((num_rows, 1)), random.standard_normal((num_rows, 3))], 1)


def fingerprint(q: Float[np.ndarray, "N J"]) -> Float[np.ndarray, "J 4"]:
    """Which rows some components have, in few numbers: along fixed random directions."""
    return q.T @ _directions(len(q))


def is_nearly(one: Float[np.ndarray, "J 4"], other: Float[np.ndarray, "J 4"]) -> bool:
    """Whether two fingerprints are those of the same rows, but for about one in a hundred."""
    changed = ((one - other)[:, 1:] ** 2).mean(1) + np.abs((one - other)[:, 0])
    return bool((changed <= 0.01 * np.maximum(one[:, 0], 1.0)).all())
