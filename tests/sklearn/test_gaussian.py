"""GaussianMixture and scikit-learn's from the same start."""

import numpy as np
import pytest
import sklearn.mixture

from probem.sklearn import GaussianMixture
from tests.sklearn.data import SETS, count_of, residual
from tests.sklearn.equality import TOLERANCE, centred, compare, fitted, responsibilities

KINDS = ("full", "tied", "diag", "spherical")
QUICK = {("iris", "full")}
CASES = [
    (name, kind) if (name, kind) in QUICK else pytest.param(name, kind, marks=pytest.mark.slow)
    for kind in KINDS
    for name in SETS
]


def start_of(name, kind):
    """Weights, means and precisions of soft clusters, their means relative to the origin."""
    rows, q = centred(name)[1], responsibilities(name)
    weights = q.mean(axis=0)
    means = q.T @ rows / q.sum(axis=0)[:, None]
    moved = rows[None] - means[:, None]
    whole = np.einsum("nk,kni,knj->kij", q, moved, moved) / q.sum(axis=0)[:, None, None]
    variances = np.einsum("kii->ki", whole)
    precisions = {
        "full": lambda: np.linalg.inv(whole),
        "tied": lambda: np.linalg.inv(np.einsum("k,kij->ij", weights, whole)),
        "diag": lambda: 1 / variances,
        "spherical": lambda: 1 / variances.mean(axis=1),
    }[kind]()
    return weights, means, precisions


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_em_is_that_of_scikit_learn_from_the_same_start(name, kind, record_property):
    rows, their_rows, origin = centred(name)
    weights, means, precisions = start_of(name, kind)
    settings = {"covariance_type": kind, "weights_init": weights, "precisions_init": precisions}
    count = count_of(name)
    ours = fitted(GaussianMixture(count, means_init=means + origin, **settings), rows)
    theirs = fitted(sklearn.mixture.GaussianMixture(count, means_init=means, **settings), their_rows)
    compare(ours, theirs, rows, their_rows, origin, record_property)
    assert residual(ours.lower_bounds_, theirs.lower_bounds_) <= TOLERANCE
    assert ours.lower_bound_ == ours.lower_bounds_[-1]
    # The bound of the parameters reported is their log likelihood.
    assert ours.elbo_ == pytest.approx(theirs.score(their_rows) * len(rows), rel=TOLERANCE)
    assert ours.bic(rows) == pytest.approx(theirs.bic(their_rows), rel=TOLERANCE)
    assert ours.aic(rows) == pytest.approx(theirs.aic(their_rows), rel=TOLERANCE)
    assert residual(ours.predict_proba(rows), theirs.predict_proba(their_rows)) <= 1e-6
    assert residual(ours.score_samples(rows), theirs.score_samples(their_rows)) <= TOLERANCE
