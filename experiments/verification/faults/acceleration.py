"""Faults of what makes fits faster, and of what their end says of the parameters."""

from .fault import Fault

FAULTS = (
    Fault(
        "a move that lowers F is kept",
        "probem/solver/accelerated.py",
        "failed | ~(after.objective >= past.back.last - allowance)",
        "failed",
        "tests/solver/test_acceleration.py::test_a_move_that_lowers_f_is_taken_back",
        ("D4", "overlapping"),
    ),
    Fault(
        "two small rises after a move are taken for the end",
        "probem/solver/accelerated.py",
        "too_early = ended & ~before.settled & ~(left <= allowed)",
        "too_early = ended & ~before.settled & ~(allowed <= allowed)",
        "tests/solver/test_acceleration.py::test_it_ends_where_em_does_in_fewer_steps[ML-acceleration0]",
        None,
        "D4 stops by how far the parameters moved, and not by F",
    ),
    Fault(
        "Anderson's moves go back to the saddle",
        "probem/solver/anderson.py",
        "(move * _finite(residual)).sum() < 0, -move, move",
        "(move * _finite(residual)).sum() < 0, move, move",
        "tests/solver/test_acceleration.py::test_it_ends_where_em_does_in_fewer_steps[MAP-acceleration1]",
        None,
        "D4 begins where no saddle is near",
    ),
    Fault(
        "the observed information is a fifth too small",
        "probem/results/standard_errors.py",
        "-0.5 * (rows + rows.T)",
        "-0.4 * (rows + rows.T)",
        "tests/results/test_standard_errors.py::test_they_are_those_of_numpyros_mixture",
        ("G3", "overlapping"),
    ),
    Fault(
        "the prior is left out of the observed information",
        "probem/results/standard_errors.py",
        "np.asarray(first, float) + np.asarray(second, float)",
        "np.asarray(first, float) + 0 * np.asarray(second, float)",
        "tests/results/test_standard_errors.py::test_map_counts_the_prior",
        None,
        "G3 is about maximum likelihood",
    ),
    Fault(
        "row weights are left out of the observed information",
        "probem/results/standard_errors.py",
        "jnp.where(weights > 0, weights * rows, 0.0)",
        "jnp.where(weights > 0, rows, 0.0)",
        "tests/results/test_standard_errors.py::test_with_weights_and_missing_values",
        None,
        "the rows of G3 have the weight one",
    ),
)
