"""What ``fit_many`` is given, checked: data, weights and starts with a leading axis of data sets."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from probem.data.arrays import numeric
from probem.data.checks import check_data, check_labels
from probem.data.observations import Observations, split_gaps
from probem.errors import InputError
from probem.fitting.options import axes_of_key, check_variance, keys_of
from probem.jit.compilation import by_plan
from probem.plan.plan import Plan
from probem.program.program import Program
from probem.program.sites import Params
from probem.program.support import check_support, rows_outside
from probem.solver.initialisers import (
    GivenStart,
    Initializer,
    KMeansPlusPlus,
    Labels,
    Parameters,
    Responsibilities,
    Seeding,
    as_given_start,
    check_given_start,
    check_instance,
)
from probem.solver.resolution import resolve
from probem.solver.start import Start, observed_rows
from probem.stopping import Stopping, check_stopping


def check_many(data: tuple[Any, ...]) -> Observations:
    """The data arguments as arrays ``[B, N, ...]``, and where values are missing.

    Raises
    ------
    InputError
        Naming the data sets that cannot be used.
    """
    arrays = jax.tree.map(
        lambda leaf: numeric(leaf, "data", "real numbers"), data, is_leaf=lambda node: isinstance(node, list)
    )
    leaves = jax.tree.leaves(arrays)
    for leaf in leaves:
        if leaf.ndim < 2 or leaf.shape[:2] != leaves[0].shape[:2] or 0 in leaf.shape[:2]:
            shapes = ", ".join(str(other.shape) for other in leaves)
            raise InputError(
                f"data of shape {shapes}",
                "arrays [B, N, ...]: B data sets of N rows, the same and at least one in each argument",
                "stack the data sets, x[None] if there is one",
            )
        if np.dtype(leaf.dtype).kind == "f":
            values = np.asarray(leaf)
            bad = np.flatnonzero(np.isinf(values.reshape(len(values), -1)).any(1))
            if bad.size:
                raise InputError(
                    f"values that are infinite in {listed(bad)}",
                    "finite numbers, or NaN where a value is missing",
                    "drop or impute those rows",
                )
    checked = split_gaps(check_data(joined(Observations(arrays)).data, missing=True))
    if not leaves:
        return checked
    shape = leaves[0].shape[:2]
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), checked)


def check_many_columns(rows: Observations) -> None:
    """Refuse data sets with a column without any value, or none in a row that counts.

    Raises
    ------
    InputError
        Naming the data sets.
    """
    for leaf in jax.tree.leaves(rows.missing):
        absent = np.asarray(leaf).reshape(*leaf.shape[:2], -1)
        counted = np.ones(leaf.shape[:2], bool) if rows.weights is None else rows.weights > 0
        empty = np.flatnonzero(np.any(np.all(absent | ~counted[:, :, None], axis=1), axis=1))
        if empty.size:
            raise InputError(
                f"a column without any value in {listed(empty)}",
                "at least one value in each",
                "leave those data sets out",
            )


def check_many_support(program: Program, rows: Observations) -> None:
    """Refuse data sets with values outside the support of their distribution.

    Raises
    ------
    InputError
        Naming the data sets, and the first of the values.
    """
    flat = joined(rows)
    data = flat.data
    if flat.missing is not None:
        data = jax.tree.map(lambda leaf, gone: np.where(gone, np.nan, leaf) if gone.any() else leaf, data, flat.missing)
    outside = rows_outside(program, data)
    if outside is None:
        return
    weights = np.ones(len(outside)) if flat.weights is None else np.asarray(flat.weights)
    bad = np.flatnonzero((outside & (weights > 0)).reshape(rows.num_rows, -1).any(1))
    if not bad.size:
        return
    own, counted = jax.tree.map(lambda leaf: leaf.reshape(rows.num_rows, -1, *leaf.shape[1:])[bad[0]], (data, weights))
    check_support(program, own, counted, f" of {listed(bad)}")


def joined(rows: Observations) -> Observations:
    """The rows of all data sets one after another, ``[B * N, ...]``."""
    return jax.tree.map(lambda leaf: leaf.reshape(leaf.shape[0] * leaf.shape[1], *leaf.shape[2:]), rows)


def check_many_labels(labels: Any, num_sets: int, num_rows: int, num_components: int) -> np.ndarray | None:
    """Known assignments ``[B, N]``, -1 where unknown, or None where all are."""
    given = np.asarray(numeric(labels, "labels", "whole numbers from -1"))
    if given.shape != (num_sets, num_rows):
        raise InputError(
            f"labels of shape {given.shape}", f"shape {(num_sets, num_rows)}", "give one label for each row"
        )
    found = check_labels(given.reshape(-1), given.size, num_components)
    return None if found is None else found.reshape(given.shape)


def check_many_weights(row_weights: Any, num_sets: int, num_rows: int) -> np.ndarray | None:
    """Row weights ``[B, N]``, finite and not negative, or None."""
    if row_weights is None:
        return None
    weights = np.asarray(numeric(row_weights, "row_weights"), float)
    if weights.shape != (num_sets, num_rows):
        raise InputError(
            f"row_weights of shape {weights.shape}", f"shape {(num_sets, num_rows)}", "give one weight for each row"
        )
    bad = np.flatnonzero(~(np.isfinite(weights).all(1) & (weights >= 0).all(1) & (weights.sum(1) > 0)))
    if bad.size:
        raise InputError(
            f"row_weights with a negative, non-finite or no positive value in {listed(bad)}",
            "weights >= 0",
            "check them",
        )
    return weights


def listed(numbers: Any) -> str:
    """Data sets by their numbers: the first few, and how many."""
    found = [int(number) for number in numbers]
    named = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
    return f"data set {named}" if len(found) == 1 else f"{len(found)} data sets ({named})"


def check_many_keys(key: Any, num_sets: int) -> Array:
    """One key for each data set, ``[B]``: split from one, or as given."""
    keys = keys_of(key)
    own_axes = axes_of_key(keys)
    if keys.ndim == own_axes:
        return jax.random.split(keys, num_sets)
    if keys.shape[: keys.ndim - own_axes] != (num_sets,):
        raise InputError(
            f"keys of shape {keys.shape}", f"one key, or {num_sets}, one for each data set", "use jax.random.split"
        )
    return keys


def check_many_variances(variance: Any, plan: Plan, num_sets: int) -> Array | None:
    """The covariance of the noise that each data set is seen with, ``[B]`` or ``[B, F, F]``; None for none."""
    if np.ndim(variance) < 3:
        found = check_variance(variance, plan)
        return None if found is None else jnp.broadcast_to(found, (num_sets, *found.shape))
    if len(variance) != num_sets:
        raise InputError(
            f"added_variance of shape {np.shape(variance)}", f"{num_sets} matrices, one for each data set", "change it"
        )
    return jnp.stack([jnp.asarray(check_variance(own, plan)) for own in np.asarray(variance)])


def check_many_stopping(tolerance: Any, plan: Plan, num_sets: int) -> Stopping:
    """The rule of each data set: its numbers are ``[B]``, and those given are one for all or one for each."""

    def of_every_set(number: Any) -> Array:
        own = jnp.asarray(number, plan.dtype)
        if own.shape not in ((), (num_sets,)):
            raise InputError(
                f"a tolerance of shape {own.shape}", f"a number, or {num_sets}, one for each data set", "change it"
            )
        return jnp.broadcast_to(own, (num_sets,))

    return jax.tree.map(of_every_set, check_stopping(tolerance))


def resolve_many(
    plan: Plan, rows: Observations, init: Initializer | list[Any] | None, keys: Array, fixed: Params
) -> tuple[Seeding | None, Start]:
    """What an initialiser asks for: how to draw seeds, if that is what it does, and the starts, ``[B, ...]``.

    Raises
    ------
    InputError
        For values of the wrong shape or off their constraint.
    """
    check_instance(init)
    init = KMeansPlusPlus() if init is None else init
    if isinstance(init, Seeding):
        return init, Start({}, key=keys)
    if isinstance(init, Parameters) and init.others is not None:
        seeding, start = resolve_many(plan, rows, init.others, keys, fixed)
        if start.params is not None:
            raise InputError(
                "parameters beside other parameters as a start", "labels, responsibilities or seeds", "give them once"
            )
        given = _parameters(plan, rows, Parameters(init.values), keys, fixed)
        return seeding, start._replace(given={name: given[name] for name in init.values})
    if isinstance(init, GivenStart):
        return None, _start(plan, rows, init, keys, fixed)
    own = init if isinstance(init, list) else [init] * len(keys)
    bad = next((start for start in own if not callable(start)), None)
    if bad is not None:
        raise InputError(
            f"init of type {type(bad).__name__}",
            "an initialiser, or a list of functions of (key, rows), one for each data set",
            "use KMeansPlusPlus(), RandomRows(), Parameters, Labels, Responsibilities or such functions",
        )
    seen = _rows(plan, rows)
    found = [as_given_start(start(key, rows)) for start, key, rows in zip(own, keys, seen, strict=True)]
    if len({type(one) for one in found}) > 1:
        raise InputError(
            "different kinds of start from the initialiser", "the same kind for every key", "return one kind"
        )
    values = jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *(o.values for o in found))
    return None, _start(plan, rows, type(found[0])(values), keys, fixed)


@by_plan
def _rows(plan: Plan, rows: Observations) -> Array:
    return jax.vmap(lambda own: observed_rows(plan, own.data, own.missing))(rows)


def _start(plan: Plan, rows: Observations, given: GivenStart, keys: Array, fixed: Params) -> Start:
    num_sets, num_rows = jax.tree.leaves(rows.data)[0].shape[:2]
    if isinstance(given, Parameters):
        return Start({}, params=_parameters(plan, rows, given, keys, fixed))
    shape = (num_sets, num_rows) if isinstance(given, Labels) else (num_sets, num_rows, plan.num_components)
    values = numeric(given.values, "the start")
    if values.shape != shape:
        what = "labels" if isinstance(given, Labels) else "responsibilities"
        raise InputError(f"initial {what} of shape {values.shape}", f"shape {shape}", "give them for each data set")
    together = type(given)(values.reshape(num_sets * num_rows, *values.shape[2:]))
    checked = check_given_start(together, plan.program, num_sets * num_rows)
    assert isinstance(checked, Labels | Responsibilities)
    dtype = jnp.int32 if isinstance(given, Labels) else plan.dtype
    return Start({}, held=jnp.asarray(checked.values, dtype).reshape(shape))


def _parameters(plan: Plan, rows: Observations, given: Parameters, keys: Array, fixed: Params) -> dict[str, Any]:
    """Values by site, ``[B, ...]``; a site that is left out starts at the program's own initial value."""
    if any(name in plan.mean_field.full for name in given.values):

        def own(number: int, tree: Any) -> Any:
            return jax.tree.map(lambda leaf: numeric(leaf, "the start")[number], tree)

        starts = [
            resolve(plan, own(number, rows), Parameters(own(number, given.values)), key, 1, fixed)[1].params
            for number, key in enumerate(keys)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    # The sites of all data sets are those of one with an axis more.
    num_sets = jax.tree.leaves(rows.data)[0].shape[0]
    sites = tuple(dataclasses.replace(site, shape=(num_sets, *site.shape)) for site in plan.program.globals)
    checked = check_given_start(given, dataclasses.replace(plan.program, globals=sites), 0)
    assert isinstance(checked, Parameters)
    return {name: jnp.asarray(value, plan.dtype) for name, value in checked.values.items()}
