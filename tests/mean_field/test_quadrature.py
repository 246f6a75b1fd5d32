"""Nodes: what they average exactly, and how far they are off otherwise."""

import numpy as np
import pytest
import scipy.special

from probem.mean_field.quadrature import grid, quasi_random


@pytest.mark.parametrize("num_nodes", [2, 5, 32])
def test_a_rule_of_n_nodes_is_exact_to_degree_2n_minus_1(num_nodes: int) -> None:
    nodes, weights = grid(num_nodes, 1)
    # Beyond degree 12, nodes that are left out would be seen: they have weights below 1e-20.
    degrees = range(min(2 * num_nodes, 12))
    moments = [scipy.special.factorial2(max(degree - 1, 1)) if degree % 2 == 0 else 0.0 for degree in degrees]
    powers = [weights @ nodes[:, 0] ** degree for degree in degrees]
    # Those of an odd degree are differences of numbers as large as the next moment.
    np.testing.assert_allclose(powers, moments, rtol=1e-11, atol=1e-10)
    if num_nodes < 10:
        degree = 2 * num_nodes
        assert weights @ nodes[:, 0] ** degree != pytest.approx(scipy.special.factorial2(degree - 1), rel=1e-3)


def test_a_grid_averages_what_depends_on_two_numbers_together() -> None:
    nodes, weights = grid(32, 2)
    assert len(nodes) < 32**2  # what adds less than rounding is left out
    first, second = nodes.T
    np.testing.assert_allclose(weights @ np.exp(0.3 * first + 0.4 * second), np.exp(0.5 * 0.25), rtol=1e-12)
    np.testing.assert_allclose(weights @ np.exp(0.5 * first * second), 1 / np.sqrt(1 - 0.25), rtol=1e-8)


@pytest.mark.parametrize("dim", [3, 10, 40])
def test_quasi_random_nodes_are_exact_for_quadratic_functions(dim: int) -> None:
    nodes, weights = quasi_random(256, dim)
    assert len(nodes) >= max(256, 8 * dim)
    np.testing.assert_allclose(weights @ nodes, np.zeros(dim), atol=1e-14)
    np.testing.assert_allclose(nodes.T @ (weights[:, None] * nodes), np.eye(dim), atol=1e-12)
    cubes = weights @ nodes**3
    np.testing.assert_allclose(cubes, np.zeros(dim), atol=1e-13)  # every node has its mirror image


def test_more_quasi_random_nodes_are_nearer_and_other_seeds_are_others() -> None:
    slope = np.array([0.5, -0.4, 0.3, 0.2])

    def error(num_draws: int) -> float:
        """The root mean square over randomisations of the error of E exp(slope' u)."""
        errors = []
        for seed in range(20):
            nodes, weights = quasi_random(num_draws, 4, seed)
            errors.append(weights @ np.exp(nodes @ slope) - np.exp(0.5 * slope @ slope))
        return float(np.sqrt(np.mean(np.square(errors))))

    coarse, fine = error(256), error(4096)
    # Independent draws would err by 0.6 / sqrt(J), and gain a factor of 4 here.
    assert coarse < 0.2 * 0.6 / np.sqrt(256)
    assert fine < coarse / 5
    assert not np.array_equal(quasi_random(256, 4, 1)[0], quasi_random(256, 4, 2)[0])
    np.testing.assert_array_equal(quasi_random(256, 4)[0], quasi_random(256, 4)[0])
