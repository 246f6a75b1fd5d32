"""A Gaussian q, beside quadrature by SciPy, NumPyro's guides and, where there is one, the conjugate q."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from numpyro import handlers
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from scipy.linalg import block_diag

import probem
from probem.form.statistics import Statistics
from probem.mean_field.gaussians import GaussianSite
from probem.mean_field.mean_field import objective
from tests.programs import gaussian_posteriors as programs
from tests.programs.counted import cost
from tests.programs.gaussian_posteriors import PLANE, ROWS, SCALES, TWO, WAITS

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

VB = probem.VARIATIONAL_BAYES
GAUSSIAN = probem.Gaussian()
slow = pytest.mark.slow


@functools.cache
def fitted(name: str) -> probem.Fit:
    """Some programs, fitted once: whatever is not conjugate has a Gaussian q."""
    program, rows, sites = {
        "spread": (programs.spread, TWO, ("spread",)),
        "correlated": (programs.correlated, PLANE[:25], ("loc", "scale", "factor")),
    }[name]
    return probem.fit(program, rows, families=VB | dict.fromkeys(sites, GAUSSIAN))


def q_of(fit: probem.Fit, site: str) -> tuple[Any, Any]:
    return tuple(np.asarray(fit.variational[site][name]) for name in ("loc", "scale_tril"))


# The optimum.


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        (programs.located, TWO),
        pytest.param(programs.placed, np.random.default_rng(2).normal(size=(30, 3)) * [1.0, 2.0, 3.0], marks=slow),
    ],
    ids=["a number", "three numbers"],
)
def test_a_conjugate_site_has_the_conjugate_q(program: Callable[..., None], rows: np.ndarray) -> None:
    """Quadratic functions are averaged exactly, by either kind of node: what is left is where a fit ends."""
    labels = probem.Labels((rows.reshape(len(rows), -1)[:, 0] > 0).astype(int))
    options: dict[str, Any] = {"init": labels, "tolerance": 1e-14}
    exact = probem.fit(program, rows, families=VB, **options)
    fit = probem.fit(program, rows, families=VB | {"loc": GAUSSIAN}, **options)
    np.testing.assert_allclose(fit.elbo, exact.elbo, rtol=0, atol=1e-8)
    loc, scale = q_of(fit, "loc")
    np.testing.assert_allclose(loc, exact.variational["loc"]["loc"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        scale @ scale.swapaxes(-1, -2), exact.variational["loc"]["covariance"], rtol=0, atol=1e-6
    )


# The trapezoidal rule, of which the error falls exponentially for functions that are smooth and vanish at both ends.
NORMALS, STEP = np.linspace(-12.0, 12.0, 4001, retstep=True)
DENSITY = STEP * scipy.stats.norm.pdf(NORMALS)


def normal_average(function: Callable[[np.ndarray], np.ndarray], mean: float, deviation: float) -> float:
    """E[function(m + s u)], to rounding."""
    return float(DENSITY @ function(mean + deviation * NORMALS))


def log_integral(log_joint: Callable[[np.ndarray], np.ndarray], mean: float, deviation: float) -> float:
    """log of the integral of exp(log_joint)."""
    return float(scipy.special.logsumexp(log_joint(mean + 2 * deviation * NORMALS)) + np.log(2 * deviation * STEP))


def bound(log_joint: Callable[[np.ndarray], np.ndarray], mean: float, deviation: float) -> float:
    """E log p(x, z) + H of a normal number; ``log_joint`` has the log volume of z in it."""
    entropy = 0.5 * np.log(2 * np.pi * np.e) + np.log(deviation)
    return normal_average(log_joint, mean, deviation) + entropy


def scale_joint(prior: str) -> Callable[[np.ndarray], np.ndarray]:
    density = {
        "half normal": scipy.stats.halfnorm(scale=2.0),
        "half Cauchy": scipy.stats.halfcauchy(scale=1.0),
        "log normal": scipy.stats.lognorm(s=1.0),
    }[prior]

    def log_joint(log_scale: np.ndarray) -> np.ndarray:
        scale = np.exp(log_scale)
        return scipy.stats.norm.logpdf(ROWS[:, None], 1.0, scale).sum(0) + density.logpdf(scale) + log_scale

    return log_joint


def shape_joint(log_shape: np.ndarray) -> np.ndarray:
    shape = np.exp(log_shape)
    density = scipy.stats.lognorm(s=1.5).logpdf(shape)
    return scipy.stats.gamma.logpdf(WAITS[:, None], shape, scale=0.5).sum(0) + density + log_shape


CASES: dict[str, Any] = {
    **{
        prior: (functools.partial(programs.scaled, prior=SCALES[prior]), ROWS, "scale", scale_joint(prior))
        for prior in SCALES
    },
    "gamma shape": (programs.shaped, WAITS, "shape", shape_joint),
}


@pytest.mark.parametrize(
    "case", ["half Cauchy", *(pytest.param(case, marks=slow) for case in CASES if case != "half Cauchy")]
)
def test_f_is_that_of_the_best_q_and_below_the_evidence(case: str) -> None:
    program, rows, site, log_joint = CASES[case]
    fit = probem.fit(program, rows, families=VB | {site: GAUSSIAN})
    (mean,), (deviation,) = (part.reshape(-1) for part in q_of(fit, site))
    # Averages over 32 nodes are good to 1e-10 at these deviations of some 0.2.
    np.testing.assert_allclose(fit.elbo, bound(log_joint, mean, deviation), rtol=0, atol=1e-9)
    best = scipy.optimize.minimize(
        lambda q: -bound(log_joint, q[0], np.exp(q[1])), [mean + 0.1, np.log(deviation) + 0.2], options={"gtol": 1e-7}
    )
    np.testing.assert_allclose(fit.elbo, -best.fun, rtol=0, atol=1e-8)
    assert 0 < log_integral(log_joint, mean, deviation) - fit.elbo < 0.05


@slow
def test_a_logit_normal_weight_has_the_f_of_quadrature() -> None:
    fit = probem.fit(programs.weighed, TWO, families=VB | {"logit": GAUSSIAN})
    (mean,), (deviation,) = (part.reshape(-1) for part in q_of(fit, "logit"))
    rows = scipy.stats.norm([-2.0, 2.0], 1.0).logpdf(TWO[:, None])
    expected = [-normal_average(lambda z, sign=sign: np.logaddexp(0.0, -sign * z), mean, deviation) for sign in (1, -1)]
    local = scipy.special.logsumexp(rows + expected, axis=1).sum()
    prior = bound(scipy.stats.norm(0.0, 1.5).logpdf, mean, deviation)
    np.testing.assert_allclose(fit.elbo, local + prior, rtol=0, atol=1e-8)

    def log_joint(logit: np.ndarray) -> np.ndarray:
        log_weights = -np.logaddexp(0.0, np.stack([-logit, logit], -1))
        log_rows = scipy.special.logsumexp(rows[:, None] + log_weights, axis=2).sum(0)
        return log_rows + scipy.stats.norm(0.0, 1.5).logpdf(logit)

    assert 0 < log_integral(log_joint, mean, deviation) - fit.elbo < 0.5


@pytest.mark.parametrize("name", ["spread", pytest.param("correlated", marks=slow)])
def test_f_never_falls_and_ends_where_its_slope_is_nil(name: str) -> None:
    fit = fitted(name)
    assert fit.result is probem.Result.CONVERGED
    assert np.diff(fit.history.elbo).min() > -1e-9
    plan, totals = fit.plan, fit.totals
    assert plan is not None
    assert totals is not None
    statistics = Statistics(jnp.asarray(fit.counts), jnp.asarray(fit.sums), totals.shifts)
    for site in plan.mean_field.gaussians:
        place = site.coordinates(fit.variational[site.name])

        @jax.jit
        def value(place: Any, site: GaussianSite = site) -> Any:
            moved = site.from_coordinates(place, fit.variational[site.name])
            return objective(plan.mean_field, statistics, {**fit.variational, site.name: moved})

        here = float(value(place))
        for index in np.ndindex(*place.shape):
            ahead, behind = (float(value(place.at[index].add(step))) for step in (1e-3, -1e-3))
            assert ahead < here > behind, (site.name, index)
            # Of a fit that ends when a step gains 1e-10 nats a row; the curvature is of the order of the rows.
            assert abs(ahead - behind) / 2e-3 < 1e-2, (site.name, index)


# NumPyro.


@slow
def test_f_is_the_elbo_of_numpyros_guides() -> None:
    """Of one component: then summing the assignment out leaves the program as it is."""
    fit = fitted("correlated")
    program, rows = probem.marginalize(programs.correlated), jnp.asarray(PLANE[:25])
    names = ("loc", "scale", "factor")  # in the order of the program, as the guide has them
    means = np.concatenate([q_of(fit, name)[0].reshape(-1) for name in names])
    factors = block_diag(*(matrix for name in names for matrix in q_of(fit, name)[1]))
    guide: Any = AutoMultivariateNormal(program)
    handlers.trace(handlers.seed(guide, 0)).get_trace(rows)
    params = {"auto_loc": jnp.asarray(means), "auto_scale_tril": jnp.asarray(factors)}
    losses = _losses(program, guide, params, rows)
    error = losses.std(ddof=1) / np.sqrt(len(losses))
    assert error < 0.02
    assert abs(-losses.mean() - fit.elbo) < 4 * error


def _losses(program: Any, guide: Any, params: Any, rows: Any) -> np.ndarray:
    loss = jax.jit(jax.vmap(lambda key: Trace_ELBO(num_particles=200).loss(key, params, program, guide, rows)))
    return np.asarray(loss(jax.random.split(jax.random.key(3), 100)))


@slow
@pytest.mark.parametrize(
    ("program", "sites"),
    [
        (programs.levelled, ("spread",)),
        (programs.levelled, ("spread", "loc")),
        (programs.robust, ("logits", "loc", "scale")),
    ],
    ids=["over a conjugate location", "about a conjugate mean", "nothing is conjugate"],
)
def test_the_theory_holds(program: Callable[..., None], sites: tuple[str, ...]) -> None:
    """With A6: F beside NumPyro's ELBO of the guide."""
    report = probem.check(program, TWO, families=VB | dict.fromkeys(sites, GAUSSIAN))
    assert {"A1", "A3", "A6"} <= {check.claim for check in report.rows}
    report.raise_for_failure()


# What is asked of a fit.


def test_q_is_a_distribution_of_numpyro() -> None:
    fit = fitted("spread")
    loc, scale = (part.reshape(-1) for part in q_of(fit, "spread"))
    q = fit.posterior["spread"]
    assert q.batch_shape == ()
    assert q.event_shape == (2,)
    value = np.array([0.7, 1.3])
    theirs = scipy.stats.lognorm(s=scale, scale=np.exp(loc)).logpdf(value).sum()
    np.testing.assert_allclose(q.log_prob(value), theirs, rtol=1e-12)
    np.testing.assert_allclose(fit.params["spread"], np.exp(loc), rtol=1e-12)
    draws = np.log(fit.to_datatree(TWO, num_draws=4000)["posterior"]["spread"].values[0])
    np.testing.assert_allclose(draws.mean(0), loc, rtol=0, atol=4 * scale.max() / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(0), scale, rtol=4 / np.sqrt(8000))


def test_its_terms_add_up_to_f() -> None:
    fit = fitted("spread")
    terms = fit.elbo_terms
    assert {"E log p(spread)", "H(spread)"} <= set(terms)
    np.testing.assert_allclose(sum(terms.values()), fit.elbo, rtol=1e-13)
    loc, scale = (part.reshape(-1) for part in q_of(fit, "spread"))
    np.testing.assert_allclose(terms["H(spread)"], scipy.stats.lognorm(s=scale, scale=np.exp(loc)).entropy().sum())


@slow
@pytest.mark.parametrize("name", ["scale", "logit"])
def test_the_density_of_a_new_row_is_averaged(name: str) -> None:
    """Beside quadrature, to 1e-9: the density of rows within a few deviations is smooth in the logarithm of a scale."""
    new = np.array([-4.0, 0.5, 3.0])
    if name == "scale":
        program: Any = functools.partial(programs.scaled, prior=SCALES["half normal"])
        density = lambda row, z: scipy.stats.norm(1.0, np.exp(z)).pdf(row)  # noqa: E731
    else:
        program = programs.weighed
        components = scipy.stats.norm([-2.0, 2.0], 1.0)
        density = lambda row, z: components.pdf(row) @ scipy.special.expit(np.stack([z, -z]))  # noqa: E731
    fit = probem.fit(program, ROWS if name == "scale" else TWO, families=VB | {name: GAUSSIAN})
    (mean,), (deviation,) = (part.reshape(-1) for part in q_of(fit, name))
    theirs = [np.log(normal_average(lambda z, row=row: density(row, z), mean, deviation)) for row in new]
    np.testing.assert_allclose(fit.log_density(new), theirs, rtol=0, atol=1e-9)
    assert not np.allclose(fit.log_density(new, plug_in=True), theirs, rtol=0, atol=1e-3)


def test_a_fit_is_saved_and_goes_on_from_its_q(tmp_path: Any) -> None:
    fit = fitted("spread")
    fit.save(tmp_path / "fit.npz")
    loaded = probem.load(tmp_path / "fit.npz", programs.spread)
    assert loaded.families["spread"] == GAUSSIAN
    np.testing.assert_array_equal(loaded.log_density(TWO), fit.log_density(TWO))
    np.testing.assert_array_equal(
        loaded.posterior["spread"].sample(jax.random.key(1)), fit.posterior["spread"].sample(jax.random.key(1))
    )
    again = probem.fit(
        programs.spread, TWO, families=VB | {"spread": GAUSSIAN}, init=probem.Parameters(fit.variational)
    )
    assert again.num_steps < 5
    np.testing.assert_allclose(again.elbo, fit.elbo, rtol=0, atol=1e-7)


def test_what_has_no_values_is_refused() -> None:
    families = VB | {"spread": GAUSSIAN}
    with pytest.raises(
        probem.InputError, match=r"fixed values of 'spread', a site with a full posterior; .*probem.Delta\(\)"
    ):
        probem.fit(programs.spread, TWO, families=families, fixed={"spread": np.ones(2)})
    with pytest.raises(
        probem.InputError, match=r"a start for 'spread', a site with the family Gaussian\(\), that is a value"
    ):
        probem.fit(programs.spread, TWO, families=families, init=probem.Parameters({"spread": np.ones(2)}))
    q = {"loc": np.zeros((2, 1)), "scale_tril": -np.ones((2, 1, 1))}
    with pytest.raises(probem.InputError, match=r"q of 'spread' that is no distribution; .* with a positive diagonal"):
        probem.fit(programs.spread, TWO, families=families, init=probem.Parameters({"spread": q}))


@slow
@pytest.mark.parametrize("acceleration", [probem.SQUAREM(), probem.Anderson()], ids=["squarem", "anderson"])
def test_it_is_accelerated(acceleration: Any) -> None:
    fit = probem.fit(programs.spread, TWO, families=VB | {"spread": GAUSSIAN}, acceleration=acceleration)
    np.testing.assert_allclose(fit.elbo, fitted("spread").elbo, rtol=0, atol=1e-6)


@slow
def test_other_rows_and_other_numbers_compile_nothing() -> None:
    def run(num_rows: int, scale: float = 2.0, **options: int) -> None:
        program = functools.partial(programs.spread, scale=scale)
        families = VB | {"spread": probem.Gaussian(**options)}
        fit = probem.fit(program, np.resize(TWO, num_rows), families=families, throw=False, max_steps=6)
        fit.log_density(TWO)
        fit.quadrature_error()

    assert cost(lambda: run(40))[1] > 0  # what is counted does happen
    assert cost(lambda: run(57))[1] == 0
    assert cost(lambda: run(40, scale=3.1))[1] == 0
    assert cost(lambda: run(40, nodes=20))[1] > 0


def test_coordinates_are_free_and_come_back() -> None:
    site = GaussianSite.in_cells("z", GAUSSIAN, (2, 3), dist.constraints.positive, 3)
    random = np.random.default_rng(0)
    place = random.normal(size=(2, 9))
    q = site.from_coordinates(jnp.asarray(place), site.about(jnp.ones((2, 3))))
    assert site.is_proper({name: np.asarray(value) for name, value in q.items()})
    np.testing.assert_allclose(site.coordinates(q), place, rtol=1e-14)


@pytest.mark.parametrize(
    "link",
    [
        pytest.param(jnp.maximum, id="maximum"),
        pytest.param(lambda a, b: jnp.where(a > 0, b, -b), id="condition"),
        pytest.param(lambda a, b: jnp.sort(jnp.stack([a, b]))[1], id="order"),
    ],
)
def test_entries_that_meet_in_pieces_have_numbers_of_their_own(link: Any) -> None:
    """Where the mixed derivative is zero almost everywhere: F beside draws from q."""
    x = np.array([0.5, 0.1, 0.9])

    def program(x):
        a, b = numpyro.sample("a", dist.Normal(0.0, 1.0)), numpyro.sample("b", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=jnp.ones(1)))
            numpyro.sample("x", dist.Normal(link(a, b) + 0.0 * t, 1.0), obs=x)

    families = probem.VARIATIONAL_BAYES | {"a": probem.Gaussian(), "b": probem.Gaussian()}
    fit = probem.fit(program, x, families=families)
    random, draws = np.random.default_rng(0), {}
    entropy = 0.0
    for name in ("a", "b"):
        loc, scale = (np.asarray(fit.variational[name][each]).item() for each in ("loc", "scale_tril"))
        draws[name] = loc + scale * random.normal(size=200_000)
        entropy += scipy.stats.norm(loc, scale).entropy()
    mean = np.asarray(jax.vmap(link)(jnp.asarray(draws["a"]), jnp.asarray(draws["b"])))
    prior = sum(scipy.stats.norm.logpdf(each) for each in draws.values())
    values = scipy.stats.norm.logpdf(x[:, None], mean).sum(0) + prior + entropy
    # The nodes miss where pieces meet by some parts in a hundred.
    np.testing.assert_allclose(fit.elbo, values.mean(), atol=0.05)


def test_the_first_update_is_that_of_the_conjugate_sites() -> None:
    """A spread that was updated beside locations at their prior would be that of all rows, and lose every start."""
    random = np.random.default_rng(0)
    x = np.r_[random.normal(-2, 0.7, 20), random.normal(2, 1.2, 20)]

    def program(x):
        weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
        loc = numpyro.sample("loc", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
        scale = numpyro.sample("scale", dist.HalfCauchy(jnp.ones(2)).to_event(1))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(probs=weights))
            numpyro.sample("x", dist.Normal(loc[t], scale[t]), obs=x)

    families = probem.VARIATIONAL_BAYES | {"scale": probem.Gaussian()}
    fit = probem.fit(program, x, families=families, init=probem.Labels(np.repeat([0, 1], 20)))
    np.testing.assert_allclose(np.sort(fit.params["loc"]), [x[:20].mean(), x[20:].mean()], atol=0.1)
