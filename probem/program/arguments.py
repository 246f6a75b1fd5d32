"""Whether the distributions of a program may have the arguments that it gives them.

NumPyro checks arguments where it can see their values, which it cannot inside a trace. There a density whose
probabilities add up to 2 is evaluated like any other, and F, the evidence and the densities of rows are then those of
no distribution.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Shaped
from numpyro.distributions import constraints

from probem.data.compressed import CompressedRows
from probem.errors import InputError
from probem.jit.compilation import concrete
from probem.program.program import Program
from probem.program.sites import Params
from probem.program.support_rules import distribution_name

# Draws of the parameters: a scale without a constraint is negative in half of them, and in all by chance of 1e-7.
_DRAWS = range(24)
# Draws at which sums of probabilities are looked at.
_SUMS = 3
# Rows at which arguments are looked at that depend on data.
_ROWS = 8

# A site, one of its distributions from the outermost on, and an argument of it.
Place = tuple[str, int, str]


def check_arguments(
    program: Program,
    data: tuple[Any, ...],
    weights: Any = None,
    fixed: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
) -> None:
    """Refuse arguments that a distribution does not allow, whatever the parameters.

    Probabilities have to add up to 1 at all values of the parameters: those of parameters without a constraint on their
    sum do so at a start, perhaps. Other arguments may be wrong at some values, where a fit need not go, but not at
    every draw and at the start as well; those that depend on data may be wrong in some rows, which a mask leaves out.

    Parameters
    ----------
    data : arrays, of which some rows are looked at; nothing is said while they are traced
    weights : ``[N]``, or None; rows of weight 0 may hold anything
    fixed, start : values of sites, those that stay and those that a fit begins at

    Raises
    ------
    InputError
        For probabilities whose sum is not 1, and for an entry of an argument that is outside its constraint everywhere.
    """
    moving = _moving(program)
    if not fixed and not moving and _passes(program):
        return
    leaves = jax.tree.leaves(data)
    if any(isinstance(leaf, Tracer) for leaf in (*leaves, weights)):
        return
    counted = np.arange(len(leaves[0])) if weights is None else np.flatnonzero(np.asarray(weights) > 0)
    if not len(counted):
        return
    index = counted[np.linspace(0, len(counted) - 1, _ROWS).astype(int)]
    rows = jax.tree.map(lambda leaf: _some(leaf, index), data)
    _check_at(program, rows, moving, _whole(program, fixed or {}), _whole(program, start or {}))


@functools.lru_cache(maxsize=256)
def _passes(program: Program) -> bool:
    """Whether nothing is wrong at invented rows: what does not depend on rows is then right at all of them."""
    try:
        _check_at(program, _examples(program)[0], frozenset(), {}, {})
    except InputError:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _moving(program: Program) -> frozenset[Place]:
    """The arguments that depend on data, by two sets of rows."""
    params = program.random_params(0)
    first, second = (_looked_at(program, params, rows) for rows in _examples(program))
    return frozenset(place for place in first if not np.array_equal(first[place][1], second[place][1], equal_nan=True))


def _examples(program: Program) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Two sets of rows that have nothing in common, be they rounded or looked up; no density is evaluated there."""
    first = jax.tree.map(lambda leaf: np.resize(leaf, (_ROWS, *leaf.shape[1:])), program.spec.examples()[0])
    return first, jax.tree.map(lambda leaf: (7 * leaf + 3).astype(leaf.dtype), first)


def _check_at(
    program: Program,
    rows: tuple[Any, ...],
    moving: frozenset[Place],
    kept: Mapping[str, np.ndarray],
    start: Mapping[str, np.ndarray],
) -> None:
    """The check at these rows; of arguments that are ``moving`` with the data, only what is wrong in all rows."""
    rounding = 1e-6 if jnp.result_type(float) == jnp.float64 else 1e-3
    always: dict[Place, np.ndarray] = {}
    looks: Looks = {}
    for seed in _DRAWS:
        looks = _looked_at(program, {**program.random_params(seed), **kept}, rows)
        for place, (broken, _, total) in looks.items():
            wrong = np.abs(total - 1) > rounding
            if wrong.any():
                raise InputError(
                    f"probabilities that add up to {total[wrong][0]:.7g} as {_in_words(program, place)[0]}",
                    "probabilities that add up to 1 at all values of the parameters",
                    "divide them by their sum, or declare a parameter with constraint=dist.constraints.simplex",
                )
            broken = broken & broken.all() if place in moving else broken
            always[place] = always.get(place, np.ones_like(broken)) & broken
        if seed + 1 >= _SUMS and not any(broken.any() for broken in always.values()):
            return
    # Where the program begins, if it says so: draws may all lie elsewhere.
    drawn = {site.name for site in program.globals if site.has_prior}
    begun = {name: value for name, value in program.random_params(0).items() if name in drawn}
    begun = {**begun, **start, **kept}
    for place, (broken, _, _) in _looked_at(program, begun, rows).items():
        always[place] = always[place] & broken
    for place, broken in always.items():
        if broken.any():
            said, constraint = _in_words(program, place)
            raise InputError(
                f"{looks[place][1][broken][0]:.6g} as {said}",
                f"values in {constraint!r}",
                "correct it, or declare a parameter with that constraint",
            )


def _some(leaf: Any, index: Int[np.ndarray, " n"]) -> np.ndarray:
    return leaf[index].dense() if isinstance(leaf, CompressedRows) else np.asarray(leaf)[index]


def _whole(program: Program, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values that are known, whole and of the shape of their site."""
    shapes = {site.name: site.shape for site in program.globals}
    known = {name: np.asarray(value) for name, value in values.items() if not isinstance(value, Tracer)}
    return {
        name: value
        for name, value in known.items()
        if name in shapes and value.shape == shapes[name] and np.isfinite(value.astype(float)).all()
    }


# Which entries are outside the constraint, their values, and the sums of probabilities.
Looks = dict[Place, tuple[Bool[Array, "*entries"], Shaped[Array, "*entries"], Float[Array, " *sums"]]]


@concrete
def _looked_at(program: Program, params: Params, data: tuple[Any, ...]) -> Looks:
    """Every argument that is restricted entry by entry, is a vector of probabilities, or a matrix with a diagonal.

    An entry that is no number says nothing: the parameters were drawn.
    """
    looks = {}
    for site, values in program.enumerated_trace(params, data).items():
        for (depth, name), (value, constraint) in _restricted(values).items():
            total = jnp.ones(0)
            if constraint is constraints.simplex:
                sums = value.sum(-1)
                total = jnp.where(jnp.isfinite(sums), sums, 1.0).reshape(-1)
                # Where an entry is negative its logarithm is none, which a fit cannot miss.
                outside = jnp.zeros(value.shape, bool)
            elif constraint in _MATRICES:
                value = jnp.diagonal(value, axis1=-2, axis2=-1)
                outside = value <= 0
            else:
                outside = ~jnp.asarray(constraint(value))
                if outside.shape != value.shape:
                    continue  # bounds of more entries than the argument has
            looks[site, depth, name] = outside & jnp.isfinite(value), value, total
    return looks


_MATRICES = (constraints.lower_cholesky, constraints.positive_definite)


def _restricted(site: dict[str, Any]) -> dict[tuple[int, str], tuple[Array, constraints.Constraint]]:
    """The arguments that are restricted so, of the distribution of a site and of what is wrapped in it."""
    restricted = {}
    layer, depth = site["fn"] if site["type"] == "sample" else None, 0
    while layer is not None:
        for name, constraint in getattr(layer, "arg_constraints", {}).items():
            # Arguments that were not given are computed from others when they are asked for.
            value = vars(layer).get(name)
            while isinstance(constraint, constraints.independent):
                constraint = constraint.base_constraint
            if value is None or constraint is constraints.real or constraints.is_dependent(constraint):
                continue
            entries = constraint.event_dim == 0 or constraint is constraints.simplex or constraint in _MATRICES
            if entries and jnp.result_type(value) != jnp.bool_:
                restricted[depth, name] = jnp.asarray(value), constraint
        layer, depth = getattr(layer, "base_dist", None), depth + 1
    return restricted


def _in_words(program: Program, place: Place) -> tuple[str, constraints.Constraint]:
    """An argument, and its constraint."""
    site, depth, name = place

    def look(sites: dict[str, dict[str, Any]]) -> tuple[str, constraints.Constraint]:
        layer = sites[site]["fn"]
        for _ in range(depth):
            layer = layer.base_dist
        constraint = _restricted(sites[site])[depth, name][1]
        return f"'{name}' of '{site}', a {distribution_name(type(layer))} distribution", constraint

    return program.abstract_trace(look, _ROWS)
