"""What every view of a conjugate prior must satisfy, and every observation view that takes one. Oracle: SciPy."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats as stats
from numpyro import distributions as dist

from probem.exponential import PRIORS, Location, prior
from probem.exponential.base import Prior
from probem.exponential.gamma import GammaPrior
from tests.exponential.exponential_cases import CASES as OBSERVATIONS
from tests.exponential.exponential_cases import DIM, LOCATION_CASES, Case
from tests.exponential.prior_cases import CASES, Arrays, PriorCase


def few_by_default(cases: Any, kept: tuple[str, ...]) -> Any:
    """Every case, those not named here among the slow tests: each compiles by itself."""
    marked = [pytest.param(case, marks=[] if case.name in kept else pytest.mark.slow) for case in cases]
    return pytest.mark.parametrize("case", marked, ids=lambda case: case.name)


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_seed = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])


def draw(case: PriorCase, seed: int, batch: tuple[int, ...] = ()) -> tuple[Prior, Arrays]:
    arguments = case.draw_arguments(np.random.default_rng(seed), batch)
    return case.view(arguments), {name: jnp.asarray(value) for name, value in arguments.items()}


@functools.partial(jax.jit, static_argnums=0)
def everything(view: Prior, arguments: Arrays) -> dict[str, Any]:
    """What a view says of a distribution, compiled once a case."""
    natural = view.natural(arguments)
    return {
        "natural": natural,
        "log normaliser": view.log_normaliser(arguments),
        "gradient": jax.vjp(lambda eta: view.log_normaliser(view.from_natural(eta)), natural)[1](
            jnp.ones_like(natural[..., 0])
        )[0],
        "expected statistics": view.expected_statistics(arguments),
        "entropy": view.entropy(arguments, view.expected_statistics(arguments)),
        "point": view.point(arguments),
        "mode": view.mode(arguments),
        "again": view.from_natural(natural),
        "has mode": view.has_mode(arguments),
    }


@functools.partial(jax.jit, static_argnums=0)
def log_prob(case: "PriorCase", arguments: Arrays, x: jax.Array) -> jax.Array:
    """NumPyro's density."""
    return case.build(arguments).log_prob(x)


@functools.partial(jax.jit, static_argnums=0)
def slope(case: "PriorCase", arguments: Arrays, value: jax.Array) -> jax.Array:
    """Of NumPyro's density along its support."""
    return jax.grad(lambda u: case.build(arguments).log_prob(case.move(value, u)))(jnp.zeros_like(value))


def values(case: PriorCase, arguments: Arrays, num: int, seed: int = 0) -> np.ndarray:
    found = case.scipy(jax.tree.map(np.asarray, arguments)).rvs(num, random_state=np.random.default_rng(seed))
    # float64 rounds a simplex to a sum off one by more than SciPy's own density allows.
    return found / found.sum(-1, keepdims=True) if case.name == "dirichlet" else found


def test_every_prior_has_a_case() -> None:
    assert {type(draw(case, 0)[0]) for case in CASES} == set(PRIORS)


@each_case
@each_seed
def test_density_is_that_of_numpyro_and_scipy(case: PriorCase, seed: int) -> None:
    view, arguments = draw(case, seed)
    x, found = values(case, arguments, 20), everything(view, arguments)
    statistics = view.statistics(jnp.asarray(x))
    table = np.asarray(statistics @ found["natural"] - found["log normaliser"] + view.log_base_measure(jnp.asarray(x)))
    frozen = case.scipy(jax.tree.map(np.asarray, arguments))
    # Terms of up to some hundred nats cancel, times the condition number of the matrices drawn.
    np.testing.assert_allclose(table, [frozen.logpdf(one) for one in x], rtol=1e-10, atol=1e-9)
    # NumPyro's beta has half of the digits in its normaliser.
    by_numpyro = log_prob(case, arguments, x)
    np.testing.assert_allclose(table, by_numpyro, rtol=1e-6, atol=1e-6)


@each_case
def test_there_and_back_to_numpyro(case: PriorCase) -> None:
    view, arguments = draw(case, 0)
    given = case.build(arguments)
    assert type(view.distribution(arguments)) is type(given)
    for found in (view.read(given), view.read(view.distribution(arguments))):
        assert set(found) == set(view.argument_names) == set(arguments)
        for name, value in arguments.items():
            np.testing.assert_array_equal(found[name], value)
            assert view.argument_event_ndims(name) == value.ndim


@each_case
def test_draws_have_the_expected_statistics(case: PriorCase) -> None:
    view, arguments = draw(case, 0)
    many = {name: np.broadcast_to(value, (5000, *value.shape)) for name, value in arguments.items()}
    drawn = view.statistics(jnp.asarray(view.draw(many, np.random.default_rng(1))))
    error = np.asarray(drawn).std(0) / np.sqrt(5000)
    assert (np.abs(drawn.mean(0) - everything(view, arguments)["expected statistics"]) <= 4 * error).all()


def test_a_draw_of_a_small_concentration_is_not_zero() -> None:
    small = {"concentration": np.full(100, 1e-4), "rate": np.ones(100)}
    assert (GammaPrior().draw(small, np.random.default_rng(0)) > 0).all()


def test_an_exponential_distribution_is_a_gamma_distribution() -> None:
    exponential = dist.Exponential(2.5)
    view = prior(exponential)
    assert view is not None
    np.testing.assert_allclose(view.distribution(view.read(exponential)).log_prob(0.7), np.log(2.5) - 2.5 * 0.7)


@each_case
def test_arguments_given_as_numpy_arrays_are_read_as_arrays_of_jax(case: PriorCase) -> None:
    """A program may be written with constants of NumPy, which some distributions keep as they are."""
    arguments = case.draw_arguments(np.random.default_rng(0), (2,))
    found = case.view(arguments).read(case.build(arguments))
    assert {type(value) for value in found.values()} == {type(jnp.zeros(()))}


@each_case
@each_seed
def test_from_natural_inverts_natural(case: PriorCase, seed: int) -> None:
    view, arguments = draw(case, seed)
    for name, value in everything(view, arguments)["again"].items():
        np.testing.assert_allclose(value, arguments[name], rtol=1e-13, atol=1e-13)


@each_case
@each_seed
def test_expected_statistics_are_the_gradient_of_the_normaliser(case: PriorCase, seed: int) -> None:
    """Wainwright & Jordan (2008), proposition 3.1; and by simulation."""
    view, arguments = draw(case, seed)
    found = everything(view, arguments)
    np.testing.assert_allclose(found["gradient"], found["expected statistics"], rtol=1e-9, atol=1e-10)
    drawn = np.asarray(view.statistics(jnp.asarray(values(case, arguments, 20_000))))
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(0) - found["expected statistics"]) <= 4 * error).all()


@each_case
@each_seed
def test_entropy(case: PriorCase, seed: int) -> None:
    view, arguments = draw(case, seed)
    if case.name == "inverse_wishart":
        # SciPy's own is off by log(2) (D^2 - 1) / 2; by the change of variables from the Wishart distribution instead.
        wishart = next(case for case in CASES if case.name == "wishart").scipy(arguments)
        halves = 0.5 * (float(arguments["concentration"]) - np.arange(DIM))
        log_det = scipy.special.digamma(halves).sum() + DIM * np.log(2) - np.linalg.slogdet(arguments["rate_matrix"])[1]
        expected = wishart.entropy() - (DIM + 1) * log_det
    else:
        expected = case.scipy(jax.tree.map(np.asarray, arguments)).entropy()
    # The convex conjugate of A is a difference of terms of some ten nats.
    np.testing.assert_allclose(everything(view, arguments)["entropy"], expected, rtol=1e-9, atol=1e-10)


@each_case
@each_seed
def test_mode_is_the_highest_point(case: PriorCase, seed: int) -> None:
    """NumPyro's density is stationary there along its support, and no draw has a higher one."""
    view, arguments = draw(case, seed)
    found = everything(view, arguments)
    mode = found["mode"]
    assert found["has mode"]
    scale = float(jnp.abs(mode).max())
    np.testing.assert_allclose(np.asarray(slope(case, arguments, mode)) * scale, 0.0, atol=1e-8)
    drawn = values(case, arguments, 100)
    near = case.move(mode, 1e-3 * scale * np.random.default_rng(seed).normal(size=(100, *mode.shape)))
    densities = log_prob(case, arguments, np.concatenate([mode[None], drawn, near]))
    assert (densities[1:] < densities[0]).all()


@each_case
def test_point_is_the_mean(case: PriorCase) -> None:
    """Of a variance, the inverse of the mean of its inverse."""
    view, arguments = draw(case, 0)
    drawn = case.of_mean(values(case, arguments, 20_000))
    error = drawn.std(0) / np.sqrt(len(drawn))
    point = np.asarray(everything(view, arguments)["point"])
    assert (np.abs(drawn.mean(0) - case.of_mean(point)) <= 4 * error).all()


@few_by_default(CASES, ("dirichlet", "gamma", "wishart"))
def test_borders(case: PriorCase) -> None:
    view = draw(case, 0)[0]
    for arguments, proper, bounded in case.borders:
        own = {name: jnp.asarray(value) for name, value in arguments.items()}
        assert bool(view.proper(own)) == proper, arguments
        assert bool(view.has_mode(own)) == bounded, arguments


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gamma", "inverse_gamma", "wishart", "inverse_wishart"])
def test_a_normal_of_this_precision_is_a_student_t(name: str) -> None:
    """Its degrees of freedom and scale against the integral over the precision."""
    case = next(case for case in CASES if case.name == name)
    view, arguments = draw(case, 2)
    freedom, factor = view.student(arguments)
    own = jax.tree.map(np.asarray, arguments)
    if "gamma" in name:
        gamma = stats.gamma(own["concentration"], scale=1 / own["rate"])
        scale = np.sqrt(factor / gamma.mean())
        for x in (0.0, 0.8, 3.0):
            integral = scipy.integrate.quad(
                lambda tau, x=x: stats.norm.pdf(x, scale=tau**-0.5) * gamma.pdf(tau), 0, np.inf
            )
            np.testing.assert_allclose(stats.t.pdf(x, freedom, scale=scale), integral[0], rtol=1e-6)
        return
    wishart = stats.wishart(float(own["concentration"]), np.linalg.inv(own["rate_matrix"]))
    precisions = wishart.rvs(40_000, random_state=np.random.default_rng(0))
    student = stats.multivariate_t(np.zeros(DIM), factor * np.linalg.inv(wishart.mean()), float(freedom))
    for x in (np.zeros(DIM), np.array([1.0, -2.0, 0.5])):
        squares = np.einsum("i,nij,j->n", x, precisions, x)
        densities = np.sqrt(np.linalg.det(precisions) / (2 * np.pi) ** DIM) * np.exp(-0.5 * squares)
        assert abs(densities.mean() - student.pdf(x)) <= 4 * densities.std() / 200


@pytest.mark.slow
@each_case
def test_batches_and_float32(case: PriorCase) -> None:
    view, arguments = draw(case, 3, (5,))
    mapped = jax.vmap(functools.partial(everything, view))(arguments)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10), everything(view, arguments), mapped
    )
    low = everything(view, {name: value.astype(jnp.float32) for name, value in arguments.items()})
    assert {leaf.dtype for name, leaf in low.items() if name not in ("again", "has mode")} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in low["again"].values()} == {jnp.dtype(jnp.float32)}


# Observations under a prior.


@few_by_default(OBSERVATIONS, ("normal", "poisson"))
def test_expectations_over_certain_and_uncertain_arguments(case: Case) -> None:
    """Under a q on two points each, for location and the rest, E[eta] and E[A] are averages of four; on one, one."""
    rng = np.random.default_rng(0)
    first, second = (jax.tree.map(jnp.asarray, case.draw_arguments(rng, (2,))) for _ in range(2))
    view = case.view(case.draw_arguments(rng, (2,)))
    second |= {name: first[name] for name in view.certain}

    @jax.jit
    def both(statistics: jax.Array, location: Location | None) -> tuple[jax.Array, jax.Array]:
        return view.expected(statistics, location, first)

    @jax.jit
    def at(arguments: Arrays) -> tuple[jax.Array, jax.Array]:
        return view.natural(arguments), view.log_normaliser(arguments)

    if not view.is_location:
        locations, point, spread = [{}, {}], None, None
    else:
        locations = [{"loc": first["loc"]}, {"loc": second["loc"]}]
        half = 0.5 * (first["loc"] - second["loc"])
        covariance = half[..., :, None] * half[..., None, :] if case.event_shape else half**2
        point = Location(first["loc"], jnp.zeros_like(covariance))
        spread = Location(0.5 * (first["loc"] + second["loc"]), covariance)
    certain, uncertain = map(jax.jit(view.argument_statistics), (first, second))
    assert certain is not None
    for found, expected in zip(both(certain, point), at(first), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    four = [at({**own, **location}) for own in (first, second) for location in locations]
    for found, *parts in zip(both(0.5 * (certain + uncertain), spread), *four, strict=True):
        np.testing.assert_allclose(found, sum(parts) / 4, rtol=1e-9, atol=1e-9)


@few_by_default(LOCATION_CASES, ("normal",))
def test_precision_and_spread_of_a_location_family(case: Case) -> None:
    rng = np.random.default_rng(1)
    arguments = case.draw_arguments(rng, ())
    view = case.view(arguments)
    statistics = view.argument_statistics(jax.tree.map(jnp.asarray, arguments))
    assert statistics is not None
    precision = np.atleast_2d(view.precision(statistics))
    covariance = np.atleast_2d(case.build(arguments).variance if not case.event_shape else 0.0)
    if case.event_shape:
        covariance = np.asarray(case.build(arguments).covariance_matrix)
    np.testing.assert_allclose(precision @ covariance, np.eye(len(covariance)), atol=1e-10)
    np.testing.assert_allclose(statistics[-1], np.linalg.slogdet(precision)[1], rtol=1e-10)
    # A q on two points.
    first, second = jnp.asarray(rng.normal(size=(2, *case.event_shape)))
    half = 0.5 * (first - second)
    spread = view.spread(half[..., :, None] * half[..., None, :] if case.event_shape else half**2)
    average = 0.5 * (view.statistics(first) + view.statistics(second))
    np.testing.assert_allclose(view.statistics(0.5 * (first + second)) + spread, average, rtol=1e-12, atol=1e-12)
    if not view.is_quadratic:
        return
    packed = view.packed(first + second, first[:, None] * first + second[:, None] * second)
    np.testing.assert_allclose(packed, 2 * average, rtol=1e-12, atol=1e-12)
    natural = view.natural(jax.tree.map(jnp.asarray, arguments))
    linear, matrix = view.canonical(natural)
    inner = first @ linear - 0.5 * first @ matrix @ first
    np.testing.assert_allclose(inner, view.statistics(first) @ natural, rtol=1e-10, atol=1e-10)
