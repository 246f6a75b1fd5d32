"""Faults of what is said when a fit ends."""

from .fault import Fault

FAULTS = (
    Fault(
        "only the last rise is promised and not all that would follow",
        "probem/stopping.py",
        "left = size * size / jnp.where(slows, earlier - size, 1.0)",
        "left = size",
        "tests/solver/test_certificate.py::test_the_rises_of_a_geometric_series_add_up_to_what_is_promised",
        None,
        "the fits of the claims are told to go on to the last digits",
    ),
    Fault(
        "a small rise is taken for a maximum",
        "probem/stopping.py",
        "return (self.tolerance > 0) & settled & (progress.promised <= least)",
        "return (self.tolerance > 0) & settled",
        "tests/solver/test_certificate.py::test_what_is_promised_is_what_the_fit_would_have_risen",
        None,
        "the fits of the claims are told to go on to the last digits",
    ),
    Fault(
        "a fall of the bound in an E half-step is passed over",
        "probem/solver/judgement.py",
        "(objective < state.last - allowance) & (is_exact",
        "(objective < state.last - 1e300) & (is_exact",
        "tests/solver/test_loop.py::test_so_is_one_that_falls_in_an_e_half_step",
        None,
        "without another fault no bound falls",
    ),
    Fault(
        "components that are one are not found",
        "probem/solver/certificate.py",
        "np.abs(apart.sum(-1)) <= most",
        "np.abs(apart.sum(-1)) < 0 * most",
        "tests/solver/test_certificate.py::test_components_that_are_one_are_a_saddle",
        None,
        "no claim starts at a saddle",
    ),
    Fault(
        "a probability of zero is not on the edge",
        "probem/solver/certificate.py",
        "return (value <= _EDGE) |",
        "return (value < 0) |",
        "tests/solver/test_certificate.py::test_probabilities_of_zero_and_one_are_on_the_edge",
        None,
        "no claim asks what lies on an edge",
    ),
)
