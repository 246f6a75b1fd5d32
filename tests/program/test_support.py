"""Values outside the support of their distribution are refused in words, wherever data comes in.

What is inside is SciPy's and the definition's to say: each support has a value on either side of its edge here.
"""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probem
from probem import InputError
from probem.models import poisson_mixture
from probem.program.reading import read
from probem.program.support import check_support, rows_outside

HALF = jnp.full(2, 0.5)


def mixture(x, *rest, make):
    """Components of any distribution: ``make(a, t, *rest)`` with a positive parameter of every component."""
    a = numpyro.param("a", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(HALF))
        numpyro.sample("x", make(a[t], t, *rest), obs=x)


def _probability(a):
    return jnp.stack([a / (1 + a), 1 / (1 + a)], -1)


LOW, HIGH = jnp.array([0.0, 5.0]), jnp.array([2.0, 8.0])
NO_PAIR = np.array([[[2.0, 1.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]]])
# A distribution, data without and with a value outside, and what is said of it.
CASES = {
    "categories": (lambda a, t: dist.Categorical(logits=jnp.stack([a, -a, a], -1)), [0.0, 2.0], [2.0, 3.0], "0 to 2"),
    "answers": (lambda a, t: dist.Bernoulli(logits=a), [0.0, 1.0], [1.0, 3.488], "0 or 1"),
    "Poisson": (lambda a, t: dist.Poisson(a), [0.0, 7.0], [1.0, 3.6], "whole numbers from 0,"),
    "a negative count": (lambda a, t: dist.Poisson(a), [0, 7], [1, -1], r"the value -1 of 'x' \(row 1\)"),
    "zeros of a mixture": (lambda a, t: dist.ZeroInflatedPoisson(0.3, a), [0.0, 7.0], [1.0, 6.5], "whole numbers"),
    # The density of an exponential time of 0 is its rate, that of a gamma or beta variable is 0 or infinite.
    "exponential": (lambda a, t: dist.Exponential(a), [0.0, 1.0], [0.0, -1.0], "numbers from 0,"),
    "gamma": (lambda a, t: dist.Gamma(a, 1.0), [0.1, 1.0], [1.0, 0.0], "numbers above 0,"),
    "beta": (lambda a, t: dist.Beta(a, 2.0), [0.1, 0.9], [0.1, 1.0], "above 0 and below 1"),
    "circle": (lambda a, t: dist.VonMises(a, 1.0), [-3.0, 3.0], [0.0, 6.0], r"write them as \(x \+ pi\)"),
    # A bound that is a parameter may move; the other one does not.
    "free bound": (lambda a, t: dist.Uniform(0.0, a), [0.0, 99.0], [1.0, -1.0], "numbers from 0,"),
    "own bounds": (lambda a, t: dist.Uniform(LOW[t], HIGH[t]), [1.5, 7.0], [1.5, 3.0], "of its row or component"),
    "cut off": (lambda a, t: dist.TruncatedNormal(a, 1.0, low=2.0), [2.0, 3.0], [2.0, 1.5], "numbers from 2,"),
    "exp of normal": (lambda a, t: dist.LogNormal(a, 1.0), [0.1, 3.0], [1.0, 0.0], "above 0"),
    "totals": (lambda a, t: dist.Multinomial(4, _probability(a)), [[1.0, 3.0]], [[1.0, 2.0]], "add up to the total"),
    "probabilities": (
        lambda a, t: dist.Dirichlet(a[..., None] * jnp.ones(2)),
        [[0.5, 0.5]],
        [[0.0, 1.0]],
        "probabilities above 0 that add up to 1",
    ),
    "matrices": (
        lambda a, t: dist.Wishart(4.0 + a, rate_matrix=jnp.eye(2)),
        np.stack([NO_PAIR[0], np.full((2, 2), np.nan)]),
        NO_PAIR,
        "positive definite",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_one_value_outside(name: str) -> None:
    make, inside, outside, message = CASES[name]
    program = functools.partial(mixture, make=make)
    good, bad = (np.asarray(inside),), (np.asarray(outside),)
    known = read(program, good)
    check_support(known, good)
    assert rows_outside(known, good) is None
    with pytest.raises(InputError, match=rf"outside the support of its .*{message}|{message}.*outside the support"):
        check_support(known, bad)
    # What a row of weight 0 holds is no value.
    found = rows_outside(known, bad)
    check_support(known, bad, 1.0 - found)


def test_bounds_and_masks_of_every_row() -> None:
    """Binomial counts with a total for each row; a value that is masked is none; in blocks of which the last is cut."""
    counted = functools.partial(mixture, make=lambda a, t, n: dist.Binomial(n, a / (1 + a)))
    n = np.arange(1.0, 20_001.0)
    x = np.minimum(n, 7.0)
    known = read(counted, (x, n))
    check_support(known, (x, n))
    x[17_000] = n[17_000] + 1
    with pytest.raises(InputError, match=r"the value 17002 of 'x' \(row 17000\).*Binomial"):
        check_support(known, (x, n))
    masked = functools.partial(mixture, make=lambda a, t, seen: dist.Gamma(a, 1.0).mask(seen))
    data = np.array([1.0, -1.0, 2.0]), np.array([True, False, True])
    check_support(read(masked, data), data)
    np.testing.assert_array_equal(rows_outside(read(masked, data), (data[0], ~data[1])), [False, True, False])


COUNTS = np.array([[0.0, 1.0], [9.0, 8.0], [1.0, 0.0], [7.0, np.nan]])
HALVES = COUNTS + 0.6
POISSON = functools.partial(poisson_mixture, num_components=2)


@pytest.fixture(scope="module")
def counted():
    return probem.fit(POISSON, COUNTS)


VERBS = {
    "fit": lambda fit, x: probem.fit(POISSON, x),
    "solve": lambda fit, x: probem.solve(POISSON, x),
    "fit_many": lambda fit, x: probem.fit_many(POISSON, np.stack([COUNTS, x])),
    "select": lambda fit, x: probem.select(poisson_mixture, x, over={"num_components": [2]}),
    "explain": lambda fit, x: probem.explain(POISSON, x),
    "log_joint": lambda fit, x: probem.log_joint(POISSON, fit.params, x[:3]),
    "elbo": lambda fit, x: probem.elbo(POISSON, fit.params, np.full((3, 2), 0.5), x[:3]),
    "absorb": lambda fit, x: probem.absorb(fit, x),
    "responsibilities": lambda fit, x: fit.responsibilities(x),
    "predict": lambda fit, x: fit.predict(x),
    "impute": lambda fit, x: fit.impute(x),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_refuses_them(verb: str, counted) -> None:
    where = " of data set 1" if verb == "fit_many" else ""
    with pytest.raises(InputError, match=rf"the value 0.6 of 'x' \(row 0{where}, column 0\).*Poisson distribution"):
        VERBS[verb](counted, HALVES)


def test_their_density_is_zero(counted) -> None:
    """That is an answer; the other rows keep theirs."""
    mixed = np.where(np.arange(4)[:, None] == 2, HALVES, COUNTS)
    expected = np.where(np.arange(4) == 2, -np.inf, counted.log_density(COUNTS))
    np.testing.assert_array_equal(counted.log_density(mixed), expected)
