"""q as NumPyro has it: the guide has the bound of the fit, the marginals its moments, the predictive its averages."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as stats
from bayesian_programs import EXAMPLES, MIXED, NORMAL, PRIOR, fitted, mixture, sticks
from numpyro import handlers
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer.util import log_density
from numpyro.optim import Adam

import probem
from probem import models

VB = probem.VARIATIONAL_BAYES
# One of every kind: the others differ from these in shapes, or in which sites are points.
KINDS = ("full", "tied", "diagonal", "poisson", "bernoulli", "hierarchical", "param covariance", "point location")


def rows_of(name: str) -> np.ndarray:
    return NORMAL if name in MIXED else EXAMPLES[name].rows


@functools.cache
def with_sticks() -> probem.Fit:
    """The truncated Dirichlet process of probem.models."""
    program = functools.partial(models.dirichlet_process_gmm, num_components=3, prior=PRIOR)
    return probem.fit(program, NORMAL, families=VB, key=1)


def without_prior(fit: probem.Fit) -> dict[str, jax.Array]:
    return {site.name: jnp.asarray(fit.params[site.name]) for site in fit.plan.program.globals if not site.has_prior}


@functools.cache
def globals_drawn(name: str, num_draws: int = 3000) -> dict[str, np.ndarray]:
    """Every site outside the data plate, drawn by NumPyro from the guide."""
    fit = fitted(name) if name != "sticks" else with_sticks()
    rows = NORMAL if name == "sticks" else rows_of(name)
    drawn = Predictive(fit.guide(), num_samples=num_draws, parallel=True)(jax.random.key(2), rows[:2])
    return {name: np.asarray(value) for name, value in drawn.items() if name != "t"} | {
        name: np.broadcast_to(value, (num_draws, *value.shape)) for name, value in without_prior(fit).items()
    }


def log_density_of_draws(name: str, x: np.ndarray) -> np.ndarray:
    """log p(x_n | theta) [S, N], assignments summed out, by the program itself."""
    fit = fitted(name) if name != "sticks" else with_sticks()
    joint = jax.jit(jax.vmap(lambda params: fit.plan.program.log_joint(params, (jnp.asarray(x),))))
    return np.asarray(jax.nn.logsumexp(joint(globals_drawn(name)), axis=2))


# The bound.


def monte_carlo_bound(fit: probem.Fit, rows: np.ndarray, num_draws: int = 1000) -> np.ndarray:
    """log p(x, t, z) - log q(t, z) at draws from the guide, by NumPyro's traces alone; a point has no log q."""
    guide, points, fixed = fit.guide(), set(fit.params) - set(fit.plan.mean_field.full), without_prior(fit)

    @jax.jit
    @jax.vmap
    def one(key: jax.Array) -> jax.Array:
        sites = handlers.trace(handlers.seed(guide, key)).get_trace(rows)
        drawn = {name: site for name, site in sites.items() if site["type"] == "sample"}
        log_q = sum(site["fn"].log_prob(site["value"]).sum() for name, site in drawn.items() if name not in points)
        values = {name: site["value"] for name, site in drawn.items()}
        return log_density(fit.program, (rows,), {}, {**fixed, **values})[0] - log_q

    return np.asarray(one(jax.random.split(jax.random.key(1), num_draws)))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, "factorised location"])
def test_the_bound_is_the_average_over_the_guide(name: str) -> None:
    draws = monte_carlo_bound(fitted(name), rows_of(name))
    assert np.isfinite(draws).all()
    assert abs(draws.mean() - fitted(name).elbo) <= 4 * draws.std() / np.sqrt(len(draws))
    # Tight enough to see a term that is missing.
    assert draws.std() / np.sqrt(len(draws)) < 0.2


@pytest.mark.slow
def test_the_bound_of_a_truncated_process_is_that_of_trace_elbo() -> None:
    """NumPyro's own loss, in which nothing is ours but the guide."""
    fit = with_sticks()
    losses = jax.vmap(lambda key: Trace_ELBO().loss(key, {}, fit.program, fit.guide(), jnp.asarray(NORMAL)))
    draws = -np.asarray(losses(jax.random.split(jax.random.key(0), 1000)))
    assert abs(draws.mean() - fit.elbo) <= 4 * draws.std() / np.sqrt(len(draws))
    assert draws.std() / np.sqrt(len(draws)) < 0.2


@pytest.mark.slow
def test_the_bound_of_the_poisson_model_is_that_of_trace_elbo() -> None:
    rows = EXAMPLES["poisson"].rows
    prior = models.RatePrior.from_data(jnp.asarray(rows))
    program = functools.partial(models.bayesian_poisson_mixture, num_components=2, prior=prior)
    fit = probem.fit(program, rows, families=VB, key=1)
    losses = jax.vmap(lambda key: Trace_ELBO().loss(key, {}, program, fit.guide(), jnp.asarray(rows)))
    draws = -np.asarray(losses(jax.random.split(jax.random.key(0), 1000)))
    assert abs(draws.mean() - fit.elbo) <= 4 * draws.std() / np.sqrt(len(draws))


@pytest.mark.slow
def test_svi_takes_the_guide() -> None:
    """One step of NumPyro's SVI with a param covariance, from our values: the loss is our bound."""
    fit = fitted("param covariance")
    svi = SVI(fit.program, fit.guide(), Adam(1e-3), TraceEnum_ELBO(num_particles=100))
    state = svi.init(jax.random.key(0), NORMAL, init_params=without_prior(fit))
    before = svi.get_params(state)
    np.testing.assert_allclose(before["covariance"], fit.params["covariance"], rtol=1e-6)
    state, loss = svi.update(state, NORMAL)
    assert abs(float(loss) + fit.elbo) < 1.0
    after = svi.get_params(state)
    assert np.isfinite(after["covariance"]).all()
    assert not np.array_equal(after["covariance"], before["covariance"])


# The marginals.


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, "factorised location", "sticks"])
def test_marginals_are_those_of_the_guide(name: str) -> None:
    """Means and variances of the draws, four standard errors; the shapes are those of the sites."""
    fit = fitted(name) if name != "sticks" else with_sticks()
    shapes = {site.name: site.shape for site in fit.plan.program.globals}
    assert set(fit.posterior) == set(fit.plan.mean_field.full)
    for site, marginal in fit.posterior.items():
        draws = globals_drawn(name)[site]
        assert marginal.batch_shape == ()
        assert marginal.event_shape == shapes[site] == draws.shape[1:]
        mean, variance = moments(marginal)
        error = draws.std(0) / np.sqrt(len(draws))
        assert (np.abs(draws.mean(0) - mean) <= 4 * error + 1e-12).all(), site
        squares = (draws - mean) ** 2
        assert (np.abs(squares.mean(0) - variance) <= 4 * squares.std(0) / np.sqrt(len(draws)) + 1e-12).all(), site
        own = marginal.sample(jax.random.key(0), (500,))
        assert np.isfinite(marginal.log_prob(own)).all()


def moments(marginal: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance, through the reshaping in which a location may stand."""
    shape, inner = marginal.event_shape, marginal
    while not hasattr(type(inner), "mean") or type(inner).__name__ in ("TransformedDistribution", "Independent"):
        inner = inner.base_dist
    return np.asarray(inner.mean).reshape(shape), np.asarray(inner.variance).reshape(shape)


@pytest.mark.slow
def test_a_location_with_its_precision_is_a_student_t() -> None:
    """Bishop (2006), eqs. 10.81-10.82 without the row: df = nu - D + 1, scale = S / (kappa df)."""
    fit = fitted("full")
    q = {name: {key: np.asarray(own) for key, own in site.items()} for name, site in fit.variational.items()}
    points = np.random.default_rng(0).normal(size=(5, 2, 2))
    expected = np.zeros(5)
    for k in range(2):
        freedom = q["precision"]["concentration"][k] - 1
        scale = q["precision"]["rate_matrix"][k] / (freedom * PRIOR.strength * q["loc"]["strength"][k])
        expected += stats.multivariate_t(q["loc"]["loc"][k], scale, freedom).logpdf(points[:, k])
    np.testing.assert_allclose(fit.posterior["loc"].log_prob(points), expected, rtol=1e-9)


# The posterior predictive.


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, "sticks"])
def test_the_predictive_density_is_the_average_over_the_guide(name: str) -> None:
    fit = fitted(name) if name != "sticks" else with_sticks()
    rows = (NORMAL if name == "sticks" else rows_of(name))[:6]
    table = log_density_of_draws(name, rows)
    densities = np.exp(table)
    error = densities.std(0) / np.sqrt(len(densities))
    assert (np.abs(densities.mean(0) - np.exp(fit.log_density(rows))) <= 4 * error + 1e-15).all()
    # It is not the density at the mean of q, and that is what plug_in asks for.
    plugged = fit.log_density(rows, plug_in=True)
    expected = jax.nn.logsumexp(probem.log_joint(fit.program, fit.params, rows), axis=1)
    np.testing.assert_allclose(plugged, expected, rtol=1e-9)
    if name == "bernoulli":
        # Linear in each probability, which are independent under q: here it is.
        np.testing.assert_allclose(fit.log_density(rows), plugged, rtol=1e-9)
    else:
        assert np.abs(plugged - fit.log_density(rows)).max() > 1e-3


@pytest.mark.slow
def test_the_predictive_density_of_one_component_is_a_student_t() -> None:
    """Bishop (2006), eq. 10.81: df = nu - D + 1, scale = S (kappa + 1) / (kappa df)."""
    fit = probem.fit(mixture("full", 1), NORMAL, families=VB)
    n, mean, spread = len(NORMAL), NORMAL.mean(0), np.cov(NORMAL, rowvar=False, bias=True) * len(NORMAL)
    strength, away = PRIOR.strength + n, mean - PRIOR.mean
    scatter = PRIOR.scatter + spread + PRIOR.strength * n / strength * np.outer(away, away)
    freedom = PRIOR.dof + n - 1
    centre = (PRIOR.strength * PRIOR.mean + n * mean) / strength
    student = stats.multivariate_t(centre, scatter * (strength + 1) / (strength * freedom), freedom)
    far = np.concatenate([NORMAL[:5], [[30.0, -20.0]]])
    np.testing.assert_allclose(fit.log_density(far), student.logpdf(far), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["factorised location", "poisson"])
def test_rows_drawn_have_the_moments_of_the_predictive(name: str) -> None:
    """Means and second moments of fresh rows, each with its own draw of q, against those given draws of the guide."""
    fit = fitted(name)
    drawn = fit.sample(0, 20_000)
    x = np.asarray(drawn["x"], float)
    assert x.shape == (20_000, 2)
    assert drawn["t"].shape == (20_000,)
    own = globals_drawn(name)
    weights = own["weights"][..., None]
    if name == "poisson":
        mean, variance = own["rate"], own["rate"]
    else:
        mean, variance = own["loc"], np.diagonal(np.linalg.inv(own["precision"]), axis1=-2, axis2=-1)
    for found, expected in ((x, mean), (x**2, variance + mean**2)):
        given = (weights * expected).sum(1)
        error = np.sqrt(found.var(0) / len(found) + given.var(0) / len(given))
        assert (np.abs(found.mean(0) - given.mean(0)) <= 4 * error).all()
    share = np.bincount(np.asarray(drawn["t"]), minlength=2) / len(x)
    assert (np.abs(share - own["weights"].mean(0)) <= 4 * 0.5 / np.sqrt(3000)).all()
    assert not np.array_equal(fit.sample(1, 20_000)["x"], drawn["x"])


@pytest.mark.slow
def test_predictive_of_numpyro_takes_the_guide() -> None:
    """Posterior samples from the guide through the program: as many rows, with the moments of the data."""
    fit = fitted("full")
    drawn = Predictive(fit.program, guide=fit.guide(), params={}, num_samples=200)(jax.random.key(0), NORMAL)
    assert drawn["x"].shape == (200, 40, 2)
    with handlers.seed(rng_seed=0):
        latent = Predictive(fit.guide(), num_samples=200)(jax.random.key(0), NORMAL)
    assert latent["t"].shape == (200, 40)
    share = np.mean(np.asarray(latent["t"]) == 1, 0)
    assert (np.abs(share - fit.responsibilities(NORMAL)[:, 1]) <= 4 * 0.5 / np.sqrt(200)).all()


# ArviZ.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "param covariance"])
def test_a_datatree_holds_draws_and_log_likelihoods(name: str) -> None:
    pytest.importorskip("xarray")
    fit = fitted(name)
    tree = fit.to_datatree(NORMAL, num_draws=300, key=4)
    assert set(tree.children) == {"posterior", "log_likelihood", "observed_data"}
    draws = tree["posterior"]
    assert set(draws.data_vars) == {site.name for site in fit.plan.program.globals} | {"t"}
    assert draws["loc"].dims == ("chain", "draw", "loc_dim_0", "loc_dim_1")
    assert draws["loc"].shape == (1, 300, 2, 2)
    assert draws["t"].shape == (1, 300, 40)
    assert draws.attrs["elbo"] == fit.elbo
    np.testing.assert_array_equal(tree["observed_data"]["x"], NORMAL)
    # Each log likelihood is that of its own draw, by NumPyro's density of the marginal program.
    likelihood = tree["log_likelihood"]["x"]
    assert likelihood.shape == (1, 300, 40)
    for number in (0, 17):
        params = {site.name: jnp.asarray(draws[site.name][0, number].values) for site in fit.plan.program.globals}
        table = probem.log_joint(fit.program, params, NORMAL)
        np.testing.assert_allclose(likelihood[0, number], jax.nn.logsumexp(table, axis=1), rtol=1e-9)
    mean, variance = moments(fit.posterior["loc"])
    error = 4 * np.sqrt(variance / 300)
    assert (np.abs(draws["loc"].values[0].mean(0) - mean) <= error).all()
    if name == "param covariance":
        assert (draws["covariance"].values == np.asarray(fit.params["covariance"])).all()
    again = fit.to_datatree(NORMAL, num_draws=300, key=4)
    np.testing.assert_array_equal(again["posterior"]["loc"], draws["loc"])
    assert not np.array_equal(fit.to_datatree(NORMAL, num_draws=300, key=5)["posterior"]["loc"], draws["loc"])


@pytest.mark.slow
def test_a_datatree_of_many_rows_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xarray")
    from probem.plan import Cut, Plan

    fit = fitted("diagonal")
    one = fit.to_datatree(NORMAL, num_draws=20)
    monkeypatch.setattr(Plan, "cut", lambda self, num_rows: Cut(16, 8))
    three = fit.to_datatree(NORMAL, num_draws=20)
    np.testing.assert_allclose(three["log_likelihood"]["x"], one["log_likelihood"]["x"], rtol=1e-12)


def test_there_is_a_program_with_sticks() -> None:
    """What the examples share is one object, so that a fit of it is compiled once."""
    assert mixture("full", 2, sticks) is mixture("full", 2, sticks)
    assert mixture("full") is not mixture("full", 2, sticks)
