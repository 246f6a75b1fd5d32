"""The steps of the gradient route: what they are made of, in every unit, and what a fit says where none helps."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from numpyro.distributions import constraints

import probem
from probem.data.observations import Observations
from probem.e_step.curvature import CURVED, no_curvature
from probem.e_step.evaluation import At, natural_parameters
from probem.e_step.initial_q import EStep, RowState
from probem.e_step.passes import Pass
from probem.m_step.gradient.proposal import Pace, Tried, propose, select
from probem.plan.coordinates import coordinates
from probem.solver.state import initial_state

RANDOM = np.random.default_rng(1)
X = RANDOM.uniform(0.0, 1.0, 80)
UPPER = RANDOM.random(80) < scipy.special.expit(4 * X - 2)
Y = np.where(UPPER, 3 - 2 * X, X) + 0.3 * RANDOM.standard_t(5, 80)


def lines(x: jax.Array, y: jax.Array) -> None:
    """Two lines with errors of Student's t, and a gate: every parameter is on the gradient route."""
    gate = numpyro.param("gate", jnp.zeros(2))
    line = numpyro.param("line", jnp.array([[0.0, 0.0], [2.0, 0.0]]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(logits=gate[0] + gate[1] * x))
        numpyro.sample("y", dist.StudentT(5.0, line[t, 0] + line[t, 1] * x, scale[t]), obs=y)


def log_likelihood(v: np.ndarray) -> float:
    """By SciPy, at (gate, line, log scale)."""
    gate, both = v[0] + v[1] * X, np.array([[v[2], v[3]], [v[4], v[5]]])
    table = [
        -np.logaddexp(0, sign * gate) + scipy.stats.t.logpdf(Y, 5, low + slope * X, np.exp(size))
        for sign, (low, slope), size in zip((1, -1), both, v[6:], strict=True)
    ]
    return float(np.logaddexp(*table).sum())


def log_likelihood_in_jax(v: jax.Array) -> jax.Array:
    gate = v[0] + v[1] * X
    table = [
        -jnp.logaddexp(0, sign * gate) + jax.scipy.stats.t.logpdf(Y, 5, low + slope * X, jnp.exp(size))
        for sign, low, slope, size in ((1, v[2], v[3], v[6]), (-1, v[4], v[5], v[7]))
    ]
    return jnp.logaddexp(*table).sum()


@pytest.fixture(scope="module")
def fit() -> probem.Fit:
    return probem.fit(lines, X, Y)


def vector(fit: probem.Fit) -> np.ndarray:
    return np.concatenate([np.ravel(fit.params["gate"]), np.ravel(fit.params["line"]), np.log(fit.params["scale"])])


@pytest.mark.slow
def test_the_curvature_is_that_of_the_log_likelihood(fit: probem.Fit) -> None:
    plan, totals = fit.plan, fit.totals
    assert plan is not None
    assert totals is not None
    params = {  # away from the maximum, where the shares of a row and the slopes matter
        "gate": jnp.array([-0.3, 1.0]),
        "line": jnp.array([[0.2, 0.7], [2.5, -1.0]]),
        "scale": jnp.array([0.5, 0.8]),
    }
    nothing = no_curvature(plan, 8)
    rows = Pass.traced(plan, Observations((X, Y)))._replace(totals=totals)

    def run(params: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        e_step = EStep(At(params, natural_parameters(plan, params, totals)), jnp.asarray(0), jnp.asarray(0))
        own, _ = rows.reduce(CURVED, nothing, e_step, [RowState()], jnp.asarray(True))
        return own.hessian + own.variances, coordinates(plan, params).point

    curvature, point = jax.jit(run)(params)
    # The same derivatives in another order of the same sums: rounding alone.
    right = jax.jit(jax.hessian(log_likelihood_in_jax))(point)
    np.testing.assert_allclose(curvature, right, rtol=1e-10, atol=1e-10 * np.abs(right).max())


@pytest.mark.slow
def test_the_end_point_is_a_maximum(fit: probem.Fit) -> None:
    assert fit.result is probem.Result.CONVERGED
    stopped = vector(fit)
    np.testing.assert_allclose(fit.elbo, log_likelihood(stopped), rtol=1e-12)
    best = scipy.optimize.minimize(lambda v: -log_likelihood(v), stopped, tol=1e-10)
    assert -best.fun - fit.elbo < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_unit_of_a_covariate_does_not_matter(fit: probem.Fit, unit: float) -> None:
    other = probem.fit(lines, unit * X, Y)
    assert other.result is probem.Result.CONVERGED
    np.testing.assert_allclose(other.elbo, fit.elbo, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_candidate_whose_bound_is_not_finite_is_never_taken(fit: probem.Fit) -> None:
    """An infinite density is no maximum, and nothing is known of one that is not a number."""
    plan, totals = fit.plan, fit.totals
    assert plan is not None
    assert totals is not None
    state = initial_state(plan, fit.params, totals)
    state = state._replace(ascent=state.ascent._replace(gradient=jnp.ones(8)))
    candidates = propose(plan, state.ascent, state.params, totals.total_weight)
    for better, chosen in ((1.0, 3), (-1.0, 0)):
        values = jnp.zeros(len(candidates)).at[1:5].set(jnp.array([jnp.inf, jnp.nan, better, -jnp.inf]))
        params, _, gain = select(
            plan,
            state.ascent,
            state.params,
            Tried(candidates, values),
            Pace(state.rise, state.step),
            totals,
        )
        np.testing.assert_allclose(coordinates(plan, params).point, candidates[chosen], rtol=1e-12, atol=1e-12)
        assert gain == max(better, 0.0)


TOPIC, DOC = RANDOM.integers(0, 3, 60), np.repeat(np.arange(4), 15)


def topics(word: jax.Array, doc: jax.Array) -> None:
    """The shares are looked up by a covariate, and multiplied by a number of the row, which is one: no exponential
    family does that.
    """
    words = numpyro.param("words", jnp.ones((2, 3)) / 3, constraint=constraints.simplex)
    shares = numpyro.param("shares", jnp.ones((4, 2)) / 2, constraint=constraints.simplex)
    with numpyro.plate("data", word.shape[0]):
        t = numpyro.sample("t", dist.Categorical(shares[doc] * jnp.exp(0.0 * doc)[:, None]))
        numpyro.sample("word", dist.Categorical(words[t]), obs=word)


@pytest.mark.slow
def test_shares_by_a_covariate_take_the_steps_of_em() -> None:
    q = np.random.default_rng(2).dirichlet(np.ones(2), 60)
    num_steps = 40
    short = probem.fit(topics, TOPIC, DOC, init=probem.Responsibilities(q), max_steps=num_steps, throw=False)
    assert short.plan is not None
    assert short.plan.gradient == ("shares",)
    assert short.plan.gradient_is_multinomial
    for _ in range(num_steps):
        by_doc, by_word = np.zeros((4, 2)), np.zeros((3, 2))
        np.add.at(by_doc, DOC, q)
        np.add.at(by_word, TOPIC, q)
        shares = by_doc / by_doc.sum(1, keepdims=True)
        joint = shares[DOC] * (by_word / by_word.sum(0))[TOPIC]
        q = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(short.params["shares"], shares, rtol=1e-9)
    np.testing.assert_allclose(short.elbo, np.log(joint.sum(1)).sum(), rtol=1e-12)


@jax.custom_jvp
def misled(value: jax.Array) -> jax.Array:
    """The value itself, with a derivative of the wrong sign: every direction of ascent leads down."""
    return value


@misled.defjvp
def _misled(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return primals[0], -tangents[0]


def offsets(x: jax.Array, number: jax.Array) -> None:
    """More parameters than second derivatives are computed for."""
    loc = misled(numpyro.param("loc", jnp.zeros(130)))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.StudentT(5.0, loc[number] + 4.0 * t, 1.0), obs=x)


@pytest.mark.slow
def test_where_no_direction_helps_nothing_is_called_a_maximum() -> None:
    x = 3.0 + np.random.default_rng(3).normal(size=130)
    fit = probem.fit(offsets, x, np.arange(130), throw=False)
    assert fit.result is probem.Result.NOT_STATIONARY
    assert fit.promised == np.inf
