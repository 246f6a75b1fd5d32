"""Terms by a matrix product for each component: a fit with few components and many entries, against plain loops."""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats

import probem
from probem.models import GaussianPrior, bayesian_gmm, gmm
from probem.plan import plan
from probem.plan.chunking import takes_products

DIM, COUNT = 9, 2
_random = np.random.default_rng(0)
X = _random.normal(size=(700, DIM)) + 2.0 * _random.integers(0, 2, 700)[:, None] + 5.0
WEIGHTS = _random.uniform(0.5, 2.0, 700)
_roots = _random.normal(size=(COUNT, DIM, 3 * DIM)) / np.sqrt(3 * DIM)
START = {"weights": np.array([0.3, 0.7]), "loc": X[:COUNT], "covariance": _roots @ _roots.transpose(0, 2, 1)}
PROGRAM = functools.partial(gmm, num_components=COUNT)


def _table(params: dict, x: np.ndarray) -> np.ndarray:
    components = zip(params["weights"], params["loc"], params["covariance"], strict=True)
    return np.stack([np.log(w) + scipy.stats.multivariate_normal(m, c).logpdf(x) for w, m, c in components], 1)


def _em_step(params: dict, x: np.ndarray, weights: np.ndarray) -> tuple[float, dict]:
    table = _table(params, x)
    log_density = np.logaddexp.reduce(table, axis=1)
    r = weights[:, None] * np.exp(table - log_density[:, None])
    loc = [np.average(x, axis=0, weights=column) for column in r.T]
    covariance = [np.cov(x.T, aweights=column, ddof=0) for column in r.T]
    following = {"weights": r.sum(0) / r.sum(), "loc": np.array(loc), "covariance": np.array(covariance)}
    return weights @ log_density, following


def test_em_is_the_plain_loop() -> None:
    fit = probem.fit(PROGRAM, X, init=probem.Parameters(START), row_weights=WEIGHTS, max_steps=3, throw=False)
    assert [term.site for term in fit.plan.by_products] == ["x"]
    assert not len(fit.plan.formed)
    params = START
    for step in range(3):
        elbo, following = _em_step(params, X, WEIGHTS)
        np.testing.assert_allclose(fit.history.elbo[2 * step], elbo, rtol=1e-10)
        params = following if step < 2 else params
    for name, value in params.items():
        # Second moments of rows around their mean: a few digits less than float64 has.
        np.testing.assert_allclose(fit.params[name], value, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(fit.log_density(X), np.logaddexp.reduce(_table(params, X), axis=1), rtol=1e-10)


def _nested(x: np.ndarray, y: np.ndarray) -> None:
    """Two copies of a vector with full covariances, beside a site with columns of its own."""
    weights = numpyro.param("weights", jnp.array([0.4, 0.6]), constraint=dist.constraints.simplex)
    loc = numpyro.param("loc", jnp.zeros((COUNT, 2, DIM)))
    covariance = numpyro.param(
        "covariance", jnp.zeros((COUNT, 2, DIM, DIM)) + jnp.eye(DIM), constraint=dist.constraints.positive_definite
    )
    rate = numpyro.param("rate", jnp.ones(COUNT), constraint=dist.constraints.positive)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.MultivariateNormal(loc[t], covariance_matrix=covariance[t]).to_event(1), obs=x)
        numpyro.sample("y", dist.Poisson(rate[t]), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize("family", [probem.Categorical(), probem.TopC(1)], ids=repr)
def test_copies_and_other_columns(family: probem.Categorical | probem.TopC) -> None:
    x, y = X[:, None, :] + _random.normal(size=(700, 2, DIM)), _random.poisson(3.0, 700)
    q = _random.dirichlet(np.ones(COUNT), 700)
    # The q that is given makes the parameters that the first step finds a bound for.
    fit = probem.fit(_nested, x, y, families={"t": family}, init=probem.Responsibilities(q), max_steps=1, throw=False)
    assert [term.site for term in fit.plan.by_products] == ["x"]
    assert len(fit.plan.formed) == 1
    fitted = fit.params
    for k in range(COUNT):
        np.testing.assert_allclose(fitted["rate"][k], np.average(y, weights=q[:, k]), rtol=1e-10)
        for copy in range(2):
            rows = x[:, copy]
            np.testing.assert_allclose(fitted["loc"][k, copy], np.average(rows, axis=0, weights=q[:, k]), rtol=1e-10)
            covariance = np.cov(rows.T, aweights=q[:, k], ddof=0)
            np.testing.assert_allclose(fitted["covariance"][k, copy], covariance, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_explain_says_which_terms() -> None:
    said = ", those of x by a matrix product for each component, "
    missing = X.copy()
    missing[::7, 3] = np.nan
    assert said in probem.explain(PROGRAM, X).cost
    for x, families in ((X, probem.HARD_EM), (missing, None), (X[:, :3], None)):
        assert "matrix product" not in probem.explain(PROGRAM, x, families=families).cost


def test_many_components_take_columns() -> None:
    assert takes_products(64, 2)
    assert takes_products(8, 4)
    assert not takes_products(16, 16)
    assert not takes_products(2, 2)


def salted(x, *, salt: int, program) -> None:
    """A program of a structure of its own for each salt: what is compiled for one is not taken for another."""
    del salt
    program(x)


def _prior() -> GaussianPrior:
    return GaussianPrior(X.mean(0), 0.5, DIM + 2.0, np.cov(X, rowvar=False))


BAYESIAN = functools.partial(bayesian_gmm, num_components=COUNT, prior=_prior())
LABELS = probem.Labels((X[:, 0] > 6).astype(int))


def _streamed(program) -> tuple[probem.Fit, ...]:
    """Variational Bayes of weighted rows, and what it becomes with the rest of them."""
    first = probem.fit(
        program(BAYESIAN),
        X[:300],
        init=probem.Labels(LABELS.values[:300]),
        families=probem.VARIATIONAL_BAYES,
        row_weights=WEIGHTS[:300],
    )
    return first, probem.absorb(first, X[300:], row_weights=WEIGHTS[300:])


def _known_and_restarted(program) -> tuple[probem.Fit, ...]:
    labels = np.where(np.arange(700) % 3, -1, LABELS.values)
    return (probem.fit(program(PROGRAM), X, labels=labels, restarts=3, key=1, record_gap=True),)


# Each way once, and together what does not depend on each other.
FITS = {
    "EM, known labels and restarts": _known_and_restarted,
    "MAP": lambda program: (probem.fit(program(BAYESIAN), X, init=LABELS, families={"t": probem.Tempered(0.7)}),),
    "variational Bayes and a stream": _streamed,
    "many data sets": lambda program: tuple(
        probem.fit_many(
            program(BAYESIAN), np.stack([X, X[::-1] + 1.0]), init=probem.Lloyd(), families=probem.VARIATIONAL_BAYES
        )
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_every_way_of_fitting_agrees_with_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    for salt, taken in enumerate((True, False)):
        monkeypatch.setattr(plan, "takes_products", lambda dim, count, line, taken=taken: taken)
        program = functools.partial(functools.partial, salted, salt=2 * list(FITS).index(name) + salt)
        fits.append(FITS[name](lambda of, program=program: program(program=of)))
        assert {bool(fit.plan.by_products) for fit in fits[-1]} == {taken}
    for first, second in zip(*fits, strict=True):
        assert first.num_steps == second.num_steps
        # Sums of 700 rows in another order, carried on for some tens of steps.
        np.testing.assert_allclose(first.elbo, second.elbo, rtol=1e-10, equal_nan=True)
        for site, value in first.params.items():
            np.testing.assert_allclose(value, second.params[site], rtol=1e-6, atol=1e-8)
        for answer in ("responsibilities", "log_density"):
            np.testing.assert_allclose(getattr(first, answer)(X), getattr(second, answer)(X), rtol=1e-6, atol=1e-8)
