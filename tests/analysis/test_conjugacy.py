"""A prior that cannot have a full posterior is refused in one sentence, before anything is fitted."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

import probem
from probem import models
from probem.models import bayesian_covariance
from tests.programs.bayesian import EXAMPLES, NORMAL, PRIOR, fitted, mixture
from tests.sentences import refused

sample = numpyro.sample


def weights() -> jax.Array:
    return sample("weights", dist.Dirichlet(jnp.ones(2)))


def wishart(dof: Any = 3.0, rate: Any = None) -> jax.Array:
    rate = jnp.eye(2) if rate is None else rate
    return sample("precision", dist.Wishart(dof, rate_matrix=rate).expand([2]).to_event(1))


def normal(scale: float = 10.0) -> jax.Array:
    return sample("loc", dist.Normal(0.0, scale).expand([2, 2]).to_event(2))


def of_matrices(loc: jax.Array, precision: jax.Array, t: jax.Array) -> dist.Distribution:
    return dist.MultivariateNormal(loc[t], precision_matrix=precision[t])


def of_scales(loc: jax.Array, scale: jax.Array, t: jax.Array) -> dist.Distribution:
    return dist.Normal(loc[t], scale[t]).to_event(1)


def write(
    weights: Callable[[], jax.Array] = weights,
    precision: Callable[[], jax.Array] = wishart,
    loc: Callable[[], jax.Array] = normal,
    observed: Callable[..., dist.Distribution] = of_matrices,
) -> Callable[[jax.Array], None]:
    """A Gaussian mixture of two components with one part replaced."""

    def program(x: jax.Array) -> None:
        mixing, spread, centres = weights(), precision(), loc()
        with numpyro.plate("data", x.shape[0]):
            t = sample("t", dist.Categorical(mixing))
            sample("x", observed(centres, spread, t), obs=x)

    return program


def each(distribution: dist.Distribution) -> dist.Distribution:
    return distribution.expand([2, 2]).to_event(2)


def gamma_on_scales() -> jax.Array:
    return sample("scale", each(dist.Gamma(1.0, 1.0)))


def scaled() -> jax.Array:
    with handlers.scale(scale=0.5):
        return weights()


def uniform_weights() -> jax.Array:
    first = sample("u", dist.Uniform(0.0, 1.0))
    return jnp.stack([first, 1 - first])


def uncertain_concentration() -> jax.Array:
    alpha = sample("alpha", dist.Gamma(1.0, 1.0))
    return sample("weights", dist.Dirichlet(jnp.full(2, alpha)))


def product() -> jax.Array:
    return sample("a", each(dist.Normal(0.0, 1.0))) * sample("b", dist.Normal(0.0, 1.0))


def times_a_parameter(loc: jax.Array, precision: jax.Array, t: jax.Array) -> dist.Distribution:
    factor = numpyro.param("s", 1.0, constraint=dist.constraints.positive)
    return dist.MultivariateNormal(loc[t], precision_matrix=factor * precision[t])


def of_tails(loc: jax.Array, precision: jax.Array, t: jax.Array) -> dist.Distribution:
    return dist.StudentT(4.0, loc[t], 1 / jnp.sqrt(precision[t])).to_event(1)


IMPROPER_WEIGHTS = "an improper prior on 'weights' .*; expected positive, finite concentrations"
IMPROPER_MATRIX = "an improper prior on 'precision' .*; expected a positive definite matrix and a concentration above"
IMPROPER_LOCATION = "an improper prior on 'loc' .*; expected a finite location and a positive, finite spread"
UNKNOWN = r"with a prior of class {} \(known: Beta, Dirichlet, .*MultivariateNormal\); expected .*NUTS"

#: Programs, each wrong in one way.
PROGRAMS = {
    "no concentration": (write(lambda: sample("weights", dist.Dirichlet(jnp.zeros(2)))), IMPROPER_WEIGHTS),
    "negative concentration": (
        write(lambda: sample("weights", dist.Dirichlet(jnp.array([1.0, -1.0])))),
        IMPROPER_WEIGHTS,
    ),
    "more weights than components": (
        write(lambda: sample("weights", dist.Dirichlet(jnp.ones(4)))),
        "one distribution for the last two of the 4 values of 't'",
    ),
    "degrees of freedom": (write(precision=functools.partial(wishart, 0.5)), IMPROPER_MATRIX),
    "indefinite matrix": (write(precision=functools.partial(wishart, 3.0, -jnp.eye(2))), IMPROPER_MATRIX),
    "matrix of another size": (
        write(precision=functools.partial(wishart, 5.0, jnp.eye(3))),
        "ValueError from the program on data of shape .*Incompatible shapes",
    ),
    "improper location": (
        write(loc=lambda: sample("loc", dist.ImproperUniform(dist.constraints.real, (), (2, 2)))),
        "on 'loc', " + UNKNOWN.format("ImproperUniform"),
    ),
    "infinite scale": (write(loc=functools.partial(normal, jnp.inf)), IMPROPER_LOCATION),
    "correlations": (
        write(
            precision=lambda: sample("factor", dist.LKJCholesky(2, 1.0).expand([2]).to_event(1)),
            observed=lambda loc, factor, t: dist.MultivariateNormal(loc[t], scale_tril=factor[t]),
        ),
        "on 'factor', " + UNKNOWN.format("LKJCholesky"),
    ),
    "half normal": (
        write(precision=lambda: sample("scale", each(dist.HalfNormal(1.0))), observed=of_scales),
        "on 'scale', " + UNKNOWN.format("HalfNormal"),
    ),
    "gamma on a scale": (
        write(precision=gamma_on_scales, observed=of_scales),
        "on 'scale', on which the spread, rate or probability of 'x' depends in a way that is not conjugate",
    ),
    "gamma on a location": (
        write(loc=lambda: sample("loc", each(dist.Gamma(1.0, 1.0)))),
        "on 'loc', with a Gamma prior, on which the location of 'x' depends",
    ),
    "normal on logits": (
        write(lambda: jax.nn.softmax(sample("logits", dist.Normal(0.0, 1.0).expand([2]).to_event(1)))),
        "on 'logits', with a Normal prior, on which the spread, rate or probability of 't' depends",
    ),
    "no exponential family": (
        write(precision=lambda: sample("precision", each(dist.Gamma(1.0, 1.0))), observed=of_tails),
        "on 'precision', on which 'x' depends, a density without an exponential-family form",
    ),
    "prior on a concentration": (
        write(uncertain_concentration),
        "on 'alpha', on which 'weights' depends in a way that has no conjugate prior",
    ),
    "uniform": (write(uniform_weights), "on 'u', " + UNKNOWN.format("Uniform")),
    "product of locations": (
        write(loc=product),
        "on 'a', on which the location of 'x' depends in a way that is not conjugate",
    ),
    "together with a parameter": (
        write(observed=times_a_parameter),
        "on 'precision', which 'x' depends on together with 's', a site without Conjugate",
    ),
    "scaled prior": (write(scaled), "on 'weights', whose prior is scaled by a handler"),
    "no sticks": (
        write(lambda: jnp.append(sample("sticks", dist.Beta(1.0, 1.0).expand([0]).to_event(1)), jnp.ones(2) / 2)),
        r"the site 'sticks' of shape \(0,\) with no entries",
    ),
}
# Refused before the program is matched with random values, or the like of many others.
QUICK = ("more weights than components", "matrix of another size", "half normal", "scaled prior", "no sticks")


def marked(name: str) -> Any:
    return pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("name", [marked(name) for name in PROGRAMS])
def test_programs(name: str) -> None:
    program, message = PROGRAMS[name]
    with refused(message):
        probem.explain(program, NORMAL, families=probem.VARIATIONAL_BAYES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["half normal", "gamma on a scale", "uniform"])
def test_the_remedy_works(name: str) -> None:
    """With Delta() where the sentence says so the program is taken."""
    program, message = PROGRAMS[name]
    site = message.split("'")[1]
    families = probem.VARIATIONAL_BAYES | {site: probem.Delta()}
    found = {row.site: row.family for row in probem.explain(program, NORMAL, families=families).rows}
    assert found[site] == "Delta() (MAP)"
    assert "Conjugate()" in found.values()


@pytest.mark.slow
def test_the_plain_program_is_not_refused() -> None:
    """The planted fault of the programs above: without one, there is no sentence."""
    found = probem.explain(write(precision=lambda: 1.0, observed=of_unit), NORMAL, families=probem.VARIATIONAL_BAYES)
    assert {row.site: row.family for row in found.rows} == {
        "t": "Categorical()",
        "weights": "Conjugate()",
        "loc": "Conjugate()",
        "x": "",
    }


def of_unit(loc: jax.Array, precision: float, t: jax.Array) -> dist.Distribution:
    return dist.Normal(loc[t], precision).to_event(1)


def bayesian(**options: Any) -> Callable[[jax.Array], None]:
    return functools.partial(models.bayesian_gmm, **{"num_components": 2, "prior": PRIOR, **options})


#: Models of probem.models, and families, each wrong in one way.
MODELS = {
    "truncated at one": (
        functools.partial(models.dirichlet_process_gmm, num_components=1, prior=PRIOR),
        probem.VARIATIONAL_BAYES,
        "a stick-breaking prior truncated at 1 component; it takes at least two",
    ),
    "prior of another size": (
        bayesian(prior=models.GaussianPrior.from_data(jnp.tile(NORMAL, 2), 2)),
        probem.VARIATIONAL_BAYES,
        r"a prior of mean \(4,\) and scatter \(4, 4\) for 2 columns",
    ),
    "too few degrees of freedom": (
        bayesian(prior=PRIOR._replace(dof=0.5)),
        probem.VARIATIONAL_BAYES,
        IMPROPER_MATRIX,
    ),
    "no strength": (bayesian(prior=PRIOR._replace(strength=0.0)), probem.VARIATIONAL_BAYES, IMPROPER_LOCATION),
    "no concentration": (
        bayesian(weights=functools.partial(models.dirichlet, concentration=0.0)),
        probem.VARIATIONAL_BAYES,
        IMPROPER_WEIGHTS,
    ),
    "a full posterior of an assignment": (
        bayesian(covariance=bayesian_covariance.spherical),
        {"t": probem.Conjugate()},
        r"Conjugate\(\) on the assignment 't'; expected a family for assignments",
    ),
    "no prior at all": (
        functools.partial(models.gmm, num_components=2),
        probem.VARIATIONAL_BAYES,
        "VARIATIONAL_BAYES for a program in which no site outside the data plate has a prior",
    ),
    "an assignment's family": (
        bayesian(covariance=bayesian_covariance.spherical),
        {"loc": probem.Categorical()},
        r"Categorical\(\) on the continuous site 'loc'",
    ),
    "a full posterior of a param": (
        functools.partial(models.gmm, num_components=2),
        {"loc": probem.Conjugate()},
        "a family for 'loc', a param site without a prior",
    ),
    "a misspelt site": (
        bayesian(covariance=bayesian_covariance.spherical),
        probem.VARIATIONAL_BAYES | {"lok": probem.Delta()},
        "a family for the unknown site 'lok'; expected .*; did you mean 'loc'",
    ),
}
SLOW_MODELS = ("too few degrees of freedom", "no strength", "no concentration")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW_MODELS else []) for name in MODELS]
)
def test_models(name: str) -> None:
    program, families, message = MODELS[name]
    with refused(message):
        probem.explain(program, NORMAL, families=families)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loc": NORMAL[:2]}, r"a start for 'loc', a site with the family Conjugate\(\), that is a value"),
        ({"loc": {"loc": np.zeros((2, 2))}}, r"of shapes \{'loc': \(2, 2\)\}; expected the arguments of its q"),
        (
            {"weights": {"concentration": np.ones((1, 3))}},
            r"a start for 'weights', .* of shapes \{'concentration': \(1, 3\)\}; expected .*\(1, 2\)",
        ),
        (
            {"weights": {"concentration": -np.ones((1, 2))}},
            "a start for the q of 'weights' that is no distribution; expected positive, finite concentrations",
        ),
    ],
    ids=["a value", "half of it", "another shape", "improper"],
)
def test_starts(values: dict[str, Any], message: str) -> None:
    with refused(message):
        probem.fit(
            mixture("full"), NORMAL, families=probem.VARIATIONAL_BAYES, init=probem.Parameters(values), max_steps=2
        )


@pytest.mark.slow
def test_questions_without_a_closed_form() -> None:
    fit = fitted("factorised location")
    message = "the posterior predictive density of 'x', with a location and a precision that are independent under q"
    with refused(message):
        fit.log_density(NORMAL)
    assert np.isfinite(fit.log_density(NORMAL, plug_in=True)).all()
    with refused("num_draws=0; expected a whole number of at least 1"):
        fit.to_datatree(NORMAL, num_draws=0)
    other = probem.fit(
        mixture("known variance", 3), EXAMPLES["known variance"].rows, families=probem.VARIATIONAL_BAYES, key=1
    )
    with refused("fits with 2 and 3 components; expected the same number in both"):
        probem.align(fit, other, NORMAL)
