"""Computing in the precision of the data, whatever the process is set to, one thread at a time."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

# NumPyro has one stack of handlers for all threads.
_ALONE = threading.RLock()


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """float64 for what is float64; the setting of the process stays as it is."""
    with _ALONE, jax.enable_x64(True) if np.dtype(dtype) == np.float64 else contextlib.nullcontext():
        yield
