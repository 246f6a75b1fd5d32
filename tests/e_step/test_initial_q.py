"""What q of the rows is at a start from labels."""

import jax.numpy as jnp
import numpy as np

from probem.e_step.initial_q import soften_labels


def test_labels_are_softened_where_the_table_allows_it() -> None:
    table = jnp.array([[0.0, -1.0, -2.0], [0.0, -jnp.inf, 0.0], [-jnp.inf, -jnp.inf, -jnp.inf]])
    q = np.asarray(soften_labels(jnp.array([1, 2, 0]), table))
    left = 0.1 / 3
    np.testing.assert_allclose(q[0], [left, 0.9 + left, left], rtol=1e-14)
    np.testing.assert_allclose(q[1], np.array([left, 0.0, 0.9 + left]) / (1 - left), rtol=1e-14)
    np.testing.assert_allclose(q[2], [1.0, 0.0, 0.0])
