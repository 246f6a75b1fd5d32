"""MAP under a prior without a bound is refused; the posterior density that has none is followed by hand once."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem import InputError
from probem.analysis.unbounded import check_bounded
from probem.program.reading import read

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

X = np.array([0.2, 0.9, 9.7, 11.1, 12.3])


def precisions(x, weights, precision, shared=False, free=False):
    """Two normal components with a prior on the weights, and one on their precisions."""
    strength = numpyro.param("strength", 1.0, constraint=dist.constraints.positive) if free else 1.0
    w = numpyro.sample("w", dist.Dirichlet(strength * jnp.asarray(weights)))
    loc = numpyro.sample("loc", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
    tau = numpyro.sample("tau", precision if shared else precision.expand([2]).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(w))
        scale = 1 / jnp.sqrt(tau)
        numpyro.sample("x", dist.Normal(loc[t], scale if shared else scale[t]), obs=x)


TWO, GAMMA = (2.0, 2.0), dist.Gamma(2.0, 1.0)
REFUSED = {
    "Dirichlet": (functools.partial(precisions, weights=(0.5, 0.5), precision=GAMMA), "'w' under a Dirichlet"),
    "one entry": (functools.partial(precisions, weights=(3.0, 0.9), precision=GAMMA), "'w' under a Dirichlet"),
    "gamma": (functools.partial(precisions, weights=TWO, precision=dist.Gamma(0.5, 1e5)), "'tau' under a Gamma"),
    "Weibull": (functools.partial(precisions, weights=TWO, precision=dist.Weibull(1.0, 0.7)), "'tau' under a Weibull"),
    "upper edge": (functools.partial(precisions, weights=TWO, precision=dist.Beta(2.0, 0.5)), "'tau' under a Beta"),
    "free": (functools.partial(precisions, weights=TWO, precision=GAMMA, free=True), "'w' under a Dirichlet"),
}
TAKEN = {
    "just bounded": functools.partial(precisions, weights=(1.0, 1.0), precision=dist.Gamma(1.0, 1e5)),
    # The likelihood of three rows vanishes faster than such a prior rises.
    "shared": functools.partial(precisions, weights=TWO, precision=dist.Gamma(1e-3, 1e-3), shared=True),
    "heavy tails": functools.partial(precisions, weights=TWO, precision=dist.LogNormal(0.0, 3.0)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_mode(name: str) -> None:
    program, message = REFUSED[name]
    known = read(program, (X,))
    with pytest.raises(InputError, match=rf"a point \(MAP\) for {message} prior .*; use the family Conjugate\(\)"):
        check_bounded(known, ("w", "loc", "tau"))


@pytest.mark.parametrize("name", TAKEN)
def test_a_mode(name: str) -> None:
    check_bounded(read(TAKEN[name], (X,)), ("w", "loc", "tau"))


def test_the_posterior_grows_without_end_where_fit_says_so() -> None:
    """NumPy's own sum: the density of everything at w_1 = d rises by log(10) / 2 for each power of ten."""
    program, _ = REFUSED["Dirichlet"]
    with pytest.raises(InputError, match="the posterior has no mode"):
        probem.fit(program, X)
    with pytest.raises(InputError, match="the posterior has no mode"):
        probem.explain(program, X)

    def density(d: float) -> float:
        normal = -0.5 * (X[:, None] - np.array([0.0, 7.0])) ** 2 - 0.5 * np.log(2 * np.pi)
        return float(np.log((np.array([d, 1 - d]) * np.exp(normal)).sum(1)).sum() - 0.5 * np.log([d, 1 - d]).sum())

    assert density(1e-210) - density(1e-200) == pytest.approx(5 * np.log(10), rel=1e-9)
    # A full posterior is no point.
    chosen = probem.VARIATIONAL_BAYES | {"loc": probem.Delta(), "tau": probem.Delta()}
    assert probem.explain(program, X, families=chosen).rows
