"""Fits of sparse rows beside fits of the same rows as an array: to rounding the same."""

import functools
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.sparse as sp

import probem
from probem.models import bernoulli_mixture, gmm, kmeans, poisson_mixture
from probem.models.bayesian_poisson_mixture import bayesian_poisson_mixture
from probem.models.covariance import diagonal, full, shared_spherical, spherical
from probem.models.priors import RatePrior
from probem.plan.plan import Plan
from tests.programs.counted import cost

COUNT, DIM, K = 120, 30, 3
RANDOM = np.random.default_rng(1)
TRUE = RANDOM.integers(0, K, COUNT)
COUNTS = RANDOM.poisson((RANDOM.random((K, DIM)) ** 4 * 3)[TRUE]).astype(float)
COUNTS[7] = 0
ONES = (COUNTS > 0).astype(float)
# Every entry varies in every component.
NORMAL = np.where(RANDOM.random((COUNT, DIM)) < 0.5, RANDOM.normal(size=(COUNT, DIM)) + TRUE[:, None], 0.0)
WEIGHTS = RANDOM.integers(0, 3, COUNT).astype(float)
LABELS = np.where(RANDOM.random(COUNT) < 0.2, TRUE, -1)
START = {"init": probem.Labels(TRUE)}


def beta_bernoulli_mixture(x):
    weights = numpyro.sample("weights", dist.Dirichlet(np.ones(K)))
    with numpyro.plate("components", K):
        probs = numpyro.sample("probs", dist.Beta(np.ones(DIM), np.ones(DIM)).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Bernoulli(probs[t]).to_event(1), obs=x)


def of(program, **arguments):
    return functools.partial(program, num_components=K, **arguments)


CASES = {
    "k-means": (of(kmeans), COUNTS, {"families": probem.HARD_EM}),
    "k-means, weights and labels": (
        of(kmeans),
        COUNTS,
        {"families": probem.HARD_EM, "row_weights": WEIGHTS, "labels": LABELS},
    ),
    "random rows": (of(kmeans), COUNTS, {"families": probem.HARD_EM, "init": probem.RandomRows()}),
    "Poisson": (of(poisson_mixture), COUNTS, {}),
    "Poisson, whole numbers, weights and labels": (
        of(poisson_mixture),
        COUNTS.astype(int),
        {"row_weights": WEIGHTS, "labels": LABELS},
    ),
    "Bernoulli, truth values": (of(bernoulli_mixture), ONES.astype(bool), START),
    "one variance": (of(gmm, covariance=shared_spherical), COUNTS, START),
    "a variance of each component": (of(gmm, covariance=spherical), COUNTS, START),
    "a variance of each entry": (of(gmm, covariance=diagonal), NORMAL, START),
    "gamma-Poisson": (
        of(bayesian_poisson_mixture, prior=RatePrior.from_data(jnp.asarray(COUNTS))),
        COUNTS,
        {"families": probem.VARIATIONAL_BAYES},
    ),
    "beta-Bernoulli": (beta_bernoulli_mixture, ONES, {"families": probem.VARIATIONAL_BAYES, **START}),
}
# Each compiles a loop of its own.
QUICK = ("Poisson",)


@pytest.mark.filterwarnings("ignore:.*float32")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_fit_of_sparse_rows_is_that_of_the_array(name):
    program, x, options = CASES[name]
    rows = sp.csr_array(x)
    dense, sparse = probem.fit(program, x, **options), probem.fit(program, rows, **options)
    assert sparse.result is dense.result
    assert sparse.num_steps == dense.num_steps
    # A sum of some thousand numbers is off by some tens of roundings of the largest; the M half-step divides by counts.
    np.testing.assert_allclose(sparse.elbo, dense.elbo, rtol=1e-12)
    for site, value in dense.params.items():
        np.testing.assert_allclose(sparse.params[site], value, rtol=1e-9, atol=1e-11)
    for first, second in ((sparse, rows), (sparse, x), (dense, rows)):
        np.testing.assert_array_equal(first.predict(second), dense.predict(x))
        np.testing.assert_allclose(first.responsibilities(second), dense.responsibilities(x), atol=1e-9)
        densities = dense.log_density(x, plug_in=True)
        np.testing.assert_allclose(first.log_density(second, plug_in=True), densities, rtol=1e-10)
        assert first.gap(second) == pytest.approx(dense.gap(x), abs=1e-8)


@pytest.mark.slow
def test_the_best_of_several_restarts_is_that_of_the_array():
    options = {"families": probem.HARD_EM, "restarts": 3}
    dense, sparse = (probem.fit(of(kmeans), x, **options) for x in (COUNTS, sp.csr_array(COUNTS)))
    # Which of equal ones is the best, rounding says.
    np.testing.assert_allclose(sparse.restart_elbos, dense.restart_elbos, rtol=1e-12)


@pytest.mark.slow
def test_rows_in_several_blocks_are_added_up(monkeypatch):
    rows = sp.csr_array(np.tile(COUNTS, (25, 1)))
    start = {"families": probem.HARD_EM, "init": probem.Labels(np.tile(TRUE, 25))}
    monkeypatch.setattr("probem.plan.plan.SPARSE_TABLE_NUMBERS", 1024)
    fit = probem.fit(of(kmeans), rows, **start)
    dense = probem.fit(of(kmeans), rows.toarray(), **start)
    np.testing.assert_allclose(fit.elbo, dense.elbo, rtol=1e-12)
    np.testing.assert_allclose(fit.params["loc"], dense.params["loc"], atol=1e-12)
    for seeding in (probem.KMeansPlusPlus(), probem.RandomRows()):
        seeded = probem.fit(of(kmeans), rows, init=seeding, families=probem.HARD_EM, restarts=2)
        # Its bound is that of the array at its centres.
        assert seeded.elbo == pytest.approx(float(bound_of_k_means(rows.toarray(), seeded.params["loc"])), rel=1e-12)


def bound_of_k_means(x: np.ndarray, loc: np.ndarray) -> float:
    squares = ((x[:, None] - loc) ** 2).sum(2).min(1)
    return -squares.sum() / 2 - len(x) * (np.log(len(loc)) + x.shape[1] * np.log(2 * np.pi) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_empty_components_are_given_the_rows_that_are_worst_fitted(restarts):
    """From two centres far from every row, as the array does; rows that are one with their centre stay."""
    x = np.concatenate([COUNTS, np.repeat(9 * np.eye(DIM)[:1], 4, axis=0)])
    far = np.concatenate([x[:1], 100 + np.arange(2.0 * DIM).reshape(2, DIM)])
    options = {"families": {"t": probem.Delta(fill_empty=True)}, "init": probem.Parameters({"loc": far})}
    if restarts > 1:
        options |= {"init": lambda key, rows: probem.Parameters({"loc": far}), "restarts": restarts}
    dense, sparse = probem.fit(of(kmeans), x, **options), probem.fit(of(kmeans), sp.csr_array(x), **options)
    assert (sparse.counts > 0).all()
    assert sparse.num_steps == dense.num_steps
    np.testing.assert_allclose(sparse.params["loc"], dense.params["loc"], atol=1e-12)


@pytest.mark.slow
def test_rows_that_are_one_with_their_centre_stay():
    """Three rows, many times, for four centres: one has none, since moving a row there would leave another empty."""
    x = np.repeat(COUNTS[:3], [5, 4, 3], axis=0)
    start = probem.Parameters({"loc": np.concatenate([x[[0, 5, 9]], np.full((1, DIM), 50.0)])})
    options = {"families": {"t": probem.Delta(fill_empty=True)}, "init": start, "throw": False}
    program = functools.partial(kmeans, num_components=4)
    dense, sparse = probem.fit(program, x, **options), probem.fit(program, sp.csr_array(x), **options)
    np.testing.assert_array_equal(sparse.counts, [5, 4, 3, 0])
    np.testing.assert_allclose(sparse.params["loc"], dense.params["loc"], atol=1e-12)
    assert sparse.result is dense.result
    assert sparse.num_steps == dense.num_steps


@pytest.mark.slow
def test_a_row_of_weight_zero_is_none_whatever_it_holds():
    weights, x = np.ones(COUNT), COUNTS.copy()
    weights[5], x[5] = 0.0, -1.0
    with_it, without = (
        probem.fit(of(poisson_mixture), sp.csr_array(rows), row_weights=these, init=probem.Labels(labels))
        for rows, these, labels in (
            (x, weights, TRUE),
            (np.delete(x, 5, 0), np.delete(weights, 5), np.delete(TRUE, 5)),
        )
    )
    assert with_it.elbo == pytest.approx(without.elbo, rel=1e-12)


@pytest.mark.slow
def test_a_batch_may_be_sparse_or_an_array():
    program, half = of(gmm, covariance=shared_spherical), COUNT // 2
    options = {"init": probem.Labels(TRUE[:half])}

    def streamed(first, second):
        fit = probem.absorb(probem.fit(program, first(COUNTS[:half]), **options), second(COUNTS[half:]), decay=0.7)
        return fit, fit.params

    expected, params = streamed(np.asarray, np.asarray)
    for first, second in ((sp.csr_array, sp.csr_array), (sp.csr_array, np.asarray), (np.asarray, sp.csr_array)):
        fit, others = streamed(first, second)
        np.testing.assert_allclose(fit.elbo, expected.elbo, rtol=1e-10)
        for site, value in params.items():
            np.testing.assert_allclose(others[site], value, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_a_fit_of_rows_with_gaps_answers_about_sparse_rows():
    """As about the array, which has no gaps either; but its sums are not those that sparse rows can be added to."""
    gaps = COUNTS.copy()
    gaps[0, 1] = np.nan
    fit, rows = probem.fit(of(poisson_mixture), gaps, **START), sp.csr_array(COUNTS)
    np.testing.assert_allclose(fit.responsibilities(rows), fit.responsibilities(COUNTS), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(fit.log_density(rows), fit.log_density(COUNTS), rtol=1e-10)
    imputed = fit.impute(sp.coo_matrix(COUNTS))
    assert isinstance(imputed, sp.csr_array)
    np.testing.assert_array_equal(imputed.toarray(), COUNTS)
    with pytest.raises(probem.InputError, match=r"sparse rows after rows with missing values.*pass x\.toarray\(\)"):
        probem.absorb(fit, rows)


def test_programs_whose_statistics_are_no_sums_over_non_zeros_are_refused(monkeypatch):
    """Before anything is planned: at this width a covariance matrix would take a terabyte."""
    monkeypatch.setattr(Plan, "__init__", None)
    wide = sp.csr_array(([1.0, 2.0], ([0, 1], [5, 7])), (4, 400_000))

    def computed(x):
        rate = numpyro.param("rate", jnp.ones(2), constraint=dist.constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(np.ones(2) / 2))
            numpyro.sample("x", dist.Poisson(rate[t]), obs=x.sum(1))

    def generic(x):
        loc = numpyro.param("loc", jnp.zeros((2, 5)))
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(np.ones(2) / 2))
            numpyro.sample("x", dist.Laplace(loc[t], 1.0).to_event(1), obs=x)

    def gamma(x):
        rate = numpyro.param("rate", jnp.ones((2, 5)), constraint=dist.constraints.positive)
        with numpyro.plate("data", x.shape[0]):
            t = numpyro.sample("t", dist.Categorical(np.ones(2) / 2))
            numpyro.sample("x", dist.Gamma(2.0, rate[t]).to_event(1), obs=x)

    for program, rows, message in (
        (functools.partial(gmm, num_components=2, covariance=full), wide, "'x', whose statistics are products"),
        (computed, wide, "the observation 'x', computed from the rows"),
        (generic, sp.csr_array(np.ones((4, 5))), "'x', a density without an exponential-family form"),
        (gamma, sp.csr_array(np.ones((4, 5))), "'x', whose statistics are not zero where"),
    ):
        with pytest.raises(probem.InputError, match=rf"got sparse rows for {message}.*pass x\.toarray\(\)"):
            probem.fit(program, rows)


@pytest.mark.slow
def test_what_takes_no_sparse_rows_says_so():
    rows = sp.csr_array(COUNTS)
    program = of(kmeans)
    calls = (
        (lambda: probem.fit_many(program, rows), "sparse rows of many data sets"),
        (lambda: probem.solve(program, rows, families=probem.HARD_EM), "sparse rows; expected an array"),
        (lambda: probem.marginalize(program)(rows), "sparse rows; expected an array"),
        (lambda: probem.fit(program, rows, init=probem.Lloyd()), "sparse rows for seeds of Lloyd"),
        (lambda: probem.fit(of(poisson_mixture), -rows), r"the value -\d+ of 'x' \(row 0, column \d+\), outside"),
    )
    for call, message in calls:
        with pytest.raises(probem.InputError, match=message):
            call()
    fit = probem.fit(
        of(bayesian_poisson_mixture, prior=RatePrior.from_data(jnp.asarray(COUNTS))),
        rows,
        families=probem.VARIATIONAL_BAYES,
    )
    with pytest.raises(probem.InputError, match=r"posterior predictive density.*plug_in=True"):
        fit.log_density(rows)


@pytest.mark.slow
def test_a_value_outside_the_support_has_density_zero():
    rows = sp.csr_array(ONES)
    fit = probem.fit(of(bernoulli_mixture), rows, **START)
    other = ONES.copy()
    other[3, 4], other[9, 2] = 2.0, -1.0
    densities = fit.log_density(sp.csr_array(other))
    np.testing.assert_array_equal(np.flatnonzero(np.isneginf(densities)), [3, 9])
    np.testing.assert_allclose(np.delete(densities, [3, 9]), np.delete(fit.log_density(ONES), [3, 9]), rtol=1e-12)
    with pytest.raises(probem.InputError, match=r"the value 2 of 'x' \(row 3, column 4\)"):
        fit.predict(sp.csr_array(other))


@pytest.mark.slow
def test_other_rows_of_about_as_many_non_zeros_compile_nothing():
    program = of(kmeans)
    probem.fit(program, sp.csr_array(COUNTS), families=probem.HARD_EM).predict(sp.csr_array(COUNTS))
    others = COUNTS[RANDOM.permutation(COUNT)[3:]]

    def again():
        probem.fit(program, sp.csr_array(others), families=probem.HARD_EM).predict(sp.csr_array(others))

    assert cost(again) == (0, 0)


@pytest.mark.slow
def test_an_array_that_would_not_fit_is_never_formed():
    """20000 rows of 100000 columns would take 16 GB in float64; a fit, its seeds and its answers take a few of it."""
    script = """
import functools, pathlib, re, resource
import numpy as np, numpyro, scipy.sparse as sp
numpyro.enable_x64()
import probem
from probem.models import poisson_mixture
random = np.random.default_rng(0)
size, dim, each = 20_000, 100_000, 30
places = 100 * random.integers(0, dim // 200, (size, each)) + dim // 2 * (np.arange(size) % 2)[:, None]
rows = sp.csr_array((np.ones(size * each), places.ravel(), np.arange(size + 1) * each), (size, dim))
fit = probem.fit(functools.partial(poisson_mixture, num_components=2), rows, max_steps=20, throw=False)
labels = fit.predict(rows)
assert np.unique(labels[::2]).size == np.unique(labels[1::2]).size == 1 and labels[0] != labels[1]
assert np.isfinite(fit.log_density(rows)).all()
# On Linux, the maximum of the process that began this one counts as that of this one, but for VmHWM.
status = pathlib.Path("/proc/self/status")
highest = re.search("VmHWM: *([0-9]+)", status.read_text().replace("\\t", " ")) if status.exists() else None
print((int(highest[1]) if highest else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 2**20)
"""
    peak = float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert peak < 4.0
