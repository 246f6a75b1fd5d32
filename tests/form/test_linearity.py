"""Which locations are linear predictors: read off the program, or left to its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from probem.exponential import LinearNormal
from probem.form.building import exponential_form
from probem.form.companions import Covariates
from probem.form.sites import ExponentialSite
from probem.program.reading import read
from tests.programs.regressions import REGRESSIONS, X, Y, real


def predicted(mean):
    """A program with two components around ``mean(t, x, a, b)``, with parameters a [2] and b [2, 2]."""

    def program(y, x):
        a, b = real("a", (2,)), real("b", (2, 2))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.4, 0.6])))
            numpyro.sample("y", dist.Normal(mean(t, x, a, b), 1.0), obs=y)

    return program


def term_of(program, *data) -> ExponentialSite | None:
    """The exponential-family form of y."""
    known = read(program, data)
    return next((term for term in exponential_form(known).data_terms if term.site == "y"), None)


def masked(x, dtype):
    """One of 256 columns, which say where a covariate is positive."""
    return jnp.zeros((x.shape[0], 256), dtype).at[:, 5].set((x[:, 0] > 0.3).astype(dtype))[:, 5]


def whole(x):
    """Numbers that sixteen bits have not."""
    return (100.0 * x[:, 0]).astype(int) * 11


LINEAR = {
    "logarithms": lambda t, x, a, b: a[t] + b[t, 0] * jnp.log(x[:, 0]) + b[t, 1] * x[:, 1] ** 3,
    "hinge": lambda t, x, a, b: a[t] + b[t, 0] * jnp.maximum(x[:, 0] - 0.3, 0.0) + b[t, 1] * x[:, 1],
    "offset": lambda t, x, a, b: jnp.sin(x[:, 1]) + a[t] + (x * b[t]).sum(-1),
    "one-hot": lambda t, x, a, b: jax.nn.one_hot(t, 2) @ a + (x * (jax.nn.one_hot(t, 2) @ b)).sum(-1),
    "matrix": lambda t, x, a, b: jnp.einsum("nd,...nd->...n", x, b[t]) + a[t] / 2.0,
    "accumulated": lambda t, x, a, b: jnp.cumsum(a)[t] + (jnp.flip(b, -1)[t] * x).sum(-1),
    "vmap": lambda t, x, a, b: (
        jnp.moveaxis(jax.nn.one_hot(t, 2), -1, 0)
        * jax.vmap(lambda k: a[k] + x @ b[k])(jnp.arange(2)).reshape(2, *(1,) * (t.ndim - 1), -1)
    ).sum(0),
    "zero for one": lambda t, x, a, b: (
        a.at[0].set(0.0)[t] + a[0] + (jnp.append(b[:1], jnp.zeros((1, 2)), 0)[t] * x).sum(-1) + b[1] @ x.T
    ),
    "norm": lambda t, x, a, b: a[t] + b[t, 0] * jnp.linalg.norm(x, axis=-1) + b[t, 1] * jax.nn.logsumexp(x, axis=-1),
    "mask": lambda t, x, a, b: a[t] + b[t, 0] * jnp.where(masked(x, bool) > 0, x[:, 0], 1.0) + b[t, 1] * x[:, 1],
    "bytes": lambda t, x, a, b: a[t] + b[t, 0] * (1.0 + masked(x, jnp.uint8)) + b[t, 1] * x[:, 1],
    "sixteen bits": lambda t, x, a, b: a[t] + b[t, 0] * whole(x).astype(jnp.float16) + b[t, 1] * whole(x),
    "stack": lambda t, x, a, b: jnp.stack([a[t] + 0.0 * x[:, 0], b[t, 0] * x[:, 0], b[t, 1] * x[:, 1]], -1).sum(-1),
    "checkpoint": lambda t, x, a, b: jax.checkpoint(lambda a, b: a[t] + (jnp.tile(b, (2, 1))[t] * x).sum(-1))(a, b),
    "difference": lambda t, x, a, b: a[t] + (b[t, 0] - b[t, 1]) * x[:, 0],
    "sum": lambda t, x, a, b: a[0] + a[t] + (x * b[t]).sum(-1),
    "other units": lambda t, x, a, b: 3.0 * a[t] + 0.1 * (x * b[t]).sum(-1),
    "by component": lambda t, x, a, b: jnp.where(t == 0, a[0] + b[0, 0] * x[:, 0], a[1] + (b[1] * x).sum(-1) + b[0, 1]),
}

# Bent, or dependent on something else than data and coefficients.
OTHERS = {
    "product": lambda t, x, a, b: a[t] * b[t, 0] * x[:, 0] + b[t, 1],
    "exponential": lambda t, x, a, b: a[t] + jnp.exp(b[t, 0]) * x[:, 0] + b[t, 1],
    "clipped coefficient": lambda t, x, a, b: a[t] + jnp.clip(b[t, 0], -50.0, 50.0) * x[:, 0] + b[t, 1],
    "clipped far out": lambda t, x, a, b: a[t] + jnp.clip(b[t, 0], -1e9, 1e9) * x[:, 0] + b[t, 1],
    "rounded": lambda t, x, a, b: a[t] + jnp.round(b[t, 0]) * x[:, 0] + b[t, 1] * x[:, 1],
    "in few digits": lambda t, x, a, b: a[t] + b[t, 0].astype(jnp.float16) * x[:, 0] + b[t, 1] * x[:, 1],
    "no gradient": lambda t, x, a, b: a[t] + jax.lax.stop_gradient(b[t, 0]) * x[:, 0] + b[t, 1] * x[:, 1],
    "bent in one row": lambda t, x, a, b: a[t] + jnp.where(x[:, 0] > 1e7, b[t, 0] ** 2, b[t, 0]) + b[t, 1] * x[:, 1],
    "clipped predictor": lambda t, x, a, b: jnp.clip(a[t] + (x * b[t]).sum(-1), -1e4, 1e4),
    "absolute value": lambda t, x, a, b: jnp.abs(a[t] + (x * b[t]).sum(-1)),
    "change point": lambda t, x, a, b: a[t] + jnp.where(x[:, 0] > b[t, 0], 1.0, 0.0) * b[t, 1],
    "offset by component": lambda t, x, a, b: a[t] + (x * b[t]).sum(-1) + jnp.where(t == 0, x[:, 0], 0.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAR)
def test_predictors_are_found(name: str) -> None:
    """Events, coefficients and scale make NumPyro's density."""
    known = read(predicted(LINEAR[name]), (Y, X))
    form = exponential_form(known)
    (term,) = form.data_terms
    assert isinstance(term.view, LinearNormal)
    assert isinstance(term.companion, Covariates)
    rows, params = np.abs(X[:7]) + 0.1, jax.tree.map(jnp.asarray, known.random_params(7))
    event = np.asarray(form.events((Y[:7], rows), (term,))["y"])[:, 0]
    arguments = {key: np.asarray(value)[:, 0] for key, value in form.arguments(params)["y"].items()}
    design = np.column_stack([event[:, 1:], np.ones(7)])[:, : arguments["coefficients"].shape[1]]
    values = event[:, :1] - design @ arguments["coefficients"].T
    sites = known.enumerated_trace(params, (Y[:7], rows))
    expected = Y[:7] - np.asarray(sites["y"]["fn"].loc)
    np.testing.assert_allclose(values.T, expected.reshape(2, 7), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_predictor_stays_with_the_program(name: str) -> None:
    assert term_of(predicted(OTHERS[name]), Y, X) is None


def test_the_covariates_are_as_few_as_the_program_has() -> None:
    """Components share columns; copies and sites have those of their own rows."""
    sizes = {"intercepts": 2, "origin": 2, "design matrix": 2, "shared slopes": 2, "polynomial": 2, "interaction": 3}
    sizes |= {"two outputs": 2, "noise": 1, "offset": 1, "groups": 3}
    for name, size in sizes.items():
        term = term_of(REGRESSIONS[name].program, *REGRESSIONS[name].data)
        assert term is not None
        assert term.event_shape == (1 + size,), name


def test_levels_that_the_data_look_up_are_covariates() -> None:
    """Forty of them, of which each row of the data looks up one."""

    def looked_up(y, kind):
        level = real("level", (2, 40))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.4, 0.6])))
            numpyro.sample("y", dist.Normal(level[t, kind], 1.0), obs=y)

    term = term_of(looked_up, Y, np.arange(120) % 40)
    assert term is not None
    assert term.event_shape == (41,)


def test_covariates_that_coincide_in_most_rows_are_two() -> None:
    """Steps that part in few rows, where the second goes with the other component."""

    def steps(t, x, a, b):
        return a[t] + b[t, 0] * jnp.where(t == 0, x[:, 0] > 1986.0, x[:, 0] > 1987.3) + b[t, 1]

    term = term_of(predicted(steps), Y, 1950 + 70 * np.random.default_rng(0).random((120, 2)))
    assert term is not None
    assert term.event_shape == (3,)


def test_without_predictors_all_is_as_the_program_says() -> None:
    known = read(REGRESSIONS["intercepts"].program, (Y, X))
    assert exponential_form(known, linear=False).generic == ("y",)
