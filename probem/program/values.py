"""Values for the sites outside the data plate, checked against their shapes and constraints."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from probem.data.arrays import numeric
from probem.errors import InputError, nearest
from probem.program.program import Program


def check_values(
    values: Mapping[str, Any],
    program: Program,
    closed: bool = False,
    lead: tuple[int, ...] = (),
    role: str = "initial value",
) -> dict[str, Any]:
    """Values by site name as arrays of the right shape, on their constraints (``closed``: or at a bound of zero).

    They have the axes ``lead`` before those of their site; ``role`` is what messages call them.

    Raises
    ------
    InputError
        Naming the site, what was got and what was expected.
    """
    shapes = {site.name: (*lead, *site.shape) for site in program.globals}
    checked = {}
    for name, value in values.items():
        if name not in shapes:
            raise InputError(
                f"{article(role)} for the unknown site '{name}'", "a parameter of the program", nearest(name, shapes)
            )
        array = numeric(value, f"{role} of '{name}'")
        if array.shape != shapes[name]:
            raise InputError(
                f"{article(role)} of shape {array.shape} for '{name}'",
                f"shape {shapes[name]}",
                "reshape or transpose it",
            )
        if is_concrete(array):
            constraint = program.constraints[name]
            numbers = np.asarray(array)
            # Known values are checked also while a caller traces.
            with jax.ensure_compile_time_eval():
                allowed = np.asarray(constraint(jnp.asarray(numbers)))
                if closed and np.issubdtype(numbers.dtype, np.floating):
                    # The estimate from counts that are all zero is a rate of zero, which ``positive`` leaves out; above
                    # the diagonal of a factor there is nothing else.
                    inside = np.where(numbers == 0, np.finfo(numbers.dtype).tiny, numbers)
                    allowed = allowed | np.asarray(constraint(jnp.asarray(inside)))
            if not (np.isfinite(np.asarray(numbers, float)).all() and allowed.all()):
                raise InputError(
                    f"{article(role)} for '{name}' that is off its constraint",
                    f"a finite value that is {spoken(constraint)}",
                    "project it there first",
                )
        checked[name] = array
    return checked


def article(noun: str) -> str:
    """A noun with its indefinite article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def spoken(constraint: Any) -> str:
    """A constraint in words."""
    return str(constraint).strip("<>").split("(")[0].replace("_", " ").lower()


def is_concrete(value: Any) -> bool:
    """Whether a value is known, and not traced."""
    return not isinstance(value, Tracer)
