"""Seeds that are clusters of k-means, or drawn in a metric, beside plain loops and scikit-learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

import probem
from probem import models
from probem.solver.seedings import FixedSeeds, SeedingIn, nearest_seed

RANDOM = np.random.default_rng(5)
ROWS = np.concatenate([RANDOM.normal(centre, 1.0, (40, 3)) for centre in (-2.0, 0.5, 4.0)]) * [1.0, 0.1, 7.0]
WEIGHTS = RANDOM.integers(0, 4, len(ROWS)).astype(float)
KEY = jax.random.key(3)


def squared_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Of every row to every centre, by the values that are there."""
    return np.nansum((rows[:, None] - centres[None]) ** 2, axis=2)


def plain_lloyd(rows, weights, centres, fixed=(), most: int = 300) -> np.ndarray:
    """Lloyd's algorithm, row by row, from given centres; no cluster may become empty."""
    labels = squared_distances(rows, centres).argmin(1)
    for _ in range(most):
        centres = centres.copy()
        for k in range(len(centres)):
            here = (labels == k) & (weights > 0)
            assert here.any()
            if k not in fixed:
                for column in range(rows.shape[1]):
                    seen = here & ~np.isnan(rows[:, column])
                    centres[k, column] = np.average(rows[seen, column], weights=weights[seen])
        before, labels = labels, squared_distances(rows, centres).argmin(1)
        if (before == labels)[weights > 0].all():
            break
    return centres


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("unit", [1.0, 2.0**-600, 2.0**500])
def test_clusters_are_those_of_a_plain_loop(missing, unit):
    rows = ROWS * unit
    if missing:
        rows = np.where(np.random.default_rng(1).random(rows.shape) < 0.2, np.nan, rows)
        rows[np.isnan(rows).all(1), 0] = unit
    drawn = unit * np.asarray(probem.KMeansPlusPlus().seeds(KEY, jnp.asarray(rows / unit), jnp.asarray(WEIGHTS), 4))
    clusters = jax.jit(probem.Lloyd().seeds, static_argnums=3)(KEY, jnp.asarray(rows), jnp.asarray(WEIGHTS), 4)
    # Sums of 120 rows in another order.
    expected = plain_lloyd(rows / unit, WEIGHTS, drawn / unit)
    np.testing.assert_allclose(np.asarray(clusters) / unit, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
def test_clusters_are_those_of_scikit_learn():
    drawn = np.asarray(probem.KMeansPlusPlus().seeds(KEY, jnp.asarray(ROWS), jnp.ones(len(ROWS)), 5))
    peer = KMeans(5, init=drawn, n_init=1, tol=0.0, algorithm="lloyd").fit(ROWS)
    clusters = probem.Lloyd().seeds(KEY, jnp.asarray(ROWS), jnp.ones(len(ROWS)), 5)
    np.testing.assert_allclose(clusters, peer.cluster_centers_, rtol=1e-10)
    in_float32 = probem.Lloyd().seeds(KEY, jnp.asarray(ROWS, jnp.float32), jnp.ones(len(ROWS), jnp.float32), 5)
    assert in_float32.dtype == jnp.float32


def test_as_many_steps_as_are_asked_for():
    drawn = np.asarray(probem.KMeansPlusPlus().seeds(KEY, jnp.asarray(ROWS), jnp.ones(len(ROWS)), 5))
    for most in (0, 1, 2):
        clusters = probem.Lloyd(max_steps=most).seeds(KEY, jnp.asarray(ROWS), jnp.ones(len(ROWS)), 5)
        expected = plain_lloyd(ROWS, np.ones(len(ROWS)), drawn, most=most)
        np.testing.assert_allclose(clusters, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("max_steps", [-1, True])
def test_a_number_of_steps_that_is_none_is_refused(max_steps):
    with pytest.raises(probem.InputError, match="expected a whole number from 0"):
        probem.Lloyd(max_steps)


def test_fixed_seeds_stay():
    given = np.zeros((3, 3))
    fixed = FixedSeeds(jnp.asarray(given), jnp.array([False, True, False]))
    arguments = KEY, jnp.asarray(ROWS), jnp.ones(len(ROWS)), 3, fixed
    clusters, drawn = probem.Lloyd().seeds(*arguments), probem.KMeansPlusPlus().seeds(*arguments)
    np.testing.assert_allclose(clusters, plain_lloyd(ROWS, np.ones(len(ROWS)), np.asarray(drawn), {1}), atol=1e-10)


def test_an_empty_cluster_moves_to_the_farthest_row_that_counts(monkeypatch):
    rows = jnp.array([[0.0], [1.0], [10.0], [11.0], [30.0], [90.0]])
    weights = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    # Of two seeds in one place, the second has no rows.
    monkeypatch.setattr(probem.KMeansPlusPlus, "seeds", lambda _, key, rows, *others: rows[jnp.array([0, 0, 3])])
    clusters = probem.Lloyd().seeds(KEY, rows, weights, 3)
    np.testing.assert_allclose(clusters[:, 0], [0.5, 30.0, 10.5])


def test_more_seeds_than_distinct_rows_come_to_an_end():
    rows = jnp.array([[0.0], [0.0], [3.0], [3.0]])
    clusters = np.asarray(probem.Lloyd().seeds(KEY, rows, jnp.ones(4), 4))
    assert set(clusters[:, 0].tolist()) == {0.0, 3.0}


@pytest.mark.slow
# In one block and in several.
@pytest.mark.parametrize(("rows", "restarts"), [(200, 1), (9000, 3)])
def test_seeds_in_a_metric_are_those_of_rows_in_it(rows, restarts):
    """A fit from seeds in a metric is that of transformed rows from the seeds there, transformed back."""
    factor = np.array([[3.0, 0.0], [-1.0, 0.25]])
    x = np.random.default_rng(2).normal(size=(rows, 2)) + np.repeat([[0.0, 0.0], [4.0, 1.0]], rows // 2, 0)
    program = functools.partial(models.gmm, num_components=3)
    options = {"key": 1, "max_steps": 1, "throw": False, "restarts": restarts}
    ours = probem.fit(program, x, init=SeedingIn(probem.KMeansPlusPlus(), factor), **options)
    there = probem.fit(program, x @ factor.T, init=probem.KMeansPlusPlus(), **options)
    np.testing.assert_allclose(ours.params["loc"] @ factor.T, there.params["loc"], rtol=1e-7, atol=1e-9)
    plain = probem.fit(program, x, init=probem.KMeansPlusPlus(), **options)
    assert not np.allclose(plain.params["loc"], ours.params["loc"])


@pytest.mark.slow
def test_a_diagonal_metric_leaves_missing_values_alone():
    x = np.where(np.random.default_rng(4).random(ROWS.shape) < 0.2, np.nan, ROWS)
    program = functools.partial(models.gmm, num_components=3, covariance=models.diagonal)
    options = {"key": 1, "max_steps": 1, "throw": False}
    metric = np.array([2.0, 5.0, 0.1])
    ours = probem.fit(program, x, init=SeedingIn(probem.Lloyd(), metric), **options)
    there = probem.fit(program, x * metric, init=probem.Lloyd(), **options)
    np.testing.assert_allclose(ours.params["loc"] * metric, there.params["loc"], rtol=1e-7)


@pytest.mark.slow
def test_many_data_sets_each_start_at_their_clusters():
    sets = np.stack([ROWS, ROWS[::-1] * 2.0, ROWS + 5.0])
    program = functools.partial(models.gmm, num_components=3)
    keys = jax.random.split(KEY, 3)
    fits = probem.fit_many(program, sets, init=probem.Lloyd(), key=keys)
    for number, x in enumerate(sets):
        alone = probem.fit(program, x, init=probem.Lloyd(), key=keys[number])
        np.testing.assert_allclose(fits.elbo[number], alone.elbo, rtol=1e-10)


@pytest.mark.slow
def test_a_fit_starts_at_the_nearest_cluster_of_every_row():
    program = functools.partial(models.gmm, num_components=3)
    fit = probem.fit(program, ROWS, init=probem.Lloyd(), key=KEY, max_steps=1, throw=False)
    clusters = probem.Lloyd().seeds(KEY, jnp.asarray(ROWS), jnp.ones(len(ROWS)), 3)
    labels = nearest_seed(jnp.asarray(ROWS), clusters)
    given = probem.fit(program, ROWS, init=probem.Labels(np.asarray(labels)), max_steps=1, throw=False)
    np.testing.assert_allclose(fit.elbo, given.elbo, rtol=1e-12)
