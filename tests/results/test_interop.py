"""The way back to NumPyro: its own inference, given our program and our q, says what we say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer.util import log_density

import probem
from probem.analysis.routes import make_plan
from probem.families import Families
from probem.program.reading import read
from tests.oracles import plain
from tests.programs.examples import EXAMPLES
from tests.programs.fits import PROGRAM, X, hard, normal_table, soft


@pytest.mark.parametrize(
    "name", ["nested", *(pytest.param(name, marks=pytest.mark.slow) for name in ("priors", "directions"))]
)
def test_marginalize_sums_the_assignments_out(name: str) -> None:
    """log p(data, params) of the marginal program, by NumPyro's own log density of a program."""
    example = EXAMPLES[name]
    marginal = probem.marginalize(example.program)
    params = {key: jnp.asarray(value) for key, value in example.params.items()}
    found, trace = log_density(marginal, example.data, {}, params)
    expected = plain.log_likelihood(example.table()) + example.log_prior(example.params)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    observed = [key for key, site in trace.items() if site["type"] == "sample" and site["is_observed"]]
    assert observed == ["_".join(read(example.program, example.data).observed) + "_marginal"]
    assert "t" not in trace


@pytest.mark.slow
def test_nuts_runs_on_the_marginal_program() -> None:
    example = EXAMPLES["priors"]
    sampler = MCMC(NUTS(probem.marginalize(example.program)), num_warmup=200, num_samples=200, progress_bar=False)
    sampler.run(jax.random.key(0), *example.data)
    loc = np.sort(np.asarray(sampler.get_samples()["loc"]), axis=1).mean(0)
    # The groups of the data are at -2 and 3, with some thirty rows of unit scale each.
    np.testing.assert_allclose(loc, [-2.0, 3.0], atol=0.6)


def _numpyro_elbo(loss, fit: probem.Fit, program, *data) -> float:
    params = {name: jnp.asarray(value) for name, value in fit.params.items()}
    prior_free = {site.name: params[site.name] for site in fit.plan.program.globals if not site.has_prior}
    return -float(loss.loss(jax.random.key(0), prior_free, program, fit.guide(), *map(jnp.asarray, data)))


def test_the_guide_has_the_bound_of_em() -> None:
    """TraceEnum_ELBO sums over the guide's enumerated assignments, by funsor."""
    np.testing.assert_allclose(_numpyro_elbo(TraceEnum_ELBO(), soft(), PROGRAM, X), soft().elbo, rtol=1e-11)


def test_the_guide_of_point_masses_has_the_bound_of_hard_em() -> None:
    program = hard().program
    np.testing.assert_allclose(_numpyro_elbo(Trace_ELBO(), hard(), program, X), hard().elbo, rtol=1e-11)


@pytest.mark.parametrize("family", [probem.TopC(1), probem.Delta()], ids=repr)
def test_the_guide_of_a_q_with_zeros_has_a_finite_bound(family) -> None:
    """Half of the entries of q are exactly zero; NumPyro multiplies each by its logarithm."""
    plan = make_plan(soft().plan.program, Families(family))
    fit = dataclasses.replace(soft(), family=family, plan=plan)
    q = fit.responsibilities(X)
    assert (q == 0).sum() == len(X)
    expected = plain.bound(normal_table(fit.params, X), q)
    for loss in (TraceEnum_ELBO(), Trace_ELBO()):
        np.testing.assert_allclose(_numpyro_elbo(loss, fit, PROGRAM, X), expected, rtol=1e-11)


def test_the_guide_can_be_compiled_with_its_data() -> None:
    found = jax.jit(lambda x: -TraceEnum_ELBO().loss(jax.random.key(0), soft_params(), PROGRAM, soft().guide(), x))(X)
    np.testing.assert_allclose(found, soft().elbo, rtol=1e-11)


def soft_params() -> dict[str, jax.Array]:
    return {name: jnp.asarray(value) for name, value in soft().params.items()}


@pytest.mark.slow
def test_the_guide_holds_priors_and_several_assignments() -> None:
    example = EXAMPLES["priors"]
    init = probem.Parameters(example.params)
    fit = probem.fit(example.program, *example.data, init=init, max_steps=5, throw=False)
    found = _numpyro_elbo(TraceEnum_ELBO(), fit, example.program, *example.data)
    # In the guide the point masses on continuous sites have log density zero, as F leaves their entropy out.
    np.testing.assert_allclose(found, fit.elbo, rtol=1e-11)
    # Two assignment sites are drawn by the chain rule: unbiased, so the mean over draws is F.
    example = EXAMPLES["nested"]
    fit = probem.fit(example.program, *example.data, init=probem.Parameters(example.params), max_steps=5, throw=False)
    params = {name: jnp.asarray(value) for name, value in fit.params.items()}
    keys = jax.random.split(jax.random.key(0), 400)
    draws = jax.vmap(lambda key: -Trace_ELBO().loss(key, params, example.program, fit.guide(), *example.data))(keys)
    assert abs(draws.mean() - fit.elbo) <= 4 * draws.std() / np.sqrt(400) + 1e-9


@pytest.mark.parametrize("number", [0, -1, True])
def test_numbers_of_rows_that_are_none_are_refused(number: int) -> None:
    with pytest.raises(probem.InputError, match=rf"got num_rows={number}; expected a whole number of at least 1"):
        soft().sample(0, number)


@pytest.mark.slow
def test_draws_have_the_moments_of_the_mixture() -> None:
    fit = soft()
    drawn = fit.sample(0, 20_000)
    assert drawn["x"].shape == (20_000, 2)
    assert drawn["t"].shape == (20_000,)
    params = fit.params
    share = np.bincount(drawn["t"], minlength=2) / 20_000
    # Four standard errors of a share, of a mean and of a variance.
    np.testing.assert_allclose(share, params["weights"], atol=4 * 0.5 / np.sqrt(20_000))
    for k in range(2):
        own = np.asarray(drawn["x"])[np.asarray(drawn["t"]) == k]
        error = params["scale"][k] / np.sqrt(len(own))
        assert (np.abs(own.mean(0) - params["loc"][k]) <= 4 * error).all()
        assert (np.abs(own.var(0) - params["scale"][k] ** 2) <= 4 * np.sqrt(2) * error * params["scale"][k]).all()
    again = fit.sample(jax.random.key(0), 20_000)
    np.testing.assert_array_equal(again["x"], drawn["x"])
    assert not np.array_equal(fit.sample(1, 20_000)["x"], drawn["x"])
    # The share of draws that the fit itself gives back to the component they came from is that of its own confidence.
    agree = (fit.predict(drawn["x"]) == np.asarray(drawn["t"])).mean()
    confidence = plain.posterior(normal_table(params, np.asarray(drawn["x"]))).max(1)
    assert abs(agree - confidence.mean()) <= 4 * 0.5 / np.sqrt(20_000)


@pytest.mark.slow
def test_draws_given_covariates() -> None:
    example = EXAMPLES["regressions"]
    fit = probem.fit(example.program, *example.data, init=probem.Parameters(example.params), max_steps=5, throw=False)
    with pytest.raises(probem.InputError, match="no covariates for 'y', whose density depends on the data arguments"):
        fit.sample(0, 10)
    covariates = np.tile([[1.0, 0.0]], (5000, 1))
    drawn = fit.sample(0, 5000, np.zeros(5000), covariates)
    for k in range(2):
        own = np.asarray(drawn["y"])[np.asarray(drawn["t"]) == k]
        expected = fit.params["slope"][k, 0] + fit.params["intercept"][k]
        assert abs(own.mean() - expected) <= 4 * fit.params["scale"][k] / np.sqrt(len(own))
    with pytest.raises(probem.InputError, match="covariates with 5 rows for 10 draws; expected as many"):
        fit.sample(0, 10, np.zeros(5), covariates[:5])


@pytest.mark.slow
def test_draws_given_a_group_that_is_a_whole_number() -> None:
    """Zeros in place of the groups would be an answer too, and the wrong one."""

    def groups(y, group):
        loc = numpyro.param("loc", jnp.array([[0.0, 1.0], [2.0, 3.0]]))
        with numpyro.plate("data", y.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Normal(loc[t, group], 1.0), obs=y)

    fit = probem.fit(groups, X[:, 0], (X[:, 1] > 0).astype(int), init=probem.Parameters({}), max_steps=3, throw=False)
    with pytest.raises(probem.InputError, match="no covariates for 'y'"):
        fit.sample(0, 3)
    assert fit.sample(0, 3, np.zeros(3), np.array([0, 1, 1]))["y"].shape == (3,)


@pytest.mark.slow
def test_marginalize_has_the_gradient_of_the_program() -> None:
    example = EXAMPLES["priors"]
    marginal = probem.marginalize(example.program)

    def by_numpyro(params):
        return log_density(marginal, example.data, {}, params)[0]

    def by_table(params):
        table = probem.log_joint(example.program, params, *example.data)
        return jax.nn.logsumexp(table, axis=1).sum() + probem.log_prior(example.program, params, *example.data)

    params = {key: jnp.asarray(value) for key, value in example.params.items()}
    for one, other in zip(*(jax.tree.leaves(jax.grad(own)(params)) for own in (by_numpyro, by_table)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_values_that_do_not_start_at_zero_have_no_guide() -> None:
    """NumPyro's Categorical starts at zero, and a guide of other values would be wrong in silence."""
    example = EXAMPLES["boxed"]
    known = read(example.program, example.data)
    fit = dataclasses.replace(soft(), plan=make_plan(known, Families(probem.Categorical())))
    with pytest.raises(probem.InputError, match=r"got a guide for 't' with the values \(2, 3, 4\); expected"):
        fit.guide()


@pytest.mark.slow
def test_programs_with_other_plates_keep_them() -> None:
    def planted(x):
        with numpyro.plate("components", 2):
            loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Bernoulli(0.5))
            numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)

    trace = numpyro.handlers.trace(numpyro.handlers.seed(probem.marginalize(planted), 0)).get_trace(X[:, 0])
    assert trace["components"]["type"] == trace["data"]["type"] == "plate"
    assert functools.reduce(lambda a, b: a * b, trace["x_marginal"]["fn"].batch_shape) == len(X)
