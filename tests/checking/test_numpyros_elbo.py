"""F beside NumPyro's bound of the guide."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import probem
from probem.checking import numpyros_elbo
from probem.checking.residuals import SAME

LINE = np.random.default_rng(0).normal(size=60) + np.random.default_rng(1).choice([-1.0, 1.0], 60)
# Narrow on one side, wide on the other, and overlapping: how wide a row's component is depends on its side.
WIDTHS = np.random.default_rng(2).normal(size=120) * np.repeat([0.3, 2.0], 60) + np.tile([-1.0, 1.5], 60)
PAIRS = np.random.default_rng(0).normal(size=(40, 2)) + np.repeat([[0.0, 3.0], [3.0, 0.0]], 20, axis=0)


def means(x):
    """Two means with a prior, and a standard deviation of 1."""
    with numpyro.plate("components", 2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        numpyro.sample("x", dist.Normal(loc[t], 1.0), obs=x)


def by_column(x):
    """A mean for each component and column; the rows lie left of the plate of the columns."""
    with numpyro.plate("columns", 2, dim=-1), numpyro.plate("components", 2, dim=-2):
        loc = numpyro.sample("loc", dist.Normal(0.0, 3.0))
    with numpyro.plate("data", x.shape[0], dim=-2):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        with numpyro.plate("features", 2, dim=-1):
            numpyro.sample("x", dist.Normal(loc[t, jnp.arange(2)], 1.0), obs=x)


def in_two_ways(x):
    """A mean by one assignment, a standard deviation by another."""
    loc = numpyro.param("loc", jnp.array([-1.0, 2.0]))
    scale = numpyro.param("scale", jnp.array([0.5, 2.0]), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(jnp.full(2, 0.5)))
        u = numpyro.sample("u", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(loc[t], scale[u]), obs=x)


@pytest.mark.slow
def test_what_the_guide_draws_is_drawn(monkeypatch):
    """NumPyro puts parameters that are named in the place of draws, which were all at the mean of q."""
    draw, spreads = numpyros_elbo._drawn, []

    def drawn(*arguments):
        estimates = draw(*arguments)
        spreads.append(estimates.std())
        return estimates

    monkeypatch.setattr(numpyros_elbo, "_drawn", drawn)
    report = probem.claim("A6", means, LINE, families=probem.VARIATIONAL_BAYES)
    report.raise_for_failure()
    assert spreads[0] > 1e-2
    by_draws, exact = report.rows
    assert by_draws.tolerance == 4
    assert exact.tolerance == SAME
    assert exact.left == pytest.approx(exact.right, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "families", [probem.EM, probem.HARD_EM, probem.VARIATIONAL_BAYES], ids=lambda corner: corner.name
)
def test_rows_left_of_another_plate(families):
    """NumPyro refused the guide, whose assignments lay to the right."""
    report = probem.claim("A6", by_column, PAIRS, families=families)
    report.raise_for_failure()
    assert not report.remarks
    assert len(report.rows) == (2 if families is probem.VARIATIONAL_BAYES else 1)


@pytest.mark.slow
def test_several_assignments_by_the_density_of_the_guide(monkeypatch):
    """NumPyro enumerates a guide of one assignment; of two, every pair of values is tried. A guide that takes the
    second for independent of the first is another q.
    """
    report = probem.claim("A6", in_two_ways, WIDTHS)
    report.raise_for_failure()
    q = report.fit.responsibilities(WIDTHS).reshape(-1, 2, 2)
    assert np.abs(q - q.sum(2, keepdims=True) * q.sum(1, keepdims=True)).max() > 0.01
    joint = probem.Fit.responsibilities

    def independent(self, *data):
        q = joint(self, *data).reshape(-1, 2, 2)
        return (q.sum(2, keepdims=True) * q.sum(1, keepdims=True)).reshape(-1, 4)

    monkeypatch.setattr(probem.Fit, "responsibilities", independent)
    assert not probem.claim("A6", in_two_ways, WIDTHS).holds


# --- the mean of draws, without their noise ---


def drawn(generator, num_draws, noise):
    """Draws of 1 + 2 a - 3 (a^2 - 1) + a b + noise for two normal sites, of which these are combinations of scores."""
    a, b = generator.normal(size=(2, num_draws))
    values = 1 + 2 * a - 3 * (a**2 - 1) + a * b + noise * generator.normal(size=num_draws)
    scores = [np.stack([site, site**2 - 1], axis=1) for site in (a, b)]
    return numpyros_elbo.Estimates(values, scores, [np.zeros((num_draws, 2))] * 2)


def test_the_mean_of_a_combination_of_scores_is_exact():
    mean, error = numpyros_elbo._without_noise(drawn(np.random.default_rng(0), 200, 0.0))
    assert mean == pytest.approx(1.0, abs=1e-12)
    assert error < 1e-13


def test_the_standard_error_is_that_of_what_is_left():
    """Of 200 means of 200 draws each: their spread is what they say, to the third that 200 of them tell, at most."""
    generator = np.random.default_rng(0)
    means_and_errors = [numpyros_elbo._without_noise(drawn(generator, 200, 0.1)) for _ in range(200)]
    found, errors = np.transpose(means_and_errors)
    assert np.abs((found - 1) / errors).max() < 4.5
    assert found.std() / errors.mean() == pytest.approx(1.0, abs=0.2)
    assert errors.mean() == pytest.approx(0.1 / np.sqrt(200), rel=0.1)


def test_equal_scores_and_too_many_of_them():
    """Scores of arguments that say the same; and more than half as many as draws, which are left out."""
    few = drawn(np.random.default_rng(0), 200, 0.0)
    doubled = few._replace(scores=[np.concatenate([site, site], axis=1) for site in few.scores], scaled=few.scores)
    assert numpyros_elbo._without_noise(doubled)[0] == pytest.approx(1.0, abs=1e-10)
    many = few._replace(scores=[np.tile(site, 60) for site in few.scores])
    mean, error = numpyros_elbo._without_noise(many)
    assert mean == pytest.approx(few.values.mean())
    assert error == pytest.approx(few.values.std() / np.sqrt(200), rel=0.01)
