"""Rows in the dtypes and shapes of those that were fitted."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from probem.errors import InputError
from probem.program.sites import RowSpec


def as_fitted(data: tuple[Any, ...], spec: RowSpec) -> tuple[Any, ...]:
    """The data in the dtypes of those fitted; numbers of another kind, or rows of another shape, are refused."""
    leaves, treedef = jax.tree.flatten(data)
    if treedef == spec.treedef and all(
        leaf.shape[1:] == shape and leaf.dtype == dtype for leaf, (shape, dtype) in zip(leaves, spec.rows, strict=True)
    ):
        return data
    given = RowSpec.of(data)
    dtypes = [(given_dtype, dtype) for (_, given_dtype), (_, dtype) in zip(given.rows, spec.rows, strict=False)]
    if given.shapes != spec.shapes or not all(np.can_cast(*pair, "same_kind") for pair in dtypes):
        remedy = "match them" if given.shapes != spec.shapes else "fit float rows, which can hold whole numbers and NaN"
        raise InputError(f"data of row shapes {_shapes(given)}", f"{_shapes(spec)} as fitted", remedy)
    leaves = [_cast(leaf, np.dtype(dtype)) for leaf, (_, dtype) in zip(jax.tree.leaves(data), spec.rows, strict=True)]
    return jax.tree.unflatten(spec.treedef, leaves)


def _cast(leaf: Any, dtype: np.dtype) -> Any:
    if leaf.dtype == dtype or isinstance(leaf, Tracer):
        return leaf.astype(dtype)
    with np.errstate(over="ignore"):
        cast = np.asarray(leaf).astype(dtype)
    kept = np.isfinite(cast) if np.issubdtype(dtype, np.floating) else cast == np.asarray(leaf)
    if not kept.all():
        raise InputError(
            f"{leaf.dtype} values beyond the range of {dtype}", f"values that {dtype}, as fitted, can hold", "rescale"
        )
    return cast


def _shapes(spec: RowSpec) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in spec.rows)
