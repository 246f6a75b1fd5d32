"""The engine and scikit-learn from the same start, iteration by iteration."""

import functools
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import probem
from probem.experiments.claims.datasets import load
from probem.experiments.kmeans.trajectories import compare, k_means
from probem.experiments.oracles.lloyd import scikit_learn_lloyd, starts
from probem.models import diagonal, full, gmm, spherical, tied

# --- k-means ---


@pytest.mark.parametrize(
    ("num_components", "count"),
    [pytest.param(*case, marks=pytest.mark.slow) for case in ((10, 4), (64, 4))],
)
def test_k_means_has_the_labels_of_scikit_learn_at_every_iteration(num_components, count, record_property):
    rows = load("digits").rows
    found = []
    for start in starts(rows, num_components, count, seed=0):
        run = k_means(rows, start)
        # scikit-learn gives an emptied cluster another row; a start without that is what can be compared.
        assert all(len(np.unique(own.labels)) == num_components for own in run.iterations)
        found.append(compare(rows, run.iterations, functools.partial(scikit_learn_lloyd, rows)))
    record_property("labels at a tie to rounding", sum(len(one.ties) for one in found))
    record_property("iterations that part at a tie", sum(one.parted for one in found))
    assert sum(one.different for one in found) == 0
    assert max(one.centres for one in found) <= 1e-12
    assert max(one.excess for one in found) == 0
    # Starts between rows have no tie at all, so their whole way is compared without a break.
    assert all(not one.ties for one in found[1::2])


# --- EM ---


def precisions(covariances, covariance_type):
    return np.linalg.inv(covariances) if covariance_type in ("full", "tied") else 1 / covariances


#: Covariance type -> structure, the parameter's name, and the covariance from it.
STRUCTURES = {
    "full": (full, "covariance", lambda value: value),
    "tied": (tied, "covariance", lambda value: value),
    "diag": (diagonal, "scale", np.square),
    "spherical": (spherical, "scale", np.square),
}

ITERATIONS = 40


def start_from_labels(rows, num_components, covariance_type):
    """Weights, means and covariances of the clusters of k-means, widened so that no covariance is singular."""
    labels = k_means(rows, starts(rows, num_components, 2, seed=3)[1]).iterations[-1].labels
    parts = [rows[labels == k] for k in range(num_components)]
    weights = np.array([len(part) for part in parts]) / len(rows)
    means = np.stack([part.mean(axis=0) for part in parts])
    # A quarter of the covariance of all rows keeps every cluster well away from collapse.
    own = np.stack([np.cov(part.T, bias=True) + 0.25 * np.cov(rows.T, bias=True) for part in parts])
    diagonals = np.einsum("kdd->kd", own)
    covariances = {
        "full": own,
        "tied": np.einsum("k,kde->de", weights, own),
        "diag": diagonals,
        "spherical": diagonals.mean(axis=1),
    }
    return weights, means, covariances[covariance_type]


def scikit_learn_em(rows, covariance_type, weights, means, covariances):
    """Parameters after 1, 2, 3, ... iterations of one run that is taken up again and again."""
    estimator = GaussianMixture(
        len(weights),
        covariance_type=covariance_type,
        reg_covar=0.0,
        tol=0.0,
        max_iter=1,
        warm_start=True,
        weights_init=weights,
        means_init=means,
        precisions_init=precisions(covariances, covariance_type),
    )
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            estimator.fit(rows)
        yield estimator.weights_, estimator.means_, estimator.covariances_


@pytest.mark.slow
@pytest.mark.parametrize(("name", "covariance_type"), [("old_faithful", kind) for kind in STRUCTURES])
def test_em_has_the_parameters_of_scikit_learn_after_every_iteration(name, covariance_type):
    rows = load(name).rows
    structure, site, to_covariance = STRUCTURES[covariance_type]
    num_components = 2 if name == "old_faithful" else 3
    weights, means, covariances = start_from_labels(rows, num_components, covariance_type)
    value = covariances if site == "covariance" else np.sqrt(covariances)
    fits = probem.iterate(
        functools.partial(gmm, num_components=num_components, covariance=structure),
        rows,
        init=probem.Parameters({"weights": weights, "loc": means, site: value}),
        tolerance=0,
        max_steps=ITERATIONS + 1,
        throw=False,
    )
    next(fits)
    reference = scikit_learn_em(rows, covariance_type, weights, means, covariances)
    residuals = []
    for fit, (their_weights, their_means, their_covariances) in zip(fits, reference, strict=False):
        ours = (fit.params["weights"], fit.params["loc"], to_covariance(np.asarray(fit.params[site])))
        theirs = (their_weights, their_means, their_covariances)
        residuals.append(max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True)))
    assert len(residuals) == ITERATIONS
    # Rounding, amplified by at most the condition of the covariances at each of forty iterations.
    assert max(residuals) <= 1e-8
