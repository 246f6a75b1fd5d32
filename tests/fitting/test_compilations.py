"""What compiles, and what does not: counted by the traces of the program and by JAX's own events."""

import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probem
from probem.solver import resolution
from tests.programs.counted import COMPILATIONS, TRACES, cost, data


def counted(x: jax.Array, *, num_components: int) -> None:
    """A mixture that counts how often it is run."""
    TRACES.append(x.shape)
    loc = numpyro.param("loc", jnp.arange(1.0 * num_components))
    scale = numpyro.param("scale", jnp.ones(()), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(num_components) / num_components))
        numpyro.sample("x", dist.Normal(loc[t], scale), obs=x)


def _fit(num_rows: int, **options) -> probem.Fit:
    # A new partial each time, as a user's second call would make.
    program = functools.partial(counted, num_components=2)
    fit = probem.fit(program, data(num_rows), throw=False, verbose=0, **options)
    fit.predict(data(num_rows))
    fit.log_density(data(num_rows))
    return fit


@pytest.mark.slow
def test_another_number_of_rows_compiles_nothing() -> None:
    first = cost(lambda: _fit(50, max_steps=5))
    assert min(first) > 0  # what is counted does happen
    assert cost(lambda: _fit(50, max_steps=5)) == (0, 0)
    assert cost(lambda: _fit(71, max_steps=9, tolerance=1e-6, key=3)) == (0, 0)
    assert cost(lambda: [list(probem.iterate(functools.partial(counted, num_components=2), data(33)))]) == (0, 0)
    _fit(50, max_steps=5, init=probem.Responsibilities(np.eye(2)[np.arange(50) % 2]))
    q = np.eye(2)[np.arange(71) // 40]
    assert cost(lambda: _fit(71, max_steps=5, init=probem.Responsibilities(q))) == (0, 0)


@pytest.mark.slow
def test_nor_does_it_among_large_data() -> None:
    """Up to eight blocks of point masses are one loop, compiled for their number and size, of which there are four
    between a power of two and the next; more go by eights and singly. What runs on few numbers is compiled quickly, and
    what runs on more once more.
    """
    _fit(300_000, max_steps=3)
    assert cost(lambda: _fit(700_001, max_steps=3)) == (0, 0)
    options = {"max_steps": 3, "families": probem.HARD_EM}
    _fit(300_000, **options)
    assert cost(lambda: _fit(310_001, **options)) == (0, 0)
    assert cost(lambda: _fit(330_000, **options)) == (0, 0)
    _fit(1_200_000, **options)
    assert cost(lambda: _fit(1_500_001, **options)) == (0, 0)
    for few, more in ((200, 4000), (5000, 8000)):
        _fit(few, **options)
        assert cost(functools.partial(_fit, more, **options)) == (0, 0)


@pytest.mark.slow
def test_arrays_of_jax_cost_no_trace_of_the_program() -> None:
    program = functools.partial(counted, num_components=2)
    probem.fit(program, jnp.asarray(data(50)), max_steps=5, throw=False)
    assert cost(lambda: probem.fit(program, jnp.asarray(data(60)), max_steps=5, throw=False))[0] == 0


def test_another_program_is_noticed() -> None:
    """What the counts would show: three components are another program."""
    traces, _ = cost(lambda: probem.explain(functools.partial(counted, num_components=3), data(50)))
    assert traces > 0
    assert cost(lambda: probem.explain(functools.partial(counted, num_components=3), data(60))) == (0, 0)


@pytest.mark.parametrize("restarts", [1, 3])
def test_nor_does_it_under_labels_that_are_given(restarts: int) -> None:
    def given(num_rows: int) -> probem.Labels:
        # Near the end: where two components are one, the certificate compiles a start of its own.
        return probem.Labels((data(num_rows) > 3).astype(int))

    def init(num_rows: int):
        return given(num_rows) if restarts == 1 else lambda key, rows: given(num_rows)

    _fit(50, max_steps=5, init=init(50), restarts=restarts)
    fits = []
    cost(lambda: fits.append(_fit(71, max_steps=5, init=init(71), restarts=restarts)))
    # What brings them to the device is small.
    assert not {each.get("fun_name") for each in COMPILATIONS} & {"jit(first_state_in_trace)", "jit(mapped)"}
    # In float32, side by side or not.
    assert fits[0].elbo == pytest.approx(_fit(71, max_steps=5, init=given(71)).elbo, rel=1e-4)


def test_a_start_from_all_parameters_draws_no_initial_values(monkeypatch) -> None:
    asked = []
    real = resolution.initial_params
    monkeypatch.setattr(resolution, "initial_params", lambda *given: asked.append(given) or real(*given))
    whole = {"loc": np.array([0.0, 6.0]), "scale": np.array(1.5)}
    fit = _fit(50, max_steps=1, init=probem.Parameters(whole))
    assert not asked
    # One iteration from exactly these: from the program's own values (0, 1) and 1 it is another.
    again = _fit(50, max_steps=1, init=probem.Parameters({"loc": whole["loc"]}), fixed={"scale": whole["scale"]})
    assert len(asked) == 1
    assert fit.elbo == pytest.approx(again.elbo, rel=1e-6)
