"""Sums and ranges over rows, in pieces that the cache holds and many rows side by side."""

import functools
import math

import numpy as np
import pytest

from probem.sklearn.rows import mean_variance, squared_distances, unit


@pytest.mark.parametrize("shape", [(1, 1), (1000, 3), (129, 200), (7, 600), (70_000, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("has_gaps", [False, True])
def test_reductions_over_rows_are_those_of_plain_numpy(shape: tuple[int, int], dtype: str, has_gaps: bool) -> None:
    """In pieces, or many rows side by side, of numbers whose squares are too small or too large."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, shape[0]).astype(np.int32)
    weights = random.integers(0, 3, shape[0]).astype(float)
    for scale in (1.0, 2.0**60, 2.0**-60) if dtype == "float32" else (1.0, 2.0**400, 2.0**-400):
        rows = (scale * (3.0 + random.normal(size=shape))).astype(dtype, order=random.choice(["C", "F"]))
        places = (scale * random.normal(size=(5, shape[1]))).astype(dtype)
        if has_gaps and shape[0] > 1:
            rows[random.random(shape) < 0.2] = np.nan
        exact = rows.astype(np.longdouble)
        moved = (rows - places[labels]).astype(np.longdouble)
        # As many roundings as a sum of squares has in this precision, of numbers of one sign.
        close = functools.partial(np.testing.assert_allclose, rtol=8 * np.finfo(dtype).eps)
        close(squared_distances(rows, places, labels) / scale / scale, np.nansum((moved / scale) ** 2))
        weighted = np.nansum(weights[:, None] * (moved / scale) ** 2)
        close(squared_distances(rows, places, labels, weights) / scale / scale, weighted)
        variance = np.mean(np.nanvar(exact / scale, axis=0))
        np.testing.assert_allclose(
            mean_variance(rows) / scale / scale, variance, rtol=1e-10 if dtype == "float64" else 1e-4
        )
        largest = float(np.nanmax(np.nanmax(exact, axis=0) - np.nanmin(exact, axis=0)))
        assert unit(rows) == (2.0 ** math.frexp(largest)[1] if largest else 1.0)
