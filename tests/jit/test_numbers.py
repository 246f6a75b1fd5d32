"""Numbers are no code: another prior, temperature, array or data set compiles nothing, and the answers are the same.

They are held against the same program with the numbers written into its code, where they are constants of what is
compiled.
"""

import functools
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.models import GaussianPrior, bayesian_gmm, diagonal, dirichlet, gmm, stick_breaking
from tests.jit.numbers_of_programs import LABELS, LINE, PLANE, assert_same, fit, written
from tests.programs.counted import COMPILATIONS

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

VALUES = (0.3, 1.0, 2.5, 0.07, 4.0)
HEIGHT = 1.0


def rates(x, *, shape, rate, strength=1.0):
    """Means with a normal prior, and precisions with a gamma prior."""
    with numpyro.plate("components", 3):
        precision = numpyro.sample("precision", dist.Gamma(shape, rate))
        loc = numpyro.sample("loc", dist.Normal(0.0, 1 / jnp.sqrt(strength * precision)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(loc[t], 1 / jnp.sqrt(precision[t])), obs=x)


class Prior(NamedTuple):
    shape: float
    rate: float


def closing_over(scale):
    """A program, made anew, that closes over an array."""

    def program(x):
        loc = numpyro.param("loc", jnp.arange(3.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("x", dist.Normal(loc[t], jnp.asarray(scale)[t]), obs=x)

    return program


def named(x):
    """A global that only a function inside the program names."""
    loc = numpyro.param("loc", jnp.arange(3.0))

    def component(t):
        return dist.Normal(loc[t], HEIGHT)

    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", component(numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))), obs=x)


def heavy(x, *, freedom):
    """On the gradient route."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.StudentT(freedom, loc[t], 1.0), obs=x)


def prior_of(strength):
    return GaussianPrior(PLANE.mean(0), strength, 4.0, np.cov(PLANE, rowvar=False))


def bayesian(strength, **options):
    program = functools.partial(bayesian_gmm, num_components=3, prior=prior_of(strength), **options)
    return program, PLANE, {"init": LABELS}


def of_bayes(strength):
    program, x, options = bayesian(strength, weights=functools.partial(dirichlet, concentration=1.0 + strength))
    return program, x, {**options, "families": probem.VARIATIONAL_BAYES}


def of_sticks(strength):
    program, x, options = bayesian(0.1, weights=functools.partial(stick_breaking, concentration=strength))
    return program, x, {**options, "families": probem.VARIATIONAL_BAYES}


def of_gamma(strength):
    program = functools.partial(rates, shape=2.0, rate=strength, strength=strength)
    return program, LINE, {"init": LABELS, "families": probem.VARIATIONAL_BAYES}


def of_map(strength):
    """Weak enough that no two components become one, which a fit looks into by another way of starting."""
    return bayesian(0.1 * strength, weights=functools.partial(dirichlet, concentration=1.0 + strength))


def of_closure(strength):
    return closing_over(np.array([1.0, 1.0 + strength, 2.0])), LINE, {"init": LABELS}


def of_gradient(freedom):
    return functools.partial(heavy, freedom=1.0 + freedom), LINE, {"init": LABELS}


def of_temperature(beta):
    program = functools.partial(gmm, num_components=3, covariance=diagonal)
    return program, PLANE, {"init": LABELS, "families": {"t": probem.Tempered(0.5 + beta)}}


def of_data(unit):
    return functools.partial(gmm, num_components=3, covariance=diagonal), PLANE * unit, {"init": LABELS}


def of_bounds(scale):
    return functools.partial(truncates, scale=0.4 + 0.02 * scale), LINE, {"init": LABELS}


SWEEPS = {
    "gamma prior": of_gamma,
    "closure": of_closure,
    "temperature": of_temperature,
    "gradient": of_gradient,
    "bounds of values": of_bounds,
    "data": of_data,
    "variational Bayes": of_bayes,
    "sticks": of_sticks,
    "MAP": of_map,
}


QUICK = ("gamma prior", "closure", "temperature")


def sweeps():
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SWEEPS]


@pytest.mark.parametrize("name", sweeps())
def test_after_the_first_value_nothing_is_compiled_and_the_answers_are_the_same(name: str) -> None:
    make = SWEEPS[name]
    fits = [fit(make(VALUES[0]))]
    fits[0].responsibilities(make(VALUES[0])[1][:5])
    COMPILATIONS.clear()
    fits += [fit(make(value)) for value in VALUES[1:]]
    for made, value in zip(fits, VALUES, strict=True):
        made.responsibilities(make(value)[1][:5])
    assert len(COMPILATIONS) == 0
    assert len({made.elbo for made in fits}) == len(VALUES)
    assert len({made.plan.structure for made in fits}) == 1
    # All but the first were made by what had been compiled for it, so that one stands for them.
    assert_same(fits[2], fit(written(make, VALUES[2])))


def test_a_number_in_any_form_is_the_same() -> None:
    """A float of Python's or NumPy's, an array of no dimensions."""

    def of(kind):
        program = functools.partial(rates, shape=kind(2.0), rate=kind(1.5), strength=kind(0.5))
        return fit((program, LINE, {"init": LABELS, "families": probem.VARIATIONAL_BAYES}))

    first = of(float)
    for kind in (np.float64, np.asarray, jnp.asarray):
        assert_same(first, of(kind))


def test_a_global_that_changes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook; a fit of before keeps what it was fitted with."""
    first = fit((named, LINE, {"init": LABELS}))
    before = first.log_density(LINE[:7])
    monkeypatch.setitem(globals(), "HEIGHT", 2.0)
    COMPILATIONS.clear()
    second = fit((named, LINE, {"init": LABELS}))
    assert len(COMPILATIONS) == 0
    for made, height in ((first, 1.0), (second, 2.0)):
        assert_same(made, fit((closing_over(np.full(3, height)), LINE, {"init": LABELS})))
    np.testing.assert_array_equal(first.log_density(LINE[:7]), before)
    # Rows of another number, for which functions are compiled anew.
    table = dist.Normal(first.params["loc"], 1.0).log_prob(LINE[:40, None])
    expected = jax.nn.logsumexp(table - math.log(3), 1)
    np.testing.assert_allclose(first.log_density(LINE[:40]), expected, rtol=1e-12)


def truncates(x, *, scale):
    """Where values may lie."""
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.TruncatedNormal(loc[t], 1.0, low=-20.0 * scale, high=20.0 * scale), obs=x)


def test_fits_of_other_numbers_are_saved_and_pickled(tmp_path) -> None:
    for number in (0.3, 2.5):
        arguments = of_gamma(number)
        made = fit(arguments)
        made.save(tmp_path / "fit.npz")
        for again in (probem.load(tmp_path / "fit.npz", arguments[0]), pickle.loads(pickle.dumps(made))):
            np.testing.assert_array_equal(again.responsibilities(LINE), made.responsibilities(LINE))
            np.testing.assert_array_equal(again.log_density(LINE), made.log_density(LINE))


def test_threads_each_have_their_numbers() -> None:
    """Four at once, of one structure that has not been compiled before."""

    def of(strength):
        program = functools.partial(rates, shape=3.0, rate=jnp.array([1.0, 2.0, strength]))
        return fit((program, LINE, {"init": LABELS, "families": probem.VARIATIONAL_BAYES}))

    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(of, VALUES[:4]))
    for value, fitted in zip(VALUES[:4], made, strict=True):
        assert_same(fitted, of(value))


def test_solve_has_a_derivative_by_its_data() -> None:
    """Of few columns XLA may form the table twice, with another rounding: then no entry is the maximum of its row."""
    program = functools.partial(rates, shape=2.0, rate=1.0)

    def bound(scale):
        return probem.solve(program, scale * jnp.asarray(LINE), init=LABELS, families=probem.VARIATIONAL_BAYES).elbo

    # F is known to about 1e-10 of itself, and the parts in h^2 are smaller.
    slope = (bound(1 + 1e-4) - bound(1 - 1e-4)) / 2e-4
    np.testing.assert_allclose(jax.jacfwd(bound)(1.0), slope, rtol=1e-6)


def test_planning_looks_at_every_number() -> None:
    """A concentration with which a point has no mode is refused after one with which it has, and allowed again."""

    def of(concentration):
        def program(x):
            weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(3, concentration)))
            loc = numpyro.param("loc", jnp.arange(3.0))
            with numpyro.plate("data", x.shape[0]):
                t = numpyro.sample("t", dist.Categorical(weights))
                numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

        return fit((program, LINE, {"init": LABELS}))

    first = of(2.0)
    with pytest.raises(probem.InputError, match="the posterior has no mode"):
        of(0.5)
    assert of(3.0).plan.structure == first.plan.structure
    # The mode of a Dirichlet: counts and concentrations less one.
    for made, concentration in ((first, 2.0), (of(3.0), 3.0)):
        shares = made.counts + concentration - 1
        np.testing.assert_allclose(made.params["weights"], shares / shares.sum(), rtol=1e-4)
