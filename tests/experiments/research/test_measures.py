"""Errors of parameters, whatever their sites share, and what data is told apart by."""

import dataclasses
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.experiments.research.data import Data, source_of
from probem.experiments.research.measures import Measured, measure_all
from probem.experiments.research.resolution import Resolver
from probem.models import gmm

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

PAIRS = np.random.default_rng(0).normal(size=(40, 2)) + np.repeat([[0.0, 3.0], [3.0, 0.0]], 20, axis=0)


def shared(x):
    """Means by component; a shift of the columns, a scale and a correlation that all components share."""
    loc = numpyro.param("loc", jnp.array([[0.0, 3.0], [3.0, 0.0]]))
    shift = numpyro.param("shift", jnp.array([0.5, -0.5]))
    scale = numpyro.param("scale", jnp.array(1.0), constraint=dist.constraints.positive)
    factor = numpyro.param("factor", jnp.array([[1.0, 0.0], [0.3, 1.0]]), constraint=dist.constraints.lower_cholesky)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.MultivariateNormal(loc[t] + shift, scale_tril=scale * factor), obs=x)


def in_two_ways(x):
    """A mean by one assignment, a standard deviation by another, and the probability of each pair."""
    loc = numpyro.param("loc", jnp.array([-1.0, 2.0]))
    scale = numpyro.param("scale", jnp.array([0.5, 2.0]), constraint=dist.constraints.positive)
    given = numpyro.param("given", jnp.array([[0.7, 0.3], [0.2, 0.8]]), constraint=dist.constraints.simplex)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        u = numpyro.sample("u", dist.Categorical(given[t]))
        numpyro.sample("x", dist.Normal(loc[t], scale[u]), obs=x)


@functools.cache
def fitted(program, columns):
    rows = PAIRS if columns == 2 else PAIRS[:, 0]
    return probem.fit(program, rows, max_steps=1, throw=False)


def errors(program, columns, true, params):
    """The errors of a fit with these parameters."""
    fit = fitted(program, columns)
    fit = dataclasses.replace(
        fit, params={**fit.params, **{name: jnp.asarray(value) for name, value in params.items()}}
    )
    values, failures = measure_all(
        ["parameters_error"], Path(), Measured(fit, Data(PAIRS, None, None, true), None, 0.0)
    )
    assert failures == []
    return {name.partition(".")[2]: value for name, value in values.items()}


def test_what_all_components_share_has_no_numbering():
    """A vector or matrix with as many entries as there are components included: it is compared as it stands."""
    true = {
        "loc": np.array([[0.0, 3.0], [3.0, 0.0]]),
        "shift": np.array([0.5, -0.5]),
        "scale": np.array(2.0),
        "factor": np.array([[1.0, 0.0], [0.3, 1.0]]),
    }
    exchanged = {**true, "loc": true["loc"][::-1]}
    assert errors(shared, 2, true, exchanged) == pytest.approx(dict.fromkeys(true, 0.0))
    off = {**exchanged, "scale": np.array(2.5), "shift": true["shift"][::-1], "loc": exchanged["loc"] + [0.0, 0.3]}
    assert errors(shared, 2, true, off) == pytest.approx(
        {"loc": 0.3 / np.sqrt(2), "shift": 1.0, "scale": 0.5, "factor": 0.0}
    )


def test_a_scalar_alone():
    assert errors(shared, 2, {"scale": np.array(2.0)}, {"scale": 2.5}) == pytest.approx({"scale": 0.5})


def test_two_assignments_have_a_numbering_each():
    """The first is exchanged, the second is not; what both look up follows both."""
    true = {
        "loc": np.array([-1.0, 2.0]),
        "scale": np.array([0.5, 2.0]),
        "given": np.array([[0.7, 0.3], [0.2, 0.8]]),
    }
    exchanged = {"loc": true["loc"][::-1], "scale": true["scale"] + 0.1, "given": true["given"][::-1]}
    assert errors(in_two_ways, 1, true, exchanged) == pytest.approx({"loc": 0.0, "scale": 0.1, "given": 0.0})


# --- the fingerprint of data ---


def fingerprint(folder, rows):
    np.save(folder / "rows.npy", rows)
    return source_of({"name": "rows.npy"}, Resolver(folder)).fingerprint()


def test_the_same_bytes_in_another_shape_are_other_data(tmp_path):
    """A sweep that resumes would have taken the results of six rows for those of four; and a file that is written anew
    between two sweeps of one process is read anew.
    """
    numbers = np.arange(12.0)
    first = fingerprint(tmp_path, numbers.reshape(6, 2))
    assert fingerprint(tmp_path, numbers.reshape(6, 2)) == first
    assert fingerprint(tmp_path, numbers.reshape(4, 3)) != first
    assert fingerprint(tmp_path, numbers[::-1].reshape(6, 2)) != first


def test_labels_and_rows_are_told_apart(tmp_path):
    """Two columns of rows, and one with labels that have the same bytes."""
    prints = set()
    for returned in ("x", "x[:, :1], x[:, 1].copy()", "x[:, :1]", "x, None, {'loc': x[0]}", "x, None, {'loc': x[1]}"):
        (tmp_path / "own.py").write_text(
            f"import numpy as np\n\n\ndef rows():\n    x = np.arange(12.0).reshape(6, 2)\n    return {returned}\n"
        )
        prints.add(source_of({"name": "own.py:rows"}, Resolver(tmp_path)).fingerprint())
    assert len(prints) == 5


def test_weights_that_are_equal_but_for_rounding_decide_no_numbering():
    """7 times 1/7 has a variance of 8e-34: divided by it, nothing else would count."""
    true = {"loc": 10.0 * np.arange(7.0)[:, None], "weights": np.full(7, 1 / 7)}
    assert true["weights"].var() > 0
    rows = np.repeat(true["loc"], 3, axis=0) + np.tile([[-0.1], [0.0], [0.1]], (7, 1))
    fit = probem.fit(functools.partial(gmm, num_components=7), rows, max_steps=1, throw=False)
    order = np.random.default_rng(0).permutation(7)
    weights = np.linspace(0.1, 0.2, 7)
    fit = dataclasses.replace(fit, params={**fit.params, "loc": true["loc"][order], "weights": weights / weights.sum()})
    values, failures = measure_all(["parameters_error"], Path(), Measured(fit, Data(rows, None, None, true), None, 0.0))
    assert failures == []
    assert values["parameters_error.loc"] == 0.0
