"""Log-normal and logit-normal observations: the fit of their logarithms and logits, and their own densities."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from numpyro.distributions import constraints, transforms

import probem
from probem.errors import InputError
from tests.programs.regressions import GROUP, TIME, Y, Z

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

START = probem.Labels(GROUP)
VB = probem.VARIATIONAL_BAYES


def normal(loc, scale):
    return dist.Normal(loc, scale)


def logit_normal(loc, scale):
    return dist.TransformedDistribution(dist.Normal(loc, scale), [transforms.SigmoidTransform()])


def twice(loc, scale):
    """The exponential of a number between 0 and 1."""
    return dist.TransformedDistribution(
        dist.Normal(loc, scale), [transforms.SigmoidTransform(), transforms.ExpTransform()]
    )


def expit(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


# The distribution, what it observes of a normal value, and the log of the slope of that.
TRANSFORMED: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]] = {
    "log-normal": (dist.LogNormal, np.exp, lambda z: z),
    "logit-normal": (logit_normal, expit, lambda z: np.log(expit(z)) + np.log(expit(-z))),
    "both": (twice, lambda z: np.exp(expit(z)), lambda z: expit(z) + np.log(expit(z)) + np.log(expit(-z))),
}


def mixture(observed: Callable[..., Any], x) -> None:
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.array([0.0, 1.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", observed(loc[t], scale[t]), obs=x)


def bayesian(observed: Callable[..., Any], x) -> None:
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    precision = numpyro.sample("precision", dist.Gamma(jnp.full(2, 2.0), 1.0).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(jnp.zeros(2), (0.1 * precision) ** -0.5).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=weights))
        numpyro.sample("x", observed(loc[t], precision[t] ** -0.5), obs=x)


def regression(observed: Callable[..., Any], y, time) -> None:
    a, b = numpyro.param("a", jnp.array([-1.0, 1.0])), numpyro.param("b", jnp.zeros(2))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", y.shape[0]):
        t = numpyro.sample("t", dist.Categorical(probs=jnp.array([0.5, 0.5])))
        numpyro.sample("y", observed(a[t] + b[t] * time, scale[t]), obs=y)


@pytest.mark.parametrize("program", [mixture, bayesian, regression])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "log-normal" else pytest.mark.slow) for name in TRANSFORMED]
)
def test_the_fit_is_that_of_normal_values(name: str, program: Callable[..., Any]) -> None:
    """With the same parameters; F and densities are of what was observed, the slope of the map less."""
    observed, values, log_slope = TRANSFORMED[name]
    families = VB if program is bayesian else None
    z, others = (Z, (TIME,)) if program is regression else (Y, ())
    plain = probem.fit(functools.partial(program, normal), z, *others, families=families, init=START)
    fit = probem.fit(functools.partial(program, observed), values(z), *others, families=families, init=START)
    assert not fit.plan.form.generic
    # The logit of a number that was rounded near 1 has lost some digits.
    np.testing.assert_allclose(fit.elbo, plain.elbo - log_slope(z).sum(), rtol=1e-7)
    # Where a rule of 1e-10 nats a row stops, parameters are less certain than F.
    for site, value in plain.params.items():
        np.testing.assert_allclose(fit.params[site], value, rtol=1e-5)
    new, beside = np.linspace(-1.0, 2.0, 5), tuple(other[:5] for other in others)
    expected = plain.log_density(new, *beside) - log_slope(new)
    np.testing.assert_allclose(fit.log_density(values(new), *beside), expected, rtol=1e-6)
    responsibilities = plain.responsibilities(new, *beside)
    np.testing.assert_allclose(fit.responsibilities(values(new), *beside), responsibilities, atol=1e-6)


@pytest.mark.parametrize("program", [mixture, bayesian, regression])
def test_the_theory_holds_on_log_normal_values(program: Callable[..., Any]) -> None:
    data = (np.exp(Z[:40]), TIME[:40]) if program is regression else (np.exp(Y[:40]),)
    families = VB if program is bayesian else None
    probem.check(functools.partial(program, dist.LogNormal), *data, families=families).raise_for_failure()


def test_missing_values_are_left_out_and_imputed_with_their_mean() -> None:
    x = np.where(np.arange(120) % 7 == 0, np.nan, np.exp(Y))
    fit = probem.fit(functools.partial(mixture, dist.LogNormal), x, init=START)
    plain = probem.fit(functools.partial(mixture, normal), np.log(x), init=START)
    np.testing.assert_allclose(fit.elbo, plain.elbo - np.nansum(np.log(x)), rtol=1e-10)
    weights, loc, scale = (np.asarray(fit.params[site]) for site in ("weights", "loc", "scale"))
    expected = (weights * scipy.stats.lognorm(scale, scale=np.exp(loc)).mean()).sum()
    np.testing.assert_allclose(fit.impute(x)[np.isnan(x)], expected, rtol=1e-8)


def test_noise_on_log_normal_values_is_refused() -> None:
    """It is no noise on their logarithms."""
    with pytest.raises(InputError, match="added_variance for x"):
        probem.fit(functools.partial(mixture, dist.LogNormal), np.exp(Y), added_variance=0.1)


def test_a_transform_with_parameters_keeps_to_the_gradient() -> None:
    def shifted(loc, scale):
        return dist.TransformedDistribution(dist.Normal(0.0, 1.0), transforms.AffineTransform(loc, scale))

    fit = probem.fit(functools.partial(mixture, shifted), Y, init=START, throw=False)
    assert fit.plan.form.generic == ("x",)
