"""Where the Gaussian mixtures start by default: at the clusters of k-means."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray, Shaped

from probem import models
from probem.families import Delta
from probem.fitting.fit import fit
from probem.many.fit_many import fit_many
from probem.solver.initialisers import Labels


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
    """An initialiser of the engine: the labels of k-means on the rows ``as_given``.

    ``anchors`` are centres that stay where they are, NaN where there is none.
    """

    num_components: int
    as_given: Callable[[np.ndarray], np.ndarray]
    row_weights: Float[np.ndarray, " N"] | None
    labels: Shaped[np.ndarray, " N"] | None
    anchors: Float[np.ndarray, "K D"] | None = None

    def __call__(self, key: PRNGKeyArray, rows: Float[Array | np.ndarray, "N D"]) -> Labels:
        given, options = self._problem(np.asarray(rows))
        clusters = fit(self._program, given, key=key, progress=False, **self._settings, **options)
        return Labels(clusters.predict(given)[: len(rows)])

    @classmethod
    def side_by_side(
        cls, starts: Sequence["Clusters"], keys: Key[Array, " B"], rows: Float[np.ndarray, "B N D"]
    ) -> Labels:
        """The labels ``[B, N]`` of k-means on many data sets, side by side."""
        first = starts[0]
        if first.anchors is not None:
            # Each has a scale of its own, and its centres in it.
            alone = [start(key, table) for start, key, table in zip(starts, keys, rows, strict=True)]
            return Labels(np.stack([labels.values for labels in alone]))
        problems = [start._problem(table) for start, table in zip(starts, rows, strict=True)]
        given = np.stack([table for table, _ in problems])
        options: dict[str, Any] = {
            name: None if value is None else np.stack([arguments[name] for _, arguments in problems])
            for name, value in problems[0][1].items()
        }
        return Labels(fit_many(first._program, given, key=keys, **first._settings, **options).predict(given))

    def _problem(self, rows: Float[np.ndarray, "N D"]) -> tuple[Float[np.ndarray, "M D"], dict[str, Any]]:
        """Rows, and what ``fit`` is told of them. An anchor is a row more, known to be of its component: its seed."""
        weights, labels = self.row_weights, self.labels
        if self.anchors is None:
            return self.as_given(rows), {"row_weights": weights, "labels": labels}
        which = np.flatnonzero(~np.isnan(self.anchors).any(1))
        given = self.as_given(np.concatenate([rows, self.anchors[which]]))
        centres = np.full(self.anchors.shape, np.nan)
        centres[which] = given[len(rows) :]
        return given, {
            "row_weights": None if weights is None else np.append(weights, np.ones(len(which))),
            "labels": np.append(np.full(len(rows), -1) if labels is None else labels, which),
            "fixed": {"loc": centres},
        }

    @property
    def _program(self) -> Callable[..., Any]:
        return functools.partial(models.kmeans, num_components=self.num_components)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"families": {"t": Delta(fill_empty=True)}, "max_steps": 300, "throw": False}
