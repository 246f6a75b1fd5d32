"""Many data sets of one shape, and a start for each."""

import jax
import numpy as np

from tests.programs import fits

# More data sets than go side by side, and the last group of them is not full.
NUM_SETS, NUM_ROWS = 11, 90
RANDOM = np.random.default_rng(2)
DATA = fits.X[RANDOM.integers(0, 90, (NUM_SETS, NUM_ROWS))] + 0.1 * RANDOM.normal(size=(NUM_SETS, NUM_ROWS, 2))
WEIGHTS = RANDOM.integers(0, 3, (NUM_SETS, NUM_ROWS)).astype(float)
START = {"loc": DATA[:, :2], "scale": np.full((NUM_SETS, 2, 2), 1.5), "weights": np.full((NUM_SETS, 2), 0.5)}
KEYS = jax.random.split(jax.random.key(4), NUM_SETS)
