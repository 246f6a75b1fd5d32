"""What compiles, and what does not: counted by the traces of the program and by JAX's own events."""

import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem.program.fingerprint import program_key
from probem.program.reading import read

TRACES = []
COMPILATIONS = []


def _count(event: str, duration: float, **attributes: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILATIONS.append(attributes)


jax.monitoring.register_event_duration_secs_listener(_count)


def counted(x: jax.Array, *, num_components: int) -> None:
    """A mixture that counts how often it is run."""
    TRACES.append(x.shape)
    loc = numpyro.param("loc", jnp.arange(1.0 * num_components))
    scale = numpyro.param("scale", jnp.ones(()), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(num_components) / num_components))
        numpyro.sample("x", dist.Normal(loc[t], scale), obs=x)


def data(num_rows: int) -> np.ndarray:
    random = np.random.default_rng(num_rows)
    return np.array([0.0, 6.0])[random.integers(0, 2, num_rows)] + random.normal(size=num_rows)


def _fit(num_rows: int, **options) -> probem.Fit:
    # A new partial each time, as a user's second call would make.
    program = functools.partial(counted, num_components=2)
    fit = probem.fit(program, data(num_rows), throw=False, progress=False, **options)
    fit.predict(data(num_rows))
    fit.log_density(data(num_rows))
    return fit


def _cost(run) -> tuple[int, int]:
    TRACES.clear()
    COMPILATIONS.clear()
    run()
    return len(TRACES), len(COMPILATIONS)


def test_another_number_of_rows_compiles_nothing() -> None:
    first = _cost(lambda: _fit(50, max_steps=5))
    assert min(first) > 0  # what is counted does happen
    assert _cost(lambda: _fit(50, max_steps=5)) == (0, 0)
    assert _cost(lambda: _fit(71, max_steps=9, tolerance=1e-6, key=3)) == (0, 0)
    assert _cost(lambda: [list(probem.iterate(functools.partial(counted, num_components=2), data(33)))]) == (0, 0)


@pytest.mark.slow
def test_nor_does_it_among_large_data() -> None:
    """Up to eight blocks of point masses are one loop, compiled for their number; more go by eights and singly."""
    _fit(300_000, max_steps=3)
    assert _cost(lambda: _fit(700_001, max_steps=3)) == (0, 0)
    options = {"max_steps": 3, "families": probem.HARD_EM}
    _fit(300_000, **options)
    assert _cost(lambda: _fit(310_001, **options)) == (0, 0)
    assert _cost(lambda: _fit(270_000, **options)) == (0, 0)
    _fit(1_200_000, **options)
    assert _cost(lambda: _fit(1_500_001, **options)) == (0, 0)
    _fit(100, **options)
    assert _cost(lambda: _fit(8000, **options)) == (0, 0)


@pytest.mark.slow
def test_arrays_of_jax_cost_no_trace_of_the_program() -> None:
    program = functools.partial(counted, num_components=2)
    probem.fit(program, jnp.asarray(data(50)), max_steps=5, throw=False)
    assert _cost(lambda: probem.fit(program, jnp.asarray(data(60)), max_steps=5, throw=False))[0] == 0


def test_another_program_is_noticed() -> None:
    """What the counts would show: three components are another program."""
    traces, _ = _cost(lambda: probem.explain(functools.partial(counted, num_components=3), data(50)))
    assert traces > 0
    assert _cost(lambda: probem.explain(functools.partial(counted, num_components=3), data(60))) == (0, 0)


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

    def traces(program) -> int:
        return _cost(lambda: read(program, (data(50),)))[0]

    assert traces(program) > 0
    assert traces(program) == 0
    if kind == "partial":
        assert traces(functools.partial(shifted, origin=np.zeros(1))) == 0
    # The same object, with another content; and with the old one again.
    origin[0] = 1.0
    assert traces(program) > 0
    origin[0] = 0.0
    assert traces(program) == 0
    monkeypatch.setitem(globals(), "SHIFT", 1.0)
    assert traces(program) > 0
    monkeypatch.setitem(globals(), "SHIFT", 1)
    assert traces(program) > 0  # a whole number is another number
    monkeypatch.undo()
    assert traces(program) == 0
    if kind == "closure":
        (cell,) = closed.__closure__
        cell.cell_contents = 2.0
        assert traces(closed) > 0


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
    assert _cost(lambda: fit(0.0)) == (0, 0)
    np.testing.assert_allclose(fit(0.5).elbo, expected(0.5), rtol=1e-12)
    monkeypatch.setitem(globals(), "SHIFT", -1.0)
    np.testing.assert_allclose(fit(0.5).elbo, expected(-0.5), rtol=1e-12)
    monkeypatch.undo()
    assert _cost(lambda: fit(0.5)) == (0, 0)
