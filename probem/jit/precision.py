"""Computing in the precision of the data, whatever the process is set to."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@contextlib.contextmanager
def precision(dtype: Any) -> Iterator[None]:
    """float64 for what is float64, in this thread; the setting of the process stays as it is."""
    with jax.enable_x64(True) if np.dtype(dtype) == np.float64 else contextlib.nullcontext():
        yield


def in_jax(leaf: Any) -> Array:
    """``jnp.asarray``, which takes longer to see that an array is one of JAX than an answer about few rows takes."""
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
