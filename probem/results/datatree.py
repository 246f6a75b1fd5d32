"""A fit as ArviZ has it: draws from q, the log likelihood of every row, and the data, in an ``xarray.DataTree``."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from numpyro import handlers

from probem.data.blocks import Block
from probem.data.observations import Observations
from probem.e_step.passes import about_rows
from probem.errors import InputError
from probem.jit.compilation import by_plan
from probem.jit.tracing import isolated
from probem.mean_field import distributions as posterior
from probem.plan.plan import Plan
from probem.program.program import Program
from probem.program.sites import Params
from probem.results.axis_names import AxisNames
from probem.results.record import FitRecord

# The axes of every draw, as ArviZ looks for them.
_DRAWN = ("chain", "draw")


class Wanted(NamedTuple):
    """What is asked of a tree: how many chains of how many draws, whether rows are drawn as well, and what axes and
    places are called.
    """

    num_chains: int
    num_draws: int
    posterior_predictive: bool
    dims: Mapping[str, Sequence[str]]
    coords: Mapping[str, Sequence[Any]]


def to_datatree(
    fit: FitRecord,
    plan: Plan,
    data: tuple[Any, ...],
    responsibilities: Float[Array | np.ndarray, "N K"],
    wanted: Wanted,
    key: PRNGKeyArray | int,
) -> Any:
    """See ``Fit.to_datatree``; ``responsibilities`` are those of the data."""
    try:
        import xarray
    except ImportError:
        raise InputError(
            "to_datatree without the package xarray", "it to be installed", "run: pip install 'probem[arviz]'"
        ) from None
    for name, number in (("num_chains", wanted.num_chains), ("num_draws", wanted.num_draws)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
            raise InputError(f"{name}={number!r}", "a whole number of at least 1", "change it")
    chains = (int(wanted.num_chains), int(wanted.num_draws))
    count = chains[0] * chains[1]
    observed = _rows_first(plan, _observed(plan, data), axis=0)
    names = _axis_names(plan.program, observed, wanted)
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key
    first, second = jax.random.split(key)
    draws = {name: np.asarray(value) for name, value in _draws(plan, fit.variational, first, count).items()}
    assigned = _assignments(plan, jnp.asarray(responsibilities), second, count)
    values = {name: jnp.asarray(value) for name, value in draws.items()}
    likelihood = about_rows(plan, Observations(data), _log_likelihood, values, axis=1)

    def chained(value: Shaped[np.ndarray, "total ..."]) -> Shaped[np.ndarray, "chains draws ..."]:
        return value.reshape(*chains, *value.shape[1:])

    groups = {
        "posterior": {name: ((*_DRAWN, *names.of_site(name)), chained(value)) for name, value in draws.items()},
        "assignments": {name: ((*_DRAWN, "row"), chained(value)) for name, value in assigned.items()},
        "log_likelihood": {"_".join(plan.program.observed): ((*_DRAWN, "row"), chained(likelihood))},
        "observed_data": {name: (("row", *names.of_site(name)), value) for name, value in observed.items()},
    }
    if wanted.posterior_predictive:
        # A key that leaves the other draws as they are without it.
        drawn = _predicted(plan, values, jax.random.fold_in(second, 1), jax.tree.map(jnp.asarray, data))
        groups["posterior_predictive"] = {
            name: ((*_DRAWN, "row", *names.of_site(name)), chained(value))
            for name, value in _rows_first(plan, drawn, axis=1).items()
        }
    attributes = {"inference_library": "probem", "elbo": fit.elbo, "result": fit.result.name if fit.result else ""}
    return xarray.DataTree.from_dict(
        {
            f"/{group}": xarray.Dataset(variables, coords=names.places(variables), attrs=attributes)
            for group, variables in groups.items()
        }
    )


def _axis_names(program: Program, observed: Mapping[str, np.ndarray], wanted: Wanted) -> AxisNames:
    """Of every site: those asked for, else the name of its plate, else ``"<site>_dim_0"``, as ArviZ counts."""
    shapes = {site.name: site.shape for site in program.globals}
    plates = {
        site.name: {len(site.shape) - site.event_ndim + dim: name for name, _, dim in site.plates}
        for site in program.globals
    }
    shapes |= {name: value.shape[1:] for name, value in observed.items()}
    taken = {*shapes, *(site.name for site in program.assignments), *_DRAWN, "row"}
    return AxisNames.of(shapes, plates, taken, wanted.dims, wanted.coords)


def _rows_first(plan: Plan, values: Mapping[str, Any], axis: int) -> dict[str, np.ndarray]:
    """The values of observed sites with the rows on this axis."""
    return {name: np.moveaxis(np.asarray(value), plan.form.rows_axis(name), axis) for name, value in values.items()}


def _observed(plan: Plan, data: tuple[Any, ...]) -> dict[str, Shaped[Array, "..."]]:
    return plan.program.observations(jax.tree.map(jnp.asarray, data))


@functools.partial(by_plan, static_argnums=(3,), foreign=True)
def _draws(plan: Plan, params: Params, key: PRNGKeyArray, num_draws: int) -> Params:
    """Values of every site outside the data plate, ``[num_draws, ...]``; of a point the same in every draw."""

    def draw(key: PRNGKeyArray) -> Params:
        with isolated(), handlers.seed(rng_seed=key):
            return {**params, **posterior.draw(plan.mean_field, params)}

    return jax.vmap(draw)(jax.random.split(key, num_draws))


def _assignments(
    plan: Plan, probabilities: Float[Array, "N K"], key: PRNGKeyArray, num_draws: int
) -> dict[str, Shaped[np.ndarray, "draws N"]]:
    """Draws from q of every assignment."""
    joint = _categorical(key, probabilities, num_draws)
    index = np.unravel_index(np.asarray(joint), plan.program.enumeration_shape)
    return {site.name: np.asarray(site.support)[at] for site, at in zip(plan.program.assignments, index, strict=True)}


@functools.partial(jax.jit, static_argnums=2)
def _categorical(key: PRNGKeyArray, probabilities: Float[Array, "N K"], num_draws: int) -> Int[Array, "draws N"]:
    shape = (num_draws, probabilities.shape[0])
    return jax.random.categorical(key, jnp.log(probabilities), axis=-1, shape=shape)


@functools.partial(by_plan, foreign=True)
def _log_likelihood(plan: Plan, draws: Params, block: Block) -> Float[Array, "draws n"]:
    """log p(x_n | theta) with the assignments summed out, nats."""

    def log_densities(values: Params) -> Float[Array, " n"]:
        return jax.nn.logsumexp(plan.program.log_joint(values, block.data), axis=1)

    return jax.lax.map(log_densities, draws)


@functools.partial(by_plan, foreign=True)
def _predicted(
    plan: Plan, draws: Params, key: PRNGKeyArray, data: tuple[Any, ...]
) -> dict[str, Shaped[Array, "draws ..."]]:
    """New rows beside every draw, as many as there are, by the program: their assignments are drawn anew as well."""
    program = plan.program

    def rows(given: tuple[PRNGKeyArray, Params]) -> dict[str, Shaped[Array, "..."]]:
        key, params = given
        with isolated():
            substituted = handlers.substitute(handlers.seed(program.function, key), data=params)
            sites = handlers.trace(handlers.uncondition(substituted)).get_trace(*data)
        return {name: sites[name]["value"] for name in program.observed}

    count = jax.tree.leaves(draws)[0].shape[0]
    return jax.lax.map(rows, (jax.random.split(key, count), draws))
