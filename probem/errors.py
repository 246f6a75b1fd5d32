"""The two ways in which probem says no: the input is wrong, or the fit ended badly."""

import difflib
from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Input that cannot be used. The message is one sentence: what was given, what was expected, and the remedy.

    Attributes
    ----------
    got, expected, remedy : the parts of the sentence
    """

    def __init__(self, got: str, expected: str, remedy: str) -> None:
        super().__init__(f"got {got}; expected {expected}; {remedy}.")
        self.got, self.expected, self.remedy = got, expected, remedy


class FitError(RuntimeError):
    """A fit that ended in a named result other than convergence.

    Attributes
    ----------
    fit : the last good state, a ``Fit``; the ``ManyFits`` of ``fit_many``, the ``Selection`` of ``select``
    """

    def __init__(self, message: str, fit: Any) -> None:
        super().__init__(message)
        self.fit = fit


def nearest(name: str, names: Iterable[str]) -> str:
    """A remedy for a name that is not known: the nearest right one, or the list of all."""
    names = sorted(names)
    close = [other for other in names if other.casefold() == name.casefold()]
    close = close or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'"
    return "choose one of " + ", ".join(f"'{other}'" for other in names) if names else "there is nothing to choose"
