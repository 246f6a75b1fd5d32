"""The data of a sweep and what is measured on its fits, beside plain computations."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import polars
import pytest
from sklearn.metrics import adjusted_rand_score

import probem
from probem.experiments.claims.datasets import old_faithful
from probem.experiments.research.data import Data, source_of
from probem.experiments.research.generators import GENERATORS, bernoulli_features, gaussian_clusters, poisson_counts
from probem.experiments.research.measures import Measured, measure_all
from probem.experiments.research.resolution import Resolver
from probem.experiments.research.run import main
from probem.models import GaussianPrior, bayesian_gmm, gmm


@pytest.mark.slow
def test_held_out_rows_and_priors_from_the_scale_of_the_rows():
    results = main(
        {
            "program": {"name": "bayesian_gmm", "num_components": 2, "prior": {"strength": 0.5}},
            "data": {"name": "old_faithful", "held_out": 0.25},
            "families": "VARIATIONAL_BAYES",
            "seeds": 2,
            "measure": ["log_density", "elbo"],
        }
    )
    x = old_faithful().rows
    for row in results.rows:
        order = np.random.default_rng([row["seed"], 272]).permutation(272)
        apart, kept = np.sort(order[:68]), np.sort(order[68:])
        prior = GaussianPrior.from_data(jnp.asarray(x[kept]), num_components=2)._replace(strength=0.5)
        program = partial(bayesian_gmm, num_components=2, prior=prior)
        fit = probem.fit(program, x[kept], families=probem.VARIATIONAL_BAYES, key=row["seed"])
        assert row["elbo"] == pytest.approx(fit.elbo, abs=1e-8)
        assert row["log_density"] == pytest.approx(fit.log_density(x[apart]).mean(), abs=1e-9)


def test_rows_are_standardised_by_those_that_are_fitted():
    """What is held out leaks into nothing; true parameters are in other units, and left out."""

    def lines(seed):
        rows = np.random.default_rng(seed).normal(3.0, 5.0, size=(20, 2))
        return rows, None, {"loc": np.zeros((2, 2))}

    section = {"name": lines, "held_out": 0.25}
    plain, scaled = (
        source_of(section | {"standardise": standardise}, Resolver(Path())).draw(3) for standardise in (False, True)
    )
    mean, spread = plain.rows.mean(axis=0), plain.rows.std(axis=0)
    np.testing.assert_allclose(scaled.rows, (plain.rows - mean) / spread, atol=1e-14)
    np.testing.assert_allclose(scaled.held_out, (plain.held_out - mean) / spread, atol=1e-14)
    assert list(plain.parameters) == ["loc"]
    assert not scaled.parameters


@pytest.mark.slow
def test_measures_beside_plain_computations():
    results = main(
        {
            "program": {"name": "gmm", "num_components": 3, "covariance": "shared_spherical"},
            "data": {"name": "gaussian_clusters", "rows": 90, "components": 3, "separation": 5.0},
            "families": {"t": {"name": "tempered", "beta": 0.5}},
            "fit": {"init": "truth"},
            "measure": ["terms", "elbo", "gap", "ari", "parameters_error", "occupied", "converged"],
        }
    )
    (row,) = results.rows
    x, labels, true = gaussian_clusters(0, rows=90, components=3, separation=5.0)
    program = partial(gmm, num_components=3, covariance=probem.models.shared_spherical)
    fit = probem.fit(program, x, families={"t": probem.Tempered(0.5)}, init=probem.Labels(labels))
    table = np.asarray(probem.log_joint(program, fit.params, x))
    log_q = 0.5 * table - np.logaddexp.reduce(0.5 * table, axis=1, keepdims=True)
    log_posterior = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
    assert row["gap"] == pytest.approx((np.exp(log_q) * (log_q - log_posterior)).sum(), rel=1e-6)
    assert sum(value for name, value in row.items() if name.startswith("terms.")) == pytest.approx(row["elbo"])
    assert row["ari"] == pytest.approx(adjusted_rand_score(labels, table.argmax(axis=1)))
    # It starts at the truth: component k is component k.
    loc = np.asarray(fit.params["loc"])
    assert row["parameters_error.loc"] == pytest.approx(np.sqrt(((loc - true["loc"]) ** 2).mean()), rel=1e-6)
    assert row["occupied"] == 3
    assert row["converged"] == 1


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generators_are_functions_of_their_seed(name):
    first, again, other = (GENERATORS[name](seed, rows=50).rows for seed in (1, 1, 2))
    assert first.shape[0] == 50
    assert (first == again).all()
    assert (first != other).any()


def test_generators_draw_from_their_parameters():
    """Means of a hundred thousand rows, within five standard errors."""
    n = 100_000
    for drawn in (
        gaussian_clusters(3, rows=n, components=3, separation=4.0, weights=[1.0, 2.0, 3.0]),
        poisson_counts(3, rows=n, components=2, rate=1.5),
        bernoulli_features(3, rows=n, components=2),
    ):
        means = drawn.parameters.get("loc", drawn.parameters.get("rate", drawn.parameters.get("probs")))
        shares = np.bincount(drawn.labels) / n
        assert np.abs(shares - drawn.parameters["weights"]).max() < 5 * 0.5 / np.sqrt(n)
        for k, mean in enumerate(means):
            rows = drawn.rows[drawn.labels == k]
            assert (np.abs(rows.mean(axis=0) - mean) < 5 * rows.std(axis=0) / np.sqrt(len(rows))).all()
    centres = gaussian_clusters(0, components=5, separation=4.0).parameters["loc"]
    assert np.linalg.norm(centres - np.roll(centres, 1, axis=0), axis=1) == pytest.approx([4.0] * 5)


def test_a_file_of_rows_and_its_column_of_labels(tmp_path):
    """The labels are no column of the rows, and are what the agreement is measured against."""
    labels = np.repeat([3, 7], 20)
    x = np.random.default_rng(0).normal(size=(40, 2)) + 20.0 * (labels[:, None] == 7)
    polars.DataFrame({"a": x[:, 0], "kind": labels, "b": x[:, 1]}).write_csv(tmp_path / "rows.csv")
    (tmp_path / "x.yaml").write_text("""\
program: {name: kmeans, num_components: 2}
data: {name: rows.csv, labels: kind}
families: HARD_EM
measure: [ari, elbo]
""")
    (row,) = main(tmp_path / "x.yaml").rows
    assert row["ari"] == 1.0
    centred = x - np.stack([x[labels == kind].mean(axis=0) for kind in (3, 7)])[(labels == 7).astype(int)]
    # log p(x, t) of unit spheres and equal weights.
    assert row["elbo"] == pytest.approx(-0.5 * (centred**2).sum() - 40 * (np.log(2 * np.pi) + np.log(2)), rel=1e-9)


@pytest.mark.slow
def test_parameters_are_compared_under_the_best_numbering():
    """Components in another order are as good; a centre that is off by 3 in one of two columns costs 3 / sqrt(6)."""
    true = {"loc": np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), "weights": np.array([0.5, 0.25, 0.25])}
    order = [2, 0, 1]
    fitted = {name: value[order].copy() for name, value in true.items()}
    fitted["loc"][0, 1] += 3.0
    rows = np.repeat(true["loc"], 5, axis=0) + np.random.default_rng(0).normal(size=(15, 2))
    fit = probem.fit(partial(gmm, num_components=3), rows, max_steps=1, throw=False)
    data = Data(rows, None, None, true)
    values, failures = measure_all(
        ["parameters_error"],
        Path(),
        Measured(dataclasses.replace(fit, params={**fit.params, **jax.tree.map(jnp.asarray, fitted)}), data, None, 0.0),
    )
    assert failures == []
    assert values == pytest.approx({"parameters_error.loc": 3 / np.sqrt(6), "parameters_error.weights": 0.0})
