"""The number that stands for infinity where zero times it has to be zero."""

from typing import Any

import jax.numpy as jnp


def impossible(dtype: Any) -> float:
    """The size that stands for an infinite natural parameter in a matrix product, where zero times it must be zero.

    Near the largest number of the dtype: no log density of rows whose squares are finite comes so far, in any unit.
    """
    return float(jnp.finfo(dtype).max) / 2**10
