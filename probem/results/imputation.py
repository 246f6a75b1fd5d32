"""Missing values from the others, the component averaged over: E[x_m | x_o], or the most probable category."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from probem.data.blocks import Block
from probem.data.observations import Observations
from probem.e_step.evaluation import At, evaluate_rows, natural_parameters
from probem.e_step.passes import about_rows
from probem.errors import InputError
from probem.form.sites import in_cells
from probem.form.statistics import DataTotals
from probem.jit.compilation import by_plan, concrete
from probem.plan.plan import Plan
from probem.program.densities import base_distribution
from probem.program.program import Program
from probem.program.sites import Params


def impute(plan: Plan, rows: Observations, params: Params, totals: DataTotals) -> tuple[Any, ...]:
    """The data with conditional means, or the most probable categories, in place of what is missing.

    Raises
    ------
    InputError
        If an observed value is not an entry of the data as it stands, or its distribution has no finite mean.
    """
    entries = _entries(plan.program)
    means = about_rows(plan, rows, _conditional_means, params, totals)
    leaves, treedef = jax.tree.flatten(rows.data)
    filled = []
    for leaf, missing, sites in zip(leaves, jax.tree.leaves(rows.missing), entries, strict=True):
        flat, gaps = np.asarray(leaf).reshape(rows.num_rows, -1).copy(), np.asarray(missing).reshape(rows.num_rows, -1)
        for column in np.flatnonzero(gaps.any(0)):
            entry = sites[column]
            if entry is None:
                raise InputError(
                    "a missing value from which an observed value is computed",
                    "observed values that are entries of the data",
                    "transform the data before it is passed to the program",
                )
            site, place = entry
            here = gaps[:, column]
            values = means[site][here, place]
            if not np.isfinite(values).all():
                row = int(np.flatnonzero(here)[np.argmin(np.isfinite(values))])
                raise InputError(
                    f"a conditional mean of '{site}' in row {row} that is not finite",
                    "a distribution with a finite mean to impute with",
                    "draw the missing values with fit.sample instead",
                )
            flat[here, column] = values
        filled.append(flat.reshape(np.shape(leaf)))
    return jax.tree.unflatten(treedef, filled)


@functools.lru_cache(maxsize=256)
def _entries(program: Program) -> list[list[tuple[str, int] | None]]:
    """For every number in a row of every data argument, the site of which it is a value, and where in it."""
    leaves, treedef = jax.tree.flatten(program.spec.zeros(2))
    random = np.random.default_rng(0)
    sizes = [leaf[0].size for leaf in leaves]
    starts = np.cumsum([0, *sizes])
    # No two are equal in both rows, nor computed from another.
    coded = [
        (np.arange(start, start + size) + random.uniform(0.1, 0.9, (2, size))).reshape(leaf.shape).astype(leaf.dtype)
        for leaf, start, size in zip(leaves, starts, sizes, strict=False)
    ]
    places: dict[tuple[float, ...], tuple[str, int]] = {}
    for name, value in _observations(program, jax.tree.unflatten(treedef, coded)).items():
        rows_first = np.moveaxis(value, value.ndim + program.plate_dim - program.event_ndims[name], 0)
        for place, pair in enumerate(rows_first.reshape(2, -1).T.tolist()):
            places[tuple(pair)] = name, place
    return [[places.get(tuple(pair)) for pair in leaf.reshape(2, -1).T.tolist()] for leaf in coded]


@concrete
def _observations(program: Program, data: tuple[Any, ...]) -> dict[str, Shaped[Array, "..."]]:
    return program.observations(data)


@by_plan
def _conditional_means(plan: Plan, params: Params, totals: DataTotals, block: Block) -> dict[str, Float[Array, "n _"]]:
    """E[x_n | what is there of it] of every observed site; of categories the most probable, ties to the lowest."""
    lin = natural_parameters(plan, params, totals)
    seen = evaluate_rows(plan, block, At(params, lin), totals)
    q = jax.nn.softmax(seen.table, axis=1)
    sites = plan.program.enumerated_trace(plan.mean_field.points(params), block.data)
    conditional_means = {}
    for name in plan.program.observed:
        if name in plan.program.categorical:
            chances = (q[:, :, None, None] * _chances(plan.program, sites[name], name)).sum(1)
            conditional_means[name] = jnp.argmax(chances, axis=-1).astype(plan.dtype)
            continue
        if name in seen.completed:
            means = _in_cells(plan, name, seen.completed[name].mean + totals.shifts[name], block)
        else:
            means = _means(plan.program, sites[name], name)
        conditional_means[name] = (q[:, :, None] * means).sum(1).astype(plan.dtype)
    return conditional_means


def _in_cells(plan: Plan, name: str, means: Float[Array, "n K C D"], block: Block) -> Float[Array, "n K F"]:
    """The means of the copies in the cell of their row, side by side."""
    term = next(term for term in plan.form.data_terms if term.site == name)
    if term.num_cells > 1:
        apart = (*means.shape[:2], -1, term.num_cells, means.shape[-1])
        here = in_cells(plan.program, term, block.data)[:, None, :, None].reshape(len(means), 1, *apart[2:4], 1)
        means = jnp.where(here, means.reshape(apart), 0.0).sum(3)
    return means.reshape(*means.shape[:2], -1)


def _means(program: Program, site: dict[str, Any], name: str) -> Float[Array, "n K F"]:
    """The mean under every component."""
    try:
        mean = jnp.asarray(site["fn"].mean)
    except NotImplementedError:
        raise InputError(
            f"no mean of the distribution of '{name}' ({type(site['fn']).__name__})",
            "one to impute with",
            "draw the missing values with fit.sample instead",
        ) from None
    return _by_component(program, site, name, mean)


def _chances(program: Program, site: dict[str, Any], name: str) -> Float[Array, "n K F C"]:
    """The probability of every category under every component."""
    distribution = site["fn"]
    probs = base_distribution(distribution).probs
    whole = (*distribution.batch_shape, *distribution.event_shape, probs.shape[-1])
    by_component = functools.partial(_by_component, program, site, name)
    return jax.vmap(by_component, in_axes=-1, out_axes=-1)(jnp.broadcast_to(probs, whole))


def _by_component(
    program: Program, site: dict[str, Any], name: str, mean: Float[Array, "..."]
) -> Float[Array, "n K F"]:
    """A number for every entry of the value of a site, as its distribution has them."""
    shape = jnp.shape(site["value"])
    enumerated = len(program.assignments)
    ndim = max(-assignment.dim for assignment in program.assignments) + program.event_ndims[name]
    whole = (*program.enumeration_shape[::-1], *(1,) * (ndim - enumerated - len(shape)), *shape)
    mean = jnp.broadcast_to(mean.reshape((1,) * (ndim - mean.ndim) + mean.shape), whole)
    mean = mean.transpose(*range(enumerated)[::-1], *range(enumerated, ndim))
    mean = mean.reshape(program.num_components, *whole[enumerated:])
    rows_axis = mean.ndim + program.plate_dim - program.event_ndims[name]
    mean = jnp.moveaxis(mean, rows_axis, 0)
    return mean.reshape(*mean.shape[:2], -1)
