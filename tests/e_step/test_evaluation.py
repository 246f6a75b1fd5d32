"""The table of log joints in each of the forms that it is computed in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probem.e_step.evaluation import log_joints
from probem.families.posteriors import lowest_argmax


@pytest.mark.parametrize("shape", [(50, 2, 3), (50, 16, 8), (50, 17, 8), (50, 8, 33)])
@pytest.mark.parametrize("is_stored", [True, False])
def test_log_joints_are_products_of_statistics_and_natural_parameters(
    shape: tuple[int, int, int], is_stored: bool
) -> None:
    """Entry by entry or by a matrix product, with impossible components and ties."""
    (num_rows, columns, count), random = shape, np.random.default_rng(0)
    phi, weight, offset = random.normal(size=(num_rows, columns)), random.normal(size=(count, columns)), np.zeros(count)
    weight[-1], phi[:5] = weight[0], 0.0
    weight[1, 0], phi[5:9, 0] = -np.inf, 0.0
    table = np.empty((num_rows, count))
    for row in range(num_rows):
        for component in range(count):
            terms = [0.0 if x == 0 else x * w for x, w in zip(phi[row], weight[component], strict=True)]
            table[row, component] = sum(terms) + offset[component]
    given = jnp.asarray(phi), jnp.asarray(weight), jnp.asarray(offset)
    got = np.asarray(log_joints(*given, is_stored))
    possible = np.isfinite(table)
    # The sums of 17 products in another order.
    np.testing.assert_allclose(got[possible], table[possible], rtol=1e-12, atol=1e-13)
    assert (np.abs(got[~possible]) > 1e150).all()
    best = jax.jit(lambda *parts: lowest_argmax(log_joints(*parts, is_stored)))(*given)
    np.testing.assert_array_equal(best, np.nan_to_num(table, posinf=1e300, neginf=-1e300).argmax(1))
