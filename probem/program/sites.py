"""The sites of a program by their roles, and the structure of its data."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.distributions import constraints

#: By site name: the value of a point, the arguments of q of a full posterior.
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A discrete latent site inside the data plate: its values, and the axis ``dim`` along which they are
    enumerated.
    """

    name: str
    support: tuple[int | float, ...]
    dim: int

    @property
    def size(self) -> int:
        return len(self.support)


@dataclasses.dataclass(frozen=True)
class Global:
    """A site outside the data plate: a ``param`` (``has_prior`` False) or a latent ``sample`` site, and where it may
    lie.
    """

    name: str
    shape: tuple[int, ...]
    has_prior: bool
    constraint: constraints.Constraint
    event_ndim: int = 0
    plates: tuple[tuple[str, int, int], ...] = ()

    @contextlib.contextmanager
    def in_plates(self) -> Iterator[None]:
        """Inside its own plates (name, size, dim), for a guide."""
        with contextlib.ExitStack() as stack:
            for name, size, dim in self.plates:
                stack.enter_context(numpyro.plate(name, size, dim=dim))
            yield


@dataclasses.dataclass(frozen=True)
class RowSpec:
    """Structure, trailing shapes and dtypes of the data arguments: all but the number of rows."""

    treedef: Any
    rows: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, data: tuple[Any, ...]) -> "RowSpec":
        leaves, treedef = jax.tree.flatten(data)
        return cls(treedef, tuple((tuple(leaf.shape[1:]), str(leaf.dtype)) for leaf in leaves))

    @property
    def shapes(self) -> tuple[Any, tuple[tuple[int, ...], ...]]:
        """Structure and trailing shapes, whatever the dtypes."""
        return self.treedef, tuple(shape for shape, _ in self.rows)

    def abstract(self, num_rows: int) -> tuple[Any, ...]:
        leaves = [jax.ShapeDtypeStruct((num_rows, *shape), dtype) for shape, dtype in self.rows]
        return jax.tree.unflatten(self.treedef, leaves)

    def zeros(self, num_rows: int) -> tuple[Any, ...]:
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.abstract(num_rows))

    def examples(self) -> list[tuple[Any, ...]]:
        """Three rows that most densities allow: fractions, and where there are whole numbers several patterns of zeros
        and ones, so that each row is once the largest, the smallest and the odd one out.
        """
        whole = any(not np.issubdtype(dtype, np.floating) for _, dtype in self.rows)
        patterns = ((0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1)) if whole else ((0, 1, 0),)

        def values(leaf: Any, pattern: tuple[int, ...]) -> np.ndarray:
            numbers = np.arange(math.prod(leaf.shape)).reshape(leaf.shape)
            if np.issubdtype(leaf.dtype, np.floating):
                return (0.2 + 0.6 * (0.618 * numbers % 1)).astype(leaf.dtype)
            rows = np.array(pattern).reshape(3, *(1,) * (numbers.ndim - 1))
            return ((rows + numbers[:1]) % 2).astype(leaf.dtype)

        return [
            jax.tree.map(lambda leaf, pattern=pattern: values(leaf, pattern), self.abstract(3)) for pattern in patterns
        ]
