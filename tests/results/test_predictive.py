"""q as NumPyro has it: the guide has the bound of the fit, the marginals its moments, the predictive its averages.

And all else that can be asked of these fits, so that each program is fitted once: the terms of the bound, by SciPy, and
files.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats as stats
from numpyro import handlers
from numpyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO
from numpyro.infer.util import log_density
from numpyro.optim import Adam

import probem
from probem import models
from probem.form.statistics import Statistics
from probem.mean_field.mean_field import objective
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.oracles import plain
from tests.programs.bayesian import ALPHA, EXAMPLES, GAMMA, MIXED, NORMAL, PRIOR, fitted, mixture, sticks

VB = probem.VARIATIONAL_BAYES
# One of every kind: the others differ from these in shapes, or in which sites are points.
KINDS = ("full", "tied", "diagonal", "poisson", "bernoulli", "hierarchical", "param covariance", "point location")


def rows_of(name: str) -> np.ndarray:
    return NORMAL if name in MIXED or name == "sticks" else EXAMPLES[name].rows


@functools.cache
def with_sticks() -> probem.Fit:
    """The truncated Dirichlet process of probem.models."""
    program = functools.partial(models.dirichlet_process_gmm, num_components=3, prior=PRIOR)
    return probem.fit(program, NORMAL, families=VB, key=1)


def without_prior(fit: probem.Fit) -> dict[str, jax.Array]:
    return {site.name: jnp.asarray(fit.params[site.name]) for site in fit.plan.program.globals if not site.has_prior}


def fit_of(name: str) -> probem.Fit:
    return with_sticks() if name == "sticks" else fitted(name)


@functools.cache
def drawn(name: str, num_draws: int = 3000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws from the guide by NumPyro's traces alone, every site outside the data plate; and the bound by them.

    That is log p(x, t, z) - log q(t, z) at each; a point has no log q.
    """
    fit, rows = fit_of(name), jnp.asarray(rows_of(name))
    guide, points, fixed = fit.guide(), set(fit.params) - set(fit.plan.mean_field.full), without_prior(fit)

    @jax.jit
    @jax.vmap
    def one(key: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        sites = handlers.trace(handlers.seed(guide, key)).get_trace(rows)
        sites = {name: site for name, site in sites.items() if site["type"] == "sample"}
        log_q = sum(site["fn"].log_prob(site["value"]).sum() for name, site in sites.items() if name not in points)
        values = {name: site["value"] for name, site in sites.items()}
        bound = log_density(fit.program, (rows,), {}, {**fixed, **values})[0] - log_q
        return {name: value for name, value in values.items() if name != "t"}, bound

    values, bounds = jax.device_get(one(jax.random.split(jax.random.key(1), num_draws)))
    return values | {name: np.broadcast_to(value, (num_draws, *value.shape)) for name, value in fixed.items()}, bounds


def log_density_of_draws(name: str, x: np.ndarray) -> np.ndarray:
    """log p(x_n | theta) [S, N], assignments summed out, by the program itself."""
    fit = fit_of(name)
    joint = jax.jit(jax.vmap(lambda params: fit.plan.program.log_joint(params, (jnp.asarray(x),))))
    return np.asarray(jax.nn.logsumexp(joint(drawn(name)[0]), axis=2))


# The bound.


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in KINDS if name != "poisson"), "factorised location", "sticks"])
def test_the_bound_is_the_average_over_the_guide(name: str) -> None:
    """That of the Poisson model is held to NumPyro's own loss below."""
    _, draws = drawn(name)
    assert np.isfinite(draws).all()
    error = draws.std() / np.sqrt(len(draws))
    assert abs(draws.mean() - fit_of(name).elbo) <= 4 * error
    # Tight enough to see a term that is missing.
    assert error < 0.2


@pytest.mark.slow
def test_the_bound_of_the_poisson_model_is_that_of_trace_elbo() -> None:
    """NumPyro's own loss, in which nothing is ours but the guide."""
    fit, rows = fitted("poisson"), jnp.asarray(rows_of("poisson"))
    loss = jax.jit(jax.vmap(lambda key: Trace_ELBO().loss(key, {}, fit.program, fit.guide(), rows)))
    draws = -np.asarray(loss(jax.random.split(jax.random.key(0), 1000)))
    error = draws.std() / np.sqrt(len(draws))
    assert abs(draws.mean() - fit.elbo) <= 4 * error
    assert error < 0.2


@pytest.mark.slow
def test_svi_takes_the_guide() -> None:
    """One step of NumPyro's SVI with a param covariance, from our values: the loss is our bound."""
    fit = fitted("param covariance")
    svi = SVI(fit.program, fit.guide(), Adam(1e-3), TraceEnum_ELBO(num_particles=100))
    state = svi.init(jax.random.key(0), NORMAL, init_params=without_prior(fit))
    before = svi.get_params(state)
    np.testing.assert_allclose(before["covariance"], fit.params["covariance"], rtol=1e-6)
    state, loss = jax.jit(svi.update)(state, NORMAL)
    assert abs(float(loss) + fit.elbo) < 1.0
    after = svi.get_params(state)
    assert np.isfinite(after["covariance"]).all()
    assert not np.array_equal(after["covariance"], before["covariance"])


# The terms.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "factorised location", "hierarchical", "empirical bayes", "point precision"])
def test_the_terms_add_up(name: str) -> None:
    fit = fitted(name)
    assert sum(fit.elbo_terms.values()) == pytest.approx(fit.elbo, rel=1e-12)
    assert plain.rises(fit.history)
    for site in fit.plan.program.globals:
        full = site.name in fit.plan.mean_field.full
        assert (f"H({site.name})" in fit.elbo_terms) == full
        assert (f"E log p({site.name})" in fit.elbo_terms) == full
        assert (f"log p({site.name})" in fit.elbo_terms) == (site.has_prior and not full)


@pytest.mark.slow
def test_each_term_is_what_it_says() -> None:
    """SciPy's entropies and log densities, and averages over SciPy's draws of q, four standard errors."""
    fit, random = fitted("diagonal"), np.random.default_rng(0)
    terms = fit.elbo_terms
    q = {name: {key: np.asarray(own) for key, own in site.items()} for name, site in fit.variational.items()}
    concentration = q["weights"]["concentration"][0]
    counts = np.asarray(fit.counts)
    log_weights = scipy.special.digamma(concentration) - scipy.special.digamma(concentration.sum())
    normaliser = scipy.special.gammaln(2 * ALPHA) - 2 * scipy.special.gammaln(ALPHA)
    assert terms["E log p(weights)"] == pytest.approx((ALPHA - 1) * log_weights.sum() + normaliser, rel=1e-10)
    assert terms["H(weights)"] == pytest.approx(stats.dirichlet(concentration).entropy(), rel=1e-10)
    assert terms["E log p(t)"] == pytest.approx(counts @ log_weights, rel=1e-10)
    assert terms["H(t)"] == pytest.approx(stats.entropy(fit.responsibilities(NORMAL), axis=1).sum(), rel=1e-10)
    gamma = stats.gamma(q["precision"]["concentration"], scale=1 / q["precision"]["rate"])
    assert terms["H(precision)"] == pytest.approx(gamma.entropy().sum(), rel=1e-10)
    precision = gamma.rvs((20_000, 4), random_state=random)
    loc = random.normal(q["loc"]["loc"][:, 0], 1 / np.sqrt(PRIOR.strength * q["loc"]["strength"] * precision))
    prior = stats.gamma(GAMMA.shape, scale=1 / np.tile(GAMMA.rate, 2))
    around = stats.norm(np.tile(PRIOR.mean, 2), 1 / np.sqrt(PRIOR.strength * precision))
    own = stats.norm(q["loc"]["loc"][:, 0], 1 / np.sqrt(PRIOR.strength * q["loc"]["strength"] * precision))
    responsibilities = np.asarray(fit.responsibilities(NORMAL))
    table = stats.norm.logpdf(
        NORMAL[:, None, None], loc[:1000].reshape(-1, 2, 2), precision[:1000].reshape(-1, 2, 2) ** -0.5
    ).sum(-1)
    for name, draws in {
        "E log p(precision)": prior.logpdf(precision).sum(1),
        "E log p(loc)": around.logpdf(loc).sum(1),
        "H(loc)": -own.logpdf(loc).sum(1),
        "E log p(x)": np.einsum("nsk,nk->s", table, responsibilities),
    }.items():
        assert abs(draws.mean() - terms[name]) <= 4 * draws.std() / np.sqrt(len(draws)), name


@pytest.mark.slow
def test_the_bound_of_a_fit_is_that_of_its_parts() -> None:
    """A planted fault: with one argument of q changed, the terms are no longer those of the fit."""
    fit = fitted("diagonal")
    weights = {"concentration": fit.variational["weights"]["concentration"] + 0.5}
    wrong = dataclasses.replace(fit, variational={**fit.variational, "weights": weights})
    assert sum(wrong.elbo_terms.values()) < fit.elbo - 1e-3
    statistics = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), fit.totals.shifts)
    bounds = [float(objective(fit.plan.mean_field, statistics, one.variational)) for one in (fit, wrong)]
    assert bounds[1] < bounds[0] - 1e-3


# The marginals.


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, "factorised location", "sticks"])
def test_marginals_are_those_of_the_guide(name: str) -> None:
    """Means and variances of the draws, four standard errors; the shapes are those of the sites."""
    fit = fit_of(name)
    shapes = {site.name: site.shape for site in fit.plan.program.globals}
    assert set(fit.posterior) == set(fit.plan.mean_field.full)
    for site, marginal in fit.posterior.items():
        draws = drawn(name)[0][site]
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
    fit = fit_of(name)
    rows = rows_of(name)[:6]
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
def test_the_predictive_density_keeps_its_digits_far_from_zero() -> None:
    """Of a normal with certain arguments, where the weights alone have a q."""
    program = functools.partial(models.gmm, num_components=2, covariance=models.spherical, weights=models.dirichlet)
    labels, far = np.arange(len(NORMAL)) % 2, NORMAL + 1e6
    near, other = (
        probem.fit(program, rows, families=VB, init=probem.Labels(labels), max_steps=3, throw=False)
        for rows in (NORMAL, far)
    )
    # Rounding of the rows themselves: eps times a million.
    np.testing.assert_allclose(other.log_density(far), near.log_density(NORMAL), atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["factorised location", "poisson"])
def test_rows_drawn_have_the_moments_of_the_predictive(name: str) -> None:
    """Means and second moments of fresh rows, each with its own draw of q, against those given draws of the guide."""
    fit = fitted(name)
    sampled = fit.sample(0, 20_000)
    x = np.asarray(sampled["x"], float)
    assert x.shape == (20_000, 2)
    assert sampled["t"].shape == (20_000,)
    own, _ = drawn(name)
    weights = own["weights"][..., None]
    if name == "poisson":
        mean, variance = own["rate"], own["rate"]
    else:
        mean, variance = own["loc"], np.diagonal(np.linalg.inv(own["precision"]), axis1=-2, axis2=-1)
    for found, expected in ((x, mean), (x**2, variance + mean**2)):
        given = (weights * expected).sum(1)
        error = np.sqrt(found.var(0) / len(found) + given.var(0) / len(given))
        assert (np.abs(found.mean(0) - given.mean(0)) <= 4 * error).all()
    share = np.bincount(np.asarray(sampled["t"]), minlength=2) / len(x)
    assert (np.abs(share - own["weights"].mean(0)) <= 4 * 0.5 / np.sqrt(3000)).all()
    assert not np.array_equal(fit.sample(1, 20_000)["x"], sampled["x"])


@pytest.mark.slow
def test_predictive_of_numpyro_takes_the_guide() -> None:
    """Posterior samples from the guide through the program: as many rows, with the moments of the data."""
    fit = fitted("diagonal")
    replicas = Predictive(fit.program, guide=fit.guide(), params={}, num_samples=200)(jax.random.key(0), NORMAL)
    assert replicas["x"].shape == (200, 40, 2)
    with handlers.seed(rng_seed=0):
        latent = Predictive(fit.guide(), num_samples=200)(jax.random.key(0), NORMAL)
    assert latent["t"].shape == (200, 40)
    share = np.mean(np.asarray(latent["t"]) == 1, 0)
    assert (np.abs(share - fit.responsibilities(NORMAL)[:, 1]) <= 4 * 0.5 / np.sqrt(200)).all()


# Files.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "point precision", "poisson"])
def test_a_saved_fit_is_the_same_fit(name: str, tmp_path: Path) -> None:
    fit, rows = fitted(name), rows_of(name)
    fit.save(tmp_path / "fit.npz")
    again = probem.load(tmp_path / "fit.npz", fit.program)
    jax.tree.map(np.testing.assert_array_equal, again.variational, fit.variational)
    jax.tree.map(np.testing.assert_array_equal, dict(again.params), dict(fit.params))
    assert again.families == fit.families
    assert again.elbo_terms == fit.elbo_terms
    np.testing.assert_array_equal(again.responsibilities(rows), fit.responsibilities(rows))
    assert set(again.posterior) == set(fit.posterior)
    with pytest.raises(probem.InputError, match="loaded without its program"):
        _ = probem.load(tmp_path / "fit.npz").posterior


# ArviZ.


@pytest.mark.slow
def test_a_datatree_holds_draws_and_log_likelihoods() -> None:
    """Of sites with a posterior, and of a parameter, which is the same in every draw."""
    pytest.importorskip("xarray")
    fit = fitted("param covariance")
    tree = fit.to_datatree(NORMAL, num_draws=300, key=4)
    assert set(tree.children) == {"posterior", "assignments", "log_likelihood", "observed_data"}
    draws = tree["posterior"]
    assert set(draws.data_vars) == {site.name for site in fit.plan.program.globals}
    assert draws["loc"].dims == ("chain", "draw", "loc_dim_0", "loc_dim_1")
    assert draws["loc"].shape == (1, 300, 2, 2)
    assert tree["assignments"]["t"].shape == (1, 300, 40)
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
    assert (draws["covariance"].values == np.asarray(fit.params["covariance"])).all()
    again = fit.to_datatree(NORMAL, num_draws=300, key=4)
    np.testing.assert_array_equal(again["posterior"]["loc"], draws["loc"])
    assert not np.array_equal(fit.to_datatree(NORMAL, num_draws=300, key=5)["posterior"]["loc"], draws["loc"])


@pytest.mark.slow
def test_a_datatree_of_many_rows_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xarray")

    fit = fitted("diagonal")
    one = fit.to_datatree(NORMAL, num_draws=20)
    monkeypatch.setattr(Plan, "cut", lambda self, num_rows: Chunking(16, 8))
    three = fit.to_datatree(NORMAL, num_draws=20)
    np.testing.assert_allclose(three["log_likelihood"]["x"], one["log_likelihood"]["x"], rtol=1e-12)


def test_there_is_a_program_with_sticks() -> None:
    """What the examples share is one object, so that a fit of it is compiled once."""
    assert mixture("full", 2, sticks) is mixture("full", 2, sticks)
    assert mixture("full") is not mixture("full", 2, sticks)
