"""The generic table against plain loops over SciPy's densities, and what is read of a program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.program.reading import read
from tests.oracles.plain import ROUNDING
from tests.programs.example import Example
from tests.programs.examples import EXAMPLES
from tests.programs.structures import nested


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_table_is_that_of_the_hand_loops(name: str) -> None:
    example = EXAMPLES[name]
    table, log_prior = jax.jit(
        lambda params, *data: (
            probem.log_joint(example.program, params, *data),
            probem.log_prior(example.program, params, *data),
        )
    )(example.params, *example.data)
    expected = example.table()
    assert table.shape == expected.shape
    np.testing.assert_allclose(table, expected, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(log_prior, example.log_prior(example.params), rtol=ROUNDING, atol=ROUNDING)


def test_the_hand_loops_can_tell_a_wrong_program() -> None:
    """A planted fault: the axes of the second assignment swapped."""
    example = EXAMPLES["nested"]
    wrong = example.table({**example.params, "inner": example.params["inner"][::-1]})
    assert np.abs(wrong - example.table()).max() > 0.1


def test_roles_of_the_sites() -> None:
    known = read(nested, EXAMPLES["nested"].data)
    assert [(site.name, site.support) for site in known.assignments] == [("t", (0, 1)), ("z", (0, 1, 2))]
    assert known.observed == ("x",)
    assert {site.name: site.shape for site in known.globals} == {"weights": (2,), "inner": (2, 3), "loc": (2, 3)}
    assert not any(site.has_prior for site in known.globals)
    known = read(EXAMPLES["priors"].program, EXAMPLES["priors"].data)
    assert all(site.has_prior for site in known.globals)


def test_the_support_of_an_assignment_is_that_of_its_distribution() -> None:
    assert read(EXAMPLES["boxed"].program, EXAMPLES["boxed"].data).assignments[0].support == (2, 3, 4)
    assert read(EXAMPLES["zero-inflated"].program, EXAMPLES["zero-inflated"].data).num_components == 2


def test_programs_are_the_same_when_their_parts_are() -> None:
    data = EXAMPLES["priors"].data
    base = EXAMPLES["priors"].program.func
    first = read(functools.partial(base, num_components=2), data)
    assert first == read(functools.partial(base, num_components=2), data)
    assert first != read(functools.partial(base, num_components=3), data)


def test_a_bound_array_is_no_obstacle() -> None:
    """Arrays have no hash: the program is then known by its identity."""

    def offset(x: jax.Array, origin: np.ndarray) -> None:
        loc = numpyro.param("loc", jnp.array([0.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Normal(loc[t] + origin[0], 1.0), obs=x)

    x = np.linspace(0, 1, 5)
    read_program = read(functools.partial(offset, origin=np.array([1.0])), (x,))
    assert [site.name for site in read_program.globals] == ["loc"]


def test_the_last_axis_of_a_plate_may_hold_the_rows_of_a_single_row() -> None:
    example: Example = EXAMPLES["feature plate"]
    one = (example.data[0][:1],)
    table = jax.jit(functools.partial(probem.log_joint, example.program))(example.params, *one)
    np.testing.assert_allclose(table, example.table()[:1], rtol=ROUNDING)
