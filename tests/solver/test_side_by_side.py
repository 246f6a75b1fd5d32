"""How many fits are computed side by side, and that each is what it would be alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probem.solver.side_by_side import batch_size, in_batches, whole_batch_size


@pytest.mark.parametrize(
    ("num_fits", "num_rows", "size"),
    [(20, 20000, 1), (20, 200, 20), (20, 400, 10), (7, 800, 1), (3, 100, 3), (64, 10, 64), (100, 1, 50)],
)
def test_restarts_run_in_batches_that_are_full(num_fits, num_rows, size):
    """4096 rows and 64 fits at most; the numbers of fits that divide 100 and are no more than 64 end with 50."""
    assert whole_batch_size(num_fits, num_rows) == size


def test_on_another_device_all_restarts_run_at_once(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert whole_batch_size(20, 20000) == 20


def test_data_sets_run_in_batches_of_a_power_of_two():
    assert [batch_size(*arguments) for arguments in ((1000, 200), (1000, 1), (3, 100), (5, 5000))] == [16, 64, 2, 1]


@pytest.mark.parametrize("size", [1, 3, 6])
def test_batches_answer_for_every_fit_in_its_place(size):
    arguments = jnp.arange(12.0).reshape(6, 2), {"shift": jnp.arange(6)}

    def function(each):
        rows, named = each
        return rows.sum() + 100.0 * named["shift"], rows

    total, rows = in_batches(function, size, arguments)
    np.testing.assert_array_equal(total, arguments[0].sum(1) + 100.0 * np.arange(6))
    np.testing.assert_array_equal(rows, arguments[0])
