"""Computations without the operations that nothing follows from.

JAX compiles what it traced: inside a loop, operations without a use stay until XLA drops them, after all of them were
lowered and read. A distribution of NumPyro factorises its matrix whether or not anybody asks for the factor.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun


def live(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays to arrays, made of no more operations than its results follow from."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        needed, operations = _variables(closed.jaxpr.outvars), []
        for operation in reversed(closed.jaxpr.eqns):
            if operation.effects or not needed.isdisjoint(operation.outvars):
                operations.append(operation)
                needed |= _variables(operation.invars)
        jaxpr = closed.jaxpr.replace(eqns=operations[::-1])
        results = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shapes), results)

    return call


def _variables(atoms: Any) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, Literal)}
