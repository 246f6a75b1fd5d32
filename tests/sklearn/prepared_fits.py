"""Fitted estimators whose answers are prepared once, their answers, and copies of which nothing was prepared."""

import pickle
import warnings

import numpy as np
from sklearn.base import clone

from probem.results.fit import Fit

# One shape for all, which compiles once: two columns, two components.
RANDOM = np.random.default_rng(0)
ROWS = np.concatenate([RANDOM.normal(size=(60, 2)), RANDOM.normal(size=(60, 2)) * 0.5 + 3.0])
METHODS = ("predict", "predict_proba", "score_samples")


class Fits(dict):
    """A fitted estimator of each kind, by name, fitted when it is first asked for."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def __missing__(self, name):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.setdefault(name, clone(self.made[name]).fit(ROWS))


def copied(estimator):
    """An estimator with equal attributes, of which nothing was prepared."""
    return pickle.loads(pickle.dumps(estimator))


def answers(estimator, rows=ROWS):
    return [getattr(estimator, method)(rows) for method in METHODS]


def agree(estimator, rows=ROWS):
    """Whether the answers are those of an estimator that was never asked."""
    for ours, fresh in zip(answers(estimator, rows), answers(copied(estimator), rows), strict=True):
        np.testing.assert_array_equal(ours, fresh)
        assert ours.dtype == fresh.dtype
        assert ours.flags.writeable


def plans_made(monkeypatch):
    """Counts what is made of attributes."""
    made, at = [], Fit.at.__func__

    def counted(cls, *arguments):
        made.append(arguments)
        return at(cls, *arguments)

    monkeypatch.setattr(Fit, "at", classmethod(counted))
    return made
