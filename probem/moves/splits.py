"""How the rows of a component fall into two: by 2-means along its first principal axis."""

import numpy as np
from jaxtyping import Bool, Float

_ROUNDS = 20
# The least share of a row for which it counts as one of the component.
_LEAST = 0.05


def two_means(rows: Float[np.ndarray, "N F"], weights: Float[np.ndarray, " N"]) -> tuple[Bool[np.ndarray, " N"], float]:
    """Which rows are on the second side, and the share of the variance that the two means explain.

    Columns are in units of their standard deviation among these rows; NaN is a value that is missing, at the mean.
    """
    side = np.zeros(len(rows), bool)
    chosen = np.flatnonzero(weights > _LEAST)
    if len(chosen) < 2:
        return side, 0.0
    values, counts = rows[chosen], weights[chosen]
    seen = ~np.isnan(values)
    total = np.maximum(counts @ seen, np.finfo(float).tiny)
    centred = np.where(seen, values - (counts @ np.where(seen, values, 0.0)) / total, 0.0)
    spread = np.sqrt(counts @ centred**2 / total)
    centred = centred / np.where(spread > 0, spread, 1.0)
    if not np.isfinite(centred).all() or not centred.any():
        return side, 0.0
    axis = _principal_axis(centred, counts)
    here = centred @ axis > 0
    for _ in range(_ROUNDS):
        if here.all() or not here.any():
            return side, 0.0
        means = [counts[part] @ centred[part] / counts[part].sum() for part in (~here, here)]
        closer = (centred @ (means[1] - means[0])) > 0.5 * (means[1] @ means[1] - means[0] @ means[0])
        if (closer == here).all():
            break
        here = closer
    if here.all() or not here.any():
        return side, 0.0
    sizes = np.array([counts[~here].sum(), counts[here].sum()])
    between = sizes.prod() / sizes.sum() * ((means[1] - means[0]) ** 2).sum()
    side[chosen[here]] = True
    return side, float(between / (counts @ centred**2).sum())


def _principal_axis(centred: Float[np.ndarray, "n F"], counts: Float[np.ndarray, " n"]) -> Float[np.ndarray, " F"]:
    """The direction of the largest variance, by power iteration: no F x F matrix is formed."""
    axis = np.random.default_rng(0).standard_normal(centred.shape[1])
    for _ in range(_ROUNDS):
        axis = centred.T @ (counts * (centred @ axis))
        axis = axis / np.maximum(np.linalg.norm(axis), np.finfo(float).tiny)
    return axis
