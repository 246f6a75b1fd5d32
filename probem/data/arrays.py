"""Whatever a caller gives as numbers, as an array of real numbers, or one sentence about what it is instead."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from probem.errors import InputError


def numeric(value: Any, what: str, expected: str = "numbers") -> Array | np.ndarray:
    """``value`` as a NumPy array of real numbers; JAX's arrays, traced ones among them, stay what they are.

    What a masked array masks is missing: NaN.

    Raises
    ------
    InputError
        For text, Python objects, complex numbers, and lists whose rows differ in length.
    """
    if isinstance(value, jax.Array):
        if not (jnp.issubdtype(value.dtype, jnp.bool_) or jnp.issubdtype(value.dtype, jnp.integer)):
            _check(value, what, expected, jnp.issubdtype(value.dtype, jnp.floating), "convert it to real numbers")
        return value
    if isinstance(value, np.ma.MaskedArray):
        masked = np.ma.getmaskarray(value)
        value = np.where(masked, np.nan, value.data) if masked.any() else value.data
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        raise InputError(
            f"{what} as a {type(value).__name__} that is no array",
            "numbers, the same count in every row",
            "pad or cut the rows, and stack traced values with jax.numpy.stack",
        ) from None
    remedy = "select or encode the text columns first" if what == "data" else "convert it first"
    if array.dtype.kind == "O":
        remedy = "convert it with .astype(float), in which None is NaN"
    _check(
        array,
        what,
        expected,
        array.dtype.kind in "biuf",
        remedy,
        f" ({type(value).__name__})" if what == "data" else "",
    )
    # FITS and NetCDF files hold bytes in the other order, which JAX takes no arrays of.
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _check(array: Array | np.ndarray, what: str, expected: str, real: bool, remedy: str, kind: str = "") -> None:
    if not real:
        raise InputError(f"{what} of type {array.dtype}{kind}", expected, remedy)
