"""Which events of a row there are, as the program says: under a mask some are not, and of those that data look up there
is one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool

from probem.form.layout import mask_of
from probem.form.lookups import Look, Lookup
from probem.jit.live import live
from probem.program.program import Program


@dataclasses.dataclass(frozen=True, eq=False)
class Presence:
    """A copy of an event is there unless a mask says that it is not (``is_masked``), and where its arguments are looked
    up (``lookup``), in the cell of its row alone.
    """

    is_masked: bool
    lookup: Lookup | None = None

    @property
    def num_cells(self) -> int:
        return 1 if self.lookup is None else self.lookup.num_cells

    def arguments(self, look: Look, program: Program, params: Mapping[str, Array]) -> dict[str, Array]:
        """The arguments ``[K, C, ...]`` that ``look`` sees, of every copy in every cell: cells are the last to change
        among the copies.
        """
        assert self.lookup is not None
        cells = self.lookup.arguments(look, program, params)
        moved = {name: jnp.moveaxis(value, 0, 2) for name, value in cells.items()}
        return {name: value.reshape(value.shape[0], -1, *value.shape[3:]) for name, value in moved.items()}

    def here(self, look: Look, program: Program, site: str, copies: int, data: tuple[Any, ...]) -> Bool[Array, "n C"]:
        """Which events of every row there are: copies, and cells in each."""
        here = jnp.ones((1, copies, 1), bool)
        if self.is_masked:
            params = {each.name: jnp.zeros(each.shape) for each in program.globals}

            def masks(data: tuple[Any, ...]) -> Bool[Array, "n C"]:
                trace = program.enumerated_trace(params, data, component=0)
                return mask_of(program, trace[site], copies, (1,) * len(program.assignments))[0]

            here = here & live(masks)(data)[:, :, None]
        if self.lookup is not None:
            cells = self.lookup.cells(look, program, data)
            here = here & (cells[:, :, None] == jnp.arange(self.num_cells))
        return here.reshape(here.shape[0], -1)
