"""A fit as ArviZ has it: draws from q, the log likelihood of every row, and the data, in an ``xarray.DataTree``."""

import functools
from typing import Any

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
from probem.program.sites import Params
from probem.results.record import FitRecord


def to_datatree(
    fit: FitRecord,
    plan: Plan,
    data: tuple[Any, ...],
    responsibilities: Float[Array | np.ndarray, "N K"],
    num_draws: int,
    key: PRNGKeyArray | int,
) -> Any:
    """See ``Fit.to_datatree``; ``responsibilities`` are those of the data."""
    try:
        import xarray
    except ImportError:
        raise InputError(
            "to_datatree without the package xarray", "it to be installed", "run: pip install 'probem[arviz]'"
        ) from None
    if not isinstance(num_draws, int | np.integer) or num_draws < 1:
        raise InputError(f"num_draws={num_draws!r}", "a whole number of at least 1", "change it")
    program = plan.program
    key = jax.random.key(key) if isinstance(key, int | np.integer) else key
    first, second = jax.random.split(key)
    draws = {name: np.asarray(value) for name, value in _draws(plan, fit.variational, first, int(num_draws)).items()}
    assigned = _assignments(plan, jnp.asarray(responsibilities), second, int(num_draws))
    values = {name: jnp.asarray(value) for name, value in draws.items()}
    likelihood = about_rows(plan, Observations(data), _log_likelihood, values, axis=1)
    observed = {name: np.moveaxis(value, plan.form.rows_axis(name), 0) for name, value in _observed(plan, data).items()}
    named = {
        "posterior": {name: _dims(name, value[None], ("chain", "draw")) for name, value in draws.items()}
        | {name: (("chain", "draw", "row"), value[None]) for name, value in assigned.items()},
        "log_likelihood": {"_".join(program.observed): (("chain", "draw", "row"), likelihood[None])},
        "observed_data": {name: _dims(name, value, ("row",)) for name, value in observed.items()},
    }
    attributes = {"inference_library": "probem", "elbo": fit.elbo, "result": fit.result.name if fit.result else ""}
    return xarray.DataTree.from_dict(
        {f"/{group}": xarray.Dataset(variables, attrs=attributes) for group, variables in named.items()}
    )


def _dims(name: str, value: np.ndarray, first: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the axes of a variable, the first ones given."""
    return (*first, *(f"{name}_dim_{number}" for number in range(value.ndim - len(first)))), value


def _observed(plan: Plan, data: tuple[Any, ...]) -> dict[str, np.ndarray]:
    values = plan.program.observations(jax.tree.map(jnp.asarray, data))
    return {name: np.asarray(value) for name, value in values.items()}


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
