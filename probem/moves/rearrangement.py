"""What a move does to the components, on their shares of the rows and on their statistics alike."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Rearrangement(NamedTuple):
    """Components merged, split and put into another order, in this sequence.

    ``merge`` is the component that is kept and the one that is emptied into it, ``split`` the component that is split
    and the empty one that takes a part of it, ``order`` the old number of each.
    """

    merge: tuple[int, int] | None = None
    split: tuple[int, int] | None = None
    order: tuple[int, ...] | None = None

    def of(
        self, values: Float[np.ndarray, "K ..."], part: Float[np.ndarray, "..."] | None
    ) -> Float[np.ndarray, "K ..."]:
        """Additive values of the components after it; ``part`` is what is split off."""
        made = values.copy()
        if self.merge is not None:
            kept, emptied = self.merge
            made[kept] += made[emptied]
            made[emptied] = 0.0
        if self.split is not None:
            assert part is not None
            component, empty = self.split
            made[empty] = made[empty] + part
            made[component] -= part
        return made if self.order is None else made[list(self.order)]


def by_size(counts: Float[np.ndarray, " K"], movable: np.ndarray) -> tuple[int, ...]:
    """The order in which the components that are ``movable`` come largest first, and the others stay."""
    order = np.arange(len(counts))
    places = np.flatnonzero(movable)
    order[places] = places[np.argsort(-counts[places], kind="stable")]
    return tuple(int(place) for place in order)
