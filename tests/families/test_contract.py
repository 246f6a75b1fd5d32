"""What a family of a user's own says of itself is held against its projection."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probem
from probem import InputError
from probem.families import AssignmentFamily, Dense, Point
from probem.families.choice import choose_families
from probem.program.reading import read
from tests.programs.examples import EXAMPLES
from tests.programs.fits import KMEANS, X


def family(project, **claims):
    """A family by its projection and its claims."""
    own = type("Mine", (AssignmentFamily,), {"project": lambda self, table: project(table), **claims})
    return dataclasses.dataclass(frozen=True)(own)()


def dense(q):
    return Dense(q, jnp.log(jnp.where(q > 0, q, 1.0)))


def soft(table, beta=1.0):
    return jax.nn.softmax(beta * table, axis=1)


def best_two(table):
    _, best = jax.lax.top_k(table, 2)
    return dense(jax.nn.one_hot(best, table.shape[1], dtype=table.dtype).sum(1) / 2)


def highest(table):
    return Point(jnp.argmax(table, 1), jnp.zeros(table.shape[1], table.dtype))


REFUSED = {
    "not exact": (family(lambda t: dense(soft(t, 2.0)), is_exact=True, entropy_weight=0.5), "is_exact=True"),
    "wrong weight": (family(lambda t: dense(soft(t, 2.0))), "entropy_weight=1, whose q for some row is not its best"),
    "not the best": (family(lambda t: highest(-t)), "is not its best"),
    "no sum of 1": (family(lambda t: dense(0.9 * soft(t))), "no probability of 3 values"),
    "negative": (family(lambda t: dense(soft(t) * 1.2 - 0.1)), "no probability of 3 values"),
    "another entropy": (family(lambda t: Dense(soft(t), t)), "whose q has the entropy"),
    "an array": (family(soft), "AttributeError from Mine on a table"),
    "a class": (probem.Delta, r"the class Delta .*; write Delta\(\)"),
    "too many": (probem.TopC(9), r"TopC\(num_kept=9\) of 3 values"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions(name: str) -> None:
    chosen, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        choose_families(read(KMEANS, (X,)), {"t": chosen})


def test_families_that_keep_their_word() -> None:
    known = read(KMEANS, (X,))
    for own in (
        family(lambda t: dense(soft(t)), is_exact=True),
        family(lambda t: dense(soft(t, 2.0)), entropy_weight=0.5),
    ):
        assert choose_families(known, {"t": own}).assignments is own


def test_a_list_in_a_family_and_rows_for_a_parameter() -> None:
    @dataclasses.dataclass
    class Mutable(AssignmentFamily):
        values: list

        def project(self, table):
            return dense(soft(table))

    with pytest.raises(InputError, match="Mutable as the family of 't', which cannot be hashed"):
        choose_families(read(KMEANS, (X,)), {"t": Mutable([1])})
    with pytest.raises(InputError, match=r"Delta\(fill_empty=True\) on the continuous site 'loc'"):
        choose_families(
            read(EXAMPLES["priors"].program, EXAMPLES["priors"].data), {"loc": probem.Delta(fill_empty=True)}
        )


def test_numbers_that_equality_does_not_see_are_refused() -> None:
    """Two such families would be equal, and the second be fitted by what was compiled for the first."""

    class Warmer(probem.Tempered):
        def __init__(self, beta, offset):
            super().__init__(beta)
            self.offset = offset

    assert Warmer(1.0, 0.0) == Warmer(1.0, 0.5)
    with pytest.raises(InputError, match="Warmer as the family of 't', whose offset its equality does not see"):
        choose_families(read(KMEANS, (X,)), {"t": Warmer(1.0, 0.5)})

    class Warmest(probem.Tempered):
        offset = 0.0

        def __init__(self, beta, offset):
            super().__init__(beta)
            object.__setattr__(self, "offset", offset)

    @dataclasses.dataclass(frozen=True, eq=False)
    class Uncompared(probem.Tempered):
        offset: float

    for unseen in (Warmest(1.0, 0.5), Uncompared(1.0, 0.5)):
        with pytest.raises(InputError, match="whose offset its equality does not see"):
            choose_families(read(KMEANS, (X,)), {"t": unseen})

    class Plain(AssignmentFamily):
        def __init__(self, beta):
            self.beta = beta

        def project(self, table):
            return dense(soft(table, self.beta))

        entropy_weight = property(lambda self: 1 / self.beta)

    # What compares by identity is another family every time.
    assert choose_families(read(KMEANS, (X,)), {"t": (plain := Plain(2.0))}).assignments is plain


@pytest.mark.slow
def test_what_is_a_point_follows_from_q() -> None:
    """A claim is no longer read: F of a q shared by two components has its entropy, as of the same q by hand."""
    shared = family(best_two, is_point=True)
    fit = probem.fit(KMEANS, X, families={"t": shared}, throw=False)
    assert not fit.plan.is_point
    direct = probem.elbo(KMEANS, fit.params, fit.responsibilities(X), X).elbo
    np.testing.assert_allclose(fit.elbo, direct, rtol=1e-12)
    # And a point that says nothing of itself is one, with int64 places: that of Delta.
    own, delta = (probem.fit(KMEANS, X, families={"t": chosen}) for chosen in (family(highest), probem.Delta()))
    assert own.plan.is_point
    np.testing.assert_allclose(own.elbo, delta.elbo, rtol=1e-12)
