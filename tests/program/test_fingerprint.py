"""The values that a program uses are part of it: equal ones make the same program, changed ones another."""

import functools
import sys

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from probem.program.fingerprint import program_key
from probem.program.reading import read
from tests.programs.counted import TRACES, cost, data

SHIFT = 0.0


def shifted(x: jax.Array, *, origin: np.ndarray) -> None:
    TRACES.append(x.shape)
    loc = numpyro.param("loc", jnp.array([0.0, 6.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Normal(loc[t] + SHIFT + origin, 1.0), obs=x)


def closing_over(origin: object):
    return lambda x: shifted(x, origin=origin)


@pytest.mark.parametrize("kind", ["partial", "closure"])
def test_the_values_that_a_program_uses_are_part_of_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal ones, in other arrays, are the same program; a changed global, closure or array makes another."""
    origin = np.zeros(2)
    bound = functools.partial(shifted, origin=origin[:1])
    closed = closing_over(origin[:1])
    program = bound if kind == "partial" else closed

    def read_it(program):
        TRACES.clear()  # the program names this list, so what stands in it is part of the program
        return read(program, (data(50),))

    first = read_it(program)
    assert read_it(program) == first
    if kind == "partial":
        assert read_it(functools.partial(shifted, origin=np.zeros(1))) == first
    # The same object, with another content: other numbers, for which nothing is traced again.
    origin[0] = 1.0
    other = read_it(program)
    assert not TRACES
    assert other != first
    assert other.structure == first.structure
    np.testing.assert_array_equal(other.numbers[-1], [1.0])
    # And the old one again.
    origin[0] = 0.0
    assert read_it(program) == first
    monkeypatch.setitem(globals(), "SHIFT", 1.0)
    assert read_it(program) != first
    assert read_it(program).structure == first.structure
    monkeypatch.setitem(globals(), "SHIFT", 1)
    assert read_it(program).structure != first.structure  # a whole number is another number
    monkeypatch.undo()
    assert read_it(program) == first
    if kind == "closure":
        (cell,) = closed.__closure__
        cell.cell_contents = 2.0
        assert read_it(closed).structure != first.structure  # a number of Python's for an array


class Elsewhere:
    """Something whose attribute a program reads."""

    def __init__(self) -> None:
        self.origin = 0.0


ELSEWHERE = Elsewhere()


def nested(x: jax.Array) -> None:
    """A global and an attribute that only a function inside the program names."""
    TRACES.append(x.shape)
    loc = numpyro.param("loc", jnp.array([0.0, 6.0]))

    def component(t: jax.Array) -> dist.Normal:
        return dist.Normal(loc[t] + SHIFT + ELSEWHERE.origin, 1.0)

    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", component(numpyro.sample("t", dist.Bernoulli(0.5))), obs=x)


@pytest.mark.parametrize("wrapped", [lambda program: program, jax.jit], ids=["itself", "wrapped"])
def test_so_are_those_that_a_function_inside_it_uses(wrapped, monkeypatch: pytest.MonkeyPatch) -> None:
    program = wrapped(nested)
    keys = [program_key(program), program_key(program)]
    monkeypatch.setitem(globals(), "SHIFT", 2.0)
    keys.append(program_key(program))
    monkeypatch.setattr(ELSEWHERE, "origin", 3.0)
    keys.append(program_key(program))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


class Settings:
    """A value of a class, read through an object, a method or another class."""

    origin = 0.0

    class Inner:
        origin = 0.0

    def by_a_method(self) -> float:
        return SHIFT + self.origin

    @property
    def by_a_property(self) -> float:
        return SHIFT + self.by_a_method()

    @classmethod
    def by_the_class(cls) -> float:
        return SHIFT + cls.origin

    def __call__(self, x: jax.Array) -> None:
        shifted(x, origin=self.by_a_property)


class Density(dist.Normal):
    """Its method is named by nobody but NumPyro."""

    def log_prob(self, value: jax.Array) -> jax.Array:
        return super().log_prob(value - SHIFT - Settings.Inner.origin)


SETTINGS = Settings()
HERE = sys.modules[__name__]
READERS = {
    "an object that is called": SETTINGS,
    "a method": lambda x: shifted(x, origin=SETTINGS.by_a_method()),
    "a property": lambda x: shifted(x, origin=SETTINGS.by_a_property),
    "a class method": lambda x: shifted(x, origin=Settings.by_the_class()),
    "an attribute of the class": lambda x: shifted(x, origin=SETTINGS.origin + SHIFT),
    "a class in a module": lambda x: shifted(x, origin=HERE.Settings.origin + SHIFT),
    "a class in a class": lambda x: shifted(x, origin=Settings.Inner.origin),
    "a density": lambda x: numpyro.sample("x", Density(0.0, 1.0), obs=x),
}


def imports(x: jax.Array) -> None:
    from tests.program import test_fingerprint

    shifted(x, origin=test_fingerprint.Settings.origin)


@pytest.mark.parametrize("program", [*READERS.values(), imports], ids=[*READERS, "an import inside it"])
def test_so_are_those_that_classes_of_the_user_hold(program, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each was left out, so that a fit after a change returned that from before it."""
    keys = [program_key(program), program_key(program)]
    monkeypatch.setattr(Settings, "origin", 3.0)
    monkeypatch.setattr(Settings.Inner, "origin", 3.0)
    keys.append(program_key(program))
    monkeypatch.setitem(globals(), "SHIFT", 2.0)
    keys.append(program_key(program))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.slow
def test_a_changed_value_changes_the_fit_and_an_equal_one_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = data(50)

    def fit(origin: float) -> probem.Fit:
        TRACES.clear()  # the program names this list, so what stands in it is part of the program
        program = functools.partial(shifted, origin=np.array([origin]))
        return probem.fit(program, x, init=probem.Parameters({}), max_steps=1, throw=False)

    def expected(shift: float) -> float:
        return np.log(0.5 * scipy.stats.norm.pdf(x[:, None], [shift, 6 + shift]).sum(1)).sum()

    np.testing.assert_allclose(fit(0.0).elbo, expected(0.0), rtol=1e-12)
    assert cost(lambda: fit(0.0)) == (0, 0)
    np.testing.assert_allclose(fit(0.5).elbo, expected(0.5), rtol=1e-12)
    monkeypatch.setitem(globals(), "SHIFT", -1.0)
    np.testing.assert_allclose(fit(0.5).elbo, expected(-0.5), rtol=1e-12)
    monkeypatch.undo()
    assert cost(lambda: fit(0.5)) == (0, 0)


def test_a_dictionary_may_grow_while_it_is_looked_at() -> None:
    """As the memory of a library does that is reached from a program, when what it holds is asked for its parts."""

    class Part:
        @property
        def __wrapped__(self):
            memory[len(memory)] = 0
            return None

        def __call__(self):
            return 0.0

    memory = {0: Part(), 1: 1.0}

    def program(x: jax.Array) -> None:
        numpyro.deterministic("unused", memory[1])
        shifted(x, origin=np.zeros(1))

    assert program_key(program) is not None
    assert len(memory) > 2
