"""What JAX's primitives make of values, and where they put entries, without compiling each of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal


def gathered_from(shape: tuple[int, ...], indices: np.ndarray, params: Mapping[str, Any]) -> np.ndarray:
    """Where, in an array of this shape laid out flat, a gather takes every entry of its result from; -1 outside."""
    numbers, sizes, mode = params["dimension_numbers"], params["slice_sizes"], str(params["mode"])
    batch = indices.shape[:-1]
    start = np.zeros((*batch, len(shape)), np.int64)
    start[..., list(numbers.start_index_map)] = indices
    for dim, axis in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        start[..., dim] = np.arange(batch[axis]).reshape(-1, *(1,) * (len(batch) - axis - 1))
    last = np.array(shape) - np.array(sizes)
    outside = ((start < 0) | (start > last)).any(-1)
    start = np.clip(start, 0, np.maximum(last, 0))
    kept = [
        dim for dim in range(len(shape)) if dim not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    ]
    place = start @ np.array([math.prod(shape[dim + 1 :]) for dim in range(len(shape))], np.int64)
    for dim in kept:
        place = place[..., None] + math.prod(shape[dim + 1 :]) * np.arange(sizes[dim])
    if "CLIP" not in mode:
        place = np.where(outside.reshape(*outside.shape, *(1,) * len(kept)), -1, place)
    return np.moveaxis(place, range(len(batch), place.ndim), numbers.offset_dims)


def _broadcast(params: Mapping[str, Any], array: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], array.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(array.reshape(shape), params["shape"])


def _sliced(params: Mapping[str, Any], array: np.ndarray) -> np.ndarray:
    steps = params["strides"] or (1,) * array.ndim
    return array[tuple(map(slice, params["start_indices"], params["limit_indices"], steps))]


# Primitives that put the entries of their operands into other places, of values and of expressions alike.
PLACED: dict[str, Callable[..., np.ndarray]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda params, *arrays: np.concatenate(arrays, params["dimension"]),
    "reshape": lambda params, array: array.reshape(params["new_sizes"]),
    "rev": lambda params, array: np.flip(array, params["dimensions"]),
    "slice": _sliced,
    "squeeze": lambda params, array: np.squeeze(array, tuple(params["dimensions"])),
    "transpose": lambda params, array: array.transpose(params["permutation"]),
}
# Of values, what indices are made of: JAX would compile each of them.
_VALUES: dict[str, Callable[..., Any]] = {
    "add": np.add, "convert_element_type": np.array, "eq": np.equal, "ge": np.greater_equal, "gt": np.greater,
    "le": np.less_equal, "lt": np.less, "mul": np.multiply, "ne": np.not_equal, "neg": np.negative, "sub": np.subtract,
}  # fmt: skip


def evaluated(equation: Any, operands: list[Any]) -> list[Any]:
    """What an equation makes of values."""
    name, params, out = equation.primitive.name, equation.params, equation.outvars[0].aval
    plain = all(isinstance(operand, np.ndarray | np.generic | float | int) for operand in operands)
    if name == "iota":
        return [np.broadcast_to(_along(np.arange(out.shape[params["dimension"]]), params["dimension"], out), out.shape)]
    if plain and name in PLACED and all(np.ndim(operand) for operand in operands):
        return [PLACED[name](params, *map(np.asarray, operands))]
    if plain and name in _VALUES:
        return [_VALUES[name](*operands).astype(out.dtype)]
    if plain and name == "select_n" and np.asarray(operands[0]).dtype == bool:
        return [np.where(operands[0], operands[2], operands[1])]
    if plain and name == "gather" and not params.get("fill_value"):
        where = gathered_from(np.shape(operands[0]), np.asarray(operands[1]), params)
        if (where >= 0).all():
            return [np.asarray(operands[0]).ravel()[where]]
    made = bound(equation, operands)
    return [each if jnp.issubdtype(each.dtype, jax.dtypes.extended) else np.asarray(each) for each in made]


def needed(jaxpr: Any) -> list[Any]:
    """The equations that the results follow from."""
    wanted = {atom for atom in jaxpr.outvars if not isinstance(atom, Literal)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if not wanted.isdisjoint(equation.outvars):
            equations.append(equation)
            wanted |= {atom for atom in equation.invars if not isinstance(atom, Literal)}
    return equations[::-1]


def _along(values: np.ndarray, axis: int, out: Any) -> np.ndarray:
    return values.astype(out.dtype).reshape(-1, *(1,) * (len(out.shape) - axis - 1))


def bound(equation: Any, operands: list[Any]) -> list[Any]:
    """What JAX makes of values."""
    made = equation.primitive.bind(*map(jnp.asarray, operands), **equation.primitive.get_bind_params(equation.params))
    return list(made) if equation.primitive.multiple_results else [made]


def moved(equation: Any, operands: list[Any]) -> list[Any]:
    """What JAX makes of positions in the place of the entries that an equation moves."""
    if equation.primitive.name != "scatter":
        return bound(equation, operands)
    # As it was traced, it is for the dtype of the entries.
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return [jax.lax.scatter(*operands, **{name: equation.params[name] for name in names})]
