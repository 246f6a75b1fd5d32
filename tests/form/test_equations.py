"""Where gathers take their entries from, and values without JAX: beside JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probem.form.equations import evaluated, gathered_from, needed

X = np.arange(60.0).reshape(3, 4, 5)
ROWS, COLUMNS = np.array([[2, 0], [1, 1]]), np.array([[3, 0], [-1, 2]])

GATHERS = {
    "one axis": lambda x: x[ROWS],
    "two axes": lambda x: x[ROWS, COLUMNS],
    "apart": lambda x: x[ROWS[:, 0], :, COLUMNS[:, 0]],
    "last": lambda x: x[..., ROWS],
    "along": lambda x: jnp.take_along_axis(x, ROWS[:, :1, None], axis=0),
    "batches": lambda x: jax.vmap(lambda part, at: part[at])(x, jnp.array([3, 0, 1])),
    "clipped": lambda x: jnp.take(x, jnp.array([7, -9, 1]), axis=1, mode="clip"),
    "filled": lambda x: jnp.take(x, jnp.array([7, 1]), axis=1, mode="fill", fill_value=0.0),
    "slice": lambda x: jax.lax.dynamic_index_in_dim(x, 2, axis=1),
}


@pytest.mark.parametrize("name", GATHERS)
def test_positions_are_those_of_a_gather(name: str) -> None:
    """By the equations that JAX traces, each beside what JAX makes of it."""
    closed = jax.make_jaxpr(GATHERS[name])(X)
    seen = []

    def run(jaxpr, consts, *arguments):
        values = {**dict(zip(jaxpr.constvars, consts, strict=True)), **dict(zip(jaxpr.invars, arguments, strict=True))}
        for equation in needed(jaxpr):
            operands = [values[atom] if atom in values else atom.val for atom in map(_hashable, equation.invars)]
            if equation.primitive.name == "jit":
                inner = equation.params["jaxpr"]
                made = run(inner.jaxpr, inner.consts, *operands)
            else:
                made = evaluated(equation, [np.asarray(operand) for operand in operands])
                expected = equation.primitive.bind(*map(jnp.asarray, operands), **equation.params)
                np.testing.assert_array_equal(made[0], expected)
                if equation.primitive.name == "gather":
                    where = gathered_from(np.shape(operands[0]), np.asarray(operands[1]), equation.params)
                    flat = np.append(np.ravel(operands[0]), np.asarray(expected)[where < 0][:1])
                    np.testing.assert_array_equal(flat[where], expected)
                    seen.append(equation)
            values.update(zip(equation.outvars, made, strict=True))
        return [values[atom] for atom in jaxpr.outvars]

    (result,) = run(closed.jaxpr, closed.consts, X)
    np.testing.assert_array_equal(result, GATHERS[name](X))
    assert seen or name == "slice"


def _hashable(atom):
    """A literal stands for itself."""
    return _Literal(atom.val) if hasattr(atom, "val") else atom


class _Literal:
    def __init__(self, val):
        self.val = val
