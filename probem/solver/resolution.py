"""What an initialiser asks for, checked: seeds to be drawn, parameters, or a q that is held."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.data.observations import Observations
from probem.errors import InputError
from probem.plan.plan import Plan
from probem.program.fixed import impose
from probem.program.sites import Params
from probem.solver.initialisers import (
    GivenStart,
    Initializer,
    KMeansPlusPlus,
    Labels,
    Parameters,
    Seeding,
    as_given_start,
    check_given_start,
)
from probem.solver.start import Start, initial_params, observed_rows, restart_keys


def resolve(
    plan: Plan, rows: Observations, init: Initializer | None, key: Array, restarts: int, fixed: Params | None = None
) -> tuple[Seeding | None, Start]:
    """What an initialiser asks for: how to draw seeds, if that is what it does, and the start.

    ``fixed`` holds the values of the entries that stay (``program/fixed.py``).

    Raises
    ------
    InputError
        For values of the wrong shape or off their constraint, or several restarts from one given start.
    """

    def held_fast(params: Params) -> Params:
        masks = tuple(own for own in plan.fixed if own[0] in params)
        return impose(plan.program, masks, params, fixed or {})

    initial = held_fast(initial_params(plan, rows.data))
    if isinstance(init, Parameters) and init.others is not None:
        seeding, start = resolve(plan, rows, init.others, key, restarts, fixed)
        if start.params is not None:
            raise InputError(
                "parameters beside other parameters as a start", "labels, responsibilities or seeds", "give them once"
            )
        return seeding, start._replace(given=held_fast(_checked(plan, initial, rows, Parameters(init.values))))
    keys = restart_keys(key, restarts) if restarts > 1 else key
    init = KMeansPlusPlus() if init is None else init
    if isinstance(init, Seeding):
        return init, Start(initial, key=keys)
    if isinstance(init, GivenStart):
        if restarts > 1:
            raise InputError(
                f"restarts={restarts} from one given start",
                "restarts=1 with it",
                "leave restarts out, or start at random",
            )
        found = [init]
    elif callable(init):
        seen = observed_rows(plan, rows.data, rows.missing)
        found = [as_given_start(init(own, seen)) for own in (keys if restarts > 1 else [key])]
    else:
        raise InputError(
            f"init of type {type(init).__name__}",
            "an initialiser",
            "use KMeansPlusPlus(), RandomRows(), Parameters, Labels, Responsibilities or a function of (key, rows)",
        )
    values: list[Any] = [_checked(plan, initial, rows, one) for one in found]
    if len({type(one) for one in found}) > 1:
        raise InputError(
            "different kinds of start from the initialiser", "the same kind for every key", "return one kind"
        )
    if isinstance(found[0], Parameters):
        values = [held_fast({**initial, **own}) for own in values]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *values) if restarts > 1 else values[0]
    if isinstance(found[0], Parameters):
        return None, Start(initial, params=stacked)
    return None, Start(initial, held=stacked)


def _checked(plan: Plan, initial: Params, rows: Observations, given: GivenStart) -> Any:
    """What was given, as arrays of the plan's dtype."""
    posteriors = _given_posteriors(plan, initial, given)
    found = check_given_start(_without(given, plan.mean_field.full), plan.program, rows.num_rows)
    if isinstance(found, Parameters):
        return jax.tree.map(lambda value: jnp.asarray(value, plan.dtype), {**found.values, **posteriors})
    return jnp.asarray(found.values, jnp.int32 if isinstance(found, Labels) else plan.dtype)


def _without(given: GivenStart, names: Collection[str]) -> GivenStart:
    if not isinstance(given, Parameters):
        return given
    return Parameters({name: value for name, value in given.values.items() if name not in names})


def _given_posteriors(plan: Plan, initial: Params, given: GivenStart) -> Params:
    """The q of sites with a full posterior in a start, checked: arguments by name, as ``Fit.variational`` has them."""
    named = {} if not isinstance(given, Parameters) else given.values
    found = {name: value for name, value in named.items() if name in plan.mean_field.full}
    for name, value in found.items():
        shapes = {argument: np.shape(own) for argument, own in initial[name].items()}
        given_shapes = {key: np.shape(own) for key, own in value.items()} if isinstance(value, Mapping) else None
        if given_shapes != shapes:
            got = f"of shapes {given_shapes}" if given_shapes is not None else "that is a value"
            raise InputError(
                f"a start for '{name}', a site with the family Conjugate(), {got}",
                f"the arguments of its q, {shapes}, as a fit has them in .variational",
                "start from Labels, Responsibilities or seeds instead",
            )
        (site,) = (site for site in plan.mean_field.sites if site.name == name)
        if not site.is_proper({argument: np.asarray(own, float) for argument, own in value.items()}):
            raise InputError(
                f"a start for the q of '{name}' that is no distribution",
                site.requirement,
                "take it from the .variational of a fit",
            )
    return found
