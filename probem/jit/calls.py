"""How a part of a step is run: as it is inside a trace, or compiled by itself from the host."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from probem.jit.compilation import Effort, Key, by_plan

# How to run a part of a step: ``call(function, *axes)`` returns it ready to run; ``axes`` say which arguments after the
# plan carry a leading axis of restarts.
Call = Callable[..., Callable[..., Any]]


def inline(function: Callable[..., Any], *axes: int | None) -> Callable[..., Any]:
    """Run a part of a step as it is, inside a trace."""
    del axes
    return function


def from_host(batched: bool, effort: Effort = Effort.LESS) -> Call:
    """Run a part of a step compiled by itself, over restarts if ``batched``; ``effort`` as of ``by_plan``."""
    return lambda function, *axes: _compiled(function, axes if batched else None, effort)


@functools.cache
def _compiled(function: Callable[..., Any], axes: tuple[int | None, ...] | None, effort: Effort) -> Callable[..., Any]:
    if axes is None:
        return by_plan(function, effort=effort)

    def mapped(plan: Key, *arguments: Any) -> Any:
        # An argument may be absent (a q that is not held), and then has no axis.
        present = tuple(None if value is None else axis for axis, value in zip(axes, arguments, strict=True))
        return jax.vmap(functools.partial(function, plan), in_axes=present)(*arguments)

    return by_plan(mapped, effort=effort)
