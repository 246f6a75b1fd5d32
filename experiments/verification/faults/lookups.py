"""Faults of arguments that data look up, and of masks."""

from .fault import Fault

_NO_CLAIM = "the programs of the claims look nothing up, and have no masks"

FAULTS = (
    Fault(
        "a row is in the cell of its last index alone",
        "probem/form/lookups.py",
        "cell = cell * size + jnp.clip(values[:, number], 0, size - 1)",
        "cell = jnp.clip(values[:, number], 0, size - 1)",
        "tests/form/test_lookups.py::test_what_is_looked_up_is_read_off_the_program[by two that are told apart]",
        None,
        _NO_CLAIM,
    ),
    Fault(
        "an event under a mask is there",
        "probem/form/presence.py",
        "here = here & live(masks)(data)[:, :, None]",
        "here = here & (live(masks)(data)[:, :, None] | True)",
        "tests/form/test_lookups.py::test_what_a_mask_leaves_out_is_missing[EM]",
        None,
        _NO_CLAIM,
    ),
    Fault(
        "shares of every document are those of all rows",
        "probem/form/statistics.py",
        "return form.assignment_statistics(term) * event_counts(form, statistics, term)[:, :, None]",
        "return form.assignment_statistics(term) * jnp.broadcast_to("
        "statistics.counts[:, None, None], (len(statistics.counts), term.copies, 1))",
        "tests/form/test_lookups.py::test_full_posteriors_beside_coordinate_ascent_of_latent_dirichlet_allocation",
        None,
        _NO_CLAIM,
    ),
)
