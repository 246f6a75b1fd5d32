"""Programs are traced by one thread at a time; what is compiled from them runs side by side.

NumPyro keeps one stack of handlers, and one switch for its checks of values, for all threads of a process: two that
trace at once would read each other's sites. Whatever of probem runs a program holds ``HANDLERS`` while it does.

Nothing else is done under it. JAX lets a thread wait for another that traces the same function, so code that is
compiled, and may have to be traced first, is never called while holding it.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpyro
from numpyro import handlers

#: Held by the thread that uses NumPyro's handlers; re-entrant, as a program may ask for a program.
HANDLERS = threading.RLock()


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """NumPyro for this thread alone, without its checks of values.

    Padding, probes with NaN, and a log density of minus infinity are all meant; the checks would object.
    """
    with HANDLERS, numpyro.validation_enabled(False):
        yield


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """NumPyro for this thread alone, without its checks and without the handlers around the caller: what a program is
    does not depend on where it is read.
    """
    with unchecked(), handlers.block():
        yield


class kept(functools.cached_property[Any]):
    """A property that is worked out once for an object, perhaps twice if two threads ask at once.

    That of Python 3.11 holds one lock for all objects of a class while it is worked out, and one that traces a program
    waits for other locks meanwhile.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__(function)
        self.lock = contextlib.nullcontext()
