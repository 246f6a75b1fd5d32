"""What answers about rows, kept for as long as the attributes that it was made from hold the same numbers.

Attributes may be set by hand, and arrays be written to, at any time. So each answer compares what the attributes hold
with what they held, bit by bit; what takes longer, to check what they say and to make a model of it, is done once.

It is kept beside the estimators, and not in them: an answer changes no attribute, and nothing is copied or pickled.
"""

import weakref
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

# Bytes of attributes that are copied to be compared. Of larger ones, to compare them takes no less time than to use
# them.
_MOST_BYTES = 2**24

_MISSING = "no such attribute"


class _Prepared:
    """What was made from attributes, by what else it was made for."""

    def __init__(self, contents: Hashable) -> None:
        self.contents = contents
        self.made: dict[Hashable, Any] = {}


_of_estimators: "weakref.WeakKeyDictionary[Any, _Prepared]" = weakref.WeakKeyDictionary()


class _Unknown(Exception):
    """A value whose content cannot be told."""


def prepared(estimator: Any, names: tuple[str, ...], kind: Hashable, make: Callable[[], T]) -> T:
    """What ``make()`` returns, or returned for this ``kind`` when all attributes of these ``names`` held what they hold
    now. Threads that ask at once may each make it.
    """
    try:
        contents = tuple([_content(getattr(estimator, name, _MISSING)) for name in names])
    except _Unknown:
        return make()
    before = _of_estimators.get(estimator)
    if before is None or before.contents != contents:
        if _size(contents) > _MOST_BYTES:
            _of_estimators.pop(estimator, None)
            return make()
        before = _of_estimators[estimator] = _Prepared(contents)
    if kind not in before.made:
        before.made[kind] = make()
    return before.made[kind]


def _content(value: Any) -> Hashable:
    """Equal for values of the same types and bits."""
    kind = type(value)
    if kind is np.ndarray and value.dtype.kind in "biuf":
        return value.dtype.str, value.shape, value.tobytes()
    if kind in (str, int, bool, type(None)):
        return kind, value
    if kind is float or isinstance(value, np.generic):
        return kind, np.asarray(value).tobytes()
    if kind in (tuple, list):
        return kind, tuple([_content(part) for part in value])
    if isinstance(value, Mapping):
        return kind, tuple([(name, _content(part)) for name, part in value.items()])
    raise _Unknown


def _size(content: Hashable) -> int:
    """Bytes of all numbers in it."""
    if isinstance(content, tuple):
        return sum(map(_size, content))
    return len(content) if isinstance(content, bytes) else 0
