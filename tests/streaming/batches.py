"""Batches of rows, and what a fit says as arrays of NumPy."""

import numpy as np

import probem
from tests.programs.fits import X

CENTRES = np.array([[-3.0, 0.0], [0.5, 4.0], [3.0, -1.0]])
SCALES = np.array([[1.0, 0.5], [0.7, 1.2], [1.0, 1.0]])
WEIGHTS = np.array([0.5, 0.3, 0.2])


def draw(num_rows: int, seed: int) -> np.ndarray:
    """Rows of a known mixture, [N, 2]."""
    random = np.random.default_rng(seed)
    t = random.choice(3, num_rows, p=WEIGHTS)
    return CENTRES[t] + SCALES[t] * random.normal(size=(num_rows, 2))


BATCHES = [X[:40] + 0.3, X[10:85] * 1.1, X[30:37] - 0.2, np.concatenate([X, X + 0.1])]


def numpy_of(fit: probem.Fit) -> dict:
    return {name: np.asarray(value) for name, value in fit.params.items()}


def assert_equal(fit: probem.Fit, params: dict, tolerance: float = 1e-10) -> None:
    for name, value in params.items():
        np.testing.assert_allclose(fit.params[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
