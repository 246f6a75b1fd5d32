"""probem.check finds the faults that probem once had, and others that are planted."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm

import probem
from probem.experiments.claims.datasets import load
from probem.families import AssignmentFamily, Dense
from probem.jit import compilation
from probem.models import kmeans
from tests.programs.bayesian import EXAMPLES as BAYESIAN
from tests.programs.bayesian import mixture

#: What all of them compile takes more than a few seconds.
pytestmark = pytest.mark.slow

GEYSER = load("old_faithful").rows


# --- faults that probem had: found ---


@pytest.fixture
def planted(monkeypatch):
    """A monkeypatch of the engine, for which what was compiled before counts nothing."""
    compilation._of_plans.clear()
    yield monkeypatch
    compilation._of_plans.clear()


def failing(report):
    return {row.claim for row in report.failed}


def opposite(x, unit):
    """One number is two means."""
    m = numpyro.param("m", jnp.array(1.0 * unit))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(jnp.stack([m, -m])[t], unit), obs=x)


WAITING = GEYSER[:, 1]
LINE = np.random.default_rng(0).normal(size=200) + np.random.default_rng(1).choice([-1.0, 1.0], 200)


def test_a_numerical_step_that_stops_short_and_is_called_a_maximum(planted):
    """In large units."""
    from probem.m_step.numeric import updates
    from probem.solver import certificate

    program, rows = functools.partial(opposite, unit=1e6), 1e6 * LINE
    probem.claim("G14", program, rows).raise_for_failure()
    compilation._of_plans.clear()
    nothing = updates.Promise(jnp.zeros(()), jnp.zeros((), bool))
    planted.setattr(updates, "numeric_updates", lambda plan, statistics, params: params)
    planted.setattr(certificate, "numeric_promise", lambda *_: (nothing, {}))
    report = probem.claim("G14", program, rows)
    assert report.fit.result is probem.Result.CONVERGED
    assert "G14" in failing(report)


def halves(x):
    """Two normal distributions of known width."""
    mu = numpyro.param("mu", jnp.array([40.0, 90.0]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(mu[t], 12.0), obs=x)


@pytest.mark.parametrize("family", [probem.Tempered(0.5), probem.TopC(1)], ids=["tempered", "truncated"])
def test_the_best_q_of_a_family_in_between(family, planted):
    """Both were compared with nothing: an entropy with another weight is recorded as it is maximised."""
    report = probem.claim("A2", halves, WAITING, families={"t": family})
    report.raise_for_failure()
    assert len(report.of("A2").rows) == 2
    compilation._of_plans.clear()
    if isinstance(family, probem.Tempered):
        planted.setattr(probem.Tempered, "entropy_weight", 1.0)
    else:
        planted.setattr(probem.TopC, "project", lambda self, table: probem.Categorical().project(table))
    report = probem.claim("A2", halves, WAITING, families={"t": family})
    assert {"A2"} <= failing(report)


# --- a gradient, a family, an M half-step, a posterior: found ---


def gated(x, y):
    """A probit gate."""
    a, b = numpyro.param("a", 0.0), numpyro.param("b", 0.4)
    mu = numpyro.param("mu", jnp.array([-1.0, 1.0]))
    p = norm.cdf(a + b * x)
    with numpyro.plate("data", x.shape[0]):
        z = numpyro.sample("z", dist.Categorical(probs=jnp.stack([1 - p, p], -1)))
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


SLOPE = np.linspace(-3, 3, 60)
STEP = np.where(SLOPE < 0.5, 0.0, 4.0) + np.random.default_rng(0).normal(size=60)


def test_a_gradient_that_settles_short_of_the_maximum(planted):
    from probem.solver import step

    probem.claim("G14", gated, SLOPE, STEP).raise_for_failure()
    compilation._of_plans.clear()
    planted.setattr(step, "is_settled", lambda *_: jnp.ones((), bool))
    planted.setattr(step, "select", lambda plan, climbing, params, *_: (params, climbing, jnp.zeros(())))
    report = probem.claim("G14", gated, SLOPE, STEP)
    assert report.fit.result is probem.Result.CONVERGED
    assert "G14" in failing(report)


@dataclasses.dataclass(frozen=True)
class Halves(AssignmentFamily):
    """Half to each of the two best, of which it says that there is no entropy."""

    def project(self, table):
        _, best = jax.lax.top_k(table, 2)
        q = jax.nn.one_hot(best, table.shape[1], dtype=table.dtype).sum(1) / 2
        return Dense(q, jnp.zeros_like(q))


def test_a_family_that_contradicts_itself(planted):
    from probem.families import choice

    planted.setattr(choice, "check_contract", lambda *_: None)
    report = probem.check(functools.partial(kmeans, num_components=2), GEYSER, families={"t": Halves()})
    assert {"A1", "A3"} <= failing(report)
    with pytest.raises(AssertionError, match="F of a half-step as recorded"):
        report.raise_for_failure()


def test_an_m_step_that_is_not_the_best_is_no_divergence(planted):
    from probem.m_step import maximise

    def halfway(mean_field, links, statistics, params, fixed):
        new = original(mean_field, links, statistics, params, fixed)
        return {**new, "loc": 0.5 * (new["loc"] + params["loc"])}

    original = maximise.closed_updates
    planted.setattr(maximise, "closed_updates", halfway)
    report = probem.claim("G1", functools.partial(kmeans, num_components=2), GEYSER, families=probem.HARD_EM)
    assert "G1" in failing(report)


def test_a_posterior_with_a_wrong_count_is_no_divergence(planted):
    from probem.mean_field.naturals import NaturalPosterior

    original = NaturalPosterior.updated
    planted.setattr(NaturalPosterior, "updated", lambda self, natural, old: original(self, 1.01 * natural, old))
    report = probem.claim("G1", mixture("diagonal"), BAYESIAN["diagonal"].rows[:40], families=probem.VARIATIONAL_BAYES)
    assert "G1" in failing(report)


def test_a_single_f_that_is_not_a_number_is_not_lost(monkeypatch):
    """Of three q nearby the last has none."""
    from probem.checking import values

    nearby = values._nearby

    def spoiled(climb, q, table, step):
        return nearby(climb, q, table, step) * (np.nan if step == 0.5 else 1.0)

    monkeypatch.setattr(values, "_nearby", spoiled)
    report = probem.claim("A2", functools.partial(kmeans, num_components=2), GEYSER)
    assert [row.compared.split(",")[0] for row in report.failed] == ["the most by which another q raises F"] * 2


# --- shares that a covariate looks up ---

NUM_LEVELS = 6


def shares_by_level(y, level):
    """Two rates that all levels share, and the mixing weights of each level: fewer numbers than rows say of it. A
    product with a number of the row, which is one, is no look-up: the weights climb by steps over the rows.
    """
    rate = numpyro.param("rate", jnp.array([1.5, 5.0]), constraint=dist.constraints.positive)
    shares = numpyro.param("shares", jnp.full((NUM_LEVELS, 2), 0.5), constraint=dist.constraints.simplex)
    with numpyro.plate("data", y.shape[0]):
        one = jnp.exp(0.0 * y)[:, None]
        t = numpyro.sample("t", dist.Categorical(shares[level] * one))
        numpyro.sample("y", dist.Poisson(rate[t]), obs=y)


@functools.cache
def counts_by_level():
    """Counts whose best shares lie inside the simplex in all levels, and their levels."""
    random = np.random.default_rng(3)
    level = np.repeat(np.arange(NUM_LEVELS), 60)
    is_high = random.random(len(level)) < np.linspace(0.25, 0.75, NUM_LEVELS)[level]
    return random.poisson(np.where(is_high, 7.0, 2.0)), level


def test_shares_that_are_looked_up_and_pooled(planted):
    """An M half-step that takes the mean over the levels for the counts of each converges far from the maximum."""
    from probem.m_step.gradient import look

    def pooled(plan, params, by_name, gradient):
        counts = by_name(gradient)
        same = {name: jnp.broadcast_to(value.mean(0), value.shape) for name, value in counts.items()}
        return original(plan, params, by_name, ravel_pytree(same)[0])

    rows = counts_by_level()
    report = probem.claim("G14", shares_by_level, *rows)
    report.raise_for_failure()
    best = report.fit.elbo
    assert (np.asarray(report.fit.params["shares"]) > 0.1).all()
    compilation._of_plans.clear()
    original = look.growth
    planted.setattr(look, "growth", pooled)
    report = probem.claim("G14", shares_by_level, *rows)
    assert report.fit.result is probem.Result.CONVERGED
    assert report.fit.elbo < best - 10
    # G1 holds: it is the best of the shares that are the same in all levels.
    assert "G14" in failing(report)


def test_half_steps_that_stop_short_are_named():
    """In one level all counts are large: the share of the smaller rate falls as far as a step lets it."""
    y, level = counts_by_level()
    report = probem.claim("G1", shares_by_level, np.where(level == 0, 30, y), level)
    report.raise_for_failure()
    (remark,) = report.remarks
    assert remark.endswith("a share of 'shares' falls as far as it may, not to its maximum.")
    named = set(remark.split(": ")[1].removeprefix("the gains of ").split(", "))
    compared = {row.half_step for row in report.rows}
    assert "M 0" in named
    assert not named & compared
    assert len([each for each in named | compared if each.startswith("M")]) == sum(
        each.startswith("E") for each in compared
    )


def _forget_plans():
    """Plans are equal whose programs and families are."""
    from probem.analysis import routes

    routes._make_plan.cache_clear()
    routes.for_rows.cache_clear()


def test_shares_that_climb_a_gradient_and_settle_short(planted):
    """As they were fitted before their maximum was known in closed form."""
    from probem.analysis import routes
    from probem.solver import step

    _forget_plans()
    planted.setattr(routes, "is_multinomial", lambda *_: False)
    planted.setattr(step, "is_settled", lambda *_: jnp.ones((), bool))
    planted.setattr(step, "select", lambda plan, climbing, params, *_: (params, climbing, jnp.zeros(())))
    try:
        report = probem.claim("G14", shares_by_level, *counts_by_level())
    finally:
        _forget_plans()
    assert not report.fit.plan.gradient_is_multinomial
    assert report.fit.result is probem.Result.CONVERGED
    assert "G14" in failing(report)


def skewed(x):
    """Densities with corners: a location ends on a row, where derivatives are no guide to a maximum."""
    loc = numpyro.param("loc", jnp.array([-2.0, 2.0]))
    scale = numpyro.param("scale", jnp.ones(2), constraint=dist.constraints.positive)
    skew = numpyro.param("skew", jnp.ones(2), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.AsymmetricLaplace(loc[t], scale[t], skew[t]), obs=x)


def test_corners_are_left_out_of_a_newton_step_and_nothing_else(planted):
    """At the maximum that a fit finds no derivative of a location counts; where scales settle short, theirs do."""
    from probem.solver import step

    rows = dist.AsymmetricLaplace(jnp.array([-3.0, 4.0]), 1.0, jnp.array([0.6, 1.4])).sample(jax.random.key(0), (100,))
    report = probem.claim("G14", skewed, np.asarray(rows).ravel())
    report.raise_for_failure()
    assert "G14" in {row.claim for row in report.rows}
    assert any(
        re.search("G14: .* nats that a Newton step promises, which no step gains", each) for each in report.remarks
    )
    compilation._of_plans.clear()
    planted.setattr(step, "is_settled", lambda *_: jnp.ones((), bool))
    planted.setattr(step, "select", lambda plan, climbing, params, *_: (params, climbing, jnp.zeros(())))
    report = probem.claim("G14", skewed, np.asarray(rows).ravel())
    assert report.fit.result is probem.Result.CONVERGED
    assert "G14" in failing(report)


# --- a constant that is added to F ---


def hierarchical(x):
    """Two means about a mean of their own: no draw of q is as good as all others."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(mu, 2.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def test_a_millionth_of_a_nat_too_much_under_full_posteriors(planted):
    """The draws of NumPyro's own bound have a standard error of some hundredths; less their scores, of next to none."""
    from probem.mean_field.mean_field import MeanField

    def raised(self, *arguments):
        natural, log_prior = original(self, *arguments)
        return natural, log_prior + 1e-6

    report = probem.claim("A6", hierarchical, LINE[:50], families=probem.VARIATIONAL_BAYES)
    report.raise_for_failure()
    assert not report.remarks
    compilation._of_plans.clear()
    original = MeanField.evaluated
    planted.setattr(MeanField, "evaluated", raised)
    report = probem.claim("A6", hierarchical, LINE[:50], families=probem.VARIATIONAL_BAYES)
    (row,) = report.failed
    assert row.right - row.left == pytest.approx(1e-6, rel=1e-3)


# --- where derivatives say little: corners along no axis, and slopes without a curvature ---


def absolute(x):
    """Lines with errors whose density has a corner; none of their scales is learned."""
    slope = numpyro.param("slope", jnp.array([1.0, -1.0]))
    level = numpyro.param("level", jnp.array([0.0, 0.5]))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("y", dist.Laplace(level[t] + slope[t] * x[:, 0], 0.3), obs=x[:, 1])


def test_a_ridge_of_corners_and_no_curvature_anywhere(planted):
    """A step that stops short lies where each parameter alone has a corner, and both together climb."""
    from probem.solver import step

    random = np.random.default_rng(0)
    at = random.uniform(1.0, 3.0, 60)
    rows = np.stack([at, np.where(np.arange(60) < 30, 2 * at, -2 * at + 1) + random.laplace(size=60) * 0.3], 1)
    report = probem.claim("G14", absolute, rows)
    report.raise_for_failure()
    assert "G14" in {row.claim for row in report.rows}
    compilation._of_plans.clear()
    planted.setattr(step, "is_settled", lambda *_: jnp.ones((), bool))
    planted.setattr(step, "select", lambda plan, climbing, params, *_: (params, climbing, jnp.zeros(())))
    short = probem.claim("G14", absolute, rows)
    assert short.fit.result is probem.Result.CONVERGED
    (row,) = short.of("G14").rows
    assert "G14" in failing(short)
    assert 0 < row.left <= report.fit.elbo - short.fit.elbo + 1e-9


def test_a_search_finds_what_a_ridge_hides():
    """Along each axis the first falls at the origin, along both together it rises by two."""
    from probem.checking.values import _gained

    def ridge(away):
        return -10 * abs(away[0] - away[1]) - 0.5 * (away.sum() - 2) ** 2

    slope = np.array([2.0, 2.0])
    gained = _gained(ridge, np.zeros(2), (0 * slope, slope * [1, -1]))
    assert 1.9 < gained <= 2
    assert np.isnan(_gained(lambda away: np.nan, np.zeros(1), (np.ones(1), np.ones(1))))
