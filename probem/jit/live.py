"""Computations without the operations that no result follows from.

JAX lowers the body of a loop as it was traced, with all that has no use, and XLA reads all of it before it drops any. A
distribution of NumPyro factorises its matrix whether or not anybody asks for the factor.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun


def live(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays to arrays, made of the operations that its results follow from or that have effects."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        # JAX keeps what it traced for a function, and what this one closes over may belong to a trace that has ended.
        closed, shapes = jax.make_jaxpr(lambda *fresh: function(*fresh), return_shape=True)(*arguments)
        needed, operations = _variables(closed.jaxpr.outvars), []
        for operation in reversed(closed.jaxpr.eqns):
            if operation.effects or not needed.isdisjoint(operation.outvars):
                operations.append(operation)
                needed |= _variables(operation.invars)
        jaxpr = closed.jaxpr.replace(eqns=operations[::-1])
        leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
        results = jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts))(*leaves)
        # What is handed through may be NumPy's.
        return jax.tree.unflatten(jax.tree.structure(shapes), [jnp.asarray(result) for result in results])

    return call


def _variables(atoms: Any) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, Literal)}
