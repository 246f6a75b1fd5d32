"""How far F is off where a Gaussian q is averaged over nodes."""

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from probem.errors import InputError
from probem.form.statistics import DataTotals, Statistics
from probem.jit.compilation import by_plan
from probem.mean_field.mean_field import objective
from probem.mean_field.quadrature import NodeSet, grid, quasi_random
from probem.plan.plan import Plan
from probem.program.sites import Params
from probem.results.record import FitRecord

# The most nodes of a rule for one number to which those of a grid are doubled.
_MOST_NODES = 180


class QuadratureError(NamedTuple):
    """How far F is off at the q of a fit, nats, total over the rows.

    Attributes
    ----------
    grid : by how much F changes with twice as many Gauss-Hermite nodes; 0 where there are none
    standard_error : of F over quasi-random nodes that are drawn anew; 0 where there are none
    optimism : F less its mean over such nodes. q has been fitted to the nodes of the fit, and not to these
    """

    grid: float
    standard_error: float
    optimism: float


def quadrature_error(fit: FitRecord, plan: Plan, totals: DataTotals, num_randomisations: int) -> QuadratureError:
    """By evaluation of F at the q of a fit with other nodes.

    Raises
    ------
    InputError
        For fewer than two randomisations, and a fit without a Gaussian q.
    """
    if not (isinstance(num_randomisations, int) and num_randomisations >= 2):
        raise InputError(f"num_randomisations={num_randomisations!r}", "a whole number of at least 2", "change it")
    mean_field = plan.mean_field
    if not mean_field.gaussians:
        raise InputError(
            "the quadrature error of a fit without a Gaussian q",
            "a site with the family Gaussian()",
            "take F as it is: all of its averages are exact",
        )
    statistics = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), totals.shifts)
    params = jax.tree.map(jnp.asarray, dict(fit.variational))

    def at(node_sets: Iterable[NodeSet]) -> float:
        changed = dataclasses.replace(mean_field, node_sets=tuple(node_sets))
        return float(_objective(dataclasses.replace(plan, mean_field=changed), params, statistics))

    here, node_sets = at(mean_field.node_sets), mean_field.node_sets
    doubled = [_doubled(plan, each) if each.is_grid else each for each in node_sets]
    of_grid = abs(at(doubled) - here) if any(each.is_grid for each in node_sets) else 0.0
    if all(each.is_grid for each in node_sets):
        return QuadratureError(of_grid, 0.0, 0.0)
    drawn = np.array(
        [
            at(each if each.is_grid else _drawn(each, seed) for each in node_sets)
            for seed in range(1, 1 + num_randomisations)
        ]
    )
    return QuadratureError(of_grid, float(drawn.std(ddof=1)), float(here - drawn.mean()))


def _doubled(plan: Plan, node_set: NodeSet) -> NodeSet:
    sites = [site for site in plan.mean_field.gaussians if site.name in node_set.columns]
    num_nodes = min(2 * max(site.gaussian.nodes for site in sites), _MOST_NODES)
    return node_set.with_numbers(grid(num_nodes, node_set.nodes.shape[1]))


def _drawn(node_set: NodeSet, seed: int) -> NodeSet:
    return node_set.with_numbers(quasi_random(*node_set.nodes.shape, seed=seed))


@by_plan
def _objective(plan: Plan, params: Params, statistics: Statistics) -> Float[Array, ""]:
    return objective(plan.mean_field, statistics, params)
