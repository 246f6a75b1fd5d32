"""Sixteen data sets on which the estimators and scikit-learn start from the same place.

They come in four shapes, so that what is compiled for one serves the others.
"""

from collections.abc import Callable

import numpy as np
from sklearn import datasets

from probem.experiments.claims.datasets import load

#: Group -> number of columns and of components.
SHAPES = {"A": (2, 2), "B": (4, 3), "C": (13, 3), "D": (10, 10)}


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def clusters(seed: int, dim: int, count: int, rows: int, distance: float) -> np.ndarray:
    """Clusters of unequal weight and shape, their centres ``distance`` standard deviations from the middle or so."""
    generator = _generator(seed)
    centres = distance * generator.standard_normal((count, dim))
    shapes = generator.standard_normal((count, dim, dim)) / np.sqrt(dim) + np.eye(dim)
    labels = np.repeat(
        np.arange(count), generator.multinomial(rows - 20 * count, generator.dirichlet([3.0] * count)) + 20
    )
    return centres[labels] + np.einsum("nde,ne->nd", shapes[labels], generator.standard_normal((rows, dim)))


def far_away() -> np.ndarray:
    """A million standard deviations from the origin, in multiples of 2^-20: the offset is added without rounding."""
    rows = np.round(clusters(5, 2, 2, 300, 3.0) * 2.0**20) / 2.0**20
    return rows + OFFSET


OFFSET = np.array([2.0**21, -(2.0**21)])


def grid() -> np.ndarray:
    """Whole numbers, every row several times: distances are tied all over."""
    return _generator(9).integers(-2, 3, (400, 4)).astype(float)


def digits() -> np.ndarray:
    """The ten pixels of digits that vary most."""
    rows = datasets.load_digits(return_X_y=True)[0]
    return rows[:, np.argsort(rows.var(axis=0))[-10:]]


#: Name -> group, real or not, and rows.
SETS: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
    "old faithful": ("A", lambda: load("old_faithful").rows),
    "iris": ("B", lambda: datasets.load_iris(return_X_y=True)[0]),
    "wine": ("C", lambda: datasets.load_wine(return_X_y=True)[0]),
    "breast cancer": ("D", lambda: datasets.load_breast_cancer(return_X_y=True)[0][:, :10]),
    "digits": ("D", digits),
    "diabetes": ("D", lambda: datasets.load_diabetes(return_X_y=True)[0]),
    "two blobs": ("A", lambda: clusters(1, 2, 2, 400, 4.0)),
    "one blob": ("A", lambda: _generator(2).standard_normal((300, 2))),
    "scales": ("A", lambda: clusters(3, 2, 2, 300, 2.0) * [1e-3, 1e4]),
    "far away": ("A", far_away),
    "overlap": ("B", lambda: clusters(6, 4, 3, 500, 0.7)),
    "heavy tails": ("B", lambda: _generator(7).standard_t(3.0, (400, 4))),
    "grid": ("B", grid),
    "thirteen columns": ("C", lambda: clusters(10, 13, 3, 600, 1.0)),
    "many clusters": ("D", lambda: clusters(11, 10, 10, 1500, 2.0)),
    "unequal scales": ("D", lambda: clusters(12, 10, 10, 1200, 3.0) * 10.0 ** np.linspace(-2, 2, 10)),
}


def rows_of(name: str) -> np.ndarray:
    return np.ascontiguousarray(SETS[name][1](), dtype=float)


def count_of(name: str) -> int:
    return SHAPES[SETS[name][0]][1]


def starting_rows(name: str, seed: int) -> np.ndarray:
    """A distinct row for every component, drawn at random; whole numbers are moved a little, which breaks all ties."""
    distinct, generator = np.unique(rows_of(name), axis=0), _generator(seed)
    start = distinct[generator.permutation(len(distinct))[: count_of(name)]]
    return start + 0.01 * generator.standard_normal(start.shape) if name == "digits" else start


def residual(ours: object, theirs: object) -> float:
    """The largest difference, relative to the largest entry."""
    a, b = np.asarray(ours, float), np.asarray(theirs, float)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(float).tiny)) if a.size else 0.0
