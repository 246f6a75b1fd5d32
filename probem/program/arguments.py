"""Whether the distributions of a program may have the arguments that it gives them.

NumPyro checks arguments where it can see their values, which it cannot inside a trace. There a density whose
probabilities add up to 2 is evaluated like any other, and F, the evidence and the densities of rows are then those of
no distribution.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from probem.errors import InputError
from probem.jit.compilation import concrete
from probem.program.densities import base_distribution
from probem.program.program import Program
from probem.program.sites import Params
from probem.program.support_rules import distribution_name

# Draws of the parameters: a scale without a constraint is negative in half of them, and in all by chance of 1e-7.
_DRAWS = range(24)
# How far a sum of probabilities may be from 1: thousands of them, rounded in float32.
_ROUNDING = 1e-3


@functools.lru_cache(maxsize=256)
def check_arguments(program: Program) -> None:
    """Refuse arguments that a distribution does not allow, whatever the parameters.

    Probabilities have to add up to 1 at all values of the parameters: those of parameters without a constraint on their
    sum do so at a start, perhaps. Other arguments may be wrong at some values, where a fit need not go.

    Raises
    ------
    InputError
        For probabilities whose sum is not 1, and for an entry of an argument that is outside its constraint at every
        draw of the parameters.
    """
    data = program.spec.examples()[0]
    always: dict[tuple[str, str], np.ndarray] = {}
    looks: Looks = {}
    for seed in _DRAWS:
        looks = _looked_at(program, program.random_params(seed), data)
        for (site, name), (broken, _, total) in looks.items():
            if (np.abs(total - 1) > _ROUNDING).any():
                raise InputError(
                    f"probabilities that add up to {total[np.abs(total - 1) > _ROUNDING][0]:.6g} as"
                    f" {_in_words(program, site, name)[0]}",
                    "probabilities that add up to 1 at all values of the parameters",
                    "divide them by their sum, or declare a parameter with constraint=dist.constraints.simplex",
                )
            always[site, name] = always.get((site, name), np.ones_like(broken)) & broken
        if not any(broken.any() for broken in always.values()):
            return
    (site, name), broken = next((key, broken) for key, broken in always.items() if broken.any())
    said, constraint = _in_words(program, site, name)
    raise InputError(f"{looks[site, name][1][broken][0]:.6g} as {said}", f"values in {constraint!r}", "change it")


# By site and argument: which entries are outside its constraint, their values, and the sums of probabilities.
Looks = dict[tuple[str, str], tuple[Bool[Array, "*entries"], Float[Array, "*entries"], Float[Array, " *sums"]]]


@concrete
def _looked_at(program: Program, params: Params, data: tuple[Any, ...]) -> Looks:
    """Every argument that is restricted entry by entry, or is a vector of probabilities.

    An entry that is no number says nothing: the parameters were drawn.
    """
    looks = {}
    for site, values in program.enumerated_trace(params, data).items():
        for name, (value, constraint) in _restricted(values).items():
            is_known, total = jnp.isfinite(value), jnp.ones(0)
            if constraint is constraints.simplex:
                sums = value.sum(-1)
                # Where an entry is negative its logarithm is none, which a fit cannot miss.
                total = jnp.where(jnp.isfinite(sums) & (value >= 0).all(-1), sums, 1.0).reshape(-1)
                outside = value < 0
            else:
                outside = ~jnp.asarray(constraint(value))
            looks[site, name] = jnp.broadcast_to(outside, value.shape) & is_known, value, total
    return looks


def _restricted(site: dict[str, Any]) -> dict[str, tuple[Array, constraints.Constraint]]:
    """The floating arguments of the distribution of a site that are restricted so."""
    if site["type"] != "sample":
        return {}
    base = base_distribution(site["fn"])
    known = getattr(base, "arg_constraints", {})
    restricted = {}
    for name, value in base.get_args().items():
        constraint = known.get(name)
        while isinstance(constraint, constraints.independent):
            constraint = constraint.base_constraint
        if constraint is None or constraint is constraints.real or constraints.is_dependent(constraint):
            continue
        array = jnp.asarray(value)
        entries = constraint.event_dim == 0 or constraint is constraints.simplex
        if entries and jnp.issubdtype(array.dtype, jnp.floating):
            restricted[name] = array, constraint
    return restricted


def _in_words(program: Program, site: str, name: str) -> tuple[str, constraints.Constraint]:
    """An argument, and its constraint."""

    def look(sites: dict[str, dict[str, Any]]) -> tuple[str, constraints.Constraint]:
        kind = distribution_name(type(base_distribution(sites[site]["fn"])))
        return f"'{name}' of '{site}', a {kind} distribution", _restricted(sites[site])[name][1]

    return program.abstract_trace(look, 3)
