"""What many batches make of the parameters: where a stream ends, and what it forgets on the way."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import probem
from probem.models import diagonal, gmm, shared_spherical
from probem.plan.chunking import Chunking
from probem.plan.plan import Plan
from tests.programs.fits import PROGRAM, X, em_step, normal_table
from tests.streaming.batches import BATCHES, CENTRES, SCALES, WEIGHTS, assert_equal, draw, numpy_of

MIXTURE = functools.partial(gmm, num_components=3, covariance=diagonal)


@functools.cache
def stream() -> probem.Fit:
    fit = probem.fit(MIXTURE, draw(500, 0))
    for seed in range(1, 200):
        fit = probem.absorb(fit, draw(500, seed))
    return fit


@pytest.mark.slow
def test_a_stream_reaches_the_truth() -> None:
    fit = stream()
    order = np.argsort(np.asarray(fit.params["loc"])[:, 0])
    found = {name: value[order] for name, value in numpy_of(fit).items()}
    # The rows that the parameters rest on; five standard errors, with a third more for rows that may be of another.
    rows = 2 * 500 / 200**-0.6
    error = 5 * 4 / 3 * SCALES / np.sqrt(rows * WEIGHTS)[:, None]
    assert (np.abs(found["loc"] - CENTRES) < error).all()
    assert (np.abs(found["scale"] - SCALES) < error / np.sqrt(2)).all()
    assert (np.abs(found["weights"] - WEIGHTS) < 5 * 4 / 3 * np.sqrt(WEIGHTS * (1 - WEIGHTS) / rows)).all()
    held_out = draw(20000, 1000)
    truth = {"weights": WEIGHTS, "loc": CENTRES, "scale": SCALES}
    best = np.logaddexp.reduce(normal_table(truth, held_out), axis=1).mean()
    # Half a squared standard error of each of 14 parameters, on those rows, and margin for their scatter.
    assert best - 4 * 14 / 2 / rows < fit.log_density(held_out).mean() < best + 14 / 2 / rows


@pytest.mark.slow
def test_its_density_is_that_of_batch_em() -> None:
    rows = np.concatenate([draw(500, seed) for seed in range(60)])
    batch = probem.fit(MIXTURE, rows, restarts=2)
    held_out = draw(20000, 1000)
    np.testing.assert_allclose(stream().log_density(held_out).mean(), batch.log_density(held_out).mean(), rtol=0.01)


@pytest.mark.slow
def test_a_shared_spread_pools_the_running_statistics() -> None:
    """Columns that do not vary between components are kept as totals, and move with the origin as well."""
    fit = probem.fit(functools.partial(gmm, num_components=2, covariance=shared_spherical), X, max_steps=3, throw=False)
    assert list(fit.plan.varying) == [0, 2]

    def statistics(x: np.ndarray) -> tuple[np.ndarray, ...]:
        table = normal_table(numpy_of(fit), x)
        r = np.exp(table - np.logaddexp.reduce(table, axis=1, keepdims=True))
        return r.mean(0), r.T @ x / len(x), (x**2).sum(1).mean()

    average, seen = statistics(X), 90
    for t, x in enumerate(BATCHES, start=2):
        seen += len(x)
        rho = min(1.0, len(x) / seen * t**0.4)
        average = [(1 - rho) * old + rho * new for old, new in zip(average, statistics(x), strict=True)]
        fit = probem.absorb(fit, x)
        shares, sums, square = average
        loc = sums / shares[:, None]
        variance = (square - (shares[:, None] * loc**2).sum()) / 2
        assert_equal(fit, {"weights": shares, "loc": loc, "scale": np.sqrt(variance)})


def by_variance(x) -> None:
    """The diagonal mixture by variances: a root is no entry of a parameter, and takes the numeric route."""
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros((2, 2)))
    variance = numpyro.param("variance", jnp.ones((2, 2)), constraint=constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[t], jnp.sqrt(variance[t])).to_event(1), obs=x)


@pytest.mark.slow
def test_the_numeric_route_maximises_over_the_running_statistics() -> None:
    fit = probem.fit(by_variance, X, init=probem.Parameters({"loc": X[:2]}), max_steps=2, throw=False)
    assert fit.plan.numeric == ("variance",)
    for x in BATCHES:
        fit = probem.absorb(fit, x)
        mean, square = np.moveaxis(fit.sums.reshape(2, 2, 2) / fit.counts[:, None, None], -1, 0)
        # As far as the maximiser goes, whose objective is flat to second order.
        np.testing.assert_allclose(fit.params["variance"], square - mean**2, rtol=1e-4)
        np.testing.assert_allclose(fit.params["loc"], mean + fit.totals.shifts["x"], rtol=1e-10)


@pytest.mark.slow
def test_a_component_without_rows_stays_where_it_is() -> None:
    kept = probem.absorb(stream(), draw(500, 1000), rate=0.5)
    gone = int(np.argmin(kept.params["loc"][:, 1]))
    fit, weight = kept, float(kept.params["weights"][gone])
    for seed in range(4):
        # More than eight standard deviations away from it, and half as many from another.
        fit = probem.absorb(fit, np.array([-0.5, 8.0]) + 0.1 * draw(500, seed), rate=0.5)
        weight *= 0.5
        np.testing.assert_allclose(fit.params["loc"][gone], kept.params["loc"][gone], rtol=1e-9)
        np.testing.assert_allclose(fit.params["scale"][gone], kept.params["scale"][gone], rtol=1e-9)
        np.testing.assert_allclose(fit.params["weights"][gone], weight, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("speed", "noise", "margin"), [(10.0, 0.0, 0.1), (3.0, 0.1, 0.2)], ids=["fast", "slow"])
def test_one_that_died_does_not_end_a_stream_that_moves_on(speed: float, noise: float, margin: float) -> None:
    """In float32 the spread of a component a thousand of them away from the origin is rounding; if it has no rows left,
    it is let go. Where data moves slowly, it stands at the edge of that for some batches.
    """
    random = np.random.default_rng(3)
    fit = probem.fit(PROGRAM, np.concatenate([X, X + np.array([0.0, 60.0])]).astype(np.float32))
    low = int(np.argmin(fit.params["loc"][:, 1]))
    before = numpy_of(fit)
    for step in range(int(1500 / speed)):
        x = X + np.array([0.0, 60.0 + speed * step]) + noise * random.normal(size=X.shape)
        fit = probem.absorb(fit, x.astype(np.float32), rate=0.3)
    assert fit.params["weights"][low] < 1e-20
    np.testing.assert_allclose(fit.params["loc"][low], before["loc"][low], atol=0.1)
    np.testing.assert_allclose(fit.params["scale"][low], before["scale"][low], rtol=margin)


@pytest.mark.slow
@pytest.mark.parametrize(
    "families", [probem.EM, pytest.param(probem.HARD_EM, marks=pytest.mark.slow)], ids=lambda corner: corner.name
)
def test_a_batch_in_several_blocks_is_one(families, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = probem.fit(MIXTURE, draw(300, 0), families=families)
    x, rows = draw(400, 1), np.random.default_rng(0).integers(0, 3, 400) * 1.0
    one = probem.absorb(fit, x, row_weights=rows)
    monkeypatch.setattr(Plan, "cut", lambda plan, num_rows: Chunking(64, 32, parallel_blocks=2))
    many = probem.absorb(fit, x, row_weights=rows)
    assert_equal(many, numpy_of(one), 1e-11)
    np.testing.assert_allclose(many.elbo, one.elbo, rtol=1e-12)
    np.testing.assert_allclose(many.batch_elbo, one.batch_elbo, rtol=1e-12)


@pytest.mark.slow
def test_a_large_batch_is_one_step_over_all_its_rows() -> None:
    x = draw(600_000, 7)
    fit = probem.absorb(stream(), x, rate=1)
    assert_equal(fit, em_step(numpy_of(stream()), x)[1], 1e-9)
