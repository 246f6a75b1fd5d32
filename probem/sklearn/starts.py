"""Where the Gaussian mixtures start by default: at the clusters of k-means."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import Array

from probem import models
from probem.families import Delta
from probem.fit import fit
from probem.initialization import Labels
from probem.many import fit_many


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """An initialiser of the engine: the labels of k-means on the rows ``as_given`` [N, D]."""

    num_components: int
    as_given: Callable[[Any], np.ndarray]
    row_weights: np.ndarray | None
    labels: np.ndarray | None

    def __call__(self, key: Array, rows: Array) -> Labels:
        given = self.as_given(rows)
        options = {"row_weights": self.row_weights, "labels": self.labels, "progress": False}
        return Labels(fit(self._program, given, key=key, **self._settings, **options).predict(given))

    @classmethod
    def side_by_side(cls, starts: Sequence["Clusters"], keys: Array, rows: np.ndarray) -> Labels:
        """The same of many data sets, ``[B, N]``."""
        first = starts[0]
        given = np.stack([start.as_given(own) for start, own in zip(starts, rows, strict=True)])
        options: dict[str, Any] = {
            name: None if getattr(first, name) is None else np.stack([getattr(start, name) for start in starts])
            for name in ("row_weights", "labels")
        }
        return Labels(fit_many(first._program, given, key=keys, **first._settings, **options).predict(given))

    @property
    def _program(self) -> Callable[..., Any]:
        return functools.partial(models.kmeans, num_components=self.num_components)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"families": {"t": Delta(fill_empty=True)}, "max_steps": 300, "throw": False}
