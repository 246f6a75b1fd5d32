"""Arguments of distributions that are index maps of parameters."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True, eq=False)
class Link:
    """The argument ``argument`` of ``site`` as an index map of parameters.

    ``group`` numbers the E entries of the argument, in all components and copies, by the parameter entry they are (-1:
    a constant); ``zero`` marks the constants that are zero; ``source[name]`` says, for every entry of the parameter, at
    which entry of the argument to read it.
    """

    site: str
    argument: str
    shape: tuple[int, ...]
    group: Int[np.ndarray, " E"]
    zero: Bool[np.ndarray, " E"]
    source: Mapping[str, Int[np.ndarray, "..."]]

    @property
    def is_pooled(self) -> bool:
        """Whether several entries of the argument are one entry of a parameter, so that their moments are averaged."""
        linked = self.group[self.group >= 0]
        return len(np.unique(linked)) < len(linked)

    @functools.cached_property
    def members(self) -> Int[np.ndarray, "G m"]:
        """The entries of every group, -1 where a group has fewer than the largest."""
        linked = np.flatnonzero(self.group >= 0)
        linked = linked[np.argsort(self.group[linked], kind="stable")]
        sizes = np.bincount(self.group[linked])
        members = np.full((len(sizes), sizes.max()), -1)
        members[np.arange(sizes.max()) < sizes[:, None]] = linked
        return members
