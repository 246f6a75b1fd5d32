"""What is compiled for a rule of stopping, or an acceleration, is not run for another."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import probem
from probem.solver.state import Limits
from probem.stopping import BoundChange, ParameterShift, RelativeRise, Stopping
from tests.programs.fits import PROGRAM, X


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AtOnce(Stopping):
    """With the one field of two rules of the library."""

    tolerance: float

    def after(self, progress):
        return jnp.asarray(True)


RULES = (RelativeRise(1e-3), ParameterShift(1e-3), AtOnce(1e-3), BoundChange(1e-3), Stopping())


@pytest.mark.parametrize("first", RULES, ids=lambda rule: type(rule).__name__)
def test_trees_of_two_rules_differ(first):
    """Trees of dataclasses with equal fields are equal for jaxlib, whatever their classes."""
    for second in RULES:
        trees = [jax.tree.structure(Limits.of(rule, jnp.asarray(9))) for rule in (first, second)]
        assert (trees[0] == trees[1]) == (first is second)
    other = jax.tree.structure(Limits.of(dataclasses.replace(first), jnp.asarray(8)))
    assert other == jax.tree.structure(Limits.of(first, jnp.asarray(9)))


def test_trees_of_two_rules_of_one_name_inside_a_rule_differ():
    """A cell of a notebook that is run twice makes a class twice."""

    def made():
        @jax.tree_util.register_dataclass
        @dataclasses.dataclass(frozen=True)
        class Mine(Stopping):
            tolerance: float

        return Mine(1e-3)

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Either(Stopping):
        first: Stopping
        second: Stopping

    first, second = (Limits.of(Either(Stopping(), made()), jnp.asarray(9)) for _ in range(2))
    assert jax.tree.structure(first) != jax.tree.structure(second)


def test_rules_with_equal_fields_end_fits_each_in_its_own_way():
    steps = [
        probem.fit(PROGRAM, X, tolerance=rule, throw=False).num_steps
        for rule in (RelativeRise(1e-10), AtOnce(1e-10), ParameterShift(1e-10))
    ]
    assert steps[1] < min(steps[0], steps[2])
