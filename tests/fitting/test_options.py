"""Options that cannot be used: one sentence each, before anything is traced."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import probem
from probem.analysis.routes import _make_plan
from probem.data.checks import check_data
from probem.models import poisson_mixture
from probem.stopping import BoundChange, ParameterShift, Stopping
from tests.programs.fits import PROGRAM, X

FUNCTIONS: list[Any] = [probem.fit, probem.solve, probem.fit_many]
RAGGED = [[1.0], [1.0, 2.0]]
TEXT = ["a"] * len(X)


@dataclasses.dataclass(frozen=True)
class Unregistered(Stopping):
    """A rule that JAX does not know."""


@pytest.fixture(autouse=True)
def _without_checks_of_types():
    """As users run it; the checks of types would refuse some of this first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def mistaken(value: Any, field: str, wrong: Any) -> Any:
    """With a field that the checks of types in these tests would not let through."""
    object.__setattr__(value, field, wrong)
    return value


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"row_weights": TEXT}, "row_weights of type <U1"),
    ({"row_weights": RAGGED}, "row_weights as a list that is no array; expected numbers, the same count"),
    ({"row_weights": np.ones(len(X)) * 1j}, "row_weights of type complex128"),
    ({"labels": RAGGED}, "labels as a list that is no array"),
    ({"labels": [0, None]}, r"labels of type object; .*astype\(float\)"),
    ({"key": 1.5}, "key=1.5; expected a JAX key or a whole number"),
    ({"key": "a"}, "key='a'"),
    ({"key": None}, "key=None"),
    ({"key": jnp.array(1.0)}, "expected a JAX key"),
    ({"key": jax.random.split(jax.random.key(0), 3)}, r"keys of shape \(3,\); expected one key"),
    ({"init": probem.RandomRows}, r"the class RandomRows as init; .* write RandomRows\(...\)"),
    ({"init": probem.Labels}, "the class Labels as init"),
    ({"init": probem.Labels(RAGGED)}, "initial labels as a list that is no array"),
    ({"init": probem.Parameters({"loc": RAGGED})}, "initial value of 'loc' as a list that is no array"),
    ({"init": probem.Parameters({"loc": "abc"})}, "initial value of 'loc' of type <U3"),
    ({"tolerance": BoundChange("a")}, "tolerance in BoundChange of type <U1"),
    ({"tolerance": BoundChange(None)}, "tolerance in BoundChange of type object"),
    ({"tolerance": mistaken(BoundChange(1e-3), "half", "X")}, "half='X' in BoundChange; expected 'E' or 'M'"),
    ({"tolerance": ParameterShift(float("nan"))}, "tolerance=nan in ParameterShift"),
    ({"tolerance": ParameterShift(np.array([1.0, 2.0]))}, r"a tolerance of shape \(2,\); expected a number"),
    ({"tolerance": jnp.array([1e-3, 1e-4])}, r"a tolerance of shape \(2,\)"),
    ({"tolerance": jnp.array(-1.0)}, "tolerance=.*; expected a number in"),
    ({"tolerance": Unregistered()}, "the rule Unregistered, which is no pytree"),
    ({"fixed": {"loc": "abc"}}, "fixed values of 'loc' of type <U3"),
    ({"fixed": {"loc": RAGGED}}, "fixed values of 'loc' as a list that is no array"),
]


@pytest.mark.parametrize(("options", "match"), WRONG, ids=[case[1][:40] for case in WRONG])
def test_an_option_that_cannot_be_used_is_one_sentence(options: dict[str, Any], match: str) -> None:
    for function in FUNCTIONS[:2]:
        with pytest.raises(probem.InputError, match=f"got .*{match}"):
            function(PROGRAM, X, **options)


@pytest.mark.parametrize("max_steps", [0, "a", 1.5, jnp.array([1, 2])])
def test_how_many_steps(max_steps: Any) -> None:
    with pytest.raises(probem.InputError, match=r"got max_steps=.*; expected a whole number"):
        FUNCTIONS[1](PROGRAM, X, max_steps=max_steps)


def test_a_traced_value_that_has_to_be_known() -> None:
    solve = functools.partial(probem.solve, PROGRAM, X)
    with pytest.raises(probem.InputError, match="got traced fixed values of 'loc'"):
        jax.jit(lambda loc: solve(fixed={"loc": loc}).elbo)(jnp.ones((2, 2)))


def test_parameters_are_by_name_and_a_path_is_a_path() -> None:
    with pytest.raises(probem.InputError, match="got Parameters of a list; expected values by site name"):
        mistaken(probem.Parameters({}), "values", [1, 2]).__post_init__()
    load: Any = probem.load
    with pytest.raises(probem.InputError, match="got a path of type int"):
        load(3)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        ([[1.0, None], [2.0, 3.0]], r"data of type object \(list\); expected real numbers; convert it with .astype"),
        (X.astype(object), r"data of type object \(ndarray\)"),
        (RAGGED, "data as a list that is no array"),
        (jnp.ones((3, 2)) * 1j, "data of type complex128; expected real numbers"),
    ],
)
def test_data_that_is_no_array_of_numbers(data: Any, match: str) -> None:
    with pytest.raises(probem.InputError, match=f"got {match}"):
        probem.fit(PROGRAM, data)
    with pytest.raises(probem.InputError, match=f"got {match}"):
        probem.fit_many(PROGRAM, data)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"row_weights": [TEXT] * 2}, "row_weights of type <U1"),
        ({"labels": RAGGED}, "labels as a list that is no array"),
        ({"key": 1.5}, "key=1.5"),
        ({"init": probem.RandomRows}, "the class RandomRows as init"),
        ({"init": probem.Labels(RAGGED)}, "the start as a list"),
    ],
)
def test_options_of_many_fits(options: dict[str, Any], match: str) -> None:
    with pytest.raises(probem.InputError, match=f"got {match}"):
        FUNCTIONS[2](PROGRAM, np.stack([X, X]), **options)


def test_what_a_masked_array_masks_is_missing() -> None:

    mask = np.arange(X.size).reshape(X.shape) % 7 == 0
    (found,) = check_data((np.ma.masked_array(np.where(mask, -999.0, X), mask=mask),), missing=True)
    np.testing.assert_array_equal(found, np.where(mask, np.nan, X))
    (found,) = check_data((np.ma.masked_array(X),))
    np.testing.assert_array_equal(found, X)
    with pytest.raises(probem.InputError, match="row_weights with a negative, non-finite"):
        probem.fit(PROGRAM, X, row_weights=np.ma.masked_array(np.ones(len(X)), mask=mask[:, 0]))


def test_noise_on_what_is_no_location_family() -> None:
    program = functools.partial(poisson_mixture, num_components=2)
    counts = np.random.default_rng(0).poisson(4.0, (60, 2))
    for function, data in ((probem.fit, counts), (probem.fit_many, counts[None])):
        with pytest.raises(probem.InputError, match="got added_variance for x; expected an observed location family"):
            function(program, data, added_variance=1.0)


def numbered(x: jax.Array, *, num_components: int, number: int) -> None:
    """A program that nothing else plans: another number is another program."""
    del number
    return poisson_mixture(x, num_components=num_components)


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        *[(verb, {"max_steps": 0}) for verb in (probem.fit, probem.iterate, probem.solve)],
        *[(verb, {"tolerance": "x"}) for verb in (probem.fit, probem.iterate, probem.solve)],
        *[(verb, {"init": probem.KMeansPlusPlus}) for verb in (probem.fit, probem.iterate, probem.solve)],
        (probem.fit, {"restarts": 0}),
        (probem.fit, {"num_components": 60}),
    ],
)
def test_nothing_is_planned_for_what_is_refused(
    verb: Any, options: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """Planning takes seconds, and a typing mistake is no reason to wait for it."""
    options = {"num_components": 2, **options}
    number = id(request.node)
    program = functools.partial(numbered, num_components=options.pop("num_components"), number=number)
    planned = _make_plan.cache_info().misses
    with pytest.raises(probem.InputError, match="expected"):
        # ``iterate`` begins with the first of its fits.
        list(verb(program, np.arange(20).reshape(10, 2), **options))
    assert _make_plan.cache_info().misses == planned
