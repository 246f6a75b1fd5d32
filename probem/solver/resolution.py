"""What an initialiser asks for, checked: seeds to be drawn, parameters, or a given q."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from probem.analysis.problem import Problem
from probem.data.row_axes import RowAxes
from probem.errors import InputError
from probem.jit.compilation import check_hashable
from probem.program.sites import Params
from probem.solver.initialisers import (
    GivenStart,
    Initializer,
    Labels,
    Parameters,
    as_given_start,
    check_given_start,
)
from probem.solver.seedings import KMeansPlusPlus, Seeding, SeedingIn
from probem.solver.start import Keys, Start, completed, initial_params, observed_rows_of


def resolve(
    problem: Problem, init: Initializer | list[Any] | None, keys: Keys, restarts: int = 1
) -> tuple[Seeding | None, Start]:
    """What an initialiser asks for: how to draw seeds, if that is what it does, and the start.

    ``keys`` is one for every fit: one alone, ``[R]`` over restarts, and ``[B R]`` of many data sets, the restarts of
    one data set together. The start carries the same axis. Of many data sets it lacks the program's own initial values,
    which are those of the rows of each (``solver/batching.py``).

    Raises
    ------
    InputError
        For values of the wrong shape or off their constraint, or several restarts from one given start.
    """
    seeding, start = _asked(problem, init, keys, restarts)
    start = start.seeded(problem.plan, keys)
    if problem.axes.num_sets is not None:
        return seeding, start
    # A draw from a Wishart prior takes as long to compile as a fit: not in vain.
    given_whole = start.params is not None and all(site.name in start.params for site in problem.plan.program.globals)
    initial = {} if given_whole else initial_params(problem.plan, problem.rows.data)

    def whole(start: Start) -> Start:
        return completed(problem.plan, start, initial, problem.fixed)

    return seeding, jax.vmap(whole, (start.axes,), start.axes)(start) if restarts > 1 else whole(start)


def _asked(problem: Problem, init: Any, keys: Keys, restarts: int) -> tuple[Seeding | None, Start]:
    """What the initialiser says, without the program's own initial values and without what is fixed."""
    many = problem.axes.num_sets is not None
    if isinstance(init, Parameters) and init.others is not None:
        seeding, start = _asked(problem, init.others, keys, restarts)
        if start.params is not None:
            raise InputError(
                "parameters beside other parameters as a start", "labels, responsibilities or seeds", "give them once"
            )
        given = _checked(problem, Parameters(init.values), problem.axes)
        if many:
            given = jax.tree.map(lambda leaf: leaf.repeat(restarts, 0), given)
        return seeding, start._replace(given=given)
    if init is None:
        # Where nothing but factors looks at the rows, all seeds would be one.
        blind = not problem.plan.num_observed and restarts == 1
        init = Parameters({}) if blind else KMeansPlusPlus()
    if isinstance(init, Seeding):
        check_hashable(init, "init", "initialiser")
        if problem.rows.are_sparse and not init.takes_sparse_rows:
            raise InputError(
                f"sparse rows for seeds of {type(init).__name__}",
                "seeds that are drawn from them",
                "use KMeansPlusPlus(), RandomRows(), or a start that is given",
            )
        return init, Start({}, key=keys)
    if isinstance(init, SeedingIn):
        if problem.rows.are_sparse:
            raise InputError(
                "sparse rows for seeds in a metric", "seeds by Euclidean distances", "leave the metric out"
            )
        metric, fixed = (
            None if part is None else jnp.asarray(part, problem.plan.dtype) for part in (init.metric, init.fixed_seeds)
        )
        if many:
            metric, fixed = jax.tree.map(lambda leaf: leaf.repeat(restarts, 0), (metric, fixed))
        return init.seeding, Start({}, key=keys, metric=metric, fixed_seeds=fixed)
    if not isinstance(init, GivenStart):
        return None, _called(problem, init, list(keys) if many or restarts > 1 else [keys], restarts)
    if restarts > 1:
        raise InputError(
            f"restarts={restarts} from one given start", "restarts=1 with it", "leave restarts out, or start at random"
        )
    return None, _start(type(init), _checked(problem, init, problem.axes))


def _called(problem: Problem, init: Any, keys: list[PRNGKeyArray], restarts: int) -> Start:
    """What functions of a key and the rows return: one of them, or one for each data set, called for every key."""
    axes, rows = problem.axes, problem.rows
    many = axes.num_sets is not None
    if many and isinstance(init, list) and len(init) != axes.num_sets:
        raise InputError(f"a list of {len(init)} initialisers", f"{axes.num_sets}, one for each data set", "change it")
    functions: list[Any] = init if many and isinstance(init, list) else [init] * (axes.num_sets or 1)
    for function in functions:
        if not callable(function):
            raise InputError(
                f"init of type {type(function).__name__}",
                "an initialiser" + (", or a list of functions of (key, rows), one for each data set" if many else ""),
                "use KMeansPlusPlus() or a Seeding, Parameters, Labels, Responsibilities or a function of (key, rows)",
            )
    if rows.are_sparse:
        seen = [rows.data[0].matrix]
    else:
        seen = axes.by_set(observed_rows_of(problem.plan, rows.data, rows.missing))
    starts = []
    for number, key in enumerate(keys):
        starts.append(as_given_start(functions[number // restarts](key, seen[number // restarts])))
    values = [_checked(problem, start, RowAxes(axes.num_rows)) for start in starts]
    kinds = {(type(start), jax.tree.structure(value)) for start, value in zip(starts, values, strict=True)}
    if len(kinds) > 1:
        raise InputError(
            "different kinds of start from the initialiser", "the same kind for every key", "return one kind"
        )
    together = many or restarts > 1
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *values) if together else values[0]
    return _start(type(starts[0]), stacked)


def _start(kind: type[GivenStart], values: Any) -> Start:
    return Start({}, params=values) if kind is Parameters else Start({}, given_q=values)


def _checked(problem: Problem, given: GivenStart, axes: RowAxes) -> Any:
    """What was given, as arrays of the plan's dtype."""
    plan = problem.plan
    posteriors = _given_posteriors(problem, given, axes.shape[:-1])
    checked = check_given_start(_without(given, posteriors), plan.program, axes)
    if isinstance(checked, Parameters):
        return jax.tree.map(lambda value: jnp.asarray(value, plan.dtype), {**checked.values, **posteriors})
    return jnp.asarray(checked.values, jnp.int32 if isinstance(checked, Labels) else plan.dtype)


def _without(given: GivenStart, names: Collection[str]) -> GivenStart:
    if not isinstance(given, Parameters):
        return given
    return Parameters({name: value for name, value in given.values.items() if name not in names})


def _given_posteriors(problem: Problem, given: GivenStart, lead: tuple[int, ...]) -> Params:
    """The q of sites with a full posterior in a start, checked: arguments by name, as ``Fit.variational`` has them."""
    named = {} if not isinstance(given, Parameters) else given.values
    mean_field = problem.plan.mean_field
    posteriors = {
        site.name: named[site.name] for site in mean_field.by_name.values() if not site.is_point and site.name in named
    }
    initial = initial_params(problem.plan, problem.rows.data) if posteriors else {}
    for name, value in posteriors.items():
        site = mean_field.by_name[name]
        shapes = {argument: (*lead, *np.shape(array)) for argument, array in initial[name].items()}
        given_shapes = {key: np.shape(array) for key, array in value.items()} if isinstance(value, Mapping) else None
        if given_shapes != shapes:
            form = f"of shapes {given_shapes}" if given_shapes is not None else "that is a value"
            raise InputError(
                f"a start for '{name}', a site with the family {site.family!r}, {form}",
                f"the arguments of its q, {shapes}, as a fit has them in .variational",
                "start from Labels, Responsibilities or seeds instead",
            )
        if not site.is_proper({argument: np.asarray(array, float) for argument, array in value.items()}):
            raise InputError(
                f"a start for the q of '{name}' that is no distribution",
                site.requirement,
                "take it from the .variational of a fit",
            )
    return posteriors
