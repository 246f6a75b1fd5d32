"""Programs under handlers of NumPyro, under jax.jit, and what else a user may wrap or hand over."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro import handlers

import probem
from probem import InputError
from probem.program.reading import read

X = np.array([-0.4, 0.1, 0.3, 5.2, 5.9, 6.4])


def pair(x, pick=lambda values, t: values[t]):
    """Two normals of one scale, which has a prior."""
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    loc = numpyro.param("loc", jnp.array([0.0, 5.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(pick(loc, t), scale), obs=x)


@pytest.mark.slow
def test_a_value_from_a_handler_stays() -> None:
    """``condition`` and ``substitute``: F is log p(x, scale = 1.3) at the fitted means, by SciPy's densities."""
    fits = [probem.fit(wrap(pair, {"scale": 1.3}), X) for wrap in (handlers.condition, handlers.substitute)]
    for fit in fits:
        assert set(fit.params) == {"loc"}
        by_row = 0.5 * scipy.stats.norm.pdf(X[:, None], np.asarray(fit.params["loc"]), 1.3).sum(1)
        expected = np.log(by_row).sum() + scipy.stats.lognorm.logpdf(1.3, 1.0)
        # At convergence q is the posterior but for what the last M half-step moved.
        assert fit.elbo == pytest.approx(expected, abs=1e-6)
    # A param that is substituted is a constant as well.
    known = read(handlers.substitute(pair, {"loc": jnp.array([0.0, 6.0])}), (X,))
    assert [site.name for site in known.globals] == ["scale"]


def test_values_that_cannot_stay() -> None:
    with pytest.raises(InputError, match="the value -1 of 'scale', outside the support of its LogNormal prior"):
        probem.explain(handlers.condition(pair, {"scale": -1.0}), X)
    with pytest.raises(InputError, match="values of the assignment 't' put in by a handler"):
        probem.explain(handlers.substitute(pair, {"t": jnp.zeros((), int)}), X)


def test_a_jitted_program_is_the_program() -> None:
    params = {"scale": 1.3, "loc": np.array([0.0, 6.0])}
    tables = [probem.log_joint(program, params, X) for program in (pair, jax.jit(pair), jax.jit(pair))]
    np.testing.assert_array_equal(tables[1], tables[0])
    np.testing.assert_array_equal(tables[2], tables[0])


@pytest.mark.parametrize(
    "pick",
    [
        lambda values, t: values[t.squeeze()],
        lambda values, t: values[t.reshape(-1)],
        lambda values, t: jnp.take_along_axis(values, t, 0),
    ],
    ids=["squeeze", "reshape", "take_along_axis"],
)
def test_an_assignment_used_as_if_it_had_no_axes(pick) -> None:
    with pytest.raises(InputError, match=r"all values of 't' at once, on an axis to the left of the rows.*write loc"):
        probem.explain(lambda x: pair(x, pick), X)


def test_values_of_another_shape() -> None:
    with pytest.raises(InputError, match=r"'x' of shape \(N, 1\) under a distribution of shape \(N,\).*pass x\[:, 0\]"):
        probem.explain(pair, X[:, None])
    with pytest.raises(InputError, match=r"'x' of shape \(N, 2, 3\) under a distribution of shape \(N,\)"):
        probem.explain(pair, np.ones((6, 2, 3)))


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">i4"])
def test_big_endian_rows(dtype: str) -> None:
    params, rows = {"scale": 1.3, "loc": np.array([0.0, 6.0], ">f8")}, (10 * X).astype(dtype)
    native = rows.astype(np.dtype(dtype).newbyteorder("="))
    np.testing.assert_array_equal(*(probem.log_joint(pair, params, own) for own in (rows, native)))
    q = np.full((6, 2), 0.5, ">f8")
    assert probem.elbo(pair, params, q, rows).elbo == probem.elbo(pair, params, q.astype(float), native).elbo
