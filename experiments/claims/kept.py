"""Numbers that a check computed, kept for the figure of the same claim."""

from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from .claim import Dataset

Given = ParamSpec("Given")
Sides = TypeVar("Sides")


class Kept(Generic[Given, Sides]):
    """A computation whose latest result stays at hand.

    A check calls it, and always computes. Its figure asks for ``last``, and so shows the numbers that were checked; it
    computes by itself only where the latest check had other arguments. Arguments are data sets, numbers and
    names.
    """

    def __init__(self, compute: Callable[Given, Sides]) -> None:
        self.compute = compute
        self._latest: tuple[Any, Sides] | None = None

    def __call__(self, *given: Given.args, **named: Given.kwargs) -> Sides:
        sides = self.compute(*given, **named)
        self._latest = _key(*given, **named), sides
        return sides

    def last(self, *given: Given.args, **named: Given.kwargs) -> Sides:
        """The latest result, if it is of these arguments; otherwise computed now."""
        if self._latest is not None and self._latest[0] == _key(*given, **named):
            return self._latest[1]
        return self(*given, **named)


def _key(*given: Any, **named: Any) -> Any:
    return tuple(map(_identity, given)), {name: _identity(value) for name, value in named.items()}


def _identity(value: Any) -> Any:
    return (value.name, value.rows.shape, value.rows.tobytes()) if isinstance(value, Dataset) else value
