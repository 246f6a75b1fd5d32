"""Which fields of a family are numbers, that functions compiled for it take as arguments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem.families.numbers import lifted_family
from probem.families.posteriors import Dense, softmax

TABLE = np.random.default_rng(0).normal(size=(5, 3))


@dataclasses.dataclass(frozen=True)
class Flattened(probem.families.AssignmentFamily):
    """Of one's own: tempered, with a whole number and a name beside it."""

    beta: float
    power: int = 1
    name: str = "flattened"

    def project(self, table):
        return softmax(self.beta**self.power * table)

    @property
    def entropy_weight(self):
        return self.beta**-self.power


@dataclasses.dataclass(frozen=True)
class Asking(probem.families.AssignmentFamily):
    """It asks whether its number is large."""

    beta: float

    def project(self, table):
        return softmax(table * (self.beta if self.beta < 1 else 1.0))


@dataclasses.dataclass(frozen=True)
class AskingKind(probem.families.AssignmentFamily):
    """It asks what kind of thing its number is, and does something else where that is traced."""

    beta: float

    def project(self, table):
        return softmax(table * (self.beta if isinstance(self.beta, float) else 1.0))


@pytest.mark.parametrize(
    ("family", "names"),
    [
        (probem.Tempered(0.5), ("beta",)),
        (probem.Tempered(2), ()),
        (probem.Tempered(np.float64(0.5)), ("beta",)),
        (probem.Categorical(), ()),
        (probem.TopC(2), ()),
        (Flattened(0.5, 2), ("beta",)),
        (Asking(0.5), ()),
        (AskingKind(1.0), ()),  # agrees by chance
        (AskingKind(0.5), ()),
    ],
    ids=repr,
)
def test_floats_are_numbers_unless_the_family_asks_what_they_are(family, names: tuple[str, ...]) -> None:
    lifted = lifted_family(family, 3)
    assert lifted.names == names
    assert lifted.numbers == tuple(getattr(family, name) for name in names)
    np.testing.assert_array_equal(
        lifted.with_numbers(lifted.numbers).family.project(jnp.asarray(TABLE)).dense(),
        family.project(jnp.asarray(TABLE)).dense(),
    )


def test_the_structure_is_all_but_the_numbers() -> None:
    first = lifted_family(Flattened(0.5, 2), 3)
    assert lifted_family(Flattened(0.7, 2), 3).structure == first.structure
    for other in (Flattened(0.5, 1), Flattened(0.5, 2, "other"), probem.Tempered(0.5)):
        assert lifted_family(other, 3).structure != first.structure
    assert lifted_family(Asking(0.5), 3).structure != lifted_family(Asking(0.7), 3).structure


def test_with_a_traced_number_it_is_the_family_with_that_number() -> None:
    lifted = lifted_family(Flattened(0.5, 2), 3)

    def project(beta) -> Dense:
        return lifted.with_numbers((beta,)).family.project(jnp.asarray(TABLE))

    for beta in (0.5, 0.8):
        np.testing.assert_allclose(
            jax.jit(project)(beta).q, Flattened(beta, 2).project(jnp.asarray(TABLE)).q, rtol=1e-14
        )
