"""DP-means as a plain loop in NumPy. Nothing here knows of probem's engine.

Source: Kulis & Jordan (2012), Revisiting k-means: new algorithms via Bayesian nonparametrics, algorithm 1.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pass:
    """One pass over the rows: labels ``[N]``, the centres ``[K, D]`` they average to, and the objective under both."""

    labels: np.ndarray
    centres: np.ndarray
    objective: float


def dp_means(rows: np.ndarray, penalty: float, max_passes: int = 1000) -> tuple[Pass, ...]:
    """One cluster at the mean of all rows; then passes over the rows in order, until one changes no label.

    A row goes to the nearest centre, of several the lowest index. If its squared distance to every centre exceeds the
    penalty, it opens a cluster at once, last in number, with itself as the centre. After a pass centres become means.
    The paper does not say what becomes of a cluster without rows: here it is dropped, and those after it move up.
    The objective sum_n ‖x_n - mu_(t_n)‖² + penalty K never rises.
    """
    centres, labels, passes = rows.mean(axis=0, keepdims=True), np.zeros(len(rows), dtype=int), []
    while len(passes) < max_passes:
        before, opened = labels, list(centres)
        labels = np.zeros(len(rows), dtype=int)
        for n, row in enumerate(rows):
            distances = [((row - centre) ** 2).sum() for centre in opened]
            labels[n] = np.argmin(distances)
            if min(distances) > penalty:
                labels[n] = len(opened)
                opened.append(row)
        labels = np.unique(labels, return_inverse=True)[1]
        centres = np.stack([rows[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
        objective = ((rows - centres[labels]) ** 2).sum() + penalty * len(centres)
        passes.append(Pass(labels, centres, float(objective)))
        if np.array_equal(labels, before):
            break
    return tuple(passes)
