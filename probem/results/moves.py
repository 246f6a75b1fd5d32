"""What ``probem.refine`` tried: the record of its moves."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, overload

from probem.runs.text_table import text_table

#: The kinds of moves, in the order in which they are tried.
KINDS = ("relabel", "merge", "delete", "birth")
#: A merge and a birth at once, where no component is empty, or an empty one gains nothing.
SPLIT_MERGE = "merge+birth"


@dataclasses.dataclass(frozen=True)
class Move:
    """A move that was tried. Components have the numbers of the fit before it.

    Attributes
    ----------
    kind : ``"relabel"``, ``"merge"``, ``"delete"``, ``"birth"``, or ``"merge+birth"``
    components : of a merge, the component that keeps its number and the one that is emptied; of a delete, the one whose
        rows went to the others; of a birth, the component that was split and the one that took half of it; of both at
        once these four; of a relabelling, the old number of each component
    elbo_before : F of the fit before it, nats, total over the rows
    elbo_after : F where the iterations from its start ended, were given up, or were better for long enough
    num_steps : the number of E half-steps that it took
    accepted : whether the fit went on from there
    """

    kind: str
    components: tuple[int, ...]
    elbo_before: float
    elbo_after: float
    num_steps: int
    accepted: bool

    @property
    def in_words(self) -> str:
        """What was done with which components."""
        numbers = self.components
        if self.kind == "relabel":
            return "by size"
        if self.kind == "delete":
            return str(numbers[0])
        parts = []
        if self.kind != "birth":
            parts.append(f"{numbers[1]} into {numbers[0]}")
        if self.kind != "merge":
            parts.append(f"{numbers[-2]} to {numbers[-2]}, {numbers[-1]}")
        return "; ".join(parts)


@dataclasses.dataclass(frozen=True)
class Moves(Sequence[Move]):
    """The moves that ``probem.refine`` tried, in order: a sequence of ``Move``; ``str`` of it is a table."""

    tried: tuple[Move, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Move: ...

    @overload
    def __getitem__(self, index: slice) -> "Moves": ...

    def __getitem__(self, index: int | slice) -> "Move | Moves":
        return Moves(self.tried[index]) if isinstance(index, slice) else self.tried[index]

    def __len__(self) -> int:
        return len(self.tried)

    def __iter__(self) -> Iterator[Move]:
        return iter(self.tried)

    @property
    def accepted(self) -> "Moves":
        """Those that the fit went on from."""
        return Moves(tuple(move for move in self.tried if move.accepted))

    def __str__(self) -> str:
        if not self.tried:
            return "no move was tried"
        head = ("move", "components", "F before", "F after", "steps", "accepted")
        lines = [
            (
                move.kind,
                move.in_words,
                f"{move.elbo_before:.3f}",
                f"{move.elbo_after:.3f}",
                str(move.num_steps),
                "yes" if move.accepted else "no",
            )
            for move in self.tried
        ]
        return text_table([head, *lines], "<<>>><")

    def to_lists(self) -> list[list[Any]]:
        """The fields of every move, as JSON has them."""
        return [list(dataclasses.astuple(move)) for move in self.tried]

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[Any]]) -> "Moves":
        """The moves from what ``to_lists`` made of them."""
        return cls(tuple(Move(kind, tuple(components), *others) for kind, components, *others in lists))
