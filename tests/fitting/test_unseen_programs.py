"""Programs unlike those of models/: the engine has seen none of them. Each is fitted from its example's parameters."""

import functools

import jax
import numpy as np
import pytest

import probem
from tests.oracles import plain
from tests.programs.examples import EXAMPLES

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

# By default one without a view and one on the gradient route; the others with the slow tests.
_IN_SHORT = ("zero-inflated", "directions")
NAMES = [name if name in _IN_SHORT else pytest.param(name, marks=pytest.mark.slow) for name in EXAMPLES]


@functools.cache
def fitted(name: str) -> probem.Fit:
    example = EXAMPLES[name]
    init = probem.Parameters(example.params)
    return probem.fit(example.program, *example.data, init=init, max_steps=40, throw=False, tolerance=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_the_bound_never_falls_and_is_that_of_the_hand_loops(name: str) -> None:
    example, fit = EXAMPLES[name], fitted(name)
    assert fit.result in (probem.Result.CONVERGED, probem.Result.STEP_LIMIT)
    assert plain.rises(fit.history)
    # The first E half-step: the bound of the parameters given, which is their log likelihood and log prior.
    start = plain.log_likelihood(example.table()) + example.log_prior(example.params)
    np.testing.assert_allclose(fit.history.elbo[0], start, rtol=1e-11)
    # The last: the bound reported belongs to the parameters reported.
    table = example.table(fit.params)
    end = plain.log_likelihood(table) + example.log_prior(fit.params)
    np.testing.assert_allclose(fit.elbo, end, rtol=1e-11)
    assert fit.elbo > start + 0.1
    q = plain.posterior(table)
    np.testing.assert_allclose(fit.responsibilities(*example.data), q, atol=1e-9)
    np.testing.assert_allclose(fit.counts, q.sum(0), rtol=1e-9)
    np.testing.assert_allclose(sum(fit.elbo_terms.values()), fit.elbo, rtol=1e-13)
    np.testing.assert_allclose(fit.bound.entropy, plain.bound(np.zeros_like(q), q), rtol=1e-8)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "boxed"])
def test_a_fit_that_converged_stands_still(name: str) -> None:
    """The gradient of the log posterior, by the program alone, vanishes in unconstrained space."""
    example = EXAMPLES[name]
    fit = probem.fit(
        example.program, *example.data, init=probem.Parameters(example.params), max_steps=5000, tolerance=1e-13
    )
    known = fit.plan.program
    bijections = {name: known.bijection(name) for name in fit.params}

    def log_posterior(free):
        params = {name: bijections[name](value) for name, value in free.items()}
        table = known.log_joint(params, example.data)
        return jax.nn.logsumexp(table, axis=1).sum() + known.log_prior(params)

    free = {name: bijections[name].inv(value) for name, value in fit.params.items()}
    gradient = jax.jit(jax.grad(log_posterior))(free)
    # A rise of 1e-13 of a bound of some hundred nats is 1e-11 = g^2 / (2 curvature), and the curvature is about 60.
    for own in gradient.values():
        np.testing.assert_allclose(own, 0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("nested", probem.Delta()),
        ("nested", probem.TopC(2)),
        ("directions", probem.Tempered(0.7)),
        ("directions", probem.TopC(2)),
        ("regressions", probem.Delta()),
        ("factor analysers", probem.Tempered(0.7)),
    ],
    ids=str,
)
def test_other_families_rise_too(name: str, family) -> None:
    """Every family on two programs, every program with one at least: two sites, and three routes of the M-step."""
    example = EXAMPLES[name]
    sites = ("t", "z") if name == "nested" else ("t",)
    fit = probem.fit(
        example.program,
        *example.data,
        families=dict.fromkeys(sites, family),
        init=probem.Parameters(example.params),
        max_steps=40,
        throw=False,
        record_gap=True,
    )
    assert plain.rises(fit.history)
    table = example.table(fit.params)
    q = fit.responsibilities(*example.data)
    np.testing.assert_allclose(fit.elbo, plain.bound(table, q), rtol=1e-10)
    gap = plain.log_likelihood(table) - plain.bound(table, q)
    np.testing.assert_allclose(fit.gap(*example.data), gap, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(fit.bound.gap, gap, rtol=1e-8, atol=1e-8)


def test_the_hand_loops_can_tell_a_bound_of_other_parameters() -> None:
    """A planted fault: the bound of the parameters one M-step earlier, as a lagging bound would be."""
    fit, example = fitted("nested"), EXAMPLES["nested"]
    lagging = fit.history.elbo[0]
    assert abs(lagging - plain.log_likelihood(example.table(fit.params))) > 0.1


def test_float32_data_is_fitted_in_float32() -> None:
    for name in ("nested", "factor analysers", "directions"):
        example = EXAMPLES[name]
        data = jax.tree.map(lambda leaf: leaf.astype(np.float32), example.data)
        fit = probem.fit(example.program, *data, init=probem.Parameters(example.params), max_steps=10, throw=False)
        assert {value.dtype for value in fit.params.values()} == {np.dtype(np.float32)}
        # A few hundred rows' sums in float32.
        expected = plain.log_likelihood(example.table(fit.params)) + example.log_prior(fit.params)
        np.testing.assert_allclose(fit.elbo, expected, rtol=1e-5)


@pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32 alone"])
def test_priors_of_float32_data_are_float32(x64: bool) -> None:
    """With x64 on, JAX computes the log prior of a program in float64, beside statistics in float32."""
    example = EXAMPLES["priors"]
    with jax.enable_x64(x64):
        init = probem.Parameters(example.params)
        fit = probem.fit(example.program, example.data[0].astype(np.float32), init=init, max_steps=40)
    assert {value.dtype for value in fit.params.values()} == {np.dtype(np.float32)}
    # A bound is a sum of sixty rows, each rounded once or twice at the size of the sum.
    assert plain.rises(fit.history, relative=64 * np.finfo(np.float32).eps)

    def log_posterior(**moved: np.ndarray) -> float:
        params = {name: np.asarray(value, float) for name, value in fit.params.items()} | moved
        return plain.log_likelihood(example.table(params)) + example.log_prior(params)

    best = log_posterior()
    np.testing.assert_allclose(fit.elbo, best, rtol=1e-5)
    # The maximum: a few hundredths to any side are lower, by more than what float32 leaves of the bound.
    for name in ("loc", "scale"):
        for step in ([0.05, 0], [-0.05, 0], [0, 0.05], [0, -0.05]):
            assert log_posterior(**{name: np.asarray(fit.params[name], float) + step}) < best - 1e-3
    for step in (0.03, -0.03):
        assert log_posterior(weights=np.asarray(fit.params["weights"], float) + np.array([step, -step])) < best - 1e-3
