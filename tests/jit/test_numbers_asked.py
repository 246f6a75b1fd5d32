"""A number that a program asks for, or computes with outside of JAX, is a part of its structure and changes with it."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from tests.jit.numbers_of_programs import LABELS, LINE, assert_same, fit, written


def asks(x, *, scale):
    """Whether it is large."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    scale = scale if scale < 2.0 else 2.0
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", dist.Normal(loc[numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))], scale), obs=x)


def computes(x, *, scale):
    """In Python."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], math.exp(math.log(scale))), obs=x)


def bounds(x, *, scale):
    """Where parameters may lie."""
    loc = numpyro.param("loc", jnp.arange(3.0), constraint=dist.constraints.interval(-20.0, 20.0 * scale))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


class Peculiar(dist.Normal):
    """A distribution whose density asks for a number that nothing else asks for."""

    def __init__(self, loc, scale, power):
        super().__init__(loc, scale)
        self.power = power

    def log_prob(self, value):
        return super().log_prob(value) * (self.power if self.power > 0 else 1.0)


def peculiar(x, *, scale):
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", Peculiar(loc[t], 1.0, scale), obs=x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [asks, *(pytest.param(each, marks=pytest.mark.slow) for each in (computes, bounds, peculiar))],
    ids=lambda program: program.__name__,
)
def test_a_number_that_the_program_asks_for_is_part_of_its_structure(program) -> None:
    """And changes with it, as do the answers; the others are numbers all the same."""
    structures = set()
    for scale in (1.0, 1.5):
        arguments = functools.partial(program, scale=scale), LINE, {"init": LABELS}
        made = fit(arguments)
        structures.add(made.plan.structure)
        assert scale not in made.plan.program.numbers
    # What was compiled for the first number would answer for the second as well.
    assert_same(made, fit(written(lambda _: arguments, scale)))
    assert len(structures) == 2


def spread(x, *, scale, asked):
    """A program that may ask what kind of thing its number is, or compute with it outside of JAX."""
    loc = numpyro.param("loc", jnp.array([-1.0, 0.0, 1.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], asked(scale)), obs=x)


def _by_float(scale):
    try:
        return float(scale)
    except TypeError:
        return 1.0


ASKED = {
    "isinstance": (lambda scale: 3 * scale if isinstance(scale, float) else scale, (1.0, 2.0)),
    "float": (_by_float, (1.0, 2.0)),
    "isscalar": (lambda scale: scale if np.isscalar(scale) else 1.0, (1.0, 2.0)),
    "array": (lambda scale: 2 * scale[0] if isinstance(scale, np.ndarray) else scale[0], (np.ones(2), np.full(2, 3.0))),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in ("float", "isscalar"))) for name in ASKED]
)
def test_a_number_that_is_asked_what_it_is_stays_a_part_of_the_program(name: str) -> None:
    """The first value may agree by chance with what is asked for."""
    asked, values = ASKED[name]
    for value in values:
        program = functools.partial(spread, scale=value, asked=asked)
        as_it_is = functools.partial(spread, scale=float(asked(value)), asked=lambda scale: scale)
        options = {"init": LABELS, "max_steps": 2, "throw": False}
        assert probem.fit(program, LINE, **options).elbo == pytest.approx(
            probem.fit(as_it_is, LINE, **options).elbo, rel=1e-12
        )


@pytest.mark.slow
def test_in_float32_digits_that_python_has_are_not_lost() -> None:
    far = 1.6e9 + np.array([0.0, 3.0])
    with jax.enable_x64(False):
        x = LINE.astype(np.float32)
        options = {"init": LABELS, "max_steps": 2, "throw": False}
        lifted = functools.partial(spread, scale=far, asked=lambda far: (far - far.mean())[1])
        plain = functools.partial(spread, scale=1.5, asked=lambda scale: scale)
        assert probem.fit(lifted, x, **options).elbo == pytest.approx(probem.fit(plain, x, **options).elbo, rel=1e-6)


@pytest.mark.slow
def test_attributes_of_classes_sets_and_slots_are_a_part_of_the_program() -> None:
    class Settings:
        scale = 1.0

    class Slotted:
        __slots__ = ("scale",)

    scales, slotted = {1.0}, Slotted()

    def bound(asked) -> float:
        def program(x):
            spread(x, scale=None, asked=lambda _: asked())

        return probem.fit(program, LINE, init=LABELS, max_steps=2, throw=False).elbo

    def fits() -> list[float]:
        return [bound(lambda: Settings.scale), bound(lambda: max(scales)), bound(lambda: slotted.scale)]

    slotted.scale = 1.0
    first = fits()
    Settings.scale, slotted.scale = 2.0, 2.0
    scales.add(2.0)
    assert not np.isclose(first, fits(), rtol=1e-6).any()
