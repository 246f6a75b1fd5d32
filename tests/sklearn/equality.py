"""Gaussian mixtures of scikit-learn and ours from one start, and how far apart they end."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from tests.sklearn.data import OFFSET, residual, rows_of, starting_rows

TOLERANCE = 1e-8
PARAMETERS = ("weights_", "covariances_")


def centred(name):
    """The rows, those that scikit-learn takes, and where these have their origin.

    scikit-learn subtracts squares of means from means of squares. A million standard deviations from the origin that
    leaves four digits of a variance, so the other side is given such rows moved back, which costs no rounding.
    """
    rows = rows_of(name)
    origin = OFFSET if name == "far away" else np.zeros(rows.shape[1])
    return rows, rows - origin, origin


def responsibilities(name):
    """Every row mostly in the cluster of its nearest starting row."""
    rows, start = rows_of(name), starting_rows(name, 5)
    scale = rows.std(axis=0)
    labels = (((rows[:, None, :] - start[None]) / scale) ** 2).sum(axis=2).argmin(axis=1)
    return 0.8 * np.eye(len(start))[labels] + 0.2 / len(start)


def fitted(estimator, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(rows)


def compare(ours, theirs, rows, their_rows, origin, record_property):
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.converged_ == theirs.converged_
    found = {name: residual(getattr(ours, name), getattr(theirs, name)) for name in PARAMETERS}
    found["means_"] = residual(ours.means_ - origin, theirs.means_)
    record_property("largest residual", float(max(found.values())))
    assert max(found.values()) <= TOLERANCE, found
    # An inverse loses as many digits as the condition of the covariances has, and scikit-learn's diagonal ones those
    # that a mean of squares has over a variance.
    if theirs.covariance_type in ("full", "tied"):
        condition = np.linalg.cond(theirs.covariances_).max()
    else:
        condition = (their_rows**2).mean(axis=0).max() / theirs.covariances_.min()
    record_property("condition of the covariances", float(condition))
    for name in ("precisions_", "precisions_cholesky_"):
        inverse = residual(getattr(ours, name), getattr(theirs, name))
        assert inverse <= TOLERANCE + 64 * np.finfo(float).eps * condition, name
    labels, others = ours.predict(rows), theirs.predict(their_rows)
    different = labels != others
    if different.any():
        two = np.sort(theirs.predict_proba(their_rows)[different], axis=1)[:, -2:]
        assert np.abs(two[:, 1] - two[:, 0]).max() <= TOLERANCE
    record_property("labels at a tie to rounding", int(different.sum()))
    assert labels.dtype == others.dtype
