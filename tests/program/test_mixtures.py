"""Mixtures that sum over their assignment, written out: p(x) stays what it was, by NumPyro's own density."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import probem

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

unit, positive, simplex = dist.constraints.unit_interval, dist.constraints.positive, dist.constraints.simplex
RANDOM = np.random.default_rng(0)
LINE = np.r_[RANDOM.normal(-2, 1, 40), RANDOM.normal(3, 1, 40)]
PLANE = np.c_[LINE, RANDOM.normal(size=80)]
COUNTS = RANDOM.poisson(3, 60) * (RANDOM.random(60) < 0.7)


def weights():
    return dist.Categorical(numpyro.param("weights", jnp.full(2, 0.5), constraint=simplex))


def observe(x, density):
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", density, obs=x)


def normal(x):
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    observe(x, dist.MixtureSameFamily(weights(), dist.Normal(loc, 1.0)))


def two_columns(x):
    loc = numpyro.param("loc", jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    observe(x, dist.MixtureSameFamily(weights(), dist.Normal(loc, 1.0).to_event(1)))


def one_covariance(x):
    loc = numpyro.param("loc", jnp.array([[-1.0, 0.0], [1.0, 0.0]]))
    scale_tril = numpyro.param("scale_tril", jnp.eye(2), constraint=dist.constraints.lower_cholesky)
    observe(x, dist.MixtureSameFamily(weights(), dist.MultivariateNormal(loc, scale_tril=scale_tril)))


def by_row(x):
    loc, slope = numpyro.param("loc", jnp.array([-1.0, 1.0])), numpyro.param("slope", jnp.zeros(2))
    density = dist.MixtureSameFamily(weights(), dist.Normal(loc + slope * x[:, 1, None], 1.0))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("x", density, obs=x[:, 0])


def listed(x):
    low, high = numpyro.param("low", -1.0), numpyro.param("high", 1.0)
    observe(x, dist.MixtureGeneral(weights(), [dist.Normal(low, 1.0), dist.Normal(high, 1.0)]))


def unlike(x):
    low, spread = numpyro.param("low", -1.0), numpyro.param("spread", 1.0, constraint=positive)
    parts = [dist.Normal(low, 1.0), dist.HalfNormal(spread)]
    observe(x, dist.MixtureGeneral(weights(), parts, support=dist.constraints.real))


def inflated_poisson(x):
    gate, rate = numpyro.param("gate", 0.5, constraint=unit), numpyro.param("rate", 2.0, constraint=positive)
    observe(x, dist.ZeroInflatedPoisson(gate, rate))


def inflated_binomial(x):
    gate, probs = numpyro.param("gate", 0.5, constraint=unit), numpyro.param("probs", 0.4, constraint=unit)
    observe(x, dist.ZeroInflatedDistribution(dist.Binomial(20, probs), gate=gate))


def inflated_by_logits(x):
    logits, mean = numpyro.param("logits", 0.5), numpyro.param("mean", 2.0, constraint=positive)
    observe(x, dist.ZeroInflatedDistribution(dist.NegativeBinomial2(mean, 2.0), gate_logits=logits))


PROGRAMS = {
    normal: (LINE, "closed form"),
    two_columns: (PLANE, "closed form"),
    one_covariance: (PLANE, "closed form"),
    by_row: (PLANE, "gradient"),
    listed: (LINE, "closed form"),
    unlike: (LINE, "gradient"),
    inflated_poisson: (COUNTS, "closed form"),
    inflated_binomial: (COUNTS, ""),
    inflated_by_logits: (COUNTS, "gradient"),
}


@pytest.mark.filterwarnings("ignore:Out-of-support values")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_the_bound_is_the_log_density_of_the_program_as_it_was(program):
    rows, update = PROGRAMS[program]
    written = probem.with_assignments(program)
    fit = probem.fit(written, rows)
    expected, _ = log_density(program, (jnp.asarray(rows),), {}, dict(fit.params))
    assert fit.elbo == pytest.approx(float(expected), rel=1e-11)
    random = np.random.default_rng(1)
    for _ in range(10):
        nearby = {name: value * (1 + 1e-2 * random.normal(size=np.shape(value))) for name, value in fit.params.items()}
        if "weights" in nearby:
            nearby["weights"] /= nearby["weights"].sum()
        assert float(log_density(program, (jnp.asarray(rows),), {}, nearby)[0]) <= fit.elbo + 1e-9
    updates = [row.update for row in probem.explain(written, rows).rows]
    assert any(update in each for each in updates)


@pytest.mark.parametrize("program", [normal, unlike, inflated_poisson], ids=lambda program: program.__name__)
def test_the_theory_holds_of_what_is_written_out(program):
    probem.check(probem.with_assignments(program), PROGRAMS[program][0]).raise_for_failure()


def test_draws_are_those_of_the_mixture():
    """As many zeros, and the mean, within four standard errors."""
    written = probem.with_assignments(inflated_by_logits)
    fit = probem.fit(written, COUNTS)
    drawn = fit.sample(jax.random.key(0), 4000)["x"]
    with handlers.substitute(data=fit.params), handlers.seed(rng_seed=0):
        density = dist.ZeroInflatedDistribution(
            dist.NegativeBinomial2(fit.params["mean"], 2.0), gate_logits=fit.params["logits"]
        )
    zero = float(np.exp(density.log_prob(0)))
    assert (np.asarray(drawn) == 0).mean() == pytest.approx(zero, abs=4 * (zero * (1 - zero) / 4000) ** 0.5)
    assert np.mean(drawn) == pytest.approx(float(density.mean), abs=4 * (float(density.variance) / 4000) ** 0.5)


@pytest.mark.parametrize(
    "make",
    [lambda loc: dist.LogNormal(loc, 1.0), lambda loc: dist.StudentT(4.0, loc, 1.0)],
    ids=["of a transform", "of two others"],
)
def test_densities_that_are_made_of_others_are_drawn_too(make):
    def program(x):
        loc = numpyro.param("loc", jnp.array([0.0, 1.0]))
        observe(x, dist.MixtureSameFamily(weights(), make(loc)))

    rows = np.exp(LINE / 3)
    fit = probem.fit(probem.with_assignments(program), rows, max_steps=3, throw=False)
    expected, _ = log_density(program, (jnp.asarray(rows),), {}, dict(fit.params))
    assert fit.elbo == pytest.approx(float(expected), rel=1e-11)
    assert fit.sample(jax.random.key(0), 3)["x"].shape == (3,)


def test_of_masked_rows_nothing_is_said():
    def masked(x, counts):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("data", x.shape[0]), handlers.mask(mask=counts):
            numpyro.sample("x", dist.MixtureSameFamily(weights(), dist.Normal(loc, 1.0)), obs=x)

    counts = np.arange(80) % 4 > 0
    fit = probem.fit(probem.with_assignments(masked), LINE, counts)
    rest = probem.fit(probem.with_assignments(normal), LINE[counts])
    assert fit.elbo == pytest.approx(rest.elbo, abs=1e-6)
    np.testing.assert_allclose(fit.params["loc"], rest.params["loc"], rtol=1e-4)


def test_other_programs_stay_as_they_are():
    def program(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", weights())
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    fits = [probem.fit(each, LINE).elbo for each in (program, probem.with_assignments(program))]
    assert fits[0] == fits[1]


@pytest.mark.parametrize("program", [normal, inflated_poisson], ids=lambda program: program.__name__)
def test_a_mixture_that_sums_is_refused_with_the_remedy(program):
    with pytest.raises(probem.InputError, match=r"'x' of a mixture that sums over its .* probem\.with_assignments"):
        probem.fit(program, PROGRAMS[program][0])
